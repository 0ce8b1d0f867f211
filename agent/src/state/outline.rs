//! Reads a journal for telling where its tasks stand: arguments, results and intents are passed over,
//! as most of a journal consists of them. The chain is checked all the same.

use std::borrow::Cow;

use jiff::Timestamp;
use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::format::{self, Body, FORMAT_VERSION, How, LineError, Record, TaskStatus};

/// The event stands within so many bytes; a record of which it does not is read whole.
const HEAD: usize = 256;

/// What is read of a task's records; the other members are skipped without being kept.
#[derive(Deserialize)]
struct Light<'l> {
    v: u32,
    seq: u64,
    time: Timestamp,
    run: String,
    #[serde(borrow)]
    event: Cow<'l, str>,
    #[serde(borrow)]
    prev: Cow<'l, str>,
    task: Option<String>,
    attempt: Option<String>,
    module: Option<String>,
    reason: Option<String>,
    status: Option<TaskStatus>,
    how: Option<How>,
    summary: Option<String>,
    error: Option<String>,
    duration_ms: Option<u64>,
}

/// As [`format::from_line`], with [`Value::Null`] for arguments, results and intents of tasks, and
/// without fingerprints and outputs.
///
/// # Errors
/// As [`format::from_line`].
pub(super) fn from_line(line: &str) -> Result<(Record, String), LineError> {
    let hash = format::checked_hash(line)?;
    match light(line) {
        Some((record, prev)) => {
            let prev = prev.into_owned();
            Ok((Record { prev, ..record }, hash.to_owned()))
        }
        None => format::from_line(line),
    }
}

/// One record after the other, each proved to follow the one before it, and without its `prev`. A start
/// that is followed by its own end is left out: the end says all that an outline has of both.
///
/// Nothing where anything is not as it should be: [`from_line`] tells what it is.
pub(super) fn chain(lines: &[&[u8]], before: Option<&[u8]>, first_seq: u64) -> Option<Vec<Record>> {
    let mut head = match before {
        Some(line) => hash_of(text_of(line)?)?,
        None => format::NO_HASH,
    };
    let mut records = Vec::with_capacity(lines.len());
    for (line, seq) in lines.iter().zip(first_seq..) {
        let line = text_of(line)?;
        let hash = format::checked_hash(line).ok()?;
        let (record, prev) = match light(line) {
            Some(read) => read,
            None => {
                let mut record = format::from_line(line).ok()?.0;
                let prev = std::mem::take(&mut record.prev);
                (record, prev.into())
            }
        };
        if record.seq != seq || prev != head {
            return None;
        }
        head = hash;
        if records.last().is_some_and(|last| ends(&record, last)) {
            records.pop();
        }
        records.push(record);
    }
    Some(records)
}

/// Tells whether a record is the end of the attempt that another one starts.
fn ends(record: &Record, other: &Record) -> bool {
    let Body::TaskFinished { task, attempt, .. } = &record.body else {
        return false;
    };
    match &other.body {
        Body::TaskStarted {
            task: begun,
            attempt: id,
            ..
        } => task == begun && attempt.as_ref() == Some(id),
        _ => false,
    }
}

/// A line without its end.
fn text_of(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line.strip_suffix(b"\n")?).ok()
}

/// The hash that a line says it has.
pub(super) fn hash_of(line: &str) -> Option<&str> {
    let end = line.len().checked_sub(64 + 2)?;
    line.get(end..end + 64)
}

/// The record without its `prev`, and that.
fn light(line: &str) -> Option<(Record, Cow<'_, str>)> {
    let head = &line.as_bytes()[..line.len().min(HEAD)];
    let says = |event: &str| memmem::find(head, event.as_bytes()).is_some();
    if !says("\"event\":\"task_started\"") && !says("\"event\":\"task_finished\"") {
        return None;
    }
    let read: Light<'_> = serde_json::from_str(line).ok()?;
    if read.v > FORMAT_VERSION {
        return None;
    }
    let fingerprint = Fingerprint::default();
    let body = match read.event.as_ref() {
        "task_started" => Body::TaskStarted {
            task: read.task?,
            attempt: read.attempt?,
            module: read.module?,
            fingerprint,
            arguments: Value::Null,
            intent: Value::Null,
            needs_change: None,
            reason: read.reason,
        },
        "task_finished" => Body::TaskFinished {
            task: read.task?,
            attempt: read.attempt,
            status: read.status?,
            how: read.how?,
            fingerprint,
            arguments: Value::Null,
            result: Value::Null,
            outputs: Vec::new(),
            summary: read.summary,
            error: read.error,
            duration_ms: read.duration_ms?,
        },
        _ => return None,
    };
    let record = Record {
        v: read.v,
        seq: read.seq,
        time: read.time,
        run: read.run,
        body,
        prev: String::new(),
    };
    Some((record, read.prev))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::History;
    use serde_json::json;

    fn line(body: Body) -> String {
        let record = Record {
            v: FORMAT_VERSION,
            seq: 1,
            time: Timestamp::UNIX_EPOCH,
            run: "r".into(),
            body,
            prev: format::NO_HASH.into(),
        };
        format::to_line(&record).expect("serializes").0
    }

    #[test]
    fn an_outline_says_the_same_of_a_task_as_the_whole_record() {
        let print = || Fingerprint::new("m", &json!({"a": 1}), &[]);
        let started = line(Body::TaskStarted {
            task: "t \"quoted\" ä".into(),
            attempt: "r/1".into(),
            module: "m".into(),
            fingerprint: print(),
            arguments: json!({"event": "task_finished", "task": "other"}),
            intent: json!([1, 2]),
            needs_change: None,
            reason: Some("why".into()),
        });
        let finished = line(Body::TaskFinished {
            task: "t \"quoted\" ä".into(),
            attempt: Some("r/1".into()),
            status: TaskStatus::Changed,
            how: How::Recovered,
            fingerprint: print(),
            arguments: Value::Null,
            result: json!({"status": "failed", "seq": 7}),
            outputs: Vec::new(),
            summary: Some("made\nit".into()),
            error: None,
            duration_ms: 12,
        });
        for lines in [&[started.clone()][..], &[started.clone(), finished]] {
            let told = |read: fn(&str) -> Result<(Record, String), LineError>| {
                let records: Vec<Record> =
                    lines.iter().map(|l| read(l).expect("whole").0).collect();
                let history = History::of(&records);
                let known = history.task("t \"quoted\" ä").expect("known").clone();
                match known {
                    crate::state::TaskHistory::Finished(end) => {
                        format!(
                            "{:?} {:?} {:?} {:?} {}",
                            end.run, end.status, end.how, end.summary, end.duration_ms
                        )
                    }
                    crate::state::TaskHistory::Interrupted(open) => {
                        format!("{:?} {:?} {:?}", open.run, open.attempt, open.module)
                    }
                    other => format!("{other:?}"),
                }
            };
            assert_eq!(told(from_line), told(format::from_line));
        }
        let altered = started.replace("\"why\"", "\"who\"");
        assert_eq!(from_line(&altered), Err(LineError::Altered));
    }
}
