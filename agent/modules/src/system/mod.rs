//! Modules for the host as a whole: facts, users, packages, services.

mod apt;
mod dnf;
mod facts;
mod getent;
mod group;
mod program;
mod setup;
mod systemd;
mod user;

use crate::task::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<apt::AptModule>(),
        spec_of::<dnf::DnfModule>(),
        spec_of::<getent::GetentModule>(),
        spec_of::<group::GroupModule>(),
        spec_of::<setup::SetupModule>(),
        spec_of::<systemd::SystemdServiceModule>(),
        spec_of::<user::UserModule>(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples_build_and_arguments_are_described() {
        crate::described::assert_well_described(&super::modules());
    }
}
