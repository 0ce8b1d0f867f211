//! A site on its way from 0.2 to 0.3, with all that a test needs to stop it there and to judge its end.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread::{scope, sleep};
use std::time::Duration;
use std::{fs, io};

use serde_json::Value;

use crate::agent::{self, Agent};
use crate::error::{LabError, io_error};
use crate::evidence::{Evidence, inodes, left_overs};
use crate::images;
use crate::site::{Scale, Site};
use crate::tool;
use crate::way::{DEPLOYED_BY, Deployment, Way};

/// How long anything in a migration of scale M may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// More migrations side by side would only wait for each other's disk.
const SIDE_BY_SIDE: usize = 2;
/// How often somebody looks whether Kaapana is to be deployed.
const LOOK: Duration = Duration::from_millis(20);

/// A site that is being migrated.
#[derive(Debug)]
pub struct Migration {
    /// The cluster in which a part of it is done. First, as its containers have the site mounted.
    pub deployment: Option<Deployment>,
    /// Which way it goes.
    pub way: Way,
    /// The site.
    pub site: Site,
    /// The agent on it.
    pub agent: Agent,
    original: (u64, u64),
    turn: Option<Turn>,
}

impl Migration {
    /// Makes a site, and waits until there is room for its migration.
    ///
    /// # Errors
    /// The site cannot be made, or the agent does not build.
    pub fn begin(scale: Scale) -> Result<Self, LabError> {
        Self::begin_on(Way::default(), scale)
    }

    /// As [`Migration::begin`], on another way.
    ///
    /// # Errors
    /// As [`Migration::begin`], and an image or the cluster cannot be made.
    pub fn begin_on(way: Way, scale: Scale) -> Result<Self, LabError> {
        Self::make(way, || Site::temporary(scale))
    }

    /// As [`Migration::begin_on`], on a site in this directory, which stays.
    ///
    /// # Errors
    /// As [`Migration::begin_on`].
    pub fn begin_at(dir: &Path, way: Way, scale: Scale) -> Result<Self, LabError> {
        Self::make(way, || Site::create(dir, scale))
    }

    /// As [`Migration::begin`], on a site that was changed in some way before it is looked at.
    ///
    /// # Errors
    /// As [`Migration::begin`], and those of `change`.
    pub fn begin_with(
        scale: Scale,
        change: impl FnOnce(&Site) -> Result<(), LabError>,
    ) -> Result<Self, LabError> {
        Self::make(Way::default(), || {
            let site = Site::temporary(scale)?;
            change(&site)?;
            Ok(site)
        })
    }

    fn make(
        way: Way,
        make_site: impl FnOnce() -> Result<Site, LabError>,
    ) -> Result<Self, LabError> {
        let turn = Turn::take();
        let deployment = Deployment::of(way)?;
        let site = make_site()?;
        let agent = Agent::on(&site)?;
        agent.set(&way.variables(deployment.as_ref().map(|there| &there.cluster))?)?;
        let original = identity(&site.postgres_dir())?;
        Ok(Self {
            deployment,
            way,
            site,
            agent,
            original,
            turn: Some(turn),
        })
    }

    /// Lets another migration go on: nothing is done with this one for a while.
    pub fn leave_turn(&mut self) {
        self.turn = None;
    }

    /// Waits until there is room for this one again.
    pub fn take_turn(&mut self) {
        self.turn.get_or_insert_with(Turn::take);
    }

    /// Where the 0.2 database is kept.
    #[must_use]
    pub fn kept_dir(&self) -> PathBuf {
        self.site.fast_data_dir.join("postgres-dcm4che-old")
    }

    /// Where the updates run.
    #[must_use]
    pub fn work_dir(&self) -> PathBuf {
        self.site.fast_data_dir.join("postgres-dcm4che9.6")
    }

    /// Where the 0.3 database is made.
    #[must_use]
    pub fn new_dir(&self) -> PathBuf {
        self.site.fast_data_dir.join("postgres-dcm4che-new")
    }

