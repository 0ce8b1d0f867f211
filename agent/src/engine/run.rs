//! One run of a playbook, from the lock to the recap.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bollard::Docker;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use super::asks::AsksNothing;
use super::directories::Directories;
use super::identity::Identities;
use super::locked_state::{LockedState, Locks};
use super::options::RunOptions;
use super::plan::PlanEntry;
use super::resolve::UnknownTask;
use super::run_progress::RunProgress;
use super::session::Session;
use super::task_log::EventSink;
use crate::event::Event;
use crate::playbook::model::Playbook;
use crate::playbook::template::Templates;
use crate::redact::Redactor;
use crate::source::{Problem, shown};
use crate::state::fingerprint::sha256_hex;
use crate::state::journal::read_for;
use crate::state::{
    Answer, Body, Contents, History, HostLock, Journal, JournalLocation, Outcome, StateDir,
    StateError,
};

/// A playbook, ready to be planned or run.
pub struct Engine {
    pub(super) playbook: Playbook,
    pub(super) identities: Identities,
    pub(super) templates: Templates,
    pub(super) options: RunOptions,
    pub(super) redactor: Redactor,
    pub(super) docker: Arc<OnceCell<Docker>>,
    pub(super) base_dir: PathBuf,
    pub(super) name: String,
    pub(super) state: StateDir,
}

/// How a run ended, where nothing went wrong with the run itself.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// To the end.
    Done,
    /// A task failed; its event says why.
    Failed,
    /// SIGINT or SIGTERM; run again to continue.
    Interrupted,
    /// Only an operator can tell how to go on.
    DecisionNeeded(Vec<PlanEntry>),
}

/// A run could not begin, or could not go on being recorded.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory.
    #[error(transparent)]
    State(StateError),
    /// The playbook cannot run here as it is.
    #[error("the playbook cannot be run as it is")]
    Invalid(Vec<Problem>),
    /// A task was named that the journal does not know, or not alone.
    #[error(transparent)]
    UnknownTask(Box<UnknownTask>),
    /// A task was answered for that asks nothing.
    #[error(transparent)]
    AsksNothing(Box<AsksNothing>),
}

impl From<AsksNothing> for RunError {
    fn from(nothing: AsksNothing) -> Self {
        Self::AsksNothing(Box::new(nothing))
    }
}

impl From<UnknownTask> for RunError {
    fn from(unknown: UnknownTask) -> Self {
        Self::UnknownTask(Box::new(unknown))
    }
}

impl From<StateError> for RunError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// A run that has begun.
pub(super) struct Begun<'e> {
    pub session: Session<'e>,
    /// The journal as it was before.
    pub contents: Contents,
    pub _locks: Locks,
}

/// Why a run does not go on.
pub(super) enum Stop {
    Interrupted,
    /// Nobody saw how a task ended; the next run finds out.
    Unseen,
    Decision(Box<PlanEntry>),
    State(Box<StateError>),
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::State(Box::new(error))
    }
}

impl Engine {
    /// Takes a validated playbook. `state` is the state directory; the playbook's own folder in it is
    /// named after the file.
    ///
    /// # Errors
    /// When a play names hosts that are not this one, or a secret's value cannot be rendered.
    pub fn new(
        mut playbook: Playbook,
        state: &Path,
        options: RunOptions,
    ) -> Result<Self, RunError> {
        if let Some(plays) = &options.host.plays {
            let mut number = 0..;
            playbook
                .plays
                .retain(|_| number.next().is_some_and(|number| plays.contains(&number)));
        }
        let name = playbook_name(&playbook.path);
        let base_dir = playbook
            .path
            .parent()
            .map_or_else(PathBuf::new, Path::to_path_buf);
        let base_dir = std::path::absolute(&base_dir).unwrap_or(base_dir);
        let mut engine = Self {
            identities: Identities::of(&playbook),
            state: StateDir::new(state, &name),
            templates: Templates::new(),
            redactor: Redactor::default(),
            docker: Arc::new(OnceCell::new()),
            options,
            base_dir,
            name,
            playbook,
        };
        let problems = engine.unmet_requirements();
        if !problems.is_empty() {
            return Err(RunError::Invalid(problems));
        }
        engine.fit_declared().map_err(RunError::Invalid)?;
        engine
            .learn_secrets()
            .map_err(|problem| RunError::Invalid(vec![problem]))?;
        Ok(engine)
    }

    /// The folder of this playbook's state.
    #[must_use]
    pub fn state_dir(&self) -> &StateDir {
        &self.state
    }

