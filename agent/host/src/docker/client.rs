//! The connection to the Docker Engine: one a run, made by the first task that needs it.

use std::path::Path;
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::{API_DEFAULT_VERSION, Docker};

use super::error::DockerError;
use crate::context::HostContext;

const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";
/// For requests that answer at once. Long ones (stopping a database) set their own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Returns the connection, with the API version negotiated (1.41 on Docker 20.10).
///
/// The address is `DOCKER_HOST` from the task's environment or the process's, else the default
/// socket.
///
/// # Errors
/// The daemon is not there, does not answer, or may not be asked by this user.
pub async fn connect(ctx: &HostContext) -> Result<Docker, DockerError> {
    let docker = ctx.docker.get_or_try_init(|| open(ctx)).await?;
    Ok(docker.clone())
}

async fn open(ctx: &HostContext) -> Result<Docker, DockerError> {
    at(ctx.environment.get("DOCKER_HOST").cloned()).await
}

/// Connects to the daemon at an address, else to that of the process's own environment, without a task.
///
/// # Errors
/// As [`connect`].
pub async fn at(address: Option<String>) -> Result<Docker, DockerError> {
    let address = address
        .or_else(|| std::env::var("DOCKER_HOST").ok())
        .filter(|address| !address.is_empty())
        .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
    let docker = if let Some(path) = address.strip_prefix("unix://") {
        let path = Path::new(path);
        if !path.exists() {
            return Err(DockerError::SocketMissing {
                path: path.to_path_buf(),
            });
        }
        Docker::connect_with_unix(&address, REQUEST_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
    } else if address.starts_with("tcp://") || address.starts_with("http://") {
        Docker::connect_with_http(&address, REQUEST_TIMEOUT.as_secs(), API_DEFAULT_VERSION)
    } else {
        return Err(DockerError::BadAddress { address });
    };
    let refused = |source: ApiError| explain(&address, source);
    // `negotiate_version` keeps the default version when the daemon does not answer usefully, so the
    // first real request is what proves the connection.
    let docker = docker
        .map_err(refused)?
        .negotiate_version()
        .await
        .map_err(refused)?;
    docker.ping().await.map_err(refused)?;
    Ok(docker)
}

fn explain(address: &str, source: ApiError) -> DockerError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            let path = address.strip_prefix("unix://").unwrap_or(address).into();
            return DockerError::SocketForbidden { path };
        }
        cause = error.source();
    }
    DockerError::NotAnswering {
        address: address.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ModuleFailure;

    async fn refused(address: &str) -> DockerError {
        let mut ctx = HostContext::for_tests(Path::new("/"));
        ctx.environment.insert("DOCKER_HOST".into(), address.into());
        connect(&ctx).await.expect_err("nobody listens there")
    }

    #[tokio::test]
    async fn a_missing_daemon_is_said_with_what_to_do() {
        let error = refused("unix:///nowhere/docker.sock").await;
        assert_eq!(error.code(), "docker::no_socket");
        assert!(
            error
                .help()
                .is_some_and(|help| help.contains("systemctl start docker"))
        );
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("dead.sock");
        // A socket file whose owner is gone.
        drop(std::os::unix::net::UnixListener::bind(&socket).expect("bind"));
        let error = refused(&format!("unix://{}", socket.display())).await;
        assert_eq!(error.code(), "docker::not_answering");
        assert_eq!(refused("ssh://host").await.code(), "docker::bad_address");
    }
}
