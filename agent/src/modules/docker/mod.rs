//! Modules for the Docker Engine.

use super::module::ModuleSpec;

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    Vec::new()
}
