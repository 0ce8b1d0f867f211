//! Power loss: a real run is traced, every state that its disk may be in is made for real, and the real
//! agent goes on from there.

mod model;
mod scene;
mod trace;

use std::path::Path;

use super::journal::Tasks;
use super::report::{Case, Seen};
use crate::error::LabError;
use crate::migration::must;
use model::{Model, Tree};
use scene::Scene;
use trace::Call;

/// States a moment, at most; beyond that a sample of this size.
const FULL_CAP: usize = 256;

/// The power losses: all states, or so many of them, spread evenly.
#[must_use]
pub fn power_losses(seed: u64, most: Option<usize>) -> Vec<Case> {
    vec![Case {
        kind: "power loss",
        name: format!("every state of the disk, seed {seed}"),
        replay: format!("--power-loss --seed {seed}"),
        work: Box::new(move || lose_power(seed, most).map(Seen::from)),
    }]
}

fn lose_power(seed: u64, most: Option<usize>) -> Result<String, LabError> {
    let scene = Scene::new()?;
    let text = scene.trace()?;
    scene.must_be_at_its_end()?;
    let mut events = trace::read(&text, &scene.root())?;
    // What stands in the lock and what tasks print is for people; the agent reads neither.
    events.retain(|event| !matches!(&event.call, Call::Write { path, .. } if is_for_people(path)));
    let model = Model::new(&scene.root(), &Scene::before(), &events)?;
    let (mut states, sampled) = model.states(FULL_CAP, seed);
    let whole = states.len();
    if let Some(most) = most {
        let step = whole.div_ceil(most.max(1)).max(1);
        let first = usize::try_from(seed).unwrap_or(0) % step;
        states = states.into_iter().skip(first).step_by(step).collect();
    }
    let tried = states.len();
    let mut wrong = Vec::new();
    for (how, tree) in &states {
        if let Err(error) = go_on(&scene, tree) {
            wrong.push(format!(
                "{error}\n    after {how}\n    which is {}",
                shown(tree)
            ));
        }
    }
    must(wrong.is_empty(), || {
        let some: Vec<&str> = wrong.iter().take(5).map(String::as_str).collect();
        format!(
            "{} of {tried} states end wrong:\n  {}",
            wrong.len(),
            some.join("\n  ")
        )
    })?;
    Ok(format!(
        "{} operations, {tried} of {whole} different states, {sampled} moments sampled",
        model.len()
    ))
}

/// The agent after a power loss: nothing is damaged, nothing finished is gone, and the end is right.
fn go_on(scene: &Scene, tree: &Tree) -> Result<(), LabError> {
    scene.restore(tree)?;
    let before = scene.records();
    if !before.is_empty() {
        scene.ask(&["status"])?.must_have(0)?;
        scene.ask(&["state", "verify"])?.must_have(0)?;
    }
    let started = |task: &str| before.iter().any(|record| is(record, "task_started", task));
    for record in &before {
        let task = record["task"].as_str().unwrap_or_default();
        let id = task.rsplit(" / ").next().unwrap_or_default();
        if record["event"] == "task_finished" {
            scene.must_have_effect(id)?;
        }
    }
    let mut run = scene.ask(&["run"])?;
    let open = started("once")
        && !before
            .iter()
            .any(|record| is(record, "task_finished", "once"));
    if run.code == Some(6) && open && !scene.site().join("marker").exists() {
        // A command that was interrupted is the operator's to judge, who sees that it has not run.
        scene.ask_operator()?;
        run = scene.ask(&["run"])?;
    }
    run.must_have(0)?;
    scene.must_be_at_its_end()?;
    let records = scene.records();
    Tasks::of(&records, &scene.root())?;
    let again = scene.ask(&["run"])?;
    again.must_have(0)?;
    let more = scene.records();
    must(more.len() == records.len() + 2, || {
        "a further run did something".into()
    })
}

fn is(record: &serde_json::Value, event: &str, task: &str) -> bool {
    crate::agent::is_about(record, event, task)
}

fn is_for_people(path: &Path) -> bool {
    path.ends_with("lock") || path.components().any(|part| part.as_os_str() == "runs")
}

fn shown(tree: &Tree) -> String {
    let names = tree.iter().map(|(path, node)| match node {
        model::Node::File(content) => format!("{} ({} bytes)", path.display(), content.len()),
        _ => path.display().to_string(),
    });
    names.collect::<Vec<_>>().join(", ")
}
