//! The only place from which a task touches the host: started is journaled, the effect happens,
//! finished is journaled.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::failure::Failure;
use super::judge::Try;
use super::recovery::only_looks;
use super::run::Stop;
use super::services::NotUp;
use super::session::Session;
use super::task::UnitEnd;
use super::task_log;
use super::unit::TaskInstance;
use crate::event::{Event, Status};
use crate::host::error::ModuleError;
use crate::host::output_file::OutputFile;
use crate::host::time::millis;
use crate::host::worker;
use crate::playbook::model::Task;
use crate::playbook::template::Scope;
use crate::source::Problem;
use crate::state::{Attempt, Body, Fingerprint, How, Output, TaskStatus};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan};

/// A unit's work, ready to be done.
pub(super) struct Work {
    pub module: Box<dyn Module>,
    pub shown: Value,
    pub fingerprint: Fingerprint,
    pub environment: Vec<(String, String)>,
    /// An argument holds a secret.
    pub holds_secret: bool,
}

/// How the work on a unit began.
struct Started {
    /// Why it runs although the journal knows it.
    reason: Option<String>,
    /// An attempt before it died, and may have changed what this one finds in order.
    half_done: bool,
    since: Instant,
}

impl<'p> Session<'p> {
    /// Does a unit's work.
    #[tracing::instrument(name = "task", skip_all, fields(task = %place.identity))]
    pub(super) async fn execute(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: Work,
        reason: Option<String>,
        interrupted: Option<Attempt>,
    ) -> Result<UnitEnd, Stop> {
        match self.predicted(place, scope) {
            Ok(false) => {}
            Ok(true) => {
                // What is predicted is no part of the record.
                let journal = self.journal.take();
                let end = self.predict_unit(place, scope, &work).await;
                self.journal = journal;
                return end;
            }
            Err(problem) => return self.not_runnable(place, &problem),
        }
        // Before a server is started, what is left of an attempt is cleaned up, or anything else is done.
        if !place.task.is_look() || !place.frame.services.is_empty() {
            self.mark_site_of(place.frame.play)?;
        }
        let since = Instant::now();
        (self.events)(Event::TaskStarted {
            task: place.identity.clone(),
            name: self.name(place),
            item: place.item.as_ref().map(|item| item.key.clone()),
            reason: reason.clone(),
        });
        match self.ensure_services(place).await {
            Ok(()) => {}
            Err(NotUp::Stop(stop)) => return Err(stop),
            // An interrupted attempt stays one: nothing was found out about it.
            Err(NotUp::Failed(failure)) if interrupted.is_some() => {
                return Ok(self.told_only(place, &failure, since));
            }
            Err(NotUp::Failed(failure)) => {
                return self.failed(place, &failure, work.fingerprint, None, since);
            }
        }
        // What the services took is told of them.
        let since = Instant::now();
        let mut ctx = self.context(place, &work);
        if let Some(attempt) = &interrupted {
            ctx.interrupted_attempt = Some(attempt.attempt.clone());
            match self
                .recover(place, scope, &work, &ctx, attempt, since)
                .await?
            {
                Some(end) => return Ok(end),
                None => ctx.interrupted_attempt = None,
            }
        } else {
            match self.already_done(place, scope, &ctx).await? {
                Ok(false) => {}
                Ok(true) => {
                    let outcome = Outcome::ok().summary("its effect was already there");
                    return self.finish(place, &work, None, How::AlreadyDone, outcome, since);
                }
                Err(failure) => {
                    return self.failed(place, &failure, work.fingerprint, None, since);
                }
            }
        }
        let half_done = place.task.module.kind == Kind::Converging
            && interrupted.is_some_and(|attempt| attempt.needs_change != Some(false));
        let started = Started {
            reason,
            half_done,
            since,
        };
        self.tries(place, scope, &work, ctx, started).await
    }

