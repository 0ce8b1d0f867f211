//! A journal's records, sorted by task: every attempt with what it was given and how it ended.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde_json::Value;

use crate::state::{Body, Fingerprint, How, Output, Record, TaskStatus};

/// One attempt at a task.
#[derive(Debug, Clone)]
pub struct Attempt<'r> {
    /// Run.
    pub run: &'r str,
    /// When it began; `None` where nothing was started (found done, failed before it began).
    pub started: Option<Timestamp>,
    /// Why it ran although the journal knew the task.
    pub reason: Option<&'r str>,
    /// Rendered arguments, secrets hidden.
    pub arguments: &'r Value,
    /// What it depended on.
    pub fingerprint: &'r Fingerprint,
    /// How it ended; `None` where it never did.
    pub end: Option<End<'r>>,
}

/// An attempt's end.
#[derive(Debug, Clone)]
pub struct End<'r> {
    /// When.
    pub time: Timestamp,
    /// How.
    pub status: TaskStatus,
    /// How that came to be known.
    pub how: How,
    /// Return values, secrets hidden.
    pub result: &'r Value,
    /// Files made.
    pub outputs: &'r [Output],
    /// One line for people.
    pub summary: Option<&'r str>,
    /// Why it failed.
    pub error: Option<&'r str>,
    /// Wall time in milliseconds.
    pub duration_ms: u64,
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task<'r> {
    /// Identity.
    pub identity: &'r str,
    /// Module, where an attempt began.
    pub module: Option<&'r str>,
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt<'r>>,
}

impl<'r> Task<'r> {
    /// The last attempt that came to a good end.
    #[must_use]
    pub fn good_end(&self) -> Option<(&Attempt<'r>, &End<'r>)> {
        self.attempts.iter().rev().find_map(|attempt| {
            let end = attempt.end.as_ref()?;
            (end.status != TaskStatus::Failed).then_some((attempt, end))
        })
    }
}

/// Sorts records by task, in the order in which the tasks first began.
#[must_use]
pub fn tasks(records: &[Record]) -> Vec<Task<'_>> {
    let mut tasks: Vec<Task<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for record in records {
        match &record.body {
            Body::TaskStarted {
                task,
                module,
                fingerprint,
                arguments,
                reason,
                ..
            } => {
                let task = place(&mut tasks, &mut places, task);
                task.module = Some(module);
                task.attempts.push(Attempt {
                    run: &record.run,
                    started: Some(record.time),
                    reason: reason.as_deref(),
                    arguments,
                    fingerprint,
                    end: None,
                });
            }
            Body::TaskFinished {
                task,
                attempt,
                status,
                how,
                fingerprint,
                arguments,
                result,
                outputs,
                summary,
                error,
                duration_ms,
                ..
            } => {
                let task = place(&mut tasks, &mut places, task);
                let end = End {
                    time: record.time,
                    status: *status,
                    how: *how,
                    result,
                    outputs,
                    summary: summary.as_deref(),
                    error: error.as_deref(),
                    duration_ms: *duration_ms,
                };
                match task.attempts.last_mut() {
                    Some(open) if open.end.is_none() && attempt.is_some() => open.end = Some(end),
                    _ => task.attempts.push(Attempt {
                        run: &record.run,
                        started: None,
                        reason: None,
                        arguments,
                        fingerprint,
                        end: Some(end),
                    }),
                }
            }
            _ => {}
        }
    }
    tasks
}

fn place<'t, 'r>(
    tasks: &'t mut Vec<Task<'r>>,
    places: &mut HashMap<&'r str, usize>,
    identity: &'r str,
) -> &'t mut Task<'r> {
    let next = tasks.len();
    let at = *places.entry(identity).or_insert(next);
    if at == next {
        tasks.push(Task {
            identity,
            module: None,
            attempts: Vec::new(),
        });
    }
    &mut tasks[at]
}

/// Numbers runs from 1, oldest first: `run 2` reads better than an id.
#[must_use]
pub fn run_numbers(records: &[Record]) -> BTreeMap<&str, usize> {
    let mut numbers = BTreeMap::new();
    for record in records {
        if matches!(record.body, Body::RunStarted { .. }) {
            let next = numbers.len() + 1;
            numbers.entry(record.run.as_str()).or_insert(next);
        }
    }
    numbers
}

/// A status as a word, the same everywhere.
#[must_use]
pub fn word(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Ok => "ok",
        TaskStatus::Changed => "changed",
        TaskStatus::Failed => "failed",
        TaskStatus::Ignored => "ignored",
        TaskStatus::Rescued => "rescued",
    }
}
