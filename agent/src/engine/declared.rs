//! The variables that plays declare: whether their values fit, and what the first effect has settled.

use std::collections::BTreeMap;

use serde_json::Value;

use super::frame::Frame;
use super::plan::{PlanAction, PlanEntry};
use super::resolve::tasks_of;
use super::run::{Engine, RunError};
use super::session::Session;
use crate::playbook::declared::{Declared, plain};
use crate::playbook::model::{Node, Play, Task};
use crate::playbook::template::Scope;
use crate::source::{Location, Problem};
use crate::state::{Body, History, StateError, TaskHistory};

/// Where a variable's value comes from.
struct Given {
    node: Node,
    at: Location,
}

impl Engine {
    /// Fits what is given for declared variables to their types and choices; texts of `-e` become what the
    /// declaration says.
    ///
    /// # Errors
    /// Every value that does not fit.
    pub(super) fn fit_declared(&mut self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut fitted = Vec::new();
        for play in &self.playbook.plays {
            let scope = self.play_scope(&self.root_scope(), play);
            for declared in play.declared.iter().flat_map(|all| &all.variables) {
                match self.fit_one(declared, &scope) {
                    Ok(Some(value)) => fitted.push((declared.name.clone(), value)),
                    Ok(None) => {}
                    Err(problem) => problems.push(problem),
                }
            }
        }
        for (name, value) in fitted {
            if let Some(given) = self.options.extra_vars.get_mut(&name) {
                *given = value;
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Returns the value to take instead of the one that `-e` gave.
    fn fit_one(&self, declared: &Declared, scope: &Scope) -> Result<Option<Value>, Problem> {
        let Some(given) = self.given(declared) else {
            return Ok(None);
        };
        let value = self
            .templates
            .render(&given.node, scope)
            .map_err(|problem| {
                // Its place may be one without a text.
                Problem {
                    at: given.at.clone(),
                    ..problem
                }
            })?;
        match declared.fit(value) {
            Ok(value) if !given.node.has_template() => Ok(Some(value)),
            Ok(_) => Ok(None),
            Err(misfit) => {
                let help = misfit.help.unwrap_or_else(|| declared.description.clone());
                Err(Problem::new(
                    "playbook::wrong_value",
                    &given.at,
                    misfit.message,
                    "given here",
                )
                .with_help(help))
            }
        }
    }

    /// What is given for a variable from outside: by `-e`, else by a prompt, else by the inventory.
    fn given(&self, declared: &Declared) -> Option<Given> {
        let name = &declared.name;
        let place = |node: &Node| {
            let known = self.options.extra_places.get(name);
            known.cloned().unwrap_or_else(|| node.at.clone())
        };
        let outside = |value: &Value| {
            let node = Node::of_extra(name, value);
            Given {
                at: place(&node),
                node,
            }
        };
        let extra = self.options.extra_vars.get(name).map(outside);
        let prompted = || self.options.prompted.get(name).map(outside);
        extra.or_else(prompted).or_else(|| {
            let inventory = &self.options.host.vars;
            let found = inventory.iter().rev().find(|(known, _, _)| known == name);
            found.map(|(_, at, node)| Given {
                node: node.clone(),
                at: at.clone(),
            })
        })
    }

    /// Refuses to go on without a variable that has to be set.
    ///
    /// # Errors
    /// [`RunError::Invalid`] with every such variable.
    pub fn require_declared(&self) -> Result<(), RunError> {
        let mut problems = Vec::new();
        for play in &self.playbook.plays {
            let scope = self.play_scope(&self.root_scope(), play);
            let declared = play.declared.iter().flat_map(|all| &all.variables);
            for known in declared.filter(|known| known.required) {
                let is_set = match self.value_now(known, &scope) {
                    None | Some(Value::Null) => false,
                    Some(Value::String(text)) => !text.is_empty(),
                    Some(_) => true,
                };
                if !is_set {
                    let name = &known.name;
                    let message = format!("`{name}` is not set");
                    problems.push(
                        Problem::new("playbook::variable_not_set", &known.at, message, "required")
                            .with_help(format!(
                                "{}; set it in your variables file, or with `-e {name}=…`",
                                known.description.trim_end_matches('.')
                            )),
                    );
                }
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(RunError::Invalid(problems))
        }
    }

    /// A declared variable's value, as far as it can be told before anything ran.
    fn value_now(&self, declared: &Declared, scope: &Scope) -> Option<Value> {
        let node = self
            .given(declared)
            .map(|given| given.node)
            .or_else(|| declared.default.clone())?;
        let value = self.templates.render(&node, scope).ok()?;
        declared.fit(value).ok()
    }

    /// What a play's settled variables are now.
    fn settled_now(&self, play: &Play) -> BTreeMap<String, Value> {
        let scope = self.play_scope(&self.root_scope(), play);
        let declared = play.declared.iter().flat_map(|all| &all.variables);
        declared
            .filter(|known| known.settled && !known.no_log)
            .filter_map(|known| {
                let value = self.value_now(known, &scope)?;
                Some((known.name.clone(), self.redactor.value(&value)))
            })
            .collect()
    }

    /// Tells whether a play with settled variables has had effects, and no record holds them: an older agent
    /// wrote the journal.
    pub(super) fn unheld<'p>(&self, history: &History, play: &'p Play, frame: &Frame<'p>) -> bool {
        let declared = play.declared.iter().flat_map(|all| &all.variables);
        if history.settled.contains_key(&play.name) || !declared.into_iter().any(|v| v.settled) {
            return false;
        }
        let has_effect = |task: &Task| {
            let known = history.task(self.identities.get(task));
            !task.is_look()
                && matches!(
                    known,
                    Some(TaskHistory::Finished(_) | TaskHistory::Interrupted(_))
                )
        };
        let tasks = tasks_of(self, play, frame);
        tasks.iter().any(|(task, _)| has_effect(task))
    }

    /// The settled variables that are not what they were when the play had its first effect: each of them
    /// would make a later task work on something else than the earlier ones did.
    pub(super) fn changed_settled(&self, history: &History) -> Vec<PlanEntry> {
        let mut changed = Vec::new();
        for play in &self.playbook.plays {
            let Some(then) = history.settled.get(&play.name) else {
                continue;
            };
            let now = self.settled_now(play);
            for (name, was) in then {
                let declared = play.declared.as_ref().and_then(|all| all.get(name));
                let Some((declared, is)) = declared.zip(now.get(name)) else {
                    continue;
                };
                if declared.same(was, is) {
                    continue;
                }
                changed.push(PlanEntry {
                    task: format!("{} / {name}", play.name),
                    name: name.clone(),
                    module: "argument_spec".to_owned(),
                    action: PlanAction::Decide,
                    why: format!(
                        "`{name}` was {} when the migration began and is {} now; put it back",
                        shown(was),
                        shown(is)
                    ),
                    details: vec![format!(
                        "to begin anew with another value, first take back what was done: `{}`",
                        self.command("rollback")
                    )],
                });
            }
        }
        changed
    }
}

fn shown(value: &Value) -> String {
    match plain(value) {
        text if text.is_empty() => "empty".to_owned(),
        text => text,
    }
}

impl Session<'_> {
    /// Journals a play's settled variables before its first effect; those that are recorded already stay as
    /// they are.
    pub(super) fn hold_settled(&mut self, play: &Play) -> Result<(), StateError> {
        if play.declared.is_none() || self.checking() {
            return Ok(());
        }
        let known = self.history.settled.get(&play.name);
        let now = self.engine.settled_now(play);
        let is_new = |name: &String| !known.is_some_and(|known| known.contains_key(name));
        let variables: BTreeMap<_, _> = now.into_iter().filter(|(name, _)| is_new(name)).collect();
        if variables.is_empty() {
            return Ok(());
        }
        self.record(Body::VariablesSettled {
            play: play.name.clone(),
            variables,
        })
    }
}
