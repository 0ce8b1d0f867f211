//! Runs a program in a process group of its own that never outlives the agent.
//!
//! The group is led by a watcher, a shell that waits on a pipe from the agent. When the agent ends the
//! command well it dismisses the watcher; when the agent dies, however suddenly, the kernel closes the
//! pipe and the watcher kills the whole group. (`PR_SET_PDEATHSIG` would need unsafe code between fork
//! and exec, is tied to the thread that forked, and spares grandchildren.) As the watcher leads the
//! group before the command is started, there is no moment in which the command is not covered.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::capture::{Capture, drain};
use super::error::ControlError;
use crate::context::HostContext;
use crate::error::ModuleError;

/// How long a command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// How long output may still come after the command ended, from processes that it left running.
const LINGER: Duration = Duration::from_millis(500);

/// Ignores what ends the command, so that it is there to end the rest. `kill -KILL 0` reaches itself,
/// too.
const WATCHER: &str = "trap '' TERM INT HUP QUIT; read -r word && exit 0; kill -KILL 0";

/// What to run.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Program, looked up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Working directory.
    pub directory: PathBuf,
    /// Added to the agent's own environment.
    pub environment: BTreeMap<String, String>,
    /// What it reads; nothing where `None`.
    pub stdin: Option<String>,
}

/// How it went.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; a signal gives its negative number, as in Ansible.
    pub rc: i32,
    /// Output, bounded.
    pub stdout: String,
    /// Error output, bounded.
    pub stderr: String,
}

impl Ended {
    /// Itself, if its code is zero.
    ///
    /// # Errors
    /// [`ControlError::NonZero`] with its last words; `shown` is what they are the words of.
    pub fn must(self, shown: &str) -> Result<Self, ControlError> {
        if self.rc == 0 {
            return Ok(self);
        }
        let said = [&self.stderr, &self.stdout]
            .into_iter()
            .find_map(|text| text.lines().rfind(|line| !line.trim().is_empty()));
        let message = match said {
            Some(said) => format!("`{shown}` ended with code {}: {}", self.rc, said.trim()),
            None => format!("`{shown}` ended with code {}", self.rc),
        };
        let result = json!({"rc": self.rc, "stdout": self.stdout, "stderr": self.stderr});
        Err(ControlError::NonZero {
            message,
            result: result.as_object().cloned().unwrap_or_default(),
        })
    }
}

struct Group {
    watcher: Child,
    pipe: Option<ChildStdin>,
    id: Pid,
}

impl Group {
    fn start() -> Result<Self, ControlError> {
        let failed = |source| ControlError::Start {
            program: "/bin/sh".into(),
            source,
        };
        let mut watcher = Command::new("/bin/sh")
            .args(["-c", WATCHER])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let id = watcher
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| failed(std::io::Error::other("it ended at once")))?;
        Ok(Self {
            pipe: watcher.stdin.take(),
            watcher,
            id: Pid::from_raw(id),
        })
    }

    fn signal(&self, signal: Signal) {
        // Fails only when nobody is left, which is what is wanted.
        let _ = killpg(self.id, signal);
    }

    /// Lets what the command left running (a daemon, say) live on, as Ansible does.
    async fn dismiss(mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(b"done\n").await;
        }
        let _ = self.watcher.wait().await;
    }
}

/// Runs a command to its end, every line of its output going to the log.
///
/// # Errors
/// [`ControlError::Start`], [`ControlError::Process`], or [`ModuleError::Cancelled`] after the whole
/// group has been ended: SIGTERM, and SIGKILL after ten seconds.
///
/// Dropping the future closes the pipe, and the group is killed.
pub async fn run(invocation: &Invocation, ctx: &HostContext) -> Result<Ended, ModuleError> {
    let program = invocation.program.to_string_lossy().into_owned();
    let io = |action| {
        let program = program.clone();
        move |source| ControlError::Process {
            action,
            program,
            source,
        }
    };
    let group = Group::start()?;
    let spawned = Command::new(&invocation.program)
        .args(&invocation.arguments)
        .current_dir(&invocation.directory)
        .envs(&invocation.environment)
        .stdin(if invocation.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(group.id.as_raw())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(source) => {
            group.dismiss().await;
            // The system reports a missing directory as if the program were missing.
            if !invocation.directory.is_dir() {
                return Err(ControlError::argument(format!(
                    "`chdir`: {} is not a directory",
                    invocation.directory.display()
                ))
                .into());
            }
            return Err(ControlError::Start { program, source }.into());
        }
    };
    let (stdout, stderr) = (
        Mutex::new(Capture::default()),
        Mutex::new(Capture::default()),
    );
    let (out, err, input) = (child.stdout.take(), child.stderr.take(), child.stdin.take());
    let streams = async {
        let out = async {
            match out {
                Some(out) => drain(out, &stdout, &ctx.progress).await,
                None => Ok(()),
            }
        };
        let err = async {
            match err {
                Some(err) => drain(err, &stderr, &ctx.progress).await,
                None => Ok(()),
            }
        };
        let feed = async {
            if let (Some(mut input), Some(text)) = (input, &invocation.stdin) {
                // A program that does not read to the end is no error.
                let _ = input.write_all(text.as_bytes()).await;
            }
        };
        let (out, err, ()) = tokio::join!(out, err, feed);
        out.and(err)
    };
    tokio::pin!(streams);
    let mut streams_ended = false;
    let status = loop {
        tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => {
                end_group(group, &mut child).await;
                return Err(ModuleError::Cancelled);
            }
            status = child.wait() => break status.map_err(io("wait for"))?,
            read = &mut streams, if !streams_ended => {
                streams_ended = true;
                read.map_err(io("read the output of"))?;
            }
        }
    };
    if !streams_ended {
        // A daemon may hold the pipes open for ever; what is in them by now is taken.
        if let Ok(read) = timeout(LINGER, &mut streams).await {
            read.map_err(io("read the output of"))?;
        }
    }
    group.dismiss().await;
    let text = |capture: &Mutex<Capture>| capture.lock().unwrap_or_else(|e| e.into_inner()).text();
    Ok(Ended {
        rc: code_of(status),
        stdout: text(&stdout),
        stderr: text(&stderr),
    })
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| -signal))
        .unwrap_or(-1)
}

/// Asks the whole group to end, waits for the command, and then makes sure of everybody.
async fn end_group(mut group: Group, child: &mut Child) {
    group.signal(Signal::SIGTERM);
    let others = async {
        let _ = child.wait().await;
        // Children of the command are not ours to wait for; the kernel's list has to do.
        while others_are_left(group.id) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(GRACE, others).await;
    // Whoever ignored it, grandchildren and the watcher included.
    group.signal(Signal::SIGKILL);
    let _ = child.wait().await;
    let _ = group.watcher.wait().await;
}

/// Tells whether anybody but the group's leader is still running in it.
fn others_are_left(group: Pid) -> bool {
    let id = group.as_raw().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_str() != Some(&id))
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .any(|stat| {
            // proc_pid_stat(5): the name in parentheses may hold anything; state, parent, group follow.
            let mut fields = stat
                .rsplit_once(") ")
                .map(|(_, rest)| rest.split(' '))
                .into_iter()
                .flatten();
            fields.next() != Some("Z") && fields.nth(1) == Some(&id)
        })
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
