//! Regular expressions and replacements as Python's users write them, for filters and for modules that edit
//! text.

use regex::{Captures, Regex, RegexBuilder};

/// Builds a pattern, `set` choosing its options.
///
/// # Errors
/// What is wrong with it.
pub fn build(source: &str, set: impl FnOnce(&mut RegexBuilder)) -> Result<Regex, &'static str> {
    // Python's `\Z` is the very end.
    let mut builder = RegexBuilder::new(&source.replace(r"\Z", r"\z"));
    set(&mut builder);
    builder.build().map_err(|error| match error {
        regex::Error::Syntax(_) => {
            "the regular expression is not valid (look-around and back-references are not supported)"
        }
        _ => "the regular expression is too large",
    })
}

/// Fills Python's `\1`, `\g<1>` and `\g<name>`.
#[must_use]
pub fn expand(replacement: &str, found: &Captures<'_>) -> String {
    let mut text = String::with_capacity(replacement.len());
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let group = |name: &str| {
            name.parse::<usize>()
                .map_or_else(|_| found.name(name), |index| found.get(index))
                .map_or("", |group| group.as_str())
        };
        let digits = escape
            .bytes()
            .take(2)
            .take_while(u8::is_ascii_digit)
            .count();
        if digits > 0 {
            text.push_str(group(&escape[..digits]));
            rest = &escape[digits..];
        } else if let Some((name, after)) = escape
            .strip_prefix("g<")
            .and_then(|named| named.split_once('>'))
        {
            text.push_str(group(name));
            rest = after;
        } else {
            let mut characters = escape.chars();
            match characters.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('\\') | None => text.push('\\'),
                Some(other) => text.extend(['\\', other]),
            }
            rest = characters.as_str();
        }
    }
    text.push_str(rest);
    text
}
