//! The agent as its users meet it: the built binary, a playbook, a variables file, a state directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{LabError, io_error};
use crate::images::docker_at;
use crate::site::Site;
use crate::tool;
use crate::workplace::{lab_subdir, unique};

/// The playbook that ships with the agent.
pub const PLAYBOOK: &str = "kaapana-0.2-to-0.3";
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Names a binary that was built elsewhere.
const NAMED: &str = "KAAPANA_LAB_AGENT";
/// Tells whether a task of the shipped playbooks is a look that a later run repeats (`again_until`), by its
/// identity. Keywords stand right behind the `id` there.
#[must_use]
pub fn is_looked_at_again(identity: &str) -> bool {
    let own = identity.rsplit(" / ").next().unwrap_or(identity);
    let own = own.split(" [").next().unwrap_or(own);
    let named = format!("id: {own}");
    let folder = fs::read_dir(workspace().join("playbooks"));
    let files = folder.into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        let text = fs::read_to_string(file.path()).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        lines.any(|line| line == named)
            && lines
                .next()
                .is_some_and(|line| line.starts_with("again_until:"))
    })
}

static BUILT: OnceLock<PathBuf> = OnceLock::new();
static PLAYBOOKS: OnceLock<PathBuf> = OnceLock::new();

/// Builds the agent and keeps a copy of it and of its playbooks for this process, which nobody changes in the
/// middle of a long run.
///
/// # Errors
/// It does not build, or cannot be copied.
pub fn keep_binary() -> Result<PathBuf, LabError> {
    let built = build_workspace()?;
    let dir = lab_subdir("sites")?.join(unique("site"));
    fs::create_dir(&dir).map_err(io_error("create", &dir))?;
    let copy = dir.join("kaapana-agent");
    fs::copy(&built, &copy).map_err(io_error("copy", &built))?;
    let playbooks = dir.join("playbooks");
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(playbooks_folder()).arg(&playbooks);
    tool::run(&mut cp, "copy the playbooks")?;
    PLAYBOOKS.get_or_init(|| playbooks);
    Ok(BUILT.get_or_init(|| copy).clone())
}

/// Builds the agent in the profile that this program was built in, once a process, and returns the
/// binary.
///
/// # Errors
/// It does not build.
pub fn binary() -> Result<PathBuf, LabError> {
    if let Some(path) = BUILT.get() {
        return Ok(path.clone());
    }
    let path = build_workspace()?;
    Ok(BUILT.get_or_init(|| path).clone())
}

/// The whole workspace, so that crates keep the features that they were built with already; nothing where
/// `KAAPANA_LAB_AGENT` names a binary that is to be tried.
fn build_workspace() -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os(NAMED) {
        return Ok(PathBuf::from(path));
    }
    build(&["--workspace"], |_| ())
}

/// The playbook that migrates a site.
#[must_use]
pub fn shipped_playbook() -> PathBuf {
    playbooks_folder().join(format!("{PLAYBOOK}.yaml"))
}

/// Those that this process has kept, those that `KAAPANA_LAB_PLAYBOOKS` names, for a binary that was built
/// elsewhere, or the workspace's.
fn playbooks_folder() -> PathBuf {
    let kept = PLAYBOOKS.get().cloned();
    let named = || std::env::var_os("KAAPANA_LAB_PLAYBOOKS").map(PathBuf::from);
    kept.or_else(named)
        .unwrap_or_else(|| workspace().join("playbooks"))
}

/// Tells whether a file of `playbooks/` holds plays or tasks, not variables or their declarations.
#[must_use]
pub fn holds_tasks(name: &str) -> bool {
    name.ends_with(".yaml") && !name.ends_with(".vars.yaml") && !name.ends_with(".spec.yaml")
}

/// Has cargo build the agent; `more` says which one, and `adjust` changes the command.
///
/// # Errors
/// It does not build.
pub(crate) fn build(more: &[&str], adjust: impl FnOnce(&mut Command)) -> Result<PathBuf, LabError> {
    build_in(workspace(), more, adjust)
}

/// As [`build`], in another workspace than this one.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_in(
    workspace: &Path,
    more: &[&str],
    adjust: impl FnOnce(&mut Command),
) -> Result<PathBuf, LabError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(workspace).args(["build", "--bins"]);
    build.args(more);
    build.args(["--message-format", "json-render-diagnostics"]);
    adjust(&mut build);
    // What cargo tells a test about its own crate: build scripts that look at it would run again, and all
    // that rests on their crates would be built anew, each time in the one way and then in the other.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"]
            .iter()
            .any(|start| text.starts_with(start))
        {
            build.env_remove(&name);
        }
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let printed = tool::run(&mut build, "build the agent")?;
    printed
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kaapana-agent")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| LabError::Unexpected("cargo named no binary of the agent".into()))
}

/// The agent with the shipped playbook on one site.
#[derive(Debug)]
pub struct Agent {
    /// The binary.
    pub binary: PathBuf,
    /// The playbook.
    pub playbook: PathBuf,
    /// Variables that differ from the shipped ones.
    pub variables: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// Address of the Docker daemon, where it is not the host's own.
    pub docker_host: Option<String>,
}

