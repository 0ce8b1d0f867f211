//! Variables from outside against what the plays declare.

use std::collections::BTreeSet;

use super::{KnownNames, Validator};
use crate::model::{Item, Play, Playbook, Vars};
use crate::source::{Location, Problem, closest};

/// Modules whose input files may use variables that no playbook mentions.
const READ_VARIABLES: &[&str] = &["template", "include_vars"];

impl Validator {
    /// A declared variable has one source of its value: a play's own variable of that name would always win.
    pub(super) fn declarations(&mut self, play: &Play) {
        let Some(declared) = &play.declared else {
            return;
        };
        let own = std::iter::once(&play.vars).chain(&play.vars_files);
        for (name, at, _) in own.flatten() {
            if let Some(known) = declared.get(name) {
                let message = format!("`{name}` is declared at {} and set here", known.at);
                self.problem(
                    Problem::new("playbook::declared_and_set", at, message, "set here")
                        .with_help("make this its `default`, or give the variable another name"),
                );
            }
        }
    }

    /// Every variable from outside is one that some play takes.
    pub(super) fn given(&mut self, playbook: &Playbook, known: &KnownNames) {
        let plays = &playbook.plays;
        let declared: Vec<_> = plays
            .iter()
            .filter_map(|play| play.declared.as_ref())
            .collect();
        for (name, at) in &known.given {
            let is_taken = declared.iter().any(|all| all.get(name).is_some())
                || plays
                    .iter()
                    .any(|play| play.prompts.iter().any(|prompt| prompt.name == *name));
            if is_taken || name.starts_with("ansible_") {
                continue;
            }
            if declared.len() == plays.len() && !plays.is_empty() {
                self.not_declared(plays, name, at);
            } else if !self.names.open && !may_be_used(playbook, name) {
                let names = plays.iter().flat_map(|play| self.names.all(play));
                let names: BTreeSet<String> = names.filter(|known| known != name).collect();
                let near = closest(name, names.iter().map(String::as_str));
                let message = format!("nothing in the playbook uses `{name}`");
                let warning = Problem::new("playbook::unused_variable", at, message, "not used");
                let help = near.map(|near| format!("did you mean `{near}`?"));
                self.findings
                    .warnings
                    .push(warning.with_optional_help(help));
            }
        }
    }

    fn not_declared(&mut self, plays: &[Play], name: &str, at: &Location) {
        let sets = |vars: &Vars| vars.iter().any(|(known, _, _)| known == name);
        let constant = plays
            .iter()
            .find(|play| sets(&play.vars) || play.vars_files.iter().any(sets));
        if let Some(play) = constant {
            let message = format!("`{name}` is a constant of play `{}`", play.name);
            self.problem(
                Problem::new("playbook::constant", at, message, "cannot be set")
                    .with_help("leave it out; `kaapana-agent variables` lists what can be set"),
            );
            return;
        }
        let names: BTreeSet<&str> = plays
            .iter()
            .filter_map(|play| play.declared.as_ref())
            .flat_map(|all| all.names())
            .collect();
        let help = match closest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`kaapana-agent variables PLAYBOOK` lists what can be set".to_owned(),
        };
        let message = format!("no play declares a variable `{name}`");
        self.problem(
            Problem::new("playbook::unknown_variable", at, message, "not known").with_help(help),
        );
    }
}

/// Whether the playbook mentions a name, or reads files that may.
fn may_be_used(playbook: &Playbook, name: &str) -> bool {
    let mentioned = playbook
        .sources
        .iter()
        .any(|source| mentions(&source.text, name));
    mentioned || playbook.plays.iter().any(|play| reads(&play.items))
}

/// Tells whether a text holds a name as a whole word.
#[must_use]
pub fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn reads(items: &[Item]) -> bool {
    items.iter().any(|item| match item {
        Item::Task(task) => READ_VARIABLES.contains(&task.module.name),
        Item::Block(block) => [&block.block, &block.rescue, &block.always]
            .into_iter()
            .any(|items| reads(items)),
    })
}
