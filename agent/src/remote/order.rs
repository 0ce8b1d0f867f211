//! What a host is told to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Version of [`Order`]; an agent refuses another one.
pub const ORDER_VERSION: u32 = 1;

/// What a host is to do with a playbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteCommand {
    /// Run it.
    Run,
    /// Note an operator's answer about a task; why is the order's reason.
    Resolve {
        /// The task.
        task: String,
        /// Its effect is there; else it is to run again.
        done: bool,
    },
    /// Take it back.
    Rollback {
        /// Tasks that were taken back by hand.
        accept: Vec<String>,
    },
    /// Delete what lies in quarantine.
    Purge,
}

/// A run, or something else, that a host is to do. It holds variables, and with them secrets: it travels on standard input, and
/// the file that keeps it until the run has read it is the owner's alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// [`ORDER_VERSION`].
    pub v: u32,
    /// SHA-256 of the bundle, hexadecimal.
    pub bundle: String,
    /// The playbook, relative to the bundle.
    pub playbook: String,
    /// What is to be done.
    pub deed: RemoteCommand,
    /// The host, as the inventory describes it.
    pub host: HostOrder,
    /// `-e`.
    pub extra_vars: Map<String, Value>,
    /// `--tags`.
    pub tags: Vec<String>,
    /// `--skip-tags`.
    pub skip_tags: Vec<String>,
    /// `--check`.
    pub check: bool,
    /// `--diff`.
    pub diff: bool,
    /// `--no-checkpoint`.
    pub no_checkpoint: bool,
    /// `--yes`.
    pub yes: bool,
    /// `--redo`.
    pub redo: Vec<String>,
    /// `--reason`.
    pub reason: Option<String>,
    /// Where the state is instead of `state` below the agent's folder.
    pub state_dir: Option<String>,
    /// Passwords for what is encrypted in the playbook's files.
    pub vault_passwords: Vec<String>,
    /// What the controller has decrypted of it: secrets that the host must not write down.
    pub revealed: Vec<String>,
    /// Who asks, and from where: `alice on laptop`.
    pub operator: String,
}

/// A host, as an inventory describes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HostOrder {
    /// Its name in the inventory.
    pub name: String,
    /// `ansible_host`, or the name.
    pub address: String,
    /// Its groups, without `all`.
    pub group_names: Vec<String>,
    /// Every group's hosts.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Its variables and its groups'; templates are rendered on the host.
    pub vars: Map<String, Value>,
    /// The plays that are for it, counted from 0.
    pub plays: Vec<usize>,
}
