//! The containers behind the pods.

use std::process::Command;

use super::model::Container;
use crate::error::LabError;
use crate::images::{LABEL, OWNER_LABEL, docker};
use crate::tool;
use crate::workplace::owner;

/// Starts a container. One that is broken ends at once, with words of its own.
pub(super) fn start(name: &str, container: &Container, broken: bool) -> Result<(), LabError> {
    let mut run = Command::new("docker");
    run.args(["run", "--detach", "--name", name, "--label", LABEL]);
    run.args(["--label", &format!("{OWNER_LABEL}={}", owner())]);
    run.args(["--network", "none"]).args(&container.options);
    if broken {
        run.args(["--entrypoint", "sh", &container.image, "-c"]);
        run.arg("echo 'lab: no configuration found' >&2; exit 3");
    } else {
        run.arg(&container.image).args(&container.command);
    }
    tool::run(&mut run, "start a container of a pod").map(drop)
}

/// Tells whether a container's probe succeeds.
pub(super) fn is_ready(name: &str, probe: &[String]) -> bool {
    if probe.is_empty() {
        return docker(&["inspect", "--format", "{{.State.Running}}", name])
            .is_ok_and(|text| text.trim() == "true");
    }
    let mut exec = Command::new("docker");
    exec.args(["exec", name]).args(probe);
    exec.output().is_ok_and(|output| output.status.success())
}

/// Stops containers gracefully and removes them.
pub(super) fn stop(names: &[String]) {
    for name in names {
        let _ = docker(&["stop", "--time", "20", name]);
        let _ = docker(&["rm", "--force", "--volumes", name]);
    }
}

/// Removes containers, whatever they do.
pub(super) fn remove_all(names: &[String]) {
    for name in names {
        let _ = docker(&["rm", "--force", "--volumes", name]);
    }
}

/// The last lines that a container printed.
pub(super) fn logs(name: &str, lines: &str) -> String {
    let output = Command::new("docker")
        .args(["logs", "--tail", lines, name])
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| {
            [output.stdout, output.stderr]
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .concat()
        },
    )
}
