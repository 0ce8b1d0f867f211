//! `-e`: `key=value …`, a YAML or JSON map, or `@FILE` with one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::exit::Failure;
use crate::playbook;
use crate::playbook::model::{Node, NodeKind};
use crate::source::{Location, SourceFile};
use crate::vault::Vault;

/// What `-e` gives.
#[derive(Debug, Clone, Default)]
pub(super) struct ExtraVars {
    pub values: Map<String, Value>,
    /// Where each name stands, in a text that shows no values: they may be secrets.
    pub places: BTreeMap<String, Location>,
}

impl ExtraVars {
    /// Values whose places are not known.
    pub fn of(values: Map<String, Value>) -> Self {
        Self {
            values,
            places: BTreeMap::new(),
        }
    }

    fn extend(&mut self, other: Self) {
        self.values.extend(other.values);
        self.places.extend(other.places);
    }
}

/// Reads all `-e` arguments; later ones win.
pub(super) fn read(arguments: &[String], vault: &Vault) -> Result<ExtraVars, Failure> {
    let mut variables = ExtraVars::default();
    for argument in arguments {
        let text = argument.trim();
        if let Some(path) = text.strip_prefix('@') {
            variables.extend(file(Path::new(path), vault)?);
        } else if text.starts_with('{') {
            variables.extend(map("-e", text, vault)?);
        } else {
            for pair in words(text) {
                let Some((key, value)) = pair.split_once('=') else {
                    return Err(Failure::other(
                        "arguments::extra_vars",
                        format!("`-e {argument}`: `{pair}` is no `key=value`"),
                        "write `-e key=value`, `-e '{key: value}'` or `-e @file.yaml`",
                    ));
                };
                variables.places.remove(key);
                variables
                    .values
                    .insert(key.to_owned(), Value::String(value.to_owned()));
            }
        }
    }
    Ok(variables)
}

fn file(path: &Path, vault: &Vault) -> Result<ExtraVars, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::other(
            "arguments::extra_vars",
            format!(
                "failed to read the variables file {}: {error}",
                path.display()
            ),
            "check the path after `-e @`",
        )
    })?;
    map(&path.display().to_string(), &text, vault)
}

fn map(name: &str, text: &str, vault: &Vault) -> Result<ExtraVars, Failure> {
    let source = Arc::new(SourceFile {
        path: name.into(),
        text: text.to_owned(),
    });
    let node = playbook::parse_with(&source, vault).map_err(Failure::Problems)?;
    match node.to_value() {
        Value::Object(values) => Ok(ExtraVars {
            places: places(&node, &source),
            values,
        }),
        _ => Err(Failure::other(
            "arguments::extra_vars",
            format!("{name} holds no map of variables"),
            "write `name: value`, a variable a line",
        )),
    }
}

/// Where the names stand, in a text in which everything but them is blank.
fn places(node: &Node, source: &SourceFile) -> BTreeMap<String, Location> {
    let NodeKind::Mapping(entries) = &node.kind else {
        return BTreeMap::new();
    };
    let is_name = |at: usize| {
        entries
            .iter()
            .any(|(_, name, _)| (name.start..name.end).contains(&at))
    };
    let text = source.text.char_indices().map(|(at, c)| match c {
        '\n' => "\n".to_owned(),
        c if is_name(at) => c.to_string(),
        // As long as what it stands for.
        c => " ".repeat(c.len_utf8()),
    });
    let blank = Arc::new(SourceFile {
        path: source.path.clone(),
        text: text.collect(),
    });
    let places = entries.iter().map(|(name, at, _)| {
        let at = Location {
            file: Arc::clone(&blank),
            ..at.clone()
        };
        (name.clone(), at)
    });
    places.collect()
}

/// Splits at white space outside quotes, and takes the quotes away.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            None => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_maps_and_quotes_are_read_and_the_last_wins() {
        let arguments = ["a=1 b='two words'", "{a: 2, c: [x, yes]}"].map(str::to_owned);
        let read = read(&arguments, &Vault::default()).expect("well-formed");
        assert_eq!(
            Value::Object(read.values),
            serde_json::json!({"a": 2, "b": "two words", "c": ["x", true]})
        );
    }

    #[test]
    fn the_place_of_a_name_shows_no_value() {
        let text = "a: 1\npässword: söcret\n";
        let read = map("vars.yaml", text, &Vault::default()).expect("a map");
        let place = &read.places["pässword"];
        assert_eq!(place.line_column(), (2, 1));
        let shown = &place.file.text;
        assert_eq!(shown.len(), text.len());
        assert_eq!(
            shown.split_whitespace().collect::<Vec<_>>(),
            ["a", "pässword"]
        );
    }

    #[test]
    fn a_word_without_a_value_is_refused() {
        assert!(read(&["nonsense".to_owned()], &Vault::default()).is_err());
    }
}
