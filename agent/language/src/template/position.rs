//! Finds where a piece of a scalar's content stands in the source text.

use std::ops::Range;

use crate::source::Location;

/// Returns the place of `range` of a scalar's content, or the whole scalar where the source is written
/// in a way that cannot be followed (hexadecimal escapes, say).
pub(crate) fn locate(scalar: &Location, content: &str, range: Range<usize>) -> Location {
    let Some(raw) = scalar.file.text.get(scalar.start..scalar.end) else {
        return scalar.clone();
    };
    match follow(raw, content, &range) {
        Some((start, end)) if start < end => Location {
            file: scalar.file.clone(),
            start: scalar.start + start,
            end: scalar.start + end,
        },
        _ => scalar.clone(),
    }
}

#[derive(PartialEq)]
enum Style {
    Plain,
    Single,
    Double,
    Block,
}

/// Walks content and source side by side. White space is folded and indented differently in the two,
/// so only visible characters are compared.
fn follow(raw: &str, content: &str, range: &Range<usize>) -> Option<(usize, usize)> {
    let mut at = 0;
    while raw[at..].starts_with(['&', '!']) {
        let rest = &raw[at..];
        let word = rest.find(char::is_whitespace)?;
        at += word + rest[word..].find(|c: char| !c.is_whitespace())?;
    }
    let style = match raw[at..].chars().next()? {
        '\'' => Style::Single,
        '"' => Style::Double,
        '|' | '>' => Style::Block,
        _ => Style::Plain,
    };
    match style {
        Style::Block => at += raw[at..].find('\n')? + 1,
        Style::Plain => {}
        _ => at += 1,
    }
    let mut start = None;
    let mut end = None;
    for (offset, character) in content.char_indices() {
        if offset >= range.end {
            break;
        }
        if character.is_whitespace() {
            continue;
        }
        let from = loop {
            let next = raw[at..].chars().next()?;
            if next.is_whitespace() {
                at += next.len_utf8();
                continue;
            }
            if style == Style::Double && next == '\\' {
                let escaped = raw[at + 1..].chars().next()?;
                match escaped {
                    '"' | '\\' | '/' if escaped == character => {
                        let from = at;
                        at += 2;
                        break from;
                    }
                    // These stand for white space, which is passed over.
                    'n' | 't' | 'r' | ' ' | '_' | 'v' | 'f' | '\n' => {
                        at += 1 + escaped.len_utf8();
                        continue;
                    }
                    _ => return None,
                }
            }
            if next != character {
                return None;
            }
            let from = at;
            at += next.len_utf8();
            if style == Style::Single && next == '\'' {
                at += 1;
            }
            break from;
        };
        if offset >= range.start {
            start.get_or_insert(from);
            end = Some(at);
        }
    }
    Some((start?, end?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::source::SourceFile;

    #[test]
    fn a_word_is_found_in_every_style_of_scalar() {
        for (raw, content) in [
            ("a {{ word }}", "a {{ word }}"),
            ("'it''s {{ word }}'", "it's {{ word }}"),
            (r#""a\n\"b\" {{ word }}""#, "a\n\"b\" {{ word }}"),
            ("|\n    a\n    {{ word }}", "a\n{{ word }}\n"),
            (">-\n  a\n  {{ word }}", "a {{ word }}"),
            ("&x 'ü {{ word }}'", "ü {{ word }}"),
        ] {
            let file = Arc::new(SourceFile {
                path: "p".into(),
                text: raw.to_owned(),
            });
            let scalar = Location {
                file,
                start: 0,
                end: raw.len(),
            };
            let start = content.find("word").unwrap_or_default();
            let at = locate(&scalar, content, start..start + 4);
            assert_eq!(&raw[at.start..at.end], "word", "{raw}");
        }
    }
}
