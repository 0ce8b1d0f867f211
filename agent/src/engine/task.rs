//! One task: its loop, its registered result, and what each unit's end means for the play.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Value, json};

use super::decide::{Decision, Orphan};
use super::failure::Failure;
use super::frame::Frame;
use super::fresh::Fresh;
use super::plan::{PlanAction, PlanEntry};
use super::rounds::{item_result, loop_result};
use super::run::{Engine, Stop};
use super::session::{Failed, Flow, Session};
use super::unit::{Item, Look, Ready, TaskInstance, text_of_value};
use crate::event::Stats;
use crate::event::{Event, Status};
use crate::host::time::millis;
use crate::playbook::model::{Loop, Task};
use crate::playbook::template::{Cut, Rank, Scope};
use crate::redact::differing;
use crate::source::Problem;
use crate::state::{Attempt, Body, Fingerprint, Finished, How, TaskHistory, TaskStatus};
use crate::task::module::{Kind, Plan};

/// How a unit ended.
pub(super) struct UnitEnd {
    pub status: Status,
    pub result: Value,
    /// What the result lost on its way through the journal: JSON pointers.
    pub hidden: Vec<String>,
}

impl UnitEnd {
    /// An end that is told as it happened.
    pub(super) fn new(status: Status, result: Value) -> Self {
        Self {
            status,
            result,
            hidden: Vec::new(),
        }
    }
}

/// What is to be done with a unit, free of borrows from the history.
enum Next {
    Done(Box<Finished>),
    Adopt {
        from: String,
        finished: Box<Finished>,
    },
    Run {
        reason: Option<String>,
    },
    Recover(Box<Attempt>),
    LookOnly {
        finished: Box<Finished>,
        reason: String,
    },
    Ask {
        why: String,
        details: Vec<String>,
    },
}

