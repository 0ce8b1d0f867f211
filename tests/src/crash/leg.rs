//! One start of the agent on a migration: shot at, or to its end, with a look at the schema history on
//! the way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::LabError;
use crate::migration::{Ended, Migration, PATIENCE, Running, must};

/// The agent's variable for failure points (`agent/README.md`).
pub(super) const POINTS: &str = "KAAPANA_AGENT_TEST_POINTS";
const HISTORY: &str =
    "select script, sha256, sha256_sql from kaapana_agent.schema_history order by installed_rank";
/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// What ends a start of the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Fire {
    /// A failure point of the agent: `kill:before:17`.
    Point(String),
    /// SIGKILL from outside, so long after that many tasks were finished. The agent may be faster.
    After(usize, Duration),
    /// Nothing.
    None,
}

/// What was seen while the agent stood still.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watched {
    /// Rows of the schema history, each time they were looked at.
    pub histories: Vec<String>,
}

/// How a start ended.
#[derive(Debug)]
pub struct Leg {
    /// Exit code and what was printed.
    pub ended: Ended,
    /// How many tasks were finished, all runs counted, and when since the start that was first seen.
    pub pace: Vec<(usize, Duration)>,
    /// How long it took.
    pub took: Duration,
}

impl Leg {
    /// Starts the agent, and returns when it has ended.
    ///
    /// # Errors
    /// It cannot be started, the schema history cannot be read, or the time is over.
    pub fn run(
        migration: &Migration,
        fire: &Fire,
        watched: &mut Watched,
    ) -> Result<Self, LabError> {
        migration.attended(|| Self::run_attended(migration, fire, watched))
    }

    fn run_attended(
        migration: &Migration,
        fire: &Fire,
        watched: &mut Watched,
    ) -> Result<Self, LabError> {
        let mut command = migration.agent.run();
        // Where the agent waits until the schema history was looked at: the last moment at which its
        // server is sure to be up and all scripts are in.
        let (service, task) = migration.way.history_place();
        let mut points = format!("stop:before:task_started:{task}");
        if let Fire::Point(point) = fire {
            points.push_str(&format!(";{point}"));
        }
        command.env(POINTS, points);
        let mut progress = Progress::default();
        progress.look(&migration.agent.journal_path(), Duration::ZERO);
        let since = Instant::now();
        let mut run = Running::start(&mut command)?;
        while !run.has_ended()? {
            progress.look(&migration.agent.journal_path(), since.elapsed());
            if let Fire::After(finished, time) = fire
                && progress
                    .reached(*finished)
                    .is_some_and(|then| since.elapsed() >= then + *time)
            {
                run.send_kill()?;
                break;
            }
            if stands_still(run.pid()) {
                watched.histories.push(migration.psql(service, HISTORY)?);
                run.signal("CONT")?;
                // It takes a moment until it is seen going on.
                while stands_still(run.pid()) {
                    sleep(LOOK);
                }
            }
            must(since.elapsed() < PATIENCE, || {
                let records = migration.agent.journal();
                let last = records.last().map(ToString::to_string);
                format!(
                    "the agent runs for {PATIENCE:?}; the last record: {}",
                    last.unwrap_or_default()
                )
            })?;
            sleep(LOOK);
        }
        Ok(Self {
            ended: run.end()?,
            pace: progress.pace,
            took: since.elapsed(),
        })
    }

    /// Starts the agent, which kills itself at this phase of the append of this record.
    ///
    /// # Errors
    /// As [`Leg::run`], or it was not killed.
    pub(super) fn killed_at(
        migration: &Migration,
        phase: &str,
        record: u64,
        watched: &mut Watched,
    ) -> Result<(), LabError> {
        let fire = Fire::Point(format!("kill:{phase}:{record}"));
        let leg = Self::run(migration, &fire, watched)?;
        must(leg.was_killed(), || {
            format!(
                "it was not killed: {:?}\n{}",
                leg.ended.code, leg.ended.stderr
            )
        })
    }

    /// Tells whether a signal ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.ended.code.is_none()
    }
}

/// Watches a journal grow.
#[derive(Debug, Default)]
struct Progress {
    length: u64,
    pace: Vec<(usize, Duration)>,
}

impl Progress {
    fn look(&mut self, journal: &Path, now: Duration) {
        let length = fs::metadata(journal).map_or(0, |meta| meta.len());
        if length == self.length && !self.pace.is_empty() {
            return;
        }
        self.length = length;
        let finished = finished_tasks(journal);
        if self.pace.last().is_none_or(|(most, _)| finished > *most) {
            self.pace.push((finished, now));
        }
    }

    /// When that many tasks were first seen to be finished.
    fn reached(&self, finished: usize) -> Option<Duration> {
        let reached = self.pace.iter().find(|(count, _)| *count >= finished);
        reached.map(|(_, when)| *when)
    }
}

/// Number of tasks that a journal holds a finish of. As text: it is looked at every few milliseconds.
pub(super) fn finished_tasks(journal: &Path) -> usize {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let tasks: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.contains("\"event\":\"task_finished\""))
        .filter_map(|line| line.split("\"task\":\"").nth(1)?.split("\",\"").next())
        .collect();
    tasks.len()
}

/// Works on a migration. Where its end is wrong, its site stays until `lab clean`, to be looked at.
pub(super) fn on_a_site<T>(
    mut migration: Migration,
    work: impl FnOnce(&mut Migration) -> Result<T, LabError>,
) -> Result<T, LabError> {
    work(&mut migration).map_err(|error| {
        let root = migration.site.root.display().to_string();
        // The error is what counts.
        let _ = migration.site.keep();
        LabError::Unexpected(format!("{error}\n  the site: {root}"))
    })
}

/// State `T` of proc(5): stopped by a signal.
pub(super) fn stands_still(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, behind)| behind.starts_with('T'))
}
