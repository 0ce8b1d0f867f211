//! Modules for Kubernetes, shaped as Ansible's `kubernetes.core`.

mod access;
pub mod bridge;
#[cfg(feature = "kubernetes")]
pub mod client;
#[cfg(not(feature = "kubernetes"))]
#[path = "client_absent.rs"]
pub mod client;
mod connect;
mod copy;
mod copy_into;
pub mod error;
pub mod exec;
mod info;
mod kind;
mod pod_exec;
pub mod pods;
mod restart;
mod rollout;

pub use access::{Access, ClusterEnvironment, Source};
pub use copy::K8sCp;
pub use error::KubernetesError;
pub use info::K8sInfo;
pub use pod_exec::K8sExec;
pub use rollout::K8sRollout;

use super::module::{ModuleSpec, spec_of};

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
        crate::modules::files::assert_well_described(&super::modules());
    }
}
