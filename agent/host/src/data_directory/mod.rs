//! What servers' data directories say of themselves.

pub mod mdb;
pub mod postgresql;
