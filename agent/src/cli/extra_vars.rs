//! `-e`: `key=value …`, a YAML or JSON map, or `@FILE` with one.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::exit::Failure;
use crate::playbook;
use crate::source::SourceFile;
use crate::vault::Vault;

/// Reads all `-e` arguments; later ones win.
pub(super) fn read(arguments: &[String], vault: &Vault) -> Result<Map<String, Value>, Failure> {
    let mut variables = Map::new();
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
                variables.insert(key.to_owned(), Value::String(value.to_owned()));
            }
        }
    }
    Ok(variables)
}

fn file(path: &Path, vault: &Vault) -> Result<Map<String, Value>, Failure> {
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

fn map(name: &str, text: &str, vault: &Vault) -> Result<Map<String, Value>, Failure> {
    let source = Arc::new(SourceFile {
        path: name.into(),
        text: text.to_owned(),
    });
    match playbook::parse_with(&source, vault)
        .map_err(Failure::Problems)?
        .to_value()
    {
        Value::Object(map) => Ok(map),
        _ => Err(Failure::other(
            "arguments::extra_vars",
            format!("{name} holds no map of variables"),
            "write `name: value`, a variable a line",
        )),
    }
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
            Value::Object(read),
            serde_json::json!({"a": 2, "b": "two words", "c": ["x", true]})
        );
    }

    #[test]
    fn a_word_without_a_value_is_refused() {
        assert!(read(&["nonsense".to_owned()], &Vault::default()).is_err());
    }
}
