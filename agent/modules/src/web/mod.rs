//! Modules that speak HTTP, and the client that they share.

mod uri;

use crate::task::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![spec_of::<uri::UriModule>()]
}

#[cfg(test)]
mod tests {
    #[test]
    fn examples_build_and_arguments_are_described() {
        crate::described::assert_well_described(&super::modules());
    }
}
