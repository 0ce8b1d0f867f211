//! A migration that was begun by hand and stopped somewhere in the seven scripts is taken up where it is.

use std::error::Error;
use std::fs;
use std::process::Command;

use lab::agent::{self, Agent};
use lab::evidence::Evidence;
use lab::migration::{Ended, Running};
use lab::schema::UPDATES;
use lab::site::{Scale, Site};
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

const PLAYBOOK: &str = "kaapana-0.3-schema";

/// A site whose work database is its only one, and the agent on it.
fn scene() -> Result<(Site, Agent), Box<dyn Error>> {
    let site = Site::temporary(Scale::S)?;
    let mut agent = Agent::on(&site)?;
    agent.playbook = agent::workspace().join(format!("playbooks/{PLAYBOOK}.yaml"));
    agent.set(&json!({"schema_dir": site.postgres_dir()}))?;
    Ok((site, agent))
}

/// Name and text of a version's script.
fn script(version: &str) -> Result<(&'static str, &'static str), Box<dyn Error>> {
    let name = format!("update-{version}-psql.sql");
    let found = UPDATES.into_iter().find(|(file, _)| *file == name);
    Ok(found.ok_or("there is such a script")?)
}

/// The texts of these scripts.
fn texts(scripts: &[(&str, &str)]) -> Vec<String> {
    scripts.iter().map(|(_, text)| (*text).to_owned()).collect()
}

/// Does by psql what the guide's reader did by hand.
fn by_hand(site: &Site, sql: &[String]) -> Outcome {
    let server = site.serve(&site.images.old, &site.postgres_dir())?;
    for statements in sql {
        server.psql(statements)?;
    }
    Ok(server.stop()?)
}

fn run(agent: &Agent) -> Result<Ended, Box<dyn Error>> {
    Ok(Running::start(&mut agent.run())?.end()?)
}

fn journal(agent: &Agent) -> Result<Vec<Value>, Box<dyn Error>> {
    let text = fs::read_to_string(agent.state.join(PLAYBOOK).join("journal.jsonl"))?;
    let records = text.lines().map(serde_json::from_str);
    Ok(records.collect::<Result<_, _>>()?)
}

/// How each script's task ended, in their order.
fn hows(agent: &Agent) -> Result<Vec<String>, Box<dyn Error>> {
    let journal = journal(agent)?;
    let ends = journal
        .iter()
        .filter(|record| agent::is_about(record, "task_finished", "update"));
    Ok(ends
        .map(|end| end["how"].as_str().unwrap_or_default().to_owned())
        .collect())
}

/// The counter that script 5.28 raises: by how much it differs from an untouched site's.
fn counted(site: &Site) -> Result<i64, Box<dyn Error>> {
    let other = Site::temporary(Scale::S)?;
    let counter = |site: &Site| Evidence::of(site, &site.images.old, &site.postgres_dir(), None);
    Ok(counter(site)?.counter - counter(&other)?.counter)
}

fn adopted(by_hand_first: usize) -> Outcome {
    let (site, agent) = scene()?;
    by_hand(&site, &texts(&UPDATES[..by_hand_first]))?;
    let ended = run(&agent)?;
    ended.must_have(0)?;
    let expected: Vec<&str> = (0..UPDATES.len())
        .map(|index| {
            if index < by_hand_first {
                "already_done"
            } else {
                "ran"
            }
        })
        .collect();
    assert_eq!(hows(&agent)?, expected, "with {by_hand_first} by hand");
    assert_eq!(counted(&site)?, 1, "5.28 ran once, by hand or by the agent");
    assert!(site.backup_dir.join("pacsdb_updated.sql").exists());

    let mut again = agent.run();
    again.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    Running::start(&mut again)?.end()?.must_have(0)?;
    Ok(())
}

#[test]
fn nothing_by_hand_means_all_seven_scripts() -> Outcome {
    adopted(0)
}

#[test]
fn two_scripts_by_hand_are_taken_for_done() -> Outcome {
    adopted(2)
}

#[test]
fn five_scripts_by_hand_are_taken_for_done() -> Outcome {
    adopted(5)
}

#[test]
fn all_scripts_by_hand_are_taken_for_done() -> Outcome {
    adopted(7)
}

#[test]
fn a_half_5_31_is_refused_by_name_and_nothing_is_applied() -> Outcome {
    let (site, agent) = scene()?;
    let mut sql = texts(&UPDATES[..4]);
    let (_, half) = script("5.31")?;
    let (before_the_drop, _) = half
        .split_once("-- while 5.31 runs")
        .ok_or("the script has its parts")?;
    sql.push(before_the_drop.to_owned());
    by_hand(&site, &sql)?;
    let ended = run(&agent)?;
    ended.must_have(2)?;
    ended.must_say(&[
        "the update to 5.31 was left half done",
        "patient.patient_id_fk is still there",
    ])?;
    let code = journal(&agent)?
        .iter()
        .rev()
        .find(|record| agent::is_about(record, "task_finished", "update"))
        .map(|record| record["result"]["code"].clone());
    assert_eq!(code, Some("postgresql::schema_half_done".into()));
    let begun = journal(&agent)?;
    let begun = begun
        .iter()
        .filter(|record| agent::is_about(record, "task_started", "update"));
    assert_eq!(begun.count(), 0, "every script is refused");
    assert!(!site.backup_dir.join("pacsdb_updated.sql").exists());

    // 5.31 left out, as by the guide's misspelt name, is refused in the same way.
    let (site, agent) = scene()?;
    let mut without = UPDATES.to_vec();
    without.remove(4);
    by_hand(&site, &texts(&without))?;
    let ended = run(&agent)?;
    ended.must_have(2)?;
    ended.must_say(&["the update to 5.31 was left half done, or was left out"])?;
    Ok(())
}

#[test]
fn what_is_done_by_hand_between_two_runs_is_taken_for_done_too() -> Outcome {
    let (site, agent) = scene()?;
    let scripts = site.root.join("scripts");
    fs::create_dir(&scripts)?;
    for (file, text) in UPDATES {
        fs::write(scripts.join(file), text)?;
    }
    let (file, text) = script("5.28")?;
    let broken = scripts.join(file);
    fs::write(&broken, "select nonsense;\n")?;
    agent.set(&json!({"update_scripts_from": "folder", "update_scripts_folder": scripts}))?;
    run(&agent)?.must_have(2)?;
    by_hand(&site, &[text.to_owned()])?;
    fs::write(&broken, text)?;
    // The mended script is fetched again, as its content is another.
    run(&agent)?.must_have(0)?;
    let how = hows(&agent)?;
    assert_eq!(
        how.iter().filter(|how| *how == "already_done").count(),
        1,
        "{how:?}"
    );
    assert_eq!(counted(&site)?, 1);
    let mut verify = Command::new(&agent.binary);
    verify
        .args(["state", "verify", "--state-dir"])
        .arg(&agent.state);
    Running::start(&mut verify)?.end()?.must_have(0)?;
    Ok(())
}
