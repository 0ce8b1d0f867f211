//! One task, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::attempts::{self, Attempt, End, Task};
use super::style::{Ink, View};
use super::{history, units};
use crate::engine::inspect::Part;
use crate::state::fingerprint::sha256_of_file;
use crate::state::{Decision, How, Output, TaskHistory, TaskStatus};
use crate::task::module::Kind;

/// Of a value that is larger than this only the beginning is shown; `--output json` shows all.
const LONG: usize = 40;

/// What is shown of a task.
pub struct Show<'a> {
    /// Identity.
    pub identity: &'a str,
    /// Its attempts, where the journal has any.
    pub task: Option<&'a Task<'a>>,
    /// Where it stands.
    pub known: Option<&'a TaskHistory>,
    /// Operators' answers about it.
    pub decisions: Vec<&'a Decision>,
    /// Runs by their number.
    pub runs: BTreeMap<&'a str, usize>,
    /// Its log files.
    pub logs: Vec<PathBuf>,
    /// Module and kind in the present playbook.
    pub module: Option<(&'a str, Kind)>,
    /// Fingerprint of its last attempt against the present playbook.
    pub parts: Vec<Part>,
    /// What a later run would do and why, or why that cannot be told.
    pub next: Option<Result<(&'a str, String), String>>,
}

/// Renders it for people.
#[must_use]
pub fn text(show: &Show<'_>, view: View) -> String {
    let mut out = format!("{}\n", view.paint(Ink::Strong, show.identity));
    let module = show.task.and_then(|task| task.module);
    if let Some(module) = module.or(show.module.map(|(name, _)| name)) {
        let kind = show.module.map_or_else(String::new, |(_, kind)| {
            format!(" ({})", super::modules::kind(kind))
        });
        let _ = writeln!(out, "  module  {module}{kind}");
    }
    match show.known {
        None => out.push_str("  the journal knows nothing of it: it has not run\n"),
        Some(TaskHistory::Skipped { condition }) => {
            let _ = writeln!(out, "  skipped: `{condition}` was false");
        }
        Some(TaskHistory::Redo { user, reason }) => {
            let _ = writeln!(out, "  to be run again: {user}: {reason}");
        }
        Some(_) => {}
    }
    let attempts = show.task.map_or(&[][..], |task| &task.attempts);
    for (index, attempt) in attempts.iter().enumerate() {
        attempt_lines(&mut out, show, attempt, index + 1 == attempts.len(), view);
    }
    for decision in &show.decisions {
        let _ = writeln!(
            out,
            "  decided on {} by {}: {}: {}",
            units::moment(decision.time),
            decision.user,
            history::answer(decision.answer),
            decision.reason
        );
    }
    for log in &show.logs {
        let _ = writeln!(out, "  log     {}", log.display());
    }
    if let Some(last) = attempts.last() {
        fingerprint_lines(&mut out, show, last, view);
    }
    match &show.next {
        Some(Ok((action, why))) => {
            let _ = writeln!(out, "  a later run: {action} ({why})");
        }
        Some(Err(why)) => {
            let _ = writeln!(out, "  what a later run would do is not known here: {why}");
        }
        None => {}
    }
    out
}

fn attempt_lines(out: &mut String, show: &Show<'_>, attempt: &Attempt<'_>, last: bool, view: View) {
    let run = show
        .runs
        .get(attempt.run)
        .map_or_else(String::new, |number| format!("run {number}, "));
    let when = attempt
        .started
        .or(attempt.end.as_ref().map(|end| end.time))
        .map_or_else(String::new, units::moment);
    let (word, ink, took) = match &attempt.end {
        None => ("open", Ink::Bad, "started and never finished".to_owned()),
        Some(end) => {
            let ink = match end.status {
                TaskStatus::Ok => Ink::Good,
                TaskStatus::Changed => Ink::Change,
                TaskStatus::Failed => Ink::Bad,
                TaskStatus::Ignored | TaskStatus::Rescued => Ink::Calm,
            };
            let took = units::duration(Duration::from_millis(end.duration_ms));
            (attempts::word(end.status), ink, format!("took {took}"))
        }
    };
    let _ = writeln!(
        out,
        "  {} {when} UTC, {took} ({run}{})",
        view.paint(ink, &format!("{word:<7}")),
        attempt.run
    );
    if let Some(reason) = attempt.reason {
        let _ = writeln!(out, "          it ran because: {reason}");
    }
    if let Some(end) = &attempt.end {
        for text in [end.summary, end.error, how(end)].into_iter().flatten() {
            for line in text.lines() {
                let _ = writeln!(out, "          {line}");
            }
        }
    }
    // What earlier attempts were given matters only where they differ: `--output json` has it all.
    if !last {
        return;
    }
    value_lines(out, "given", attempt.arguments, view);
    if let Some(end) = &attempt.end {
        value_lines(out, "result", end.result, view);
        if !end.outputs.is_empty() {
            out.push_str("  files it made\n");
        }
        for output in end.outputs {
            let (found, ink) = on_disk(output);
            let _ = writeln!(
                out,
                "    {}  {}  {}\n      sha256 {}",
                output.path.display(),
                units::bytes(output.size),
                view.paint(ink, found),
                output.sha256
            );
        }
    }
}

fn how(end: &End<'_>) -> Option<&'static str> {
    match end.how {
        How::Ran => None,
        How::Recovered => Some("interrupted; its effect was found on the host, whole"),
        How::AlreadyDone => Some("its effect was there before it ran"),
    }
}

fn on_disk(output: &Output) -> (&'static str, Ink) {
    match sha256_of_file(&output.path) {
        Ok(hash) if hash == output.sha256 => ("as it was made", Ink::Good),
        Ok(_) => ("CHANGED SINCE", Ink::Bad),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ("gone", Ink::Change),
        Err(_) => ("cannot be read", Ink::Bad),
    }
}

/// A value as lines: `path: value`, the long ones cut.
fn value_lines(out: &mut String, heading: &str, value: &Value, view: View) {
    let mut lines = Vec::new();
    flatten("", value, &mut lines);
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {heading}");
    let all = lines.len();
    for line in lines.into_iter().take(LONG) {
        let _ = writeln!(out, "    {}", view.fit(&line));
    }
    if all > LONG {
        let _ = writeln!(
            out,
            "    … and {} lines more; `--output json` shows all",
            all - LONG
        );
    }
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Null if path.is_empty() => {}
        Value::Object(map) if !map.is_empty() => {
            for (key, item) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, item, lines);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), item, lines);
            }
        }
        Value::String(text) => {
            let mut rows = text.lines();
            lines.push(format!("{path}: {}", rows.next().unwrap_or_default()));
            lines.extend(rows.map(|row| format!("  {row}")));
        }
        other => lines.push(format!("{path}: {other}")),
    }
}

