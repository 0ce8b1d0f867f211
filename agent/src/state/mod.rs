//! The state directory: what ran, when, with which input and which outcome.
//!
//! Knows no module, no playbook and no host: it stores identities, fingerprints and results, proves
//! that they are unaltered, and answers what is known about a task.

pub mod error;
pub mod fingerprint;
pub mod format;
pub mod history;
pub mod host_lock;
pub mod journal;
pub mod lock;
pub mod reader;
pub mod seat;

pub use error::{ChainBreak, StateError};
pub use fingerprint::Fingerprint;
pub use format::{Answer, Body, How, Outcome, Output, Record, Seat, TaskStatus};
pub use history::{Attempt, Finished, History, TaskHistory};
pub use host_lock::HostLock;
pub use journal::{Journal, StateDir};
pub use lock::Lock;
pub use reader::{Contents, read};
