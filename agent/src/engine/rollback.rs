//! Takes back what a playbook did, newest first: planned as a whole before the first step, journaled
//! like a run, and continued by the same command after a crash.

use std::time::Instant;

use serde_json::{Value, json};

use super::decide::Decision;
use super::failure::{Failure, describe};
use super::rollback_plan::{Accepted, RollbackPlan, UndoAction, UndoEntry, Way, Ways, open_steps};
use super::run::{Begun, Engine, RunError, Stop};
use super::run_progress::RunProgress;
use super::session::{Flow, Session};
use super::task_log::{self, EventSink};
use crate::event::{Event, Status};
use crate::host::error::ModuleError;
use crate::host::time::millis;
use crate::redact::differing;
use crate::state::{
    Attempt, Body, Fingerprint, History, How, Outcome, TaskHistory, TaskStatus, UndoableEnd,
    UndoableTask, UndoableTasks,
};
use crate::task::context::TaskContext;
use crate::task::module::Recovery;
use crate::task::undo::Undo;
use crate::task::undo_plan::{View, plan_steps};
use crate::task::undo_steps::{Planned, Taken, apply_steps};

/// How a rollback ended, where nothing went wrong with the rollback itself.
#[derive(Debug, Clone, PartialEq)]
pub enum RollbackEnd {
    /// Everything was taken back.
    Done,
    /// There was nothing to take back.
    Nothing,
    /// These tasks stand in the way; nothing was undone.
    Refused(Vec<UndoEntry>),
    /// A step failed; its event says why.
    Failed,
    /// SIGINT or SIGTERM; run the same command again to continue.
    Interrupted,
}

impl Engine {
    /// Looks what a rollback would do. Takes no lock and writes nothing.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn look_back(&self, accepted: &Accepted) -> Result<RollbackPlan, RunError> {
        let contents = self.journal()?;
        let deeds = self.without_undo_tasks(UndoableTasks::of(&contents.records));
        let state_id = contents.state_id().unwrap_or_default();
        Ok(self.plan_rollback(&deeds, accepted, state_id))
    }

    /// Takes back what the journal proves was done. The caller hears what happens through `events`.
    ///
    /// # Errors
    /// When the state cannot be locked, read or written.
    pub async fn rollback(
        &self,
        events: &EventSink,
        accepted: &Accepted,
    ) -> Result<RollbackEnd, RunError> {
        if !self.state.path().is_dir() {
            return Ok(RollbackEnd::Nothing);
        }
        let held = self.hold(Some("rollback"))?;
        let deeds = self.without_undo_tasks(UndoableTasks::of(&held.contents.records));
        // One that was killed behind its last undo has its end to record.
        let runs = History::of(&held.contents.records).runs;
        let open = runs.last().is_some_and(|run| {
            run.command.as_deref() == Some("rollback") && run.outcome != Some(Outcome::Done)
        });
        if deeds.deeds.is_empty() && !open {
            return Ok(RollbackEnd::Nothing);
        }
        // Nothing is written, and nothing on the host touched, before the plan is known to be sound.
        let state_id = held.contents.state_id().unwrap_or_default();
        let plan = self.plan_rollback(&deeds, accepted, state_id);
        if !plan.refusals().is_empty() {
            return Ok(RollbackEnd::Refused(plan.refusals()));
        }
        let started = Instant::now();
        let Begun {
            mut session,
            contents,
            _locks,
        } = self.begin(
            held,
            events,
            Some("rollback"),
            deeds.deeds.len(),
            Vec::new(),
            RunProgress::default(),
        )?;
        let ended = match session.adopt_left_overs(&contents).await {
            Ok(()) => session.roll_back(deeds, accepted).await,
            Err(stop) => Err(stop),
        };
        let stopped = session.stop_services().await;
        // The first error is the one to tell: what stopping says may only follow from it.
        let ended = ended.and_then(|end| stopped.map(|()| end));
        let ended = match ended {
            Ok(RollbackEnd::Done) => session
                .free_sites()
                .map(|()| RollbackEnd::Done)
                .map_err(Stop::from),
            other => other,
        };
        let (end, broken) = match ended {
            Ok(end) => (end, None),
            Err(Stop::State(error)) => (RollbackEnd::Failed, Some(error)),
            Err(Stop::Interrupted | Stop::Unseen) => (RollbackEnd::Interrupted, None),
            Err(Stop::Decision(entry)) => {
                let entry = UndoEntry {
                    task: entry.task,
                    action: UndoAction::Refuse,
                    why: entry.why,
                    details: entry.details,
                };
                (RollbackEnd::Refused(vec![entry]), None)
            }
        };
        session.close(end.outcome(), started, broken)?;
        Ok(end)
    }
}

