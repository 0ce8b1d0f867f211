//! Arguments that modules of several families have, understood.

use std::path::Path;

use crate::host::glob::first_match;

/// Why there is nothing to do: what is to be created is there, or what is to be removed is not. Both may be
/// patterns.
#[must_use]
pub fn needless(creates: Option<&Path>, removes: Option<&Path>) -> Option<String> {
    if let Some(found) = creates.and_then(first_match) {
        return Some(format!("{} exists", found.display()));
    }
    let removes = removes?;
    first_match(removes)
        .is_none()
        .then(|| format!("{} does not exist", removes.display()))
}

/// What a command reads: `stdin`, with a line end where `stdin_add_newline` asks for one.
#[must_use]
pub fn stdin_text(stdin: Option<&String>, newline: bool) -> Option<String> {
    stdin.map(|text| match newline {
        true => format!("{text}\n"),
        false => text.clone(),
    })
}
