//! An operator's answer about a task, put into the journal.

use super::frame::Frame;
use super::plan::Plan;
use super::run::{Engine, RunError, run_id};
use super::unit::{Look, Ready, TaskInstance};
use crate::playbook::model::{Block, Item, Play, Task};
use crate::playbook::template::{Cut, Scope};
use crate::source::closest;
use crate::state::{Answer, Attempt, Body, Fingerprint, History, Journal, Lock, TaskHistory};
use crate::task::module::Advice;

/// An answer that was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The task's identity.
    pub task: String,
    /// What the journal knew of it.
    pub was: String,
    /// When the answer is right, and what it leads to; absent where the playbook no longer has the task.
    pub right_when: Option<String>,
}

/// A task was named that the journal does not know, or not alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTask {
    /// The name.
    pub task: String,
    /// Identities that may be meant.
    pub near: Vec<String>,
    /// Whether all of them have the name.
    pub ambiguous: bool,
    /// Whether the playbook has the task, and it was never begun.
    pub not_run_yet: bool,
}

impl std::fmt::Display for UnknownTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let task = &self.task;
        if self.ambiguous {
            write!(f, "`{task}` names several tasks")
        } else if self.not_run_yet {
            write!(f, "the task `{task}` has not run yet")
        } else {
            write!(f, "the journal knows no task `{task}`")
        }
    }
}

impl std::error::Error for UnknownTask {}

impl UnknownTask {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        if self.ambiguous {
            "resolve::ambiguous_task"
        } else {
            "resolve::unknown_task"
        }
    }

    /// What to do next.
    #[must_use]
    pub fn help(&self) -> String {
        if self.ambiguous {
            let quoted: Vec<String> = self.near.iter().map(|name| format!("'{name}'")).collect();
            return format!("say which one: {}", quoted.join(", "));
        }
        if self.not_run_yet {
            return "a run begins with it as soon as it comes to it; there is nothing to decide"
                .into();
        }
        match self.near.first() {
            Some(near) => format!("did you mean '{near}'? `status` lists all of them"),
            None => "`status` lists the tasks; the whole line after the times is the name".into(),
        }
    }
}

impl Engine {
    /// Records an answer about a task, named by its identity or the unique end of one.
    ///
    /// # Errors
    /// When no task has the name, the one that has it asks nothing, or the state is in use, a copy, damaged, or cannot be written.
    pub fn resolve(&self, task: &str, answer: Answer, reason: &str) -> Result<Resolved, RunError> {
        let run = run_id();
        let dir = self.state_dir();
        if !dir.path().is_dir() {
            // Nothing was ever run: whatever the name, no task has it yet.
            self.known(&History::default(), task)?;
        }
        let holder = format!("pid {}, resolving {task}", std::process::id());
        let _lock = Lock::take(&dir.lock(), &holder)?;
        let contents = self.journal()?;
        let operator = &self.options.operator;
        self.refuse_copy(&contents)?;
        let history = History::of(&contents.records);
        self.refuse_other_sites(&contents, &history, Some("resolve"))?;
        let identity = self.known(&history, task)?;
        if let Some(nothing) = self.asks_nothing(&identity, &history) {
            return Err(nothing.into());
        }
        let (fingerprint, advice) = self.stands_on(&identity, &history).unzip();
        let (mut journal, _) = Journal::open(&dir.journal(), &contents, &run)?;
        journal.append(Body::TaskResolved {
            task: identity.clone(),
            answer,
            reason: reason.to_owned(),
            user: operator.user.clone(),
            fingerprint,
        })?;
        let right_when = advice.map(|advice| match answer {
            Answer::Done => advice.done,
            Answer::Redo => advice.redo,
        });
        Ok(Resolved {
            was: history.task(&identity).map_or_else(String::new, standing),
            right_when: right_when.map(|text| self.redactor.text(&text)),
            task: identity,
        })
    }

    /// Plans a run whose operator wants some tasks again; returns their identities, too.
    pub(super) fn plan_with_redo(
        &self,
        history: &History,
    ) -> Result<(Vec<String>, Plan), RunError> {
        let redo = self
            .options
            .redo
            .iter()
            .map(|task| self.known(history, task))
            .collect::<Result<Vec<_>, _>>()?;
        if redo.is_empty() {
            return Ok((redo, self.plan(history)?));
        }
        let mut wanted = history.clone();
        for task in &redo {
            self.redo_in(&mut wanted, task);
        }
        let plan = self.plan(&wanted)?;
        Ok((redo, plan))
    }

    pub(super) fn redo_in(&self, history: &mut History, task: &str) {
        history.redo(task, &self.options.operator.user, &self.options.redo_reason);
    }

