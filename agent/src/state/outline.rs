//! Reads a journal for telling where its tasks stand: arguments, results and intents are passed over,
//! as most of a journal consists of them. The chain is checked all the same.

use std::borrow::Cow;

use jiff::Timestamp;
use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::format::{self, Body, FORMAT_VERSION, How, Record, TaskStatus};

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

/// Lines, each with its line end, as records: each proved to follow the one before it, with [`Value::Null`]
/// for arguments, results and intents of tasks, without fingerprints and outputs, and without its `prev`. A
/// start that is followed by its own end is left out: the end says all that an outline has of both.
/// `before` is the line before the first, where there is one.
///
/// Nothing where anything is not as it should be: [`format::from_line`] tells what it is.
pub(super) fn chain(lines: &[&[u8]], before: Option<&[u8]>, first_seq: u64) -> Option<Vec<Record>> {
    let mut head = match before {
        Some(line) => hash_of(line)?,
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

/// The hash that a line, with its end, says it has.
pub(super) fn hash_of(line: &[u8]) -> Option<&str> {
    Some(format::parted(text_of(line)?)?.1)
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
    use crate::state::{History, TaskHistory};
    use serde_json::json;

    /// A journal of these records.
    fn journal(bodies: Vec<Body>) -> Vec<String> {
        let mut head = format::NO_HASH.to_owned();
        let mut lines = Vec::new();
        for (body, seq) in bodies.into_iter().zip(1..) {
            let record = Record {
                v: FORMAT_VERSION,
                seq,
                time: Timestamp::UNIX_EPOCH,
                run: "r".into(),
                body,
                prev: head,
            };
            let (line, hash) = format::to_line(&record).expect("serializes");
            lines.push(format!("{line}\n"));
            head = hash;
        }
        lines
    }

    fn bytes(lines: &[String]) -> Vec<&[u8]> {
        lines.iter().map(String::as_bytes).collect()
    }

    fn started() -> Body {
        Body::TaskStarted {
            task: "t \"quoted\" ä".into(),
            attempt: "r/1".into(),
            module: "m".into(),
            fingerprint: Fingerprint::new("m", &json!({"a": 1}), &[]),
            arguments: json!({"event": "task_finished", "task": "other"}),
            intent: json!([1, 2]),
            needs_change: None,
            reason: Some("why".into()),
        }
    }

    fn finished() -> Body {
        Body::TaskFinished {
            task: "t \"quoted\" ä".into(),
            attempt: Some("r/1".into()),
            status: TaskStatus::Changed,
            how: How::Recovered,
            fingerprint: Fingerprint::new("m", &json!({"a": 1}), &[]),
            arguments: Value::Null,
            result: json!({"status": "failed", "seq": 7}),
            outputs: Vec::new(),
            summary: Some("made\nit".into()),
            error: None,
            duration_ms: 12,
        }
    }

    fn notified() -> Body {
        Body::HandlerNotified {
            task: "h".into(),
            by: "t".into(),
        }
    }

    /// What an outline is for.
    fn told(records: &[Record]) -> String {
        let history = History::of(records);
        let known = match history.task("t \"quoted\" ä").expect("known") {
            TaskHistory::Finished(end) => format!(
                "{:?} {:?} {:?} {:?} {} {}",
                end.run, end.status, end.how, end.summary, end.duration_ms, end.seq
            ),
            TaskHistory::Interrupted(open) => {
                format!("{:?} {:?} {:?}", open.run, open.attempt, open.module)
            }
            other => format!("{other:?}"),
        };
        format!("{known} {:?}", history.pending_handlers)
    }

    #[test]
    fn an_outline_says_the_same_of_a_task_as_the_whole_records() {
        for bodies in [
            vec![started()],
            vec![started(), finished()],
            vec![started(), notified(), finished()],
            vec![started(), finished(), started()],
        ] {
            let lines = journal(bodies);
            let whole: Vec<Record> = lines
                .iter()
                .map(|line| format::from_line(line.trim_end()).expect("whole").0)
                .collect();
            let lines = bytes(&lines);
            for middle in 0..=lines.len() {
                let (first, rest) = lines.split_at(middle);
                let mut records = chain(first, None, 1).expect("sound");
                let more = chain(rest, first.last().copied(), middle as u64 + 1);
                records.extend(more.expect("sound"));
                assert_eq!(told(&records), told(&whole));
            }
        }
    }

    #[test]
    fn what_does_not_follow_has_no_outline() {
        let lines = journal(vec![started(), notified(), finished()]);
        assert!(chain(&bytes(&lines), None, 1).is_some());
        assert!(chain(&bytes(&lines), None, 2).is_none(), "another number");
        assert!(chain(&bytes(&lines[1..]), None, 2).is_none(), "removed");
        let swapped = [&lines[1], &lines[0], &lines[2]].map(|line| line.as_bytes());
        assert!(chain(&swapped, None, 1).is_none());
        let altered = [lines[0].replace("\"why\"", "\"who\"")];
        assert!(chain(&bytes(&altered), None, 1).is_none());
        let (content, hash) = format::parted(lines[0].trim_end()).expect("a line");
        let shouted = lines[0].replace(hash, &hash.to_uppercase());
        assert!(!content.is_empty() && shouted != lines[0]);
        assert!(chain(&bytes(&[shouted]), None, 1).is_none());
        assert!(
            chain(&[&lines[0].as_bytes()[..40]], None, 1).is_none(),
            "torn"
        );
    }
}
