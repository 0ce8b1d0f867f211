//! What a rollback would do with each task, and why, without doing anything. Everything is planned
//! before the first step: a rollback that cannot come to its end does not begin.

use std::collections::HashMap;

use serde::Serialize;

use super::failure::describe;
use super::frame::Frame;
use super::resolve::{named, tasks_of};
use super::run::Engine;
use crate::modules::registry;
use crate::playbook::model::Play;
use crate::state::{OpenUndo, UndoableEnd, UndoableTask, UndoableTasks};
use crate::task::context::TaskContext;
use crate::task::undo::{PastAttempt, Step, Undo};
use crate::task::undo_plan::{View, plan_steps};
use crate::task::undo_steps::{Planned, steps_taken};

/// What an operator says about tasks that the agent cannot undo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Tasks that were taken back by hand, each by its identity or the unique end of one.
    pub tasks: Vec<String>,
    /// Why the operator knows.
    pub reason: String,
}

/// What would be done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoAction {
    /// Taken back.
    Undo,
    /// Nothing has to be taken back.
    Nothing,
    /// Taken back together with the task that made what it worked in.
    With,
    /// An operator says that it was taken back by hand.
    Accept,
    /// An undo that was interrupted is finished.
    Finish,
    /// It cannot be taken back.
    Refuse,
}

/// One task's part of a rollback.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndoEntry {
    /// Identity, loop item included.
    pub task: String,
    /// What would be done.
    pub action: UndoAction,
    /// Why, in one line.
    pub why: String,
    /// The steps; for [`UndoAction::Refuse`] what can be done about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// The plan of a rollback, newest task first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RollbackPlan {
    /// Tasks in the order in which they would come.
    pub entries: Vec<UndoEntry>,
}

impl RollbackPlan {
    /// What stands in the way.
    #[must_use]
    pub fn refusals(&self) -> Vec<UndoEntry> {
        self.entries
            .iter()
            .filter(|entry| entry.action == UndoAction::Refuse)
            .cloned()
            .collect()
    }
}

/// How a task is undone.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    Accepted,
    Finish(OpenUndo),
    /// With the task of this identity.
    With(String),
    Undo(Undo),
}

/// How every task is undone, and what goes with what.
pub(super) struct Ways {
    by_task: HashMap<String, Way>,
    followers: HashMap<String, Vec<String>>,
}

impl Ways {
    /// Decides by the journal and the playbook's `undone_by`. Looks at the host only as far as modules
    /// look for left-overs of failed attempts.
    pub(super) fn of(engine: &Engine, deeds: &UndoableTasks, accepted: &Accepted) -> Self {
        let identities: Vec<&str> = deeds.deeds.iter().map(|deed| deed.task.as_str()).collect();
        let by_hand: Vec<&str> = accepted
            .tasks
            .iter()
            .filter_map(|task| named(&identities, task))
            .collect();
        let makers = makers(engine);
        let mut ways = Self {
            by_task: HashMap::new(),
            followers: HashMap::new(),
        };
        for deed in &deeds.deeds {
            let way = if by_hand.contains(&deed.task.as_str()) {
                Way::Accepted
            } else if let Some(open) = &deed.undo {
                Way::Finish(open.clone())
            } else if let Some(maker) = maker_of(&makers, &deed.task) {
                Way::With(maker.to_owned())
            } else {
                Way::Undo(undo_of(deed))
            };
            ways.by_task.insert(deed.task.clone(), way);
        }
        ways.link(deeds);
        ways
    }

    /// Gives each task that is undone with another to the last of that one's items to be undone.
    fn link(&mut self, deeds: &UndoableTasks) {
        for deed in &deeds.deeds {
            let Some(Way::With(base)) = self.by_task.get(&deed.task) else {
                continue;
            };
            let oldest = deeds
                .deeds
                .iter()
                .rfind(|other| is_of(&other.task, base))
                .map(|other| other.task.clone());
            let takes = |task: &String| match self.by_task.get(task) {
                Some(Way::Accepted | Way::Finish(_)) => true,
                Some(Way::Undo(Undo::Steps(steps))) => steps.iter().any(Step::takes_a_whole),
                _ => false,
            };
            let way = match oldest {
                Some(maker) if takes(&maker) => {
                    let followers = self.followers.entry(maker.clone()).or_default();
                    followers.push(deed.task.clone());
                    Way::With(maker)
                }
                // Without that one it stands alone, as a task that found nothing to do: then there is
                // nothing to be undone with anything.
                _ => Way::Undo(match undo_of(deed) {
                    Undo::Impossible(why) => Undo::Impossible(format!(
                        "it is to be undone by `{base}`, which made nothing that would take its \
                         effect away, and by itself: {why}"
                    )),
                    own => own,
                }),
            };
            self.by_task.insert(deed.task.clone(), way);
        }
    }

