//! Judges what a module returned: `changed_when`, `failed_when`, `until`, and how often and how long a
//! task may try. Touches neither host nor journal.

use std::time::Duration;

use serde_json::{Map, Value};

use super::failure::Failure;
use super::services::seconds;
use super::session::Session;
use super::unit::TaskInstance;
use crate::playbook::model::Node;
use crate::playbook::template::Scope;
use crate::source::Problem;
use crate::task::module::Outcome;

/// Pause between two tries of `until` where `delay` does not say.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);
/// Tries beyond the first where `until` stands without `retries`.
const DEFAULT_RETRIES: u64 = 3;

/// How one try ended.
pub(super) enum Try {
    Succeeded {
        result: Map<String, Value>,
        outcome: Outcome,
    },
    Failed(Failure),
    /// Nobody saw how it ended: it may be in effect, in part or as a whole, or still at work.
    Unseen(Failure),
}

impl<'p> Session<'p> {
    /// Applies `changed_when` and `failed_when` to a success.
    pub(super) fn judge(
        &self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        mut outcome: Outcome,
    ) -> Try {
        let mut result = outcome.result.clone();
        result.insert("changed".into(), outcome.changed.into());
        result.insert("failed".into(), false.into());
        let task = place.task;
        let judged = (|| -> Result<Option<bool>, Problem> {
            if !task.changed_when.is_empty() {
                let scope = self.result_scope(place, scope, &result);
                outcome.changed = self.all(&task.changed_when, &scope)?;
                result.insert("changed".into(), outcome.changed.into());
            }
            if task.failed_when.is_empty() {
                return Ok(None);
            }
            let scope = self.result_scope(place, scope, &result);
            self.all(&task.failed_when, &scope).map(Some)
        })();
        match judged {
            Ok(Some(true)) => {
                let mut failure = Failure::new("engine::failed_when", "`failed_when` is true");
                failure.result = result;
                failure
                    .result
                    .insert("failed_when_result".into(), true.into());
                Try::Failed(failure)
            }
            Ok(_) => Try::Succeeded { result, outcome },
            Err(problem) => Try::Failed(Failure::of_problem(&problem)),
        }
    }

    /// `failed_when` may also forgive: where the module reports a return code, a false one turns its
    /// failure into a success. Any other failure stays one.
    pub(super) fn judge_failure(
        &self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        failure: Failure,
    ) -> Try {
        if place.task.failed_when.is_empty() || !failure.result.contains_key("rc") {
            return Try::Failed(failure);
        }
        let scope_with = self.result_scope(place, scope, &failure.to_result());
        match self.all(&place.task.failed_when, &scope_with) {
            Ok(true) => Try::Failed(failure),
            Ok(false) => {
                let outcome = Outcome {
                    result: failure.result,
                    ..Outcome::changed()
                };
                self.judge(place, scope, outcome)
            }
            Err(problem) => Try::Failed(Failure::of_problem(&problem)),
        }
    }

    pub(super) fn until(
        &self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        result: &Map<String, Value>,
    ) -> Result<bool, Problem> {
        if place.task.until.is_empty() {
            return Ok(true);
        }
        self.all(&place.task.until, &self.result_scope(place, scope, result))
    }

    fn result_scope(
        &self,
        place: &TaskInstance<'_>,
        scope: &Scope,
        result: &Map<String, Value>,
    ) -> Scope {
        let mut scope = scope.clone();
        if let Some(name) = &place.task.register {
            scope.bind(name, Value::Object(result.clone()));
        }
        scope
    }

    pub(super) fn all(&self, conditions: &[Node], scope: &Scope) -> Result<bool, Problem> {
        for condition in conditions {
            if !self.engine.templates.condition(condition, scope)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn retry_limits(
        &self,
        place: &TaskInstance<'p>,
        scope: &Scope,
    ) -> Result<(u64, Duration), Problem> {
        let task = place.task;
        let number =
            |node: &Node| -> Result<Value, Problem> { self.engine.templates.render(node, scope) };
        let retries = match &task.retries {
            Some(node) => seconds(&number(node)?).map_or(0, |value| value.as_secs()),
            None if task.until.is_empty() => 0,
            None => DEFAULT_RETRIES,
        };
        let delay = match &task.delay {
            Some(node) => seconds(&number(node)?).unwrap_or(DEFAULT_DELAY),
            None => DEFAULT_DELAY,
        };
        Ok((retries, delay))
    }

    pub(super) fn time_limit(
        &self,
        place: &TaskInstance<'p>,
        scope: &Scope,
    ) -> Result<Option<Duration>, Problem> {
        let Some(node) = &place.task.timeout else {
            return Ok(None);
        };
        let value = self.engine.templates.render(node, scope)?;
        Ok(seconds(&value).filter(|limit| !limit.is_zero()))
    }
}
