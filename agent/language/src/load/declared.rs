//! `argument_spec` of a play: the variables that are set from outside.

use std::path::Path;

use serde_json::Value;

use super::Loader;
use super::fields::{Fields, bad_name, wrong_type};
use crate::declared::{Declarations, Declared, ValueType};
use crate::model::{Node, NodeKind};
use crate::source::{Location, Problem, closest};

/// What a declaration may say.
const KEYS: &[&str] = &[
    "type",
    "elements",
    "choices",
    "default",
    "required",
    "description",
    "no_log",
    "settled",
];

impl Loader<'_> {
    /// Reads `argument_spec`: a mapping of declarations, the name of a file that holds one, or a list of both.
    pub(super) fn declarations(
        &mut self,
        spec: Option<(&Location, &Node)>,
        from: &Path,
    ) -> Option<Declarations> {
        let (at, node) = spec?;
        let mut all = Declarations {
            at: at.clone(),
            variables: Vec::new(),
        };
        let parts = match &node.kind {
            NodeKind::Sequence(parts) => parts.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for part in parts {
            match &part.kind {
                NodeKind::String(_) => {
                    let Some(path) = self.fixed_path("argument_spec", part, from) else {
                        continue;
                    };
                    if let Some(content) = self.file(&path, "argument spec", Some(&part.at)) {
                        self.declarations_of(&content, &mut all);
                    }
                }
                _ => self.declarations_of(part, &mut all),
            }
        }
        Some(all)
    }

    fn declarations_of(&mut self, node: &Node, all: &mut Declarations) {
        let NodeKind::Mapping(entries) = &node.kind else {
            let problem = wrong_type(&node.at, "`argument_spec`", "a mapping of variables", node);
            self.problem(problem);
            self.names_incomplete = true;
            return;
        };
        for (name, at, node) in entries {
            if let Some(problem) = bad_name(name, at) {
                self.problem(problem);
                continue;
            }
            if let Some(first) = all.get(name) {
                let message = format!("`{name}` is declared twice, first at {}", first.at);
                let problem = Problem::new("playbook::duplicate_key", at, message, "a second time");
                self.problem(problem.with_help("keep one of them"));
                continue;
            }
            if let Some(declared) = self.declaration(name, at, node) {
                all.variables.push(declared);
            }
        }
    }

    fn declaration(&mut self, name: &str, at: &Location, node: &Node) -> Option<Declared> {
        let mut found = Vec::new();
        let what = format!("the declaration of `{name}`");
        let Some(mut fields) = Fields::of(node, &what, &mut found) else {
            self.problems.extend(found);
            return None;
        };
        let kind = self.value_type(&mut fields, "type");
        let elements = self.value_type(&mut fields, "elements");
        let choices: Vec<Value> = fields.nodes("choices").iter().map(Node::to_value).collect();
        let default = fields.node("default");
        let required = fields.boolean("required").unwrap_or(false);
        let no_log = fields.boolean("no_log").unwrap_or(false);
        let settled = fields.boolean("settled").unwrap_or(false);
        let description = fields.text("description").unwrap_or_default();
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            self.leftover("a declaration", key, at, &[KEYS], false);
        }
        let mut wrong = |message: String, help: &str| {
            let problem = Problem::new("playbook::wrong_type", at, message, "declared here");
            self.problem(problem.with_help(help));
        };
        if required && default.is_some() {
            wrong(
                format!("`{name}` is required and has a default"),
                "leave one of them out",
            );
        }
        if settled && no_log {
            wrong(
                format!("`{name}` is settled and a secret"),
                "a secret is not kept, so nobody could tell that it has changed: leave out `settled`",
            );
        }
        if description.trim().is_empty() {
            wrong(
                format!("`{name}` has no description"),
                "say in one line what it is for: `description: …`",
            );
        }
        let declared = Declared {
            name: name.to_owned(),
            at: at.clone(),
            kind: kind.unwrap_or(ValueType::Str),
            elements,
            choices,
            default,
            required,
            no_log,
            settled,
            description,
        };
        self.check_default(&declared);
        Some(declared)
    }

    /// A default that needs no rendering fits its own declaration.
    fn check_default(&mut self, declared: &Declared) {
        let Some(default) = &declared.default else {
            return;
        };
        if default.has_template() {
            return;
        }
        if let Err(misfit) = declared.fit(default.to_value()) {
            let message = format!("the default does not fit: {}", misfit.message);
            let problem = Problem::new("playbook::wrong_type", &default.at, message, "this one");
            self.problem(problem.with_optional_help(misfit.help));
        }
    }

    fn value_type(&mut self, fields: &mut Fields<'_>, key: &str) -> Option<ValueType> {
        let name = fields.fixed_text(key)?;
        let kind = ValueType::named(&name);
        if kind.is_none() {
            let at = fields.take(key).map_or(fields.at, |(_, node)| &node.at);
            let names: Vec<&str> = ValueType::NAMES.iter().map(|(name, _)| *name).collect();
            let help = match closest(&name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", names.join(", ")),
            };
            let message = format!("`{name}` is no type of a variable");
            let problem = Problem::new("playbook::wrong_type", at, message, "not known");
            self.problem(problem.with_help(help));
        }
        kind
    }
}
