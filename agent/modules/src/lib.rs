//! What tasks can do: one file a module or close family, and the list of them all.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

use kaapana_host as host;
use kaapana_host::{python_json, python_regex, redact};
use kaapana_postgres as postgres;
use kaapana_task as task;

pub mod control;
#[cfg(test)]
pub(crate) mod described;
pub mod docker;
pub mod files;
pub mod kubernetes;
pub mod ldap;
pub mod registry;
pub mod system;
pub mod web;
