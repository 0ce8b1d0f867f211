//! What a run would do with each task, and why, without doing anything.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::decide::{Decision, Orphan, Question, Reason};
use super::frame::Frame;
use super::rounds::{item_result, loop_result};
use super::run::{Engine, RunError};
use super::unit::{Item as LoopItem, Look, Ready, TaskInstance};
use crate::playbook::mentions;
use crate::playbook::model::{Block, Item, Task};
use crate::playbook::template::{Cut, Rank, Scope};
use crate::source::Problem;
use crate::state::{Finished, History, TaskHistory, TaskStatus};
use crate::task::module::Kind;

/// Lines of [`Engine::ask_about_changed`] that stand behind what differs.
const ANSWERS: usize = 4;

/// What would be done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// Passed over: the journal proves it done.
    Done,
    /// Run.
    Run,
    /// Its module is asked what became of an interrupted attempt.
    Recover,
    /// Its condition is false.
    Skip,
    /// Run or skipped: known once earlier tasks have run.
    Later,
    /// Waits for an operator's answer.
    Decide,
}

impl PlanAction {
    /// Its name, as JSON has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Run => "run",
            Self::Recover => "recover",
            Self::Skip => "skip",
            Self::Later => "later",
            Self::Decide => "decide",
        }
    }
}

/// One task's part of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanEntry {
    /// Identity, loop item included.
    pub task: String,
    /// Name for people.
    pub name: String,
    /// Module.
    pub module: String,
    /// What would be done.
    pub action: PlanAction,
    /// Why, in one line.
    pub why: String,
    /// For [`PlanAction::Decide`]: what differs and what either answer leads to, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// The plan of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Tasks in the order in which they would come.
    pub entries: Vec<PlanEntry>,
    /// Finished tasks that the playbook no longer has.
    pub orphans: Vec<String>,
}

impl Plan {
    /// What an operator has to decide first.
    #[must_use]
    pub fn decisions(&self) -> Vec<PlanEntry> {
        self.entries
            .iter()
            .filter(|entry| entry.action == PlanAction::Decide)
            .cloned()
            .collect()
    }
}

/// Finished tasks that are no longer in the playbook.
pub(super) fn orphans<'h>(engine: &Engine, history: &'h History) -> Vec<Orphan<'h>> {
    orphans_but(history, |identity| engine.identities.knows(identity))
}

/// Finished tasks but for those that the playbook knows.
pub(super) fn orphans_but<'h>(
    history: &'h History,
    known: impl Fn(&str) -> bool,
) -> Vec<Orphan<'h>> {
    history
        .tasks()
        .filter_map(|(identity, task)| match task {
            TaskHistory::Finished(finished) if !known(identity) => {
                Some(Orphan { identity, finished })
            }
            _ => None,
        })
        .collect()
}

impl Engine {
    /// Plans a run. Touches neither the host nor the state.
    ///
    /// # Errors
    /// When an argument or condition is wrong and no unknown result can be the reason.
    pub fn plan(&self, history: &History) -> Result<Plan, RunError> {
        let changed = self.changed_settled(history);
        if !changed.is_empty() {
            // What a run would do with other values is no answer to anything.
            return Ok(Plan {
                entries: changed,
                orphans: Vec::new(),
            });
        }
        let mut planner = Planner {
            engine: self,
            history,
            orphans: orphans(self, history),
            root: self.root_scope().lenient(),
            unknown: false,
            unheld: false,
            passed: Vec::new(),
            last_effect: None,
            adopted: HashSet::new(),
            plan: Plan::default(),
        };
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, self.play_scope(&planner.root, play));
            planner.unheld = self.unheld(history, play, &frame);
            planner
                .items(&play.items, &frame)
                .and_then(|()| planner.handlers(play, &frame))
                .map_err(|problem| RunError::Invalid(vec![problem]))?;
            planner.ask_about_passed();
        }
        let adopted = planner.adopted;
        planner.plan.orphans = planner
            .orphans
            .iter()
            .map(|orphan| orphan.identity.to_owned())
            .filter(|identity| !adopted.contains(identity))
            .collect();
        Ok(planner.plan)
    }
}

/// A result of the journal, and what was cut from it: JSON pointers.
type Known = (Value, Vec<String>);

struct Planner<'e> {
    engine: &'e Engine,
    history: &'e History,
    orphans: Vec<Orphan<'e>>,
    root: Scope,
    /// Whether a task before this one will run: its result may explain whatever is undefined.
    unknown: bool,
    /// The play has had effects, and no record holds its settled variables.
    unheld: bool,
    /// Entries of the play that would run although it may have gone past them: index, why, details.
    passed: Vec<(usize, String, Vec<String>)>,
    /// Index of the play's last entry whose effect is there.
    last_effect: Option<usize>,
    adopted: HashSet<String>,
    plan: Plan,
}

impl<'e> Planner<'e> {
    fn items(&mut self, items: &'e [Item], frame: &Frame<'e>) -> Result<(), Problem> {
        for item in items {
            match item {
                Item::Task(task) => self.task(task, frame)?,
                Item::Block(block) => self.block(block, frame)?,
            }
        }
        Ok(())
    }

