//! A host without a network that the agent runs on as root: a container with the binary in it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::agent;
use crate::error::{LabError, io_error};
use crate::images::{LABEL, OWNER_LABEL, docker, remove_orphaned_containers};
use crate::workplace::{owner, unique};

/// A container, which ends with this value.
#[derive(Debug)]
pub struct Guest {
    container: String,
    /// The container has it as `/home`.
    home: tempfile::TempDir,
}

impl Guest {
    /// Starts a container of this image.
    ///
    /// # Errors
    /// The agent does not build, or Docker refuses.
    pub fn start(image: &str) -> Result<Self, LabError> {
        // What a killed test left behind goes first; that this fails must not fail the test.
        let _ = remove_orphaned_containers(false);
        let home = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
        let container = unique("kaapana-lab-guest");
        let label = format!("{OWNER_LABEL}={}", owner());
        let binary = agent::binary()?;
        let binary = format!("type=bind,src={},dst=/agent,readonly", binary.display());
        let shared = format!("type=bind,src={},dst=/home", home.path().display());
        let guest = Self { container, home };
        docker(&[
            "run",
            "--detach",
            "--init",
            "--network",
            "none",
            "--name",
            &guest.container,
            "--label",
            LABEL,
            "--label",
            &label,
            "--mount",
            &binary,
            "--mount",
            &shared,
            image,
            "sleep",
            "infinity",
        ])?;
        Ok(guest)
    }

    /// Runs a script there.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, script: &str) -> Result<String, LabError> {
        docker(&["exec", &self.container, "sh", "-c", script])
    }

    /// The command that runs these tasks there, with its state in `/home/state`. Each is a line of the
    /// playbook `name`.
    ///
    /// # Errors
    /// The playbook cannot be written.
    pub fn run(&self, name: &str, tasks: &[&str], options: &[&str]) -> Result<Command, LabError> {
        let path = self.home.path().join(format!("{name}.yaml"));
        let mut text = String::from("- hosts: localhost\n  tasks:\n");
        for task in tasks {
            text.push_str(&format!("    - {task}\n"));
        }
        fs::write(&path, text).map_err(io_error("write", &path))?;
        let mut command = Command::new("docker");
        command.args([
            "exec",
            &self.container,
            "/agent",
            "run",
            "--state-dir",
            "/home/state",
        ]);
        command.arg(format!("/home/{name}.yaml")).args(options);
        Ok(command)
    }

    /// Runs these tasks to their end.
    ///
    /// # Errors
    /// The playbook cannot be written, or docker cannot be started.
    pub fn ran(&self, name: &str, tasks: &[&str], options: &[&str]) -> Result<Output, LabError> {
        self.run(name, tasks, options)?
            .output()
            .map_err(io_error("start", Path::new("docker")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // What stays is swept by the next process.
        let _ = docker(&["rm", "--force", "--volumes", &self.container]);
    }
}
