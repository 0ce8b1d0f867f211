//! Reads the keys of a mapping one by one and knows which are left.

use std::collections::HashSet;

use crate::model::{Node, NodeKind, Vars};
use crate::source::{Location, Problem};
use crate::template::{is_template, kind_of};

/// A mapping whose keys are taken one by one.
pub(super) struct Fields<'a> {
    /// Where the mapping begins.
    pub at: &'a Location,
    entries: &'a [(String, Location, Node)],
    taken: HashSet<&'a str>,
    /// What was found wrong on the way.
    pub problems: Vec<Problem>,
}

pub(super) fn wrong_type(at: &Location, what: &str, wanted: &str, node: &Node) -> Problem {
    let found = kind_of(&node.to_value());
    Problem::new(
        "playbook::wrong_type",
        at,
        format!("{what} must be {wanted}, and is {found}"),
        found,
    )
}

impl<'a> Fields<'a> {
    /// Begins with a node; `None` (and a problem) if it is not a mapping.
    pub fn of(node: &'a Node, what: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match &node.kind {
            NodeKind::Mapping(entries) => Some(Self {
                at: &node.at,
                entries,
                taken: HashSet::new(),
                problems: Vec::new(),
            }),
            _ => {
                problems.push(wrong_type(&node.at, what, "a mapping", node));
                None
            }
        }
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _, _)| name == key)
    }

    /// Takes a key, whatever its value.
    pub fn take(&mut self, key: &str) -> Option<(&'a Location, &'a Node)> {
        let (name, at, node) = self.entries.iter().find(|(name, _, _)| name == key)?;
        self.taken.insert(name);
        Some((at, node))
    }

    /// Takes a value as it is; nothing (`key:`) counts as not given.
    pub fn node(&mut self, key: &str) -> Option<Node> {
        self.take(key)
            .filter(|(_, node)| node.kind != NodeKind::Null)
            .map(|(_, node)| node.clone())
    }

    /// Tells whether a key was taken.
    pub fn is_taken(&self, key: &str) -> bool {
        self.taken.contains(key)
    }

    /// Keys that were not taken, with their places and values.
    pub fn rest(&self) -> Vec<(&'a str, &'a Location, &'a Node)> {
        self.entries
            .iter()
            .filter(|(name, _, _)| !self.taken.contains(name.as_str()))
            .map(|(name, at, node)| (name.as_str(), at, node))
            .collect()
    }

    pub fn wrong(&mut self, key: &str, wanted: &str, node: &Node) {
        let problem = wrong_type(&node.at, &format!("`{key}`"), wanted, node);
        self.problems.push(problem);
    }

    /// A text; numbers and booleans are taken as written, for names.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let (_, node) = self.take(key)?;
        let text = scalar_text(node);
        if text.is_none() && node.kind != NodeKind::Null {
            self.wrong(key, "a text", node);
        }
        text
    }

    /// A text that names something for good, so that a template makes no sense in it.
    pub fn fixed_text(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        let at = self.take(key).map(|(_, node)| &node.at)?;
        if is_template(&text) {
            self.problems.push(
                Problem::new(
                    "playbook::fixed_value",
                    at,
                    format!("`{key}` cannot hold a template"),
                    "a template",
                )
                .with_help("write a fixed text"),
            );
            return None;
        }
        Some(text)
    }

    /// A variable's name.
    pub fn variable_name(&mut self, key: &str) -> Option<String> {
        let name = self.fixed_text(key)?;
        let at = self.take(key).map(|(_, node)| &node.at)?;
        if let Some(problem) = bad_name(&name, at) {
            self.problems.push(problem);
            return None;
        }
        Some(name)
    }

    /// A fixed yes or no.
    pub fn boolean(&mut self, key: &str) -> Option<bool> {
        let (_, node) = self.take(key)?;
        match &node.kind {
            NodeKind::Bool(value) => Some(*value),
            NodeKind::Null => None,
            NodeKind::String(text) if is_template(text) => {
                self.fixed_text(key);
                None
            }
            _ => {
                self.wrong(key, "true or false", node);
                None
            }
        }
    }

    /// A text or a list of texts; a text is split at commas.
    pub fn texts(&mut self, key: &str) -> Vec<String> {
        let Some((_, node)) = self.take(key) else {
            return Vec::new();
        };
        match &node.kind {
            NodeKind::Null => Vec::new(),
            NodeKind::Sequence(items) => {
                let mut texts = Vec::new();
                for item in items {
                    match scalar_text(item) {
                        Some(text) => texts.push(text),
                        None => self.wrong(key, "a list of texts", item),
                    }
                }
                texts
            }
            _ => match scalar_text(node) {
                Some(text) => text
                    .split(',')
                    .map(|part| part.trim().to_owned())
                    .filter(|part| !part.is_empty())
                    .collect(),
                None => {
                    self.wrong(key, "a text or a list of texts", node);
                    Vec::new()
                }
            },
        }
    }

    /// One expression or several: texts or booleans.
    pub fn expressions(&mut self, key: &str) -> Vec<Node> {
        let Some((_, node)) = self.take(key) else {
            return Vec::new();
        };
        let items = match &node.kind {
            NodeKind::Null => return Vec::new(),
            NodeKind::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut expressions = Vec::new();
        for item in items {
            match &item.kind {
                NodeKind::String(text) if !text.trim().is_empty() => expressions.push(item.clone()),
                NodeKind::Bool(_) => expressions.push(item.clone()),
                _ => self.wrong(key, "an expression or a list of expressions", item),
            }
        }
        expressions
    }

    /// A node or a list of nodes.
    pub fn nodes(&mut self, key: &str) -> Vec<Node> {
        match self.node(key) {
            None => Vec::new(),
            Some(Node {
                kind: NodeKind::Sequence(items),
                ..
            }) => items,
            Some(node) => vec![node],
        }
    }

    /// Named values.
    pub fn vars(&mut self, key: &str) -> Vars {
        let Some((_, node)) = self.take(key) else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        let vars = vars_of(node, &format!("`{key}`"), &mut problems);
        self.problems.extend(problems);
        vars
    }

    /// A mapping or a template that gives one.
    pub fn mapping(&mut self, key: &str) -> Option<Node> {
        let node = self.node(key)?;
        let fits = match &node.kind {
            NodeKind::Mapping(_) => true,
            NodeKind::String(text) => is_template(text),
            // Ansible takes a list of mappings, too; the later ones win.
            _ => false,
        };
        if !fits {
            self.wrong(key, "a mapping", &node);
            return None;
        }
        Some(node)
    }
}

