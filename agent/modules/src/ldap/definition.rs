//! Definitions of a schema (RFC 4512, 4.1), as far as two spellings of one are told to be equal.
//!
//! slapd writes the definitions of its configuration in its own way: other blanks, other brackets, an
//! index in front. Its rule of equality compares texts, so we do it.

use std::collections::BTreeMap;

/// Tells whether values of this attribute are definitions.
#[must_use]
pub fn is_definition(attribute: &str) -> bool {
    [
        "olcAttributeTypes",
        "olcObjectClasses",
        "olcLdapSyntaxes",
        "olcDitContentRules",
    ]
    .iter()
    .any(|name| name.eq_ignore_ascii_case(attribute))
}

/// Tells whether both texts define the same.
#[must_use]
pub fn same_definition(a: &[u8], b: &[u8]) -> bool {
    a == b || meaning(a) == meaning(b)
}

/// Returns a form that is the same for all spellings of a definition.
#[must_use]
pub fn meaning(text: &[u8]) -> Vec<u8> {
    std::str::from_utf8(text)
        .ok()
        .and_then(clauses)
        .map_or_else(
            || text.to_vec(),
            |clauses| format!("{clauses:?}").into_bytes(),
        )
}

/// Words that take no value.
const FLAGS: [&str; 8] = [
    "OBSOLETE",
    "SINGLE-VALUE",
    "COLLECTIVE",
    "NO-USER-MODIFICATION",
    "ABSTRACT",
    "STRUCTURAL",
    "AUXILIARY",
    "X-ORDERED",
];

/// Returns the parts of a definition by their word; the identifier is under the empty one.
fn clauses(text: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let text = text.trim();
    // The index that slapd puts in front: `{12}( 1.2.3 …`.
    let text = match text.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?.1.trim_start(),
        None => text,
    };
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut tokens = tokens(inner)?.into_iter().peekable();
    let mut clauses = BTreeMap::from([(String::new(), vec![tokens.next()?.to_ascii_lowercase()])]);
    while let Some(word) = tokens.next() {
        let word = word.to_ascii_uppercase();
        let mut values = Vec::new();
        if !FLAGS.contains(&word.as_str()) {
            match tokens.next()? {
                open if open == "(" => loop {
                    match tokens.next()? {
                        close if close == ")" => break,
                        dollar if dollar == "$" => {}
                        value => values.push(value),
                    }
                },
                value => values.push(value),
            }
        }
        // Names are written in any case; a description is not.
        if word != "DESC" {
            values
                .iter_mut()
                .for_each(|value| value.make_ascii_lowercase());
        }
        clauses.insert(word, values);
    }
    // The kind of a class that says none.
    if clauses.contains_key("MUST") || clauses.contains_key("MAY") {
        let has_kind = ["ABSTRACT", "AUXILIARY"]
            .iter()
            .any(|kind| clauses.contains_key(*kind));
        if !has_kind {
            clauses.entry("STRUCTURAL".into()).or_default();
        }
    }
    Some(clauses)
}

/// Cuts into words, brackets and quoted texts, the last with their quotes.
fn tokens(text: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '(' | ')' | '$' => 1,
            '\'' => rest[1..].find('\'')? + 2,
            _ => rest
                .find(|c: char| c.is_whitespace() || "()$'".contains(c))
                .unwrap_or(rest.len()),
        };
        tokens.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_definition_are_equal() {
        let same = |a: &str, b: &str| same_definition(a.as_bytes(), b.as_bytes());
        assert!(same(
            "( 1.2.3 NAME 'a' DESC 'The  a' EQUALITY booleanMatch  SYNTAX 1.5 SINGLE-VALUE)",
            "{7}( 1.2.3 NAME 'A' DESC 'The  a' EQUALITY booleanMatch SYNTAX 1.5 SINGLE-VALUE )"
        ));
        assert!(same(
            "( 1.2 NAME 'c' SUP top MUST ( cn )  MAY  (\n a $ b) )",
            "( 1.2 NAME 'c' SUP top STRUCTURAL MUST cn MAY ( a $ b ) )"
        ));
        assert!(!same(
            "( 1.2 NAME 'c' MUST cn )",
            "( 1.2 NAME 'c' MUST sn )"
        ));
        assert!(!same("( 1.2 DESC 'a' )", "( 1.2 DESC 'A' )"));
        assert!(same("no definition", "no definition"));
    }
}
