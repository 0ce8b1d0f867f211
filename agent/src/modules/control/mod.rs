//! Modules for the run itself and commands: command, shell, assert, debug, pause ….

mod capture;
mod command;
mod error;
mod git;
pub(crate) mod glob;
mod include_vars;
mod pause;
mod privileges;
pub(crate) mod process;
mod script;
mod simple;
mod small;
mod wait_for;
pub mod words;

pub use command::{needless, stdin_text};
pub use error::ControlError;
pub use pause::ask;

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<command::CommandModule>(),
        spec_of::<command::ShellModule>(),
        spec_of::<git::GitModule>(),
        spec_of::<include_vars::IncludeVarsModule>(),
        spec_of::<pause::PauseModule>(),
        spec_of::<privileges::PrivilegesModule>(),
        spec_of::<script::ScriptModule>(),
        spec_of::<simple::AssertModule>(),
        spec_of::<simple::DebugModule>(),
        spec_of::<simple::FailModule>(),
        spec_of::<simple::SetFactModule>(),
        spec_of::<small::MetaModule>(),
        spec_of::<small::PingModule>(),
        spec_of::<wait_for::WaitForModule>(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples_build_and_arguments_are_described() {
        crate::modules::files::assert_well_described(&super::modules());
    }
}
