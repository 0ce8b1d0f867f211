//! Containers that a block needs while its steps run. The engine starts and stops them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::ListContainersOptions;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::arguments::MountPlan;
use super::error::DockerError;
use super::lifecycle;
use super::spec::DockerContainer;
use super::{served, watch};
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::holders;

const STATE: &str = "io.kaapana.agent.state";
const PLAYBOOK: &str = "io.kaapana.agent.playbook";
const SERVICE: &str = "io.kaapana.agent.service";
const RUN: &str = "io.kaapana.agent.run";
/// How long a kernel-picked port may take to show up in `inspect`.
const PORT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a container of this host may take to answer, at least to refuse.
const PROBE: Duration = Duration::from_millis(300);

/// A running service of the task's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHandle {
    /// Name in the playbook.
    pub name: String,
    /// Docker's id of the container.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// Published port of the container (`5432/tcp`) -> where it is reached.
    pub ports: BTreeMap<String, SocketAddr>,
    /// Environment of the container, for default credentials.
    pub env: BTreeMap<String, String>,
}

/// Whose service it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceIdentity {
    /// Unique id of the state directory: two playbooks with a service of one name do not meet.
    pub state_id: String,
    /// Playbook's name.
    pub playbook: String,
    /// Service's name in the playbook.
    pub service: String,
    /// The run that starts it.
    pub run: String,
}

impl ServiceIdentity {
    /// Returns the container's name.
    #[must_use]
    pub fn container_name(&self) -> String {
        let safe = |text: &str| -> String {
            let keep = |c: char| {
                if c.is_ascii_alphanumeric() || "_.-".contains(c) {
                    c
                } else {
                    '-'
                }
            };
            text.chars().map(keep).collect()
        };
        let state: String = self.state_id.chars().take(8).collect();
        format!("kaapana-agent-{}-{}", safe(&self.service), safe(&state))
    }
}

/// What a service's container is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// It runs.
    Running,
    /// It ended, or is gone.
    Exited {
        /// Exit code; -1 when the container is gone.
        code: i64,
        /// Last lines of its log.
        log: Vec<String>,
    },
}

/// Starts a service's container and returns its handle as soon as it runs; the caller waits until it
/// is ready. A left-over of the same service is stopped gracefully and removed first, which also ends
/// any command that still runs in it.
///
/// # Errors
/// The name is taken by a foreign container, a mounted directory is missing or in use, the image is
/// missing, or Docker refuses. Nothing of ours is left behind then.
pub async fn start(
    ctx: &HostContext,
    identity: &ServiceIdentity,
    container: &DockerContainer,
) -> Result<ServiceHandle, ModuleError> {
    let docker = super::client::connect(ctx).await?;
    let name = container
        .name
        .clone()
        .unwrap_or_else(|| identity.container_name());
    clear(ctx, &docker, identity, &name, container.stop_patience()).await?;
    let image = lifecycle::image(&docker, container.image()?).await?;
    let labels: BTreeMap<String, String> = [
        (STATE, &identity.state_id),
        (PLAYBOOK, &identity.playbook),
        (SERVICE, &identity.service),
        (RUN, &identity.run),
    ]
    .map(|(label, value)| (label.to_owned(), value.clone()))
    .into();
    let mut container = container.clone();
    // The agent removes it itself, after it has read why it ended.
    container.auto_remove = false;
    let body = container.create_body(ctx, &labels)?;
    let mounts = container.mount_plans(ctx)?;
    refuse_held(ctx, &mounts).await?;
    let must_watch = !served::look(ctx, &container).await?.directories.is_empty();
    let mut watched = body.clone();
    let wrapped = match &ctx.watch {
        Some(watch) => {
            let image = image.config.unwrap_or_default();
            watch::wrap(&mut watched, &image, watch.hold()?, must_watch)
        }
        None => false,
    };
    let id = lifecycle::create(&docker, Some(&name), watched).await?;
    let brought_up = bring_up(&docker, identity, &container, &id, &name).await;
    match brought_up {
        Ok(handle) => Ok(handle),
        Err(error) if wrapped && watch::has_no_shell(&error) => {
            lifecycle::remove(&docker, &id).await?;
            let why = "there is no shell in it".to_owned();
            if must_watch {
                let image = container.image()?.to_owned();
                return Err(DockerError::CannotWatch { image, why }.into());
            }
            ctx.progress.line(format!(
                "nothing watches over service `{}`: {why}",
                identity.service
            ));
            let id = lifecycle::create(&docker, Some(&name), body).await?;
            let brought_up = bring_up(&docker, identity, &container, &id, &name).await;
            give_up(&docker, &container, &id, brought_up).await
        }
        failed => give_up(&docker, &container, &id, failed).await,
    }
}