    /// Number of tasks, loops counted once.
    #[must_use]
    pub fn tasks_total(&self) -> usize {
        self.identities.total()
    }

    /// Reads this playbook's journal.
    ///
    /// # Errors
    /// When it is damaged, foreign or unreadable.
    pub fn journal(&self) -> Result<Contents, StateError> {
        read_for(&self.state, &self.name)
    }

    /// Runs the playbook. The caller hears what happens through `events`.
    ///
    /// # Errors
    /// When the state cannot be locked, read or written, or an argument turns out wrong in planning.
    #[tracing::instrument(name = "run", skip_all, fields(playbook = %self.name))]
    pub async fn run(&self, events: &EventSink) -> Result<RunEnd, RunError> {
        self.require_declared()?;
        if self.options.check {
            return self.predict(events).await;
        }
        let held = self.hold(None)?;
        let history = History::of(&held.contents.records);
        // Nothing is written, and nothing on the host touched, before the plan is known to be sound.
        let (redo, plan) = self.plan_with_redo(&history)?;
        let started = Instant::now();
        let Begun {
            mut session,
            contents,
            _locks,
        } = self.begin(
            held,
            events,
            None,
            self.tasks_total(),
            redo,
            RunProgress::of(&plan),
        )?;
        if let Some(last) = history.runs.last()
            && last.command.as_deref() == Some("rollback")
            && last.outcome != Some(Outcome::Done)
        {
            let message =
                "a rollback has begun and not come to its end; this run goes forward from there";
            events(Event::Warning {
                message: message.into(),
            });
        }
        let decisions: Vec<_> = plan.decisions();
        let ended = if decisions.is_empty() {
            // Who only asks leaves every folder as it was.
            session.mark_again(&contents);
            let ended = match session.adopt_left_overs(&contents).await {
                Ok(()) => session.plays().await,
                Err(stop) => Err(stop),
            };
            let stopped = session.stop_services().await;
            // The first error is the one to tell: what stopping says may only follow from it.
            ended.and_then(|end| stopped.map(|()| end))
        } else {
            Ok(RunEnd::DecisionNeeded(decisions))
        };
        let (end, broken) = match ended {
            Ok(end) => (end, None),
            Err(Stop::Interrupted) => (RunEnd::Interrupted, None),
            Err(Stop::Unseen) => (RunEnd::Failed, None),
            Err(Stop::Decision(entry)) => (RunEnd::DecisionNeeded(vec![*entry]), None),
            Err(Stop::State(error)) => (RunEnd::Failed, Some(error)),
        };
        session.close(end.outcome(), started, broken)?;
        Ok(end)
    }

