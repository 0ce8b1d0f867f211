//! Deletes for good what lies in quarantine: later, only after a verified pass or a finished rollback, and
//! only what the journal says was put there.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::failure::{Failure, describe};
use super::plan::PlanAction;
use super::run::{Begun, Engine, RunError, Stop};
use super::run_progress::RunProgress;
use super::session::Session;
use super::task_log::EventSink;
use crate::event::{Event, Status};
use crate::host::error::ModuleError;
use crate::host::files::durable::{fsync_dir, metadata_of, parent_of};
use crate::host::files::error::human_bytes;
use crate::host::files::in_use::refuse_in_use;
use crate::host::files::remove::{delete_tree, refuse_vital};
use crate::host::files::walk::tree_size;
use crate::host::time::millis;
use crate::host::worker;
use crate::state::{
    Body, Contents, History, Outcome, Purged, Run, TaskHistory, UndoableTasks, check_outputs,
};
use crate::task::ask::ask;
use crate::task::context::TaskContext;

/// How many reasons a refusal names.
const NAMED: usize = 5;

/// What a purge would delete, and what stands in its way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PurgePlan {
    /// What lies in quarantine.
    pub entries: Vec<Purged>,
    /// Why nothing may be deleted yet.
    pub refusals: Vec<String>,
    /// The rollback that has come to its end, where it is that which lets things be deleted.
    pub rolled_back: Option<String>,
    /// Tasks that were said to be taken back by hand, each with its folder in quarantine: what it took away may
    /// still be there, and nowhere else.
    pub by_hand: Vec<(String, PathBuf)>,
}

impl PurgePlan {
    /// Bytes that everything takes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }
}

/// How a purge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeEnd {
    /// Everything was deleted.
    Done(PurgePlan),
    /// Nothing lies in quarantine.
    Nothing,
    /// Nothing may be deleted yet.
    Refused(Vec<String>),
    /// Nobody confirmed, or something could not be deleted; its event says why.
    Failed,
    /// SIGINT or SIGTERM; run the same command again to continue.
    Interrupted,
}

impl Engine {
    /// Looks what a purge would delete. Takes no lock and writes nothing.
    ///
    /// # Errors
    /// When the journal or the quarantine cannot be read, or an argument turns out wrong in planning.
    pub fn plan_purge(&self) -> Result<PurgePlan, RunError> {
        self.purge_plan(&self.journal()?)
    }

