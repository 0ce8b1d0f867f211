//! A worker that panics ends its task at once, and is told with its place; the next run goes on.

use std::error::Error;
use std::time::{Duration, Instant};

use lab::migration::{Migration, Running};
use lab::site::Scale;
use serde_json::{Value, json};

/// No panic is waited for longer: the tasks of the site of scale S take seconds.
const AT_ONCE: Duration = Duration::from_secs(60);

/// Workers of a migration, in the order in which it comes to them, by the way of the database.
const GUIDE: [&str; 7] = [
    "look at a data directory",
    "work on files",
    "unpacking of an archive",
    "reader of tables",
    "work on a data directory",
    "reader of the dump",
    "restoring connection",
];
const DIRECT: [&str; 4] = [
    "module",
    "look for processes",
    "reader of a table's data",
    "restoring connection",
];

fn panics_and_goes_on(variables: &Value, workers: &[&str]) -> Result<(), Box<dyn Error>> {
    let migration = Migration::begin(Scale::S)?;
    migration.agent.set(variables)?;
    for worker in workers {
        let mut run = migration.agent.run();
        run.env("KAAPANA_AGENT_TEST_POINTS", format!("panic:{worker}"));
        let since = Instant::now();
        let ended = Running::start(&mut run)?.end()?;
        let took = since.elapsed();
        println!("{worker}: {took:?}\n{}{}", ended.stdout, ended.stderr);
        assert!(took < AT_ONCE, "{worker} took {took:?}");
        let told = format!("in its {worker}: a failure point");
        ended.must_say(&["the agent panicked at agent/host/src/worker.rs:", &told])?;
        ended.must_have(2)?;
        migration.must_leave_no_container()?;
    }
    migration.finish()?;
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn a_panic_ends_its_task_at_once_on_the_guides_route() -> Result<(), Box<dyn Error>> {
    panics_and_goes_on(&json!({}), &GUIDE)
}

#[test]
fn a_panic_ends_its_task_at_once_on_the_short_route() -> Result<(), Box<dyn Error>> {
    panics_and_goes_on(&json!({"route": "direct"}), &DIRECT)
}
