//! Reads a journal for telling where its tasks stand: arguments, results and intents are passed over,
//! as most of a journal consists of them. The chain is checked all the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;
use memchr::{memchr, memchr_iter, memmem, memrchr};
use serde::Deserialize;
use serde_json::Value;

use super::fingerprint::Fingerprint;
use super::format::{self, Body, FORMAT_VERSION, How, Record, TaskStatus};

/// Bytes that are read at a time: few enough to be still in the processor's cache when they are hashed.
const PIECE: usize = 256 << 10;
/// The event stands within so many bytes; a record of which it does not is read whole.
const HEAD: usize = 256;

/// So long are the records that are kept and those that are left out beside them, roughly: only memory
/// that is used costs anything, a list that has to grow is moved.
const BYTES_A_RECORD: u64 = 512;

const STARTED: &str = "\"event\":\"task_started\",";
const FINISHED: &str = "\"event\":\"task_finished\",";

/// Finds events in the heads of lines.
struct Events<'e> {
    started: memmem::Finder<'e>,
    finished: memmem::Finder<'e>,
}

impl Events<'_> {
    fn new() -> Self {
        Self {
            started: memmem::Finder::new(STARTED),
            finished: memmem::Finder::new(FINISHED),
        }
    }
}

/// What is read of a task's records; the other members are skipped without being kept.
#[derive(Deserialize)]
struct Light {
    v: u32,
    seq: u64,
    time: Timestamp,
    run: String,
    task: String,
    attempt: Option<String>,
    module: Option<String>,
    reason: Option<String>,
    status: Option<TaskStatus>,
    how: Option<How>,
    summary: Option<String>,
    error: Option<String>,
    duration_ms: Option<u64>,
}

/// Consecutive records of a journal, each proved to follow the one before it.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// With [`Value::Null`] for arguments, results and intents of tasks, without fingerprints and outputs,
    /// and without their `prev`. A start that is followed by its own end is left out: the end says all
    /// that an outline has of both.
    pub(super) records: Vec<Record>,
    /// Number and `prev` of the first line.
    first: Option<(u64, String)>,
    /// Number and hash of the last line.
    last: Option<(u64, String)>,
}

