//! A server does not outlive its agent: what watches for that inside of a service's container.
//!
//! The agent holds an exclusive `flock` on a file that is mounted read-only into the container. Process 1
//! of it is a small script (`watch.sh`) that starts what the image would have started, beside a flock(1)
//! which waits for that lock. The kernel drops the agent's lock when the agent ends, however it ends, and at
//! no other time: no clock is involved, so that an agent or a container that is stopped, frozen or slow
//! never loses its server. The server is a child of the script and the waiting flock(1) its sibling: no
//! server has children that it did not make. As the script looks at the lock before it starts anything,
//! there is no moment without it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bollard::models::{ContainerCreateBody, ImageConfig, Mount, MountType};

use super::error::DockerError;
use crate::error::PathError;

/// What runs as process 1.
const SCRIPT: &str = include_str!("watch.sh");
/// Where the folder is mounted: at the top, where no mount of a service's own hides it.
const PLACE: &str = "/.kaapana-agent";
const LOCK: &str = "lock";
const WATCH: &str = "watch";
/// The signals that the script hands on.
const KNOWN: [&str; 7] = ["HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "WINCH"];
/// The script's exit code where nothing in the image can wait for a lock.
const CANNOT_WAIT: i64 = 97;
/// Its exit code where nobody holds the lock.
const NOT_HELD: i64 = 98;

/// The lock by which containers know that the agent is there; taken when the first container needs it.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    held: Mutex<Option<File>>,
}

impl Watch {
    /// The lock of a run; `folder` is made when it is needed, and what earlier runs left beside it goes.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder: std::path::absolute(&folder).unwrap_or(folder),
            held: Mutex::new(None),
        }
    }

    /// Holds the lock from now on, and returns the folder that is to be mounted.
    ///
    /// # Errors
    /// The folder cannot be made, or the filesystem has no locks.
    pub fn hold(&self) -> Result<&Path, PathError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(self.take()?);
        }
        Ok(&self.folder)
    }

    fn take(&self) -> Result<File, PathError> {
        // Of runs that were killed: whoever still waits there has the file open.
        let beside = self.folder.parent().map(fs::read_dir);
        for left in beside.into_iter().flatten().flatten().flatten() {
            let _ = fs::remove_dir_all(left.path());
        }
        // Read by whatever user a container runs as; the folders above it are the agent's alone.
        fs::create_dir_all(&self.folder).map_err(PathError::on("create", &self.folder))?;
        fs::set_permissions(&self.folder, Permissions::from_mode(0o755))
            .map_err(PathError::on("set the mode of", &self.folder))?;
        let script = self.folder.join(WATCH);
        fs::write(&script, SCRIPT).map_err(PathError::on("write", &script))?;
        let lock = self.folder.join(LOCK);
        // The system closes it in every program that the agent starts, so that none of them keeps the lock.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o444)
            .open(&lock)
            .map_err(PathError::on("open", &lock))?;
        for path in [&script, &lock] {
            fs::set_permissions(path, Permissions::from_mode(0o444))
                .map_err(PathError::on("set the mode of", path))?;
        }
        file.try_lock()
            .map_err(|error| PathError::on("lock", &lock)(error.into()))?;
        Ok(file)
    }
}

/// Whoever still waits for the lock has the file open.
impl Drop for Watch {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            // What stays does no harm: it says nothing by itself.
            let _ = fs::remove_dir_all(&self.folder);
            // And what it lay in, where nothing else is in there.
            let _ = self.folder.parent().map(fs::remove_dir);
        }
    }
}

/// Has a container be watched. `must` says that it is not to start where nothing in its image can wait for
/// a lock. Returns whether it is watched: a container without a command is for Docker to refuse.
pub fn wrap(
    body: &mut ContainerCreateBody,
    image: &ImageConfig,
    folder: &Path,
    must: bool,
) -> bool {
    let command = command_of(body, image);
    if command.is_empty() {
        return false;
    }
    let signal = body.stop_signal.as_ref().or(image.stop_signal.as_ref());
    let signal = signal.map(|signal| signal.trim_start_matches("SIG").to_owned());
    let signal = signal.filter(|signal| KNOWN.contains(&signal.as_str()));
    // One that is handed on, also where the image wants a stranger one.
    let signal = signal.unwrap_or_else(|| "TERM".into());
    body.stop_signal = Some(format!("SIG{signal}"));
    let without = if must { "refuse" } else { "go" };
    let script = [
        "/bin/sh".to_owned(),
        format!("{PLACE}/{WATCH}"),
        format!("{PLACE}/{LOCK}"),
        signal,
        without.to_owned(),
    ];
    body.entrypoint = Some(script.into());
    body.cmd = Some(command);
    body.host_config
        .get_or_insert_default()
        .mounts
        .get_or_insert_default()
        .push(Mount {
            typ: Some(MountType::BIND),
            source: Some(folder.display().to_string()),
            target: Some(PLACE.into()),
            read_only: Some(true),
            ..Mount::default()
        });
    true
}