impl<'p> Session<'p> {
    pub(super) async fn task(&mut self, task: &'p Task, frame: &Frame<'p>) -> Result<Flow, Stop> {
        let engine = self.engine;
        let place = engine.place(task, frame, None);
        if !engine.wants(&place.frame, task) {
            return Ok(Flow::Next);
        }
        let scope = place.frame.scope.clone();
        let Some(spec) = &task.r#loop else {
            let end = self.unit(&place, &scope).await?;
            let lost = !end.hidden.is_empty();
            let units = lost.then(|| place.identity.clone()).into_iter().collect();
            self.note_source(&place, frame, units);
            return Ok(self.conclude(&place, &place.identity, end));
        };
        let items = match self.items_of(&place, spec, &scope).await? {
            Ok(items) => items,
            Err(end) => return Ok(self.conclude(&place, &place.identity, end)),
        };
        if items.is_empty() {
            return Ok(self.nothing_to_loop_over(&place));
        }
        let mut results = Vec::new();
        let (mut hidden, mut lost) = (Vec::new(), Vec::new());
        let mut failed = None;
        let before = self.stats;
        let pause = engine.pause_between(spec, &scope);
        for item in items {
            if item.index > 0 && !pause.is_zero() {
                tokio::select! {
                    () = engine.options.cancel.cancelled() => return Err(Stop::Interrupted),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            let scope = engine.item_scope(&scope, spec, &item);
            let place = engine.place(task, frame, Some(item.clone()));
            let end = self.unit(&place, &scope).await?;
            if !end.hidden.is_empty() {
                let at = results.len();
                hidden.extend(end.hidden.iter().map(|path| format!("/results/{at}{path}")));
                lost.push(place.identity.clone());
            }
            let result = item_result(spec, &item, end.result);
            results.push(result);
            if matches!(end.status, Status::Failed | Status::Rescued) {
                failed = Some(place.identity);
                // Ansible goes on with the next item. One that cannot be repeated may rest on this one:
                // the next script on the schema that this one was to make.
                if task.module.kind == Kind::OneWay {
                    break;
                }
            }
        }
        self.stats = counted_once(before, self.stats);
        let result = loop_result(results);
        let status = if failed.is_some() {
            Status::Failed
        } else {
            Status::Ok
        };
        let identity = failed.unwrap_or_else(|| place.identity.clone());
        self.note_source(&place, frame, lost);
        let end = UnitEnd {
            status,
            result,
            hidden,
        };
        Ok(self.conclude(&place, &identity, end))
    }

    /// A loop's items; what they are made of is made whole first, where that can be.
    async fn items_of(
        &mut self,
        place: &TaskInstance<'p>,
        spec: &Loop,
        scope: &Scope,
    ) -> Result<Result<Vec<Item>, UnitEnd>, Stop> {
        let mut asked = BTreeSet::new();
        loop {
            let _ = scope.take_reached();
            let items = self.engine.loop_items(spec, &scope.lenient());
            let missing = scope.take_reached();
            let mut stuck = None;
            for origin in &missing {
                if !matches!(
                    self.freshen(origin, &place.frame, &mut asked).await?,
                    Fresh::Whole
                ) {
                    stuck = Some(origin.clone());
                    break;
                }
            }
            match (items, stuck) {
                (_, None) if !missing.is_empty() => {}
                (Ok(mut items), stuck) => {
                    // Whoever is done needs none of them.
                    for item in &mut items {
                        item.lost.clone_from(&stuck);
                    }
                    return Ok(Ok(items));
                }
                (Err(_), Some(origin)) => return self.stuck(place, &origin).map(Err),
                (Err(problem), None) => return self.not_runnable(place, &problem).map(Err),
            }
        }
    }

    /// A loop over an empty list.
    fn nothing_to_loop_over(&mut self, place: &TaskInstance<'p>) -> Flow {
        self.stats.skipped += 1;
        let mut result = skipped_result("");
        result["skip_reason"] = "No items in the list".into();
        result["results"] = json!([]);
        if let Value::Object(map) = &mut result {
            map.remove("false_condition");
        }
        let summary = Some("no items in the list".to_owned());
        self.finished_event(place, Status::Skipped, &result, summary, Instant::now());
        let end = UnitEnd::new(Status::Skipped, result);
        self.conclude(place, &place.identity, end)
    }

    fn conclude(&mut self, place: &TaskInstance<'p>, identity: &str, end: UnitEnd) -> Flow {
        if let Some(name) = &place.task.register {
            let cut = Cut {
                paths: end.hidden.clone(),
                origin: place.identity.clone(),
            };
            self.root.set_cut(Rank::Set, name, end.result.clone(), cut);
        }
        match end.status {
            Status::Failed => Flow::Failed(Failed {
                name: self.name(place),
                identity: identity.to_owned(),
                result: end.result,
                hidden: end.hidden,
            }),
            _ => Flow::Next,
        }
    }

    /// Looks at a unit and does what the decision says.
    async fn unit(&mut self, place: &TaskInstance<'p>, scope: &Scope) -> Result<UnitEnd, Stop> {
        let engine = self.engine;
        if let Some(end) = self.whole(place, scope).await? {
            return Ok(end);
        }
        // Whatever it needs is whole by now.
        let looking = scope.lenient();
        let orphans: Vec<Orphan<'_>> = match self.history.task(&place.identity) {
            None => self.orphans(),
            Some(_) => Vec::new(),
        };
        let mut ready = match engine.look(place, &looking, &self.history, &orphans) {
            Ok(Look::Ready(ready)) => ready,
            Ok(Look::Skip { condition }) => return self.skipped(place, condition),
            Err(_) if self.checking() && self.unknown => {
                return Ok(self.not_predictable(place, "depends on what earlier tasks find"));
            }
            Err(problem) => return self.not_runnable(place, &problem),
        };
        let run = Some(self.run.as_str());
        ready.decision = engine.decide_again(place, ready.decision, &self.history, run);
        let next = Next::of(engine, &ready, place.task.module.kind, &place.identity);
        let Ready {
            module,
            shown,
            fingerprint,
            environment,
            holds_secret,
            ..
        } = *ready;
        let work = super::execute::Work {
            module,
            shown,
            fingerprint,
            environment,
            holds_secret,
        };
        let handler_due = self.is_due(place);
        let again = self.again.remove(&place.identity);
        match next {
            Next::Done(_) if again => {
                let reason = "needed, and the journal holds its result without secrets";
                self.execute(place, scope, work, Some(reason.to_owned()), None)
                    .await
            }
            Next::Done(_) if handler_due => self.execute(place, scope, work, None, None).await,
            Next::Done(finished) if self.looks_again(place, &finished) => {
                self.look_again(place, scope, work, *finished).await
            }
            Next::Done(finished) => Ok(self.done(place, &finished)),
            Next::Adopt { from, finished } => {
                self.record(Body::TaskAdopted {
                    task: place.identity.clone(),
                    from,
                })?;
                Ok(self.done(place, &finished))
            }
            Next::Run { reason } => self.execute(place, scope, work, reason, None).await,
            Next::Recover(attempt) => {
                let reason = Some(format!("interrupted in run {}", attempt.run));
                self.execute(place, scope, work, reason, Some(*attempt))
                    .await
            }
            Next::LookOnly { finished, reason } => {
                self.look_only(place, work, *finished, reason).await
            }
            Next::Ask { why, details } => Err(Stop::Decision(Box::new(place.entry(
                PlanAction::Decide,
                why,
                details,
            )))),
        }
    }

