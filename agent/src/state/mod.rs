//! The state directory: what ran, when, with which input and which outcome.
//!
//! Knows no module, no playbook and no host: it stores identities, fingerprints and results, proves
//! that they are unaltered, and answers what is known about a task.

pub mod archive;
pub mod error;
pub mod fingerprint;
pub mod format;
pub mod history;
pub mod journal;
pub mod lock;
mod outline;
pub mod reader;

pub use error::StateError;
pub use fingerprint::Fingerprint;
pub use format::{Answer, Body, How, Outcome, Output, Record, TaskStatus};
pub use history::{Attempt, Decision, Finished, History, Run, Service, TaskHistory};
pub use journal::{Journal, StateDir};
pub use lock::Lock;
pub use reader::{Contents, read};
