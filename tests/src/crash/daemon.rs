//! A Docker daemon of the test's own, which is stopped, killed and started again under the agent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU8, Ordering};

use super::faults::finish_and_judge;
use super::leg::on_a_site;
use super::reference::Reference;
use super::report::Case;
use super::strike::{self, Moment, until};
use crate::error::{LabError, io_error};
use crate::images::docker_at;
use crate::migration::{Migration, must};
use crate::site::Scale;
use crate::tool;
use crate::workplace::{lab_subdir, remove_any, unique, unmount_below};

/// Signal, and when.
const CASES: [(&str, Moment); 4] = [
    ("TERM", Moment::Within("snapshot-old", "pacs_old")),
    ("TERM", Moment::Within("restore-work", "pacs_work")),
    ("KILL", Moment::Within("dump-old", "pacs_old")),
    ("KILL", Moment::Within("update [5.32]", "pacs_work")),
];

/// All restarts of the daemon.
#[must_use]
pub fn daemon_restarts(scale: Scale) -> Vec<Case> {
    CASES
        .into_iter()
        .map(|(signal, moment)| daemon_restart(scale, signal, moment))
        .collect()
}

/// One of them.
#[must_use]
pub fn daemon_restart(scale: Scale, signal: &'static str, moment: Moment) -> Case {
    let at = match moment {
        Moment::At(point) => point,
        Moment::Within(task, _) => task,
    };
    let name = format!(
        "SIG{signal} to dockerd and a new one in {at}, scale {}",
        scale.letter()
    );
    Case {
        kind: "fault: Docker daemon",
        replay: format!("--faults --scale {} --only '{name}'", scale.letter()),
        name,
        work: Box::new(move || {
            let reference = Reference::of(Scale::S)?;
            let mut migration = Migration::begin(scale)?;
            let mut daemon = Daemon::start()?;
            daemon.load(&[&migration.site.images.old, &migration.site.images.new])?;
            migration.agent.docker_host = Some(daemon.host());
            on_a_site(migration, |migration| {
                let (run, ()) = strike::strike(migration, moment, |_| daemon.end(signal))?;
                let ended = strike::must_end(run)?;
                must([Some(0), Some(2)].contains(&ended.code), || {
                    format!(
                        "exit code {:?}\n{}{}",
                        ended.code, ended.stdout, ended.stderr
                    )
                })?;
                daemon.again()?;
                finish_and_judge(migration, reference)?;
                Ok(format!("first end {:?}", ended.code).into())
            })
        }),
    }
}

/// A `dockerd` with its own root, socket, pid file and bridge.
#[derive(Debug)]
struct Daemon {
    dir: PathBuf,
    bridge: String,
    process: Option<Child>,
}

impl Daemon {
    fn start() -> Result<Self, LabError> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let dir = lab_subdir("sites")?.join(unique("site"));
        fs::create_dir(&dir).map_err(io_error("create", &dir))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let bridge = format!("kal{}-{number}", process % 100_000);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        let mut daemon = Self {
            dir,
            bridge,
            process: None,
        };
        // A network of the addresses that are kept for tests of networks (RFC 2544).
        let subnet = format!(
            "198.{}.{}.1/24",
            18 + process % 2,
            (process / 2 + u32::from(number)) % 256
        );
        ip(&["address", "add", &subnet, "dev", &daemon.bridge])?;
        ip(&["link", "set", &daemon.bridge, "up"])?;
        daemon.again()?;
        Ok(daemon)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    /// Starts the daemon on what is there, and waits until it answers.
    fn again(&mut self) -> Result<(), LabError> {
        let log = self.dir.join("dockerd.log");
        let out = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(io_error("open", &log))?;
        let err = out.try_clone().map_err(io_error("open", &log))?;
        let option = |name: &str, path: &str| format!("--{name}={}", self.dir.join(path).display());
        // A killed one leaves them, and a new process may have that number. Its containerd dies with it;
        // where nobody reaps orphans, a daemon takes the dead one for alive and waits for it in vain.
        remove_any(&self.dir.join("docker.pid"))?;
        remove_any(&self.dir.join("exec/containerd/containerd.pid"))?;
        let mut command = Command::new("dockerd");
        command
            .args([option("data-root", "root"), option("exec-root", "exec")])
            .args([
                option("pidfile", "docker.pid"),
                option("config-file", "daemon.json"),
            ])
            .args([
                format!("--host={}", self.host()),
                format!("--bridge={}", self.bridge),
            ])
            // The chains of iptables belong to the host's own daemon; docker-proxy does without them.
            .args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .stdout(out)
            .stderr(err);
        if let Some(driver) = storage_driver() {
            command.arg(format!("--storage-driver={driver}"));
        }
        let config = self.dir.join("daemon.json");
        fs::write(&config, "{}\n").map_err(io_error("write", &config))?;
        let child = command.spawn().map_err(|source| LabError::Spawn {
            program: "dockerd".into(),
            purpose: "have a daemon of our own".into(),
            source,
        })?;
        self.process = Some(child);
        let host = self.host();
        until("dockerd answering", || {
            docker_at(Some(&host), &["version"]).is_ok()
        })
    }

    fn end(&mut self, signal: &str) -> Result<(), LabError> {
        if let Some(mut process) = self.process.take() {
            let pid = process.id().to_string();
            tool::run(
                Command::new("kill").args(["-s", signal, &pid]),
                "end dockerd",
            )?;
            process
                .wait()
                .map_err(io_error("wait for", Path::new("dockerd")))?;
        }
        Ok(())
    }

    fn load(&self, images: &[&str]) -> Result<(), LabError> {
        let archive = self.dir.join("images.tar");
        let path = archive.display().to_string();
        docker_at(None, &[&["save", "--output", &path], images].concat())?;
        docker_at(Some(&self.host()), &["load", "--quiet", "--input", &path])?;
        remove_any(&archive)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let host = self.host();
        if let Ok(list) = docker_at(Some(&host), &["ps", "--all", "--quiet"]) {
            for container in list.lines() {
                let _ = docker_at(Some(&host), &["rm", "--force", container]);
            }
        }
        // Best effort all of it: what stays in target/lab/sites is swept by the next process.
        let _ = self.end("TERM");
        unmount_below(&self.dir);
        let _ = remove_any(&self.dir);
        let _ = ip(&["link", "delete", &self.bridge]);
    }
}

/// The driver of the host's own daemon, which is known to work here.
fn storage_driver() -> Option<String> {
    let driver = docker_at(None, &["info", "--format", "{{.Driver}}"]).ok()?;
    Some(driver.trim().to_owned()).filter(|driver| !driver.is_empty())
}

fn ip(arguments: &[&str]) -> Result<(), LabError> {
    tool::run(Command::new("ip").args(arguments), "set up a bridge").map(drop)
}
