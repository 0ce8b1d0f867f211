//! Every type that is written to a journal, and how a record becomes a line.
//!
//! A line is the record as one JSON object whose last two members are `prev`, the hash of the record
//! before it (64 zeros for the first), and `hash`, the SHA-256 of the line up to, and without, the
//! text `,"hash":…`, closed by `}`. Hashes are lower-case hex.
//!
//! # Format versions
//! - 1: first version.
//! - 2: `seat` and `command` in `run_started`; `needs_change` in `task_started`; `services` in
//!   fingerprints; the records `state_adopted`,
//!   `undo_started`, `undo_finished`, `purge_started`, `purge_finished`. An agent that knows version 1
//!   only would take what was undone for done, so it must refuse.
//! - 3: the records `variables_settled`, `outcome_unknown`, `site_marked` and `handler_ran`; `hidden` in
//!   `task_finished`; `directories` in `service_started`; `rehearsal` in `journal_created`. An agent that knows version 2 only would start
//!   servers on directories that this version refuses, so it must refuse.
//!
//! Members that a reader does not know are passed over: what is only told may be added without a new
//! version.
//!
//! A reader accepts any version up to its own; a newer one is refused with the version to use.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fingerprint::{Fingerprint, sha256_hex};

/// Version that this binary writes.
pub const FORMAT_VERSION: u32 = 3;

