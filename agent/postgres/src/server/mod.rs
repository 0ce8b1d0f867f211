//! Sessions with a server, and modules that ask or set up one.

pub(crate) mod connect;
pub(crate) mod data_directory;
pub(crate) mod database;
pub(crate) mod info;
pub(crate) mod json;
pub(crate) mod paths;
pub(crate) mod ping;
pub(crate) mod query;
pub(crate) mod sessions;
