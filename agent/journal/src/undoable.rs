//! What tasks did and nobody has taken back, folded from the journal's records: the ground that
//! `rollback` stands on.

use std::collections::HashSet;
use std::path::PathBuf;

use serde_json::Value;

use super::format::{Answer, Body, How, Record, TaskStatus};

/// One started attempt that may have had an effect.
#[derive(Debug, Clone, PartialEq)]
pub struct PastAttempt {
    /// Its id.
    pub attempt: String,
    /// Run that started it.
    pub run: String,
    /// Module's name.
    pub module: String,
    /// What the module noted before the effect.
    pub intent: Value,
    /// Arguments of then, secrets hidden.
    pub arguments: Value,
    /// Return values, where it came to a good end by itself.
    pub result: Option<Value>,
    /// An operator, or a probe, said that its effect is there.
    pub accepted: bool,
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndoableEnd {
    /// Came to a good (or accepted) end.
    Done,
    /// Failed, or an operator said that it is to run again.
    Failed,
    /// Started and never finished.
    Interrupted,
}

/// An undo that was begun and has not come to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenUndo {
    /// Its id.
    pub undo: String,
    /// Its steps.
    pub intent: Value,
}

/// All that a task did since it was last undone.
#[derive(Debug, Clone, PartialEq)]
pub struct UndoableTask {
    /// Identity.
    pub task: String,
    /// Attempts, oldest first; none where nothing was started.
    pub efforts: Vec<PastAttempt>,
    /// How it stands.
    pub end: UndoableEnd,
    /// Sequence number of the record that tells of its last effect.
    pub last: u64,
    /// Undo that was begun.
    pub undo: Option<OpenUndo>,
}

/// What there is to take back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UndoableTasks {
    /// Tasks, newest effect first.
    pub deeds: Vec<UndoableTask>,
    /// What was purged, or is being purged: it cannot be put back any more.
    pub purged: HashSet<PathBuf>,
    /// Whether containers of services may be left over.
    pub services_open: bool,
}

