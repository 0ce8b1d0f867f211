//! Words for a POSIX shell.

/// A word that any shell reads as this text.
#[must_use]
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Splits words as a shell does: `ansible_ssh_common_args`. Quotes and backslashes count, nothing is
/// expanded; an open quote ends with the text.
#[must_use]
pub(super) fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => {
                word.extend(chars.next());
                begun = true;
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                begun = true;
            }
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in [
            "",
            "plain",
            "two words",
            "it's",
            "$HOME `id` \"x\" \\",
            "ä\nö",
        ] {
            let script = format!("printf %s {}", quoted(text));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            assert_eq!(output.expect("sh").stdout, text.as_bytes(), "{script}");
            assert_eq!(words(&quoted(text)), [text], "{text}");
        }
    }

    #[test]
    fn options_in_one_text_come_apart_as_a_shell_takes_them_apart() {
        let text = r#"-o ProxyCommand="ssh -W %h:%p 'jump host'"  -J a\ b ''"#;
        let expected = [
            "-o",
            "ProxyCommand=ssh -W %h:%p 'jump host'",
            "-J",
            "a b",
            "",
        ];
        assert_eq!(words(text), expected);
    }
}
