//! Looking at containers, making, starting, stopping and removing them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ImageInspect};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, LogsOptions,
    RemoveContainerOptions, StartContainerOptions,
};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::error::DockerError;
use super::main_process::MainProcess;

/// How long a container may take to stop unless its arguments say otherwise. A database flushes all
/// of its memory to disk first.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a database that is being initialised may take before it is stopped in the middle.
const INIT_PATIENCE: Duration = Duration::from_secs(90);
/// How long until a first process that cannot be seen from here, so that nobody knows whether it heard
/// its signal, is sent it again.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a shell may take to end by itself before its children are told.
const SHELL_PATIENCE: Duration = Duration::from_secs(10);

/// Returns what Docker knows of a container, or nothing when there is none.
///
/// # Errors
/// Docker refuses or does not answer.
pub async fn inspect(
    docker: &Docker,
    name: &str,
) -> Result<Option<ContainerInspectResponse>, DockerError> {
    let answer = docker
        .inspect_container(name, None::<InspectContainerOptions>)
        .await;
    DockerError::or_absent(answer, format!("inspect container {name}"))
}

/// Returns the id of an image that is on this host.
///
/// # Errors
/// It is not, or Docker does not answer.
pub async fn image_id(docker: &Docker, image: &str) -> Result<String, DockerError> {
    Ok(self::image(docker, image).await?.id.unwrap_or_default())
}

/// Returns what Docker knows of an image that is on this host.
///
/// # Errors
/// It is not, or Docker does not answer.
pub async fn image(docker: &Docker, image: &str) -> Result<ImageInspect, DockerError> {
    let answer = docker.inspect_image(image).await;
    let found = DockerError::or_absent(answer, format!("inspect image {image}"))?;
    found.ok_or_else(|| DockerError::NoImage {
        image: image.to_owned(),
        tried: String::new(),
    })
}

/// Tells whether the container runs.
#[must_use]
pub fn is_running(found: &ContainerInspectResponse) -> bool {
    found
        .state
        .as_ref()
        .and_then(|state| state.running)
        .unwrap_or(false)
}

/// Makes a container and returns its id.
///
/// # Errors
/// Docker refuses: no such image, name taken, source missing.
pub async fn create(
    docker: &Docker,
    name: Option<&str>,
    body: ContainerCreateBody,
) -> Result<String, DockerError> {
    let image = body.image.clone().unwrap_or_default();
    let options = CreateContainerOptions {
        name: name.map(str::to_owned),
        platform: String::new(),
    };
    let created = docker.create_container(Some(options), body).await;
    let action = format!("create container {}", name.unwrap_or(&image));
    match created.map_err(DockerError::api(action)) {
        Ok(created) => Ok(created.id),
        Err(error) if error.is_not_found() => Err(DockerError::NoImage {
            image,
            tried: String::new(),
        }),
        Err(DockerError::Api {
            status: Some(400),
            message,
            ..
        }) if message.contains("bind source path does not exist") => {
            let path = message.rsplit(": ").next().unwrap_or_default();
            Err(DockerError::BindSourceMissing {
                path: PathBuf::from(path),
                target: "?".into(),
            })
        }
        Err(error) => Err(error),
    }
}

/// Starts a container.
///
/// # Errors
/// Docker refuses.
pub async fn start(docker: &Docker, name: &str) -> Result<(), DockerError> {
    docker
        .start_container(name, None::<StartContainerOptions>)
        .await
        .map_err(DockerError::api(format!("start container {name}")))
}

/// Removes a container that does not run. One that is already gone is fine.
///
/// # Errors
/// Docker refuses.
pub async fn remove(docker: &Docker, name: &str) -> Result<(), DockerError> {
    remove_with(docker, name, false).await
}

/// Kills and removes a container whose data is thrown away. One that is already gone is fine.
///
/// # Errors
/// Docker refuses or does not answer.
pub async fn discard(docker: &Docker, name: &str) -> Result<(), DockerError> {
    remove_with(docker, name, true).await
}

async fn remove_with(docker: &Docker, name: &str, force: bool) -> Result<(), DockerError> {
    // Anonymous volumes (the image's VOLUME that nothing was mounted over) go with it.
    let options = RemoveContainerOptions {
        v: true,
        force,
        link: false,
    };
    let removed = docker.remove_container(name, Some(options)).await;
    match removed.map_err(DockerError::api(format!("remove container {name}"))) {
        Err(DockerError::Api {
            status: Some(404), ..
        }) => Ok(()),
        // `auto_remove`, or somebody else, is at it.
        Err(DockerError::Api {
            status: Some(409),
            message,
            ..
        }) if message.contains("already in progress") => wait_gone(docker, name).await,
        other => other,
    }
}

