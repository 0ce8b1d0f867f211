//! Reads a journal and proves that it is what was written.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::error::{ChainBreak, StateError};
use super::format::{self, Body, FORMAT_VERSION, LineError, NO_HASH, Record};
use super::outline::Part;

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
/// Anything but a torn tail: an altered, removed, inserted, swapped or replaced line, a newer format,
/// something that is no file.
pub fn read(path: &Path) -> Result<Contents, StateError> {
    parse(path, &bytes_of(path)?)
}

/// As [`read`], without arguments, results and intents of tasks, which are most of a journal, and perhaps
/// without a record's `prev` and without starts that are followed by their ends: enough for telling where
/// tasks stand.
///
/// # Errors
/// As [`read`].
pub fn read_outline(path: &Path) -> Result<Contents, StateError> {
    match length_of(path)? {
        None => parse(path, &[]),
        Some(length) => match sound_outline(path, length).map_err(StateError::io("read", path))? {
            Some(contents) => Ok(contents),
            // Torn, altered, or of a newer format: the whole reading tells them apart.
            None => read(path),
        },
    }
}

/// The outline of a journal that is whole and unaltered to its last byte.
fn sound_outline(path: &Path, length: u64) -> io::Result<Option<Contents>> {
    let file = File::open(path)?;
    let middle = length / threads_for(length).min(2) as u64;
    let (first, second) = std::thread::scope(|scope| {
        let second = (middle < length)
            .then(|| scope.spawn(|| Part::read(&file, middle, length, length - middle)));
        let first = Part::read(&file, 0, middle, length);
        let second = second.map(|second| match second.join() {
            Ok(part) => part,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        (first, second)
    });
    let (Some(first), Some(second)) = (first?, second.unwrap_or(Ok(Some(Part::default())))?) else {
        return Ok(None);
    };
    let Some((_, head)) = second.head().or(first.head()) else {
        return Ok(None);
    };
    if !first.follows(None) || !second.follows(Some(&first)) {
        return Ok(None);
    }
    let head = head.clone();
    let mut records = first.records;
    records.extend(second.records);
    Ok(Some(Contents {
        records,
        head,
        whole: length,
        torn: Vec::new(),
    }))
}

/// As [`read`], of bytes that were read already; `path` names them in errors.
///
/// # Errors
/// As [`read`], but for reading itself.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, StateError> {
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
    if has_unwritten_block(&bytes[..written], last, whole) {
        whole = last;
    }

    let mut contents = Contents {
        records: Vec::new(),
        head: NO_HASH.to_owned(),
        whole: whole as u64,
        torn: bytes[whole..].to_vec(),
    };
    let parts = lines_of(&bytes[..whole]);
    let whole_lines = parts.iter().map(Vec::len).sum();
    contents.records.reserve_exact(whole_lines);
    for (index, line) in parts.into_iter().flatten().enumerate() {
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
        let expected = index as u64 + 1;
        if record.seq != expected || record.prev != contents.head {
            return Err(StateError::BrokenChain {
                path: path.to_path_buf(),
                line: number,
                what: what_happened(&split(&bytes[..whole]), index, &record, &contents.head),
            });
        }
        contents.head = hash;
        contents.records.push(record);
    }
    refuse_altered_end(path, &contents, whole_lines)?;
    Ok(contents)
}

/// Reads the file's bytes; none where there is no file.
fn bytes_of(path: &Path) -> Result<Vec<u8>, StateError> {
    match length_of(path)? {
        None => Ok(Vec::new()),
        Some(_) => fs::read(path).map_err(StateError::io("read", path)),
    }
}

/// The file's length in bytes; nothing where there is no file.
fn length_of(path: &Path) -> Result<Option<u64>, StateError> {
    let found = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => return Ok(Some(meta.len())),
        Ok(meta) if meta.is_dir() => "a directory",
        Ok(_) => "no regular file",
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::io("read", path)(source)),
    };
    Err(StateError::NotAFile {
        path: path.to_path_buf(),
        found,
    })
}

