//! Modules for the run itself and commands: command, shell, assert, debug, pause ….

mod capture;
mod command;
mod error;
mod glob;
mod process;
pub mod words;

pub use error::ControlError;

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<command::CommandModule>(),
        spec_of::<command::ShellModule>(),
    ]
}