async fn wait_gone(docker: &Docker, name: &str) -> Result<(), DockerError> {
    for _ in 0..300 {
        if inspect(docker, name).await?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(DockerError::Api {
        action: format!("remove container {name}"),
        message: "it is still being removed after 30 s".into(),
        status: None,
    })
}

/// Stops a container with its own stop signal and waits until it has ended; it is never killed.
/// Returns whether it was running.
///
/// # Errors
/// It did not end in time (it is left as it is), or Docker does not answer.
pub async fn stop(docker: &Docker, name: &str, timeout: Duration) -> Result<bool, DockerError> {
    let Some(found) = inspect(docker, name).await? else {
        return Ok(false);
    };
    if !is_running(&found) {
        return Ok(false);
    }
    let config = found.config.as_ref();
    let signal = config.and_then(|config| config.stop_signal.clone());
    let signal = signal
        .filter(|signal| !signal.is_empty())
        .unwrap_or_else(|| "SIGTERM".to_owned());
    if found.state.as_ref().and_then(|state| state.paused) == Some(true) {
        // A frozen process hears no signal.
        docker
            .unpause_container(name)
            .await
            .map_err(DockerError::api(format!("unpause container {name}")))?;
    }
    let deadline = Instant::now() + timeout;
    let settle_until = deadline.min(Instant::now() + INIT_PATIENCE);
    let mut told: Option<PortsTold> = None;
    let mut pause = Duration::from_millis(5);
    loop {
        let found = match inspect(docker, name).await? {
            Some(found) if is_running(&found) => found,
            _ => return Ok(true),
        };
        let main = MainProcess::of(&found);
        let watch = main.as_ref().is_some_and(MainProcess::is_watch);
        let initialising = !watch && main.as_ref().is_some_and(MainProcess::is_entry_point);
        let now = PortsTold::now(main.as_ref(), &signal);
        match &told {
            // Left alone until it is through: what it has half made looks finished the next time.
            None if initialising && Instant::now() < settle_until => {}
            Some(before) if before.need_not_be_repeated(&now) => {}
            _ => {
                send(docker, name, &signal).await?;
                told = Some(now);
            }
        }
        if let (Some(told), Some(main)) = (&mut told, &main)
            && main.is_shell()
            && !watch
            && told.when.elapsed() > SHELL_PATIENCE
        {
            main.signal_children(&signal);
            *told = PortsTold::now(Some(main), &signal);
        }
        if Instant::now() >= deadline {
            return Err(DockerError::StopTimeout {
                name: name.to_owned(),
                seconds: timeout.as_secs(),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Whom a signal was sent to, as far as that can be seen from here.
struct PortsTold {
    program: String,
    /// It had a handler for the signal before it was sent.
    heard: bool,
    when: Instant,
}

impl PortsTold {
    fn now(main: Option<&MainProcess>, signal: &str) -> Self {
        Self {
            program: main.map(|main| main.program.clone()).unwrap_or_default(),
            heard: main.is_some_and(|main| main.hears(signal)),
            when: Instant::now(),
        }
    }

    /// Once is enough, unless another program has taken its place and knows nothing of it, or it was
    /// too young to hear.
    fn need_not_be_repeated(&self, now: &Self) -> bool {
        let unseen = now.program.is_empty();
        self.program == now.program
            && (self.heard || !now.heard)
            && !(unseen && now.when.duration_since(self.when) > UNSEEN_PATIENCE)
    }
}

async fn send(docker: &Docker, name: &str, signal: &str) -> Result<(), DockerError> {
    let options = KillContainerOptions {
        signal: signal.to_owned(),
    };
    let sent = docker.kill_container(name, Some(options)).await;
    match sent.map_err(DockerError::api(format!("stop container {name}"))) {
        // It ended by itself in the meantime.
        Err(DockerError::Api {
            status: Some(404 | 409),
            ..
        }) => Ok(()),
        other => other,
    }
}

/// Returns where the container's ports are published, by container port. Of several addresses the
/// loopback one wins.
#[must_use]
pub fn ports(found: &ContainerInspectResponse) -> BTreeMap<String, SocketAddr> {
    let mut map = BTreeMap::new();
    let published = found
        .network_settings
        .as_ref()
        .and_then(|settings| settings.ports.clone());
    for (port, bindings) in published.unwrap_or_default() {
        let mut addresses: Vec<SocketAddr> = bindings
            .unwrap_or_default()
            .into_iter()
            .filter_map(|binding| {
                let ip = binding.host_ip?.parse().ok()?;
                Some(SocketAddr::new(ip, binding.host_port?.parse().ok()?))
            })
            .collect();
        addresses.sort_by_key(|address| (!address.ip().is_loopback(), address.is_ipv6()));
        if let Some(address) = addresses.first() {
            map.insert(port, *address);
        }
    }
    map
}

/// A container's own address in one of its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    /// Where it listens.
    pub address: SocketAddr,
    /// The network's gateway: the daemon's host, in a network that bridges.
    pub gateway: Option<IpAddr>,
}

/// Returns the container's own address in one of its networks, with this port: `5432/tcp`.
#[must_use]
pub fn own_address(found: &ContainerInspectResponse, port: &str) -> Option<OwnAddress> {
    let number = port.split('/').next()?.parse().ok()?;
    let networks = found.network_settings.as_ref()?.networks.as_ref()?;
    let mut addresses = networks.values().filter_map(|network| {
        let ip = network.ip_address.as_ref()?.parse().ok()?;
        let gateway = network.gateway.as_ref().and_then(|ip| ip.parse().ok());
        Some(OwnAddress {
            address: SocketAddr::new(ip, number),
            gateway,
        })
    });
    addresses.next()
}

/// Returns the last lines of a container's log.
pub async fn log_tail(docker: &Docker, name: &str, lines: usize) -> Vec<String> {
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        tail: lines.to_string(),
        ..LogsOptions::default()
    };
    let mut stream = Box::pin(docker.logs(name, Some(options)));
    let mut bytes = Vec::new();
    while let Some(Ok(item)) = stream.next().await {
        if let LogOutput::StdOut { message }
        | LogOutput::StdErr { message }
        | LogOutput::Console { message } = item
        {
            bytes.extend_from_slice(&message);
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    all[all.len().saturating_sub(lines)..]
        .iter()
        .map(|line| (*line).to_owned())
        .collect()
}
