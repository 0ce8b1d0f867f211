//! Modules for files and directories, and the durable building blocks that others may use.

mod attributes;
mod blocking;
mod copy;
mod copy_dir;
pub mod durable;
mod error;
mod file;
mod mounts;
mod relocate;
mod remove;
mod result;
mod sizes;
mod stat;
mod tree_copy;
mod users;
mod walk;

pub use attributes::{Mode, show_mode};
pub use error::{FilesError, human_bytes};

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<copy::CopyModule>(),
        spec_of::<file::FileModule>(),
        spec_of::<relocate::MoveModule>(),
        spec_of::<sizes::DirectorySizeModule>(),
        spec_of::<sizes::DiskSpaceModule>(),
        spec_of::<stat::StatModule>(),
    ]
}