/// What Docker would start: a container's own entry point makes it forget the image's command.
fn command_of(body: &ContainerCreateBody, image: &ImageConfig) -> Vec<String> {
    let own = |words: &Option<Vec<String>>| words.clone().filter(|words| !words.is_empty());
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (entry, command) = match (own(&body.entrypoint), own(&body.cmd)) {
        (Some(entry), command) => (entry, command.unwrap_or_default()),
        (None, Some(command)) => (of_image(&image.entrypoint), command),
        (None, None) => (of_image(&image.entrypoint), of_image(&image.cmd)),
    };
    entry.into_iter().chain(command).collect()
}

/// Tells whether a process is the script, by its command line.
pub fn is_watch(command: &str) -> bool {
    command.contains(&format!("{PLACE}/{WATCH} {PLACE}/{LOCK} "))
}

/// Why the script did not start the server, where that is what became of the container.
pub fn refusal(image: &str, code: i64, log: &[String]) -> Option<DockerError> {
    let why = log
        .iter()
        .rev()
        .find_map(|line| line.split_once("kaapana-agent: ").map(|(_, why)| why))?;
    match code {
        CANNOT_WAIT => Some(DockerError::CannotWatch {
            image: image.to_owned(),
            why: why.to_owned(),
        }),
        NOT_HELD => Some(DockerError::LockNotSeen {
            why: why.to_owned(),
        }),
        _ => None,
    }
}

/// Tells whether a container could not be started because its image has no shell.
pub fn has_no_shell(error: &DockerError) -> bool {
    matches!(error, DockerError::Api { message, .. }
        if message.contains("/bin/sh") && message.contains("no such file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        (!text.is_empty()).then(|| text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn what_the_image_would_have_started_is_started() {
        let table = [
            // container's entry point, its command, the image's; and what comes out.
            ("", "", "entry", "cmd", "entry cmd"),
            ("", "own", "entry", "cmd", "entry own"),
            ("mine", "", "entry", "cmd", "mine"),
            ("mine", "own", "entry", "cmd", "mine own"),
            ("", "", "", "cmd", "cmd"),
            ("", "", "", "", ""),
        ];
        for (entry, command, of_image, its_command, expected) in table {
            let mut body = ContainerCreateBody {
                entrypoint: words(entry),
                cmd: words(command),
                ..ContainerCreateBody::default()
            };
            let image = ImageConfig {
                entrypoint: words(of_image),
                cmd: words(its_command),
                stop_signal: Some("SIGINT".into()),
                ..ImageConfig::default()
            };
            let watched = wrap(&mut body, &image, Path::new("/state/alive"), true);
            assert_eq!(watched, !expected.is_empty());
            let started = body.cmd.unwrap_or_default().join(" ");
            assert_eq!(started, expected);
            if watched {
                let script = body.entrypoint.unwrap_or_default();
                assert_eq!(script[3..], ["INT", "refuse"]);
                assert!(is_watch(&format!("{} {started} ", script.join(" "))));
            }
        }
    }

    #[test]
    fn a_signal_that_is_not_handed_on_gives_way_to_sigterm() {
        for (own, of_image, expected) in [
            (None, None, "SIGTERM"),
            (None, Some("SIGQUIT"), "SIGQUIT"),
            (Some("SIGINT"), Some("SIGQUIT"), "SIGINT"),
            (Some("INT"), None, "SIGINT"),
            (None, Some("SIGRTMIN+3"), "SIGTERM"),
            (Some(""), None, "SIGTERM"),
        ] {
            let mut body = ContainerCreateBody {
                cmd: words("server"),
                stop_signal: own.map(str::to_owned),
                ..ContainerCreateBody::default()
            };
            let image = ImageConfig {
                stop_signal: of_image.map(str::to_owned),
                ..ImageConfig::default()
            };
            assert!(wrap(&mut body, &image, Path::new("/alive"), false));
            assert_eq!(body.stop_signal.as_deref(), Some(expected));
        }
    }

    #[test]
    fn no_program_that_the_agent_starts_has_the_lock() {
        let dir = tempfile::tempdir().expect("temp dir");
        let watch = Watch::new(dir.path().join("alive/run"));
        let lock = watch.hold().expect("held").join(LOCK);
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let again = File::open(&lock).expect("open");
        assert!(again.try_lock_shared().is_err(), "it is held");
        drop(watch);
        // The child lives, and the lock is free: soon, as what other tests start right now has it until it is
        // another program.
        let since = std::time::Instant::now();
        while again.try_lock_shared().is_err() {
            assert!(since.elapsed().as_secs() < 30, "somebody keeps it");
            std::thread::yield_now();
        }
        assert!(!lock.exists());
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}
