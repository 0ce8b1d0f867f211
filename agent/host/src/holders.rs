//! Who has a directory open: processes that stand in it and containers that have it mounted.
//!
//! `postmaster.pid` proves nothing: written inside a container it says process 1, which on the host
//! is always alive and never a database. What cannot lie is the working directory of a server's
//! processes, which is its data directory, by device and inode.

use std::collections::HashSet;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bollard::query_parameters::ListContainersOptions;
use serde::Serialize;

use crate::context::HostContext;
use crate::docker::client;
use crate::docker::error::DockerError;
use crate::error::{ModuleError, PathError};
use crate::files::mounts::Mounts;
use crate::worker;

/// Somebody who has a directory open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Holder {
    /// A process whose working directory it is, or lies in it.
    Process {
        /// Process id on this host.
        pid: u32,
        /// Its command line, cut short.
        command: String,
        /// How many child processes stand there too.
        children: usize,
    },
    /// A running container that has it, or a directory around or in it, mounted writable.
    Container {
        /// Name.
        name: String,
        /// Image.
        image: String,
        /// What is mounted.
        source: PathBuf,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process {
                pid,
                command,
                children,
            } => {
                write!(f, "process {pid} (`{command}`) stands in it")?;
                if *children > 0 {
                    write!(f, ", with {children} child processes")?;
                }
                Ok(())
            }
            Self::Container {
                name,
                image,
                source,
            } => {
                write!(
                    f,
                    "container `{name}` ({image}) has {} mounted",
                    source.display()
                )
            }
        }
    }
}

/// Device and inode.
type Id = (u64, u64);

fn id_of(meta: &Metadata) -> Id {
    (meta.dev(), meta.ino())
}

/// Returns who holds the directory. Containers are asked for only where Docker answers: without a
/// daemon there are none of its containers.
///
/// # Errors
/// The directory cannot be looked at, or Docker is there and refuses.
pub async fn holders(ctx: &HostContext, path: &Path) -> Result<Vec<Holder>, ModuleError> {
    let meta = std::fs::metadata(path).map_err(PathError::on("inspect", path))?;
    let id = id_of(&meta);
    // Not to know is not the same as nobody.
    let mut found = worker::blocking("look for processes", move || processes(id)).await?;
    found.extend(containers(ctx, path, id).await?);
    Ok(found)
}

/// Returns the processes that stand in the directory or below it, children folded into parents.
fn processes(id: Id) -> Vec<Holder> {
    let mut standing: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid != std::process::id() && stands_in(&entry.path().join("cwd"), id) {
            standing.push((pid, parent_of(pid)));
        }
    }
    let pids: HashSet<u32> = standing.iter().map(|(pid, _)| *pid).collect();
    let roots = standing.iter().filter(|(_, parent)| !pids.contains(parent));
    roots
        .map(|&(pid, _)| Holder::Process {
            pid,
            command: command_of(pid),
            children: standing.iter().filter(|(_, parent)| *parent == pid).count(),
        })
        .collect()
}

/// Climbs from a working directory to the root. `/proc/N/cwd` leads into the process's own mount
/// namespace, so this works for containers as well.
fn stands_in(cwd: &Path, id: Id) -> bool {
    let mut place = cwd.to_path_buf();
    let mut last = None;
    for _ in 0..64 {
        // Gone in the meantime, or a kernel thread.
        let Ok(meta) = std::fs::metadata(&place) else {
            return false;
        };
        let here = id_of(&meta);
        if here == id {
            return true;
        }
        if last == Some(here) {
            return false;
        }
        last = Some(here);
        place.push("..");
    }
    false
}

fn parent_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; what follows the last one is plain.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
        .nth(1)
        .and_then(|parent| parent.parse().ok())
        .unwrap_or(0)
}

fn command_of(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&line).replace('\0', " ");
    let text = text.trim();
    if text.is_empty() {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return comm.trim().to_owned();
    }
    // Arguments may hold secrets: the program and, for a server, its first words are enough.
    text.chars().take_while(|&c| c != ' ').take(80).collect()
}

async fn containers(ctx: &HostContext, path: &Path, id: Id) -> Result<Vec<Holder>, ModuleError> {
    let docker = match client::connect(ctx).await {
        Ok(docker) => docker,
        Err(DockerError::SocketMissing { .. } | DockerError::NotAnswering { .. }) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let running = docker
        .list_containers(None::<ListContainersOptions>)
        .await
        .map_err(DockerError::api("list containers"))?;
    // Where the agent runs in a container, that one has everything that the agent is to work on, and does
    // nothing with it; processes in it are looked at like all others.
    let mounts = Mounts::read()?;
    let mut found = Vec::new();
    for container in running {
        if container.id.as_deref() == mounts.own_container() && container.id.is_some() {
            continue;
        }
        let name = container
            .names
            .and_then(|names| names.into_iter().next())
            .unwrap_or_default();
        for mount in container.mounts.unwrap_or_default() {
            let source = PathBuf::from(mount.source.unwrap_or_default());
            if mount.rw == Some(true) && overlaps(&source, path, id) {
                found.push(Holder::Container {
                    name: name.trim_start_matches('/').to_owned(),
                    image: container.image.clone().unwrap_or_default(),
                    source,
                });
            }
        }
    }
    Ok(found)
}

/// Tells whether one of two directories is, or contains, the other.
fn overlaps(source: &Path, path: &Path, id: Id) -> bool {
    let Ok(meta) = std::fs::metadata(source) else {
        return false;
    };
    let same_or_in = |mut inner: PathBuf, outer: Id| {
        loop {
            if std::fs::metadata(&inner).is_ok_and(|meta| id_of(&meta) == outer) {
                return true;
            }
            if !inner.pop() {
                return false;
            }
        }
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    same_or_in(real(path), id_of(&meta)) || same_or_in(real(source), id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn a_process_that_stands_in_the_directory_is_named_by_inode_not_by_path() {
        let dir = tempfile::tempdir().expect("temp dir");
        let inner = dir.path().join("data/base");
        std::fs::create_dir_all(&inner).expect("mkdir");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("data"), &link).expect("symlink");
        let mut ctx = HostContext::for_tests(dir.path());
        ctx.environment
            .insert("DOCKER_HOST".into(), "unix:///nowhere".into());
        assert_eq!(holders(&ctx, &link).await.expect("looked"), []);
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(&inner)
            .stdin(Stdio::null())
            .spawn()
            .expect("spawn sleep");
        // The child changes its directory before it becomes `sleep`; spawn returns after that.
        let found = holders(&ctx, &link).await.expect("looked");
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(
            matches!(&found[..], [Holder::Process { pid, .. }] if *pid == child.id()),
            "{found:?}"
        );
    }
}