    /// Whether a handler's unit has a turn before it.
    pub(super) fn is_due(&self, place: &TaskInstance<'p>) -> bool {
        let handler = || self.engine.identities.get(place.task);
        place.frame.handlers && self.history.is_due(handler(), &place.identity)
    }

    fn skipped(&mut self, place: &TaskInstance<'p>, condition: String) -> Result<UnitEnd, Stop> {
        if self.history.task(&place.identity).is_none() {
            self.record(Body::TaskSkipped {
                task: place.identity.clone(),
                condition: condition.clone(),
            })?;
        }
        self.stats.skipped += 1;
        let result = skipped_result(&condition);
        let summary = Some(format!("`{condition}` is false"));
        self.finished_event(place, Status::Skipped, &result, summary, Instant::now());
        Ok(UnitEnd::new(Status::Skipped, result))
    }

    /// Tells whether a done unit is looked at all the same, as `--no-checkpoint` asks.
    fn looks_again(&self, place: &TaskInstance<'p>, finished: &Finished) -> bool {
        self.engine.options.no_checkpoint
            && place.task.module.kind != Kind::OneWay
            && finished.status != TaskStatus::Rescued
    }

    /// Looks at a done unit again. What is still as described leaves no record: nothing was done.
    async fn look_again(
        &mut self,
        place: &TaskInstance<'p>,
        scope: &Scope,
        work: super::execute::Work,
        finished: Finished,
    ) -> Result<UnitEnd, Stop> {
        if place.task.module.kind == Kind::Converging {
            let since = Instant::now();
            let mut ctx = self.context(place, &work);
            ctx.diff = false;
            if let Ok(Plan::InSync) = work.module.check(&ctx).await {
                self.stats.ok += 1;
                let mut result = finished.result;
                if let Value::Object(map) = &mut result {
                    map.insert("changed".into(), false.into());
                }
                let summary = Some("still as described".to_owned());
                self.finished_event(place, Status::Ok, &result, summary, since);
                return Ok(UnitEnd {
                    status: Status::Ok,
                    result,
                    hidden: finished.hidden,
                });
            }
        }
        let reason = Some("looked at again, as --no-checkpoint asks".to_owned());
        self.execute(place, scope, work, reason, None).await
    }

