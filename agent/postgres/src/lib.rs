//! Modules for PostgreSQL servers.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

use kaapana_host as host;
use kaapana_host::redact;
use kaapana_task as task;

mod dump;
pub mod error;
pub(crate) mod format;
mod initdb;
#[cfg(test)]
mod live_rig;
#[cfg(test)]
mod live_tests;
mod restore;
pub(crate) mod scripts;
pub(crate) mod server;
mod snapshot;

use crate::task::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<server::data_directory::PostgresqlDataDirectory>(),
        spec_of::<server::database::PostgresqlDb>(),
        spec_of::<snapshot::difference::PostgresqlDifference>(),
        spec_of::<dump::PostgresqlDump>(),
        spec_of::<server::info::PostgresqlInfo>(),
        spec_of::<initdb::PostgresqlInitdb>(),
        spec_of::<server::paths::PostgresqlPaths>(),
        spec_of::<server::ping::PostgresqlPing>(),
        spec_of::<server::query::PostgresqlQuery>(),
        spec_of::<server::query::PostgresqlSelect>(),
        spec_of::<restore::PostgresqlRestore>(),
        spec_of::<scripts::schema_history::PostgresqlSchemaHistory>(),
        spec_of::<scripts::schema_version::PostgresqlSchemaVersion>(),
        spec_of::<scripts::script::PostgresqlScript>(),
        spec_of::<snapshot::PostgresqlSnapshot>(),
        spec_of::<snapshot::verify::PostgresqlVerify>(),
    ]
}

/// Finds a module of this family, for its tests.
#[cfg(test)]
mod registry {
    use crate::task::module::ModuleSpec;

    pub(crate) fn find(name: &str) -> Option<ModuleSpec> {
        super::modules().into_iter().find(|spec| spec.name == name)
    }
}
