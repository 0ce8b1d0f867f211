//! Modules for the run itself and commands: command, shell, assert, debug, pause ….

mod assert_and_facts;
mod command;
mod git;
mod include_vars;
mod pause;
mod ping_and_meta;
mod privileges;
mod script;
mod wait_for;

use crate::task::module::{ModuleSpec, spec_of};

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
        spec_of::<assert_and_facts::AssertModule>(),
        spec_of::<assert_and_facts::DebugModule>(),
        spec_of::<assert_and_facts::FailModule>(),
        spec_of::<assert_and_facts::SetFactModule>(),
        spec_of::<ping_and_meta::MetaModule>(),
        spec_of::<ping_and_meta::PingModule>(),
        spec_of::<wait_for::WaitForModule>(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples_build_and_arguments_are_described() {
        crate::described::assert_well_described(&super::modules());
    }
}
