//! What the journal knows about each task, folded from its records.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::format::{Answer, Body, How, Outcome, Output, Record, ServedDirectory, TaskStatus};

/// A started attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id.
    pub attempt: String,
    /// Run that started it.
    pub run: String,
    /// When.
    pub time: Timestamp,
    /// Module's name.
    pub module: String,
    /// Fingerprint of then.
    pub fingerprint: Fingerprint,
    /// Arguments of then, secrets hidden.
    pub arguments: Value,
    /// What the module noted for `recover`.
    pub intent: Value,
    /// Whether the host was other than the task describes when it began, where that is known.
    pub needs_change: Option<bool>,
    /// What was seen instead of an end, where the attempt came to one that nobody saw.
    pub unseen: Option<String>,
}

/// A good (or accepted) end.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Number of the record that says so.
    pub seq: u64,
    /// Run that finished it.
    pub run: String,
    /// When.
    pub time: Timestamp,
    /// How it ended.
    pub status: TaskStatus,
    /// How that came to be known.
    pub how: How,
    /// Fingerprint of then.
    pub fingerprint: Fingerprint,
    /// Arguments of then, secrets hidden.
    pub arguments: Value,
    /// Return values, secrets hidden.
    pub result: Value,
    /// JSON pointers to those from which a secret was cut.
    pub hidden: Vec<String>,
    /// Files made.
    pub outputs: Vec<Output>,
    /// One line for people.
    pub summary: Option<String>,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskHistory {
    /// Came to a good end.
    Finished(Box<Finished>),
    /// Failed; nothing is in the making.
    Failed {
        /// Run that it failed in.
        run: String,
        /// When.
        time: Timestamp,
        /// Why.
        error: Option<String>,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// Started and never finished: the process or the machine died, or the run was interrupted.
    Interrupted(Box<Attempt>),
    /// An operator said to run it again.
    Redo {
        /// Who.
        user: String,
        /// Why.
        reason: String,
    },
    /// Its condition was false when it was last looked at.
    Skipped {
        /// The condition.
        condition: String,
    },
    /// What it did was taken back: it is as if it had never run.
    Undone {
        /// Run that undid it.
        run: String,
        /// When.
        time: Timestamp,
        /// One line for people.
        summary: Option<String>,
    },
    /// Taking back what it did has begun and not come to its end.
    Undoing {
        /// Run that began it.
        run: String,
        /// When.
        time: Timestamp,
    },
}

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started: Timestamp,
    /// Who began it.
    pub user: String,
    /// Where.
    pub host: String,
    /// Playbook path as given.
    pub playbook: String,
    /// SHA-256 of its text.
    pub playbook_sha256: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Command line, secrets hidden.
    pub arguments: Vec<String>,
    /// How it ended; `None` while it runs, or when it was killed.
    pub outcome: Option<Outcome>,
    /// Wall time in milliseconds, once it ended.
    pub duration_ms: Option<u64>,
    /// What was asked for: `rollback`, `purge`; `None` for `run`.
    pub command: Option<String>,
    /// Recap, once it ended: status -> number of tasks.
    pub stats: BTreeMap<String, u32>,
}

/// The last that is known of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name in the playbook.
    pub name: String,
    /// Container.
    pub container: String,
    /// Run that said so.
    pub run: String,
    /// When.
    pub time: Timestamp,
    /// Started, and not stopped since.
    pub up: bool,
    /// Data directories that it was started on last, where the journal tells.
    pub directories: Vec<ServedDirectory>,
}

/// The last that a journal says of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkedSite {
    /// Its folder.
    pub site: PathBuf,
    /// Run that said so.
    pub run: String,
    /// When.
    pub time: Timestamp,
    /// Marked as this state's, and not freed since.
    pub held: bool,
}

/// An operator's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Identity of the task.
    pub task: String,
    /// The answer.
    pub answer: Answer,
    /// Why.
    pub reason: String,
    /// Who.
    pub user: String,
    /// When.
    pub time: Timestamp,
}