impl Part {
    /// Reads the lines that begin at `from` or behind it, and before `to`. There is room for the records of
    /// `room` bytes of a journal before the list of them has to be moved.
    ///
    /// Nothing where anything is not as it should be: [`format::from_line`] tells what it is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(file: &File, from: u64, to: u64, room: u64) -> io::Result<Option<Self>> {
        let mut part = Self::default();
        let room = usize::try_from(room / BYTES_A_RECORD).unwrap_or(0);
        part.records.reserve(room);
        let events = Events::new();
        let mut buffer = vec![0; PIECE];
        // A line that begins at `from` is told by the line end before it.
        let mut at = from.saturating_sub(1);
        let mut is_in_line = from > 0;
        let mut held = 0;
        while at < to {
            let read = file.read_at(&mut buffer[held..], at + held as u64)?;
            let filled = held + read;
            let Some(end) = last_line_end(&buffer[..filled]) else {
                if read == 0 {
                    // Torn.
                    return Ok(None);
                }
                held = filled;
                buffer.resize(buffer.len().max(2 * filled), 0);
                continue;
            };
            let mut lines = &buffer[..end];
            if std::mem::take(&mut is_in_line) {
                let begin = memchr(b'\n', lines).map_or(end, |end| end + 1);
                lines = &lines[begin..];
            }
            let begin = at + (end - lines.len()) as u64;
            if part.add(&events, lines, to.saturating_sub(begin)).is_none() {
                return Ok(None);
            }
            at += end as u64;
            buffer.copy_within(end..filled, 0);
            held = filled - end;
        }
        Ok(Some(part))
    }

    /// Number of the last line, and its hash.
    pub(super) fn head(&self) -> Option<&(u64, String)> {
        self.last.as_ref()
    }

    /// Tells whether this part begins where another ends, or where a journal begins.
    pub(super) fn follows(&self, other: Option<&Self>) -> bool {
        let Some((seq, prev)) = &self.first else {
            return true;
        };
        match other.map(Self::head) {
            None => *seq == 1 && prev == format::NO_HASH,
            Some(Some((last, hash))) => *seq == last + 1 && prev == hash,
            Some(None) => false,
        }
    }

    /// Takes in those of these lines, each with its end, that begin before `to`.
    fn add(&mut self, events: &Events<'_>, lines: &[u8], to: u64) -> Option<()> {
        let text = std::str::from_utf8(lines).ok()?;
        let mut begin = 0;
        // A start that may be followed by its own end.
        let mut open: Option<(&str, &str)> = None;
        for end in memchr_iter(b'\n', lines) {
            if begin as u64 >= to {
                break;
            }
            let line = &text[begin..end];
            begin = end + 1;
            self.link(line)?;
            let head = &line.as_bytes()[..line.len().min(HEAD)];
            if let Some(at) = events.finished.find(head) {
                let ended = line[at + FINISHED.len()..].split_once(",\"status\":\"")?.0;
                match open.take() {
                    Some((_, begun)) if is_of(begun, ended) => {}
                    Some((start, _)) => self.records.push(light(start, true)?),
                    None => {}
                }
                self.records.push(light(line, false)?);
                continue;
            }
            if let Some((start, _)) = open.take() {
                self.records.push(light(start, true)?);
            }
            match events.started.find(head) {
                Some(at) => open = Some((line, &line[at + STARTED.len()..])),
                None => {
                    let mut record = format::from_line(line).ok()?.0;
                    record.prev = String::new();
                    self.records.push(record);
                }
            }
        }
        if let Some((start, _)) = open {
            self.records.push(light(start, true)?);
        }
        Some(())
    }

    /// Proves that a line follows the last one.
    fn link(&mut self, line: &str) -> Option<()> {
        let hash = format::checked_hash(line).ok()?;
        let content = format::parted(line)?.0;
        let (before, prev) = content
            .strip_suffix('"')?
            .split_at_checked(content.len() - 65)?;
        before.strip_suffix(",\"prev\":\"")?;
        let (version, rest) = line.strip_prefix("{\"v\":")?.split_once(",\"seq\":")?;
        let seq = rest.split_once(',')?.0.parse().ok()?;
        if version.parse::<u32>().ok()? > FORMAT_VERSION {
            return None;
        }
        match &mut self.last {
            Some((last, head)) => {
                if seq != *last + 1 || prev != head.as_str() {
                    return None;
                }
                *last = seq;
                head.clear();
                head.push_str(hash);
            }
            None => {
                self.first = Some((seq, prev.to_owned()));
                self.last = Some((seq, hash.to_owned()));
            }
        }
        Some(())
    }
}

/// Tells whether the members behind the event of a start name the task and the attempt of an end's.
fn is_of(begun: &str, ended: &str) -> bool {
    ended.contains(",\"attempt\":\"")
        && begun
            .strip_prefix(ended)
            .is_some_and(|rest| rest.starts_with(','))
}

fn last_line_end(bytes: &[u8]) -> Option<usize> {
    memrchr(b'\n', bytes).map(|at| at + 1)
}

