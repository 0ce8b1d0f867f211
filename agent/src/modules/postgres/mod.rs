//! Modules for PostgreSQL servers.

pub mod connect;
pub mod error;
pub mod holders;
mod json;
mod ping;
mod query;
pub mod sql_split;

pub use error::{PostgresError, SqlError};
pub use ping::PostgresqlPing;
pub use query::{PostgresqlQuery, PostgresqlSelect};

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<PostgresqlPing>(),
        spec_of::<PostgresqlQuery>(),
        spec_of::<PostgresqlSelect>(),
    ]
}
