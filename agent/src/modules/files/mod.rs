//! Modules for files and directories.

use super::module::ModuleSpec;

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    Vec::new()
}
