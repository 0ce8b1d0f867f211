//! Modules for LDAP directories.

mod apply;
mod attrs;
mod data_dir;
mod definition;
mod directory;
mod dn;
mod effect;
mod entry;
pub mod error;
mod export;
pub mod ldif;
mod ldif_lines;
mod ldif_write;
#[cfg(test)]
mod live_ldif_tests;
#[cfg(test)]
mod live_rig;
#[cfg(test)]
mod live_tests;
pub mod login;
mod script;
mod search;
mod substitute;
mod values;
mod verify;
mod wants;

pub use apply::LdifApply;
pub use attrs::LdapAttrs;
pub use data_dir::LdapDataDirectory;
pub use entry::LdapEntry;
pub use error::LdapError;
pub use export::LdapExport;
pub use search::LdapSearch;
pub use verify::LdifVerify;

use crate::task::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<LdapAttrs>(),
        spec_of::<LdapDataDirectory>(),
        spec_of::<LdapEntry>(),
        spec_of::<LdapExport>(),
        spec_of::<LdapSearch>(),
        spec_of::<LdifApply>(),
        spec_of::<LdifVerify>(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_module_is_described_and_its_example_builds() {
        crate::described::assert_well_described(&super::modules());
    }
}
