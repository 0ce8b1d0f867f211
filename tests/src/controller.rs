//! Somebody's machine, from which playbooks are run on other hosts.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::agent::{self, is_about};
use crate::error::{LabError, io_error};
use crate::hosts::{Host, Network};
use crate::migration::{Ended, Running, must};
use crate::portable::portable_agent;

/// A controller: a playbook with its files, an inventory and a state directory, in the network's folder.
#[derive(Debug)]
pub struct Controller<'n> {
    network: &'n Network,
    playbook: PathBuf,
    /// The inventory that it uses.
    pub inventory: PathBuf,
    /// The agent that it puts on the hosts, where it is not the portable one.
    pub agent: Option<PathBuf>,
}

impl<'n> Controller<'n> {
    /// Writes `own.yaml`, a play with these tasks for all hosts of the network; `vars` are lines of the
    /// inventory.
    ///
    /// # Errors
    /// A file cannot be written, or the agent does not build.
    pub fn new(network: &'n Network, tasks: &str, vars: &str) -> Result<Self, LabError> {
        let text = format!("- name: Own\n  hosts: sites\n  become: true\n  tasks:\n{tasks}");
        Self::with(network, &text, vars)
    }

    /// As [`Controller::new`], with the text of a whole playbook.
    ///
    /// # Errors
    /// As [`Controller::new`].
    pub fn with(network: &'n Network, text: &str, vars: &str) -> Result<Self, LabError> {
        let folder = network.folder().join("playbooks");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(io_error("write", &path))
        };
        fs::create_dir_all(folder.join("files")).map_err(io_error("create", &folder))?;
        write("files/greeting", "hello from the controller\n")?;
        write("own.yaml", text)?;
        Self::of(network, folder.join("own.yaml"), vars)
    }

    /// One for a playbook that is there.
    ///
    /// # Errors
    /// As [`Controller::new`].
    pub fn of(network: &'n Network, playbook: PathBuf, vars: &str) -> Result<Self, LabError> {
        Ok(Self {
            network,
            playbook,
            inventory: network.inventory(vars)?,
            agent: None,
        })
    }

    /// A command: `words`, the playbook, the inventory and `more`.
    ///
    /// # Errors
    /// The agent does not build.
    pub fn command(&self, words: &[&str], more: &[&str]) -> Result<Command, LabError> {
        let agent = match &self.agent {
            Some(agent) => agent.clone(),
            None => portable_agent()?,
        };
        let mut command = Command::new(agent::binary()?);
        command
            .args(words)
            .arg(&self.playbook)
            .arg("-i")
            .arg(&self.inventory)
            .arg("--agent-binary")
            .arg(agent)
            .arg("--state-dir")
            .arg(self.network.folder().join("state"))
            .args(more)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, words: &[&str], more: &[&str]) -> Result<Running, LabError> {
        Running::start(&mut self.command(words, more)?)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, words: &[&str], more: &[&str]) -> Result<Ended, LabError> {
        self.start(words, more)?.end()
    }

    /// The playbook's name.
    fn name(&self) -> String {
        let name = self.playbook.file_stem().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The copy of a host's state, as a state directory.
    #[must_use]
    pub fn copy(&self, host: &Host) -> PathBuf {
        self.network.folder().join("state/hosts").join(&host.name)
    }

    /// The copy of a host's journal.
    #[must_use]
    pub fn journal_copy(&self, host: &Host) -> PathBuf {
        self.copy(host).join(self.name()).join("journal.jsonl")
    }

    /// Its records.
    ///
    /// # Errors
    /// There is none, or a record is not JSON.
    pub fn journal(&self, host: &Host) -> Result<Vec<Value>, LabError> {
        let path = self.journal_copy(host);
        let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .map_err(|error| LabError::Unexpected(format!("{}: {error}", path.display())))
            })
            .collect()
    }

    /// Fails unless the copy of a host's state verifies.
    ///
    /// # Errors
    /// Says what `state verify` says.
    pub fn copy_must_verify(&self, host: &Host) -> Result<(), LabError> {
        let mut verify = Command::new(agent::binary()?);
        verify
            .args(["state", "verify"])
            .arg(&self.playbook)
            .arg("--state-dir")
            .arg(self.copy(host));
        let verified = Running::start(&mut verify)?.end()?;
        verified.must_have(0)?;
        let said = "each follows the one before it";
        must(verified.stdout.contains(said), || verified.stdout.clone())
    }
}

/// How often a task was started or finished, by its id, in a journal.
#[must_use]
pub fn times(journal: &[Value], event: &str, task: &str) -> usize {
    journal
        .iter()
        .filter(|record| is_about(record, event, task))
        .count()
}
