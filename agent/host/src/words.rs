//! Splits a command line into words as a POSIX shell would, without being one: quotes and backslashes
//! work; pipes, redirections and the like are plain characters.

/// Splits a line.
///
/// # Errors
/// The text says which quote is not closed.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                        None => return Err("a single quote is not closed".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some('"') => break,
                        Some('\\') => match letters.next() {
                            // Inside double quotes only these lose their backslash.
                            Some(inner @ ('"' | '\\' | '$' | '`')) => word.push(inner),
                            Some('\n') => {}
                            Some(inner) => word.extend(['\\', inner]),
                            None => return Err("a double quote is not closed".into()),
                        },
                        Some(inner) => word.push(inner),
                        None => return Err("a double quote is not closed".into()),
                    }
                }
            }
            '\\' => match letters.next() {
                Some('\n') => {}
                Some(inner) => word.get_or_insert_default().push(inner),
                None => return Err("nothing follows the backslash at the end".into()),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Replaces `$NAME` and `${NAME}`; unknown names stay as they are, as in Ansible.
#[must_use]
pub fn expand(word: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, length) = if let Some(braced) = after.strip_prefix('{') {
            braced
                .find('}')
                .map_or(("", 0), |end| (&braced[..end], end + 2))
        } else {
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            (&after[..end], end)
        };
        match value_of(name).filter(|_| !name.is_empty()) {
            Some(value) => {
                out.push_str(&value);
                rest = &after[length..];
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_like_a_shell_does() {
        let words = |line| split(line).expect("closed");
        assert_eq!(
            words("a  'b c' \"d \\\" e\" f\\ g ''"),
            ["a", "b c", "d \" e", "f g", ""]
        );
        assert_eq!(words("echo a|b > c"), ["echo", "a|b", ">", "c"]);
        assert_eq!(words("a\\\n b"), ["a", "b"]);
        assert!(split("it's").is_err());
        assert!(split("a\\").is_err());
    }

    #[test]
    fn known_variables_are_replaced_and_unknown_ones_stay() {
        let value = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        assert_eq!(
            expand("$HOME/x ${HOME}y $NO ${NO} $ 5$", value),
            "/root/x /rooty $NO ${NO} $ 5$"
        );
    }
}
