//! Inventories: hosts, groups and their variables, as Ansible reads them from YAML and INI files, from
//! folders of such files with `group_vars/` and `host_vars/` beside them, and from lists (`a,b,`).
//!
//! Values stay as they are written: templates in them are rendered where the play runs.

mod ini;
mod literal;
mod mistake;
mod model;
mod names;
mod pattern;
mod sources;
mod vars_files;
mod words;
mod yaml;

use std::collections::BTreeMap;

use miette::Diagnostic;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::source::Problem;

/// The group of all hosts.
const ALL: &str = "all";
/// The group of the hosts that are in no other.
const UNGROUPED: &str = "ungrouped";
/// Names of the controller itself, which need not stand in an inventory.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Hosts, groups and variables of one or several sources.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    hosts: Vec<String>,
    /// Each group's hosts, those of its children included.
    groups: BTreeMap<String, Vec<String>>,
    entries: BTreeMap<String, Host>,
    /// Variables of a local host that no source names, by its name.
    local: BTreeMap<String, Map<String, Value>>,
}

/// A host and what an inventory says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Its name there (`inventory_hostname`).
    pub name: String,
    /// Its variables, merged.
    pub vars: Map<String, Value>,
    /// Its groups without `all`, sorted (`group_names`).
    pub group_names: Vec<String>,
}

/// A host pattern that selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InventoryError {
    /// A part of the pattern names no host and no group.
    #[error("no host and no group of the inventory is called `{name}`")]
    Unknown {
        /// The part.
        name: String,
        /// The known name that was probably meant.
        near: Option<String>,
    },
    /// A part of the pattern is not written as patterns are.
    #[error("`{term}` in the host pattern: {what}")]
    Pattern {
        /// The part.
        term: String,
        /// What is wrong with it.
        what: String,
    },
    /// All parts are known, and no host is left.
    #[error("the host pattern `{pattern}` selects no host")]
    Nothing {
        /// The whole pattern.
        pattern: String,
    },
}

impl InventoryError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "inventory::unknown_host",
            Self::Pattern { .. } => "inventory::pattern",
            Self::Nothing { .. } => "inventory::no_hosts",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Unknown {
                near: Some(near), ..
            } => format!("did you mean `{near}`?"),
            Self::Unknown { .. } => {
                "compare it with the hosts and groups of the inventory (`-i`)".into()
            }
            Self::Pattern { .. } => {
                "a pattern has names, groups, globs (`web*`), `~` and a regular expression, \
                 subscripts (`web[0]`, `web[1:3]`), and `:` or `,` between them; `!` takes away, \
                 `&` keeps what is in both"
                    .into()
            }
            Self::Nothing { .. } => {
                "`!` takes away, `&` keeps what is in both: look what they leave, and whether the \
                 groups have hosts"
                    .into()
            }
        }
    }
}

impl Diagnostic for InventoryError {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(Self::code(self)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(Self::help(self)))
    }
}

impl Inventory {
    /// Reads `-i` arguments: files (YAML, INI), folders of them, or lists with a comma (`a,b,`). Later ones
    /// add to earlier ones, and their variables win.
    ///
    /// # Errors
    /// Everything that is wrong with the sources, with file, line and column.
    pub fn read(sources: &[String]) -> Result<Self, Vec<Problem>> {
        sources::read(sources)
    }

    /// All hosts, each once, in the order in which Ansible goes through `all`: as written, group by group,
    /// hosts without a group first.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Hosts of a pattern in the inventory's order: `all`, names, globs, groups, `a:b`, `a,b`,
    /// `group:!host`, `a:&b`, `~regex`, `group[0]`, `group[1:3]`. `localhost` is there although no source
    /// names it.
    ///
    /// # Errors
    /// A part that is unknown or written wrongly, or a pattern that leaves no host.
    pub fn select(&self, pattern: &str) -> Result<Vec<String>, InventoryError> {
        pattern::select(self, pattern)
    }

    /// One host with its variables. A local host that no source names has those of `all` and
    /// `ansible_connection: local`.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<Host> {
        self.entries.get(name).cloned().or_else(|| {
            self.local.get(name).map(|vars| Host {
                name: name.to_owned(),
                vars: vars.clone(),
                group_names: Vec::new(),
            })
        })
    }

    /// All groups and their hosts, `all` and `ungrouped` included (`groups`).
    #[must_use]
    pub fn groups(&self) -> BTreeMap<String, Vec<String>> {
        self.groups.clone()
    }
}

#[cfg(test)]
mod tests;
