//! YAML text -> [`Node`]s with places. The only folder that knows the YAML crates.
//!
//! `saphyr-parser` gives events with spans and scalar styles; `serde_yaml` reads the values. Where the
//! two disagree about a document's shape or a text, the document is refused rather than guessed at.
//! Plain scalars follow YAML 1.1 ([`super::scalar`]), because that is what Ansible's users write.

mod places;
mod reader;

use std::sync::Arc;

use serde_json::Value;
use serde_yaml::Value as Yaml;

use self::places::Places;
use self::reader::{Raw, RawKind, Reader, Typing};
use super::model::{Node, NodeKind};
use super::scalar::{Plain, resolve};
use crate::source::{Location, Problem, SourceFile};
use crate::vault::{Vault, VaultError};

/// Reads a YAML file that holds exactly one document.
///
/// # Errors
/// Everything that is wrong with the text, each with its place.
pub fn parse(file: &Arc<SourceFile>) -> Result<Node, Vec<Problem>> {
    parse_with(file, &Vault::default())
}

/// Reads a YAML file whose values, or all of it, may be encrypted.
///
/// # Errors
/// As [`parse`], and when something stays encrypted.
pub fn parse_with(file: &Arc<SourceFile>, vault: &Vault) -> Result<Node, Vec<Problem>> {
    if Vault::is_encrypted(&file.text) {
        return encrypted(file, vault);
    }
    let places = Places::new(file);
    let root = Reader::new(&places, vault).document()?;
    let values: Yaml = serde_yaml::from_str(&file.text).map_err(|error| {
        let at = error.location().map_or_else(
            || places.file_start(),
            |place| places.at_line_column(place.line(), place.column()),
        );
        vec![places.syntax_problem(at, &without_position(&error.to_string()), &[])]
    })?;
    let mut problems = Vec::new();
    let node = root.combine(&values, &mut problems);
    match (node, problems.is_empty()) {
        (Some(node), true) => Ok(node),
        _ => Err(problems),
    }
}

/// A file that is encrypted as a whole. What is inside has no place that could be shown: every node is at
/// the file's first line.
fn encrypted(file: &Arc<SourceFile>, vault: &Vault) -> Result<Node, Vec<Problem>> {
    let at = Location {
        file: Arc::clone(file),
        start: 0,
        end: file.text.find('\n').unwrap_or(file.text.len()),
    };
    let plain = vault
        .open(&file.text)
        .map_err(|error| vec![locked(&at, &error)])?;
    let inner = Arc::new(SourceFile {
        path: file.path.clone(),
        text: plain,
    });
    let node = parse(&inner).map_err(|problems| {
        let first = problems.first().map(|problem| problem.at.line_column());
        let (line, column) = first.unwrap_or_default();
        vec![
            Problem::new(
                "playbook::yaml_syntax",
                &at,
                format!("what is encrypted here is not valid YAML (line {line}, column {column})"),
                "encrypted",
            )
            .with_help("look at it with `ansible-vault view`"),
        ]
    })?;
    let value = node.to_value();
    texts(&value, &mut |text| vault.remember(text));
    Ok(Node::of_value(&value, &at))
}

fn texts(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, each)),
        Value::Object(map) => map.values().for_each(|item| texts(item, each)),
        _ => {}
    }
}

/// Something that cannot be decrypted.
fn locked(at: &Location, error: &VaultError) -> Problem {
    Problem::new("playbook::vault", at, error.to_string(), "encrypted").with_help(error.help())
}

/// Writes a value as block-style YAML, keys sorted as Ansible's filters do.
pub(super) fn to_text(value: &Value) -> Option<String> {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(sorted).collect(),
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                entries
                    .into_iter()
                    .map(|(key, item)| (key.clone(), sorted(item)))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }
            other => other.clone(),
        }
    }
    serde_yaml::to_string(&sorted(value)).ok()
}

/// Cuts serde_yaml's own ` at line 1 column 2` off: the problem carries the place.
fn without_position(message: &str) -> String {
    let parts: Vec<&str> = message
        .split(", ")
        .map(|part| part.split(" at line ").next().unwrap_or(part))
        .collect();
    parts.join(", ")
}

impl Raw {
    /// Puts the values that serde_yaml read at the places that the events gave.
    fn combine(&self, value: &Yaml, problems: &mut Vec<Problem>) -> Option<Node> {
        let kind = match &self.kind {
            RawKind::Scalar {
                text,
                typing: Typing::Plain,
            } => match resolve(text) {
                Plain::Null => NodeKind::Null,
                Plain::Bool(value) => NodeKind::Bool(value),
                Plain::Number(value) => NodeKind::Number(value),
                // Unfit numbers have been refused before.
                Plain::Text | Plain::Unfit(_) => NodeKind::String(text.clone()),
            },
            RawKind::Scalar {
                text,
                typing: Typing::Secret,
            } => NodeKind::String(text.clone()),
            RawKind::Scalar { text, .. } => match untagged(value) {
                Yaml::String(value) if value == text => NodeKind::String(value.clone()),
                _ => return self.disagree(problems),
            },
            RawKind::Sequence(items) => match untagged(value) {
                Yaml::Sequence(values) if values.len() == items.len() => {
                    let nodes: Vec<_> = items
                        .iter()
                        .zip(values)
                        .filter_map(|(item, value)| item.combine(value, problems))
                        .collect();
                    NodeKind::Sequence(nodes)
                }
                _ => return self.disagree(problems),
            },
            RawKind::Mapping(entries) => {
                let Yaml::Mapping(values) = untagged(value) else {
                    return self.disagree(problems);
                };
                let mut nodes = Vec::with_capacity(entries.len());
                for (key, at, item) in entries {
                    let Some(value) = lookup(values, key) else {
                        item.disagree(problems);
                        continue;
                    };
                    if let Some(node) = item.combine(value, problems) {
                        nodes.push((key.clone(), at.clone(), node));
                    }
                }
                NodeKind::Mapping(nodes)
            }
        };
        Some(Node {
            kind,
            at: self.at.clone(),
        })
    }

    fn disagree(&self, problems: &mut Vec<Problem>) -> Option<Node> {
        problems.push(
            Problem::new(
                "playbook::yaml_ambiguous",
                &self.at,
                "YAML 1.1 and YAML 1.2 read this differently",
                "ambiguous",
            )
            .with_help("write it in a plainer way: quote texts, indent with spaces"),
        );
        None
    }
}

fn untagged(value: &Yaml) -> &Yaml {
    match value {
        Yaml::Tagged(tagged) => untagged(&tagged.value),
        other => other,
    }
}

/// Finds a key in its own mapping or in those merged into it, nearest first.
fn lookup<'a>(values: &'a serde_yaml::Mapping, key: &str) -> Option<&'a Yaml> {
    if let Some(value) = values.get(key) {
        return Some(value);
    }
    match values.get("<<").map(untagged)? {
        Yaml::Mapping(merged) => lookup(merged, key),
        Yaml::Sequence(items) => items.iter().find_map(|item| match untagged(item) {
            Yaml::Mapping(merged) => lookup(merged, key),
            _ => None,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
