//! The state directory: what ran, when, with which input and which outcome.
//!
//! Knows no module, no playbook and no host: it stores identities, fingerprints and results, proves
//! that they are unaltered, and answers what is known about a task.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod adopt;
pub mod archive;
pub mod error;
pub mod failure_point;
pub mod fingerprint;
pub mod format;
pub mod history;
pub mod host_lock;
pub mod journal;
pub mod location;
pub mod lock;
mod outline;
mod outputs;
pub mod reader;
pub mod site;
pub mod undoable;

pub use error::{ChainBreak, StateError};
pub use fingerprint::Fingerprint;
pub use format::{
    Answer, Body, How, JournalLocation, Outcome, Output, Purged, Record, ServedDirectory,
    TaskStatus,
};
pub use history::{Attempt, Decision, Finished, History, MarkedSite, Run, Service, TaskHistory};
pub use host_lock::HostLock;
pub use journal::{Journal, StateDir};
pub use lock::Lock;
pub use outputs::{CheckedOutput, check_outputs};
pub use reader::{Contents, read};
pub use site::{Claimant, Marker, SiteError, Standing};
pub use undoable::{OpenUndo, PastAttempt, UndoableEnd, UndoableTask, UndoableTasks};
