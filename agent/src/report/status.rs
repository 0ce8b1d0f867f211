//! What a journal knows, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::style::{Ink, Style};
use super::units;
use crate::state::{History, Outcome, TaskHistory, TaskStatus};

struct Row {
    word: &'static str,
    ink: Ink,
    time: Option<Timestamp>,
    run: Option<String>,
    duration_ms: Option<u64>,
    note: Option<String>,
}

fn row(task: &TaskHistory) -> Row {
    let empty = Row {
        word: "",
        ink: Ink::Faint,
        time: None,
        run: None,
        duration_ms: None,
        note: None,
    };
    match task {
        TaskHistory::Finished(finished) => {
            let (word, ink) = match finished.status {
                TaskStatus::Ok => ("ok", Ink::Good),
                TaskStatus::Changed => ("changed", Ink::Change),
                TaskStatus::Ignored => ("ignored", Ink::Calm),
                TaskStatus::Rescued => ("rescued", Ink::Calm),
                TaskStatus::Failed => ("failed", Ink::Bad),
            };
            Row {
                word,
                ink,
                time: Some(finished.time),
                run: Some(finished.run.clone()),
                duration_ms: Some(finished.duration_ms),
                note: finished.summary.clone(),
            }
        }
        TaskHistory::Failed {
            run,
            time,
            error,
            duration_ms,
        } => Row {
            word: "failed",
            ink: Ink::Bad,
            time: Some(*time),
            run: Some(run.clone()),
            duration_ms: Some(*duration_ms),
            note: error.clone(),
        },
        TaskHistory::Interrupted(attempt) => Row {
            word: "open",
            ink: Ink::Bad,
            time: Some(attempt.time),
            run: Some(attempt.run.clone()),
            note: Some("started and never finished: running now, or interrupted".into()),
            ..empty
        },
        TaskHistory::Redo { user, reason } => Row {
            word: "redo",
            ink: Ink::Change,
            note: Some(format!("{user} asked for it again: {reason}")),
            ..empty
        },
        TaskHistory::Undone { run, time, summary } => Row {
            word: "undone",
            ink: Ink::Change,
            time: Some(*time),
            run: Some(run.clone()),
            note: summary.clone(),
            ..empty
        },
        TaskHistory::Undoing { run, time } => Row {
            word: "undoing",
            ink: Ink::Bad,
            time: Some(*time),
            run: Some(run.clone()),
            note: Some("begun and not finished: going on, or run `rollback` again".into()),
            ..empty
        },
        TaskHistory::Skipped { condition } => Row {
            word: "skipped",
            note: Some(format!("`{condition}` was false")),
            ..empty
        },
    }
}

/// Renders one playbook's state: its tasks, its runs, and who works on it.
#[must_use]
pub fn text(playbook: &str, history: &History, running: Option<&str>, style: Style) -> String {
    let mut out = format!("{}\n", style.paint(Ink::Strong, playbook));
    for (identity, task) in history.tasks() {
        let Row {
            word,
            ink,
            time,
            duration_ms,
            note,
            ..
        } = row(task);
        let time = time.map_or_else(String::new, |time| time.strftime("%F %T").to_string());
        let took =
            duration_ms.map_or_else(String::new, |ms| units::duration(Duration::from_millis(ms)));
        let _ = write!(
            out,
            "  {} {} {:>12}  {identity}",
            style.paint(ink, &format!("{word:<8}")),
            style.paint(Ink::Faint, &format!("{time:<19}")),
            took,
        );
        if let Some(note) = note {
            let _ = write!(out, "  {}", style.paint(Ink::Faint, &format!("({note})")));
        }
        out.push('\n');
    }
    if let Some(run) = history.runs.last() {
        let how = match (run.outcome, running) {
            (Some(Outcome::Done), _) if run.command.as_deref() == Some("rollback") => {
                "rolled back".to_owned()
            }
            (Some(Outcome::Done), _) if run.command.as_deref() == Some("purge") => {
                "the quarantine was purged".to_owned()
            }
            (Some(Outcome::Done), _) => "done".to_owned(),
            (Some(Outcome::Failed), _) => "a task failed".to_owned(),
            (Some(Outcome::Interrupted), _) => "interrupted".to_owned(),
            (Some(Outcome::DecisionNeeded), _) => "an operator has to decide".to_owned(),
            (None, Some(holder)) => format!("going on ({holder})"),
            (None, None) => "killed, or the host went down; run again to continue".to_owned(),
        };
        let _ = writeln!(
            out,
            "  {} runs; the last, {} by {}: {how}",
            history.runs.len(),
            run.started.strftime("%F %T UTC"),
            run.user
        );
    }
    out
}

/// The same for programs.
#[must_use]
pub fn json(playbook: &str, history: &History, running: Option<&str>) -> Value {
    let tasks: Vec<Value> = history
        .tasks()
        .map(|(identity, task)| {
            let Row {
                word,
                time,
                run,
                duration_ms,
                note,
                ..
            } = row(task);
            json!({
                "task": identity, "state": word, "time": time, "run": run,
                "duration_ms": duration_ms, "note": note,
            })
        })
        .collect();
    let runs: Vec<Value> = history
        .runs
        .iter()
        .map(|run| {
            json!({
                "run": run.id, "started": run.started, "user": run.user, "host": run.host,
                "playbook": run.playbook, "playbook_sha256": run.playbook_sha256,
                "outcome": run.outcome, "duration_ms": run.duration_ms,
                "command": run.command.as_deref().unwrap_or("run"),
            })
        })
        .collect();
    json!({ "playbook": playbook, "running": running, "tasks": tasks, "runs": runs })
}
