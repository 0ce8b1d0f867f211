//! What a reader wants to know first.

use serde::Serialize;

use super::database::Database;
use super::{Names, Source};
use crate::report::attempts::Task;
use crate::report::style::Ink;
use crate::report::units;
use crate::state::{Outcome, TaskStatus};

#[derive(Serialize)]
pub(super) struct Verdict {
    class: &'static str,
    headline: String,
    texts: Vec<String>,
    error: Option<String>,
}

pub(super) fn class_of(ink: Ink) -> &'static str {
    match ink {
        Ink::Good => "good",
        Ink::Change => "change",
        Ink::Bad => "bad",
        Ink::Calm | Ink::Faint | Ink::Strong => "calm",
    }
}

pub(super) fn of(
    source: &Source<'_>,
    all: &[Task<'_>],
    database: Option<&Database>,
    pending: usize,
    names: &Names<'_>,
) -> Verdict {
    let Some(run) = source.history.runs.last() else {
        return Verdict {
            class: "calm",
            headline: "Nothing has run yet".into(),
            texts: Vec::new(),
            error: None,
        };
    };
    let mut error = None;
    let mut texts = Vec::new();
    let (class, headline) = match (run.outcome, source.running) {
        (Some(Outcome::Done), _) if pending > 0 => (
            "change",
            "Done, but the playbook has more to do now".to_owned(),
        ),
        (Some(Outcome::Done), _) => ("good", "Done".into()),
        (Some(Outcome::Failed), _) => {
            error = failure(all, names);
            ("bad", "Stopped: a task failed".into())
        }
        (Some(Outcome::Interrupted), _) => ("change", "Interrupted; it can be continued".into()),
        (Some(Outcome::DecisionNeeded), _) => ("bad", "Waiting for a decision".into()),
        (None, Some(_)) => ("change", "Going on".into()),
        (None, None) => (
            "bad",
            "Killed, or the host went down; it can be continued".into(),
        ),
    };
    if let Some(task) = all.iter().find(|task| is_open(task)) {
        let doing = if source.running.is_some() {
            "is at work"
        } else {
            "was at work when it ended"
        };
        let started = task.attempts.last().and_then(|attempt| attempt.started);
        texts.push(format!(
            "“{}” {doing}, since {} UTC.",
            names.name(task.identity),
            started.map_or_else(String::new, units::moment)
        ));
    }
    if run.outcome == Some(Outcome::DecisionNeeded) {
        texts.push("The tasks that wait stand under “Still to come”, with the reason.".into());
    }
    if let Some(database) = database {
        texts.push(database.sentence());
    }
    if class != "good" && source.running.is_none() && run.outcome != Some(Outcome::Done) {
        texts.push(
            "The same command again continues where it stopped; what is done stays done.".into(),
        );
    }
    Verdict {
        class,
        headline,
        texts,
        error,
    }
}

fn is_open(task: &Task<'_>) -> bool {
    task.attempts.last().is_some_and(|last| last.end.is_none())
}

/// The task that failed last, and why.
fn failure(all: &[Task<'_>], names: &Names<'_>) -> Option<String> {
    all.iter()
        .filter_map(|task| {
            let end = task.attempts.last()?.end.as_ref()?;
            (end.status == TaskStatus::Failed).then_some((task, end))
        })
        .max_by_key(|(_, end)| end.time)
        .map(|(task, end)| {
            let help = end.result.get("help").and_then(|help| help.as_str());
            let mut text = format!(
                "{}: {}",
                names.name(task.identity),
                end.error.unwrap_or("no reason is recorded")
            );
            if let Some(help) = help {
                text.push_str(&format!("\nWhat to do: {help}"));
            }
            text
        })
}
