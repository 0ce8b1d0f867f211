//! Why a host cannot be worked on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a host cannot be worked on, or its state not be copied. Messages do not name the host: whoever shows
/// them does.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// OpenSSH's client cannot be started.
    #[error("failed to start `{program}`: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No connection, or it ended: what ssh said.
    #[error("no connection: {said}")]
    Unreachable {
        /// The last line that ssh printed.
        said: String,
    },
    /// The host's key is not the one that is known, or none is known.
    #[error("the host's key cannot be trusted: {said}")]
    HostKey {
        /// What ssh printed.
        said: String,
    },
    /// The host takes none of the keys that are offered.
    #[error("the host refuses the login: {said}")]
    Refused {
        /// What ssh printed.
        said: String,
    },
    /// `sudo` does not let this user become root.
    #[error("sudo refuses: {said}")]
    Sudo {
        /// What sudo printed.
        said: String,
    },
    /// The agent does not run there.
    #[error("the agent does not run there ({machine}): {said}")]
    DoesNotRun {
        /// `uname -m` of the host.
        machine: String,
        /// What was printed.
        said: String,
    },
    /// The agent, or what it needs, cannot be put there.
    #[error("failed to put {what} there: {said}")]
    Push {
        /// What.
        what: &'static str,
        /// What was printed.
        said: String,
    },
    /// The agent there says no.
    #[error("{message}")]
    Agent {
        /// Its stable code.
        code: String,
        /// Its message.
        message: String,
        /// Its advice.
        help: Option<String>,
        /// Its exit code.
        exit: u8,
    },
    /// Something answers that is not the agent.
    #[error("an answer that is none of the agent's: {said}")]
    Answer {
        /// The answer, or the end of what was printed.
        said: String,
    },
    /// A file on this side.
    #[error("failed to {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The playbook's folder is no bundle.
    #[error("{}: {what}", path.display())]
    Bundle {
        /// The folder or a file of it.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The state that came back is not one that can be kept.
    #[error("the host's state is not kept: {what}")]
    State {
        /// Why.
        what: String,
    },
}

impl RemoteError {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Stable code, for looking it up.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Spawn { .. } => "remote::spawn",
            Self::Unreachable { .. } => "remote::unreachable",
            Self::HostKey { .. } => "remote::host_key",
            Self::Refused { .. } => "remote::login_refused",
            Self::Sudo { .. } => "remote::sudo",
            Self::DoesNotRun { .. } => "remote::does_not_run",
            Self::Push { .. } => "remote::push",
            Self::Agent { code, .. } => code,
            Self::Answer { .. } => "remote::answer",
            Self::Io { .. } => "remote::io",
            Self::Bundle { .. } => "remote::bundle",
            Self::State { .. } => "remote::state",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Spawn { .. } => "install OpenSSH's client (Debian: openssh-client)",
            Self::Unreachable { .. } => {
                "try `ssh` to this host by hand; `ansible_host`, `ansible_port` and \
                 `ansible_ssh_common_args` of the inventory, and ~/.ssh/config, say how it is reached"
            }
            Self::HostKey { .. } => {
                "compare the key with the one on the host's console; then `ssh-keyscan -H HOST >> \
                 ~/.ssh/known_hosts`, or `ssh-keygen -R HOST` where the host was set up anew"
            }
            Self::Refused { .. } => {
                "put your public key into the host's authorized_keys (`ssh-copy-id`), load the key \
                 into ssh-agent, or name it by `ansible_ssh_private_key_file`; passwords are not asked for"
            }
            Self::Sudo { .. } => {
                "allow it without a password (NOPASSWD in sudoers), or give the password once with \
                 --ask-become-pass (-K)"
            }
            Self::DoesNotRun { .. } => {
                "the agent is built for x86_64 Linux: name another build by --agent-binary; where the \
                 folder is mounted noexec, name another one by the variable `kaapana_agent_dir`"
            }
            Self::Push { .. } => {
                "make room on the host, or name another folder by the variable `kaapana_agent_dir`"
            }
            Self::Agent { help, .. } => return help.clone(),
            Self::Answer { .. } => {
                "a login script that prints something, or a forced command, may stand between: `ssh \
                 HOST true` must print nothing"
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "what runs as root (`--become`) is asked about as root, too"
            }
            Self::Io { .. } => return None,
            Self::Bundle { .. } => {
                "a run on other hosts takes the whole folder of the playbook with it: give the playbook \
                 a folder of its own, with nothing but what it needs"
            }
            Self::State { .. } => {
                "somebody may have put another state there: look at `state/hosts` here and at the \
                 host's own, and move the wrong one away"
            }
        };
        Some(text.to_owned())
    }

    /// Whether trying again may help: the line, not the host, said no.
    #[must_use]
    pub fn is_of_the_line(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Exit code of a run in which this is the worst that happened.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match self {
            Self::Agent { exit, .. } => *exit,
            Self::Io { .. } | Self::Bundle { .. } | Self::Spawn { .. } => 5,
            Self::State { .. } => 2,
            _ => 4,
        }
    }
}
