//! Modules for PostgreSQL servers.

mod anticipate;
mod checksum;
pub mod cluster;
pub mod connect;
mod copy_binary;
mod data_dir;
mod database;
mod difference;
mod differing_rows;
mod dump;
mod dump_ahead;
mod dump_growth;
mod dump_lexer;
mod dump_pipe;
mod dump_reader;
mod dump_sink;
mod dump_source;
mod dump_statement;
mod dump_text;
pub mod error;
pub(crate) mod files;
mod history;
pub mod holders;
mod info;
mod initdb;
mod initdb_error;
#[cfg(test)]
mod initdb_live_tests;
mod initdb_place;
mod initdb_server;
mod json;
mod key_ranges;
#[cfg(test)]
mod live_ahead_tests;
#[cfg(test)]
mod live_content_tests;
#[cfg(test)]
mod live_cut_tests;
#[cfg(test)]
mod live_damage_tests;
#[cfg(test)]
mod live_kill_tests;
#[cfg(test)]
mod live_restore_tests;
#[cfg(test)]
mod live_rig;
#[cfg(test)]
mod live_tests;
mod paths;
mod ping;
mod query;
mod restore;
mod restore_dispatch;
mod restore_fill;
mod restore_make;
mod restore_parallel;
mod restore_parts;
mod restore_pool;
mod restore_psql;
mod restore_session;
mod restore_target;
mod schema_history;
mod schema_version;
mod script;
mod sessions;
mod snapshot;
mod snapshot_catalog;
pub mod snapshot_model;
mod snapshot_read;
pub mod sql_split;
mod verify;
mod verify_compare;

pub use data_dir::PostgresqlDataDirectory;
pub use difference::PostgresqlDifference;
pub use dump::PostgresqlDump;
pub use error::{PostgresError, SqlError};
pub use initdb::PostgresqlInitdb;
pub use paths::PostgresqlPaths;
pub use ping::PostgresqlPing;
pub use query::{PostgresqlQuery, PostgresqlSelect};
pub use restore::PostgresqlRestore;
pub use schema_history::PostgresqlSchemaHistory;
pub use schema_version::PostgresqlSchemaVersion;
pub use script::PostgresqlScript;
pub use snapshot::PostgresqlSnapshot;
pub use verify::PostgresqlVerify;

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<PostgresqlDataDirectory>(),
        spec_of::<database::PostgresqlDb>(),
        spec_of::<PostgresqlDifference>(),
        spec_of::<PostgresqlDump>(),
        spec_of::<info::PostgresqlInfo>(),
        spec_of::<PostgresqlInitdb>(),
        spec_of::<PostgresqlPaths>(),
        spec_of::<PostgresqlPing>(),
        spec_of::<PostgresqlQuery>(),
        spec_of::<PostgresqlSelect>(),
        spec_of::<PostgresqlRestore>(),
        spec_of::<PostgresqlSchemaHistory>(),
        spec_of::<PostgresqlSchemaVersion>(),
        spec_of::<PostgresqlScript>(),
        spec_of::<PostgresqlSnapshot>(),
        spec_of::<PostgresqlVerify>(),
    ]
}
