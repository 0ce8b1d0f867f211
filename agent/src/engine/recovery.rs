//! What became of an attempt that never finished, and whether an effect is there already.

use std::time::Instant;

use serde_json::Value;

use super::arguments;
use super::execute::Work;
use super::failure::Failure;
use super::plan::PlanAction;
use super::run::Stop;
use super::session::Session;
use super::task::UnitEnd;
use super::unit::TaskInstance;
use crate::event::Status;
use crate::playbook::model::{Node, NodeKind, PROBE, Task};
use crate::playbook::template::Scope;
use crate::state::{Attempt, How};
use crate::task::context::TaskContext;
use crate::task::module::{Outcome, Recovery};

/// Whether the playbook says that a task changes nothing, whatever happens: `changed_when: false`. Then it may
/// be done again without asking.
pub(super) fn only_looks(task: &Task) -> bool {
    let says_no = |node: &Node| match &node.kind {
        NodeKind::Bool(changed) => !changed,
        NodeKind::String(text) => ["false", "no"].contains(&text.to_lowercase().as_str()),
        _ => false,
    };
    task.changed_when.iter().any(says_no)
}

impl<'p> Session<'p> {
    /// Asks the module what became of an attempt that never finished. `None`: run it again.
    pub(super) async fn recover(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: &Work,
        ctx: &TaskContext,
        attempt: &Attempt,
        since: Instant,
    ) -> Result<Option<UnitEnd>, Stop> {
        match work.module.recover(ctx, &attempt.intent).await {
            Ok(Recovery::NotDone) => Ok(None),
            Ok(Recovery::Done(outcome)) => {
                if outcome.changed {
                    // Its notification may not have reached the journal before the crash.
                    let _ = self.notify(place, scope)?;
                }
                let id = Some(attempt.attempt.clone());
                self.finish(place, work, id, How::Recovered, outcome, since)
                    .map(Some)
            }
            Ok(Recovery::Unknown { doing, found }) => {
                match self.already_done(place, scope, ctx).await? {
                    Ok(false) if only_looks(place.task) => return Ok(None),
                    Ok(false) => {}
                    Ok(true) => {
                        let outcome = Outcome::changed().summary("interrupted, and found done");
                        let id = Some(attempt.attempt.clone());
                        return self
                            .finish(place, work, id, How::AlreadyDone, outcome, since)
                            .map(Some);
                    }
                    Err(failure) => return Ok(Some(self.told_only(place, &failure, since))),
                }
                let (why, details) = self.engine.ask_about_interrupted(
                    &place.identity,
                    attempt,
                    (&doing, &found),
                    &work.module.advice(ctx),
                );
                Err(Stop::Decision(Box::new(place.entry(
                    PlanAction::Decide,
                    why,
                    details,
                ))))
            }
            Err(error) => match Failure::of_module(&error) {
                Some(failure) => Ok(Some(self.told_only(place, &failure, since))),
                None => Err(Stop::Interrupted),
            },
        }
    }

    /// Tells a failure without journaling an end: what the journal knows about the task still holds.
    pub(super) fn told_only(
        &mut self,
        place: &TaskInstance<'p>,
        failure: &Failure,
        since: Instant,
    ) -> UnitEnd {
        self.stats.failed += 1;
        let result = Value::Object(failure.to_result());
        let text = self.message(place, failure);
        self.finished_event(place, Status::Failed, &result, Some(text), since);
        UnitEnd::new(Status::Failed, result)
    }

    /// Looks whether `done_when` holds; a task without one is never already done. The inner error is a
    /// probe that could not look: then nothing may be begun.
    pub(super) async fn already_done(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        ctx: &TaskContext,
    ) -> Result<Result<bool, Failure>, Stop> {
        let wanted = &place.task.done_when;
        if wanted.is_empty() {
            return Ok(Ok(false));
        }
        let Some((spec, args)) = &wanted.probe else {
            // An expression that cannot be evaluated proves nothing.
            return Ok(Ok(self.all(&wanted.that, scope).unwrap_or(false)));
        };
        let module = match arguments::build(self.engine, spec, args, scope) {
            Ok((module, _)) => module,
            Err(problem) => return Ok(Err(Failure::of_problem(&problem))),
        };
        let outcome = match module.apply(ctx, &Value::Null).await {
            Ok(outcome) => outcome,
            Err(error) => {
                return match Failure::of_module(&error) {
                    Some(failure) => Ok(Err(failure)),
                    None => Err(Stop::Interrupted),
                };
            }
        };
        let mut scope = scope.clone();
        scope.bind(PROBE, Value::Object(outcome.result));
        Ok(self
            .all(&wanted.that, &scope)
            .map_err(|problem| Failure::of_problem(&problem)))
    }
}
