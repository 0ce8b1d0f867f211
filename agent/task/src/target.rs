//! The container that a task works in.

use crate::context::TaskContext;
use crate::host::docker::error::DockerError;

/// Returns the container that is meant: the one named, or that of a service.
///
/// # Errors
/// Neither is given, and no enclosing block has such a service.
pub fn target(
    ctx: &TaskContext,
    container: Option<&str>,
    service: Option<&str>,
) -> Result<String, DockerError> {
    if let Some(container) = container.filter(|name| !name.is_empty()) {
        return Ok(container.to_owned());
    }
    ctx.service(service)
        .map(|service| service.container_id.clone())
        .ok_or_else(|| DockerError::Argument {
            argument: "container",
            message: match service {
                Some(name) => format!("no enclosing block has a service `{name}`"),
                None => "is required where no enclosing block has `services`".into(),
            },
        })
}
