//! The report of a migration: one HTML file that needs nothing else.
//!
//! Everything in it comes from the journal and the logs beside it; `report.html` is the template, which
//! escapes all that is put into it. It runs no scripts and loads nothing.

mod database;
mod places;
mod tasks;
mod timeline;
mod verdict;

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use super::attempts::{self, Task};
use super::units;
use crate::engine::{Plan, PlanAction};
use crate::state::{Body, Contents, History, Outcome, StateDir, TaskStatus};

const TEMPLATE: &str = include_str!("report.html");
/// The template's name; its ending turns escaping on.
const NAME: &str = "report.html";

/// What a report is made from.
pub struct Source<'a> {
    /// Name of the playbook.
    pub playbook: &'a str,
    /// The journal.
    pub contents: &'a Contents,
    /// What it says, by task.
    pub history: &'a History,
    /// Folder of the state, for logs.
    pub dir: &'a StateDir,
    /// Who works on it just now.
    pub running: Option<&'a str>,
    /// What a later run would do, or why that cannot be told.
    pub plan: Result<&'a Plan, &'a str>,
    /// When the report is made.
    pub now: Timestamp,
}

/// The report could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the report could not be rendered: {0}")]
pub struct RenderError(#[from] minijinja::Error);

#[derive(Serialize)]
struct Report {
    playbook: String,
    generated: String,
    agent_version: &'static str,
    verdict: verdict::Verdict,
    progress: Option<Progress>,
    tiles: Vec<Tile>,
    pending: Vec<Pending>,
    next_unknown: Option<String>,
    timeline: Option<timeline::Timeline>,
    database: Option<database::Database>,
    scripts: Vec<places::Script>,
    directories: Vec<places::Directory>,
    files: Vec<places::MadeFile>,
    decisions: Vec<Decision>,
    services: Vec<places::ServiceRow>,
    blocks: Vec<tasks::BlockRows>,
    skipped: Vec<tasks::Skipped>,
    logs: Vec<tasks::Log>,
    runs: Vec<RunRow>,
    proof: Proof,
}

#[derive(Serialize)]
struct Progress {
    done: usize,
    total: usize,
    percent: usize,
}

#[derive(Serialize)]
struct Tile {
    label: &'static str,
    value: String,
    note: Option<String>,
}

#[derive(Serialize)]
struct Pending {
    name: String,
    block: String,
    class: &'static str,
    word: &'static str,
    why: String,
}

#[derive(Serialize)]
struct Decision {
    task: String,
    text: String,
    user: String,
    time: String,
}

#[derive(Serialize)]
struct RunRow {
    number: usize,
    id: String,
    class: &'static str,
    word: &'static str,
    started: String,
    took: Option<String>,
    user: String,
    host: String,
    playbook: String,
    playbook_sha256: String,
    command: String,
    stats: Option<String>,
    agent_version: String,
}

#[derive(Serialize)]
struct Proof {
    text: String,
    head: String,
    records: usize,
    state_id: Option<String>,
    host: Option<String>,
}

/// Renders the report.
///
/// # Errors
/// Only if the template does not fit what it is given, which the tests rule out.
pub fn render(source: &Source<'_>) -> Result<String, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template(NAME, TEMPLATE)?;
    Ok(environment
        .get_template(NAME)?
        .render(minijinja::value::Serde(collect(source)))?)
}

fn collect(source: &Source<'_>) -> Report {
    let all = attempts::tasks(&source.contents.records);
    let runs = attempts::run_numbers(&source.contents.records);
    let names = Names::of(source.plan);
    let (progress, pending) = match source.plan {
        Ok(plan) => (Some(progress(plan)), pending(plan, &names)),
        Err(_) => (None, Vec::new()),
    };
    let database = database::collect(&all, &names);
    Report {
        playbook: source.playbook.to_owned(),
        generated: units::moment(source.now),
        agent_version: env!("CARGO_PKG_VERSION"),
        verdict: verdict::of(source, &all, database.as_ref(), pending.len(), &names),
        tiles: tiles(source, &all, database.as_ref()),
        // A full bar says nothing that the verdict does not.
        progress: progress.filter(|progress| progress.done < progress.total),
        next_unknown: match source.plan {
            Err(why) if !finished_well(source.history) => Some(why.to_owned()),
            _ => None,
        },
        pending,
        timeline: timeline::collect(source, &all, &names),
        scripts: places::scripts(&all),
        directories: places::directories(&all),
        files: places::files(&all),
        decisions: decisions(source.history, &all, &names),
        services: places::services(&source.contents.records, source.running.is_some()),
        blocks: tasks::blocks(&all, &runs, &names),
        skipped: tasks::skipped(source.history, &names),
        logs: tasks::logs(source.dir, &runs, &names),
        runs: run_rows(source),
        proof: proof(source.contents),
        database,
    }
}

fn finished_well(history: &History) -> bool {
    history
        .runs
        .last()
        .is_some_and(|run| run.outcome == Some(Outcome::Done))
}

fn progress(plan: &Plan) -> Progress {
    let counted = |wanted: fn(PlanAction) -> bool| {
        plan.entries
            .iter()
            .filter(|entry| wanted(entry.action))
            .count()
    };
    let done = counted(|action| action == PlanAction::Done);
    let total = counted(|action| action != PlanAction::Skip);
    Progress {
        done,
        total,
        percent: (done * 100).checked_div(total).unwrap_or(100),
    }
}

fn pending(plan: &Plan, names: &Names<'_>) -> Vec<Pending> {
    plan.entries
        .iter()
        .filter(|entry| !matches!(entry.action, PlanAction::Done | PlanAction::Skip))
        .map(|entry| {
            let (block, _) = split(&entry.task);
            let (class, word) = match entry.action {
                PlanAction::Decide => ("bad", "decide"),
                PlanAction::Recover => ("change", "look, then go on"),
                PlanAction::Later => ("", "known later"),
                _ => ("", "run"),
            };
            Pending {
                name: names.name(&entry.task),
                block,
                class,
                word,
                why: entry.why.clone(),
            }
        })
        .collect()
}

/// What tasks are called: by the playbook where it is at hand, else by their identity.
struct Names<'a>(HashMap<&'a str, &'a str>);

impl<'a> Names<'a> {
    fn of(plan: Result<&'a Plan, &str>) -> Self {
        let entries = plan.map_or(&[][..], |plan| &plan.entries);
        let named = entries
            .iter()
            // A name with a template says less than the identity, which has the loop's item.
            .filter(|entry| entry.name != entry.module && !entry.name.contains("{{"))
            .map(|entry| (entry.task.as_str(), entry.name.as_str()));
        Self(named.collect())
    }

    fn name(&self, identity: &str) -> String {
        let (_, end) = split(identity);
        let item = end.rfind(" [").filter(|_| end.ends_with(']'));
        match (self.0.get(identity), item) {
            (Some(name), Some(at)) => format!("{name}{}", &end[at..]),
            (Some(name), None) => (*name).to_owned(),
            (None, _) => end,
        }
    }
}

/// Splits an identity into the blocks around the task (without the play) and the task.
fn split(identity: &str) -> (String, String) {
    let (rest, name) = identity.rsplit_once(" / ").unwrap_or(("", identity));
    let block = rest.split_once(" / ").map_or("", |(_, blocks)| blocks);
    (block.to_owned(), name.to_owned())
}

/// CSS class of a status.
fn class(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Ok => "good",
        TaskStatus::Changed => "change",
        TaskStatus::Failed => "bad",
        TaskStatus::Ignored | TaskStatus::Rescued => "calm",
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn tiles(
    source: &Source<'_>,
    all: &[Task<'_>],
    database: Option<&database::Database>,
) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let history = source.history;
    if let Some(database) = database {
        tiles.push(Tile {
            label: "Rows",
            value: database.rows_now.clone(),
            note: Some(format!("in {} tables", database.tables.len())),
        });
    }
    let ended = all.iter().filter(|task| task.good_end().is_some()).count();
    tiles.push(Tile {
        label: "Tasks done",
        value: ended.to_string(),
        note: Some(match history.runs.len() {
            1 => "in one run".into(),
            number => format!("in {number} runs"),
        }),
    });
    let worked: u64 = all
        .iter()
        .flat_map(|task| &task.attempts)
        .filter_map(|attempt| attempt.end.as_ref())
        .map(|end| end.duration_ms)
        .sum();
    tiles.push(Tile {
        label: "Time in tasks",
        value: units::duration(std::time::Duration::from_millis(worked)),
        note: None,
    });
    if let (Some(first), Some(last)) = (history.runs.first(), source.contents.records.last()) {
        tiles.push(Tile {
            label: "From, UTC",
            value: first.started.strftime("%F").to_string(),
            note: Some({
                let (from, to) = (first.started, last.time);
                let same_day = from.strftime("%F").to_string() == to.strftime("%F").to_string();
                let end = if same_day { "%T" } else { "%F %T" };
                format!("{} to {}", from.strftime("%T"), to.strftime(end))
            }),
        });
    }
    tiles
}

fn decisions(history: &History, all: &[Task<'_>], names: &Names<'_>) -> Vec<Decision> {
    let answers = history.decisions.iter().map(|decision| {
        (
            decision.time,
            Decision {
                task: names.name(&decision.task),
                text: format!(
                    "{}: {}",
                    super::history::answer(decision.answer),
                    decision.reason
                ),
                user: decision.user.clone(),
                time: units::moment(decision.time),
            },
        )
    });
    let confirmed = all.iter().filter_map(|task| {
        let (attempt, end) = task.good_end()?;
        let user = end.result.get("confirmed_by")?.as_str()?;
        let prompt = text(attempt.arguments, "prompt");
        let question = prompt.lines().map(str::trim).rfind(|line| !line.is_empty());
        let decision = Decision {
            task: names.name(task.identity),
            text: format!("confirmed: {}", question.unwrap_or("the question")),
            user: user.to_owned(),
            time: units::moment(end.time),
        };
        Some((end.time, decision))
    });
    let mut all: Vec<_> = answers.chain(confirmed).collect();
    all.sort_by_key(|(time, _)| *time);
    all.into_iter().map(|(_, decision)| decision).collect()
}

fn run_rows(source: &Source<'_>) -> Vec<RunRow> {
    let runs = &source.history.runs;
    runs.iter()
        .enumerate()
        .map(|(index, run)| {
            let last = index + 1 == runs.len();
            let (word, ink) = super::history::outcome(run, last, source.running);
            let stats: BTreeMap<_, _> = run.stats.iter().filter(|(_, count)| **count > 0).collect();
            let stats: Vec<String> = stats
                .into_iter()
                .map(|(status, count)| format!("{count} {status}"))
                .collect();
            RunRow {
                number: index + 1,
                id: run.id.clone(),
                class: verdict::class_of(ink),
                word,
                started: units::moment(run.started),
                took: run
                    .duration_ms
                    .map(|ms| units::duration(std::time::Duration::from_millis(ms))),
                user: run.user.clone(),
                host: run.host.clone(),
                playbook: run.playbook.clone(),
                playbook_sha256: run.playbook_sha256.clone(),
                command: run.arguments.join(" "),
                stats: (!stats.is_empty()).then(|| stats.join(", ")),
                agent_version: run.agent_version.clone(),
            }
        })
        .collect()
}

fn proof(contents: &Contents) -> Proof {
    let records = contents.records.len();
    let mut text = format!(
        "The journal was read for this report: {records} records, each carries the hash of the one \
         before it, and all of them fit."
    );
    if !contents.torn.is_empty() {
        text.push_str(&format!(
            " After them stand {} bytes of a record that was cut short: a run is writing it, or was \
             killed while it did.",
            contents.torn.len()
        ));
    }
    let (state_id, host) = match contents.records.first().map(|record| &record.body) {
        Some(Body::JournalCreated { state_id, host, .. }) => {
            (Some(state_id.clone()), Some(host.clone()))
        }
        _ => (None, None),
    };
    Proof {
        text,
        head: contents.head.clone(),
        records,
        state_id,
        host,
    }
}

#[cfg(test)]
mod tests;
