//! The whole migration over SSH: two sites side by side, a line that is cut, a controller that is killed.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::report::{Case, Seen};
use crate::agent;
use crate::controller::{Controller, times};
use crate::error::LabError;
use crate::hosts::{Host, Network};
use crate::migration::{Migration, must};
use crate::site::Scale;

/// The task in which the line is cut.
const CUT_IN: &str = "restore-work";
/// The task in which the controller is killed.
const KILLED_IN: &str = "restore-new";
/// How long the line stays cut.
const CUT: Duration = Duration::from_secs(30);

/// The case.
#[must_use]
pub fn migrations_over_ssh(scale: Scale) -> Case {
    Case {
        kind: "migration over SSH",
        name: format!("two hosts, scale {}", scale.letter()),
        replay: format!("--over-ssh --scale {}", scale.letter()),
        work: Box::new(move || migrate(scale)),
    }
}

/// A site, the host that it is on, and the agent's state there.
struct Far {
    host: Host,
    migration: Migration,
}

fn migrate(scale: Scale) -> Result<Seen, LabError> {
    let mut network = Network::new()?;
    let mut far = Vec::new();
    for (name, suite) in [("clinic-a", "bookworm"), ("clinic-b", "trixie")] {
        let mut migration = Migration::begin(scale)?;
        let host = network.add_site(name, suite, &migration.site)?;
        let folder = migration.site.root.join("agent");
        let mut vars = migration.agent.variables()?;
        vars["kaapana_agent_dir"] = json!(folder);
        network.set(name, &vars);
        migration.agent.state = folder.join("state");
        far.push(Far { host, migration });
    }
    let playbook = agent::shipped_playbook();
    let controller = Controller::of(&network, playbook, "")?;
    let more = ["--become", "--yes"];

    let mut running = controller.start(&["run"], &more)?;
    // The line of one of them is cut while it restores, for longer than anybody waits for an answer.
    let [first, second] = far.as_slice() else {
        return Err(LabError::Unexpected("there are two hosts".into()));
    };
    running.wait_for("a restore", || first.migration.has_started(CUT_IN))?;
    network.cut(&first.host)?;
    sleep(CUT);
    network.mend(&first.host)?;
    running.wait_for("another restore", || {
        second.migration.has_started(KILLED_IN)
    })?;
    running.kill()?;
    let attached = controller.run(&["attach"], &["--become"])?;
    attached.must_have(0)?;

    for Far { host, migration } in &far {
        migration.must_have_ended_right()?;
        controller.copy_must_verify(host)?;
        let copied = controller.journal(host)?;
        must(copied == migration.agent.journal(), || {
            format!("the copy of {}'s journal is another one", host.name)
        })?;
        must(host.agents()?.is_empty(), || {
            format!("an agent is left on {}", host.name)
        })?;
        for task in [CUT_IN, KILLED_IN] {
            let begun = times(&copied, "task_started", task);
            must(begun == 1, || format!("{task} was begun {begun} times"))?;
        }
        runs(&copied, 1)?;
    }
    // A further run passes over everything.
    let again = controller.run(&["run"], &more)?;
    again.must_have(0)?;
    for Far { host, migration } in &far {
        let started = migration.started_in_the_last_run();
        must(started.is_empty(), || {
            format!("it ran again on {}: {started:?}", host.name)
        })?;
        runs(&controller.journal(host)?, 2)?;
    }
    Ok(Seen {
        said: "line cut for 30 s in a restore, controller killed in another".to_owned(),
        kills: 0,
    })
}

/// Fails unless a journal has so many runs, all of which came to their end.
fn runs(journal: &[Value], wanted: usize) -> Result<(), LabError> {
    let count = |event: &str| {
        let records = journal.iter();
        records.filter(|record| record["event"] == event).count()
    };
    let found = (count("run_started"), count("run_finished"));
    must(found == (wanted, wanted), || {
        format!("runs that began and ended: {found:?} instead of {wanted}")
    })
}
