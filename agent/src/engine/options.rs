//! What a run is told from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::host::kubernetes::access::ClusterEnvironment;
use crate::playbook::model::Vars;
use crate::source::Location;
use crate::task::context::Confirm;
use crate::vault::Vault;

/// Who runs, and from where: written into the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Login user, with `sudo`'s where there is one: `root (sudo by alice)`.
    pub user: String,
    /// Host name.
    pub host: String,
    /// Command line.
    pub arguments: Vec<String>,
    /// Whose machine this is, whatever its name: systemd's machine id, where there is one.
    pub machine: Option<String>,
}

impl Operator {
    /// The agent as it was called, for commands that people are to type.
    #[must_use]
    pub fn program(&self) -> String {
        let called = self.arguments.first();
        called.map_or_else(|| "kaapana-agent".into(), Clone::clone)
    }
}

/// The host that a run is for, as an inventory describes it.
#[derive(Debug, Clone)]
pub struct Host {
    /// `inventory_hostname`.
    pub name: String,
    /// How it is reached: `ansible_host`.
    pub address: String,
    /// `group_names`: the groups it belongs to, without `all`.
    pub group_names: Vec<String>,
    /// `groups`: every group's hosts.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Variables of its groups and its own, above those of plays and their files, below those of blocks.
    pub vars: Vars,
    /// Which plays are for it, counted from 0; `None` without an inventory: then those for `localhost`
    /// and `all`.
    pub plays: Option<Vec<usize>>,
}

impl Default for Host {
    /// This host, without an inventory.
    fn default() -> Self {
        Self {
            name: "localhost".into(),
            address: "localhost".into(),
            group_names: Vec::new(),
            groups: BTreeMap::new(),
            vars: Vars::new(),
            plays: None,
        }
    }
}

/// What a run is told from outside.
#[derive(Clone)]
pub struct RunOptions {
    /// `-e`.
    pub extra_vars: Map<String, Value>,
    /// Where they stand, as far as that is known.
    pub extra_places: BTreeMap<String, Location>,
    /// The host that it is for.
    pub host: Host,
    /// `--check`: predict, change nothing, write no journal.
    pub check: bool,
    /// `--tags`; empty means all.
    pub tags: Vec<String>,
    /// `--skip-tags`.
    pub skip_tags: Vec<String>,
    /// The playbook and the options that belong to it, as they were given: what a further command about
    /// this playbook has to repeat.
    pub invocation: Vec<String>,
    /// Tasks that are to run again although the journal knows them, as `resolve` takes them.
    pub redo: Vec<String>,
    /// Why; kept in the journal.
    pub redo_reason: String,
    /// `--no-checkpoint`: looks again at what is done, but for one-way tasks.
    pub no_checkpoint: bool,
    /// Passwords for what is encrypted, and what was revealed.
    pub vault: Vault,
    /// `--diff`: tells how files change.
    pub diff: bool,
    /// What a person answered for `vars_prompt`.
    pub prompted: Map<String, Value>,
    /// Who runs.
    pub operator: Operator,
    /// Where a kubeconfig is looked for.
    pub cluster: Arc<ClusterEnvironment>,
    /// Answers `pause`.
    pub confirm: Arc<dyn Confirm>,
    /// Fires on SIGINT and SIGTERM.
    pub cancel: CancellationToken,
    /// When this file is there, the run ends as if interrupted, but behind the task that it is at.
    pub drain: Option<PathBuf>,
}

impl RunOptions {
    /// Whether no further task is to begin.
    pub(super) fn is_to_end(&self) -> bool {
        self.cancel.is_cancelled() || self.drain.as_ref().is_some_and(|file| file.exists())
    }
}
