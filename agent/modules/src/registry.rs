//! The one list of modules: dispatch, validation and the reference pages all read it.

use std::sync::LazyLock;

use super::{control, docker, files, kubernetes, ldap, postgres, system, web};
use crate::task::module::ModuleSpec;

static MODULES: LazyLock<Vec<ModuleSpec>> = LazyLock::new(|| {
    let mut modules = [
        control::modules(),
        docker::modules(),
        files::modules(),
        kubernetes::modules(),
        ldap::modules(),
        postgres::modules(),
        system::modules(),
        web::modules(),
    ]
    .concat();
    modules.sort_by_key(|module| module.name);
    modules
});

/// Returns all modules, by name.
#[must_use]
pub fn all() -> &'static [ModuleSpec] {
    &MODULES
}

/// Finds a module by its short or a fully-qualified name.
#[must_use]
pub fn find(name: &str) -> Option<&'static ModuleSpec> {
    MODULES
        .iter()
        .find(|module| module.name == name || module.aliases.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::module::Kind;

    #[test]
    fn every_module_says_what_becomes_of_an_interrupted_attempt_and_what_check_mode_does() {
        let readme = include_str!("../../../playbooks/README.md");
        for module in all() {
            let row = readme
                .lines()
                .find(|line| line.starts_with(&format!("| [`{}`]", module.name)))
                .unwrap_or_else(|| panic!("`{}` has no row in playbooks/README.md", module.name));
            assert!(
                row.ends_with(&format!("| {} |", module.after_interruption)),
                "playbooks/README.md says otherwise: {row}"
            );
            if module.kind == Kind::ReadOnly {
                assert_eq!(module.check_mode, "really looks", "{}", module.name);
            }
        }
    }
}
