//! A migrated site's `/opt/kaapana-agent`, as a real migration of scale S left it: killed once in a
//! restore, then run to the end. For tests of everything that looks back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::agent::{self, Agent, PLAYBOOK, workspace};
use crate::error::{LabError, io_error};
use crate::tool;

/// A copy of the fixture that a test may change.
pub struct Migrated {
    folder: TempDir,
    binary: PathBuf,
}

impl Migrated {
    /// Copies the fixture.
    ///
    /// # Errors
    /// The agent does not build, or the system refuses.
    pub fn new() -> Result<Self, LabError> {
        let folder = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
        let from = workspace().join("tests/fixtures/migrated/.");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(&from).arg(folder.path());
        tool::run(&mut copy, "copy the fixture")?;
        Ok(Self {
            folder,
            binary: agent::binary()?,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.path().join(format!("state/{PLAYBOOK}/journal.jsonl"))
    }

    /// The playbook, as the commands name it.
    #[must_use]
    pub fn playbook() -> String {
        format!("playbooks/{PLAYBOOK}.yaml")
    }

    /// A command of the agent, in the folder, without the test's own settings.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).current_dir(self.path());
        for name in ["KAAPANA_AGENT_STATE", "NO_COLOR", "COLUMNS", "RUST_LOG"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of the agent to its end, whatever its exit status.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Output, LabError> {
        Agent::output(&mut self.command(words))
    }

    /// What a command printed and its exit status, as one text without what differs between machines.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn transcript(&self, words: &[&str]) -> Result<String, LabError> {
        let output = self.run(words)?;
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .replace(&self.path().display().to_string(), "FOLDER")
                .replace(&self.binary.display().to_string(), "kaapana-agent")
        };
        let mut transcript = format!(
            "$ kaapana-agent {}\n{}",
            words.join(" "),
            text(&output.stdout)
        );
        if !output.stderr.is_empty() {
            transcript.push_str(&format!("--- standard error\n{}", text(&output.stderr)));
        }
        let code = output.status.code().unwrap_or(-1);
        transcript.push_str(&format!("--- exit status {code}\n"));
        Ok(transcript)
    }
}
