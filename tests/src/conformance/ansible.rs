//! The peer: ansible-core in a virtual environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Case, folder, neutral};
use crate::error::{LabError, io_error};
use crate::tool;
use crate::workplace::{Lock, lab_subdir};

/// The version that expectations are made with: the newest that Python 3.11 takes.
pub const VERSION: &str = "2.19.14";

/// An installed ansible-core.
#[derive(Debug, Clone)]
pub struct Ansible {
    bin: PathBuf,
}

impl Ansible {
    /// Installs it from PyPI, where that has not been done yet, one test at a time.
    ///
    /// # Errors
    /// There is no Python with `venv`, or PyPI does not answer.
    pub fn install() -> Result<Self, LabError> {
        let _lock = Lock::take("ansible")?;
        let dir = lab_subdir("ansible")?.join(VERSION);
        let bin = dir.join("bin");
        if !bin.join("ansible-playbook").is_file() {
            tool::run(
                Command::new("python3")
                    .args(["-m", "venv", "--clear"])
                    .arg(&dir),
                "make a virtual environment for ansible-core",
            )?;
            tool::run(
                Command::new(bin.join("pip"))
                    .args(["install", "--quiet", "--disable-pip-version-check"])
                    .arg(format!("ansible-core=={VERSION}")),
                "install ansible-core",
            )?;
        }
        Ok(Self { bin })
    }

    /// `ansible-playbook` without any configuration of the host's.
    #[must_use]
    pub fn command(&self, home: &Path) -> Command {
        self.program("ansible-playbook", home)
    }

    /// `ansible-vault`, in the same way.
    #[must_use]
    pub fn vault(&self, home: &Path) -> Command {
        self.program("ansible-vault", home)
    }

    fn program(&self, name: &str, home: &Path) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", home)
            .env("ANSIBLE_CONFIG", folder().join("ansible.cfg"))
            .env("ANSIBLE_NOCOLOR", "1")
            .env("ANSIBLE_PYTHON_INTERPRETER", self.bin.join("python3"))
            .env("ANSIBLE_LOCALHOST_WARNING", "0")
            .env("ANSIBLE_INVENTORY_UNPARSED_WARNING", "0");
        command
    }

    /// Runs a case in an empty folder; returns a record of each run.
    ///
    /// # Errors
    /// It cannot be started, or leaves no record.
    pub fn run(&self, case: &Case, root: &Path) -> Result<Vec<Value>, LabError> {
        let home = super::place()?;
        let mut runs = Vec::new();
        for (number, arguments) in case.runs.iter().enumerate() {
            let record = home.path().join(format!("record-{number}"));
            let output = self
                .command(home.path())
                .current_dir(folder().join("cases"))
                .env("ANSIBLE_CALLBACK_PLUGINS", folder().join("callback"))
                .env("ANSIBLE_STDOUT_CALLBACK", "record")
                .env("CONFORMANCE_RECORD", &record)
                .arg(&case.playbook)
                .args(["-e", &format!("root={}", root.display())])
                // It looks at everything anew without being told.
                .args(arguments.iter().filter(|word| *word != "--no-checkpoint"))
                .output()
                .map_err(|source| LabError::Spawn {
                    program: "ansible-playbook".into(),
                    purpose: "run a case".into(),
                    source,
                })?;
            // Empty where it refused the playbook before a callback was made.
            let lines = fs::read_to_string(&record).unwrap_or_default();
            let said = String::from_utf8_lossy(&output.stderr);
            runs.push(
                recorded(&lines, output.status.code(), root).map_err(|reason| {
                    LabError::Unexpected(format!("{}: {reason}\n{said}", case.name))
                })?,
            );
        }
        fs::remove_dir_all(home.path()).map_err(io_error("remove", home.path()))?;
        Ok(runs)
    }
}

fn recorded(lines: &str, code: Option<i32>, root: &Path) -> Result<Value, String> {
    let exit = match code {
        Some(0) => "ok",
        Some(2) => "failed",
        // 4 stands for a playbook that cannot be read, 1 for other mistakes of the user's.
        Some(1 | 4) => "refused",
        other => return Err(format!("ansible-playbook ended with {other:?}")),
    };
    let mut tasks = Vec::new();
    let mut recap = Value::Null;
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match event.get("recap") {
            Some(found) => recap = found.clone(),
            None => tasks.push(json!(format!(
                "{}: {}",
                event["status"].as_str().unwrap_or_default(),
                neutral(event["task"].as_str().unwrap_or_default(), root)
            ))),
        }
    }
    Ok(json!({"exit": exit, "tasks": tasks, "recap": recap}))
}
