//! Modules for files and directories, and the durable building blocks that others may use.

mod attributes;
mod blocking;
pub mod durable;
mod error;
mod file;
mod mounts;
mod remove;
mod result;

pub use attributes::{Mode, show_mode};
pub use error::{FilesError, human_bytes};

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![spec_of::<file::FileModule>()]
}
