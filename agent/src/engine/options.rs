//! What a run is told from outside.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::modules::context::Confirm;

/// Who runs, and from where: written into the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Login user, with `sudo`'s where there is one: `root (sudo by alice)`.
    pub user: String,
    /// Host name.
    pub host: String,
    /// Command line.
    pub arguments: Vec<String>,
}

/// What a run is told from outside.
#[derive(Clone)]
pub struct RunOptions {
    /// `-e`.
    pub extra_vars: Map<String, Value>,
    /// `--check`: predict, change nothing, write no journal.
    pub check: bool,
    /// `--tags`; empty means all.
    pub tags: Vec<String>,
    /// `--skip-tags`.
    pub skip_tags: Vec<String>,
    /// Who runs.
    pub operator: Operator,
    /// Answers `pause`.
    pub confirm: Arc<dyn Confirm>,
    /// Fires on SIGINT and SIGTERM.
    pub cancel: CancellationToken,
}