impl Agent {
    /// Prepares the agent for a site: variables and state are in the site's own folder.
    ///
    /// # Errors
    /// The agent does not build, or the variables cannot be written.
    pub fn on(site: &Site) -> Result<Self, LabError> {
        let variables = site.root.join("site.yaml");
        let text = json!({
            "fast_data_dir": site.fast_data_dir,
            "slow_data_dir": site.slow_data_dir,
            "backup_dir": site.backup_dir,
            "old_image": site.images.old,
            "new_image": site.images.new,
            "old_postgresql_version": "13",
            // The stand-in of 5.28 counts in this table, so that a second run of it would show.
            "more_changed_columns": {"id_sequence": ["next_value", "version"]},
        });
        fs::write(&variables, format!("{text:#}\n")).map_err(io_error("write", &variables))?;
        Ok(Self {
            binary: binary()?,
            playbook: shipped_playbook(),
            variables,
            state: site.root.join("state"),
            docker_host: None,
        })
    }

    /// The agent without a site, for what it says of its playbook.
    ///
    /// # Errors
    /// It does not build.
    pub fn bare() -> Result<Self, LabError> {
        Ok(Self {
            binary: binary()?,
            playbook: shipped_playbook(),
            variables: PathBuf::new(),
            state: lab_subdir("sites")?.join("none"),
            docker_host: None,
        })
    }

    /// The site's variables.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn variables(&self) -> Result<Value, LabError> {
        let text =
            fs::read_to_string(&self.variables).map_err(io_error("read", &self.variables))?;
        serde_json::from_str(&text)
            .map_err(|error| LabError::Unexpected(format!("read the variables: {error}")))
    }

    /// Sets more variables of the site.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn set(&self, more: &Value) -> Result<(), LabError> {
        let mut all = self.variables()?;
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        fs::write(&self.variables, format!("{all:#}\n")).map_err(io_error("write", &self.variables))
    }

    /// A command of the agent: `words`, then the playbook, its variables and the state directory.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.command_without_variables(words);
        command.arg("-e").arg(self.at_variables());
        command
    }

    /// The same without variables, for commands that take none.
    #[must_use]
    pub fn command_without_variables(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(words)
            .arg(&self.playbook)
            .arg("--state-dir")
            .arg(&self.state)
            .stdin(Stdio::null());
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Where the shipped playbook's state keeps what was taken away.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.state.join(PLAYBOOK).join("quarantine")
    }

    /// A run that confirms every question.
    #[must_use]
    pub fn run(&self) -> Command {
        let mut command = self.command(&["run"]);
        command.arg("--yes");
        command
    }

    fn at_variables(&self) -> String {
        format!("@{}", self.variables.display())
    }

    /// Starts a command with its output kept.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Child, LabError> {
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(spawn_failed)
    }

    /// Runs a command to its end, whatever its exit status.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(command: &mut Command) -> Result<Output, LabError> {
        command.output().map_err(spawn_failed)
    }

    /// The journal of the shipped playbook.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.state.join(PLAYBOOK).join("journal.jsonl")
    }

    /// The journal's whole records so far.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.journal_path()).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Asks the Docker daemon that the agent uses.
    ///
    /// # Errors
    /// As [`docker_at`].
    pub fn docker(&self, arguments: &[&str]) -> Result<String, LabError> {
        docker_at(self.docker_host.as_deref(), arguments)
    }

    /// The state's id, with which its containers are labelled.
    ///
    /// # Errors
    /// The journal has none.
    pub fn state_id(&self) -> Result<String, LabError> {
        let journal = self.journal();
        journal
            .first()
            .and_then(|record| record["state_id"].as_str())
            .map(str::to_owned)
            .ok_or_else(|| LabError::Unexpected("the journal has no state id".into()))
    }

    /// Names of the containers, running or not, that this state's runs have left: each is labelled with
    /// the state's id.
    ///
    /// # Errors
    /// The journal has no id, or Docker does not answer.
    pub fn containers(&self) -> Result<Vec<String>, LabError> {
        let id = self.state_id()?;
        let filter = format!("label=io.kaapana.agent.state={id}");
        let names = self.docker(&["ps", "--all", "--format", "{{.Names}}", "--filter", &filter])?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Waits until the journal has a record of this kind about a task whose identity has this end.
    ///
    /// # Errors
    /// `child` ends first, or the time is over.
    pub fn wait_for_record(
        &self,
        child: &mut Child,
        event: &str,
        task: &str,
        patience: Duration,
    ) -> Result<(), LabError> {
        let what = format!("`{event}` of `{task}` in the journal");
        wait_for(child, &what, patience, || {
            self.journal()
                .iter()
                .any(|record| is_about(record, event, task))
        })
    }
}

/// Tells whether a journal record is of this kind and about a task whose identity has this end.
#[must_use]
pub fn is_about(record: &Value, event: &str, task: &str) -> bool {
    record["event"] == event
        && record["task"].as_str().is_some_and(|name| {
            name.ends_with(&format!(" / {task}")) || name.contains(&format!(" / {task} ["))
        })
}

/// Waits for a condition while a process runs.
///
/// # Errors
/// The process ends first, or the time is over.
pub fn wait_for(
    child: &mut Child,
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), LabError> {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let text = format!("see {what}: the agent ended before ({status})");
            return Err(LabError::Unexpected(text));
        }
        if Instant::now() >= deadline {
            return Err(LabError::Unexpected(format!(
                "see {what} within {patience:?}"
            )));
        }
        sleep(LOOK);
    }
}

fn spawn_failed(source: std::io::Error) -> LabError {
    LabError::Spawn {
        program: "kaapana-agent".into(),
        purpose: "run the playbook".into(),
        source,
    }
}
