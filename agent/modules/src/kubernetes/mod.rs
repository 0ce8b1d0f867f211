//! Modules for Kubernetes, shaped as Ansible's `kubernetes.core`.

mod copy;
mod copy_into;
mod info;
mod pod_exec;
mod restart;
mod rollout;

pub use copy::K8sCp;
pub use info::K8sInfo;
pub use pod_exec::K8sExec;
pub use rollout::K8sRollout;

use crate::task::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<K8sCp>(),
        spec_of::<K8sExec>(),
        spec_of::<K8sInfo>(),
        spec_of::<K8sRollout>(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_module_is_described_and_its_example_builds() {
        crate::described::assert_well_described(&super::modules());
    }
}
