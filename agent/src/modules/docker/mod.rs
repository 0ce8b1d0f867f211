//! Modules for the Docker Engine, and the containers of services.

pub(crate) mod arguments;
pub mod client;
mod compare;
mod container;
mod container_exec;
mod container_info;
pub(in crate::modules) mod copy_from;
pub mod error;
pub mod exec;
mod image;
mod image_info;
pub(crate) mod lifecycle;
#[cfg(test)]
mod live_tests;
mod main_process;
mod network;
pub mod served;
pub mod service;
mod spec;
mod volume;
pub mod watch;
#[cfg(test)]
mod watch_live_tests;

pub use container_exec::DockerContainerExec;
pub(crate) use container_exec::target;
pub use copy_from::DockerContainerCopyFrom;
pub use error::DockerError;
pub use image::DockerImage;
pub use spec::DockerContainer;

use super::module::{ModuleSpec, spec_of};

/// Returns this family's modules.
#[must_use]
pub fn modules() -> Vec<ModuleSpec> {
    vec![
        spec_of::<DockerContainer>(),
        spec_of::<DockerContainerExec>(),
        spec_of::<DockerContainerCopyFrom>(),
        spec_of::<container_info::DockerContainerInfo>(),
        spec_of::<DockerImage>(),
        spec_of::<image_info::DockerImageInfo>(),
        spec_of::<network::DockerNetwork>(),
        spec_of::<volume::DockerVolume>(),
    ]
}
