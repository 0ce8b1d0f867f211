//! What the engine says while it runs, in the order it happened. Reporters hear this and nothing else.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::host::progress::Unit;

/// Version of the JSON form of [`Event`]; raised when a field changes its meaning or goes away.
pub const EVENT_VERSION: u32 = 1;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Looked, and found nothing to change.
    Ok,
    /// Changed the host.
    Changed,
    /// `when` was false, or check mode could not predict it.
    Skipped,
    /// Passed over because the journal proves that it was done.
    Done,
    /// Failed.
    Failed,
    /// Failed, and `ignore_errors` says to go on.
    Ignored,
    /// Failed, and a `rescue` took over.
    Rescued,
    /// `rollback` took back what it had done.
    Undone,
}

/// Numbers of the recap, with Ansible's meaning plus `done`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Tasks that ended well, changed ones included.
    pub ok: u32,
    /// Tasks that changed the host.
    pub changed: u32,
    /// Tasks whose condition was false.
    pub skipped: u32,
    /// Tasks that the journal lets the run pass over.
    pub done: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// Failures taken over by `rescue`.
    pub rescued: u32,
    /// Failures passed over by `ignore_errors`.
    pub ignored: u32,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Id of the run, as in the journal.
        run: String,
        /// Playbook path as given.
        playbook: String,
        /// Tasks in the playbook, loops counted once.
        tasks_total: usize,
        /// Predict only.
        check_mode: bool,
    },
    /// A play began.
    PlayStarted {
        /// Its name.
        play: String,
    },
    /// A task began: nothing on the host was touched before this.
    TaskStarted {
        /// Full identity.
        task: String,
        /// Name for people.
        name: String,
        /// Loop item, where there is one.
        item: Option<String>,
        /// Why it runs although the journal knows it (`interrupted in run …`, `arguments changed`).
        reason: Option<String>,
    },
    /// How far a task is. May be dropped by slow reporters.
    TaskProgress {
        /// Full identity.
        task: String,
        /// So far.
        done: u64,
        /// In all, where known.
        total: Option<u64>,
        /// Unit of both.
        unit: Unit,
        /// What is being worked on just now.
        what: Option<String>,
    },
    /// A line that the task printed, or that a reader should see.
    TaskOutput {
        /// Full identity.
        task: String,
        /// Without line end.
        line: String,
    },
    /// A task ended.
    TaskFinished {
        /// Full identity.
        task: String,
        /// Name for people.
        name: String,
        /// Loop item, where there is one.
        item: Option<String>,
        /// How.
        status: Status,
        /// Module's return values, secrets hidden.
        result: Value,
        /// One line for people: what changed, why skipped, why failed.
        summary: Option<String>,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
    /// A service is up and ready.
    ServiceStarted {
        /// Its name.
        service: String,
        /// Container name.
        container: String,
        /// Wall time until ready.
        duration_ms: u64,
    },
    /// A service was stopped gracefully and removed.
    ServiceStopped {
        /// Its name.
        service: String,
        /// Left over by an earlier, killed run.
        left_over: bool,
        /// Wall time.
        duration_ms: u64,
    },
    /// A handler was notified.
    HandlerNotified {
        /// Its name or topic.
        handler: String,
    },
    /// Something a reader should know; nothing stops.
    Warning {
        /// The text.
        message: String,
    },
    /// How far the whole run is; after each task that the plan left to do.
    RunProgress {
        /// Tasks of the plan that have ended, loop items counted.
        tasks_done: u64,
        /// Tasks that the plan left to do, as far as it could tell.
        tasks_total: u64,
        /// Of the work, long tasks counted for more.
        percent: u64,
        /// How long the rest will take, roughly; absent as long as that cannot be told.
        left_ms: Option<u64>,
    },
    /// The run ended.
    RunFinished {
        /// `done`, `failed`, `interrupted`, `decision_needed`.
        outcome: String,
        /// Recap.
        stats: Stats,
        /// Wall time in milliseconds.
        duration_ms: u64,
    },
}
