//! One task: its loop, its registered result, and what each unit's end means for the play.

use std::time::Instant;

use serde_json::{Value, json};

use super::decide::{Decision, Orphan};
use super::failure::Failure;
use super::frame::Frame;
use super::plan::{PlanAction, PlanEntry, keyed};
use super::run::{Engine, Stop};
use super::session::{Failed, Flow, Session};
use super::unit::{Item, Look, Place, Ready, text_of_value};
use crate::event::{Event, Status, millis};
use crate::modules::Kind;
use crate::playbook::model::{Loop, Task};
use crate::playbook::template::Scope;
use crate::source::Problem;
use crate::state::{Attempt, Body, Fingerprint, Finished, How, TaskHistory, TaskStatus};

/// How a unit ended.
pub(super) struct UnitEnd {
    pub status: Status,
    pub result: Value,
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
            return Ok(self.conclude(task, &place.identity, end));
        };
        let items = match engine.loop_items(spec, &scope) {
            Ok(items) => items,
            Err(problem) => {
                let end = self.not_runnable(&place, &problem)?;
                return Ok(self.conclude(task, &place.identity, end));
            }
        };
        let mut results = Vec::new();
        let mut failed = None;
        for item in items {
            let scope = engine.item_scope(&scope, spec, &item);
            let place = engine.place(task, frame, Some(item.clone()));
            let end = self.unit(&place, &scope).await?;
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
        let result = loop_result(results);
        let status = if failed.is_some() {
            Status::Failed
        } else {
            Status::Ok
        };
        let identity = failed.unwrap_or(place.identity);
        Ok(self.conclude(task, &identity, UnitEnd { status, result }))
    }

    fn conclude(&mut self, task: &Task, identity: &str, end: UnitEnd) -> Flow {
        if let Some(name) = &task.register {
            self.root.set(name, end.result.clone());
        }
        match end.status {
            Status::Failed => Flow::Failed(Failed {
                identity: identity.to_owned(),
                result: end.result,
            }),
            _ => Flow::Next,
        }
    }

    /// Looks at a unit and does what the decision says.
    async fn unit(&mut self, place: &Place<'p>, scope: &Scope) -> Result<UnitEnd, Stop> {
        let engine = self.engine;
        let orphans: Vec<Orphan<'_>> = match self.history.task(&place.identity) {
            None => self.orphans(),
            Some(_) => Vec::new(),
        };
        let ready = match engine.look(place, scope, &self.history, &orphans) {
            Ok(Look::Ready(ready)) => ready,
            Ok(Look::Skip { condition }) => return self.skipped(place, condition),
            Err(_) if self.checking() && self.unknown => {
                return Ok(self.not_predictable(place, "depends on what earlier tasks find"));
            }
            Err(problem) => return self.not_runnable(place, &problem),
        };
        let next = Next::of(engine, &ready, &place.identity);
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
        let handler_due = self.history.pending_handlers.contains(&place.identity);
        match next {
            Next::Done(_) if handler_due => self.execute(place, scope, work, None, None).await,
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
            Next::Ask { why, details } => Err(Stop::Decision(Box::new(place.entry(
                PlanAction::Decide,
                why,
                details,
            )))),
        }
    }

    fn skipped(&mut self, place: &Place<'p>, condition: String) -> Result<UnitEnd, Stop> {
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
        Ok(UnitEnd {
            status: Status::Skipped,
            result,
        })
    }

    /// Passes over a unit that the journal proves done.
    fn done(&mut self, place: &Place<'p>, finished: &Finished) -> UnitEnd {
        self.stats.done += 1;
        self.take_facts(&finished.result);
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
        }
    }

    /// A unit whose arguments or conditions cannot be made sense of at run time.
    pub(super) fn not_runnable(
        &mut self,
        place: &Place<'p>,
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

    pub(super) fn not_predictable(&mut self, place: &Place<'p>, why: &str) -> UnitEnd {
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
        UnitEnd {
            status: Status::Skipped,
            result,
        }
    }

    /// Journals and tells a failure; `ignore_errors` makes it an accepted end.
    pub(super) fn failed(
        &mut self,
        place: &Place<'p>,
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
        let (status, kept) = if ignored {
            self.stats.ignored += 1;
            self.stats.ok += 1;
            (Status::Ignored, TaskStatus::Ignored)
        } else {
            self.stats.failed += 1;
            (Status::Failed, TaskStatus::Failed)
        };
        self.last_failure.insert(
            place.identity.clone(),
            (fingerprint.clone(), hidden.clone()),
        );
        let message = engine.redactor.text(&failure.message);
        // Without a finish record the attempt stays open: the next run asks the module what became of it.
        if ignored || !failure.unknown || attempt.is_none() {
            self.record(Body::TaskFinished {
                task: place.identity.clone(),
                attempt,
                status: kept,
                how: How::Ran,
                fingerprint,
                arguments: Value::Null,
                result: hidden,
                outputs: Vec::new(),
                summary: None,
                error: Some(message.clone()),
                duration_ms: millis(since.elapsed()),
            })?;
        }
        self.finished_event(place, status, &result, Some(message), since);
        Ok(UnitEnd { status, result })
    }

    pub(super) fn take_facts(&mut self, result: &Value) {
        if let Some(Value::Object(facts)) = result.get("ansible_facts") {
            for (name, value) in facts {
                self.root.set(name, value.clone());
            }
        }
    }

    /// A result as it may be shown and written.
    pub(super) fn hide(&self, place: &Place<'_>, result: &Value) -> Value {
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
        place: &Place<'_>,
        status: Status,
        result: &Value,
        summary: Option<String>,
        since: Instant,
    ) {
        let summary = summary.filter(|_| !place.frame.no_log || status == Status::Done);
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
    pub(super) fn name(&self, place: &Place<'_>) -> String {
        let raw = place.raw_name();
        if !raw.contains("{{") {
            return raw;
        }
        let node = crate::playbook::model::Node {
            kind: crate::playbook::model::NodeKind::String(raw.clone()),
            at: place.task.common.at.clone(),
        };
        let scope = self.engine.unit_scope(place);
        self.engine
            .templates
            .render(&node, &scope)
            .map_or(raw, |value| {
                self.engine.redactor.text(&text_of_value(&value))
            })
    }
}

impl Next {
    fn of(engine: &Engine, ready: &Ready<'_>, identity: &str) -> Self {
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

impl Place<'_> {
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
    ) -> Place<'p> {
        let mut identity = self.identities.get(task).to_owned();
        if let Some(item) = &item {
            identity.push_str(&format!(" [{}]", item.key));
        }
        Place {
            task,
            frame: frame.with_task(task),
            identity,
            item,
        }
    }

    /// Tells whether `--tags` and `--skip-tags` let a task through.
    pub(super) fn wants(&self, frame: &Frame<'_>, task: &Task) -> bool {
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
                    || (tag == "tagged" && !tags.is_empty())
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

    /// Renders a loop's items.
    pub(super) fn loop_items(&self, spec: &Loop, scope: &Scope) -> Result<Vec<Item>, Problem> {
        let rendered = self.templates.render(&spec.items, scope)?;
        let Value::Array(mut values) = rendered else {
            return Err(Problem::new(
                "playbook::loop_needs_a_list",
                &spec.items.at,
                "a loop needs a list",
                "after rendering, this is not a list",
            )
            .with_help("use `dict2items` for a map, or put the value into brackets"));
        };
        if spec.flatten {
            values = values
                .into_iter()
                .flat_map(|value| match value {
                    Value::Array(inner) => inner,
                    other => vec![other],
                })
                .collect();
        }
        let mut labels = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            labels.push(match &spec.label {
                Some(label) => {
                    let item = Item {
                        key: String::new(),
                        value: value.clone(),
                        index,
                    };
                    let scope = self.item_scope(scope, spec, &item);
                    Some(text_of_value(&self.templates.render(label, &scope)?))
                }
                None => None,
            });
        }
        Ok(keyed(values, &labels))
    }

    /// Every unit of a task: itself, or an item each where its loop can be rendered.
    pub(super) fn places<'p>(&self, task: &'p Task, frame: &Frame<'p>) -> Vec<Place<'p>> {
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
    pub(super) fn unit_scope(&self, place: &Place<'_>) -> Scope {
        match (&place.task.r#loop, &place.item) {
            (Some(spec), Some(item)) => self.item_scope(&place.frame.scope, spec, item),
            _ => place.frame.scope.clone(),
        }
    }

    pub(super) fn item_scope(&self, scope: &Scope, spec: &Loop, item: &Item) -> Scope {
        let mut scope = scope.clone();
        scope.bind(&spec.loop_var, item.value.clone());
        if let Some(name) = &spec.index_var {
            scope.bind(name, item.index.into());
        }
        scope
    }
}

/// Result of a task whose condition is false.
pub(super) fn skipped_result(condition: &str) -> Value {
    json!({
        "skipped": true,
        "changed": false,
        "skip_reason": "Conditional result was False",
        "false_condition": condition,
    })
}

/// Result of one item, as it stands in the loop's `results`.
pub(super) fn item_result(spec: &Loop, item: &Item, mut result: Value) -> Value {
    if let Value::Object(map) = &mut result {
        map.insert(spec.loop_var.clone(), item.value.clone());
        map.insert("ansible_loop_var".into(), spec.loop_var.clone().into());
    }
    result
}

/// Result of a loop: each item's, and whether any changed or failed.
pub(super) fn loop_result(results: Vec<Value>) -> Value {
    let any = |key: &str| {
        results
            .iter()
            .any(|r| r.get(key) == Some(&Value::Bool(true)))
    };
    let all = |key: &str| {
        !results.is_empty()
            && results
                .iter()
                .all(|r| r.get(key) == Some(&Value::Bool(true)))
    };
    let (changed, failed, skipped) = (any("changed"), any("failed"), all("skipped"));
    json!({
        "results": results,
        "changed": changed,
        "failed": failed,
        "skipped": skipped,
        "msg": if failed { "One or more items failed" } else { "All items completed" },
    })
}
