//! What a container should be: the arguments of `docker_container`, and what they mean to Docker.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, PortBinding};
use schemars::JsonSchema;
use serde::Deserialize;

use super::arguments::{
    MountArgument, MountKind, MountPlan, PortPlan, Size, Words, env_map, port, volume,
};
use super::error::DockerError;
use crate::context::HostContext;

/// State a container should be in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// There and running.
    #[default]
    Started,
    /// There and not running.
    Stopped,
    /// There, running or not.
    Present,
    /// Not there; stopped gracefully before it is removed.
    Absent,
}

/// Describes a container and brings it there; recreated when it differs from what is asked.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerContainer {
    /// Name of the container. Required, except in `services`, where the name is made up.
    #[serde(default)]
    pub name: Option<String>,
    /// Image, by name or id. Required unless `state` is `absent`. Never pulled here: see `docker_image`.
    #[serde(default)]
    pub image: Option<String>,
    /// Command, as a list or as one text cut into words. Default: the image's.
    #[serde(default)]
    pub command: Option<Words>,
    /// Entry point. Default: the image's.
    #[serde(default)]
    pub entrypoint: Option<Words>,
    /// Environment variables.
    #[serde(default, deserialize_with = "env_map")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, String>,
    /// User, `uid` or `uid:gid`. Default: the image's.
    #[serde(default)]
    pub user: Option<String>,
    /// Working directory in the container.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// Host name in the container.
    #[serde(default)]
    pub hostname: Option<String>,
    /// Mounts in short form, `source:target[:ro]`. A source with a slash is a directory or file of
    /// the host and must exist; any other is a named volume.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Mounts in long form.
    #[serde(default)]
    pub mounts: Vec<MountArgument>,
    /// Ports, `[[address:]host_port:]container_port`. On 127.0.0.1 unless an address is written out;
    /// without a host port the kernel picks one.
    #[serde(default, alias = "ports")]
    #[schemars(extend("aliases" = ["ports"]))]
    pub published_ports: Vec<String>,
    /// `started` (default), `stopped`, `present` or `absent`.
    #[serde(default)]
    pub state: ContainerState,
    /// Seconds the container may take to stop. It is not killed when they are over. Default: 600.
    #[serde(default)]
    pub stop_timeout: Option<u64>,
    /// Signal that stops it, e.g. `SIGINT` (PostgreSQL's fast shutdown). Default: the image's.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Size of /dev/shm, e.g. `256M`. Default: Docker's 64M.
    #[serde(default)]
    pub shm_size: Option<Size>,
    /// Memory limit, e.g. `2G`. Default: none.
    #[serde(default)]
    pub memory: Option<Size>,
    /// Paths that are in memory, `path[:options]`.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// Network, e.g. `bridge` (default), `none`, `host`.
    #[serde(default)]
    pub network_mode: Option<String>,
    /// Labels.
    #[serde(default, deserialize_with = "env_map")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: BTreeMap<String, String>,
    /// Root filesystem read-only. Default: false.
    #[serde(default)]
    pub read_only: bool,
    /// Docker removes the container when it ends. Default: false.
    #[serde(default, alias = "cleanup")]
    #[schemars(extend("aliases" = ["cleanup"]))]
    pub auto_remove: bool,
    /// A small init process reaps zombies and passes signals on. Default: false.
    #[serde(default)]
    pub init: bool,
    /// Capabilities taken away.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// Security options, e.g. `no-new-privileges:true`.
    #[serde(default)]
    pub security_opts: Vec<String>,
    /// Make a new container even when the existing one is as described. Default: false.
    #[serde(default)]
    pub recreate: bool,
}

impl DockerContainer {
    /// How long this container may take to stop.
    #[must_use]
    pub fn stop_patience(&self) -> std::time::Duration {
        self.stop_timeout.map_or(
            super::lifecycle::STOP_TIMEOUT,
            std::time::Duration::from_secs,
        )
    }

    /// Returns the image's name.
    ///
    /// # Errors
    /// None is given.
    pub fn image(&self) -> Result<&str, DockerError> {
        self.image
            .as_deref()
            .filter(|image| !image.is_empty())
            .ok_or(DockerError::Argument {
                argument: "image",
                message: "is required".into(),
            })
    }

    /// Returns all mounts, sources made absolute.
    ///
    /// # Errors
    /// A mount is not understood.
    pub fn mount_plans(&self, ctx: &HostContext) -> Result<Vec<MountPlan>, DockerError> {
        let mut plans = Vec::new();
        for text in &self.volumes {
            let (source, target, read_only) = volume(text)?;
            plans.push(if source.contains('/') {
                MountPlan::Bind {
                    source: ctx.resolve(Path::new(&source)),
                    target,
                    read_only,
                }
            } else {
                MountPlan::Volume {
                    name: source,
                    target,
                    read_only,
                }
            });
        }
        for mount in &self.mounts {
            let target = mount.target.clone();
            let read_only = mount.read_only;
            let source = mount.source.clone().filter(|source| !source.is_empty());
            let needed = || DockerError::Argument {
                argument: "mounts",
                message: format!("the mount at {} has no `source`", mount.target),
            };
            plans.push(match mount.kind {
                MountKind::Bind => MountPlan::Bind {
                    source: ctx.resolve(Path::new(&source.ok_or_else(needed)?)),
                    target,
                    read_only,
                },
                MountKind::Volume => MountPlan::Volume {
                    name: source.ok_or_else(needed)?,
                    target,
                    read_only,
                },
                MountKind::Tmpfs => MountPlan::Tmpfs { target },
            });
        }
        plans.sort();
        Ok(plans)
    }

