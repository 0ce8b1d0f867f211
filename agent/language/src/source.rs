//! Source files, positions in them, and problems that point at one.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

static SEEN_FROM: OnceLock<PathBuf> = OnceLock::new();

/// Sets the folder from which paths are seen in messages, once: files are known by their absolute names.
pub fn show_from(folder: PathBuf) {
    // The first one stays.
    let _ = SEEN_FROM.set(folder);
}

/// A path as a person would type it: without the folder that messages are read in.
#[must_use]
pub fn shown(path: &Path) -> std::path::Display<'_> {
    let seen_from = SEEN_FROM.get().filter(|folder| folder.parent().is_some());
    let below = seen_from.and_then(|folder| path.strip_prefix(folder).ok());
    below
        .filter(|below| !below.as_os_str().is_empty())
        .unwrap_or(path)
        .display()
}

/// A text file that was read once; positions refer to its bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path.
    pub path: PathBuf,
    /// Whole content.
    pub text: String,
}

/// A range of bytes in a source file.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: Arc<SourceFile>,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Location {
    /// Returns the 1-based line and column (in characters) of the first byte.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let mut start = self.start.min(self.file.text.len());
        while !self.file.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.file.text[..start];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", shown(&self.file.path))
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A mistake of the user's in a text file: what, where, and what to do next.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Stable code, `room::kind`, for looking it up.
    pub code: &'static str,
    /// Lower-case sentence without a full stop.
    pub message: String,
    /// Where.
    pub at: Location,
    /// A few words under the marked range.
    pub label: String,
    /// What to do next.
    pub help: Option<String>,
}

impl Problem {
    /// Makes a problem without a hint.
    pub fn new(
        code: &'static str,
        at: &Location,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            at: at.clone(),
            label: label.into(),
            help: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what to do next where it is known.
    #[must_use]
    pub fn with_optional_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.at)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let length = self.at.end.saturating_sub(self.at.start);
        let label = LabeledSpan::new(Some(self.label.clone()), self.at.start, length);
        Some(Box::new(std::iter::once(label)))
    }
}

impl SourceCode for Location {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let contents = self.file.text.read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            shown(&self.file.path).to_string(),
            contents.data(),
            *contents.span(),
            contents.line(),
            contents.column(),
            contents.line_count(),
        )))
    }
}

/// Returns the known name nearest to `name`, if one is near enough to be meant.
pub fn closest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    // With every letter different nothing is left of the name: `b` does not suggest `a`.
    let limit = (length / 3).max(1).min(length.saturating_sub(1));
    known
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance (adjacent swaps count once).
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=left.len() {
        for j in 1..=right.len() {
            let replace = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[left.len()][right.len()]
}

/// Gives miette a named source from a path and text, for problems that have no [`Location`].
#[must_use]
pub fn named_source(file: &SourceFile) -> NamedSource<String> {
    NamedSource::new(shown(&file.path).to_string(), file.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let file = Arc::new(SourceFile {
            path: "a.yml".into(),
            text: "ä: 1\nbö: x\n".into(),
        });
        let at = Location {
            start: file.text.find('x').expect("x is there"),
            end: 0,
            file,
        };
        assert_eq!(at.to_string(), "a.yml:2:5");
    }

    #[test]
    fn a_near_miss_is_suggested_and_a_far_one_is_not() {
        assert_eq!(closest("comand", ["copy", "command"]), Some("command"));
        assert_eq!(closest("flie", ["file", "fail"]), Some("file"));
        assert_eq!(closest("docker", ["file", "fail"]), None);
        assert_eq!(closest("b", ["a"]), None);
    }
}
