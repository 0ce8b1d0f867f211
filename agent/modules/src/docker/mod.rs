//! Modules for the Docker Engine, and the containers of services.

mod compare;
mod container;
mod container_exec;
mod container_info;
mod copy_from;
mod image;
mod image_info;
#[cfg(test)]
mod live_tests;
mod network;
mod volume;
#[cfg(test)]
mod watch_live_tests;

use crate::task::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<container::DockerContainerModule>(),
        spec_of::<container_exec::DockerContainerExec>(),
        spec_of::<copy_from::DockerContainerCopyFrom>(),
        spec_of::<container_info::DockerContainerInfo>(),
        spec_of::<image::DockerImage>(),
        spec_of::<image_info::DockerImageInfo>(),
        spec_of::<network::DockerNetwork>(),
        spec_of::<volume::DockerVolume>(),
    ]
}