    /// Finds a task by its identity, or by the end of one if that is unique.
    fn known(&self, history: &History, task: &str) -> Result<String, UnknownTask> {
        let names: Vec<&str> = history.tasks().map(|(identity, _)| identity).collect();
        if let Some(identity) = named(&names, task) {
            return Ok(identity.to_owned());
        }
        let end = format!(" / {task}");
        let item = format!(" / {task} [");
        let exact: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| name.ends_with(&end))
            .collect();
        let several: Vec<&str> = if exact.is_empty() {
            let of_loop = names.iter().copied();
            of_loop
                .filter(|name| name.contains(&item) || name.starts_with(&format!("{task} [")))
                .collect()
        } else {
            exact
        };
        let unknown = UnknownTask {
            task: task.to_owned(),
            near: Vec::new(),
            ambiguous: false,
            not_run_yet: false,
        };
        if !several.is_empty() {
            return Err(UnknownTask {
                near: several.into_iter().map(str::to_owned).collect(),
                ambiguous: true,
                ..unknown
            });
        }
        let ends = names
            .iter()
            .map(|name| name.rsplit(" / ").next().unwrap_or(name));
        let near = closest(task, ends).or_else(|| closest(task, names.iter().copied()));
        let playbook_has = self
            .identities
            .names()
            .any(|name| name == task || name.ends_with(&end));
        Err(UnknownTask {
            near: near.map(str::to_owned).into_iter().collect(),
            not_run_yet: playbook_has,
            ..unknown
        })
    }

    /// What the task depends on in the present playbook, and what its module advises, where that can be
    /// told without running.
    fn stands_on(&self, identity: &str, history: &History) -> Option<(Fingerprint, Advice)> {
        let Ready {
            fingerprint,
            module,
            ..
        } = *self.ready_now(identity, history)?;
        Some((fingerprint, module.advice(&self.looking_context())))
    }

    /// A task as the present playbook has it, where that can be told without running.
    pub(super) fn ready_now<'h>(
        &self,
        identity: &str,
        history: &'h History,
    ) -> Option<Box<Ready<'h>>> {
        let place = self.place_now(identity, history)?;
        match self.look(&place, &self.unit_scope(&place), history, &[]) {
            Ok(Look::Ready(ready)) => Some(ready),
            _ => None,
        }
    }

    /// Sets the facts that the journal knows.
    pub(super) fn known_facts(&self, root: &Scope, history: &History) {
        let mut all: Vec<&Task> = Vec::new();
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, root.clone());
            all.extend(
                tasks_of(self, play, &frame)
                    .into_iter()
                    .map(|(task, _)| task),
            );
        }
        for (name, known) in history.tasks() {
            if let TaskHistory::Finished(finished) = known
                && let Some(task) = all.iter().find(|task| {
                    let rest = name.strip_prefix(self.identities.get(task));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" ["))
                })
            {
                super::facts::take(root, task, &finished.result, &Cut::default(), false);
            }
        }
    }

    /// Finds a task of the present playbook by its identity, loop items included. Registered results and
    /// facts are the journal's.
    pub(super) fn place_now(&self, identity: &str, history: &History) -> Option<TaskInstance<'_>> {
        let root = self.root_scope();
        self.known_facts(&root, history);
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, self.play_scope(&root, play));
            for (task, frame) in tasks_of(self, play, &frame) {
                let own = self.identities.get(task);
                if let Some(name) = &task.register
                    && let Some(TaskHistory::Finished(finished)) = history.task(own)
                {
                    root.set(name, finished.result.clone());
                }
                if !identity.starts_with(own) {
                    continue;
                }
                let mut places = self.places(task, &frame).into_iter();
                if let Some(place) = places.find(|place| place.identity == identity) {
                    return Some(place);
                }
            }
        }
        None
    }
}

/// Every task of a play, handlers included, with what it inherits.
pub(super) fn tasks_of<'p>(
    engine: &Engine,
    play: &'p Play,
    frame: &Frame<'p>,
) -> Vec<(&'p Task, Frame<'p>)> {
    let mut found = Vec::new();
    collect(engine, &play.items, frame, &mut found);
    found.extend(play.handlers.iter().map(|handler| (handler, frame.clone())));
    found
}

fn collect<'p>(
    engine: &Engine,
    items: &'p [Item],
    frame: &Frame<'p>,
    found: &mut Vec<(&'p Task, Frame<'p>)>,
) {
    for item in items {
        match item {
            Item::Task(task) => found.push((task, frame.clone())),
            Item::Block(block) => {
                let Block {
                    block: inner,
                    rescue,
                    always,
                    ..
                } = block.as_ref();
                // Where the items of an include are not known, its tasks are there all the same.
                let rounds = engine.rounds(block, frame);
                for frame in rounds.unwrap_or_else(|_| vec![frame.enter(block)]) {
                    for items in [inner, rescue, always] {
                        collect(engine, items, &frame, found);
                    }
                }
            }
        }
    }
}

/// Finds a task of the journal by its identity, or by the end of one if that is unique.
#[must_use]
pub fn find_task(history: &History, task: &str) -> Option<String> {
    let names: Vec<&str> = history.tasks().map(|(identity, _)| identity).collect();
    named(&names, task).map(str::to_owned)
}

/// Finds a task by its identity, or by the end of one if that is unique.
pub(super) fn named<'i>(identities: &[&'i str], task: &str) -> Option<&'i str> {
    if let Some(whole) = identities.iter().find(|identity| **identity == task) {
        return Some(whole);
    }
    let end = format!(" / {task}");
    let mut found = identities.iter().filter(|name| name.ends_with(&end));
    match (found.next(), found.next()) {
        (Some(identity), None) => Some(identity),
        _ => None,
    }
}

/// Where a task stands, in a few words.
pub(super) fn standing(history: &TaskHistory) -> String {
    match history {
        TaskHistory::Finished(finished) => format!("done in run {}", finished.run),
        TaskHistory::Failed { run, .. } => format!("failed in run {run}"),
        TaskHistory::Interrupted(attempt) => {
            let Attempt { run, module, .. } = attempt.as_ref();
            match &attempt.unseen {
                None => format!("interrupted in run {run} while `{module}` was at work"),
                Some(seen) => {
                    format!("of unknown outcome since run {run} (`{module}`: {seen})")
                }
            }
        }
        TaskHistory::Redo { user, .. } => format!("to be run again, as {user} said"),
        TaskHistory::Skipped { condition } => format!("skipped, as `{condition}` was false"),
        TaskHistory::Undone { run, .. } => format!("undone in run {run}"),
        TaskHistory::Undoing { run, .. } => format!("half undone in run {run}"),
    }
}
