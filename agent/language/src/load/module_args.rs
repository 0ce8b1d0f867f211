//! A module's arguments as tasks write them: a mapping, free form, or `key=value`.

use std::ops::Range;

use super::Loader;
use super::fields::scalar_text;
use crate::arguments::schema_of;
use crate::model::{Node, NodeKind};
use crate::source::{Location, Problem};
use crate::task::module::ModuleSpec;
use crate::template::{is_template, locate};

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
            match key_value(&text[word.clone()]) {
                Some((key, value)) => {
                    if entries.iter().any(|(known, _, _)| known == key) {
                        problem = Some(format!("`{key}` stands twice in the arguments"));
                    }
                    entries.push((
                        key.to_owned(),
                        locate(&node.at, text, word.clone()),
                        named(text, value, word, node),
                    ));
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
    let named = |word: &Range<usize>| {
        key_value(&text[word.clone()]).filter(|(key, _)| {
            *key != argument
                && schema
                    .get("properties")
                    .and_then(|properties| properties.get(*key))
                    .is_some()
        })
    };
    let mut rest = words(text);
    let mut entries: Vec<Entry> = Vec::new();
    let mut take = |word: Range<usize>, (key, value): (&str, &str)| {
        entries.push((
            key.to_owned(),
            locate(&node.at, text, word.clone()),
            part(text, value, word, node),
        ));
    };
    while let Some(found) = rest.first().and_then(named) {
        take(rest.remove(0), found);
    }
    while let Some(found) = rest.last().and_then(named) {
        if let Some(word) = rest.pop() {
            take(word, found);
        }
    }
    if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
        let value = if entries.is_empty() {
            node.clone()
        } else {
            let range = first.start..last.end;
            part(text, &text[range.clone()], range, node)
        };
        entries.insert(0, (argument.to_owned(), value.at.clone(), value));
    } else if entries.is_empty() {
        entries.push((argument.to_owned(), node.at.clone(), node.clone()));
    }
    entries
}

/// A part of a text, with its own place.
fn part(text: &str, value: &str, range: Range<usize>, node: &Node) -> Node {
    let start = text[range.clone()]
        .find(value)
        .map_or(range.start, |offset| range.start + offset);
    Node {
        kind: NodeKind::String(value.to_owned()),
        at: locate(&node.at, text, start..range.end),
    }
}

/// The value of a named argument: `\n` and the like are what they stand for.
fn named(text: &str, value: &str, range: Range<usize>, node: &Node) -> Node {
    let mut part = part(text, value, range, node);
    if value.contains('\\') {
        part.kind = NodeKind::String(unescaped(value));
    }
    part
}

fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match rest.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some(other @ ('\\' | '"' | '\'')) => text.push(other),
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }
    text
}

/// Splits at white space outside of quotes and templates.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut braces = 0_usize;
    let mut escaped = false;
    for (offset, character) in text.char_indices() {
        let splits = character.is_whitespace() && quote.is_none() && braces == 0 && !escaped;
        if splits {
            if let Some(start) = start.take() {
                words.push(start..offset);
            }
            continue;
        }
        start.get_or_insert(offset);
        if escaped {
            escaped = false;
            continue;
        }
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None => match character {
                '\'' | '"' => quote = Some(character),
                '{' => braces += 1,
                '}' => braces = braces.saturating_sub(1),
                '\\' => escaped = true,
                _ => {}
            },
        }
    }
    if let Some(start) = start {
        words.push(start..text.len());
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