/// Leaves nothing of a container that could not be brought up.
async fn give_up(
    docker: &Docker,
    container: &DockerContainer,
    id: &str,
    brought_up: Result<ServiceHandle, DockerError>,
) -> Result<ServiceHandle, ModuleError> {
    if brought_up.is_err() {
        let stopped = lifecycle::stop(docker, id, container.stop_patience()).await;
        if stopped.is_ok() {
            lifecycle::remove(docker, id).await?;
        }
    }
    brought_up.map_err(Into::into)
}

/// Tells whether a mount is a server's data directory that it may write to.
fn holds_data(mount: &MountPlan) -> bool {
    matches!(mount, MountPlan::Bind { source, read_only: false, .. }
        if ["PG_VERSION", "data.mdb", "cn=config.ldif"]
            .iter()
            .any(|file| source.join(file).exists()))
}

async fn bring_up(
    docker: &Docker,
    identity: &ServiceIdentity,
    container: &DockerContainer,
    id: &str,
    name: &str,
) -> Result<ServiceHandle, DockerError> {
    lifecycle::start(docker, id).await?;
    let wanted = container.port_plans()?.len();
    let deadline = Instant::now() + PORT_DEADLINE;
    let ports = loop {
        let found = lifecycle::inspect(docker, id).await?;
        let found = found.ok_or_else(|| DockerError::NoContainer {
            name: name.to_owned(),
        })?;
        if !lifecycle::is_running(&found) {
            let code = found.state.and_then(|state| state.exit_code).unwrap_or(-1);
            let log = lifecycle::log_tail(docker, id, 5).await;
            if let Some(refused) = watch::refusal(container.image()?, code, &log) {
                return Err(refused);
            }
            return Err(DockerError::Died {
                name: name.to_owned(),
                code,
                log: log.join(" | "),
            });
        }
        let ports = lifecycle::ports(&found);
        if ports.len() >= wanted || Instant::now() >= deadline {
            break reachable(ports, &found).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    Ok(ServiceHandle {
        name: identity.service.clone(),
        container_id: id.to_owned(),
        container_name: name.to_owned(),
        ports,
        env: container.env.clone(),
    })
}

/// Where the containers' network begins on this very host, a container is reached at its own address: no
/// proxy of Docker's copies every byte. So it is, too, where the agent runs in a container beside the daemon's
/// and the loopback address of a published port is not the daemon's.
async fn reachable(
    ports: BTreeMap<String, SocketAddr>,
    found: &ContainerInspectResponse,
) -> BTreeMap<String, SocketAddr> {
    let mut reachable = BTreeMap::new();
    for (port, published) in ports {
        let address = match lifecycle::own_address(found, &port) {
            Some(own) if own.gateway.is_some_and(is_of_this_host) && answers(own.address).await => {
                own.address
            }
            Some(own) if refuses(published).await => own.address,
            _ => published,
        };
        reachable.insert(port, address);
    }
    reachable
}

/// Says whether an address is one of this host's: then, and only then, what goes there comes from that very
/// address. Nothing is sent.
fn is_of_this_host(ip: IpAddr) -> bool {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == ip)
}

/// Says whether anything comes back from there, be it that nobody listens yet: a firewall would be silent.
async fn answers(address: SocketAddr) -> bool {
    match timeout(PROBE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}

async fn refuses(published: SocketAddr) -> bool {
    published.ip().is_loopback()
        && TcpStream::connect(published)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Makes way for the container: our own left-overs go, a foreign one is refused.
async fn clear(
    ctx: &HostContext,
    docker: &Docker,
    identity: &ServiceIdentity,
    name: &str,
    patience: Duration,
) -> Result<(), ModuleError> {
    let mine = [
        format!("{STATE}={}", identity.state_id),
        format!("{SERVICE}={}", identity.service),
    ];
    for id in list_by_labels(docker, &mine).await? {
        ctx.progress.line(format!(
            "stopping the container of service `{}` that an earlier run left behind",
            identity.service
        ));
        lifecycle::stop(docker, &id, patience).await?;
        lifecycle::remove(docker, &id).await?;
    }
    if lifecycle::inspect(docker, name).await?.is_some() {
        return Err(DockerError::NameTaken {
            name: name.to_owned(),
        }
        .into());
    }
    Ok(())
}

/// Two servers on one data directory destroy it, and nothing in PostgreSQL prevents that across
/// containers: each of them is process 1 in its own world, so the lock file looks stale.
async fn refuse_held(ctx: &HostContext, mounts: &[MountPlan]) -> Result<(), ModuleError> {
    for mount in mounts {
        let MountPlan::Bind {
            source,
            read_only: false,
            ..
        } = mount
        else {
            continue;
        };
        // Other folders may have company: a shell whose working directory a backup folder is, say.
        if !holds_data(mount) {
            continue;
        }
        let held: Vec<String> = holders::holders(ctx, source)
            .await?
            .iter()
            .map(ToString::to_string)
            .collect();
        if !held.is_empty() {
            return Err(DockerError::Held {
                path: source.clone(),
                holders: held,
            }
            .into());
        }
    }
    Ok(())
}

/// Stops a service's container gracefully and removes it. Works after `ctx.cancel` has fired. One
/// that is gone already is fine.
///
/// # Errors
/// It did not stop in time: it is then left running, never killed.
pub async fn stop(
    ctx: &HostContext,
    handle: &ServiceHandle,
    timeout: Duration,
) -> Result<(), ModuleError> {
    let docker = super::client::connect(ctx).await?;
    lifecycle::stop(&docker, &handle.container_id, timeout).await?;
    lifecycle::remove(&docker, &handle.container_id).await?;
    Ok(())
}

/// Kills and removes every container of a service whose data is thrown away, running or not.
///
/// # Errors
/// Docker refuses or does not answer.
pub async fn discard(ctx: &HostContext, identity: &ServiceIdentity) -> Result<(), DockerError> {
    let docker = super::client::connect(ctx).await?;
    let mine = [
        format!("{STATE}={}", identity.state_id),
        format!("{SERVICE}={}", identity.service),
    ];
    for id in list_by_labels(&docker, &mine).await? {
        lifecycle::discard(&docker, &id).await?;
    }
    Ok(())
}

/// Stops and removes the containers of this state's services that are not in `keep` (names of
/// services), and returns the names of the services that were found.
///
/// # Errors
/// One did not stop in time, or Docker does not answer.
pub async fn remove_left_overs(
    ctx: &HostContext,
    state_id: &str,
    keep: &[String],
) -> Result<Vec<String>, ModuleError> {
    let docker = super::client::connect(ctx).await?;
    let mut removed = Vec::new();
    for id in list_by_labels(&docker, &[format!("{STATE}={state_id}")]).await? {
        let Some(found) = lifecycle::inspect(&docker, &id).await? else {
            continue;
        };
        let labels = found
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default();
        let service = labels.get(SERVICE).cloned().unwrap_or_default();
        if keep.contains(&service) {
            continue;
        }
        lifecycle::stop(&docker, &id, lifecycle::STOP_TIMEOUT).await?;
        lifecycle::remove(&docker, &id).await?;
        removed.push(service);
    }
    Ok(removed)
}

/// A service's container that runs now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Name of the service.
    pub service: String,
    /// Name of the container.
    pub container: String,
    /// What of the host it has mounted to write to.
    pub sources: Vec<PathBuf>,
}

/// Returns the containers of a state's services that run now.
///
/// # Errors
/// Docker does not answer.
pub async fn up(state_id: &str) -> Result<Vec<Up>, DockerError> {
    let docker = super::client::at(None).await?;
    let label = format!("{STATE}={state_id}");
    let options = ListContainersOptions {
        filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
        ..ListContainersOptions::default()
    };
    let listed = docker
        .list_containers(Some(options))
        .await
        .map_err(DockerError::api("list containers"))?;
    Ok(listed
        .into_iter()
        .map(|container| {
            let mounts = container.mounts.unwrap_or_default().into_iter();
            Up {
                service: container
                    .labels
                    .and_then(|labels| labels.get(SERVICE).cloned())
                    .unwrap_or_default(),
                container: container
                    .names
                    .and_then(|names| names.into_iter().next())
                    .map(|name| name.trim_start_matches('/').to_owned())
                    .unwrap_or_default(),
                sources: mounts
                    .filter(|mount| mount.rw == Some(true))
                    .filter_map(|mount| mount.source.map(PathBuf::from))
                    .collect(),
            }
        })
        .collect())
}

/// Returns whether the service's container runs, and its last words when it does not.
///
/// # Errors
/// Docker does not answer.
pub async fn state(ctx: &HostContext, handle: &ServiceHandle) -> Result<ServiceState, ModuleError> {
    let docker = super::client::connect(ctx).await?;
    let Some(found) = lifecycle::inspect(&docker, &handle.container_id).await? else {
        return Ok(ServiceState::Exited {
            code: -1,
            log: Vec::new(),
        });
    };
    if lifecycle::is_running(&found) {
        return Ok(ServiceState::Running);
    }
    let code = found.state.and_then(|state| state.exit_code).unwrap_or(-1);
    let log = lifecycle::log_tail(&docker, &handle.container_id, 20).await;
    Ok(ServiceState::Exited { code, log })
}

/// Returns the ids of all containers, running or not, that have every one of the labels.
pub async fn list_by_labels(
    docker: &Docker,
    labels: &[String],
) -> Result<Vec<String>, DockerError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), labels.to_vec())])),
        ..ListContainersOptions::default()
    };
    let listed = docker
        .list_containers(Some(options))
        .await
        .map_err(DockerError::api("list containers"))?;
    Ok(listed
        .into_iter()
        .filter_map(|container| container.id)
        .collect())
}
