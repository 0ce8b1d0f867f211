//! An operator's answer about a task, put into the journal.

use super::run::{Engine, RunError, run_id};
use super::unit::{Look, Ready};
use crate::playbook::model::{Block, Item, Play, Task};
use crate::state::{Answer, Body, Fingerprint, History, Journal, Lock, TaskHistory};

use super::frame::Frame;

impl Engine {
    /// Records an answer about a task, named by its identity or the unique end of one. Returns the
    /// identity, or `None` where the journal knows no such task.
    ///
    /// # Errors
    /// When the state is in use, damaged, or cannot be written.
    pub fn resolve(
        &self,
        task: &str,
        answer: Answer,
        reason: &str,
    ) -> Result<Option<String>, RunError> {
        let run = run_id();
        let dir = self.state_dir();
        if !dir.path().is_dir() {
            return Ok(None);
        }
        let holder = format!("pid {}, resolving {task}", std::process::id());
        let _lock = Lock::take(&dir.lock(), &holder)?;
        let contents = self.journal()?;
        let history = History::of(&contents.records);
        let Some(identity) = known(&history, task) else {
            return Ok(None);
        };
        let fingerprint = self.fingerprint_now(&identity, &history);
        let (mut journal, _) = Journal::open(&dir.journal(), &contents, &run)?;
        journal.append(Body::TaskResolved {
            task: identity.clone(),
            answer,
            reason: reason.to_owned(),
            user: self.options.operator.user.clone(),
            fingerprint,
        })?;
        Ok(Some(identity))
    }

    /// What the task depends on in the present playbook, where that can be told without running.
    fn fingerprint_now(&self, identity: &str, history: &History) -> Option<Fingerprint> {
        self.ready_now(identity, history)
            .map(|ready| ready.fingerprint)
    }

    /// A task as the present playbook has it, where that can be told without running.
    pub(super) fn ready_now<'h>(
        &self,
        identity: &str,
        history: &'h History,
    ) -> Option<Box<Ready<'h>>> {
        let root = self.root_scope();
        for (_, known) in history.tasks() {
            if let TaskHistory::Finished(finished) = known
                && let Some(facts) = finished
                    .result
                    .get("ansible_facts")
                    .and_then(|f| f.as_object())
            {
                for (name, value) in facts {
                    root.set(name, value.clone());
                }
            }
        }
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, self.play_scope(&root, play));
            for (task, frame) in tasks_of(play, &frame) {
                let own = self.identities.get(task);
                if let Some(name) = &task.register
                    && let Some(TaskHistory::Finished(finished)) = history.task(own)
                {
                    root.set(name, finished.result.clone());
                }
                if !identity.starts_with(own) {
                    continue;
                }
                for place in self.places(task, &frame) {
                    if place.identity == identity
                        && let Ok(Look::Ready(ready)) =
                            self.look(&place, &self.unit_scope(&place), history, &[])
                    {
                        return Some(ready);
                    }
                }
            }
        }
        None
    }
}

/// Every task of a play, handlers included, with what it inherits.
pub(super) fn tasks_of<'p>(play: &'p Play, frame: &Frame<'p>) -> Vec<(&'p Task, Frame<'p>)> {
    let mut found = Vec::new();
    collect(&play.items, frame, &mut found);
    found.extend(play.handlers.iter().map(|handler| (handler, frame.clone())));
    found
}

fn collect<'p>(items: &'p [Item], frame: &Frame<'p>, found: &mut Vec<(&'p Task, Frame<'p>)>) {
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
                let frame = frame.enter(block);
                for items in [inner, rescue, always] {
                    collect(items, &frame, found);
                }
            }
        }
    }
}

fn known(history: &History, task: &str) -> Option<String> {
    let identities: Vec<&str> = history.tasks().map(|(identity, _)| identity).collect();
    named(&identities, task).map(str::to_owned)
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
