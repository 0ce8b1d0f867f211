//! What can change between two runs is looked at again: a look with `again_until` counts within its own run,
//! and for good from when the task that rests on it has begun.

use std::time::Instant;

use serde_json::Value;

use super::decide::{Decision, Reason};
use super::execute::Work;
use super::failure::Failure;
use super::run::{Engine, Stop};
use super::services::NotUp;
use super::session::Session;
use super::task::UnitEnd;
use super::unit::TaskInstance;
use crate::event::{Event, Status};
use crate::playbook::model::{Item, Task};
use crate::state::{Finished, History, TaskHistory};
use crate::task::module::Plan;

/// Decides about a look that is to be repeated. Pure. `run` is the run that asks, where one goes on;
/// `begun` says whether a task that rests on the look has begun, `until` names the next that has not.
#[must_use]
pub fn again<'h>(
    decision: Decision<'h>,
    run: Option<&str>,
    begun: bool,
    until: &str,
) -> Decision<'h> {
    match decision {
        // What rests on it is there: what is looked at may have become another thing by that.
        Decision::Run(Reason::Changed(finished)) if begun => Decision::Done(finished),
        Decision::Done(finished) if !begun && run != Some(finished.run.as_str()) => {
            Decision::LookAgain {
                finished,
                until: until.to_owned(),
            }
        }
        other => other,
    }
}

impl Engine {
    /// As [`again`], for a unit and what the journal knows.
    pub(super) fn decide_again<'h>(
        &self,
        place: &TaskInstance<'_>,
        decision: Decision<'h>,
        history: &History,
        run: Option<&str>,
    ) -> Decision<'h> {
        let Some((first, _)) = place.task.again_until.first() else {
            return decision;
        };
        let mut named = place.task.again_until.iter();
        let begun = named.any(|(id, _)| {
            let task = task_of(&place.frame.play.items, id);
            task.is_some_and(|task| has_begun(history, self.identities.get(task)))
        });
        again(decision, run, begun, first)
    }
}

/// The task with this `id`.
fn task_of<'p>(items: &'p [Item], id: &str) -> Option<&'p Task> {
    items.iter().find_map(|item| match item {
        Item::Task(task) => (task.id.as_deref() == Some(id)).then_some(task.as_ref()),
        Item::Block(block) => [&block.block, &block.rescue, &block.always]
            .into_iter()
            .find_map(|items| task_of(items, id)),
    })
}

/// Whether a task, or an item of its loop, has an effect or an open attempt. One that failed is begun anew, and
/// so is one that was undone.
fn has_begun(history: &History, identity: &str) -> bool {
    let begun = |known: &TaskHistory| {
        matches!(
            known,
            TaskHistory::Finished(_) | TaskHistory::Interrupted(_) | TaskHistory::Undoing { .. }
        )
    };
    if history.task(identity).is_some_and(begun) {
        return true;
    }
    let item = format!("{identity} [");
    history
        .tasks()
        .any(|(name, known)| name.starts_with(&item) && begun(known))
}

impl<'p> Session<'p> {
    /// Looks whether what a task describes is still there, and puts nothing right: what is there instead
    /// would be another thing than the one that earlier tasks rest on. Leaves no record: what was done then
    /// stays done, and the next run looks again.
    pub(super) async fn look_only(
        &mut self,
        place: &TaskInstance<'p>,
        work: Work,
        finished: Finished,
        reason: String,
    ) -> Result<UnitEnd, Stop> {
        let since = Instant::now();
        (self.events)(Event::TaskStarted {
            task: place.identity.clone(),
            name: self.name(place),
            item: place.item.as_ref().map(|item| item.key.clone()),
            reason: Some(reason),
        });
        if !self.checking() {
            match self.ensure_services(place).await {
                Ok(()) => {}
                Err(NotUp::Stop(stop)) => return Err(stop),
                Err(NotUp::Failed(failure)) => return Ok(self.told_only(place, &failure, since)),
            }
        }
        let mut ctx = self.context(place, &work);
        ctx.diff = false;
        let failure = match work.module.check(&ctx).await {
            Ok(Plan::InSync) => {
                self.stats.ok += 1;
                let mut result = finished.result;
                if let Value::Object(map) = &mut result {
                    map.insert("changed".into(), false.into());
                }
                self.take_facts(place, &result, &finished.hidden);
                let summary = Some(format!("still as in run {}", finished.run));
                self.finished_event(place, Status::Ok, &result, summary, since);
                return Ok(UnitEnd {
                    status: Status::Ok,
                    result,
                    hidden: finished.hidden,
                });
            }
            Ok(Plan::NeedsChange(lines)) => self.no_longer(place, &finished, &lines.join("; ")),
            Ok(Plan::CannotPredict) => self.no_longer(place, &finished, "it cannot be told"),
            Err(error) => match Failure::of_module(&error) {
                Some(failure) => failure,
                None => return Err(Stop::Interrupted),
            },
        };
        ctx.progress.line(failure.message.clone());
        Ok(self.told_only(place, &failure, since))
    }

    fn no_longer(&self, place: &TaskInstance<'p>, finished: &Finished, what: &str) -> Failure {
        let message = format!(
            "this was so in run {}, and is so no longer: {what}",
            finished.run
        );
        let mut failure = Failure::new("engine::no_longer", message);
        let own = place.identity.rsplit(" / ").next();
        failure.help = Some(format!(
            "put back what was there then, and run again; where something else is right as well, `run --redo \
             {}` has the task do its work anew",
            super::question::quoted(own.unwrap_or(&place.identity))
        ));
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Attempt, Fingerprint, How, TaskStatus};
    use jiff::Timestamp;

    fn finished(run: &str) -> Finished {
        Finished {
            seq: 1,
            run: run.into(),
            time: Timestamp::UNIX_EPOCH,
            status: TaskStatus::Ok,
            how: How::Ran,
            fingerprint: Fingerprint::default(),
            arguments: Value::Null,
            result: Value::Null,
            hidden: Vec::new(),
            outputs: Vec::new(),
            summary: None,
            duration_ms: 0,
        }
    }

    /// Every decision, with and without an effect that has begun, asked by the look's own run, a later one,
    /// and a plan.
    #[test]
    fn a_look_counts_in_its_own_run_and_for_good_once_what_rests_on_it_has_begun() {
        let old = finished("r1");
        let attempt = Attempt {
            attempt: "r1/1".into(),
            run: "r1".into(),
            time: Timestamp::UNIX_EPOCH,
            module: "stat".into(),
            fingerprint: Fingerprint::default(),
            arguments: Value::Null,
            intent: Value::Null,
            needs_change: None,
            unseen: None,
        };
        let decisions = [
            Decision::Done(&old),
            Decision::Run(Reason::Changed(&old)),
            Decision::Run(Reason::New),
            Decision::Run(Reason::Failed),
            Decision::Run(Reason::LooksOnly),
            Decision::Run(Reason::Undone { run: "r1" }),
            Decision::Recover(&attempt),
        ];
        for decision in decisions {
            for run in [Some("r1"), Some("r2"), None] {
                for begun in [false, true] {
                    let now = again(decision.clone(), run, begun, "effect");
                    let expected = match (&decision, run, begun) {
                        (Decision::Done(_), Some("r2") | None, false) => Decision::LookAgain {
                            finished: &old,
                            until: "effect".into(),
                        },
                        (Decision::Run(Reason::Changed(_)), _, true) => Decision::Done(&old),
                        _ => decision.clone(),
                    };
                    assert_eq!(now, expected, "{decision:?} in {run:?}, begun: {begun}");
                }
            }
        }
    }
}