/// Everything the journal knows, by task.
#[derive(Debug, Clone, Default)]
pub struct History {
    tasks: HashMap<String, TaskHistory>,
    order: Vec<String>,
    /// Who notified a handler last.
    notified_by: HashMap<String, String>,
    /// The record from which on a handler's turn is one of its own: what it did before was for another.
    turns: HashMap<String, u64>,
    /// Handlers that have notified themselves in the turn that they are at.
    notified_again: HashSet<String>,
    /// Handlers that were notified and have not run since, oldest notification first.
    pub pending_handlers: Vec<String>,
    /// Runs, oldest first.
    pub runs: Vec<Run>,
    /// Services, in the order in which they were first started.
    pub services: Vec<Service>,
    /// Operators' answers, oldest first.
    pub decisions: Vec<Decision>,
    /// Play -> its settled variables, as they were before its first effect. Nothing is settled once
    /// everything was taken back.
    pub settled: BTreeMap<String, BTreeMap<String, Value>>,
    /// Sites, in the order in which they were first marked.
    pub sites: Vec<MarkedSite>,
    /// Tasks that an operator has answered for and no run has begun since: the last answer counts.
    pub answered: HashSet<String>,
}

impl History {
    /// Folds records.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let mut history = Self::default();
        // A journal has at least one record a task; growing step by step would move them all.
        history.tasks.reserve(records.len());
        history.order.reserve(records.len());
        for record in records {
            history.add(record);
        }
        history
    }

    /// Folders of the sites that this state holds.
    pub fn held_sites(&self) -> impl Iterator<Item = &PathBuf> {
        let held = self.sites.iter().filter(|known| known.held);
        held.map(|known| &known.site)
    }

    /// Takes in one more record.
    pub fn add(&mut self, record: &Record) {
        match &record.body {
            Body::RunStarted {
                playbook,
                playbook_sha256,
                user,
                host,
                command,
                agent_version,
                arguments,
                ..
            } => {
                self.answered.clear();
                self.runs.push(Run {
                    id: record.run.clone(),
                    started: record.time,
                    user: user.clone(),
                    host: host.clone(),
                    playbook: playbook.clone(),
                    playbook_sha256: playbook_sha256.clone(),
                    agent_version: agent_version.clone(),
                    arguments: arguments.clone(),
                    outcome: None,
                    duration_ms: None,
                    command: command.clone(),
                    stats: BTreeMap::new(),
                });
            }
            Body::RunFinished {
                outcome,
                duration_ms,
                stats,
            } => {
                if let Some(run) = self.runs.iter_mut().rev().find(|run| run.id == record.run) {
                    run.outcome = Some(*outcome);
                    run.duration_ms = Some(*duration_ms);
                    run.stats.clone_from(stats);
                }
            }
            Body::TaskStarted {
                task,
                attempt,
                module,
                fingerprint,
                arguments,
                intent,
                needs_change,
                ..
            } => {
                let attempt = Attempt {
                    attempt: attempt.clone(),
                    run: record.run.clone(),
                    time: record.time,
                    module: module.clone(),
                    fingerprint: fingerprint.clone(),
                    arguments: arguments.clone(),
                    intent: intent.clone(),
                    needs_change: *needs_change,
                    unseen: None,
                };
                self.set(task, TaskHistory::Interrupted(Box::new(attempt)));
            }
            Body::OutcomeUnknown {
                task,
                attempt,
                error,
                ..
            } => {
                if let Some(TaskHistory::Interrupted(open)) = self.tasks.get_mut(task)
                    && open.attempt == *attempt
                {
                    open.unseen = Some(error.clone());
                }
            }
            Body::TaskFinished { task, status, .. } => {
                let now = self.finished(record, task);
                if let Some(now) = now {
                    self.set(task, now);
                }
                // Later versions have a record for it. A handler that failed still has its turn before it.
                if record.v < 3 && *status != TaskStatus::Failed {
                    self.pending_handlers.retain(|handler| handler != task);
                }
            }
            Body::HandlerRan { task } => {
                if self.notified_again.remove(task) {
                    self.turns.insert(task.clone(), record.seq);
                } else {
                    self.pending_handlers.retain(|handler| handler != task);
                }
            }
            Body::TaskSkipped { task, condition } => {
                // Only what was never begun is skipped: an open attempt or a failure stays one.
                if matches!(
                    self.tasks.get(task),
                    None | Some(TaskHistory::Skipped { .. })
                ) {
                    self.set(
                        task,
                        TaskHistory::Skipped {
                            condition: condition.clone(),
                        },
                    );
                }
            }
            Body::TaskAdopted { task, from } => {
                if let Some(known) = self.tasks.remove(from) {
                    self.order.retain(|name| name != from);
                    self.set(task, known);
                }
            }
            Body::TaskResolved {
                task,
                answer,
                reason,
                user,
                ..
            } => {
                self.decisions.push(Decision {
                    task: task.clone(),
                    answer: *answer,
                    reason: reason.clone(),
                    user: user.clone(),
                    time: record.time,
                });
                self.answered.insert(task.clone());
                self.resolve(record);
            }
            Body::HandlerNotified { task, by } => {
                if !self.pending_handlers.contains(task) {
                    self.pending_handlers.push(task.clone());
                    self.turns.insert(task.clone(), record.seq);
                } else if is_unit_of(by, task) {
                    self.notified_again.insert(task.clone());
                }
                self.notified_by.insert(task.clone(), by.clone());
            }
            Body::UndoStarted { task, .. } => {
                let (run, time) = (record.run.clone(), record.time);
                self.set(task, TaskHistory::Undoing { run, time });
            }
            Body::UndoFinished {
                task,
                with,
                summary,
                ..
            } => {
                for task in with.iter().chain([task]) {
                    self.undone(task, record, summary.as_ref());
                }
                let is_gone = |known: &TaskHistory| {
                    matches!(
                        known,
                        TaskHistory::Undone { .. } | TaskHistory::Skipped { .. }
                    )
                };
                if self.tasks.values().all(is_gone) {
                    self.settled.clear();
                }
            }
            Body::ServiceStarted {
                service,
                container,
                directories,
            } => self.service(record, service, container, Some(directories)),
            Body::ServiceStopped { service, container } => {
                self.service(record, service, container, None);
            }
            Body::VariablesSettled { play, variables } => {
                let known = self.settled.entry(play.clone()).or_default();
                for (name, value) in variables {
                    known.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            Body::SiteMarked { site, marker } => self.site(record, site, !marker.is_null()),
            Body::JournalCreated { .. }
            | Body::StateAdopted { .. }
            | Body::PurgeStarted { .. }
            | Body::PurgeFinished { .. } => {}
        }
    }

    /// Takes in that an operator wants a task to run again.
    pub fn redo(&mut self, task: &str, user: &str, reason: &str) {
        let redo = TaskHistory::Redo {
            user: user.to_owned(),
            reason: reason.to_owned(),
        };
        self.set(task, redo);
    }

    /// What is known about a task.
    #[must_use]
    pub fn task(&self, task: &str) -> Option<&TaskHistory> {
        self.tasks.get(task)
    }

    /// Whether a unit of a handler (itself, or an item of its loop) is still to run in the turn that the
    /// handler has before it.
    #[must_use]
    pub fn is_due(&self, handler: &str, unit: &str) -> bool {
        if !self
            .pending_handlers
            .iter()
            .any(|pending| pending == handler)
        {
            return false;
        }
        match self.tasks.get(unit) {
            Some(TaskHistory::Finished(finished)) => self
                .turns
                .get(handler)
                .is_none_or(|turn| finished.seq < *turn),
            _ => true,
        }
    }

    /// All identities, in the order in which they first appeared.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, &TaskHistory)> {
        self.order
            .iter()
            .filter_map(|name| self.tasks.get(name).map(|task| (name.as_str(), task)))
    }

    fn set(&mut self, task: &str, to: TaskHistory) {
        match self.tasks.get_mut(task) {
            Some(known) => *known = to,
            None => {
                self.tasks.insert(task.to_owned(), to);
                self.order.push(task.to_owned());
            }
        }
    }

    fn undone(&mut self, task: &str, record: &Record, summary: Option<&String>) {
        let notified_by = &self.notified_by;
        self.pending_handlers
            .retain(|handler| notified_by.get(handler).is_none_or(|by| by != task));
        self.set(
            task,
            TaskHistory::Undone {
                run: record.run.clone(),
                time: record.time,
                summary: summary.cloned(),
            },
        );
    }

    fn service(
        &mut self,
        record: &Record,
        name: &str,
        container: &str,
        started_on: Option<&Vec<ServedDirectory>>,
    ) {
        let now = Service {
            name: name.to_owned(),
            container: container.to_owned(),
            run: record.run.clone(),
            time: record.time,
            up: started_on.is_some(),
            directories: started_on.cloned().unwrap_or_default(),
        };
        match self.services.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = now,
            None => self.services.push(now),
        }
    }

    fn site(&mut self, record: &Record, site: &Path, held: bool) {
        let now = MarkedSite {
            site: site.to_path_buf(),
            run: record.run.clone(),
            time: record.time,
            held,
        };
        match self.sites.iter_mut().find(|known| known.site == site) {
            Some(known) => *known = now,
            None => self.sites.push(now),
        }
    }

    fn finished(&self, record: &Record, task: &str) -> Option<TaskHistory> {
        let Body::TaskFinished {
            status,
            how,
            fingerprint,
            arguments,
            result,
            hidden,
            outputs,
            summary,
            error,
            duration_ms,
            ..
        } = &record.body
        else {
            return None;
        };
        if *status == TaskStatus::Failed {
            return Some(TaskHistory::Failed {
                run: record.run.clone(),
                time: record.time,
                error: error.clone(),
                duration_ms: *duration_ms,
            });
        }
        let arguments = match (arguments, self.tasks.get(task)) {
            (Value::Null, Some(TaskHistory::Interrupted(attempt))) => attempt.arguments.clone(),
            (given, _) => given.clone(),
        };
        Some(TaskHistory::Finished(Box::new(Finished {
            seq: record.seq,
            run: record.run.clone(),
            time: record.time,
            status: *status,
            how: *how,
            fingerprint: fingerprint.clone(),
            arguments,
            result: result.clone(),
            hidden: match record.v {
                // Nobody noted where something was cut: what stands for it tells.
                0..3 => hidden_in(result),
                _ => hidden.clone(),
            },
            outputs: outputs.clone(),
            summary: summary.clone(),
            duration_ms: *duration_ms,
        })))
    }

    fn resolve(&mut self, record: &Record) {
        let Body::TaskResolved {
            task,
            answer,
            reason,
            user,
            fingerprint,
        } = &record.body
        else {
            return;
        };
        let now = match (answer, self.tasks.get(task)) {
            (Answer::Redo, _) => TaskHistory::Redo {
                user: user.clone(),
                reason: reason.clone(),
            },
            (Answer::Done, Some(TaskHistory::Finished(finished))) => {
                let mut finished = finished.clone();
                if let Some(fingerprint) = fingerprint {
                    finished.fingerprint = fingerprint.clone();
                }
                TaskHistory::Finished(finished)
            }
            (Answer::Done, known) => {
                let attempt = match known {
                    Some(TaskHistory::Interrupted(attempt)) => Some(attempt),
                    _ => None,
                };
                let print = fingerprint
                    .clone()
                    .or(attempt.map(|known| known.fingerprint.clone()));
                let Some(fingerprint) = print else { return };
                TaskHistory::Finished(Box::new(Finished {
                    seq: record.seq,
                    run: record.run.clone(),
                    time: record.time,
                    status: TaskStatus::Changed,
                    how: How::AlreadyDone,
                    fingerprint,
                    arguments: attempt.map_or(Value::Null, |known| known.arguments.clone()),
                    result: serde_json::json!({
                        "changed": true, "failed": false, "resolved_by": user,
                    }),
                    hidden: Vec::new(),
                    outputs: Vec::new(),
                    summary: Some(format!("{user} says it is done: {reason}")),
                    duration_ms: 0,
                }))
            }
        };
        self.set(task, now);
    }
}

