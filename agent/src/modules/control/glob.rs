//! File name patterns (`*`, `?`, `[…]`) of `creates` and `removes`.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the first path that a pattern matches; a plain path matches itself where it exists.
#[must_use]
pub fn first_match(pattern: &Path) -> Option<PathBuf> {
    if !has_pattern(pattern.to_string_lossy().as_ref()) {
        return fs::symlink_metadata(pattern)
            .ok()
            .map(|_| pattern.to_path_buf());
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
    found.into_iter().next()
}

fn has_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn matches(pattern: &str, name: &str) -> bool {
    // As in a shell, a leading dot must be written.
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut regex = String::from("^");
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => {
                let set: String = letters.by_ref().take_while(|c| *c != ']').collect();
                let (not, set) = match set.strip_prefix('!') {
                    Some(set) => ("^", set.to_owned()),
                    None => ("", set),
                };
                regex.push_str(&format!(
                    "[{not}{}]",
                    set.replace('\\', "\\\\").replace('[', "\\[")
                ));
            }
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex.push('$');
    regex::Regex::new(&regex).is_ok_and(|regex| regex.is_match(name))
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
}