/// `prev` of the first record.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format version.
    pub v: u32,
    /// 1, 2, 3, … within the journal.
    pub seq: u64,
    /// UTC, as the host's clock had it; order is given by `seq`, never by this.
    pub time: Timestamp,
    /// Id of the run that wrote it.
    pub run: String,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
    /// Hash of the record before this one.
    pub prev: String,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Body {
    /// First record of every journal.
    JournalCreated {
        /// Random id of this state; containers carry it in a label.
        state_id: String,
        /// Name of the playbook that the journal belongs to.
        playbook: String,
        /// Host that it was made on.
        host: String,
        /// It belongs to a rehearsal: it never counts for a real run.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rehearsal: bool,
    },
    /// A run began.
    RunStarted {
        /// Playbook path as given.
        playbook: String,
        /// SHA-256 over the playbook and every file it includes.
        playbook_sha256: String,
        /// Who started it: the login user, and `sudo`'s where there is one.
        user: String,
        /// Where.
        host: String,
        /// Process id.
        pid: u32,
        /// Version of the agent.
        agent_version: String,
        /// Command line, secrets hidden.
        arguments: Vec<String>,
        /// Where the journal lay.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seat: Option<JournalLocation>,
        /// What was asked for: `rollback`, `purge`; absent for `run`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    /// An operator said that this copy of the journal is the one that goes on.
    StateAdopted {
        /// Where it lies now.
        seat: JournalLocation,
        /// Why.
        reason: String,
        /// Who.
        user: String,
        /// Name of the host.
        host: String,
    },
    /// The first effect of a play is about to happen: from here on its settled variables are held.
    VariablesSettled {
        /// Name of the play.
        play: String,
        /// Declared, settled variable -> its value, rendered. Secrets are left out.
        variables: BTreeMap<String, Value>,
    },
    /// A site was marked as this state's, or found marked so, or freed.
    SiteMarked {
        /// The site's folder.
        site: PathBuf,
        /// What the marker says; null where it was taken away, so that the site is free.
        marker: Value,
    },
    /// A task is about to have its effect.
    TaskStarted {
        /// Identity.
        task: String,
        /// Id of the attempt.
        attempt: String,
        /// Module.
        module: String,
        /// Module, arguments and input files in one hash, and the files' own.
        fingerprint: Fingerprint,
        /// Rendered arguments, secrets hidden.
        arguments: Value,
        /// What the module needs to find out after a crash what became of the attempt.
        intent: Value,
        /// Whether the host was other than the task describes when the attempt began; absent where that
        /// cannot be told, and for tasks that describe no state.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        needs_change: Option<bool>,
        /// Why it runs although the journal knows the task.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// An attempt ended without anybody seeing how: it stays open, and the next run finds out or asks.
    OutcomeUnknown {
        /// Identity.
        task: String,
        /// Id of the attempt.
        attempt: String,
        /// What was seen instead of an end.
        error: String,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// A task ended.
    TaskFinished {
        /// Identity.
        task: String,
        /// Id of the attempt that it ends; absent where nothing was started (already done).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<String>,
        /// How it ended.
        status: TaskStatus,
        /// How that came to be known.
        how: How,
        /// As in the attempt's `task_started`.
        fingerprint: Fingerprint,
        /// Rendered arguments, secrets hidden; only where no `task_started` record has them.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        arguments: Value,
        /// Return values, secrets hidden.
        result: Value,
        /// JSON pointers to those from which a secret was cut; one above others stands for all of them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        hidden: Vec<String>,
        /// Files that were made.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        outputs: Vec<Output>,
        /// One line for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        summary: Option<String>,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// A task's condition was false.
    TaskSkipped {
        /// Identity.
        task: String,
        /// The condition.
        condition: String,
    },
    /// A task was renamed in the playbook; the old identity's record counts for the new one.
    TaskAdopted {
        /// New identity.
        task: String,
        /// Old identity.
        from: String,
    },
    /// An operator's answer about a task that the agent could not decide.
    TaskResolved {
        /// Identity.
        task: String,
        /// The answer.
        answer: Answer,
        /// Why.
        reason: String,
        /// Who.
        user: String,
        /// What the task depends on at the time of the answer; `done` holds for this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fingerprint: Option<Fingerprint>,
    },
    /// What a task did is about to be taken back.
    UndoStarted {
        /// Identity.
        task: String,
        /// Id of the undo.
        undo: String,
        /// The steps, with all that is needed to finish them after a crash.
        intent: Value,
    },
    /// What a task did was taken back, or there was nothing to take back: it counts as never done.
    UndoFinished {
        /// Identity.
        task: String,
        /// Id of the undo that it ends; absent where nothing had to be done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        undo: Option<String>,
        /// Tasks whose effects lay inside this one's and went with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        with: Vec<String>,
        /// What was done.
        result: Value,
        /// One line for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        summary: Option<String>,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// These things in quarantine are about to be deleted: from now on they count as gone.
    PurgeStarted {
        /// What is deleted.
        entries: Vec<Purged>,
        /// Who confirmed it.
        confirmed_by: String,
    },
    /// They are deleted.
    PurgeFinished {
        /// Bytes that they took on disk.
        bytes: u64,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// A handler is due.
    HandlerNotified {
        /// Identity of the handler's task.
        task: String,
        /// Identity of the task that changed something.
        by: String,
    },
    /// A handler's turn came to its end: it ran, item by item where it loops, or its condition was false.
    /// In versions before 3 the end of its task says so.
    HandlerRan {
        /// Identity of the handler's task.
        task: String,
    },
    /// A service was started for the tasks that follow.
    ServiceStarted {
        /// Name.
        service: String,
        /// Container.
        container: String,
        /// Data directories that it works on, as they were found just before.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        directories: Vec<ServedDirectory>,
    },
    /// A service was stopped gracefully.
    ServiceStopped {
        /// Name.
        service: String,
        /// Container.
        container: String,
    },
    /// A run ended.
    RunFinished {
        /// How.
        outcome: Outcome,
        /// Recap: status -> number of tasks.
        stats: BTreeMap<String, u32>,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
}

/// By what a journal's own file is told from a copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLocation {
    /// SHA-256 over systemd's id of the machine, the first 16 hex digits; absent where there is no id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Inode of the file.
    pub inode: u64,
    /// When the file was made, where the filesystem knows: a copy is younger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Timestamp>,
}

/// A data directory that a service works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedDirectory {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Whose format it has: `postgresql`, `slapd`.
    pub format: String,
    /// Its version: the content of PG_VERSION, or slapd's database format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// PostgreSQL's database system identifier (pg_control).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Inode of the directory.
    pub inode: u64,
    /// UUID of the filesystem that it lies on, where that can be told. The device's number is left out: it
    /// changes with a reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nothing had to change.
    Ok,
    /// The host was changed.
    Changed,
    /// It failed.
    Failed,
    /// It failed and `ignore_errors` lets the play go on.
    Ignored,
    /// It failed and its block's `rescue` ran to the end.
    Rescued,
}

/// How an end came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The task ran to its end in this run.
    Ran,
    /// An earlier attempt was interrupted; its effect was found on the host, whole.
    Recovered,
    /// `done_when` was true before the task ran.
    AlreadyDone,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// To the end.
    Done,
    /// A task failed.
    Failed,
    /// SIGINT or SIGTERM.
    Interrupted,
    /// An operator has to decide.
    DecisionNeeded,
}

impl Outcome {
    /// Returns the word that stands for it in journals and events.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::DecisionNeeded => "decision_needed",
        }
    }
}

/// An operator's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The effect is there.
    Done,
    /// Run the task again.
    Redo,
}

/// A file that a task made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Absolute path.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// SHA-256, hex.
    pub sha256: String,
}

/// A thing in quarantine that is deleted for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes that it takes on disk.
    pub bytes: u64,
}

const HASH_MEMBER: &str = ",\"hash\":\"";

