//! Scripts that are applied once, and the history that proves it.

pub(crate) mod history;
pub(crate) mod schema_history;
pub(crate) mod schema_version;
pub(crate) mod script;