impl UndoableTasks {
    /// Folds records.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let mut all = Self::default();
        let mut services: Vec<&str> = Vec::new();
        for record in records {
            match &record.body {
                Body::ServiceStarted { service, .. } => services.push(service),
                Body::ServiceStopped { service, .. } => services.retain(|name| name != service),
                Body::PurgeStarted { entries, .. } => {
                    let paths = entries.iter().map(|entry| entry.path.clone());
                    all.purged.extend(paths);
                }
                _ => all.add(record),
            }
        }
        all.services_open = !services.is_empty();
        all.deeds.sort_by_key(|deed| std::cmp::Reverse(deed.last));
        all
    }

    fn add(&mut self, record: &Record) {
        match &record.body {
            Body::TaskStarted {
                task,
                attempt,
                module,
                arguments,
                intent,
                ..
            } => {
                let deed = self.deed(task, record.seq);
                deed.efforts.push(PastAttempt {
                    attempt: attempt.clone(),
                    run: record.run.clone(),
                    module: module.clone(),
                    intent: intent.clone(),
                    arguments: arguments.clone(),
                    result: None,
                    accepted: false,
                });
                deed.end = UndoableEnd::Interrupted;
                deed.last = record.seq;
            }
            Body::TaskFinished {
                task,
                attempt,
                status,
                how,
                result,
                ..
            } => {
                let deed = self.deed(task, record.seq);
                let good = matches!(status, TaskStatus::Ok | TaskStatus::Changed);
                deed.end = if good {
                    UndoableEnd::Done
                } else {
                    UndoableEnd::Failed
                };
                let effort = deed
                    .efforts
                    .iter_mut()
                    .find(|effort| Some(&effort.attempt) == attempt.as_ref());
                if let Some(effort) = effort {
                    effort.accepted = good && *how == How::AlreadyDone;
                    effort.result = (good && !effort.accepted).then(|| result.clone());
                    deed.last = record.seq;
                }
            }
            Body::TaskAdopted { task, from } => {
                self.deeds.retain(|deed| deed.task != *task);
                if let Some(deed) = self.deeds.iter_mut().find(|deed| deed.task == *from) {
                    deed.task.clone_from(task);
                }
            }
            Body::TaskResolved { task, answer, .. } => {
                let deed = self.deed(task, record.seq);
                deed.undo = None;
                if let Some(effort) = deed.efforts.last_mut() {
                    effort.accepted = *answer == Answer::Done;
                }
                deed.end = match answer {
                    Answer::Done => UndoableEnd::Done,
                    Answer::Redo => UndoableEnd::Failed,
                };
            }
            Body::UndoStarted { task, undo, intent } => {
                self.deed(task, record.seq).undo = Some(OpenUndo {
                    undo: undo.clone(),
                    intent: intent.clone(),
                });
            }
            Body::UndoFinished { task, with, .. } => {
                self.deeds
                    .retain(|deed| deed.task != *task && !with.contains(&deed.task));
            }
            _ => {}
        }
    }

    fn deed(&mut self, task: &str, seq: u64) -> &mut UndoableTask {
        let at = self.deeds.iter().position(|deed| deed.task == task);
        let at = at.unwrap_or_else(|| {
            self.deeds.push(UndoableTask {
                task: task.to_owned(),
                efforts: Vec::new(),
                end: UndoableEnd::Done,
                last: seq,
                undo: None,
            });
            self.deeds.len() - 1
        });
        &mut self.deeds[at]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Fingerprint;
    use crate::format::{FORMAT_VERSION, NO_HASH};

    fn records(bodies: Vec<Body>) -> Vec<Record> {
        (1..)
            .zip(bodies)
            .map(|(seq, body)| Record {
                v: FORMAT_VERSION,
                seq,
                time: jiff::Timestamp::UNIX_EPOCH,
                run: "r".into(),
                body,
                prev: NO_HASH.into(),
            })
            .collect()
    }

    fn started(task: &str, attempt: &str) -> Body {
        Body::TaskStarted {
            task: task.into(),
            attempt: attempt.into(),
            module: "move".into(),
            fingerprint: Fingerprint::new("move", &Value::Null, &[]),
            arguments: Value::Null,
            intent: json!({"of": attempt}),
            needs_change: None,
            reason: None,
        }
    }

    fn finished(task: &str, attempt: &str, status: TaskStatus) -> Body {
        Body::TaskFinished {
            task: task.into(),
            attempt: Some(attempt.into()),
            status,
            how: How::Ran,
            fingerprint: Fingerprint::new("move", &Value::Null, &[]),
            arguments: Value::Null,
            result: json!({"of": attempt}),
            hidden: Vec::new(),
            outputs: Vec::new(),
            summary: None,
            error: None,
            duration_ms: 0,
        }
    }

    fn undone(task: &str, with: &[&str]) -> Body {
        Body::UndoFinished {
            task: task.into(),
            undo: None,
            with: with.iter().map(|name| (*name).to_owned()).collect(),
            result: Value::Null,
            summary: None,
            duration_ms: 0,
        }
    }

    #[test]
    fn the_newest_effect_comes_first_and_what_was_undone_is_gone() {
        let mut bodies = vec![
            started("a", "1"),
            finished("a", "1", TaskStatus::Changed),
            started("b", "2"),
            finished("b", "2", TaskStatus::Changed),
            started("a", "3"),
            finished("a", "3", TaskStatus::Failed),
            started("c", "4"),
        ];
        let found = UndoableTasks::of(&records(bodies.clone()));
        let names: Vec<_> = found.deeds.iter().map(|deed| deed.task.as_str()).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert_eq!(found.deeds[0].end, UndoableEnd::Interrupted);
        let a = &found.deeds[1];
        assert_eq!((a.end, a.efforts.len()), (UndoableEnd::Failed, 2));
        assert_eq!(a.efforts[0].result, Some(json!({"of": "1"})));
        assert_eq!(a.efforts[1].result, None);

        bodies.push(undone("a", &["c"]));
        bodies.push(started("c", "5"));
        let found = UndoableTasks::of(&records(bodies));
        let names: Vec<_> = found.deeds.iter().map(|deed| deed.task.as_str()).collect();
        assert_eq!(names, ["c", "b"]);
        assert_eq!(found.deeds[0].efforts.len(), 1, "a new life");
    }

    #[test]
    fn an_undo_stays_open_until_it_is_finished() {
        let mut bodies = vec![
            started("a", "1"),
            finished("a", "1", TaskStatus::Changed),
            Body::UndoStarted {
                task: "a".into(),
                undo: "u".into(),
                intent: json!([]),
            },
        ];
        let found = UndoableTasks::of(&records(bodies.clone()));
        assert_eq!(found.deeds[0].undo.as_ref().expect("open").undo, "u");
        bodies.push(undone("a", &[]));
        assert!(UndoableTasks::of(&records(bodies)).deeds.is_empty());
    }
}