    /// Starts a run that confirms every question.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> Result<Running, LabError> {
        Running::start(&mut self.agent.run())
    }

    /// Runs to the end and fails unless it ends well.
    ///
    /// # Errors
    /// The agent ends with another exit code than 0; the error has what it printed.
    pub fn finish(&self) -> Result<(), LabError> {
        let ended = self.start()?.end()?;
        ended.must_have(0)
    }

    /// Works while somebody deploys Kaapana 0.3, as soon as the agent waits for it in this or an earlier
    /// run.
    ///
    /// # Errors
    /// Those of the work, or it cannot be deployed.
    pub fn attended<T>(&self, work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
        let Some(deployment) = &self.deployment else {
            return work();
        };
        let is_over = AtomicBool::new(false);
        scope(|scope| {
            let person = scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    if self.has_started(DEPLOYED_BY) {
                        return deployment.deploy_once(&self.site);
                    }
                    sleep(LOOK);
                }
                Ok(())
            });
            let done = work();
            is_over.store(true, Ordering::SeqCst);
            match person.join() {
                Ok(deployed) => deployed.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Tells whether the journal has begun a task.
    #[must_use]
    pub fn has_started(&self, task: &str) -> bool {
        // As text: the journal is looked at often, and its records are large.
        let journal = fs::read_to_string(self.agent.journal_path()).unwrap_or_default();
        let (end, item) = (format!(" / {task}\",\"attempt"), format!(" / {task} ["));
        journal.lines().any(|line| {
            line.contains("\"event\":\"task_started\"")
                && (line.contains(&end) || line.contains(&item))
        })
    }

    /// Asks the Docker daemon that the agent uses.
    ///
    /// # Errors
    /// As [`Agent::docker`].
    pub fn docker(&self, arguments: &[&str]) -> Result<String, LabError> {
        self.agent.docker(arguments)
    }

    /// Runs SQL in the container of a service.
    ///
    /// # Errors
    /// There is none, or a statement fails.
    pub fn psql(&self, service: &str, sql: &str) -> Result<String, LabError> {
        let container = self
            .container(service)
            .ok_or_else(|| wrong(&format!("the journal names no container of {service}")))?;
        let psql = [
            "exec", &container, "psql", "-XqAt", "-U", "pacs", "-d", "pacsdb", "-c", sql,
        ];
        Ok(self.docker(&psql)?.trim_end().to_owned())
    }

    /// Tells whether the journal has begun and not ended a task.
    #[must_use]
    pub fn is_open(&self, task: &str) -> bool {
        let journal = self.agent.journal();
        let count = |event| {
            journal
                .iter()
                .filter(|r| agent::is_about(r, event, task))
                .count()
        };
        count("task_started") > count("task_finished")
    }

    /// The container of a service, as the journal names it.
    #[must_use]
    pub fn container(&self, service: &str) -> Option<String> {
        let journal = self.agent.journal();
        let of_service =
            |record: &&Value| record["event"] == "service_started" && record["service"] == service;
        let record = journal.iter().rev().find(of_service)?;
        record["container"].as_str().map(str::to_owned)
    }

    /// Fails if anything of the agent is left but what it should leave.
    ///
    /// # Errors
    /// A container with the state's label is there, or a half-made file or directory.
    pub fn must_leave_nothing(&self) -> Result<(), LabError> {
        self.must_leave_no_container()?;
        let ends = [".partial", ".initializing", ".removing", "_restoring"];
        let files = left_overs(&self.site.root, &ends)?;
        must(files.is_empty(), || format!("files are left: {files:?}"))
    }

    /// Fails if a container of the agent is left.
    ///
    /// # Errors
    /// Names it.
    pub fn must_leave_no_container(&self) -> Result<(), LabError> {
        let containers = self.agent.containers()?;
        must(containers.is_empty(), || {
            format!("containers are left: {containers:?}")
        })
    }

    /// Fails unless the migration came to the one right end: content, places, owners, each script once.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn must_have_ended_right(&self) -> Result<(), LabError> {
        self.must_have_ended_right_with(&self.kept_dir())
    }

    /// As [`Migration::must_have_ended_right`], with the 0.2 database kept in this place.
    ///
    /// # Errors
    /// As there.
    pub fn must_have_ended_right_with(&self, kept: &Path) -> Result<(), LabError> {
        self.must_leave_nothing()?;
        let site = &self.site;
        must(identity(kept)? == self.original, || {
            "the kept database is another directory".into()
        })?;
        let meta = fs::metadata(site.postgres_dir()).map_err(io_error("inspect", kept))?;
        let found = (meta.uid(), meta.mode() & 0o7777);
        must(found == (70, 0o700), || {
            format!("owner and mode of the new database are {found:?}")
        })?;
        for gone in [self.work_dir(), self.new_dir()] {
            must(!gone.exists(), || {
                format!("{} is still there", gone.display())
            })?;
        }

        let before = original_content(site)?;
        let old = Evidence::of(site, &site.images.old, kept, None)?;
        must(old == *before, || {
            format!("the kept database changed: {:?}", before.differences(&old))
        })?;
        let new_dir = site.postgres_dir();
        let new = Evidence::of(site, &site.images.new, &new_dir, Some(&before.columns))?;
        let differences = shared_content(site, &new)?.differences(&new);
        must(differences.is_empty(), || {
            format!("the new database differs: {differences:?}")
        })?;
        must(new.tables.len() >= 35, || {
            format!("only {} tables are shared", new.tables.len())
        })?;
        must(new.schemas == before.schemas, || {
            format!(
                "the new database has the schemas {}, not {}",
                new.schemas, before.schemas
            )
        })?;
        must(new.counter == before.counter + 1, || {
            format!(
                "the counter went from {} to {}: a script did not run once",
                before.counter, new.counter
            )
        })
    }

    /// Starts a rollback that confirms every question.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_rollback(&self) -> Result<Running, LabError> {
        let mut command = self.agent.command(&["rollback"]);
        Running::start(command.arg("--yes"))
    }

    /// Fails unless the site is what it was before the migration: the very 0.2 directory with its
    /// content, nothing that was made, and a journal that tells it.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn must_be_rolled_back(&self) -> Result<(), LabError> {
        self.must_leave_nothing()?;
        let (site, data_dir) = (&self.site, self.site.postgres_dir());
        must(identity(&data_dir)? == self.original, || {
            "the 0.2 database is another directory".into()
        })?;
        let made = [self.kept_dir(), self.work_dir(), self.new_dir()];
        for gone in made {
            must(!gone.exists(), || format!("{} is there", gone.display()))?;
        }
        let left = inodes(&site.backup_dir)?;
        must(left.is_empty(), || format!("still in the backup: {left:?}"))?;
        let before = original_content(site)?;
        let now = Evidence::of(site, &site.images.old, &data_dir, None)?;
        must(now == *before, || {
            format!("the 0.2 database changed: {:?}", before.differences(&now))
        })?;
        let ask = |words: &[&str]| {
            let mut command = self.agent.command_without_variables(words);
            Running::start(&mut command)?.end()
        };
        ask(&["status"])?.must_say(&["rolled back"])?;
        ask(&["state", "verify"])?.must_have(0)
    }

    /// What lies in quarantine, by name.
    #[must_use]
    pub fn in_quarantine(&self) -> Vec<String> {
        let attempts = fs::read_dir(self.agent.quarantine()).into_iter().flatten();
        let entries = attempts
            .flatten()
            .flat_map(|attempt| fs::read_dir(attempt.path()).into_iter().flatten().flatten());
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Fails unless a further run, without Docker, passes over everything and touches nothing.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn must_be_passed_over(&self) -> Result<(), LabError> {
        let before = (
            inodes(&self.site.fast_data_dir)?,
            inodes(&self.site.backup_dir)?,
        );
        let mut again = self.agent.run();
        again.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        Running::start(&mut again)?.end()?.must_have(0)?;
        let after = (
            inodes(&self.site.fast_data_dir)?,
            inodes(&self.site.backup_dir)?,
        );
        must(before == after, || {
            "a run of a finished migration touched the data".into()
        })?;
        let started = self.started_in_the_last_run();
        must(started.is_empty(), || format!("it ran again: {started:?}"))
    }

    /// Identities of the tasks that the last run started.
    #[must_use]
    pub fn started_in_the_last_run(&self) -> Vec<String> {
        let journal = self.agent.journal();
        let last = journal
            .iter()
            .rev()
            .take_while(|record| record["event"] != "run_started");
        let started = last.filter(|record| record["event"] == "task_started");
        started
            .filter_map(|record| record["task"].as_str().map(str::to_owned))
            .collect()
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        // Paused ones too: `rm --force` kills.
        images::remove_containers_on(&self.site.root);
    }
}

