//! What a container is, against what it should be.

use std::collections::BTreeMap;

use bollard::models::{ContainerInspectResponse, HostConfig};

use crate::host::docker::arguments::MountPlan;
use crate::host::docker::error::DockerError;
use crate::host::docker::spec::DockerContainer;
use crate::task::context::TaskContext;

/// Returns what differs, one line each. Only what was asked is compared, except for mounts and
/// ports, where one too many matters as well. Values of environment variables are not repeated.
///
/// # Errors
/// An argument is not understood.
pub fn differences(
    ctx: &TaskContext,
    asked: &DockerContainer,
    image_id: &str,
    found: &ContainerInspectResponse,
) -> Result<Vec<String>, DockerError> {
    let mut lines = Vec::new();
    let config = found.config.clone().unwrap_or_default();
    let host = found.host_config.clone().unwrap_or_default();
    if found.image.as_deref() != Some(image_id) {
        lines.push(format!(
            "image {} -> {}",
            found.image.as_deref().unwrap_or("?"),
            asked.image()?
        ));
    }
    if let Some(command) = &asked.command {
        note(
            &mut lines,
            "command",
            config.cmd.clone().unwrap_or_default(),
            command.split("command")?,
        );
    }
    if let Some(entry) = &asked.entrypoint {
        let found = config.entrypoint.clone().unwrap_or_default();
        note(&mut lines, "entrypoint", found, entry.split("entrypoint")?);
    }
    compare_env(&mut lines, asked, &config.env.unwrap_or_default());
    if let Some(user) = &asked.user {
        note(
            &mut lines,
            "user",
            config.user.unwrap_or_default(),
            user.clone(),
        );
    }
    if let Some(dir) = &asked.working_dir {
        note(
            &mut lines,
            "working_dir",
            config.working_dir.unwrap_or_default(),
            dir.clone(),
        );
    }
    if let Some(name) = &asked.hostname {
        note(
            &mut lines,
            "hostname",
            config.hostname.unwrap_or_default(),
            name.clone(),
        );
    }
    if let Some(signal) = &asked.stop_signal {
        note(
            &mut lines,
            "stop_signal",
            config.stop_signal.unwrap_or_default(),
            signal.clone(),
        );
    }
    let labels = config.labels.unwrap_or_default();
    for (name, value) in &asked.labels {
        if labels.get(name) != Some(value) {
            lines.push(format!("label {name}"));
        }
    }
    compare_host(&mut lines, asked, &host)?;
    compare_mounts(ctx, &mut lines, asked, found)?;
    Ok(lines)
}

fn note<T: PartialEq + std::fmt::Debug>(lines: &mut Vec<String>, what: &str, found: T, asked: T) {
    if found != asked {
        lines.push(format!("{what} {found:?} -> {asked:?}"));
    }
}

fn compare_env(lines: &mut Vec<String>, asked: &DockerContainer, found: &[String]) {
    let found: BTreeMap<&str, &str> = found
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .collect();
    for (name, value) in &asked.env {
        if found.get(name.as_str()) != Some(&value.as_str()) {
            lines.push(format!("environment variable {name}"));
        }
    }
}

fn compare_host(
    lines: &mut Vec<String>,
    asked: &DockerContainer,
    host: &HostConfig,
) -> Result<(), DockerError> {
    let size = |size: &Option<crate::host::docker::arguments::Size>, name| {
        size.as_ref().map(|size| size.bytes(name)).transpose()
    };
    if let Some(bytes) = size(&asked.shm_size, "shm_size")? {
        note(lines, "shm_size", host.shm_size.unwrap_or_default(), bytes);
    }
    note(
        lines,
        "memory",
        host.memory.unwrap_or_default(),
        size(&asked.memory, "memory")?.unwrap_or(0),
    );
    if let Some(mode) = &asked.network_mode {
        // The daemon's own network has two names.
        let plain = |mode: &str| if mode == "default" { "bridge" } else { mode }.to_owned();
        note(
            lines,
            "network_mode",
            plain(host.network_mode.as_deref().unwrap_or("")),
            plain(mode),
        );
    }
    note(
        lines,
        "read_only",
        host.readonly_rootfs.unwrap_or_default(),
        asked.read_only,
    );
    note(
        lines,
        "auto_remove",
        host.auto_remove.unwrap_or_default(),
        asked.auto_remove,
    );
    note(lines, "init", host.init.unwrap_or_default(), asked.init);
    note(
        lines,
        "tmpfs",
        host.tmpfs.clone().unwrap_or_default(),
        asked.tmpfs_map(),
    );
    note(
        lines,
        "cap_drop",
        host.cap_drop.clone().unwrap_or_default(),
        asked.cap_drop.clone(),
    );
    note(
        lines,
        "security_opts",
        host.security_opt.clone().unwrap_or_default(),
        asked.security_opts.clone(),
    );
    let mut found: Vec<(String, String, String)> = Vec::new();
    for (container, bindings) in host.port_bindings.clone().unwrap_or_default() {
        for binding in bindings.unwrap_or_default() {
            found.push((
                container.clone(),
                binding.host_ip.unwrap_or_default(),
                binding.host_port.unwrap_or_default(),
            ));
        }
    }
    found.sort();
    let asked = asked.port_plans()?;
    let asked: Vec<_> = asked
        .into_iter()
        .map(|p| (p.container, p.host_ip, p.host_port))
        .collect();
    note(lines, "published_ports", found, asked);
    Ok(())
}

fn compare_mounts(
    ctx: &TaskContext,
    lines: &mut Vec<String>,
    asked: &DockerContainer,
    found: &ContainerInspectResponse,
) -> Result<(), DockerError> {
    let mut actual = Vec::new();
    // The request is kept as it was made; what is mounted also names the image's own volumes.
    let requested = found
        .host_config
        .as_ref()
        .and_then(|host| host.mounts.clone())
        .unwrap_or_default();
    for mount in requested {
        let target = mount.target.unwrap_or_default();
        let source = mount.source.unwrap_or_default();
        let read_only = mount.read_only.unwrap_or_default();
        actual.push(match mount.typ {
            Some(bollard::models::MountType::VOLUME) => MountPlan::Volume {
                name: source,
                target,
                read_only,
            },
            Some(bollard::models::MountType::TMPFS) => MountPlan::Tmpfs { target },
            _ => MountPlan::Bind {
                source: source.into(),
                target,
                read_only,
            },
        });
    }
    actual.sort();
    let wanted = asked.mount_plans(ctx)?;
    for mount in &wanted {
        if !actual.contains(mount) {
            lines.push(format!("mount {}", describe(mount)));
        }
    }
    for mount in &actual {
        if !wanted.contains(mount) {
            lines.push(format!("no longer mount {}", describe(mount)));
        }
    }
    let binds = found
        .host_config
        .as_ref()
        .and_then(|host| host.binds.clone())
        .unwrap_or_default();
    lines.extend(binds.iter().map(|bind| format!("no longer mount {bind}")));
    Ok(())
}

fn describe(mount: &MountPlan) -> String {
    let (source, target, read_only) = match mount {
        MountPlan::Bind {
            source,
            target,
            read_only,
        } => (source.display().to_string(), target, *read_only),
        MountPlan::Volume {
            name,
            target,
            read_only,
        } => (name.clone(), target, *read_only),
        MountPlan::Tmpfs { target } => ("tmpfs".to_owned(), target, false),
    };
    format!(
        "{source} at {target}{}",
        if read_only { " (read-only)" } else { "" }
    )
}
