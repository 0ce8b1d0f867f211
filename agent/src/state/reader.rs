//! Reads a journal and proves that it is what was written.

use std::fs;
use std::io;
use std::path::Path;

use super::error::StateError;
use super::format::{self, Body, FORMAT_VERSION, LineError, NO_HASH, Record};
use super::outline;

/// A journal's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// Records in order.
    pub records: Vec<Record>,
    /// Hash of the last record: note it elsewhere to be able to prove later that nothing was cut off.
    pub head: String,
    /// Bytes of whole records; what follows is a torn tail.
    pub whole: u64,
    /// Bytes after the last whole line: an append that a crash or power loss cut short.
    pub torn: Vec<u8>,
}

impl Contents {
    /// The journal's own id, where it has a first record.
    #[must_use]
    pub fn state_id(&self) -> Option<&str> {
        match self.records.first().map(|record| &record.body) {
            Some(Body::JournalCreated { state_id, .. }) => Some(state_id),
            _ => None,
        }
    }
}

/// Reads a journal; a missing file is an empty journal. Takes no lock: what a running agent appends
/// meanwhile is either read whole or counts as a torn tail.
///
/// # Errors
/// Anything but a torn tail: an altered, removed, inserted or swapped line, a newer format.
pub fn read(path: &Path) -> Result<Contents, StateError> {
    parse(path, &bytes_of(path)?)
}

/// As [`read`], without arguments, results and intents of tasks, which are most of a journal: enough
/// for telling where tasks stand.
///
/// # Errors
/// As [`read`].
pub fn read_outline(path: &Path) -> Result<Contents, StateError> {
    parse_with(path, &bytes_of(path)?, outline::from_line)
}

fn bytes_of(path: &Path) -> Result<Vec<u8>, StateError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(StateError::io("read", path)(source)),
    }
}

/// As [`read`], of bytes that were read already; `path` names them in errors.
///
/// # Errors
/// As [`read`], but for reading itself.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, StateError> {
    parse_with(path, bytes, format::from_line)
}

/// A line's record and its hash.
type Read = Result<(Record, String), LineError>;

fn parse_with(path: &Path, bytes: &[u8], read: fn(&str) -> Read) -> Result<Contents, StateError> {
    // After a power loss the file may have its new length but not yet its new content: zeros.
    let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let end_of_line = |bytes: &[u8]| {
        bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1)
    };
    let mut whole = end_of_line(&bytes[..written]);
    // Its blocks may also arrive out of order: zeros inside the last line are no alteration either.
    let last = end_of_line(&bytes[..whole.saturating_sub(1)]);
    if bytes[last..whole].contains(&0) {
        whole = last;
    }

    let mut contents = Contents {
        records: Vec::new(),
        head: NO_HASH.to_owned(),
        whole: whole as u64,
        torn: bytes[whole..].to_vec(),
    };
    for (index, line) in lines_of(&bytes[..whole], read).into_iter().enumerate() {
        let number = index + 1;
        let damaged = |source| match source {
            LineError::Newer(version) => StateError::Newer {
                path: path.to_path_buf(),
                line: number,
                version,
                known: FORMAT_VERSION,
            },
            source => StateError::Damaged {
                path: path.to_path_buf(),
                line: number,
                source,
            },
        };
        let (record, hash) = line.map_err(damaged)?;
        let broken = |what: String| StateError::BrokenChain {
            path: path.to_path_buf(),
            line: number,
            what,
        };
        let expected = index as u64 + 1;
        if record.seq != expected {
            return Err(broken(format!(
                "record {expected} was expected here and record {} stands here: lines were removed, \
                 inserted or swapped",
                record.seq
            )));
        }
        if record.prev != contents.head {
            return Err(broken(
                "this record does not follow the one before it: the line before was replaced, or \
                 this one comes from another journal"
                    .into(),
            ));
        }
        contents.head = hash;
        contents.records.push(record);
    }
    Ok(contents)
}

/// A journal shorter than this is read faster than a thread is started.
const WORTH_THREADS: usize = 1 << 20;
/// More threads than this do not read faster.
const MAX_THREADS: usize = 4;

/// Reads lines, each with its line end, side by side: only the chain needs their order.
fn lines_of(bytes: &[u8], read: fn(&str) -> Read) -> Vec<Read> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let read_all = |lines: &[&[u8]]| -> Vec<Read> {
        let one = |line: &&[u8]| {
            let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line));
            read(text.map_err(|error| LineError::NotARecord(error.to_string()))?)
        };
        lines.iter().map(one).collect()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(MAX_THREADS);
    if threads < 2 || bytes.len() < WORTH_THREADS {
        return read_all(&lines);
    }
    let share = lines.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let read_all = &read_all;
        let parts: Vec<_> = lines
            .chunks(share)
            .map(|lines| scope.spawn(move || read_all(lines)))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| match part.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