    /// Passes over a unit that the journal proves done.
    pub(super) fn done(&mut self, place: &TaskInstance<'p>, finished: &Finished) -> UnitEnd {
        self.stats.done += 1;
        self.take_facts(place, &finished.result, &finished.hidden);
        let summary = Some(format!("done in run {}", finished.run));
        self.finished_event(
            place,
            Status::Done,
            &finished.result,
            summary,
            Instant::now(),
        );
        let status = match finished.status {
            // The block's rescue took over then, and does now.
            TaskStatus::Rescued => Status::Failed,
            _ => Status::Done,
        };
        UnitEnd {
            status,
            result: finished.result.clone(),
            hidden: finished.hidden.clone(),
        }
    }

    /// A unit whose arguments or conditions cannot be made sense of at run time.
    pub(super) fn not_runnable(
        &mut self,
        place: &TaskInstance<'p>,
        problem: &Problem,
    ) -> Result<UnitEnd, Stop> {
        let failure = Failure::of_problem(problem);
        // What was done stays done, and an open attempt stays open: nothing was found out about either.
        if matches!(
            self.history.task(&place.identity),
            Some(TaskHistory::Finished(_) | TaskHistory::Interrupted(_))
        ) {
            return Ok(self.told_only(place, &failure, Instant::now()));
        }
        let fingerprint = Fingerprint::default();
        self.failed(place, &failure, fingerprint, None, Instant::now())
    }

    pub(super) fn not_predictable(&mut self, place: &TaskInstance<'p>, why: &str) -> UnitEnd {
        self.unknown = true;
        self.stats.skipped += 1;
        let result = json!({"skipped": true, "changed": false, "skip_reason": why});
        self.finished_event(
            place,
            Status::Skipped,
            &result,
            Some(why.into()),
            Instant::now(),
        );
        UnitEnd::new(Status::Skipped, result)
    }

    /// Journals and tells a failure; `ignore_errors` makes it an accepted end.
    pub(super) fn failed(
        &mut self,
        place: &TaskInstance<'p>,
        failure: &Failure,
        fingerprint: Fingerprint,
        attempt: Option<String>,
        since: Instant,
    ) -> Result<UnitEnd, Stop> {
        let engine = self.engine;
        let ignored = match place.frame.ignore_errors {
            Some(node) => engine
                .templates
                .condition(node, &place.frame.scope)
                .unwrap_or(false),
            None => false,
        };
        let result = Value::Object(failure.to_result());
        let hidden = self.hide(place, &result);
        let cut = self.hidden(place, &result);
        let (status, kept) = if ignored {
            self.stats.ignored += 1;
            self.stats.ok += 1;
            self.stats.changed += u32::from(result["changed"] == true);
            (Status::Ignored, TaskStatus::Ignored)
        } else {
            self.stats.failed += 1;
            (Status::Failed, TaskStatus::Failed)
        };
        self.last_failure.insert(
            place.identity.clone(),
            (fingerprint.clone(), hidden.clone(), cut.clone()),
        );
        let message = self.message(place, failure);
        // Without a finish record the attempt stays open: the next run asks the module what became of it.
        if ignored || !failure.unknown || attempt.is_none() {
            self.record(Body::TaskFinished {
                task: place.identity.clone(),
                attempt,
                status: kept,
                how: How::Ran,
                fingerprint,
                arguments: Value::Null,
                hidden: cut,
                result: hidden,
                outputs: Vec::new(),
                summary: None,
                error: Some(message.clone()),
                duration_ms: millis(since.elapsed()),
            })?;
        }
        self.finished_event(place, status, &result, Some(message), since);
        Ok(UnitEnd::new(status, result))
    }

    /// What a failure says, as it may be shown and written.
    pub(super) fn message(&self, place: &TaskInstance<'_>, failure: &Failure) -> String {
        if place.frame.no_log {
            return "the error is hidden because of no_log".into();
        }
        self.engine.redactor.text(&failure.message)
    }