    fn block(&mut self, block: &'e Block, frame: &Frame<'e>) -> Result<(), Problem> {
        // Those are a rollback's.
        if block.before_undo_of.is_some() {
            return Ok(());
        }
        let rounds = match self.engine.rounds(block, frame) {
            Ok(rounds) => rounds,
            // Known when it comes to it.
            Err(_) if self.unknown => vec![frame.enter(block)],
            Err(problem) => return Err(problem),
        };
        for frame in rounds {
            self.items(&block.block, &frame)?;
            self.items(&block.always, &frame)?;
        }
        Ok(())
    }

    fn handlers(
        &mut self,
        play: &'e crate::playbook::model::Play,
        frame: &Frame<'e>,
    ) -> Result<(), Problem> {
        for handler in &play.handlers {
            let identity = self.engine.identities.get(handler);
            if self
                .history
                .pending_handlers
                .iter()
                .any(|pending| pending == identity)
            {
                let place = self.place(handler, frame, None);
                self.add(
                    &place,
                    PlanAction::Run,
                    "notified and not run yet".into(),
                    Vec::new(),
                );
            }
        }
        Ok(())
    }

    fn task(&mut self, task: &'e Task, frame: &Frame<'e>) -> Result<(), Problem> {
        if task.module.name == "meta" {
            return Ok(());
        }
        let place = self.place(task, frame, None);
        if !self.engine.wants(&place.frame, task) {
            self.add(
                &place,
                PlanAction::Skip,
                "its tags are not asked for".into(),
                Vec::new(),
            );
            return Ok(());
        }
        let scope = place.frame.scope.clone();
        let Some(spec) = &task.r#loop else {
            let result = self.unit(&place, &scope)?;
            self.register(task, result);
            return Ok(());
        };
        let items = match self.engine.loop_items(spec, &scope) {
            Ok(items) => items,
            Err(problem) => {
                return self
                    .later(&place, problem)
                    .map(|()| self.register(task, None));
            }
        };
        let mut results = Vec::new();
        let mut hidden = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            let scope = self.engine.item_scope(&scope, spec, &item);
            let place = self.place(task, frame, Some(item.clone()));
            let result = self.unit(&place, &scope)?;
            results.push(result.map(|(result, lost)| {
                let lost = lost.iter().map(|path| format!("/results/{number}{path}"));
                hidden.extend(lost);
                item_result(spec, &item, result)
            }));
        }
        let whole: Option<Vec<Value>> = results.into_iter().collect();
        self.register(task, whole.map(|whole| (loop_result(whole), hidden)));
        Ok(())
    }

    /// Plans a unit; returns its result where the journal has it, and what was cut from that.
    fn unit(&mut self, place: &TaskInstance<'e>, scope: &Scope) -> Result<Option<Known>, Problem> {
        let _ = scope.take_reached();
        let look = self.engine.look(place, scope, self.history, &self.orphans);
        let lacks = !scope.take_reached().is_empty();
        let is_done = |look: &Look<'_>| match look {
            Look::Ready(ready) => matches!(ready.decision, Decision::Done(_)),
            Look::Skip { .. } => false,
        };
        if lacks && !look.as_ref().is_ok_and(is_done) {
            let why = "depends on a result that the journal holds without its secrets".to_owned();
            self.add(place, PlanAction::Later, why, Vec::new());
            self.unknown = true;
            return Ok(None);
        }
        let look = match look {
            Ok(look) => look,
            Err(problem) => return self.later(place, problem).map(|()| None),
        };
        let ready = match look {
            Look::Skip { condition } => {
                let why = format!("`{condition}` is false");
                self.add(place, PlanAction::Skip, why, Vec::new());
                return Ok(Some((super::task::skipped_result(&condition), Vec::new())));
            }
            Look::Ready(ready) => ready,
        };
        if let Some((why, details)) = self.passed(place, &ready) {
            let index = self.plan.entries.len();
            self.passed.push((index, why, details));
        }
        let mut ready = ready;
        ready.decision = self
            .engine
            .decide_again(place, ready.decision, self.history, None);
        let (action, why, details, result) = match &ready.decision {
            Decision::Done(finished) => (
                PlanAction::Done,
                done_in(finished),
                Vec::new(),
                Some((finished.result.clone(), finished.hidden.clone())),
            ),
            Decision::Adopt { from, finished } => {
                self.adopted.insert((*from).to_owned());
                let why = format!("done as `{from}`, {}", done_in(finished));
                (
                    PlanAction::Done,
                    why,
                    Vec::new(),
                    Some((finished.result.clone(), finished.hidden.clone())),
                )
            }
            Decision::Run(reason) => (PlanAction::Run, reason.describe(), Vec::new(), None),
            Decision::Recover(attempt) => {
                let why = format!("interrupted in run {}", attempt.run);
                (PlanAction::Recover, why, Vec::new(), None)
            }
            Decision::LookAgain { finished, until } => {
                // What a look finds now is known when it has looked; what is only checked stays as it was.
                let looks = place.task.module.kind == Kind::ReadOnly;
                let result = (!looks).then(|| (finished.result.clone(), finished.hidden.clone()));
                (PlanAction::Run, looked_at_again(until), Vec::new(), result)
            }
            Decision::Ask(question) => {
                let (why, details) = self.engine.ask_about_changed(
                    &place.identity,
                    question,
                    (&ready.shown, &ready.fingerprint),
                    &ready.module.advice(&self.engine.looking_context()),
                );
                (PlanAction::Decide, why, details, None)
            }
        };
        let set_facts = place.task.module.kind == Kind::ReadOnly && result.is_none();
        if action == PlanAction::Done && !place.task.is_look() {
            self.last_effect = Some(self.plan.entries.len());
        }
        self.add(place, action, why, details);
        if let Some((result, hidden)) = &result {
            let cut = Cut {
                paths: hidden.clone(),
                origin: place.identity.clone(),
            };
            super::facts::take(&self.root, place.task, result, &cut, false);
        }
        self.unknown |= result.is_none() || set_facts;
        Ok(result)
    }

    /// Whether a task would run although the play has gone past it: a branch that was left out then, or a look
    /// through a service that was done with other arguments. In a journal of an older agent, which holds no
    /// settled variables, any task that was done with other arguments.
    fn passed(&self, place: &TaskInstance<'e>, ready: &Ready<'e>) -> Option<(String, Vec<String>)> {
        let declared = place.frame.play.declared.as_ref()?;
        let back = "put the variables back that were set then".to_owned();
        match (&ready.decision, self.history.task(&place.identity)) {
            (Decision::Run(Reason::Changed(finished)), _)
                if self.unheld || !place.frame.services.is_empty() =>
            {
                let question = Question::ChangedAfterDone(finished);
                let (_, mut details) = self.engine.ask_about_changed(
                    &place.identity,
                    &question,
                    (&ready.shown, &ready.fingerprint),
                    &ready.module.advice(&self.engine.looking_context()),
                );
                // What differs; the answers after it are for tasks that must not run twice.
                details.truncate(details.len().saturating_sub(ANSWERS));
                details.push(back);
                let why = format!(
                    "done in run {} with other arguments, and what rests on it is done, too",
                    finished.run
                );
                Some((why, details))
            }
            (Decision::Run(Reason::New), Some(TaskHistory::Skipped { condition }))
                if declared.names().any(|name| mentions(condition, name)) =>
            {
                let why = format!(
                    "left out, as `{condition}` was false, and what comes after it is done; it is true now"
                );
                Some((why, vec![back]))
            }
            _ => None,
        }
    }

    /// What was passed and has an effect of the play behind it is asked about instead of run.
    fn ask_about_passed(&mut self) {
        let last = self.last_effect.take();
        for (index, why, details) in std::mem::take(&mut self.passed) {
            if last.is_some_and(|last| index < last) {
                let entry = &mut self.plan.entries[index];
                entry.action = PlanAction::Decide;
                entry.why = why;
                entry.details = details;
            }
        }
    }

    fn later(&mut self, place: &TaskInstance<'e>, problem: Problem) -> Result<(), Problem> {
        if !self.unknown {
            return Err(problem);
        }
        let why = "depends on what earlier tasks find".to_owned();
        self.add(place, PlanAction::Later, why, Vec::new());
        Ok(())
    }

    fn register(&mut self, task: &Task, result: Option<Known>) {
        if let Some(name) = &task.register {
            match result {
                Some((result, paths)) => {
                    let origin = self.engine.identities.get(task).to_owned();
                    let cut = Cut { paths, origin };
                    self.root.set_cut(Rank::Set, name, result, cut);
                }
                None => {
                    self.root.unset(name);
                    self.unknown = true;
                }
            }
        }
    }

    fn place(&self, task: &'e Task, frame: &Frame<'e>, item: Option<LoopItem>) -> TaskInstance<'e> {
        self.engine.place(task, frame, item)
    }

    fn add(
        &mut self,
        place: &TaskInstance<'e>,
        action: PlanAction,
        why: String,
        details: Vec<String>,
    ) {
        self.plan.entries.push(PlanEntry {
            task: place.identity.clone(),
            name: place.raw_name(),
            module: place.task.module.name.to_owned(),
            action,
            why,
            details,
        });
    }
}

/// Why a look that was fine is repeated.
pub(super) fn looked_at_again(until: &str) -> String {
    format!("looked at again, as `{until}` has not begun")
}

fn done_in(finished: &Finished) -> String {
    let how = if finished.status == TaskStatus::Rescued {
        "failed and rescued"
    } else {
        "done"
    };
    format!("{how} in run {}", finished.run)
}

impl Reason<'_> {
    /// Why a task runs, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::New => "not done yet".into(),
            Self::Failed => "failed before".into(),
            Self::Changed(finished) => {
                format!(
                    "arguments or input files changed since run {}",
                    finished.run
                )
            }
            Self::LooksOnly => "interrupted before; it only looks".into(),
            Self::Redo { user, reason } => format!("{user} asked for it again: {reason}"),
            Self::Undone { run } => format!("undone in run {run}"),
        }
    }
}
