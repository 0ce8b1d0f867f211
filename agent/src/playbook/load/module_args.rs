//! A module's arguments as tasks write them: a mapping, free form, or `key=value`.

use super::Loader;
use super::fields::scalar_text;
use crate::modules::ModuleSpec;
use crate::playbook::arguments::schema_of;
use crate::playbook::model::{Node, NodeKind};
use crate::playbook::template::is_template;
use crate::source::{Location, Problem};

/// One mapping entry: name, place of the name, value.
type Entry = (String, Location, Node);

impl Loader<'_> {
    /// Returns the arguments as a mapping.
    pub(super) fn arguments(
        &mut self,
        spec: &ModuleSpec,
        name_at: &Location,
        node: &Node,
    ) -> Option<Vec<Entry>> {
        match &node.kind {
            NodeKind::Mapping(entries) => Some(entries.clone()),
            NodeKind::Null => Some(Vec::new()),
            NodeKind::String(text) => match spec.free_form {
                Some(argument) => Some(free_form(spec, argument, text, node)),
                None => self.shorthand(spec, name_at, text, node),
            },
            _ => {
                // A number is a fine free form (`pause: 5`), a list is one for `assert`.
                if let Some(argument) = spec.free_form {
                    return Some(vec![(argument.to_owned(), node.at.clone(), node.clone())]);
                }
                self.problem(
                    super::fields::wrong_type(
                        &node.at,
                        &format!("the arguments of `{}`", spec.name),
                        "a mapping",
                        node,
                    )
                    .with_help(format!("for example:\n{}", spec.example.trim_end())),
                );
                None
            }
        }
    }

    /// `path=/x state=directory`
    fn shorthand(
        &mut self,
        spec: &ModuleSpec,
        name_at: &Location,
        text: &str,
        node: &Node,
    ) -> Option<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut problem = None;
        for word in words(text) {
            match key_value(&word) {
                Some((key, value)) => {
                    if entries.iter().any(|(known, _, _)| known == key) {
                        problem = Some(format!("`{key}` stands twice in the arguments"));
                    }
                    entries.push((key.to_owned(), node.at.clone(), text_node(value, node)));
                }
                None => problem = Some(format!("`{}` takes named arguments", spec.name)),
            }
        }
        let Some(message) = problem else {
            return Some(entries);
        };
        let help = if is_template(text) {
            "write the arguments out, each with its own template".to_owned()
        } else {
            format!("for example:\n{}", spec.example.trim_end())
        };
        let at = if entries.is_empty() {
            name_at
        } else {
            &node.at
        };
        self.problem(Problem::new("playbook::arguments", at, message, "not named").with_help(help));
        None
    }
}

/// `creates=/x chdir=/y ls -l`: named arguments that the module has, before or behind the text.
fn free_form(spec: &ModuleSpec, argument: &str, text: &str, node: &Node) -> Vec<Entry> {
    let schema = schema_of(spec);
    let has = |name: &str| {
        name != argument
            && schema
                .get("properties")
                .and_then(|properties| properties.get(name))
                .is_some()
    };
    let named = |word: &str| {
        key_value(word)
            .filter(|(key, _)| has(key))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = text.trim();
    loop {
        let Some(word) = words(rest).into_iter().next() else {
            break;
        };
        let Some((key, value)) = named(&word) else {
            break;
        };
        entries.push((key, node.at.clone(), text_node(&value, node)));
        rest = rest[word.len()..].trim_start();
    }
    loop {
        let Some(word) = words(rest)
            .pop()
            .filter(|word| rest.ends_with(word.as_str()))
        else {
            break;
        };
        let Some((key, value)) = named(&word) else {
            break;
        };
        entries.push((key, node.at.clone(), text_node(&value, node)));
        rest = rest[..rest.len() - word.len()].trim_end();
    }
    if !rest.is_empty() || entries.is_empty() {
        let value = if entries.is_empty() {
            node.clone()
        } else {
            text_node(rest, node)
        };
        entries.insert(0, (argument.to_owned(), node.at.clone(), value));
    }
    entries
}

fn text_node(text: &str, near: &Node) -> Node {
    Node {
        kind: NodeKind::String(text.to_owned()),
        at: near.at.clone(),
    }
}

/// Splits at white space outside of quotes and templates; quotes stay.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut braces = 0_usize;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None => match character {
                '\'' | '"' => quote = Some(character),
                '{' => braces += 1,
                '}' => braces = braces.saturating_sub(1),
                '\\' if characters.peek().is_some() => {
                    word.push(character);
                    if let Some(next) = characters.next() {
                        word.push(next);
                    }
                    continue;
                }
                _ if character.is_whitespace() && braces == 0 => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                    continue;
                }
                _ => {}
            },
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes `key=value` apart; quotes around the value go.
fn key_value(word: &str) -> Option<(&str, &str)> {
    let (key, value) = word.split_once('=')?;
    let is_name = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !key.is_empty();
    let value = ['\'', '"']
        .iter()
        .find_map(|quote| {
            value
                .strip_prefix(*quote)
                .and_then(|value| value.strip_suffix(*quote))
        })
        .unwrap_or(value);
    is_name.then_some((key, value))
}

/// Puts the `args` keyword's entries below those that the task gives with the module.
pub(super) fn add_below(entries: &mut Vec<Entry>, below: &[Entry]) {
    for entry in below {
        if !entries.iter().any(|(known, _, _)| *known == entry.0) {
            entries.push(entry.clone());
        }
    }
}

/// Returns the path or text of a scalar, for messages.
pub(super) fn shown(node: &Node) -> String {
    scalar_text(node).unwrap_or_default()
}