    /// What [`Session::hide`] cuts from a result: JSON pointers.
    pub(super) fn hidden(&self, place: &TaskInstance<'_>, result: &Value) -> Vec<String> {
        if place.frame.no_log {
            return vec![String::new()];
        }
        differing(result, &self.engine.redactor.value(result))
    }

    /// A result as it may be shown and written.
    pub(super) fn hide(&self, place: &TaskInstance<'_>, result: &Value) -> Value {
        if place.frame.no_log {
            let kept = |key: &str| result.get(key).cloned().unwrap_or(Value::Bool(false));
            return json!({
                "censored": "the result is hidden because of no_log",
                "changed": kept("changed"),
                "failed": kept("failed"),
            });
        }
        self.engine.redactor.value(result)
    }

    pub(super) fn finished_event(
        &self,
        place: &TaskInstance<'_>,
        status: Status,
        result: &Value,
        summary: Option<String>,
        since: Instant,
    ) {
        // What a failure says was hidden by whoever tells of it.
        let told = [Status::Done, Status::Failed, Status::Ignored].contains(&status);
        let summary = summary.filter(|_| !place.frame.no_log || told);
        (self.events)(Event::TaskFinished {
            task: place.identity.clone(),
            name: self.name(place),
            item: place.item.as_ref().map(|item| item.key.clone()),
            status,
            result: self.hide(place, result),
            summary: summary.map(|text| self.engine.redactor.text(&text)),
            duration_ms: millis(since.elapsed()),
        });
        if let Some(progress) = self.effort.ended(&place.identity) {
            (self.events)(progress);
        }
    }

    /// The task's name with its templates rendered, where they can be.
    pub(super) fn name(&self, place: &TaskInstance<'_>) -> String {
        let raw = place.raw_name();
        if !raw.contains("{{") {
            return raw;
        }
        let node = crate::playbook::model::Node {
            kind: crate::playbook::model::NodeKind::String(raw.clone()),
            at: place.task.common.at.clone(),
        };
        let scope = self.engine.unit_scope(place).lenient();
        self.engine
            .templates
            .render(&node, &scope)
            .map_or(raw, |value| {
                self.engine.redactor.text(&text_of_value(&value))
            })
    }
}

impl Next {
    fn of(engine: &Engine, ready: &Ready<'_>, kind: Kind, identity: &str) -> Self {
        match &ready.decision {
            Decision::Done(finished) => Self::Done(Box::new((*finished).clone())),
            Decision::Adopt { from, finished } => Self::Adopt {
                from: (*from).to_owned(),
                finished: Box::new((*finished).clone()),
            },
            Decision::Run(reason) => {
                let new = *reason == super::decide::Reason::New;
                Self::Run {
                    reason: (!new).then(|| reason.describe()),
                }
            }
            Decision::Recover(attempt) => Self::Recover(Box::new((*attempt).clone())),
            Decision::LookAgain { finished, until } => match kind {
                Kind::ReadOnly => Self::Run {
                    reason: Some(super::plan::looked_at_again(until)),
                },
                _ => Self::LookOnly {
                    finished: Box::new((*finished).clone()),
                    reason: super::plan::looked_at_again(until),
                },
            },
            Decision::Ask(question) => {
                let (why, details) = engine.ask_about_changed(
                    identity,
                    question,
                    (&ready.shown, &ready.fingerprint),
                    &ready.module.advice(&engine.looking_context()),
                );
                Self::Ask { why, details }
            }
        }
    }
}

