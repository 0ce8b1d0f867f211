//! Modules for the run itself and commands: command, shell, assert, debug, pause ….

pub mod words;

use super::module::ModuleSpec;

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    Vec::new()
}
