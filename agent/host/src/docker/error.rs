//! How Docker modules fail.

use std::path::PathBuf;

use bollard::errors::Error as ApiError;
use serde_json::{Map, Value};

use crate::error::{ModuleFailure, PathError};

/// A Docker module did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// There is no socket where the daemon should listen.
    #[error("failed to reach Docker: there is no socket {}", path.display())]
    SocketMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The socket is there, this user may not open it.
    #[error("failed to reach Docker: no permission for {}", path.display())]
    SocketForbidden {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon does not answer.
    #[error("failed to reach Docker at {address}")]
    NotAnswering {
        /// Socket or URL.
        address: String,
        /// What the client said.
        source: ApiError,
    },
    /// The address is not one this build can talk to.
    #[error("failed to reach Docker: cannot use the address `{address}`")]
    BadAddress {
        /// As given in `DOCKER_HOST`.
        address: String,
    },
    /// A request was refused or failed.
    #[error("failed to {action}: {message}")]
    Api {
        /// What was tried, e.g. `create container pacs`.
        action: String,
        /// Docker's own words.
        message: String,
        /// HTTP status, where there was one.
        status: Option<u16>,
    },
    /// An argument is not understood.
    #[error("argument `{argument}`: {message}")]
    Argument {
        /// Its name.
        argument: &'static str,
        /// What is wrong.
        message: String,
    },
    /// No such image here.
    #[error("image `{image}` is not on this host{tried}")]
    NoImage {
        /// Its name.
        image: String,
        /// What was tried beside looking, with a leading `, `; or nothing.
        tried: String,
    },
    /// The archive was loaded and the image is still not there.
    #[error("{} does not hold the image `{image}`; it holds {}", archive.display(), held.join(", "))]
    NotInArchive {
        /// Its name.
        image: String,
        /// The file.
        archive: PathBuf,
        /// What was loaded from it.
        held: Vec<String>,
    },
    /// No such container.
    #[error("container `{name}` does not exist")]
    NoContainer {
        /// Its name.
        name: String,
    },
    /// The container is there and does not run.
    #[error("container `{name}` is not running ({state})")]
    NotRunning {
        /// Its name.
        name: String,
        /// Docker's word for its state.
        state: String,
    },
    /// It ended right after the start.
    #[error("container `{name}` ended with exit code {code} right after its start: {log}")]
    Died {
        /// Its name.
        name: String,
        /// Exit code.
        code: i64,
        /// Last lines of its log.
        log: String,
    },
    /// The name of a service's container is taken by one that is not ours.
    #[error("the container name `{name}` is taken by a container that this playbook did not start")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A bind mount's source is not there. It is never created: an empty directory would look like
    /// an empty database.
    #[error("the directory {} to be mounted at {target} does not exist", path.display())]
    BindSourceMissing {
        /// On the host.
        path: PathBuf,
        /// In the container.
        target: String,
    },
    /// Somebody else works in a directory that is about to be mounted.
    #[error("{} is in use: {}", path.display(), holders.join("; "))]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who, one line each.
        holders: Vec<String>,
    },
    /// Nothing in the image of a server can notice that the agent is gone: it would outlive it.
    #[error("image `{image}` cannot be started on a data directory: {why}")]
    CannotWatch {
        /// Its name.
        image: String,
        /// What is missing.
        why: String,
    },
    /// A container does not see the lock that the agent holds.
    #[error("the lock that tells a container that the agent is there is not held: {why}")]
    LockNotSeen {
        /// What the container found.
        why: String,
    },
    /// The container did not stop in time; it was left running.
    #[error("container `{name}` did not stop within {seconds} s and was not killed")]
    StopTimeout {
        /// Its name.
        name: String,
        /// How long it was given.
        seconds: u64,
    },
    /// The connection to a command in a container was lost: its output is not whole.
    #[error("lost the output of `{command}` in container `{container}`: {why}")]
    StreamCut {
        /// First word of the command.
        command: String,
        /// Container.
        container: String,
        /// What was seen.
        why: String,
    },
    /// Reading what is fed to a command, or writing what comes out of it, failed.
    #[error("failed to {action} of `{command}` in container `{container}`")]
    Pipe {
        /// `read the input`, `write the output`.
        action: &'static str,
        /// First word of the command.
        command: String,
        /// Container.
        container: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A command in a container ended with another code than 0.
    #[error(
        "`{command}` in container `{container}` ended with exit code {rc}{}",
        tail_of(stderr)
    )]
    CommandFailed {
        /// First word of the command.
        command: String,
        /// Container.
        container: String,
        /// Exit code.
        rc: i64,
        /// Captured.
        stdout: String,
        /// Captured.
        stderr: String,
    },
    /// The archive that Docker sent holds something that is not unpacked.
    #[error("failed to unpack {path} of `{origin}`: {message}")]
    Archive {
        /// Image or container.
        origin: String,
        /// Path inside it.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A path on this host.
    #[error(transparent)]
    Path(#[from] PathError),
}

fn tail_of(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(3)..].join(" | ");
    if last.is_empty() {
        last
    } else {
        format!(": {last}")
    }
}

impl DockerError {
    /// Returns a closure for `map_err`; `action` completes "failed to …".
    pub fn api(action: impl Into<String>) -> impl FnOnce(ApiError) -> Self {
        let action = action.into();
        move |source| Self::from_api(action, &source)
    }

