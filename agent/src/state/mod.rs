//! The state directory: what ran, when, with which input and which outcome.
//!
//! Knows no module, no playbook and no host: it stores identities, fingerprints and results, proves
//! that they are unaltered, and answers what is known about a task.

pub mod adopt;
pub mod archive;
pub mod deeds;
pub mod error;
pub mod failure_point;
pub mod fingerprint;
pub mod format;
pub mod history;
pub mod host_lock;
pub mod journal;
pub mod lock;
mod outline;
mod outputs;
pub mod reader;
pub mod seat;
pub mod site;

pub use deeds::{Deed, DeedEnd, Deeds, Effort, OpenUndo};
pub use error::{ChainBreak, StateError};
pub use fingerprint::Fingerprint;
pub use format::{
    Answer, Body, How, Outcome, Output, Purged, Record, Seat, ServedDirectory, TaskStatus,
};
pub use history::{Attempt, Decision, Finished, History, MarkedSite, Run, Service, TaskHistory};
pub use host_lock::HostLock;
pub use journal::{Journal, StateDir};
pub use lock::Lock;
pub use outputs::{CheckedOutput, check_outputs};
pub use reader::{Contents, read};
pub use site::{Claimant, Marker, SiteError, Standing};
