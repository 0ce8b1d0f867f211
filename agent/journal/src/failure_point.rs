//! Test-only: stops this process at an exact point of the journal, by a real signal, so that no handler
//! and no destructor runs.
//!
//! Compiled into builds with debug assertions alone (`cargo build`, `cargo test`). In what a site gets
//! (`cargo build --profile dist`, or `--release`) [`arm`] refuses and the other functions are empty.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::format::{Body, Record};

/// Environment variable that holds the points; see `agent/README.md`.
pub const VARIABLE: &str = "KAAPANA_AGENT_TEST_POINTS";

static POINTS: OnceLock<Vec<Point>> = OnceLock::new();

/// Where in an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the record is written; the effect that it tells of is there.
    Before,
    /// The first half of its line is written.
    Torn,
    /// Its line is written, and not synced.
    Written,
    /// It is synced.
    After,
}

/// Which record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Seq(u64),
    /// Its event, and the end of the identity of the task that it is about.
    About(String, String),
}

/// A signal and when it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    signal: Signal,
    phase: Phase,
    which: Which,
}

/// Sets the points of this process: `SIGNAL:PHASE:RECORD`, several of them parted by `;`.
///
/// # Errors
/// The text is none of that, or this build has no failure points.
pub fn arm(text: &str) -> Result<(), String> {
    if !cfg!(debug_assertions) {
        return Err("this build has no failure points".into());
    }
    let points = text.split(';').map(parse).collect::<Result<_, _>>()?;
    POINTS
        .set(points)
        .map_err(|_| "they were set before".to_owned())
}

fn parse(text: &str) -> Result<Point, String> {
    let wrong = |part: &str, expected: &str| format!("`{part}` in `{text}` is not {expected}");
    let mut parts = text.splitn(3, ':').map(str::trim);
    let mut part = || parts.next().unwrap_or_default();
    let signal = match part() {
        "kill" => Signal::SIGKILL,
        "stop" => Signal::SIGSTOP,
        other => return Err(wrong(other, "`kill` or `stop`")),
    };
    let phase = match part() {
        "before" => Phase::Before,
        "torn" => Phase::Torn,
        "written" => Phase::Written,
        "after" => Phase::After,
        other => return Err(wrong(other, "`before`, `torn`, `written` or `after`")),
    };
    let record = part();
    let which = match (record.parse(), record.split_once(':')) {
        (Ok(seq), _) => Which::Seq(seq),
        (Err(_), Some((event, task))) => Which::About(event.to_owned(), task.to_owned()),
        (Err(_), None) => return Err(wrong(record, "a record's number or `EVENT:TASK`")),
    };
    Ok(Point {
        signal,
        phase,
        which,
    })
}

/// Sends the signal of every point that is reached here.
pub(super) fn reach(phase: Phase, record: &Record) {
    for point in POINTS.get().into_iter().flatten() {
        if point.phase == phase && point.which.fits(record) {
            // SIGKILL and SIGSTOP act before this returns into user code; a process may always signal
            // itself.
            let _ = kill(Pid::this(), point.signal);
        }
    }
}

/// Writes half of the record's line where a point wants it torn, and stops there.
pub(super) fn tear(file: &mut File, line: &str, record: &Record) {
    let is_wanted = |point: &Point| point.phase == Phase::Torn && point.which.fits(record);
    if POINTS
        .get()
        .is_some_and(|points| points.iter().any(is_wanted))
    {
        // Whatever is there now is what the next run has to cope with.
        let _ = file.write_all(&line.as_bytes()[..line.len() / 2]);
        reach(Phase::Torn, record);
    }
}

impl Which {
    fn fits(&self, record: &Record) -> bool {
        match self {
            Self::Seq(seq) => record.seq == *seq,
            Self::About(event, end) => {
                let (found, task) = about(&record.body);
                found == event && (task == end || task.ends_with(&format!(" / {end}")))
            }
        }
    }
}

fn about(body: &Body) -> (&'static str, &str) {
    match body {
        Body::TaskStarted { task, .. } => ("task_started", task),
        Body::TaskFinished { task, .. } => ("task_finished", task),
        _ => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_mistakes_are_named() {
        assert_eq!(
            parse("kill:before:17"),
            Ok(Point {
                signal: Signal::SIGKILL,
                phase: Phase::Before,
                which: Which::Seq(17),
            })
        );
        assert_eq!(
            parse(" stop:after:task_started:a [5.27]").map(|point| point.which),
            Ok(Which::About("task_started".into(), "a [5.27]".into()))
        );
        for (text, named) in [
            ("", "`kill` or `stop`"),
            ("kill:midway:1", "`before`"),
            ("kill:after:x", "a record's number"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }
}