    fn purge_plan(&self, contents: &Contents) -> Result<PurgePlan, RunError> {
        let ctx = self.looking_context();
        let mut entries = Vec::new();
        for folder in quarantine_folders(contents) {
            entries.extend(listed(&folder, &ctx));
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let rolled_back = rolled_back(self, contents);
        let mut refusals = match rolled_back {
            Some(_) => Vec::new(),
            None => self.not_verified(contents)?,
        };
        // Nothing is taken away under somebody who uses it.
        if refusals.is_empty() {
            let held = entries
                .iter()
                .filter_map(|entry| refuse_held(&entry.path, &ctx).err());
            refusals.extend(held.map(|error| describe(&error)));
        }
        let there = |(_, folder): &(String, PathBuf)| {
            entries.iter().any(|entry| entry.path.starts_with(folder))
        };
        Ok(PurgePlan {
            by_hand: by_hand(contents).into_iter().filter(there).collect(),
            entries,
            refusals,
            rolled_back,
        })
    }

    /// Why nothing may be deleted yet: the work is not done, or not as it was recorded.
    fn not_verified(&self, contents: &Contents) -> Result<Vec<String>, RunError> {
        let history = History::of(&contents.records);
        let mut why = Vec::new();
        match last_run(&history).map(|run| (run, run.command.as_deref().unwrap_or("run"))) {
            None => why.push("nothing was run yet".to_owned()),
            Some((run, "rollback")) => why.push(format!(
                "the rollback in run {} has not come to its end",
                run.id
            )),
            Some((run, _)) if run.outcome != Some(Outcome::Done) => {
                let how = run.outcome.map_or("was cut short", Outcome::word);
                why.push(format!("the last run, {}: {how}", run.id));
            }
            Some(_) => {}
        }
        if !why.is_empty() {
            return Ok(why);
        }
        for (task, known) in history.tasks() {
            if matches!(known, TaskHistory::Undoing { .. }) {
                why.push(format!("the undo of `{task}` has not come to its end"));
            }
        }
        for entry in self.plan(&history)?.entries {
            if !matches!(entry.action, PlanAction::Done | PlanAction::Skip) {
                why.push(format!("`{}` is not done: {}", entry.task, entry.why));
            }
        }
        let more = why.len().saturating_sub(NAMED);
        if more > 0 {
            why.truncate(NAMED);
            why.push(format!("and {more} more"));
        }
        if why.is_empty() {
            let outputs = check_outputs(&history).into_iter();
            why.extend(outputs.filter_map(|output| {
                let problem = output.problem?;
                Some(format!("{}: {problem}", output.path.display()))
            }));
        }
        Ok(why)
    }

    /// Deletes what lies in quarantine, once somebody has confirmed it.
    ///
    /// # Errors
    /// When the state cannot be locked, read or written.
    pub async fn purge(&self, events: &EventSink) -> Result<PurgeEnd, RunError> {
        if !self.state.path().is_dir() {
            return Ok(PurgeEnd::Nothing);
        }
        let held = self.hold(Some("purge"))?;
        let plan = self.purge_plan(&held.contents)?;
        if plan.entries.is_empty() {
            return Ok(PurgeEnd::Nothing);
        }
        if !plan.refusals.is_empty() {
            return Ok(PurgeEnd::Refused(plan.refusals));
        }
        let started = Instant::now();
        let Begun {
            mut session,
            contents,
            _locks,
        } = self.begin(
            held,
            events,
            Some("purge"),
            plan.entries.len(),
            Vec::new(),
            RunProgress::default(),
        )?;
        let folders = quarantine_folders(&contents);
        let ended = session.delete(&plan, &folders).await;
        let (end, broken) = match ended {
            Ok(true) => (PurgeEnd::Done(plan), None),
            Ok(false) => (PurgeEnd::Failed, None),
            Err(Stop::State(error)) => (PurgeEnd::Failed, Some(error)),
            Err(Stop::Interrupted | Stop::Unseen | Stop::Decision(_)) => {
                (PurgeEnd::Interrupted, None)
            }
        };
        let outcome = match end {
            PurgeEnd::Interrupted => Outcome::Interrupted,
            PurgeEnd::Failed => Outcome::Failed,
            _ => Outcome::Done,
        };
        session.close(outcome, started, broken)?;
        Ok(end)
    }
}

impl Session<'_> {
    /// Returns false where it was not confirmed or failed, which its event says.
    async fn delete(&mut self, plan: &PurgePlan, folders: &[PathBuf]) -> Result<bool, Stop> {
        let started = Instant::now();
        let engine = self.engine;
        let mut ctx = engine.looking_context();
        ctx.cancel = engine.options.cancel.child_token();
        let confirmed_by = match ask(&ctx, &question(plan)).await {
            Ok(by) => by,
            Err(error) => return self.not_deleted("confirm", &error, started),
        };
        self.record(Body::PurgeStarted {
            entries: plan.entries.clone(),
            confirmed_by,
        })?;
        for entry in &plan.entries {
            let since = Instant::now();
            let name = entry.path.display().to_string();
            (self.events)(Event::TaskStarted {
                task: name.clone(),
                name: name.clone(),
                item: None,
                reason: None,
            });
            let (path, own) = (entry.path.clone(), ctx.clone());
            let deleted = worker::blocking("purge", move || delete_one(&path, &own)).await;
            if let Err(error) = deleted.and_then(|deleted| deleted) {
                return self.not_deleted(&name, &error, since);
            }
            self.stats.ok += 1;
            self.stats.changed += 1;
            let summary = format!("deleted, {} freed", human_bytes(entry.bytes));
            let result = serde_json::json!({"changed": true, "size_bytes": entry.bytes});
            self.purge_event(&name, Status::Changed, result, summary, since);
        }
        for folder in folders {
            remove_empty(folder);
        }
        self.record(Body::PurgeFinished {
            bytes: plan.bytes(),
            duration_ms: millis(started.elapsed()),
        })?;
        Ok(true)
    }

    fn not_deleted(
        &mut self,
        name: &str,
        error: &ModuleError,
        since: Instant,
    ) -> Result<bool, Stop> {
        let failure = Failure::of_module(error).ok_or(Stop::Interrupted)?;
        self.stats.failed += 1;
        let result = failure.to_result().into();
        self.purge_event(name, Status::Failed, result, describe(error), since);
        Ok(false)
    }

    fn purge_event(
        &self,
        name: &str,
        status: Status,
        result: serde_json::Value,
        summary: String,
        since: Instant,
    ) {
        (self.events)(Event::TaskFinished {
            task: name.to_owned(),
            name: name.to_owned(),
            item: None,
            status,
            result,
            summary: Some(summary),
            duration_ms: millis(since.elapsed()),
        });
    }
}

/// Every folder that an attempt may have moved something into, as the intents name them.
fn quarantine_folders(contents: &Contents) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for record in &contents.records {
        if let Body::TaskStarted { intent, .. } | Body::UndoStarted { intent, .. } = &record.body {
            for folder in folders_of(intent) {
                if !found.contains(&folder) {
                    found.push(folder);
                }
            }
        }
    }
    found
}

