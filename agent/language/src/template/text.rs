//! Makes template text ready for the engine: finds a lone `{{ expression }}` and keeps backslashes
//! inside it literal, as playbooks expect. Remembers what was inserted, for places in messages.

/// A text ready for the engine.
#[derive(Debug, PartialEq)]
pub(super) struct Prepared {
    /// What the engine compiles: an expression if `is_expression`, else a template.
    pub source: String,
    /// Whether the whole text is one expression, whose value keeps its type.
    pub is_expression: bool,
    /// Where `source` begins in the original text.
    base: usize,
    /// Offsets in `source` of characters that the original does not have.
    inserted: Vec<usize>,
}

impl Prepared {
    /// Returns the original text's offset for one in `source`.
    pub fn original(&self, offset: usize) -> usize {
        let inserted = self.inserted.partition_point(|at| *at < offset);
        self.base + offset - inserted
    }

    /// Returns the text as a template, for the engine's own account of an undefined result.
    pub fn as_template(&self) -> String {
        format!("{{{{ {} }}}}", self.source)
    }
}

/// Tells whether a text needs the template engine at all.
#[must_use]
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Prepares a value of a playbook.
pub(super) fn prepare(text: &str) -> Prepared {
    let mut source = String::with_capacity(text.len());
    let mut inserted = Vec::new();
    let mut rest = 0;
    while let Some(found) = next_tag(text, rest) {
        source.push_str(&text[rest..found.start]);
        match found.kind {
            Tag::Expression => {
                let end = expression_end(text, found.start + 2);
                if found.start == 0 && end == text.len() && text.ends_with("}}") {
                    return lone(text);
                }
                copy_expression(&text[found.start..end], &mut source, &mut inserted);
                rest = end;
            }
            Tag::Comment => {
                let end = text[found.start..]
                    .find("#}")
                    .map_or(text.len(), |at| found.start + at + 2);
                source.push_str(&text[found.start..end]);
                rest = end;
            }
            Tag::Statement => {
                let mut end = text[found.start..]
                    .find("%}")
                    .map_or(text.len(), |at| found.start + at + 2);
                if is_raw(&text[found.start..end]) {
                    end = raw_end(text, end);
                }
                source.push_str(&text[found.start..end]);
                rest = end;
            }
        }
    }
    source.push_str(&text[rest..]);
    Prepared {
        source,
        is_expression: false,
        base: 0,
        inserted,
    }
}

/// Prepares a bare expression (`when`); braces around the whole of it are tolerated.
pub(super) fn prepare_expression(text: &str) -> Prepared {
    let trimmed = text.trim();
    let base = text.len() - text.trim_start().len();
    if trimmed.starts_with("{{")
        && trimmed.len() >= 4
        && trimmed.ends_with("}}")
        && expression_end(trimmed, 2) == trimmed.len()
    {
        let mut prepared = lone(trimmed);
        prepared.base += base;
        return prepared;
    }
    let mut source = String::with_capacity(trimmed.len());
    let mut inserted = Vec::new();
    copy_expression(trimmed, &mut source, &mut inserted);
    Prepared {
        source,
        is_expression: true,
        base,
        inserted,
    }
}

fn lone(text: &str) -> Prepared {
    let inner = &text[2..text.len() - 2];
    let stripped = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let mut base = 2 + inner.len() - stripped.len();
    let stripped = stripped.strip_suffix('-').unwrap_or(stripped);
    base += stripped.len() - stripped.trim_start().len();
    let mut source = String::with_capacity(stripped.len());
    let mut inserted = Vec::new();
    copy_expression(stripped.trim(), &mut source, &mut inserted);
    Prepared {
        source,
        is_expression: true,
        base,
        inserted,
    }
}

enum Tag {
    Expression,
    Statement,
    Comment,
}

struct Found {
    start: usize,
    kind: Tag,
}

fn next_tag(text: &str, from: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    (from..bytes.len().saturating_sub(1)).find_map(|start| {
        let kind = match (bytes[start], bytes[start + 1]) {
            (b'{', b'{') => Tag::Expression,
            (b'{', b'%') => Tag::Statement,
            (b'{', b'#') => Tag::Comment,
            _ => return None,
        };
        Some(Found { start, kind })
    })
}

/// Returns the offset behind the `}}` that ends the expression, or the text's length.
fn expression_end(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut depth = 0_usize;
    let mut at = from;
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            Some(open) => {
                if byte == b'\\' && bytes.get(at + 1) == Some(&open) {
                    at += 1;
                } else if byte == open {
                    quote = None;
                }
            }
            None => match byte {
                b'\'' | b'"' => quote = Some(byte),
                b'{' | b'[' | b'(' => depth += 1,
                b'}' if depth == 0 && bytes.get(at + 1) == Some(&b'}') => return at + 2,
                b'}' | b']' | b')' => depth = depth.saturating_sub(1),
                _ => {}
            },
        }
        at += 1;
    }
    text.len()
}

/// Copies an expression and doubles the backslashes inside its texts, except one that escapes the
/// text's own quote.
fn copy_expression(text: &str, source: &mut String, inserted: &mut Vec<usize>) {
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match quote {
            Some(open) if character == '\\' => {
                source.push('\\');
                if characters.peek() == Some(&open) {
                    source.push(open);
                    characters.next();
                } else {
                    inserted.push(source.len());
                    source.push('\\');
                }
                continue;
            }
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => {}
        }
        source.push(character);
    }
}

fn is_raw(tag: &str) -> bool {
    tag.trim_start_matches("{%")
        .trim_end_matches("%}")
        .trim_matches(['-', '+'])
        .trim()
        == "raw"
}

fn raw_end(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(start) = text[at..].find("{%").map(|found| at + found) {
        let end = text[start..]
            .find("%}")
            .map_or(text.len(), |found| start + found + 2);
        let inner = text[start..end]
            .trim_start_matches("{%")
            .trim_end_matches("%}");
        if inner.trim_matches(['-', '+']).trim() == "endraw" {
            return end;
        }
        at = end;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_expression_is_found_and_a_mixed_text_is_not() {
        for (text, expression) in [
            ("{{ a }}", Some("a")),
            ("{{- a -}}", Some("a")),
            ("{{ {'a': {'b': 1}} }}", Some("{'a': {'b': 1}}")),
            ("{{ '}}' }}", Some("'}}'")),
            ("{{ a }}{{ b }}", None),
            ("x{{ a }}", None),
            ("{{ a }}\n", None),
            ("{{ a", None),
        ] {
            let prepared = prepare(text);
            assert_eq!(
                prepared.is_expression.then_some(prepared.source.as_str()),
                expression,
                "{text}"
            );
        }
    }

    #[test]
    fn backslashes_in_expressions_are_doubled_and_offsets_lead_back() {
        let prepared = prepare(r"{{ 'a\d' | nofilter }}");
        assert_eq!(prepared.source, r"'a\\d' | nofilter");
        let at = prepared.source.find("nofilter").unwrap_or_default();
        assert_eq!(prepared.original(at), r"{{ 'a\d' | ".len());
        assert_eq!(prepare(r"{{ 'it\'s' }}").source, r"'it\'s'");
        assert_eq!(
            prepare(r"a\b {% set x = '\n' %}").source,
            r"a\b {% set x = '\n' %}"
        );
    }
}
