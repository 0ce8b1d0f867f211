//! How a text changes, line by line, for `--diff`.

use std::path::Path;

/// Texts longer than this, in lines, are not compared line by line.
const MAX_LINES: usize = 4000;
/// Unchanged lines that are shown around a change.
const AROUND: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Returns the lines of a unified difference; none where nothing changes.
pub(super) fn lines(path: &Path, old: Option<&str>, new: &str) -> Vec<String> {
    if old == Some(new) {
        return Vec::new();
    }
    let shown = path.display();
    let mut all = vec![
        match old {
            Some(_) => format!("--- {shown}"),
            None => "--- (nothing)".to_owned(),
        },
        format!("+++ {shown}"),
    ];
    let before: Vec<&str> = old.unwrap_or_default().lines().collect();
    let after: Vec<&str> = new.lines().collect();
    if before.len().max(after.len()) > MAX_LINES {
        all.push(format!(
            "{} lines become {} lines",
            before.len(),
            after.len()
        ));
        return all;
    }
    let compared = compare(&before, &after);
    let changed = |at: usize| !matches!(compared[at], Line::Same(_));
    let near = |at: usize| {
        let from = at.saturating_sub(AROUND);
        let to = (at + AROUND + 1).min(compared.len());
        (from..to).any(changed)
    };
    let mut hidden = false;
    for (at, line) in compared.iter().enumerate() {
        if !near(at) {
            hidden = true;
            continue;
        }
        if std::mem::take(&mut hidden) {
            all.push("@@".to_owned());
        }
        all.push(match line {
            Line::Same(text) => format!(" {text}"),
            Line::Gone(text) => format!("-{text}"),
            Line::New(text) => format!("+{text}"),
        });
    }
    if all.len() == 2 {
        all.push("only the end of the last line changes".to_owned());
    }
    all
}

/// The longest common sequence of lines stays; what is not in it goes, or is new.
fn compare<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    let (rows, columns) = (before.len() + 1, after.len() + 1);
    let mut longest = vec![0_u16; rows * columns];
    for (row, old) in before.iter().enumerate().rev() {
        for (column, new) in after.iter().enumerate().rev() {
            let below = |row: usize, column: usize| longest[row * columns + column];
            longest[row * columns + column] = match old == new {
                true => below(row + 1, column + 1) + 1,
                false => below(row + 1, column).max(below(row, column + 1)),
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut lines = Vec::new();
    while row < before.len() || column < after.len() {
        let same = row < before.len() && column < after.len() && before[row] == after[column];
        let goes = column == after.len()
            || row < before.len()
                && longest[(row + 1) * columns + column] >= longest[row * columns + column + 1];
        if same {
            lines.push(Line::Same(before[row]));
            row += 1;
            column += 1;
        } else if goes {
            lines.push(Line::Gone(before[row]));
            row += 1;
        } else {
            lines.push(Line::New(after[column]));
            column += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_shown_with_a_little_around_it() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj\n";
        let shown = lines(Path::new("/x"), Some(old), new);
        assert_eq!(
            shown,
            [
                "--- /x", "+++ /x", "@@", " b", " c", " d", "-e", "+E", " f", " g", " h", " i",
                "+j"
            ]
        );
        assert_eq!(
            lines(Path::new("/x"), None, "a\n"),
            ["--- (nothing)", "+++ /x", "+a"]
        );
        assert!(lines(Path::new("/x"), Some(old), old).is_empty());
        assert_eq!(lines(Path::new("/x"), Some("a"), "a\n").len(), 3);
    }
}
