//! The ways to the hosts of one command.

use super::super::args::HostsArgs;
use super::super::exit::Failure;
use super::choose::Chosen;
use crate::remote::{Become, SshConnection};

/// What all wires share; it goes with this value.
pub(super) struct Wires {
    /// A private folder for the sockets of shared connections.
    sockets: tempfile::TempDir,
    r#become: Become,
}

impl Wires {
    /// Asks for sudo's password where that is wanted and some host needs it.
    pub(super) fn new(hosts: &HostsArgs, chosen: &[Chosen]) -> Result<Self, Failure> {
        let needed = chosen.iter().any(|chosen| chosen.target.r#become);
        let r#become = if hosts.ask_become_pass && needed {
            Become::SudoWithPassword(password()?)
        } else {
            Become::Sudo
        };
        let sockets = tempfile::Builder::new()
            .prefix("ka-")
            .tempdir()
            .map_err(|error| {
                Failure::other(
                    "remote::sockets",
                    format!("failed to make a folder for ssh's sockets: {error}"),
                    "look at TMPDIR",
                )
            })?;
        Ok(Self { sockets, r#become })
    }

    /// The way to one of them.
    pub(super) fn to(&self, chosen: &Chosen) -> SshConnection {
        let how = if chosen.target.r#become {
            self.r#become.clone()
        } else {
            Become::No
        };
        SshConnection::new(chosen.target.clone(), self.sockets.path(), how)
    }
}

fn password() -> Result<String, Failure> {
    let terminal = console::Term::stderr();
    terminal
        .write_str("Password for sudo on the hosts: ")
        .and_then(|()| terminal.read_secure_line())
        .map_err(|error| {
            Failure::other(
                "arguments::ask_become_pass",
                format!("the password could not be asked for: {error}"),
                "run it at a terminal, or allow sudo without a password",
            )
        })
}