    /// Returns all ports.
    ///
    /// # Errors
    /// A port is not understood.
    pub fn port_plans(&self) -> Result<Vec<PortPlan>, DockerError> {
        let mut plans = self
            .published_ports
            .iter()
            .map(|text| port(text))
            .collect::<Result<Vec<_>, _>>()?;
        plans.sort();
        plans.dedup();
        Ok(plans)
    }

    /// Returns the tmpfs map as Docker wants it.
    #[must_use]
    pub fn tmpfs_map(&self) -> HashMap<String, String> {
        self.tmpfs
            .iter()
            .map(|text| text.split_once(':').unwrap_or((text, "")))
            .map(|(path, options)| (path.to_owned(), options.to_owned()))
            .collect()
    }

    /// Returns the request that makes the container.
    ///
    /// # Errors
    /// An argument is not understood, or a directory to be mounted is missing.
    pub fn create_body(
        &self,
        ctx: &HostContext,
        extra_labels: &BTreeMap<String, String>,
    ) -> Result<ContainerCreateBody, DockerError> {
        let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
        for plan in self.port_plans()? {
            bindings
                .entry(plan.container)
                .or_default()
                .get_or_insert_default()
                .push(PortBinding {
                    host_ip: Some(plan.host_ip),
                    host_port: Some(plan.host_port),
                });
        }
        let mounts = self.mount_plans(ctx)?;
        check_sources(&mounts)?;
        let stop_timeout = self
            .stop_timeout
            .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let size = |size: &Option<Size>, name| size.as_ref().map(|s| s.bytes(name)).transpose();
        let words = |words: &Option<Words>, name| words.as_ref().map(|w| w.split(name)).transpose();
        let labels = self.labels.iter().chain(extra_labels);
        Ok(ContainerCreateBody {
            image: Some(self.image()?.to_owned()),
            cmd: words(&self.command, "command")?,
            entrypoint: words(&self.entrypoint, "entrypoint")?,
            env: Some(
                self.env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
            ),
            user: self.user.clone(),
            working_dir: self.working_dir.clone(),
            hostname: self.hostname.clone(),
            labels: Some(
                labels
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            ),
            stop_signal: self.stop_signal.clone(),
            stop_timeout,
            exposed_ports: Some(bindings.keys().cloned().collect()),
            host_config: Some(HostConfig {
                mounts: Some(mounts.iter().map(docker_mount).collect()),
                port_bindings: Some(bindings),
                shm_size: size(&self.shm_size, "shm_size")?,
                memory: size(&self.memory, "memory")?,
                tmpfs: (!self.tmpfs.is_empty()).then(|| self.tmpfs_map()),
                network_mode: self.network_mode.clone(),
                readonly_rootfs: Some(self.read_only),
                auto_remove: Some(self.auto_remove),
                init: self.init.then_some(true),
                cap_drop: (!self.cap_drop.is_empty()).then(|| self.cap_drop.clone()),
                security_opt: (!self.security_opts.is_empty()).then(|| self.security_opts.clone()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        })
    }
}

/// Refuses a bind mount whose source is missing.
///
/// # Errors
/// Names the first missing source.
pub fn check_sources(mounts: &[MountPlan]) -> Result<(), DockerError> {
    for mount in mounts {
        if let MountPlan::Bind { source, target, .. } = mount
            && !source.exists()
        {
            return Err(DockerError::BindSourceMissing {
                path: source.clone(),
                target: target.clone(),
            });
        }
    }
    Ok(())
}

/// Mounts, never `Binds`: Docker creates a missing directory for the latter.
fn docker_mount(plan: &MountPlan) -> Mount {
    let (typ, source, target, read_only) = match plan {
        MountPlan::Bind {
            source,
            target,
            read_only,
        } => (
            MountType::BIND,
            Some(source.display().to_string()),
            target,
            *read_only,
        ),
        MountPlan::Volume {
            name,
            target,
            read_only,
        } => (MountType::VOLUME, Some(name.clone()), target, *read_only),
        MountPlan::Tmpfs { target } => (MountType::TMPFS, None, target, false),
    };
    Mount {
        typ: Some(typ),
        source,
        target: Some(target.clone()),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_yaml(text: &str) -> DockerContainer {
        serde_yaml::from_str(text).expect("valid arguments")
    }

    #[test]
    fn a_missing_directory_is_refused_before_docker_hears_of_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ctx = HostContext::for_tests(dir.path());
        let container = from_yaml("{name: a, image: b, volumes: ['./data:/data']}");
        let error = container
            .create_body(&ctx, &BTreeMap::new())
            .expect_err("no such directory");
        assert!(
            matches!(error, DockerError::BindSourceMissing { .. }),
            "{error}"
        );
        assert!(!dir.path().join("data").exists());
        std::fs::create_dir(dir.path().join("data")).expect("mkdir");
        let body = container
            .create_body(&ctx, &BTreeMap::new())
            .expect("it is there now");
        let host = body.host_config.expect("host config");
        assert_eq!(host.binds, None);
        assert_eq!(host.mounts.expect("mounts")[0].typ, Some(MountType::BIND));
    }

    #[test]
    fn environment_values_may_be_numbers() {
        let container = from_yaml("{image: b, env: {A: 1, B: true, C: x}}");
        let body = container
            .create_body(&HostContext::for_tests(Path::new("/")), &BTreeMap::new())
            .expect("valid");
        assert_eq!(body.env.expect("env"), ["A=1", "B=true", "C=x"]);
    }
}