    pub(super) fn way(&self, task: &str) -> Option<&Way> {
        self.by_task.get(task)
    }

    /// Tasks that are undone with this one.
    pub(super) fn followers(&self, task: &str) -> Vec<String> {
        self.followers.get(task).cloned().unwrap_or_default()
    }
}

/// Identity of each task that has `undone_by` -> identity of the task that it names.
fn makers(engine: &Engine) -> HashMap<&str, &str> {
    let mut found = HashMap::new();
    for play in &engine.playbook.plays {
        let tasks = tasks_in(engine, play);
        for (task, identity) in &tasks {
            let Some((id, _)) = &task.undone_by else {
                continue;
            };
            let maker = tasks
                .iter()
                .find(|(task, _)| task.id.as_ref() == Some(id))
                .map(|(_, identity)| *identity);
            if let Some(maker) = maker {
                found.insert(*identity, maker);
            }
        }
    }
    found
}

fn tasks_in<'e>(
    engine: &'e Engine,
    play: &'e Play,
) -> Vec<(&'e crate::playbook::model::Task, &'e str)> {
    let frame = Frame::of_play(play, engine.root_scope());
    tasks_of(engine, play, &frame)
        .into_iter()
        .map(|(task, _)| (task, engine.identities.get(task)))
        .collect()
}

/// The task that takes this one's effect away, with `undone_by` of that one followed, too.
fn maker_of<'m>(makers: &HashMap<&str, &'m str>, task: &str) -> Option<&'m str> {
    let next = |task: &str| {
        makers
            .iter()
            .find(|(known, _)| is_of(task, known))
            .map(|(_, maker)| *maker)
    };
    let mut maker = next(task)?;
    // Each names an earlier task, so this ends.
    while let Some(further) = next(maker) {
        maker = further;
    }
    Some(maker)
}

/// Tells whether an identity is a task's own or that of an item of its loop.
pub(super) fn is_of(identity: &str, base: &str) -> bool {
    identity
        .strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" ["))
}

/// Asks the module that did it.
fn undo_of(deed: &UndoableTask) -> Undo {
    let Some(last) = deed.efforts.last() else {
        return Undo::Nothing("nothing was started".into());
    };
    let module = &last.module;
    if deed.efforts.iter().any(|effort| effort.module != *module) {
        return Undo::Impossible("it was run with two different modules".into());
    }
    let Some(spec) = registry::find(module) else {
        return Undo::Impossible(format!("this agent has no module `{module}`"));
    };
    let efforts: Vec<PastAttempt<'_>> = deed
        .efforts
        .iter()
        .map(|effort| PastAttempt {
            attempt: &effort.attempt,
            intent: &effort.intent,
            arguments: &effort.arguments,
            result: effort.result.as_ref(),
            accepted: effort.accepted,
        })
        .collect();
    (spec.undo)(&efforts)
}

/// Reads the steps of an undo that was begun.
pub(super) fn open_steps(open: &OpenUndo) -> Option<Vec<Planned>> {
    serde_json::from_value(open.intent["steps"].clone()).ok()
}

