//! A small playbook in a folder of its own, run by the real binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::agent;
use crate::error::{LabError, io_error};
use crate::migration::{Ended, Running};

/// Tasks whose effects can be counted: each appends a word.
pub const COUNTS: &str = r#"
- id: first
  shell: echo one >> HOME/effects
- id: second
  shell: echo two >> HOME/effects
- id: items
  shell: echo {{ item }} >> HOME/effects
  loop: [x, y]
"#;

/// A playbook, its state directory and a place for effects, which go with this value.
#[derive(Debug)]
pub struct Scene {
    home: tempfile::TempDir,
    /// The state directory.
    pub state: PathBuf,
}

impl Scene {
    /// Makes a folder with `try.yaml` in it, a play with these tasks; `HOME` in them stands for the folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn with(tasks: &str) -> Result<Self, LabError> {
        let home = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
        let state = home.path().join("state");
        let scene = Self { home, state };
        scene.write(tasks)?;
        Ok(scene)
    }

    /// Writes other tasks into the playbook.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, tasks: &str) -> Result<(), LabError> {
        let home = self.home.path().display().to_string();
        let mut text = "- name: Try\n  hosts: localhost\n  tasks:\n".to_owned();
        for line in tasks.trim_matches('\n').lines() {
            text.push_str(&format!("    {}\n", line.replace("HOME", &home)));
        }
        let path = self.playbook();
        fs::write(&path, text).map_err(io_error("write", &path))
    }

    /// The playbook.
    #[must_use]
    pub fn playbook(&self) -> PathBuf {
        self.home.path().join("try.yaml")
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The words that tasks have appended to `HOME/effects`, in their order.
    #[must_use]
    pub fn effects(&self) -> String {
        let text = fs::read_to_string(self.path("effects")).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The journal.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.state.join("try/journal.jsonl")
    }

    /// The journal's whole records.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.journal_path()).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Records of one kind about a task.
    #[must_use]
    pub fn records(&self, event: &str, task: &str) -> Vec<Value> {
        let journal = self.journal().into_iter();
        journal
            .filter(|record| agent::is_about(record, event, task))
            .collect()
    }

    /// A command of the agent on the playbook, started by other programs where `before` names them.
    ///
    /// # Errors
    /// The agent does not build.
    pub fn command(
        &self,
        before: &[&str],
        words: &[&str],
        more: &[&str],
    ) -> Result<Command, LabError> {
        let binary = agent::binary()?;
        let mut command = match before {
            [] => Command::new(&binary),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&binary);
                command
            }
        };
        command
            .args(words)
            .arg(self.playbook())
            .args(more)
            .arg("--state-dir")
            .arg(&self.state)
            .stdin(std::process::Stdio::null());
        Ok(command)
    }

    /// Runs a command of the agent to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn agent(&self, words: &[&str], more: &[&str]) -> Result<Ended, LabError> {
        Running::start(&mut self.command(&[], words, more)?)?.end()
    }

    /// Runs the playbook to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self) -> Result<Ended, LabError> {
        self.agent(&["run"], &[])
    }

    /// Starts a run of the playbook.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> Result<Running, LabError> {
        Running::start(&mut self.command(&[], &["run"], &[])?)
    }
}

/// Writes playbook files into a folder and runs the first one, with more arguments and JSON lines for output.
///
/// # Errors
/// A file cannot be written, or the agent cannot be started.
pub fn run_files(dir: &Path, files: &[(&str, &str)], more: &[&str]) -> Result<Ended, LabError> {
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
    }
    let mut command = Command::new(agent::binary()?);
    command
        .args(["run", "--output", "json"])
        .arg(dir.join(files[0].0));
    command.args(more).arg("--state-dir").arg(dir.join("state"));
    Running::start(&mut command)?.end()
}

/// Returns `code file:line:column` of every problem that a run told.
#[must_use]
pub fn problems(ended: &Ended) -> Vec<String> {
    let lines = ended
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let problems = lines
        .filter(|event| event["event"] == "problem")
        .map(|problem| {
            let file = Path::new(problem["file"].as_str().unwrap_or_default());
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let code = problem["code"].as_str().unwrap_or_default();
            format!("{code} {name}:{}:{}", problem["line"], problem["column"])
        });
    problems.collect()
}
