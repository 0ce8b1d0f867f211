//! One start of the agent on a migration: shot at, or to its end, with a look at the schema history on
//! the way.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::LabError;
use crate::migration::{Ended, Migration, PATIENCE, Running, must};

/// The agent's variable for failure points (`agent/README.md`).
pub(super) const POINTS: &str = "KAAPANA_AGENT_TEST_POINTS";
/// Where the agent waits until the schema history was looked at: the last moment at which its server is
/// sure to be up and all scripts are in.
const LOOK_AT: &str = "stop:before:task_started:dump-updated";
const HISTORY: &str =
    "select script, sha256, sha256_sql from kaapana_agent.schema_history order by installed_rank";
/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(3);

/// What ends a start of the agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Fire {
    /// A failure point of the agent: `kill:before:17`.
    Point(String),
    /// SIGKILL from outside, so long after the start. The agent may be faster.
    After(Duration),
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
        let mut command = migration.agent.run();
        let points = match fire {
            Fire::Point(point) => format!("{LOOK_AT};{point}"),
            _ => LOOK_AT.to_owned(),
        };
        command.env(POINTS, points);
        let since = Instant::now();
        let mut run = Running::start(&mut command)?;
        while !run.has_ended()? {
            if let Fire::After(time) = fire
                && since.elapsed() >= *time
            {
                run.send_kill()?;
                break;
            }
            if stands_still(run.pid()) {
                watched
                    .histories
                    .push(migration.psql("pacs_work", HISTORY)?);
                run.signal("CONT")?;
                // It takes a moment until it is seen going on.
                while stands_still(run.pid()) {
                    sleep(LOOK);
                }
            }
            must(since.elapsed() < PATIENCE, || {
                format!("the agent runs for {PATIENCE:?}")
            })?;
            sleep(LOOK);
        }
        Ok(Self {
            ended: run.end()?,
            took: since.elapsed(),
        })
    }

    /// Tells whether a signal ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.ended.code.is_none()
    }
}

/// Works on a migration. Where its end is wrong, its site stays until `lab clean`, to be looked at.
pub(super) fn on_a_site<T>(
    mut migration: Migration,
    work: impl FnOnce(&Migration) -> Result<T, LabError>,
) -> Result<T, LabError> {
    work(&migration).map_err(|error| {
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