fn folders_of(intent: &Value) -> Vec<PathBuf> {
    let places = [&intent["quarantine"], &intent["before"]["quarantine"]];
    let several = places
        .into_iter()
        .flat_map(|place| place.as_array().into_iter().flatten().chain([place]));
    several
        .filter_map(|folder| folder.as_str().map(PathBuf::from))
        .collect()
}

fn last_run(history: &History) -> Option<&Run> {
    let purges = |run: &&Run| run.command.as_deref() == Some("purge");
    history.runs.iter().rfind(|run| !purges(run))
}

/// The run in which everything was taken back, if nothing was done since.
fn rolled_back(engine: &Engine, contents: &Contents) -> Option<String> {
    let history = History::of(&contents.records);
    let last = last_run(&history)?;
    let is_over = last.command.as_deref() == Some("rollback")
        && last.outcome == Some(Outcome::Done)
        && engine
            .without_undo_tasks(UndoableTasks::of(&contents.records))
            .deeds
            .is_empty();
    is_over.then(|| last.id.clone())
}

/// Tasks whose undo was accepted, with the folders that their attempts moved things into.
fn by_hand(contents: &Contents) -> Vec<(String, PathBuf)> {
    let bodies = || contents.records.iter().map(|record| &record.body);
    let accepted: Vec<&String> = bodies()
        .filter_map(|body| match body {
            Body::UndoFinished { task, result, .. } if !result["accepted_by"].is_null() => {
                Some(task)
            }
            _ => None,
        })
        .collect();
    bodies()
        .filter_map(|body| match body {
            Body::TaskStarted { task, intent, .. } if accepted.contains(&task) => {
                Some((task, intent))
            }
            _ => None,
        })
        .flat_map(|(task, intent)| {
            let folders = folders_of(intent).into_iter();
            folders.map(|folder| (task.clone(), folder))
        })
        .collect()
}

/// Refuses what a process or a mount still uses.
fn refuse_held(path: &Path, ctx: &TaskContext) -> Result<(), ModuleError> {
    refuse_vital(path, ctx)?;
    match refuse_in_use(path, ctx) {
        // Not every user may look into all processes.
        Err(ModuleError::Failed(failure)) if failure.code() != "files::in_use" => Ok(()),
        looked => looked,
    }
}

fn question(plan: &PurgePlan) -> String {
    let mut text = String::new();
    if let Some(run) = &plan.rolled_back {
        text.push_str(&format!(
            "Everything was taken back in run {run}. What had been made until then, and in earlier \
             attempts, lies in quarantine: afterwards nobody can look at it or bring it back any \
             more, and a later run makes all of it anew.\n"
        ));
    }
    for (task, folder) in &plan.by_hand {
        text.push_str(&format!(
            "`{task}` was said to be taken back by hand: {} has what it took away. If that is not back \
             in its place, this is the last copy of it.\n",
            folder.display()
        ));
    }
    text.push_str("This is deleted for good:\n");
    for entry in &plan.entries {
        let size = human_bytes(entry.bytes);
        text.push_str(&format!("  {} ({size})\n", entry.path.display()));
    }
    let all = human_bytes(plan.bytes());
    text.push_str(&format!("{all} in all. Delete it?"));
    text
}

/// What lies in a folder of the quarantine, each with what it takes on disk.
fn listed(folder: &Path, ctx: &TaskContext) -> Vec<Purged> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let path = entry.path();
            // A size that cannot be told stops nobody from deleting.
            let bytes = tree_size(&path, ctx).map_or(0, |size| size.allocated_bytes);
            Purged { path, bytes }
        })
        .collect()
}

fn delete_one(path: &Path, ctx: &TaskContext) -> Result<(), ModuleError> {
    match metadata_of(path)? {
        None => Ok(()),
        Some(meta) if meta.is_dir() => delete_tree(path, ctx),
        Some(_) => {
            crate::host::files::durable::remove_if_there(path)?;
            Ok(fsync_dir(parent_of(path))?)
        }
    }
}

/// Removes a folder of one attempt, and those above it that belong to the quarantine, where empty.
fn remove_empty(folder: &Path) {
    let mut folder = Some(folder);
    // The attempt's, the state's or `quarantine`, and `.kaapana-agent-quarantine`.
    for _ in 0..3 {
        match folder {
            Some(path) if belongs(path) && std::fs::remove_dir(path).is_ok() => {
                folder = path.parent();
            }
            _ => return,
        }
    }
}

fn belongs(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str();
        name == "quarantine" || name == ".kaapana-agent-quarantine"
    })
}
