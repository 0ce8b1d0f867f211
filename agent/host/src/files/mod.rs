//! Files and directories: durable writes, attributes, walks, copies of trees, mounts.

pub mod attributes;
pub mod blocking;
pub mod converge;
pub mod digest;
pub mod durable;
pub mod error;
pub mod filesystem;
pub mod in_use;
pub mod mode;
pub mod mounts;
pub mod quarantine;
pub mod remove;
pub mod tree_copy;
pub mod tree_resume;
pub mod tree_verify;
pub mod walk;
pub mod whole;