impl RollbackEnd {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Done | Self::Nothing => Outcome::Done,
            Self::Refused(_) => Outcome::DecisionNeeded,
            Self::Failed => Outcome::Failed,
            Self::Interrupted => Outcome::Interrupted,
        }
    }
}

/// How one task's undo ended.
struct Undone {
    undo: Option<String>,
    result: Value,
    summary: String,
    status: Status,
}

impl Session<'_> {
    async fn roll_back(
        &mut self,
        mut deeds: UndoableTasks,
        accepted: &Accepted,
    ) -> Result<RollbackEnd, Stop> {
        deeds.services_open = false;
        self.forget_older_undo_tasks()?;
        let ways = Ways::of(self.engine, &deeds, accepted);
        for deed in &mut deeds.deeds {
            let own = matches!(ways.way(&deed.task), Some(Way::Undo(_)));
            if own && deed.end == UndoableEnd::Interrupted {
                self.settle(deed).await?;
            }
        }
        let plan = self.engine.plan_rollback(&deeds, accepted, &self.state_id);
        let unsettled = deeds
            .deeds
            .iter()
            .zip(&plan.entries)
            .filter(|(deed, entry)| {
                // What no module could settle is refused, unless its own steps are sure of it.
                deed.end == UndoableEnd::Interrupted
                    && entry.action == UndoAction::Undo
                    && entry.details.is_empty()
            })
            .map(|(_, entry)| UndoEntry {
                action: UndoAction::Refuse,
                why: "interrupted, and nobody can tell what became of it: run the playbook again \
                      first"
                    .into(),
                ..entry.clone()
            });
        let refusals: Vec<_> = plan.refusals().into_iter().chain(unsettled).collect();
        if !refusals.is_empty() {
            return Ok(RollbackEnd::Refused(refusals));
        }
        let ways = Ways::of(self.engine, &deeds, accepted);
        for deed in &deeds.deeds {
            if self.engine.options.cancel.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            let Some(way) = ways.way(&deed.task) else {
                continue;
            };
            // Where the undo was begun, they have run; where it was taken back by hand, there is nothing to see.
            if deed.undo.is_none()
                && *way != Way::Accepted
                && let Flow::Failed(_) = self.before_undo_of(&deed.task).await?
            {
                return Ok(RollbackEnd::Failed);
            }
            if matches!(way, Way::With(_)) {
                continue;
            }
            let since = Instant::now();
            (self.events)(Event::TaskStarted {
                task: deed.task.clone(),
                name: own_name(&deed.task),
                item: None,
                reason: None,
            });
            match self.take_back(deed, way, accepted, &deeds).await? {
                Ok(undone) => {
                    let followers = ways.followers(&deed.task);
                    self.undone(deed, followers, undone, since)?;
                }
                Err(failure) => {
                    self.stats.failed += 1;
                    self.tell(
                        deed,
                        Status::Failed,
                        failure.to_result().into(),
                        failure.message,
                        since,
                    );
                    return Ok(RollbackEnd::Failed);
                }
            }
        }
        Ok(RollbackEnd::Done)
    }

    /// Finds out what became of an interrupted attempt, where its module can tell.
    async fn settle(&mut self, deed: &mut UndoableTask) -> Result<(), Stop> {
        let engine = self.engine;
        let history = self.history.clone();
        let Some(TaskHistory::Interrupted(attempt)) = history.task(&deed.task) else {
            return Ok(());
        };
        let Some(ready) = engine.ready_now(&deed.task, &history) else {
            return Ok(());
        };
        // With other arguments than then, the module would look in the wrong place.
        if !matches!(ready.decision, Decision::Recover(_))
            || !attempt.fingerprint.covers(&ready.fingerprint)
        {
            return Ok(());
        }
        let mut ctx = self.undo_context(&deed.task);
        ctx.interrupted_attempt = Some(attempt.attempt.clone());
        ctx.environment = ready.environment.iter().cloned().collect();
        let recovery = match ready.module.recover(&ctx, &attempt.intent).await {
            Ok(recovery) => recovery,
            Err(ModuleError::Cancelled) => return Err(Stop::Interrupted),
            Err(error) => {
                (self.events)(Event::Warning {
                    message: format!(
                        "what became of `{}` could not be found out: {}",
                        deed.task,
                        describe(&error)
                    ),
                });
                return Ok(());
            }
        };
        let effort = deed.efforts.last_mut();
        match recovery {
            Recovery::Unknown { .. } => return Ok(()),
            Recovery::NotDone => {
                deed.end = UndoableEnd::Failed;
                let error = "interrupted, and found not done";
                let body = settled(
                    &deed.task,
                    attempt,
                    TaskStatus::Failed,
                    (Value::Null, Vec::new()),
                    Some(error),
                );
                self.record(body)?;
            }
            Recovery::Done(outcome) => {
                deed.end = UndoableEnd::Done;
                let mut result = outcome.result;
                result.insert("changed".into(), outcome.changed.into());
                result.insert("failed".into(), false.into());
                let whole = Value::Object(result);
                let result = engine.redactor.value(&whole);
                let hidden = differing(&whole, &result);
                if let Some(effort) = effort {
                    effort.result = Some(result.clone());
                }
                let end = (result, hidden);
                let body = settled(&deed.task, attempt, TaskStatus::Changed, end, None);
                self.record(body)?;
            }
        }
        Ok(())
    }

    async fn take_back(
        &mut self,
        deed: &UndoableTask,
        way: &Way,
        accepted: &Accepted,
        deeds: &UndoableTasks,
    ) -> Result<Result<Undone, Failure>, Stop> {
        let open = deed.undo.as_ref().map(|open| open.undo.clone());
        let plain = |summary: String, result: Value, status| {
            Ok(Ok(Undone {
                undo: open.clone(),
                result,
                summary,
                status,
            }))
        };
        let (id, steps) = match way {
            Way::With(_) => return plain(String::new(), Value::Null, Status::Ok),
            Way::Accepted => {
                let user = &self.engine.options.operator.user;
                let reason = &accepted.reason;
                let result = json!({"accepted_by": user, "reason": reason});
                let summary = format!("{user} took it back by hand: {reason}");
                return plain(summary, result, Status::Undone);
            }
            Way::Undo(Undo::Nothing(why)) => {
                return plain(why.clone(), json!({"changed": false}), Status::Ok);
            }
            Way::Undo(Undo::Impossible(why)) => {
                return Ok(Err(Failure::new("rollback::impossible", why.clone())));
            }
            Way::Finish(open) => match open_steps(open) {
                Some(steps) => (open.undo.clone(), steps),
                None => {
                    let message = "the steps of its undo in the journal are unreadable";
                    return Ok(Err(Failure::new("rollback::impossible", message)));
                }
            },
            Way::Undo(Undo::Steps(steps)) => {
                let undo = self.next_attempt();
                let ctx = self.undo_context(&deed.task);
                let mut view = View::of_host(deeds.purged.clone(), true);
                let planned = match plan_steps(steps, &undo, &mut view, &ctx) {
                    Ok(planned) => planned,
                    Err(error) => return failed(&error).map(Err),
                };
                if planned.is_empty() {
                    let summary = "nothing of it is there any more".to_owned();
                    return plain(summary, json!({"changed": false}), Status::Ok);
                }
                self.record(Body::UndoStarted {
                    task: deed.task.clone(),
                    undo: undo.clone(),
                    intent: json!({"steps": planned, "quarantine": folders(&planned)}),
                })?;
                (undo, planned)
            }
        };
        let ctx = self.undo_context(&deed.task);
        match apply_steps(&steps, &ctx).await {
            Ok(taken) => {
                let summary = match &taken[..] {
                    [first, second, more @ ..] if !more.is_empty() => {
                        format!("{first}; {second}; and {} more", more.len())
                    }
                    few => {
                        let lines: Vec<String> = few.iter().map(ToString::to_string).collect();
                        lines.join("; ")
                    }
                };
                let by = taken.iter().find_map(|step| match step {
                    Taken::Confirmed { by } => Some(by.clone()),
                    _ => None,
                });
                let mut result = json!({"changed": true, "steps": taken});
                if let Some(by) = by {
                    result["confirmed_by"] = by.into();
                }
                Ok(Ok(Undone {
                    undo: Some(id),
                    result,
                    summary,
                    status: Status::Undone,
                }))
            }
            Err(error) => failed(&error).map(Err),
        }
    }

    /// Journals that a task counts as never done, then tells it.
    fn undone(
        &mut self,
        deed: &UndoableTask,
        with: Vec<String>,
        undone: Undone,
        since: Instant,
    ) -> Result<(), Stop> {
        let Undone {
            undo,
            result,
            mut summary,
            status,
        } = undone;
        if !with.is_empty() {
            summary.push_str(&format!("; with it {} tasks", with.len()));
        }
        let mut of_undo: Vec<&str> = with.iter().map(String::as_str).collect();
        of_undo.push(&deed.task);
        let of_undo = self.came_before_undo_of(&of_undo);
        let with = with.into_iter().chain(of_undo).collect();
        let redactor = &self.engine.redactor;
        let (result, summary) = (redactor.value(&result), redactor.text(&summary));
        self.stats.ok += 1;
        if status == Status::Undone {
            self.stats.changed += 1;
        }
        self.record(Body::UndoFinished {
            task: deed.task.clone(),
            undo,
            with,
            result: result.clone(),
            summary: Some(summary.clone()),
            duration_ms: millis(since.elapsed()),
        })?;
        self.tell(deed, status, result, summary, since);
        Ok(())
    }

    fn tell(
        &self,
        deed: &UndoableTask,
        status: Status,
        result: Value,
        summary: String,
        since: Instant,
    ) {
        (self.events)(Event::TaskFinished {
            task: deed.task.clone(),
            name: own_name(&deed.task),
            item: None,
            status,
            result: self.engine.redactor.value(&result),
            summary: Some(self.engine.redactor.text(&summary)),
            duration_ms: millis(since.elapsed()),
        });
    }

    fn undo_context(&self, task: &str) -> TaskContext {
        let engine = self.engine;
        let mut ctx = engine.looking_context();
        ctx.attempt = self.next_attempt();
        ctx.cancel = engine.options.cancel.child_token();
        ctx.progress = task_log::progress(
            task,
            engine.state.run_logs(&self.run).join("rollback.log"),
            &self.events,
            &engine.redactor,
            task_log::Lines::Kept,
        );
        ctx.quarantine = engine.quarantine(&self.state_id);
        ctx
    }
}

