//! Tasks, one by one, and the logs.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{Names, class, split};
use crate::report::attempts::{Attempt, Task, word};
use crate::report::units;
use crate::state::journal::LOG_HEADER;
use crate::state::{History, How, StateDir, TaskHistory};

/// Arguments and results are shown up to this many characters.
const LONG: usize = 3000;
/// Lines of a log that are shown of its beginning and of its end.
const HEAD_LINES: usize = 25;
const TAIL_LINES: usize = 50;
/// Characters of a line that are shown.
const LONG_LINE: usize = 400;

#[derive(Serialize)]
pub(super) struct BlockRows {
    name: String,
    tasks: Vec<TaskRow>,
}

#[derive(Serialize)]
struct TaskRow {
    identity: String,
    name: String,
    module: Option<String>,
    class: &'static str,
    word: &'static str,
    summary: Option<String>,
    facts: String,
    attempts: Vec<AttemptRow>,
    fingerprint: Vec<String>,
    error: Option<String>,
    arguments: Option<String>,
    result: Option<String>,
}

#[derive(Serialize)]
struct AttemptRow {
    run: String,
    text: String,
}

/// Tasks by the block that they stand in, in the order in which they first ran.
pub(super) fn blocks(
    all: &[Task<'_>],
    runs: &BTreeMap<&str, usize>,
    names: &Names<'_>,
) -> Vec<BlockRows> {
    let mut blocks: Vec<BlockRows> = Vec::new();
    for task in all {
        let (block, _) = split(task.identity);
        let name = if block.is_empty() {
            "Tasks".into()
        } else {
            block
        };
        let row = row(task, runs, names);
        match blocks.iter_mut().find(|known| known.name == name) {
            Some(known) => known.tasks.push(row),
            None => blocks.push(BlockRows {
                name,
                tasks: vec![row],
            }),
        }
    }
    blocks
}

fn run_of(runs: &BTreeMap<&str, usize>, run: &str) -> String {
    runs.get(run)
        .map_or_else(|| run.to_owned(), |number| format!("Run {number}"))
}

fn row(task: &Task<'_>, runs: &BTreeMap<&str, usize>, names: &Names<'_>) -> TaskRow {
    let last = task.attempts.last();
    let end = last.and_then(|attempt| attempt.end.as_ref());
    let (class, status, facts) = match end {
        Some(end) => (
            class(end.status),
            word(end.status),
            format!(
                "{}, {}",
                units::duration(Duration::from_millis(end.duration_ms)),
                units::moment(end.time)
            ),
        ),
        None => ("bad", "open", "started and never finished".to_owned()),
    };
    let fingerprint = last.map_or_else(Vec::new, |attempt| {
        let files = attempt.fingerprint.files.iter().map(|(path, hash)| {
            format!(
                "{} {}",
                hash.as_deref().unwrap_or("(not read)"),
                path.display()
            )
        });
        std::iter::once(format!("{} arguments", attempt.fingerprint.arguments))
            .chain(files)
            .collect()
    });
    TaskRow {
        identity: task.identity.to_owned(),
        name: names.name(task.identity),
        module: task.module.map(str::to_owned),
        class,
        word: status,
        summary: end
            .and_then(|end| end.summary)
            .map(|text| units::one_line(text).into_owned()),
        facts,
        attempts: task
            .attempts
            .iter()
            .map(|attempt| attempt_row(attempt, runs))
            .collect(),
        fingerprint,
        error: end.and_then(|end| end.error).map(str::to_owned),
        arguments: last.and_then(|attempt| pretty(attempt.arguments)),
        result: end.and_then(|end| pretty(end.result)),
    }
}

fn attempt_row(attempt: &Attempt<'_>, runs: &BTreeMap<&str, usize>) -> AttemptRow {
    let began = attempt.started.map_or_else(
        || "found without being started".to_owned(),
        |time| format!("started {}", units::moment(time)),
    );
    let ended = match &attempt.end {
        None => "never finished".to_owned(),
        Some(end) => {
            let how = match end.how {
                How::Ran => "",
                How::Recovered => ", its effect was found whole",
                How::AlreadyDone => ", its effect was there already",
            };
            let took = units::duration(Duration::from_millis(end.duration_ms));
            format!("{} after {took}{how}", word(end.status))
        }
    };
    let reason = attempt
        .reason
        .map_or_else(String::new, |why| format!(" ({why})"));
    AttemptRow {
        run: run_of(runs, attempt.run),
        text: format!("{began}, {ended}{reason}"),
    }
}

fn pretty(value: &Value) -> Option<String> {
    if value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) {
        return None;
    }
    let text = format!("{value:#}");
    let mut cut: String = text.chars().take(LONG).collect();
    if cut.len() < text.len() {
        cut.push_str("\n… (the rest is in the journal; `kaapana-agent show` prints it)");
    }
    Some(cut)
}

#[derive(Serialize)]
pub(super) struct Skipped {
    name: String,
    condition: String,
}

pub(super) fn skipped(history: &History, names: &Names<'_>) -> Vec<Skipped> {
    history
        .tasks()
        .filter_map(|(identity, task)| match task {
            TaskHistory::Skipped { condition } => Some(Skipped {
                name: names.name(identity),
                condition: condition.clone(),
            }),
            _ => None,
        })
        .collect()
}

#[derive(Serialize)]
pub(super) struct Log {
    name: String,
    facts: String,
    text: String,
}

pub(super) fn logs(dir: &StateDir, runs: &BTreeMap<&str, usize>, names: &Names<'_>) -> Vec<Log> {
    dir.logs()
        .into_iter()
        .filter_map(|log| {
            let content = String::from_utf8_lossy(&fs::read(&log.path).ok()?).into_owned();
            let file = log.path.file_name()?.to_string_lossy().into_owned();
            let name = log.task().map_or(file, |task| names.name(&task));
            let lines: Vec<&str> = content
                .lines()
                .filter(|line| !line.starts_with(LOG_HEADER))
                .collect();
            let facts = format!("{}, {} lines", run_of(runs, &log.run), lines.len());
            Some(Log {
                name,
                facts,
                text: excerpt(&lines),
            })
        })
        .collect()
}

fn excerpt(lines: &[&str]) -> String {
    let cut = |line: &&str| -> String { line.chars().take(LONG_LINE).collect() };
    if lines.len() <= HEAD_LINES + TAIL_LINES {
        return lines.iter().map(cut).collect::<Vec<_>>().join("\n");
    }
    let left_out = lines.len() - HEAD_LINES - TAIL_LINES;
    let head = lines[..HEAD_LINES].iter().map(cut);
    let tail = lines[lines.len() - TAIL_LINES..].iter().map(cut);
    head.chain(std::iter::once(format!("… {left_out} lines left out …")))
        .chain(tail)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_log_beginning_and_end_are_shown() {
        let lines: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let shown = excerpt(&lines);
        assert!(
            shown.starts_with("0\n1\n") && shown.ends_with("198\n199"),
            "{shown}"
        );
        assert!(shown.contains("… 125 lines left out …"), "{shown}");
    }
}