impl TaskInstance<'_> {
    /// The identity of the whole task, without the loop's item.
    pub(super) fn whole(&self) -> &str {
        let item = self.item.as_ref().map(|item| format!(" [{}]", item.key));
        item.and_then(|item| self.identity.strip_suffix(&item))
            .unwrap_or(&self.identity)
    }

    /// The task's name as written, else its module's.
    pub(super) fn raw_name(&self) -> String {
        self.task
            .common
            .name
            .clone()
            .unwrap_or_else(|| self.task.module.name.to_owned())
    }

    pub(super) fn entry(&self, action: PlanAction, why: String, details: Vec<String>) -> PlanEntry {
        PlanEntry {
            task: self.identity.clone(),
            name: self.raw_name(),
            module: self.task.module.name.to_owned(),
            action,
            why,
            details,
        }
    }
}

impl Engine {
    pub(super) fn place<'p>(
        &self,
        task: &'p Task,
        frame: &Frame<'p>,
        item: Option<Item>,
    ) -> TaskInstance<'p> {
        let mut identity = self.identities.get(task).to_owned();
        for key in &frame.rounds {
            identity.push_str(&format!(" [{key}]"));
        }
        if let Some(item) = &item {
            identity.push_str(&format!(" [{}]", item.key));
        }
        TaskInstance {
            task,
            frame: frame.with_task(task),
            identity,
            item,
        }
    }

    /// Tells whether `--tags` and `--skip-tags` let a task through.
    pub(super) fn wants(&self, frame: &Frame<'_>, task: &Task) -> bool {
        if frame.handlers {
            return true;
        }
        let tags: Vec<&str> = task
            .common
            .tags
            .iter()
            .chain(&frame.play.tags)
            .map(String::as_str)
            .collect();
        let has = |wanted: &[String]| {
            wanted.iter().any(|tag| {
                tags.contains(&tag.as_str())
                    || (tag == "all" && !tags.contains(&"never"))
                    || (tag == "tagged" && !tags.is_empty() && !tags.contains(&"never"))
                    || (tag == "untagged" && tags.is_empty())
            })
        };
        if has(&self.options.skip_tags) {
            return false;
        }
        if self.options.tags.is_empty() {
            return !tags.contains(&"never");
        }
        tags.contains(&"always") || has(&self.options.tags)
    }

    /// Every unit of a task: itself, or an item each where its loop can be rendered.
    pub(super) fn places<'p>(&self, task: &'p Task, frame: &Frame<'p>) -> Vec<TaskInstance<'p>> {
        let place = self.place(task, frame, None);
        match &task.r#loop {
            None => vec![place],
            Some(spec) => self
                .loop_items(spec, &place.frame.scope)
                .unwrap_or_default()
                .into_iter()
                .map(|item| self.place(task, frame, Some(item)))
                .collect(),
        }
    }

    /// Variables of a unit, its loop's included.
    pub(super) fn unit_scope(&self, place: &TaskInstance<'_>) -> Scope {
        match (&place.task.r#loop, &place.item) {
            (Some(spec), Some(item)) => self.item_scope(&place.frame.scope, spec, item),
            _ => place.frame.scope.clone(),
        }
    }
}

/// The recap counts a loop once, as Ansible's does.
fn counted_once(before: Stats, after: Stats) -> Stats {
    let mut counted = before;
    let more = |count: fn(&Stats) -> u32| count(&after) > count(&before);
    if more(|stats| stats.failed) {
        counted.failed += 1;
        return counted;
    }
    if more(|stats| stats.ignored) {
        counted.ignored += 1;
    }
    if more(|stats| stats.ok) {
        counted.ok += 1;
    } else if more(|stats| stats.done) {
        counted.done += 1;
    } else if more(|stats| stats.skipped) {
        counted.skipped += 1;
    }
    counted.changed += u32::from(more(|stats| stats.changed));
    counted
}

/// Result of a task whose condition is false.
pub(super) fn skipped_result(condition: &str) -> Value {
    json!({
        "skipped": true,
        "changed": false,
        "skip_reason": "Conditional result was False",
        "false_condition": if condition == "false" { Value::Bool(false) } else { condition.into() },
    })
}
