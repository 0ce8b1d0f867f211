//! The first process of a container, seen from this host.
//!
//! While a database image initialises its data directory, this is the shell of its entry point. Such
//! a shell does not end on a stop signal, and what it leaves half made would pass for a finished
//! database at the next start.

use std::str::FromStr;

use bollard::models::ContainerInspectResponse;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::watch;

/// What runs as process 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainProcess {
    pid: i64,
    /// Name of the program.
    pub program: String,
    command: String,
    /// Signals that it has a handler for, as a bit mask: signal 1 is the lowest bit (`SigCgt` of
    /// proc(5)).
    catches: u64,
}

impl MainProcess {
    /// Looks at it. Nothing where the daemon's processes are not ours to see: its cgroup must name
    /// the container, or the number belongs to a stranger.
    #[must_use]
    pub fn of(found: &ContainerInspectResponse) -> Option<Self> {
        let id = found.id.as_deref()?;
        let pid = found.state.as_ref()?.pid.filter(|&pid| pid > 1)?;
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        if !read("cgroup")?.contains(id) {
            return None;
        }
        let status = read("status")?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Some(Self {
            pid,
            program: read("comm")?.trim().to_owned(),
            command: read("cmdline")?.replace('\0', " "),
            catches: caught?,
        })
    }

    /// Tells whether it hears a signal. The kernel drops one that the first process of a container has
    /// no handler for (pid_namespaces(7)), and a server that was just started has none yet.
    #[must_use]
    pub fn hears(&self, signal: &str) -> bool {
        number_of(signal).is_some_and(|signal| self.catches >> (signal as i32 - 1) & 1 == 1)
    }

    /// Tells whether it is a shell.
    #[must_use]
    pub fn is_shell(&self) -> bool {
        let interpreted = self.command.split(' ').next().unwrap_or_default();
        let shells = ["sh", "bash", "dash", "ash", "busybox"];
        let name = interpreted.rsplit('/').next().unwrap_or_default();
        // A script's own name stands in `comm`, its interpreter in the command line.
        shells.contains(&name) || shells.contains(&self.program.as_str())
    }

    /// Tells whether it is the entry point of an image that still prepares its server.
    #[must_use]
    pub fn is_entry_point(&self) -> bool {
        self.is_shell() && self.command.contains("entrypoint")
    }

    /// Tells whether it is the script that watches over a server: it hands signals on, and waits for the
    /// right moment itself.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        watch::is_watch(&self.command)
    }

    /// Passes a signal on to its children, which a shell does not do.
    pub fn signal_children(&self, signal: &str) {
        let Some(signal) = number_of(signal) else {
            return;
        };
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok());
            let Some(pid) = pid else { continue };
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name in parentheses may hold anything; what follows the last one is plain.
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let parent = rest
                .split_whitespace()
                .nth(1)
                .and_then(|parent| parent.parse::<i64>().ok());
            if parent == Some(self.pid) {
                // An error means that it has ended already.
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    }
}

/// A signal by its name, with or without `SIG` in front.
fn number_of(signal: &str) -> Option<Signal> {
    let name = signal.trim_start_matches("SIG");
    Signal::from_str(&format!("SIG{name}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(program: &str, command: &str) -> MainProcess {
        MainProcess {
            pid: 2,
            program: program.into(),
            command: command.into(),
            // What PostgreSQL 15 catches.
            catches: 0x14a07,
        }
    }

    #[test]
    fn a_signal_is_heard_by_who_has_a_handler_for_it() {
        let server = process("postgres", "postgres ");
        assert!(server.hears("SIGINT") && server.hears("TERM"));
        assert!(!server.hears("SIGALRM") && !server.hears("no such signal"));
    }

    #[test]
    fn the_entry_point_of_a_database_is_told_from_the_database() {
        let entry = "/bin/bash /usr/local/bin/docker-entrypoint.sh postgres ";
        assert!(process("docker-entrypoi", entry).is_entry_point());
        assert!(!process("postgres", "postgres -c fsync=on ").is_shell());
        let shell = process("sh", "sh -c sleep ");
        assert!(shell.is_shell() && !shell.is_entry_point());
    }
}