    /// What Docker answers about a thing: nothing where it says that there is none. `action` completes
    /// "failed to …".
    ///
    /// # Errors
    /// Docker refuses or does not answer.
    pub fn or_absent<T>(
        answer: Result<T, ApiError>,
        action: impl Into<String>,
    ) -> Result<Option<T>, Self> {
        match answer.map_err(Self::api(action)) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Turns the client's error into ours, without its own repetitions.
    #[must_use]
    pub fn from_api(action: String, source: &ApiError) -> Self {
        match source {
            ApiError::DockerResponseServerError {
                status_code,
                message,
            } => Self::Api {
                action,
                message: message.trim().to_owned(),
                status: Some(*status_code),
            },
            ApiError::DockerStreamError { error } => Self::Api {
                action,
                message: error.trim().to_owned(),
                status: None,
            },
            other => Self::Api {
                action,
                message: chain_of(other),
                status: None,
            },
        }
    }

    /// Tells whether Docker said that there is no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Api {
                status: Some(404),
                ..
            }
        )
    }

    fn is_full_disk(&self) -> bool {
        match self {
            Self::Api { message, .. } | Self::Archive { message, .. } => {
                message.contains("no space left on device")
                    || message.contains("disk quota exceeded")
            }
            Self::Pipe { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            Self::CommandFailed { stderr, .. } => stderr.contains("No space left on device"),
            Self::Died { log, .. } => log.contains("No space left on device"),
            _ => false,
        }
    }
}

/// Joins an error and its causes; a cause that the text already says is left out.
pub fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl ModuleFailure for DockerError {
    fn code(&self) -> &'static str {
        if self.is_full_disk() {
            return "docker::disk_full";
        }
        match self {
            Self::SocketMissing { .. } => "docker::no_socket",
            Self::SocketForbidden { .. } => "docker::permission_denied",
            Self::NotAnswering { .. } => "docker::not_answering",
            Self::BadAddress { .. } => "docker::bad_address",
            Self::Api { .. } => "docker::api",
            Self::Argument { .. } => "docker::argument",
            Self::NoImage { .. } => "docker::no_image",
            Self::NotInArchive { .. } => "docker::not_in_archive",
            Self::NoContainer { .. } => "docker::no_container",
            Self::NotRunning { .. } => "docker::not_running",
            Self::Died { .. } => "docker::died",
            Self::NameTaken { .. } => "docker::name_taken",
            Self::BindSourceMissing { .. } => "docker::bind_source_missing",
            Self::Held { .. } => "docker::directory_held",
            Self::CannotWatch { .. } => "docker::cannot_watch",
            Self::LockNotSeen { .. } => "docker::lock_not_seen",
            Self::StopTimeout { .. } => "docker::stop_timeout",
            Self::StreamCut { .. } => "docker::stream_cut",
            Self::Pipe { .. } => "docker::pipe",
            Self::CommandFailed { .. } => "docker::command_failed",
            Self::Archive { .. } => "docker::archive",
            Self::Path(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        if self.is_full_disk() {
            return Some(
                "free space where Docker and the target keep their files (`df -h`), then run the \
                 playbook again; it continues here"
                    .into(),
            );
        }
        Some(match self {
            Self::SocketMissing { .. } | Self::NotAnswering { .. } => {
                "install Docker Engine or start it (`systemctl start docker`), check with `docker \
                 version`; a socket elsewhere is named by DOCKER_HOST=unix:///path"
                    .into()
            }
            Self::SocketForbidden { .. } => {
                "run as root, or as a member of the group `docker`".into()
            }
            Self::BadAddress { .. } => {
                "set DOCKER_HOST to unix:///path/to/docker.sock, or unset it".into()
            }
            Self::NoImage { image, .. } => format!(
                "on a host with internet: `docker pull {image}`; elsewhere `docker save {image} -o \
                 image.tar`, bring the file here and name it as `archive_path` (or `docker load -i \
                 image.tar`)"
            ),
            Self::NotInArchive { .. } => {
                "name the image as it is called in the archive, or save the right one".into()
            }
            Self::NameTaken { name } => format!(
                "look at it with `docker inspect {name}`; if nobody needs it: `docker stop {name}` \
                 and `docker rm {name}`, then run the playbook again"
            ),
            Self::BindSourceMissing { path, .. } => format!(
                "check the path; directories are never created here, because an empty one would \
                 look like an empty database (`ls -ld {}`)",
                path.display()
            ),
            Self::Held { .. } => {
                "stop who uses it first: undeploy Kaapana (`deploy_platform.sh --quiet \
                 --undeploy`), stop other containers on it, leave the directory in open shells"
                    .into()
            }
            Self::CannotWatch { .. } => {
                "a server on a site's data must end when the agent does: use an image with `/bin/sh` and \
                 `flock` (util-linux, or busybox), as the official PostgreSQL images are"
                    .into()
            }
            Self::LockNotSeen { .. } => {
                "the state directory must be on a filesystem of the Docker daemon's own host, under the \
                 same path: name one with `--state-dir`"
                    .into()
            }
            Self::StopTimeout { name, .. } => format!(
                "it may still be writing to disk: wait and look at `docker logs {name}`; a database \
                 killed now must recover at its next start"
            ),
            Self::StreamCut { .. } => {
                "check that the Docker daemon is up (`docker ps`), then run the playbook again"
                    .into()
            }
            Self::NotRunning { name, .. } | Self::Died { name, .. } => {
                format!("its own words: `docker logs {name}`")
            }
            Self::Path(error) => return error.help(),
            _ => return None,
        })
    }

    fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::StreamCut { .. })
    }

    fn result(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if let Self::CommandFailed {
            rc, stdout, stderr, ..
        } = self
        {
            map.insert("rc".into(), (*rc).into());
            map.insert("stdout".into(), stdout.as_str().into());
            map.insert("stderr".into(), stderr.as_str().into());
        }
        map
    }
}