    /// Tries until it succeeds, `until` holds, or the retries are used up.
    async fn tries(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: &Work,
        mut ctx: TaskContext,
        started: Started,
    ) -> Result<UnitEnd, Stop> {
        let since = started.since;
        let (retries, delay) = match self.retry_limits(place, scope) {
            Ok(limits) => limits,
            Err(problem) => return self.not_runnable(place, &problem),
        };
        let mut attempt_number = 0;
        loop {
            attempt_number += 1;
            let (attempt, mut tried) = self
                .try_once(place, scope, work, &mut ctx, &started)
                .await?;
            if let Try::Succeeded { result, .. } = &mut tried {
                if retries > 0 {
                    result.insert("attempts".into(), attempt_number.into());
                }
                match self.until(place, scope, result) {
                    Ok(true) => {}
                    Ok(false) => {
                        let mut failure = Failure::new(
                            "engine::until",
                            "the `until` condition did not come true",
                        );
                        failure.result = result.clone();
                        tried = Try::Failed(failure);
                    }
                    Err(problem) => tried = Try::Failed(Failure::of_problem(&problem)),
                }
            }
            match tried {
                Try::Succeeded { result, outcome } => {
                    let outcome = Outcome { result, ..outcome };
                    if outcome.changed
                        && let Err(problem) = self.notify(place, scope)?
                    {
                        let failure = Failure::of_problem(&problem);
                        let print = work.fingerprint.clone();
                        return self.failed(place, &failure, print, attempt, since);
                    }
                    return self.finish(place, work, attempt, How::Ran, outcome, since);
                }
                Try::Unseen(failure) => {
                    return Err(self
                        .unseen(place, scope, work, &ctx, failure, since)
                        .await?);
                }
                Try::Failed(mut failure) => {
                    // Another try might do it twice.
                    if attempt_number > retries || failure.unknown {
                        if retries > 0 {
                            failure.result.insert("attempts".into(), retries.into());
                        }
                        let print = work.fingerprint.clone();
                        return self.failed(place, &failure, print, attempt, since);
                    }
                    ctx.progress.line(format!(
                        "try {attempt_number} of {} failed: {}",
                        retries + 1,
                        failure.message
                    ));
                    tokio::select! {
                        () = ctx.cancel.cancelled() => return Err(Stop::Interrupted),
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
    }

    /// One try: intent and start are on disk before the module may touch the host.
    async fn try_once(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: &Work,
        ctx: &mut TaskContext,
        started: &Started,
    ) -> Result<(Option<String>, Try), Stop> {
        if ctx.cancel.is_cancelled() {
            return Err(Stop::Interrupted);
        }
        let attempt = self.next_attempt();
        ctx.attempt.clone_from(&attempt);
        let intent = match work.module.prepare(ctx).await {
            Ok(intent) => intent,
            Err(error) => {
                return match Failure::of_module(&error) {
                    Some(failure) => Ok((None, Try::Failed(failure))),
                    None => Err(Stop::Interrupted),
                };
            }
        };
        let needs_change = self.needs_change(place, work, ctx, started).await;
        if !place.task.is_look() {
            self.hold_settled(place.frame.play)?;
        }
        self.record(Body::TaskStarted {
            task: place.identity.clone(),
            attempt: attempt.clone(),
            module: place.task.module.name.to_owned(),
            fingerprint: work.fingerprint.clone(),
            arguments: work.shown.clone(),
            // Whole, or `recover` would look in the wrong place: modules put no secrets into it.
            intent: intent.clone(),
            needs_change,
            reason: started.reason.clone(),
        })?;
        let limit = match self.time_limit(place, scope) {
            Ok(limit) => limit,
            Err(problem) => {
                return Ok((Some(attempt), Try::Failed(Failure::of_problem(&problem))));
            }
        };
        let applied = apply_within(work.module.as_ref(), ctx, &intent, limit);
        let applied = match worker::watched("module", applied).await {
            Ok(applied) => applied,
            Err(panicked) => Err(panicked.into()),
        };
        let once = happens_once(place.task, work.module.as_ref());
        let tried = match applied {
            Ok(mut outcome) => {
                outcome.changed |= started.half_done;
                self.judge(place, scope, outcome)
            }
            Err(error) => match Failure::of_module(&error) {
                Some(failure) if failure.unknown && once => Try::Unseen(failure),
                Some(mut failure) => {
                    // What only looks may look again.
                    failure.unknown &= place.task.module.kind == Kind::Converging;
                    self.judge_failure(place, scope, failure)
                }
                // No finish record: the next run asks the module what became of it.
                None if self.engine.options.cancel.is_cancelled() => return Err(Stop::Interrupted),
                None => {
                    let failure = timed_out(limit.unwrap_or_default());
                    if once {
                        Try::Unseen(failure)
                    } else {
                        Try::Failed(failure)
                    }
                }
            },
        };
        Ok((Some(attempt), tried))
    }

    /// Looks whether a task that describes a state has anything to do. When its attempt dies between effect
    /// and record, the next one finds nothing to do, and has this record to know the change by.
    async fn needs_change(
        &self,
        place: &TaskInstance<'p>,
        work: &Work,
        ctx: &TaskContext,
        started: &Started,
    ) -> Option<bool> {
        if place.task.module.kind != Kind::Converging {
            return None;
        }
        if started.half_done {
            return Some(true);
        }
        // How files change is told when they do.
        let looking = TaskContext {
            diff: false,
            ..ctx.clone()
        };
        match work.module.check(&looking).await {
            Ok(Plan::InSync) => Some(false),
            Ok(Plan::NeedsChange(_)) => Some(true),
            // What is wrong is told when it is done.
            Ok(Plan::CannotPredict) | Err(_) => None,
        }
    }

    /// Journals a good end, then tells it.
    pub(super) fn finish(
        &mut self,
        place: &TaskInstance<'p>,
        work: &Work,
        attempt: Option<String>,
        how: How,
        outcome: Outcome,
        since: Instant,
    ) -> Result<UnitEnd, Stop> {
        let Outcome {
            changed,
            mut result,
            outputs,
            summary,
        } = outcome;
        let summary = summary.filter(|_| !place.frame.no_log);
        result.insert("changed".into(), changed.into());
        result.insert("failed".into(), false.into());
        // Lets a later task tell whether two things were seen by the same run.
        result.insert("run".into(), self.run.clone().into());
        let mut result = Value::Object(result);
        self.take_facts(place, &result, &[]);
        let mut outputs: Vec<Output> = outputs.into_iter().map(output).collect();
        if work.holds_secret {
            hide_hashes(&mut result);
            outputs.clear();
        }
        let (status, kept) = if changed {
            self.stats.changed += 1;
            (Status::Changed, TaskStatus::Changed)
        } else {
            (Status::Ok, TaskStatus::Ok)
        };
        // A module may find that it is not meant at all.
        let status = match result.get("skipped") {
            Some(Value::Bool(true)) if !changed => Status::Skipped,
            _ => status,
        };
        match status {
            Status::Skipped => self.stats.skipped += 1,
            _ => self.stats.ok += 1,
        }
        self.record(Body::TaskFinished {
            task: place.identity.clone(),
            arguments: if attempt.is_none() {
                work.shown.clone()
            } else {
                Value::Null
            },
            attempt,
            status: kept,
            how,
            fingerprint: work.fingerprint.clone(),
            hidden: self.hidden(place, &result),
            result: self.hide(place, &result),
            outputs,
            summary: summary.as_ref().map(|text| self.engine.redactor.text(text)),
            error: None,
            duration_ms: millis(since.elapsed()),
        })?;
        self.finished_event(place, status, &result, summary, since);
        Ok(UnitEnd::new(status, result))
    }

    /// Tells whether a unit is only predicted: in check mode, or where `check_mode` says so.
    /// `check_mode: false` does not make a check run have effects.
    fn predicted(&self, place: &TaskInstance<'p>, scope: &Scope) -> Result<bool, Problem> {
        match place.frame.check_mode {
            _ if self.checking() => Ok(true),
            Some(node) => self.engine.templates.condition(node, scope),
            None => Ok(false),
        }
    }

    /// Check mode: what would happen. Only what merely looks really runs.
    async fn predict_unit(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: &Work,
    ) -> Result<UnitEnd, Stop> {
        let since = Instant::now();
        if !place.frame.services.is_empty() {
            return Ok(
                self.not_predictable(place, "needs its service, which check mode does not start")
            );
        }
        let ctx = self.context(place, work);
        let looked = if place.task.module.kind == Kind::ReadOnly {
            work.module.apply(&ctx, &Value::Null).await.map(Some)
        } else {
            match work.module.check(&ctx).await {
                Ok(Plan::InSync) => Ok(Some(Outcome::ok())),
                Ok(Plan::NeedsChange(lines)) => {
                    self.unknown |= place.task.register.is_some();
                    Ok(Some(Outcome::changed().summary(lines.join("; "))))
                }
                Ok(Plan::CannotPredict) => Ok(None),
                Err(error) => Err(error),
            }
        };
        match looked {
            Ok(None) => Ok(self.not_predictable(place, "cannot be predicted")),
            Ok(Some(outcome)) => match self.judge(place, scope, outcome) {
                Try::Succeeded { result, outcome } => {
                    let outcome = Outcome { result, ..outcome };
                    self.finish(place, work, None, How::Ran, outcome, since)
                }
                Try::Failed(failure) | Try::Unseen(failure) => {
                    self.failed(place, &failure, work.fingerprint.clone(), None, since)
                }
            },
            Err(error) => match Failure::of_module(&error) {
                Some(failure) => {
                    self.failed(place, &failure, work.fingerprint.clone(), None, since)
                }
                None => Err(Stop::Interrupted),
            },
        }
    }

    pub(super) fn context(&mut self, place: &TaskInstance<'p>, work: &Work) -> TaskContext {
        self.logs += 1;
        let engine = self.engine;
        let log = engine.state.run_logs(&self.run).join(format!(
            "{:03}-{}.log",
            self.logs,
            file_name(&place.raw_name())
        ));
        let mut ctx = engine.looking_context();
        ctx.progress = task_log::progress(
            &place.identity,
            log,
            &self.events,
            &engine.redactor,
            match self.checking() {
                _ if place.frame.no_log => task_log::Lines::Hidden,
                false => task_log::Lines::Kept,
                true if self.tells_difference(place) => task_log::Lines::Told,
                true => task_log::Lines::Hidden,
            },
        );
        ctx.cancel = engine.options.cancel.child_token();
        ctx.diff = self.tells_difference(place);
        ctx.environment = work.environment.iter().cloned().collect();
        ctx.services = self.handles();
        ctx.quarantine = engine.quarantine(&self.state_id);
        ctx.watch.clone_from(&self.watch);
        ctx
    }

    /// Whether a task says how it changes files: as it says itself, else as the run was asked.
    fn tells_difference(&self, place: &TaskInstance<'_>) -> bool {
        let own = place.frame.diff.map(|node| {
            let value = self.engine.templates.render(node, &place.frame.scope);
            value.is_ok_and(|value| value == Value::Bool(true))
        });
        own.unwrap_or(self.engine.options.diff) && !place.frame.no_log
    }

    pub(super) fn next_attempt(&self) -> String {
        let seq = self
            .journal
            .as_ref()
            .map_or(0, crate::state::Journal::next_seq);
        format!("{}/{seq}", self.run)
    }
}

/// Whether a second attempt might do again what a first one did whose end nobody saw.
fn happens_once(task: &Task, module: &dyn Module) -> bool {
    task.module.kind == Kind::OneWay && !only_looks(task) && !module.may_repeat()
}

fn timed_out(limit: Duration) -> Failure {
    let seconds = limit.as_secs_f64();
    let message = format!("did not finish within its timeout of {seconds} s");
    Failure::new("engine::timeout", message)
}

/// Runs a module, and asks it to stop when its time is over.
async fn apply_within(
    module: &dyn Module,
    ctx: &TaskContext,
    intent: &Value,
    limit: Option<Duration>,
) -> Result<Outcome, ModuleError> {
    let Some(limit) = limit else {
        return module.apply(ctx, intent).await;
    };
    let mut ctx = ctx.clone();
    ctx.cancel = ctx.cancel.child_token();
    let work = module.apply(&ctx, intent);
    tokio::pin!(work);
    tokio::select! {
        outcome = &mut work => outcome,
        () = tokio::time::sleep(limit) => {
            ctx.cancel.cancel();
            work.await
        }
    }
}

fn output(file: OutputFile) -> Output {
    Output {
        path: file.path,
        size: file.size,
        sha256: file.sha256,
    }
}

/// A hash of a short secret can be guessed: hashes of what holds one are no more shown than itself.
fn hide_hashes(result: &mut Value) {
    let Value::Object(map) = result else { return };
    for key in ["checksum", "md5", "md5sum", "sha1", "sha256"] {
        if let Some(value) = map.get_mut(key) {
            *value = crate::redact::HIDDEN.into();
        }
    }
}

/// A task's name as part of a file name.
fn file_name(name: &str) -> String {
    let mut text: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(60)
        .collect();
    while text.contains("--") {
        text = text.replace("--", "-");
    }
    text.trim_matches('-').to_owned()
}