/// Whether `unit` is this task, or an item of its loop.
fn is_unit_of(unit: &str, task: &str) -> bool {
    unit.strip_prefix(task)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ["))
}

/// Stands where a secret was.
const HIDDEN: &str = "[hidden]";

/// Where secrets were cut from a result, told by what stands for them: JSON pointers.
fn hidden_in(result: &Value) -> Vec<String> {
    let mut found = Vec::new();
    // What `no_log` leaves says nothing of what there was.
    if result.get("censored").is_some() {
        return vec![String::new()];
    }
    collect_hidden(result, &mut String::new(), &mut found);
    found
}

fn collect_hidden(value: &Value, path: &mut String, found: &mut Vec<String>) {
    let at = path.len();
    let mut enter = |name: &str, item: &Value, path: &mut String| {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        collect_hidden(item, path, found);
        path.truncate(at);
    };
    match value {
        Value::String(text) if text.contains(HIDDEN) => found.push(path.clone()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                enter(&index.to_string(), item, path);
            }
        }
        Value::Object(map) => {
            for (name, item) in map {
                enter(name, item, path);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::NO_HASH;

    fn history(v: u32, bodies: &[Body]) -> History {
        let records: Vec<Record> = bodies
            .iter()
            .zip(1..)
            .map(|(body, seq)| Record {
                v,
                seq,
                time: Timestamp::UNIX_EPOCH,
                run: "r".into(),
                body: body.clone(),
                prev: NO_HASH.into(),
            })
            .collect();
        History::of(&records)
    }

    fn ended(task: &str, status: TaskStatus, result: Value) -> Body {
        Body::TaskFinished {
            task: task.into(),
            attempt: None,
            status,
            how: How::Ran,
            fingerprint: Fingerprint::default(),
            arguments: Value::Null,
            result,
            hidden: Vec::new(),
            outputs: Vec::new(),
            summary: None,
            error: None,
            duration_ms: 0,
        }
    }

    fn notified(task: &str, by: &str) -> Body {
        Body::HandlerNotified {
            task: task.into(),
            by: by.into(),
        }
    }

    #[test]
    fn what_was_cut_from_an_old_record_is_told_by_what_stands_for_it() {
        let lost = |v, result: Value| {
            let known = history(v, &[ended("t", TaskStatus::Ok, result)]);
            match known.task("t") {
                Some(TaskHistory::Finished(finished)) => finished.hidden.clone(),
                other => panic!("{other:?}"),
            }
        };
        let result = json!({"a": [1, "x [hidden]"], "b/c": {"d": "[hidden]"}, "e": "plain"});
        assert_eq!(lost(2, result.clone()), ["/a/1", "/b~1c/d"]);
        // A newer one says it itself: this text was there.
        assert!(lost(3, result).is_empty());
        assert_eq!(lost(2, json!({"censored": "x", "changed": true})), [""]);
    }

    #[test]
    fn a_handler_is_due_until_its_turn_has_come_to_its_end() {
        let ran = |task: &str| Body::HandlerRan { task: task.into() };
        let ok = |task: &str| ended(task, TaskStatus::Changed, Value::Null);
        let failed = |task: &str| ended(task, TaskStatus::Failed, Value::Null);
        let due = |v, bodies: &[Body]| {
            let known = history(v, bodies);
            ["h", "h [a]", "h [b]"].map(|unit| known.is_due("h", unit))
        };
        let go = notified("h", "t");
        assert_eq!(due(3, &[]), [false; 3]);
        assert_eq!(due(3, std::slice::from_ref(&go)), [true; 3]);
        // Killed in its loop: the items that are left.
        let half = [ok("h [a]"), ok("h [b]"), go.clone(), ok("h [a]")];
        assert_eq!(due(3, &half), [true, false, true]);
        let whole = [go.clone(), ok("h [a]"), ok("h [b]"), ran("h")];
        assert_eq!(due(3, &whole), [false; 3]);
        assert_eq!(due(3, &[go.clone(), failed("h")]), [true; 3]);
        // Notified by itself, it has one more.
        let itself = [go.clone(), notified("h", "h"), ok("h"), ran("h")];
        assert!(due(3, &itself)[0]);
        let over = [&itself[..], &[ok("h"), ran("h")]].concat();
        assert!(!due(3, &over)[0]);
        // Before version 3 the end of its task was the end of its turn.
        assert!(!due(2, &[go.clone(), ok("h")])[0]);
        assert!(due(2, &[go, failed("h")])[0]);
    }
}