impl Engine {
    /// Plans a rollback. Touches neither the host nor the state.
    #[must_use]
    pub fn plan_rollback(
        &self,
        deeds: &UndoableTasks,
        accepted: &Accepted,
        state_id: &str,
    ) -> RollbackPlan {
        let ways = Ways::of(self, deeds, accepted);
        let ctx = TaskContext {
            quarantine: self.quarantine(state_id),
            ..self.looking_context()
        };
        // Left-over containers go before anything is undone; until then they may hold directories.
        let mut view = View::of_host(deeds.purged.clone(), !deeds.services_open);
        let first = self.undo_tasks(&self.root_scope());
        let entries = deeds.deeds.iter().map(|deed| {
            let way = ways.way(&deed.task);
            let (action, why, mut details) = plan_one(deed, way, accepted, &mut view, &ctx);
            if action != UndoAction::Refuse && deed.undo.is_none() {
                let own = first.iter().filter(|block| is_of(&deed.task, block.owner));
                details.splice(0..0, own.map(|block| format!("first: {}", block.name)));
            }
            UndoEntry {
                task: deed.task.clone(),
                action,
                why,
                details: details
                    .iter()
                    .map(|line| self.redactor.text(line))
                    .collect(),
            }
        });
        let mut entries: Vec<UndoEntry> = entries.collect();
        let identities: Vec<&str> = deeds.deeds.iter().map(|deed| deed.task.as_str()).collect();
        let unknown = accepted
            .tasks
            .iter()
            .filter(|task| named(&identities, task).is_none());
        entries.extend(unknown.map(|task| UndoEntry {
            task: task.clone(),
            action: UndoAction::Refuse,
            why: "the journal knows of no effect of such a task, or of several such tasks".into(),
            details: vec!["`rollback --check` lists the tasks by their whole names".into()],
        }));
        RollbackPlan { entries }
    }
}

fn plan_one(
    deed: &UndoableTask,
    way: Option<&Way>,
    accepted: &Accepted,
    view: &mut View,
    ctx: &TaskContext,
) -> (UndoAction, String, Vec<String>) {
    let none = Vec::new();
    let show = |steps: &[Planned]| steps.iter().map(ToString::to_string).collect::<Vec<_>>();
    let undo = match way {
        None => return (UndoAction::Nothing, "nothing was started".into(), none),
        Some(Way::Accepted) => {
            let why = format!("taken back by hand: {}", accepted.reason);
            return (UndoAction::Accept, why, none);
        }
        Some(Way::With(maker)) => {
            let why = format!("its effect goes with `{maker}`");
            return (UndoAction::With, why, none);
        }
        Some(Way::Finish(open)) => {
            let Some(steps) = open_steps(open) else {
                return refused(
                    deed,
                    "the steps of its undo in the journal are unreadable".into(),
                );
            };
            // What cannot be looked at counts as not taken; taking it will say why.
            let taken = steps_taken(&steps).unwrap_or(0);
            for step in &steps[taken..] {
                view.assume(step);
            }
            let why = "its undo was begun and has not come to its end".into();
            return (UndoAction::Finish, why, show(&steps));
        }
        Some(Way::Undo(undo)) => undo,
    };
    let interrupted = deed.end == UndoableEnd::Interrupted;
    match undo {
        Undo::Nothing(why) => (UndoAction::Nothing, why.clone(), none),
        // What became of it is found out before anything is undone; then it is planned again.
        Undo::Impossible(_) if interrupted => (UndoAction::Undo, INTERRUPTED.into(), none),
        Undo::Impossible(why) => refused(deed, why.clone()),
        Undo::Steps(steps) => match plan_steps(steps, "undo", view, ctx) {
            Ok(planned) if interrupted => (UndoAction::Undo, INTERRUPTED.into(), show(&planned)),
            Ok(planned) if planned.is_empty() => (
                UndoAction::Nothing,
                "nothing of it is there any more".into(),
                none,
            ),
            Ok(planned) => (UndoAction::Undo, "done".into(), show(&planned)),
            Err(_) if interrupted => (UndoAction::Undo, INTERRUPTED.into(), none),
            Err(error) => refused(deed, describe(&error)),
        },
    }
}

const INTERRUPTED: &str = "interrupted: what became of it is found out first";

fn refused(deed: &UndoableTask, why: String) -> (UndoAction, String, Vec<String>) {
    let details = vec![
        "take it back by hand, or remove the cause".to_owned(),
        format!(
            "then, where it was taken back by hand: `kaapana-agent rollback PLAYBOOK --accept '{}' --reason TEXT`",
            deed.task
        ),
    ];
    (UndoAction::Refuse, why, details)
}
