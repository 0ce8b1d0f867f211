//! The one list of modules: dispatch, validation and the reference pages all read it.

use std::sync::LazyLock;

use super::module::ModuleSpec;
use super::{control, docker, files, kubernetes, ldap, postgres, system, web};

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
