//! What a site's marker says.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Version of the marker that this agent writes.
pub const MARKER_VERSION: u64 = 1;

/// A site's marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Version.
    pub v: u64,
    /// Id of the state that goes on at this site.
    pub state_id: String,
    /// Folder of that state, with its journal.
    pub state: PathBuf,
    /// Its playbook.
    pub playbook: String,
    /// Hash of its journal's last record when this was written: a journal without it has lost something.
    pub head: String,
    /// Run that wrote it.
    pub run: String,
    /// When.
    pub time: Timestamp,
}

impl Marker {
    /// What a state writes at this moment.
    #[must_use]
    pub fn now(state_id: &str, state: PathBuf, playbook: &str, head: &str, run: &str) -> Self {
        Self {
            v: MARKER_VERSION,
            state_id: state_id.to_owned(),
            state,
            playbook: playbook.to_owned(),
            head: head.to_owned(),
            run: run.to_owned(),
            time: Timestamp::now(),
        }
    }

    /// The state in a few words.
    #[must_use]
    pub fn whose(&self) -> String {
        format!(
            "{} (playbook `{}`, state {}, last run {})",
            self.state.display(),
            self.playbook,
            self.state_id,
            self.run
        )
    }
}