/// A start's or an end's record.
fn light(line: &str, starts: bool) -> Option<Record> {
    let read: Light = serde_json::from_str(line).ok()?;
    let fingerprint = Fingerprint::default();
    let body = if starts {
        Body::TaskStarted {
            task: read.task,
            attempt: read.attempt?,
            module: read.module?,
            fingerprint,
            arguments: Value::Null,
            intent: Value::Null,
            needs_change: None,
            reason: read.reason,
        }
    } else {
        Body::TaskFinished {
            task: read.task,
            attempt: read.attempt,
            status: read.status?,
            how: read.how?,
            fingerprint,
            arguments: Value::Null,
            result: Value::Null,
            hidden: Vec::new(),
            outputs: Vec::new(),
            summary: read.summary,
            error: read.error,
            duration_ms: read.duration_ms?,
        }
    };
    Some(Record {
        v: read.v,
        seq: read.seq,
        time: read.time,
        run: read.run,
        body,
        prev: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{History, TaskHistory};
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

    /// These lines in a file.
    fn kept(lines: &[impl AsRef<[u8]>]) -> (File, u64) {
        let mut file = tempfile::tempfile().expect("a file");
        let all: Vec<u8> = lines.iter().flat_map(AsRef::as_ref).copied().collect();
        file.write_all(&all).expect("written");
        (file, all.len() as u64)
    }

    fn is_sound(lines: &[impl AsRef<[u8]>]) -> bool {
        let (file, length) = kept(lines);
        let part = Part::read(&file, 0, length, length).expect("read");
        part.is_some_and(|part| part.follows(None))
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
            hidden: Vec::new(),
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
            let (file, length) = kept(&lines);
            for middle in 0..=length {
                let part = |from, to| {
                    Part::read(&file, from, to, length)
                        .expect("read")
                        .expect("sound")
                };
                let (first, second) = (part(0, middle), part(middle, length));
                assert!(first.follows(None));
                assert!(second.follows(if first.head().is_some() {
                    Some(&first)
                } else {
                    None
                }));
                let mut records = first.records;
                records.extend(second.records);
                assert_eq!(told(&records), told(&whole), "parted at byte {middle}");
            }
        }
    }

    #[test]
    fn records_longer_than_a_piece_are_read() {
        let mut long = finished();
        if let Body::TaskFinished { result, .. } = &mut long {
            *result = json!("x".repeat(3 * PIECE));
        }
        let lines = journal(vec![started(), long, notified(), started()]);
        let (file, length) = kept(&lines);
        let part = Part::read(&file, 0, length, length)
            .expect("read")
            .expect("sound");
        let known: Vec<u64> = part.records.iter().map(|record| record.seq).collect();
        assert!(known == [2, 3, 4] || known == [1, 2, 3, 4], "{known:?}");
    }

    #[test]
    fn a_start_is_kept_unless_its_own_end_follows() {
        let other = Body::TaskStarted {
            task: "t".into(),
            attempt: "r/2".into(),
            module: "m".into(),
            fingerprint: Fingerprint::default(),
            arguments: Value::Null,
            intent: Value::Null,
            needs_change: None,
            reason: None,
        };
        let mut already = finished();
        if let Body::TaskFinished { attempt, .. } = &mut already {
            *attempt = None;
        }
        for (bodies, kept_of_them) in [
            (vec![started(), finished()], vec![2]),
            (vec![started(), already], vec![1, 2]),
            (vec![other, finished()], vec![1, 2]),
            (vec![started()], vec![1]),
        ] {
            let (file, length) = kept(&journal(bodies));
            let part = Part::read(&file, 0, length, length)
                .expect("read")
                .expect("sound");
            let known: Vec<u64> = part.records.iter().map(|record| record.seq).collect();
            assert_eq!(known, kept_of_them);
        }
    }

    #[test]
    fn what_does_not_follow_has_no_outline() {
        let lines = journal(vec![started(), notified(), finished()]);
        assert!(is_sound(&lines));
        assert!(!is_sound(&lines[1..]), "removed");
        assert!(!is_sound(&[&lines[0], &lines[2]]), "removed");
        assert!(!is_sound(&[&lines[1], &lines[0], &lines[2]]), "swapped");
        let altered = [lines[0].replace("\"why\"", "\"who\"")];
        assert!(!is_sound(&altered));
        let (content, hash) = format::parted(lines[0].trim_end()).expect("a line");
        let shouted = lines[0].replace(hash, &hash.to_uppercase());
        assert!(!content.is_empty() && shouted != lines[0]);
        assert!(!is_sound(&[shouted]));
        assert!(!is_sound(&[&lines[0].as_bytes()[..40]]), "torn");
        assert!(
            !is_sound(&[lines[0].trim_end()]),
            "torn just before its end"
        );
    }
}
