//! What the engine asks for variables: looks them up in the scope and renders them when needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, Value as Engine};

use super::scope::{Scope, Variable};
use super::{OMIT, Templates, error};
use crate::source::Problem;

/// Variables that refer to variables, deeper than this, are taken for a mistake.
const MAX_CHAIN: usize = 40;

/// One rendering: which variables are being rendered, and which failed and why.
#[derive(Default)]
pub(super) struct Session {
    rendering: Mutex<Vec<String>>,
    failures: Mutex<HashMap<String, Problem>>,
}

impl Session {
    /// Returns why a variable could not be rendered.
    pub fn failure_of(&self, name: &str) -> Option<Problem> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(name).cloned()
    }

    /// Returns any failure.
    pub fn take_any(&self) -> Option<Problem> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.drain().next().map(|(_, problem)| problem)
    }

    fn fail(&self, name: &str, problem: Problem) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.insert(name.to_owned(), problem);
    }

    /// Returns the chain that leads back to `name`, or `None` after noting that it is rendered now.
    fn enter(&self, name: &str) -> Option<Vec<String>> {
        let mut rendering = self
            .rendering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let repeated = rendering.iter().position(|other| other == name);
        if repeated.is_none() && rendering.len() < MAX_CHAIN {
            rendering.push(name.to_owned());
            return None;
        }
        let mut chain = rendering[repeated.unwrap_or(0)..].to_vec();
        chain.push(name.to_owned());
        Some(chain)
    }

    fn leave(&self) {
        self.rendering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
    }
}

/// The root of a template's names.
#[derive(Clone)]
pub(super) struct Context {
    pub templates: Templates,
    pub scope: Scope,
    pub session: Arc<Session>,
}

impl std::fmt::Debug for Context {
    /// Nothing of the variables: the engine prints this in its own messages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("vars")
    }
}

impl Object for Context {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Engine) -> Option<Engine> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, name: &str) -> Option<Engine> {
        if let Some(variable) = self.scope.find(name) {
            return Some(self.value_of(name, &variable));
        }
        match name {
            "omit" => Some(Engine::from(OMIT)),
            "vars" => Some(Engine::from_dyn_object(Arc::clone(self))),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.scope.names().into_iter().map(Engine::from).collect())
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("vars")
    }
}

impl Context {
    fn value_of(&self, name: &str, variable: &Variable) -> Engine {
        if let Some(value) = variable.constant() {
            return value;
        }
        let Variable::Node(node, _) = variable else {
            return Engine::UNDEFINED;
        };
        if let Some(value) = self.scope.cached(name) {
            return value;
        }
        let version = self.scope.fact_version();
        let reached = self.scope.reached();
        if let Some(chain) = self.session.enter(name) {
            let problem = error::cycle(&node.at, &chain);
            self.session.fail(name, problem.clone());
            return broken(problem);
        }
        let rendered = self.render_variable(node);
        self.session.leave();
        match rendered {
            Ok(value) => {
                // Whoever asks again reaches what was cut again.
                if self.scope.reached() == reached {
                    self.scope.remember(name, value.clone(), version);
                }
                value
            }
            // What rests on an undefined variable is undefined itself, so that `default` and
            // `is defined` see through it; the reason is told if nobody asks.
            Err(problem) if problem.code == error::UNDEFINED => {
                self.session.fail(name, problem);
                Engine::UNDEFINED
            }
            Err(problem) => {
                self.session.fail(name, problem.clone());
                broken(problem)
            }
        }
    }
}

/// A value that fails with the problem as soon as it is used.
fn broken(problem: Problem) -> Engine {
    Engine::from(
        Error::new(ErrorKind::InvalidOperation, "a variable cannot be rendered")
            .with_source(problem),
    )
}
