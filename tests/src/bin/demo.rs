//! `cargo demo`: a throw-away Kaapana 0.2 site is migrated, killed in the middle, and migrated to the
//! end; then the new database is compared with the old one by plain psql.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lab::agent::{self, Agent, is_about, is_looked_at_again};
use lab::error::{LabError, io_error};
use lab::evidence::{Evidence, inodes};
use lab::images;
use lab::site::{Scale, Site};
use lab::workplace::{self, lab_subdir};
use serde_json::Value;

/// Sets up a throw-away Kaapana 0.2 site, migrates it to 0.3, and kills the agent on the way.
#[derive(Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo --")]
struct Arguments {
    /// How large the site is: S (1,000 images), M (100,000) or L (1,000,000).
    #[arg(long, value_enum, ignore_case = true, default_value = "s")]
    scale: Scale,
    /// Make the site here and leave it for playing with.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn main() -> ExitCode {
    match demo(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: failed to {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                eprintln!("  because: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn headline(text: &str) {
    println!("\n=== {text}");
}

fn demo(arguments: &Arguments) -> Result<bool, LabError> {
    let started = Instant::now();
    headline("Building the agent");
    let binary = agent::binary()?;
    println!("{}", binary.display());

    headline("Setting up a throw-away Kaapana 0.2 site");
    let mut site = match &arguments.keep {
        Some(dir) => Site::create(dir, arguments.scale)?,
        None => Site::temporary(arguments.scale)?,
    };
    let mut agent = Agent::on(&site)?;
    // The state outlives the site: it is what one looks at afterwards.
    if arguments.keep.is_none() {
        agent.state = lab_subdir("demo-state")?;
        workplace::remove_any(&agent.state.join(agent::PLAYBOOK))?;
    }
    println!("FAST_DATA_DIR {}", site.fast_data_dir.display());
    println!("SLOW_DATA_DIR {}", site.slow_data_dir.display());
    let before = Evidence::of(&site, &site.images.old, &site.postgres_dir(), None)?;

    headline("Migrating it; the agent will be killed (SIGKILL) in the middle of the restore");
    show(&agent.run());
    kill_in_the_restore(&agent)?;

    headline("The same command again: it continues where it was killed");
    show(&agent.run());
    let status = agent
        .run()
        .status()
        .map_err(io_error("run", &agent.binary))?;
    if !status.success() {
        println!(
            "the run ended with {status}; the site stays in {}",
            site.root.display()
        );
        site.keep()?;
        return Ok(false);
    }
    let journal = agent.journal();
    tell_what_was_redone(&journal);

    headline("Is the new database the old one?");
    let equal = compare(&site, &before)?;

    headline("Once more: everything is passed over, neither Docker nor the data is touched");
    let calm = rerun_touches_nothing(&agent, &site)?;

    headline("The state directory");
    let mut verify = Command::new(&agent.binary);
    verify
        .args(["state", "verify", "--state-dir"])
        .arg(&agent.state);
    if arguments.keep.is_none() {
        // The files that the tasks made go with the site.
        verify.arg("--no-outputs");
    }
    show(&verify);
    let sound = verify
        .status()
        .map_err(io_error("run", &agent.binary))?
        .success();
    let playbook_state = agent.state.join(agent::PLAYBOOK);
    println!(
        "\nWhat ran is in {}: journal.jsonl and a log of each task.",
        playbook_state.display()
    );
    if arguments.keep.is_some() {
        println!("The site stays in {}; remove it with", site.root.display());
        println!(
            "    cargo run --quiet --package lab --bin lab -- site remove {}",
            site.root.display()
        );
    } else {
        println!("The site is removed; `cargo demo --keep DIR` leaves it for playing with.");
    }
    let well = equal && calm && sound;
    println!(
        "\n{} after {:.0} s",
        if well {
            "The demo went well"
        } else {
            "THE DEMO FAILED"
        },
        started.elapsed().as_secs_f64()
    );
    Ok(well)
}

fn show(command: &Command) {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    println!("$ {}\n", words.join(" "));
}

/// Starts a run and kills it while the work server is being restored into.
fn kill_in_the_restore(agent: &Agent) -> Result<(), LabError> {
    let mut run = agent
        .run()
        .spawn()
        .map_err(io_error("run", &agent.binary))?;
    let patience = Duration::from_secs(600);
    agent.wait_for_record(&mut run, "task_started", "restore-work", patience)?;
    agent::wait_for(
        &mut run,
        "the restore at work",
        Duration::from_secs(60),
        || {
            restoring_container(agent).is_some_and(|name| {
                images::docker(&["top", &name, "-eo", "pid,args"])
                    .is_ok_and(|list| list.contains("pacsdb_restoring"))
            })
        },
    )?;
    // `kill` sends SIGKILL: no handler runs, nothing is cleaned up.
    run.kill().map_err(io_error("kill", &agent.binary))?;
    let status = run.wait().map_err(io_error("wait for", &agent.binary))?;
    println!("\n*** killed in the middle of the restore ({status}) ***");
    Ok(())
}

fn restoring_container(agent: &Agent) -> Option<String> {
    agent
        .journal()
        .iter()
        .rev()
        .find(|record| record["event"] == "service_started" && record["service"] == "pacs_work")
        .and_then(|record| record["container"].as_str().map(str::to_owned))
}

fn tell_what_was_redone(journal: &[Value]) {
    let runs: Vec<&str> = journal
        .iter()
        .filter(|record| record["event"] == "run_started")
        .filter_map(|record| record["run"].as_str())
        .collect();
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return;
    };
    let tasks = |run: &str, event: &str| -> BTreeSet<&str> {
        journal
            .iter()
            .filter(|record| record["run"] == run && record["event"] == event)
            .filter_map(|record| record["task"].as_str())
            .collect()
    };
    let done = tasks(first, "task_finished");
    let cut: Vec<_> = tasks(first, "task_started")
        .difference(&done)
        .copied()
        .collect();
    let second = tasks(last, "task_finished");
    let (again, twice): (Vec<&str>, Vec<&str>) = done
        .intersection(&second)
        .copied()
        .partition(|task| is_looked_at_again(task));
    println!(
        "\nSkipped, because the journal proves them done: {} tasks",
        done.len() - again.len() - twice.len()
    );
    println!("Redone, because the kill cut them short:");
    for task in &cut {
        println!("  {task}");
    }
    println!("Looked at again, because it may have changed since:");
    for task in &again {
        println!("  {task}");
    }
    println!("Run twice although they were done: {} tasks", twice.len());
    let fresh = second.len() - cut.len() - again.len() - twice.len();
    println!("Run for the first time by the second run: {fresh} tasks");
}

/// Compares by psql, on copies: the migrated directories themselves are not started.
fn compare(site: &Site, before: &Evidence) -> Result<bool, LabError> {
    let (old, kept) = (
        &site.images.old,
        site.fast_data_dir.join("postgres-dcm4che-old"),
    );
    let untouched = Evidence::of(site, old, &kept, None)? == *before;
    let new = &site.images.new;
    let new = Evidence::of(site, new, &site.postgres_dir(), Some(&before.columns))?;
    let shared = Evidence::of(site, old, &kept, Some(&new.columns))?;
    let differences = shared.differences(&new);
    for difference in &differences {
        println!("  {difference}");
    }
    let equal = differences.is_empty();
    let once = new.counter == before.counter + 1;
    println!(
        "{} tables, {} rows: {} (SHA-256 of every row, by psql, in all columns that the updates leave alone)",
        shared.tables.len(),
        shared.rows(),
        if equal { "equal" } else { "NOT EQUAL" }
    );
    println!(
        "the kept 0.2 database is {}; counter that a script run twice would raise twice: {}, then {}",
        if untouched { "as it was" } else { "CHANGED" },
        before.counter,
        new.counter
    );
    Ok(equal && untouched && once)
}

fn rerun_touches_nothing(agent: &Agent, site: &Site) -> Result<bool, LabError> {
    let (before, looked) = (inodes(&site.fast_data_dir)?, Instant::now());
    // No Docker at all: a run that does not need it does not ask for it.
    let mut rerun = agent.run();
    rerun
        .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
        .stdout(Stdio::null());
    let status = rerun.status().map_err(io_error("run", &agent.binary))?;
    let took = looked.elapsed();
    let ran = agent
        .journal()
        .iter()
        .rev()
        .take_while(|record| record["event"] != "run_started")
        .filter(|record| is_about(record, "task_started", "") || record["event"] == "task_started")
        .count();
    let containers = agent.containers()?.len();
    let untouched = inodes(&site.fast_data_dir)? == before && containers == 0;
    let calm = status.success() && ran == 0 && untouched;
    println!(
        "{} in {} ms: {ran} tasks run, {containers} containers of the agent",
        if calm {
            "nothing was touched"
        } else {
            "SOMETHING WAS TOUCHED"
        },
        took.as_millis()
    );
    Ok(calm)
}