/// Smallest piece that a disk writes whole.
const SECTOR: usize = 512;

/// Tells whether a line (`from..to`) holds zeros that a power loss can have left: a run of them that
/// begins or ends with a sector, or with the line. A zero in the middle of a sector is an alteration.
fn has_unwritten_block(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while let Some(begin) = bytes[at..to].iter().position(|byte| *byte == 0) {
        let begin = at + begin;
        let length = bytes[begin..to]
            .iter()
            .take_while(|byte| **byte == 0)
            .count();
        let end = begin + length;
        let bounded = |place: usize| place.is_multiple_of(SECTOR) || place == from;
        if bounded(begin) || end.is_multiple_of(SECTOR) {
            return true;
        }
        at = end;
    }
    false
}

/// An append that was cut short holds the beginning of a record, never a whole record with another end
/// than the line's: there the end itself was altered.
fn refuse_altered_end(path: &Path, contents: &Contents, lines: usize) -> Result<(), StateError> {
    let Some((_, line)) = contents.torn.split_last() else {
        return Ok(());
    };
    let whole = std::str::from_utf8(line)
        .ok()
        .and_then(|text| format::from_line(text).ok());
    match whole {
        Some((record, _)) if record.prev == contents.head => Err(StateError::Damaged {
            path: path.to_path_buf(),
            line: lines + 1,
            source: LineError::Altered,
        }),
        _ => Ok(()),
    }
}

/// Tells what was done to the lines, from the first record that does not follow the one before it.
fn what_happened(lines: &[&[u8]], index: usize, found: &Record, head: &str) -> ChainBreak {
    let expected = index as u64 + 1;
    let belongs_here = |line: &&[u8]| {
        let text = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
        let (record, _) = format::from_line(text).ok()?;
        (record.seq == expected && record.prev == head).then_some(())
    };
    let later = lines[index + 1..]
        .iter()
        .position(|line| belongs_here(line).is_some());
    match later {
        Some(after) if found.seq > expected => ChainBreak::Swapped {
            expected,
            stands: index + 2 + after,
        },
        None if found.seq > expected => ChainBreak::Removed {
            from: expected,
            to: found.seq - 1,
        },
        None if found.seq == expected => ChainBreak::Replaced { number: expected },
        _ => ChainBreak::Inserted {
            number: found.seq,
            expected,
        },
    }
}

/// Lines, each with its line end.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// A journal shorter than this is read faster than a thread is started.
const WORTH_THREADS: u64 = 1 << 20;
/// More threads than this do not read faster.
const MAX_THREADS: usize = 4;

fn threads_for(length: u64) -> usize {
    if length < WORTH_THREADS {
        return 1;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.min(MAX_THREADS)
}

/// A line's record and its hash.
type Read = Result<(Record, String), LineError>;

/// Reads lines, each with its line end, side by side: only the chain needs their order. Returns parts, one
/// behind the other: moving all records into one list would take as long as reading some of them.
fn lines_of(bytes: &[u8]) -> Vec<Vec<Read>> {
    let lines = split(bytes);
    let read_all = |lines: &[&[u8]]| -> Vec<Read> {
        let one = |line: &&[u8]| {
            let text = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line));
            format::from_line(text.map_err(|error| LineError::NotARecord(error.to_string()))?)
        };
        lines.iter().map(one).collect()
    };
    let threads = threads_for(bytes.len() as u64);
    if threads < 2 {
        return vec![read_all(&lines)];
    }
    let share = lines.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let read_all = &read_all;
        let mut shares = lines.chunks(share);
        let first = shares.next().unwrap_or_default();
        let others: Vec<_> = shares
            .map(|lines| scope.spawn(move || read_all(lines)))
            .collect();
        let mut parts = vec![read_all(first)];
        parts.extend(others.into_iter().map(|part| match part.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        parts
    })
}
