//! File name patterns (`*`, `?`, `[…]`): `creates` and `removes`, `find`, `with_fileglob`.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the first path that a pattern matches; a plain path matches itself where it exists.
#[must_use]
pub fn first_match(pattern: &Path) -> Option<PathBuf> {
    all_matches(pattern).into_iter().next()
}

/// Returns every path that a pattern matches, sorted in each folder.
#[must_use]
pub fn all_matches(pattern: &Path) -> Vec<PathBuf> {
    if !has_pattern(pattern.to_string_lossy().as_ref()) {
        let found = fs::symlink_metadata(pattern).ok();
        return found.map(|_| pattern.to_path_buf()).into_iter().collect();
    }
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().to_string_lossy();
        let mut next = Vec::new();
        for base in found {
            match part {
                Component::Normal(_) if has_pattern(&name) => {
                    let mut entries: Vec<_> = fs::read_dir(&base)
                        .into_iter()
                        .flatten()
                        .flatten()
                        .filter(|entry| matches(&name, &entry.file_name().to_string_lossy()))
                        .map(|entry| entry.path())
                        .collect();
                    entries.sort_unstable();
                    next.extend(entries);
                }
                _ => {
                    let path = base.join(part);
                    if fs::symlink_metadata(&path).is_ok() {
                        next.push(path);
                    }
                }
            }
        }
        found = next;
    }
    found
}

fn has_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn matches(pattern: &str, name: &str) -> bool {
    // As in a shell, a leading dot must be written.
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    regex::Regex::new(&regex_of(pattern)).is_ok_and(|regex| regex.is_match(name))
}

/// A shell pattern as a regular expression; as Python's `fnmatch`, `*` takes any character.
#[must_use]
pub fn regex_of(pattern: &str) -> String {
    let mut text = String::from(r"(?s)\A(?:");
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' => text.push_str(".*"),
            '?' => text.push('.'),
            '[' => {
                let mut class = String::new();
                if rest.next_if_eq(&'!').is_some() {
                    class.push('^');
                }
                if rest.next_if_eq(&']').is_some() {
                    class.push_str(r"\]");
                }
                let mut closed = false;
                for character in rest.by_ref() {
                    match character {
                        ']' => {
                            closed = true;
                            break;
                        }
                        '\\' | '[' | '^' | '&' | '~' => class.extend(['\\', character]),
                        other => class.push(other),
                    }
                }
                match closed {
                    true => text.push_str(&format!("[{class}]")),
                    false => text.push_str(&regex::escape(&format!("[{class}"))),
                }
            }
            other => text.push_str(&regex::escape(&other.to_string())),
        }
    }
    text.push_str(r")\z");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_find_the_first_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        for name in ["a1.sql", "a2.sql", ".hidden.sql", "b.txt"] {
            fs::write(dir.path().join(name), "").expect("write");
        }
        let find = |pattern: &str| {
            first_match(&dir.path().join(pattern)).map(|path| {
                path.file_name()
                    .expect("name")
                    .to_string_lossy()
                    .into_owned()
            })
        };
        assert_eq!(find("*.sql").as_deref(), Some("a1.sql"));
        assert_eq!(find("a[!1].s?l").as_deref(), Some("a2.sql"));
        assert_eq!(find("b.txt").as_deref(), Some("b.txt"));
        assert_eq!(find("*.csv"), None);
        assert_eq!(find("no/*.sql"), None);
    }

    #[test]
    fn shell_patterns_are_what_python_takes_them_for() {
        let fits = |pattern: &str, name: &str| {
            regex::Regex::new(&regex_of(pattern))
                .expect("valid")
                .is_match(name)
        };
        assert!(fits("*.txt", "a.txt") && !fits("*.txt", "a.txt2"));
        assert!(fits("a?[bc]", "axc") && !fits("a?[!bc]", "axc"));
        assert!(fits("[", "[") && fits("a.b", "a.b") && !fits("a.b", "axb"));
    }
}
