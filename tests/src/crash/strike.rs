//! The agent stands still at a point of its journal, or works within a task, while something happens.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::leg::{POINTS, stands_still};
use crate::error::LabError;
use crate::migration::{Ended, Migration, PATIENCE, Running, must};

/// How long the agent may take to end, whatever happened to what it talks to.
pub(super) const BOUND: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(10);

/// When something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The agent stands still at a failure point until it has happened: `after:task_started:dump-old`.
    At(&'static str),
    /// While a client of this service's server works for this task: task, service.
    Within(&'static str, &'static str),
}

/// Starts the agent, and returns when the moment has come and `strike` has been dealt. The agent goes on
/// meanwhile, or after it where it stood still.
pub(super) fn strike<T>(
    migration: &Migration,
    moment: Moment,
    strike: impl FnOnce(&Running) -> Result<T, LabError>,
) -> Result<(Running, T), LabError> {
    let mut command = migration.agent.run();
    match moment {
        Moment::At(point) => {
            command.env(POINTS, format!("stop:{point}"));
            let mut run = Running::start(&mut command)?;
            let pid = run.pid();
            run.wait_for(point, || stands_still(pid))?;
            let outcome = strike(&run)?;
            run.signal("CONT")?;
            Ok((run, outcome))
        }
        Moment::Within(task, service) => {
            let mut run = Running::start(&mut command)?;
            run.wait_for(task, || migration.has_started(task))?;
            run.wait_for("a client at work", || at_work(migration, service) > 0)?;
            let outcome = strike(&run)?;
            Ok((run, outcome))
        }
    }
}

/// Number of clients whose statements the server of a service works on.
fn at_work(migration: &Migration, service: &str) -> u32 {
    let sql = "select count(*) from pg_stat_activity where state = 'active' \
               and backend_type = 'client backend' and pid <> pg_backend_pid()";
    let count = migration.psql(service, sql);
    count.ok().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Waits for the end of a run that was disturbed.
///
/// # Errors
/// It takes longer than [`BOUND`], or ends in another way than with 0 or 2.
pub(super) fn must_end(mut run: Running) -> Result<Ended, LabError> {
    let since = Instant::now();
    while !run.has_ended()? {
        must(since.elapsed() < BOUND, || {
            format!("the agent did not end within {BOUND:?}")
        })?;
        sleep(LOOK);
    }
    run.end()
}

/// Waits for a condition that nobody tells of.
///
/// # Errors
/// The time is over.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), LabError> {
    let since = Instant::now();
    while !condition() {
        must(since.elapsed() < PATIENCE, || {
            format!("see {what} within {PATIENCE:?}")
        })?;
        sleep(LOOK);
    }
    Ok(())
}
