//! The only place from which a task touches the host: started is journaled, the effect happens,
//! finished is journaled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::failure::Failure;
use super::plan::PlanAction;
use super::run::Stop;
use super::services::{NotUp, seconds};
use super::session::Session;
use super::task::UnitEnd;
use super::task_log;
use super::unit::Place;
use crate::event::{Event, Status, millis};
use crate::modules::{Kind, Module, ModuleError, Outcome, OutputFile, Plan, Recovery, TaskContext};
use crate::playbook::model::Node;
use crate::playbook::template::Scope;
use crate::source::Problem;
use crate::state::{Attempt, Body, Fingerprint, How, Output, TaskStatus};

/// Pause between two tries of `until` where `delay` does not say.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);
/// Tries beyond the first where `until` stands without `retries`.
const DEFAULT_RETRIES: u64 = 3;

/// A unit's work, ready to be done.
pub(super) struct Work {
    pub module: Box<dyn Module>,
    pub shown: Value,
    pub fingerprint: Fingerprint,
    pub environment: Vec<(String, String)>,
    /// An argument holds a secret.
    pub holds_secret: bool,
}

/// How one try ended.
enum Try {
    Succeeded {
        result: Map<String, Value>,
        outcome: Outcome,
    },
    Failed(Failure),
}

impl<'p> Session<'p> {
    /// Does a unit's work.
    #[tracing::instrument(name = "task", skip_all, fields(task = %place.identity))]
    pub(super) async fn execute(
        &mut self,
        place: &Place<'p>,
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
        let since = Instant::now();
        (self.events)(Event::TaskStarted {
            task: place.identity.clone(),
            name: self.name(place),
            item: place.item.as_ref().map(|item| item.key.clone()),
            reason: reason.clone(),
        });
        match self.ensure_services(&place.frame).await {
            Ok(()) => {}
            Err(NotUp::Stop(stop)) => return Err(stop),
            // An interrupted attempt stays one: nothing was found out about it.
            Err(NotUp::Failed(failure)) if interrupted.is_some() => {
                return Ok(self.still_interrupted(place, &failure, since));
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
        } else if self.already_done(place, scope)? {
            return self.finish(
                place,
                &work,
                None,
                How::AlreadyDone,
                Outcome::ok().summary("its effect was already there"),
                since,
            );
        }
        self.tries(place, scope, &work, ctx, (reason, since)).await
    }

    /// Tries until it succeeds, `until` holds, or the retries are used up.
    async fn tries(
        &mut self,
        place: &Place<'p>,
        scope: &Scope,
        work: &Work,
        mut ctx: TaskContext,
        (reason, since): (Option<String>, Instant),
    ) -> Result<UnitEnd, Stop> {
        let (retries, delay) = match self.retry_limits(place, scope) {
            Ok(limits) => limits,
            Err(problem) => return self.not_runnable(place, &problem),
        };
        let mut attempt_number = 0;
        loop {
            attempt_number += 1;
            let (attempt, mut tried) = self
                .try_once(place, scope, work, &mut ctx, reason.clone())
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
                Try::Failed(failure) => {
                    if attempt_number > retries {
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
        place: &Place<'p>,
        scope: &Scope,
        work: &Work,
        ctx: &mut TaskContext,
        reason: Option<String>,
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
        self.record(Body::TaskStarted {
            task: place.identity.clone(),
            attempt: attempt.clone(),
            module: place.task.module.name.to_owned(),
            fingerprint: work.fingerprint.clone(),
            arguments: work.shown.clone(),
            // Whole, or `recover` would look in the wrong place: modules put no secrets into it.
            intent: intent.clone(),
            reason,
        })?;
        let limit = match self.time_limit(place, scope) {
            Ok(limit) => limit,
            Err(problem) => {
                return Ok((Some(attempt), Try::Failed(Failure::of_problem(&problem))));
            }
        };
        let applied = apply_within(work.module.as_ref(), ctx, &intent, limit).await;
        let tried = match applied {
            Ok(outcome) => self.judge(place, scope, outcome),
            Err(error) => match Failure::of_module(&error) {
                Some(failure) => self.judge_failure(place, scope, failure),
                // No finish record: the next run asks the module what became of it.
                None if self.engine.options.cancel.is_cancelled() => return Err(Stop::Interrupted),
                None => {
                    let seconds = limit.unwrap_or_default().as_secs();
                    let message = format!("did not finish within its timeout of {seconds} s");
                    Try::Failed(Failure::new("engine::timeout", message))
                }
            },
        };
        Ok((Some(attempt), tried))
    }

    /// Applies `changed_when` and `failed_when` to a success.
    fn judge(&self, place: &Place<'p>, scope: &Scope, mut outcome: Outcome) -> Try {
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
            self.any(&task.failed_when, &scope).map(Some)
        })();
        match judged {
            Ok(Some(true)) => {
                let mut failure = Failure::new("engine::failed_when", "`failed_when` is true");
                failure.result = result;
                Try::Failed(failure)
            }
            Ok(_) => Try::Succeeded { result, outcome },
            Err(problem) => Try::Failed(Failure::of_problem(&problem)),
        }
    }

    /// `failed_when` may also forgive: where the module reports a return code, a false one turns its
    /// failure into a success. Any other failure stays one.
    fn judge_failure(&self, place: &Place<'p>, scope: &Scope, failure: Failure) -> Try {
        if place.task.failed_when.is_empty() || !failure.result.contains_key("rc") {
            return Try::Failed(failure);
        }
        let scope_with = self.result_scope(place, scope, &failure.to_result());
        match self.any(&place.task.failed_when, &scope_with) {
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

    /// Asks the module what became of an attempt that never finished. `None`: run it again.
    async fn recover(
        &mut self,
        place: &Place<'p>,
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
            Ok(Recovery::Unknown { .. }) if self.already_done(place, scope)? => {
                let outcome = Outcome::changed().summary("interrupted, and found done");
                let id = Some(attempt.attempt.clone());
                self.finish(place, work, id, How::AlreadyDone, outcome, since)
                    .map(Some)
            }
            Ok(Recovery::Unknown { doing, found }) => {
                let why = format!("interrupted in run {} while {doing}; {found}", attempt.run);
                let task = &place.identity;
                let details = vec![
                    "look at the host: is the effect of this task there, whole?".to_owned(),
                    format!(
                        "yes: `kaapana-agent resolve PLAYBOOK '{task}' --done --reason TEXT`, and it is passed over"
                    ),
                    format!(
                        "no:  `kaapana-agent resolve PLAYBOOK '{task}' --redo --reason TEXT`, and it runs again"
                    ),
                ];
                Err(Stop::Decision(Box::new(place.entry(
                    PlanAction::Decide,
                    why,
                    details,
                ))))
            }
            Err(error) => match Failure::of_module(&error) {
                Some(failure) => Ok(Some(self.still_interrupted(place, &failure, since))),
                None => Err(Stop::Interrupted),
            },
        }
    }

    /// Tells a failure without journaling an end: the attempt is as open as before.
    fn still_interrupted(
        &mut self,
        place: &Place<'p>,
        failure: &Failure,
        since: Instant,
    ) -> UnitEnd {
        self.stats.failed += 1;
        let result = Value::Object(failure.to_result());
        let text = failure.message.clone();
        self.finished_event(place, Status::Failed, &result, Some(text), since);
        UnitEnd {
            status: Status::Failed,
            result,
        }
    }

    /// Journals a good end, then tells it.
    fn finish(
        &mut self,
        place: &Place<'p>,
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
        result.insert("changed".into(), changed.into());
        result.insert("failed".into(), false.into());
        // Lets a later task tell whether two things were seen by the same run.
        result.insert("run".into(), self.run.clone().into());
        let mut result = Value::Object(result);
        self.take_facts(&result);
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
        self.stats.ok += 1;
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
            result: self.hide(place, &result),
            outputs,
            summary: summary.as_ref().map(|text| self.engine.redactor.text(text)),
            error: None,
            duration_ms: millis(since.elapsed()),
        })?;
        self.finished_event(place, status, &result, summary, since);
        Ok(UnitEnd { status, result })
    }

    /// Tells whether a unit is only predicted: in check mode, or where `check_mode` says so.
    /// `check_mode: false` does not make a check run have effects.
    fn predicted(&self, place: &Place<'p>, scope: &Scope) -> Result<bool, Problem> {
        match place.frame.check_mode {
            _ if self.checking() => Ok(true),
            Some(node) => self.engine.templates.condition(node, scope),
            None => Ok(false),
        }
    }

    /// Check mode: what would happen. Only what merely looks really runs.
    async fn predict_unit(
        &mut self,
        place: &Place<'p>,
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
                Try::Failed(failure) => {
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

    fn context(&mut self, place: &Place<'p>, work: &Work) -> TaskContext {
        self.logs += 1;
        let engine = self.engine;
        let log = engine.state.run_logs(&self.run).join(format!(
            "{:03}-{}.log",
            self.logs,
            file_name(&place.raw_name())
        ));
        TaskContext {
            progress: task_log::progress(
                &place.identity,
                log,
                &self.events,
                &engine.redactor,
                !place.frame.no_log && !self.checking(),
            ),
            cancel: engine.options.cancel.child_token(),
            environment: work.environment.iter().cloned().collect::<BTreeMap<_, _>>(),
            services: self.handles(),
            ..engine.looking_context()
        }
    }

    fn next_attempt(&self) -> String {
        let seq = self
            .journal
            .as_ref()
            .map_or(0, crate::state::Journal::next_seq);
        format!("{}/{seq}", self.run)
    }

    /// Evaluates `done_when`; a task without one is never already done.
    fn already_done(&mut self, place: &Place<'p>, scope: &Scope) -> Result<bool, Stop> {
        let conditions = &place.task.done_when;
        // A probe that cannot be evaluated proves nothing.
        Ok(!conditions.is_empty() && self.all(conditions, scope).unwrap_or(false))
    }

    fn until(
        &self,
        place: &Place<'p>,
        scope: &Scope,
        result: &Map<String, Value>,
    ) -> Result<bool, Problem> {
        if place.task.until.is_empty() {
            return Ok(true);
        }
        self.all(&place.task.until, &self.result_scope(place, scope, result))
    }

    fn result_scope(&self, place: &Place<'_>, scope: &Scope, result: &Map<String, Value>) -> Scope {
        let mut scope = scope.clone();
        if let Some(name) = &place.task.register {
            scope.bind(name, Value::Object(result.clone()));
        }
        scope
    }

    fn all(&self, conditions: &[Node], scope: &Scope) -> Result<bool, Problem> {
        for condition in conditions {
            if !self.engine.templates.condition(condition, scope)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn any(&self, conditions: &[Node], scope: &Scope) -> Result<bool, Problem> {
        for condition in conditions {
            if self.engine.templates.condition(condition, scope)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn retry_limits(&self, place: &Place<'p>, scope: &Scope) -> Result<(u64, Duration), Problem> {
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

    fn time_limit(&self, place: &Place<'p>, scope: &Scope) -> Result<Option<Duration>, Problem> {
        let Some(node) = &place.task.timeout else {
            return Ok(None);
        };
        let value = self.engine.templates.render(node, scope)?;
        Ok(seconds(&value).filter(|limit| !limit.is_zero()))
    }
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