/// Reads a mapping of variables.
pub(super) fn vars_of(node: &Node, what: &str, problems: &mut Vec<Problem>) -> Vars {
    match &node.kind {
        NodeKind::Null => Vec::new(),
        NodeKind::Mapping(entries) => {
            problems.extend(
                entries
                    .iter()
                    .filter_map(|(name, at, _)| bad_name(name, at)),
            );
            entries.clone()
        }
        _ => {
            problems.push(wrong_type(&node.at, what, "a mapping of variables", node));
            Vec::new()
        }
    }
}

pub(super) fn bad_name(name: &str, at: &Location) -> Option<Problem> {
    let mut characters = name.chars();
    let begins_well = characters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let goes_on_well = characters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    let reserved = [
        "and", "or", "not", "in", "is", "if", "else", "true", "false", "none",
    ];
    if begins_well && goes_on_well && !reserved.contains(&name.to_ascii_lowercase().as_str()) {
        return None;
    }
    Some(
        Problem::new(
            "playbook::variable_name",
            at,
            format!("`{name}` cannot be a variable's name"),
            "not a name",
        )
        .with_help("use letters, digits and `_`, and begin with a letter"),
    )
}

pub(super) fn scalar_text(node: &Node) -> Option<String> {
    match &node.kind {
        NodeKind::String(text) => Some(text.clone()),
        NodeKind::Number(number) => Some(number.to_string()),
        NodeKind::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}