fn fingerprint_lines(out: &mut String, show: &Show<'_>, last: &Attempt<'_>, view: View) {
    out.push_str("  it depended on\n");
    if show.parts.is_empty() {
        let _ = writeln!(out, "    arguments  {}", last.fingerprint.arguments);
        for (path, hash) in &last.fingerprint.files {
            let hash = hash.as_deref().unwrap_or("(could not be read)");
            let _ = writeln!(out, "    {}  {hash}", path.display());
        }
        return;
    }
    for part in &show.parts {
        let (word, ink) = if part.same {
            ("the same in the present playbook", Ink::Good)
        } else {
            ("DIFFERS from the present playbook", Ink::Bad)
        };
        let none = "(none)";
        let _ = writeln!(
            out,
            "    {}  {}\n      {}",
            part.name,
            view.paint(ink, word),
            part.then.as_deref().unwrap_or(none)
        );
        if !part.same {
            let _ = writeln!(out, "      {} now", part.now.as_deref().unwrap_or(none));
        }
        for difference in &part.differences {
            let _ = writeln!(out, "      {difference}");
        }
    }
}

/// The same for programs, nothing left out.
#[must_use]
pub fn json(show: &Show<'_>) -> Value {
    let attempts: Vec<Value> = show
        .task
        .map_or(&[][..], |task| &task.attempts)
        .iter()
        .map(|attempt| {
            let end = attempt.end.as_ref().map(|end| {
                let outputs: Vec<Value> = end
                    .outputs
                    .iter()
                    .map(|output| json!({"file": output, "on_disk": on_disk(output).0}))
                    .collect();
                json!({
                    "time": end.time, "status": end.status, "how": end.how,
                    "summary": end.summary, "error": end.error, "duration_ms": end.duration_ms,
                    "result": end.result, "outputs": outputs,
                })
            });
            json!({
                "run": attempt.run, "started": attempt.started, "reason": attempt.reason,
                "arguments": attempt.arguments, "fingerprint": attempt.fingerprint, "end": end,
            })
        })
        .collect();
    let (action, why, unknown) = match &show.next {
        Some(Ok((action, why))) => (Some(*action), Some(why), None),
        Some(Err(why)) => (None, None, Some(why)),
        None => (None, None, None),
    };
    json!({
        "v": 1, "task": show.identity,
        "module": show.task.and_then(|task| task.module).or(show.module.map(|(name, _)| name)),
        "attempts": attempts, "logs": show.logs, "fingerprint": show.parts,
        "next": action, "why": why, "next_unknown": unknown,
    })
}
