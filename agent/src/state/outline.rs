//! Reads a journal for telling where its tasks stand: arguments, results and intents are passed over,
//! as most of a journal consists of them. The chain is checked all the same.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::format::{self, Body, FORMAT_VERSION, How, LineError, Record, TaskStatus};

/// What is read of a task's records; the other members are skipped without being kept.
#[derive(Deserialize)]
struct Light<'l> {
    v: u32,
    seq: u64,
    time: Timestamp,
    run: String,
    #[serde(borrow)]
    event: Cow<'l, str>,
    prev: String,
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
        Some(record) => Ok((record, hash.to_owned())),
        None => format::from_line(line),
    }
}

fn light(line: &str) -> Option<Record> {
    let is_task =
        line.contains("\"event\":\"task_started\"") || line.contains("\"event\":\"task_finished\"");
    if !is_task {
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
    Some(Record {
        v: read.v,
        seq: read.seq,
        time: read.time,
        run: read.run,
        body,
        prev: read.prev,
    })
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