/// An error of the module, told from an interruption.
fn failed(error: &ModuleError) -> Result<Failure, Stop> {
    Failure::of_module(error).ok_or(Stop::Interrupted)
}

/// The folders in quarantine that steps move something into.
fn folders(steps: &[Planned]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for step in steps {
        if let Planned::Rename {
            to,
            quarantine: true,
            ..
        } = step
            && let Some(folder) = to.parent()
            && !found.iter().any(|known| known == folder)
        {
            found.push(folder.to_path_buf());
        }
    }
    found
}

/// The end of an identity, which says what the task is.
fn own_name(identity: &str) -> String {
    identity.rsplit(" / ").next().unwrap_or(identity).to_owned()
}

fn settled(
    task: &str,
    attempt: &Attempt,
    status: TaskStatus,
    (result, hidden): (Value, Vec<String>),
    error: Option<&str>,
) -> Body {
    Body::TaskFinished {
        task: task.to_owned(),
        attempt: Some(attempt.attempt.clone()),
        status,
        how: How::Recovered,
        fingerprint: Fingerprint::clone(&attempt.fingerprint),
        arguments: Value::Null,
        result,
        hidden,
        outputs: Vec::new(),
        summary: None,
        error: error.map(str::to_owned),
        duration_ms: 0,
    }
}
