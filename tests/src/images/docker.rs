//! The `docker` command. The agent talks to the engine itself; the lab uses another tool on purpose.

use std::path::Path;
use std::process::Command;

use crate::error::LabError;
use crate::{tool, workplace};

/// Label of every container that the lab starts.
pub(crate) const LABEL: &str = "kaapana-lab=1";
/// Label of every image that the lab builds. Another one, because containers inherit the labels of their
/// image, and the containers that the agent starts are not ours to sweep.
pub(crate) const IMAGE_LABEL: &str = "kaapana-lab.image=1";
/// Label that tells which process a container belongs to.
pub(crate) const OWNER_LABEL: &str = "kaapana-lab.owner";

/// Runs `docker` with these arguments and returns its stdout.
///
/// # Errors
/// Docker is not there, its daemon does not run, or it refuses.
pub fn docker(arguments: &[&str]) -> Result<String, LabError> {
    docker_at(None, arguments)
}

/// As [`docker`], at the daemon with this address where one is given.
///
/// # Errors
/// As [`docker`].
pub fn docker_at(host: Option<&str>, arguments: &[&str]) -> Result<String, LabError> {
    let purpose = format!("docker {}", arguments.first().copied().unwrap_or_default());
    let mut command = Command::new("docker");
    if let Some(host) = host {
        command.args(["--host", host]);
    }
    tool::run(command.args(arguments), &purpose)
}

/// Returns whether Docker has this image.
///
/// # Errors
/// Docker does not answer.
pub fn image_exists(image: &str) -> Result<bool, LabError> {
    Ok(!docker(&["image", "ls", "--quiet", image])?
        .trim()
        .is_empty())
}

/// Removes the lab's containers whose process is gone, or all of them, the living ones too.
///
/// # Errors
/// Docker does not answer, or a container cannot be removed.
pub fn remove_orphaned_containers(also_living: bool) -> Result<usize, LabError> {
    let format = format!("{{{{.ID}}}} {{{{.Label \"{OWNER_LABEL}\"}}}}");
    let filter = format!("label={LABEL}");
    let list = docker(&["ps", "--all", "--filter", &filter, "--format", &format])?;
    let mut removed = 0;
    for line in list.lines() {
        let (id, owner) = line.split_once(' ').unwrap_or((line, ""));
        if also_living || !workplace::owner_is_alive(owner) {
            docker(&["rm", "--force", "--volumes", id])?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes the agent's containers that have something below this directory mounted: those of a site that
/// goes, whatever became of the agent. What cannot be removed now is met by the next sweep.
pub fn remove_containers_on(dir: &Path) {
    let filter = "label=io.kaapana.agent.state";
    let list = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", filter]);
    for id in list.unwrap_or_default().lines() {
        // Another site's may go at any time.
        let mounts = docker(&[
            "inspect",
            "--format",
            "{{range .Mounts}}{{println .Source}}{{end}}",
            id,
        ]);
        if mounts.is_ok_and(|mounts| {
            mounts
                .lines()
                .any(|source| Path::new(source).starts_with(dir))
        }) {
            let _ = docker(&["rm", "--force", "--volumes", id]);
        }
    }
}

/// Removes every image that the lab built.
///
/// # Errors
/// Docker does not answer, or an image is in use.
pub fn remove_lab_images() -> Result<usize, LabError> {
    let filter = format!("label={IMAGE_LABEL}");
    let list = docker(&[
        "image",
        "ls",
        "--filter",
        &filter,
        "--format",
        "{{.Repository}}:{{.Tag}}",
    ])?;
    let named: Vec<&str> = list
        .lines()
        .filter(|image| !image.contains("<none>"))
        .collect();
    for image in &named {
        docker(&["image", "rm", image])?;
    }
    // What a killed import left has no name.
    docker(&["image", "prune", "--force", "--filter", &filter])?;
    Ok(named.len())
}