    /// Journals that a run begins; `command` is what was asked for where it is not `run`, `redo` the tasks
    /// that the operator wants again.
    pub(super) fn begin(
        &self,
        held: LockedState,
        events: &EventSink,
        command: Option<&str>,
        tasks_total: usize,
        redo: Vec<String>,
        effort: RunProgress,
    ) -> Result<Begun<'_>, RunError> {
        let LockedState {
            run,
            contents,
            mut locks,
            sites,
        } = held;
        let operator = &self.options.operator;
        let path = self.state.journal();
        let mut history = History::of(&contents.records);
        let (mut journal, torn) = Journal::open(&path, &contents, &run)?;
        if let Some(torn) = torn {
            events(Event::Warning {
                message: format!(
                    "the journal's last {} bytes were cut short by a crash and were set aside in {}; \
                     every record before them is whole",
                    torn.bytes,
                    torn.path.display()
                ),
            });
        }
        let state_id = match contents.state_id() {
            Some(id) => id.to_owned(),
            None => {
                let state_id = new_state_id();
                locks.on_host = Some(HostLock::take(&state_id)?);
                journal.append(Body::JournalCreated {
                    state_id: state_id.clone(),
                    playbook: self.name.clone(),
                    host: operator.host.clone(),
                    rehearsal: false,
                })?;
                state_id
            }
        };
        self.state.keep_id(&state_id)?;
        let here = JournalLocation::of(&path, operator.machine.as_deref())?;
        journal.append(self.run_started(here, command))?;
        events(self.run_started_event(&run, tasks_total));
        for message in self.strange(&contents, &history) {
            events(Event::Warning { message });
        }
        for task in redo {
            history.add(&journal.append(Body::TaskResolved {
                task,
                answer: Answer::Redo,
                reason: self.options.redo_reason.clone(),
                user: operator.user.clone(),
                fingerprint: None,
            })?);
        }
        let mut session = Session::new(
            self,
            events.clone(),
            history,
            Some(journal),
            run,
            state_id,
            effort,
        );
        session.directories = Directories::of(&contents.records);
        session.directories.going_back = command == Some("rollback");
        session.sites = sites;
        if command.is_some() {
            session.mark_held_sites()?;
        }
        Ok(Begun {
            session,
            contents,
            _locks: locks,
        })
    }

    async fn predict(&self, events: &EventSink) -> Result<RunEnd, RunError> {
        let contents = self.journal()?;
        let mut history = History::of(&contents.records);
        let (redo, plan) = self.plan_with_redo(&history)?;
        for task in &redo {
            self.redo_in(&mut history, task);
        }
        let started = Instant::now();
        let run = run_id();
        events(self.run_started_event(&run, self.tasks_total()));
        if let Some(message) = self.would_refuse(&contents) {
            events(Event::Warning { message });
        }
        let effort = RunProgress::of(&plan);
        let mut session = Session::new(
            self,
            events.clone(),
            history,
            None,
            run,
            String::new(),
            effort,
        );
        session.directories = Directories::of(&contents.records);
        let decisions = plan.decisions();
        let end = if decisions.is_empty() {
            match session.plays().await {
                Ok(end) => end,
                Err(Stop::Interrupted) => RunEnd::Interrupted,
                Err(Stop::Unseen) => RunEnd::Failed,
                Err(Stop::Decision(entry)) => RunEnd::DecisionNeeded(vec![*entry]),
                Err(Stop::State(error)) => return Err((*error).into()),
            }
        } else {
            RunEnd::DecisionNeeded(decisions)
        };
        session.close(end.outcome(), started, None)?;
        Ok(end)
    }

    /// What is worth a word about where and when this run begins, and no reason to stop.
    fn strange(&self, contents: &Contents, history: &History) -> Vec<String> {
        let mut found = Vec::new();
        let host = &self.options.operator.host;
        if let Some(last) = history.runs.last()
            && last.host != *host
        {
            found.push(format!(
                "this host is called {host} now, and was called {} in run {}; it is the same machine \
                 and the same state",
                last.host, last.id
            ));
        }
        let now = Timestamp::now();
        if let Some(last) = contents.records.last()
            && last.time > now
        {
            found.push(format!(
                "the clock says {now}, and the journal's last record was written at {}: the clock went \
                 back. The journal's order is kept by its numbers, its times may mislead",
                last.time
            ));
        }
        found
    }

    fn run_started_event(&self, run: &str, tasks_total: usize) -> Event {
        Event::RunStarted {
            run: run.to_owned(),
            playbook: shown(&self.playbook.path).to_string(),
            tasks_total,
            check_mode: self.options.check,
        }
    }

    fn run_started(&self, seat: JournalLocation, command: Option<&str>) -> Body {
        let mut text = String::new();
        for source in &self.playbook.sources {
            text.push_str(&sha256_hex(source.text.as_bytes()));
            text.push('\n');
        }
        let operator = &self.options.operator;
        Body::RunStarted {
            playbook: self.playbook.path.display().to_string(),
            playbook_sha256: sha256_hex(text.as_bytes()),
            user: operator.user.clone(),
            host: operator.host.clone(),
            pid: std::process::id(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            arguments: operator
                .arguments
                .iter()
                .map(|word| self.redactor.text(word))
                .collect(),
            seat: Some(seat),
            command: command.map(str::to_owned),
        }
    }
}

impl RunEnd {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Done => Outcome::Done,
            Self::Failed => Outcome::Failed,
            Self::Interrupted => Outcome::Interrupted,
            Self::DecisionNeeded(_) => Outcome::DecisionNeeded,
        }
    }
}

/// The name of a playbook's folder in the state directory: its file name without ending.
#[must_use]
pub fn playbook_name(path: &Path) -> String {
    path.file_stem().map_or_else(
        || "playbook".into(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

/// A run's id: sorts by time, unique on a host.
#[must_use]
pub fn run_id() -> String {
    let now = Timestamp::now();
    format!(
        "{}-{}",
        now.strftime("%Y%m%dT%H%M%SZ"),
        &new_state_id()[..4]
    )
}

/// A state's id: twelve hex digits that do not repeat.
#[must_use]
pub fn new_state_id() -> String {
    let mut bytes = [0_u8; 16];
    let random = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    let seed = match random {
        Ok(()) => bytes.to_vec(),
        Err(_) => format!("{}/{}", Timestamp::now(), std::process::id()).into_bytes(),
    };
    sha256_hex(&seed)[..12].to_owned()
}