/// A run of the agent, which ends with this value.
#[derive(Debug)]
pub struct Running(Option<Child>);

impl Running {
    /// Starts a command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, LabError> {
        Agent::spawn(command).map(|child| Self(Some(child)))
    }

    fn child(&mut self) -> Result<&mut Child, LabError> {
        self.0.as_mut().ok_or_else(|| wrong("the agent has ended"))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// The agent ends before, or the time is over.
    pub fn wait_for(
        &mut self,
        what: &str,
        condition: impl FnMut() -> bool,
    ) -> Result<(), LabError> {
        let seen = agent::wait_for(self.child()?, what, PATIENCE, condition);
        match seen {
            Err(error) => {
                let printed = self.stop_and_read();
                Err(LabError::Unexpected(format!("{error}\n{printed}")))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sends SIGKILL, which no handler sees, and waits for the end.
    ///
    /// # Errors
    /// There is no such process any more.
    pub fn kill(mut self) -> Result<(), LabError> {
        self.send_kill()?;
        let program = Path::new("kaapana-agent");
        self.child()?
            .wait()
            .map(drop)
            .map_err(io_error("wait for", program))
    }

    /// Sends SIGKILL and returns at once.
    ///
    /// # Errors
    /// There is no such process any more.
    pub fn send_kill(&mut self) -> Result<(), LabError> {
        let program = Path::new("kaapana-agent");
        self.child()?.kill().map_err(io_error("kill", program))
    }

    /// Tells whether the agent has ended.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn has_ended(&mut self) -> Result<bool, LabError> {
        let program = Path::new("kaapana-agent");
        let status = self.child()?.try_wait();
        status
            .map(|status| status.is_some())
            .map_err(io_error("wait for", program))
    }

    /// Sends a signal by its name.
    ///
    /// # Errors
    /// There is no such process any more.
    pub fn signal(&self, name: &str) -> Result<(), LabError> {
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &self.pid().to_string()]);
        tool::run(&mut kill, "send a signal").map(drop)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn end(mut self) -> Result<Ended, LabError> {
        let child = self.0.take().ok_or_else(|| wrong("the agent has ended"))?;
        let Output {
            status,
            stdout,
            stderr,
        } = child
            .wait_with_output()
            .map_err(io_error("wait for", Path::new("kaapana-agent")))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        })
    }

    fn stop_and_read(&mut self) -> String {
        let Some(mut child) = self.0.take() else {
            return String::new();
        };
        let _ = child.kill();
        child.wait_with_output().map_or_else(
            |error: io::Error| error.to_string(),
            |output| {
                let text = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&text).into_owned()
            },
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Ended {
    /// Fails unless the exit code is this one.
    ///
    /// # Errors
    /// It is another; the error has what was printed.
    pub fn must_have(&self, code: i32) -> Result<(), LabError> {
        must(self.code == Some(code), || {
            format!(
                "exit code {:?} instead of {code}\n{}{}",
                self.code, self.stdout, self.stderr
            )
        })
    }

    /// Fails unless every one of these texts was printed.
    ///
    /// # Errors
    /// One was not.
    pub fn must_say(&self, texts: &[&str]) -> Result<(), LabError> {
        // Long lines are broken at blanks.
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let printed = flat(&format!("{}\n{}", self.stdout, self.stderr));
        for text in texts {
            must(printed.contains(&flat(text)), || {
                format!("it does not say `{text}`:\n{}{}", self.stdout, self.stderr)
            })?;
        }
        Ok(())
    }
}

/// Fails with a message.
///
/// # Errors
/// `holds` is false.
pub fn must(holds: bool, message: impl FnOnce() -> String) -> Result<(), LabError> {
    if holds {
        Ok(())
    } else {
        Err(LabError::Unexpected(message()))
    }
}

fn wrong(message: &str) -> LabError {
    LabError::Unexpected(message.to_owned())
}

/// Device and inode.
fn identity(path: &Path) -> Result<(u64, u64), LabError> {
    let meta = fs::symlink_metadata(path).map_err(io_error("inspect", path))?;
    Ok((meta.dev(), meta.ino()))
}

/// What the sites of a scale hold before: they are copies of one original, so that one look is enough.
fn original_content(site: &Site) -> Result<&'static Evidence, LabError> {
    static KNOWN: [OnceLock<Evidence>; 3] = [const { OnceLock::new() }; 3];
    look_once(&KNOWN[site.scale as usize], site, None)
}

/// The same, in the columns that the new database has as well.
fn shared_content(site: &Site, new: &Evidence) -> Result<&'static Evidence, LabError> {
    static KNOWN: [OnceLock<Evidence>; 3] = [const { OnceLock::new() }; 3];
    look_once(&KNOWN[site.scale as usize], site, Some(new))
}

fn look_once(
    known: &'static OnceLock<Evidence>,
    site: &Site,
    new: Option<&Evidence>,
) -> Result<&'static Evidence, LabError> {
    if let Some(evidence) = known.get() {
        return Ok(evidence);
    }
    let other = Site::temporary(site.scale)?;
    let columns = new.map(|new| &new.columns);
    let evidence = Evidence::of(&other, &other.images.old, &other.postgres_dir(), columns)?;
    Ok(known.get_or_init(|| evidence))
}

/// One of the few migrations that may go on at a time in this process.
#[derive(Debug)]
struct Turn;

static GOING_ON: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn take() -> Self {
        let (count, freed) = &GOING_ON;
        let going_on = count
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut going_on = freed
            .wait_while(going_on, |count| *count >= SIDE_BY_SIDE)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *going_on += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (count, freed) = &GOING_ON;
        *count
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) -= 1;
        freed.notify_one();
    }
}
