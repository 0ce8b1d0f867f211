//! The real kubectl, from Debian's package, in a container on the host's network.

use std::process::{Command, Output, Stdio};

use super::Cluster;
use crate::error::LabError;
use crate::images::{DebianImage, ImageFile, LABEL, OWNER_LABEL, docker};
use crate::tool;
use crate::workplace::{owner, unique};

/// Returns an image with kubectl, a web server and nothing that runs by itself.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn image() -> Result<String, LabError> {
    DebianImage {
        repository: "kaapana-lab/kubernetes".to_owned(),
        version: "1".to_owned(),
        suite: "trixie".to_owned(),
        packages: vec!["kubectl".to_owned(), "busybox".to_owned()],
        files: vec![ImageFile {
            path: "/www/dcm4chee-arc/aets".to_owned(),
            mode: 0o644,
            content: b"[]\n".to_vec(),
        }],
        config: vec!["CMD [\"sleep\", \"infinity\"]".to_owned()],
        ..DebianImage::default()
    }
    .ensure()
}

/// kubectl in a container, with the cluster's folder at its own path.
#[derive(Debug)]
pub struct Kubectl {
    container: String,
    kubeconfig: String,
}

impl Kubectl {
    /// Starts the container.
    ///
    /// # Errors
    /// The image cannot be built, or the container not be started.
    pub fn of(cluster: &Cluster) -> Result<Self, LabError> {
        let container = unique("kaapana-lab-kubectl");
        let dir = cluster.dir().display().to_string();
        let mut run = Command::new("docker");
        run.args([
            "run", "--detach", "--init", "--name", &container, "--label", LABEL,
        ]);
        run.args(["--label", &format!("{OWNER_LABEL}={}", owner())]);
        run.args(["--network", "host", "--mount"]);
        run.arg(format!("type=bind,source={dir},target={dir}"));
        tool::run(run.arg(image()?), "start a container for kubectl")?;
        Ok(Self {
            container,
            kubeconfig: cluster.admin().display().to_string(),
        })
    }

    /// A kubectl command. It speaks WebSockets, which versions before 1.31 do only when they are asked to.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--interactive"]);
        command.args(["--env", &format!("KUBECONFIG={}", self.kubeconfig)]);
        command.args(["--env", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"]);
        command.args([&self.container, "kubectl"]).args(words);
        command
    }

    /// Runs it, whatever its exit status.
    ///
    /// # Errors
    /// Docker cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Output, LabError> {
        let output = self.command(words).stdin(Stdio::null()).output();
        output.map_err(|error| LabError::Unexpected(format!("run kubectl: {error}")))
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn ok(&self, words: &[&str]) -> Result<String, LabError> {
        tool::run(&mut self.command(words), "use kubectl")
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.container]);
    }
}