/// Returns the record's line, without line end, and its hash.
///
/// # Errors
/// Only if a value cannot be serialized, which none of the types here allows.
pub fn to_line(record: &Record) -> Result<(String, String), serde_json::Error> {
    let mut line = serde_json::to_string(record)?;
    let hash = sha256_hex(line.as_bytes());
    line.pop();
    line.push_str(HASH_MEMBER);
    line.push_str(&hash);
    line.push_str("\"}");
    Ok((line, hash))
}

/// Why a line is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not JSON, or not a record's JSON.
    #[error("it is not a record: {0}")]
    NotARecord(String),
    /// The content does not fit the hash in the same line.
    #[error("its content was altered (it does not fit its own hash)")]
    Altered,
    /// Written by a newer agent.
    #[error("it has format version {0}, this agent reads up to {FORMAT_VERSION}")]
    Newer(u64),
}

/// What is hashed of a line, without its closing brace, and the hash that the line says it has.
pub(super) fn parted(line: &str) -> Option<(&str, &str)> {
    let end = line.len().checked_sub(HASH_MEMBER.len() + 64 + 2)?;
    let hash = line.get(end..)?.strip_prefix(HASH_MEMBER)?;
    Some((line.get(..end)?, hash.strip_suffix("\"}")?))
}

/// Returns a line's hash, which its content fits.
///
/// # Errors
/// When the line has none, or was altered.
pub(super) fn checked_hash(line: &str) -> Result<&str, LineError> {
    let Some((content, hash)) = parted(line) else {
        let why = match line.contains(HASH_MEMBER) {
            true => "its `hash` is cut short",
            false => "it has no `hash` at its end",
        };
        return Err(LineError::NotARecord(why.into()));
    };
    let mut hasher = Sha256::new();
    hasher.update(content.as_bytes());
    hasher.update(b"}");
    let mut digits = [0; 64];
    let fits = hex::encode_to_slice(hasher.finalize(), &mut digits).is_ok();
    if fits && digits == hash.as_bytes() {
        Ok(hash)
    } else {
        Err(LineError::Altered)
    }
}

/// Reads a line without line end; returns the record and its hash.
///
/// # Errors
/// When the text is no record, was altered, or has a newer format version.
pub fn from_line(line: &str) -> Result<(Record, String), LineError> {
    let hash = checked_hash(line)?;
    // Read once, straight into its type: a journal is read at every start. `hash` is no part of it.
    let record = serde_json::from_str::<Record>(line);
    match record {
        Ok(record) if record.v <= FORMAT_VERSION => Ok((record, hash.to_owned())),
        Ok(record) => Err(LineError::Newer(record.v.into())),
        // A newer format may have what this type does not know.
        Err(error) => Err(match version(line) {
            Some(version) if version > u64::from(FORMAT_VERSION) => LineError::Newer(version),
            _ => LineError::NotARecord(error.to_string()),
        }),
    }
}

fn version(line: &str) -> Option<u64> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("v")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            v: FORMAT_VERSION,
            seq: 1,
            time: Timestamp::UNIX_EPOCH,
            run: "r".into(),
            body: Body::JournalCreated {
                state_id: "s".into(),
                playbook: "p \",\"hash\":\"".into(),
                host: "h".into(),
                rehearsal: false,
            },
            prev: NO_HASH.into(),
        }
    }

    #[test]
    fn a_line_reads_back_as_the_record_it_was_made_from() {
        let (line, hash) = to_line(&record()).expect("serializes");
        assert_eq!(from_line(&line), Ok((record(), hash)));
    }

    #[test]
    fn no_byte_of_a_line_can_change_unnoticed() {
        let (line, _) = to_line(&record()).expect("serializes");
        for index in 0..line.len() {
            let mut bytes = line.clone().into_bytes();
            bytes[index] ^= 1;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(
                    from_line(&text).is_err(),
                    "byte {index} changed unnoticed: {text}"
                );
            }
        }
    }

    /// As an agent that knew version 1 wrote it.
    #[test]
    fn a_record_of_version_1_is_read() {
        let line = r#"{"v":1,"seq":2,"time":"1970-01-01T00:00:00Z","run":"r","event":"run_started","playbook":"p","playbook_sha256":"x","user":"u","host":"h","pid":1,"agent_version":"0.1.0","arguments":[],"prev":"0"}"#;
        let hash = sha256_hex(line.as_bytes());
        let line = format!("{},\"hash\":\"{hash}\"}}", &line[..line.len() - 1]);
        let (record, _) = from_line(&line).expect("version 1 stays readable");
        assert_eq!(record.v, 1);
        assert!(matches!(
            record.body,
            Body::RunStarted { command: None, .. }
        ));
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let (line, _) = to_line(&Record { v: 99, ..record() }).expect("serializes");
        assert_eq!(from_line(&line), Err(LineError::Newer(99)));
    }
}
