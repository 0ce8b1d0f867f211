//! All runs of a playbook, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::style::{Ink, View};
use super::units;
use crate::state::{Answer, History, Outcome, Run};

/// How a run ended, for people. `holder`: who holds the lock just now.
#[must_use]
pub fn outcome(run: &Run, last: bool, holder: Option<&str>) -> (&'static str, Ink) {
    match (run.outcome, holder) {
        (Some(Outcome::Done), _) => match run.command.as_deref() {
            Some("rollback") => ("rolled back", Ink::Change),
            Some("purge") => ("purged", Ink::Good),
            _ => ("done", Ink::Good),
        },
        (Some(Outcome::Failed), _) => ("failed", Ink::Bad),
        (Some(Outcome::Interrupted), _) => ("interrupted", Ink::Change),
        (Some(Outcome::DecisionNeeded), _) => ("decision needed", Ink::Bad),
        (None, Some(_)) if last => ("going on", Ink::Change),
        (None, _) => ("killed", Ink::Bad),
    }
}

/// Renders the runs, oldest first, and the answers that operators gave.
#[must_use]
pub fn text(playbook: &str, history: &History, holder: Option<&str>, view: View) -> String {
    let mut out = format!("{}\n", view.paint(Ink::Strong, playbook));
    if history.runs.is_empty() {
        out.push_str("  nothing has been run yet\n");
    }
    let mut text_before: Option<&str> = None;
    for (index, run) in history.runs.iter().enumerate() {
        let (word, ink) = outcome(run, index + 1 == history.runs.len(), holder);
        let took = run.duration_ms.map_or_else(
            || "-".to_owned(),
            |ms| units::duration(Duration::from_millis(ms)),
        );
        let line = format!(
            "  {:>3}  {}  {} {took:>12}  {} on {}",
            index + 1,
            units::moment(run.started),
            view.paint(ink, &format!("{word:<15}")),
            run.user,
            run.host,
        );
        let _ = writeln!(out, "{}", view.fit(&line));
        let counted: Vec<String> = run
            .stats
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(status, count)| format!("{status}={count}"))
            .collect();
        if !counted.is_empty() {
            let line = format!("       {}", counted.join(" "));
            let _ = writeln!(out, "{}", view.fit(&line));
        }
        let changed = match text_before {
            Some(before) if before != run.playbook_sha256 => ", changed since the run before",
            _ => "",
        };
        text_before = Some(&run.playbook_sha256);
        for line in [
            format!("run {}, agent {}", run.id, run.agent_version),
            format!("{} sha256 {}{changed}", run.playbook, run.playbook_sha256),
            run.arguments.join(" "),
        ] {
            let line = format!("       {}", view.paint(Ink::Faint, &line));
            let _ = writeln!(out, "{}", view.fit(&line));
        }
    }
    for decision in &history.decisions {
        let line = format!(
            "  decided on {} by {}: {} is {}: {}",
            units::moment(decision.time),
            decision.user,
            decision.task,
            answer(decision.answer),
            decision.reason
        );
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    out
}

/// An answer, as part of a sentence.
#[must_use]
pub fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Done => "done",
        Answer::Redo => "to be run again",
    }
}

/// The same for programs.
#[must_use]
pub fn json(playbook: &str, history: &History, holder: Option<&str>) -> Value {
    json!({
        "v": 1, "playbook": playbook, "running": holder, "runs": runs(history),
        "decisions": history.decisions.iter().map(|decision| json!({
            "task": decision.task, "answer": decision.answer, "reason": decision.reason,
            "user": decision.user, "time": decision.time,
        })).collect::<Vec<_>>(),
    })
}

/// Runs for programs.
#[must_use]
pub(super) fn runs(history: &History) -> Vec<Value> {
    history
        .runs
        .iter()
        .map(|run| {
            json!({
                "run": run.id, "started": run.started, "user": run.user, "host": run.host,
                "playbook": run.playbook, "playbook_sha256": run.playbook_sha256,
                "agent_version": run.agent_version, "arguments": run.arguments,
                "outcome": run.outcome, "stats": run.stats, "duration_ms": run.duration_ms,
            })
        })
        .collect()
}
