//! The official PostgreSQL images, where a registry can be reached.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::debian::ImageFile;
use super::docker::IMAGE_LABEL;
use crate::error::{LabError, io_error};
use crate::tool;
use crate::workplace::{lab_subdir, stage};

const REGISTRY: &str = "registry-1.docker.io:443";
const DEADLINE: Duration = Duration::from_secs(5);

/// Returns whether Docker Hub answers within five seconds. Asked once a process.
pub(super) fn registry_answers() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel();
        // On a thread: the look-up of the name knows no deadline.
        thread::spawn(move || {
            let answer = REGISTRY.to_socket_addrs().is_ok_and(|mut found| {
                found.any(|address| TcpStream::connect_timeout(&address, DEADLINE).is_ok())
            });
            // Nobody listens any more once the deadline has passed.
            let _ = sender.send(answer);
        });
        receiver.recv_timeout(DEADLINE).unwrap_or(false)
    })
}

/// Pulls an official image, puts the files on top, and tags the outcome.
pub(super) fn build_on(base: &str, files: &[ImageFile], tag: &str) -> Result<(), LabError> {
    stage(&format!("docker pull {base}"), || {
        super::docker(&["pull", "--quiet", base])
    })?;
    let context = tempfile::tempdir_in(lab_subdir("cache")?)
        .map_err(io_error("create", "context".as_ref()))?;
    let mut dockerfile = format!("FROM {base}\nLABEL {IMAGE_LABEL} kaapana-lab.base=official\n");
    for (number, file) in files.iter().enumerate() {
        let path = context.path().join(number.to_string());
        fs::write(&path, &file.content).map_err(io_error("write", &path))?;
        dockerfile.push_str(&format!("COPY {number} {}\n", file.path));
    }
    let path = context.path().join("Dockerfile");
    fs::write(&path, dockerfile).map_err(io_error("write", &path))?;
    let mut build = Command::new("docker");
    build
        .args(["build", "--quiet", "--tag", tag])
        .arg(context.path());
    stage("docker build", || {
        tool::run(&mut build, "build on the official image").map(drop)
    })
}
