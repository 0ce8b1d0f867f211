//! Tasks that a rollback runs before it takes another one back (`before_undo_of`): what is to be looked at,
//! saved or asked while that one's effect is still there. They are journaled as all tasks are, each once, and
//! are part of that one's undo: when it is finished, they count as never done, and nothing undoes them.

use super::frame::Frame;
use super::resolve::tasks_of;
use super::rollback_plan::is_of;
use super::run::{Engine, Stop};
use super::session::{Flow, Session};
use super::task::skipped_result;
use crate::playbook::model::{Block, Item, Play};
use crate::playbook::template::Scope;
use crate::state::{Answer, Body, History, TaskHistory, UndoableTasks};

/// A block of such tasks.
pub(super) struct UndoTasks<'p> {
    /// Identity of the task that is taken back after them.
    pub owner: &'p str,
    /// The block's name.
    pub name: &'p str,
    block: &'p Block,
    /// What is around the block.
    frame: Frame<'p>,
    /// Identities of its tasks, without items of loops.
    tasks: Vec<&'p str>,
}

impl Engine {
    /// All blocks of tasks that a rollback runs, in the playbook's order.
    pub(super) fn undo_tasks(&self, root: &Scope) -> Vec<UndoTasks<'_>> {
        let mut found = Vec::new();
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, self.play_scope(root, play));
            self.undo_tasks_in(play, &play.items, &frame, &mut found);
        }
        found
    }

    fn undo_tasks_in<'p>(
        &'p self,
        play: &'p Play,
        items: &'p [Item],
        frame: &Frame<'p>,
        found: &mut Vec<UndoTasks<'p>>,
    ) {
        for item in items {
            let Item::Block(block) = item else { continue };
            let Some((id, _)) = &block.before_undo_of else {
                let inner = frame.enter(block);
                for items in [&block.block, &block.rescue, &block.always] {
                    self.undo_tasks_in(play, items, &inner, found);
                }
                continue;
            };
            let all = tasks_of(self, play, frame);
            let owner = all.iter().find(|(task, _)| task.id.as_ref() == Some(id));
            if let Some((owner, _)) = owner {
                found.push(UndoTasks {
                    owner: self.identities.get(owner),
                    name: block
                        .common
                        .name
                        .as_deref()
                        .unwrap_or("tasks of the rollback"),
                    block,
                    frame: frame.clone(),
                    tasks: self.identities_in(block),
                });
            }
        }
    }

    fn identities_in<'p>(&'p self, block: &'p Block) -> Vec<&'p str> {
        let lists = [&block.block, &block.rescue, &block.always];
        let items = lists.into_iter().flatten();
        items
            .flat_map(|item| match item {
                Item::Task(task) => vec![self.identities.get(task)],
                Item::Block(block) => self.identities_in(block),
            })
            .collect()
    }

    /// Takes out what such tasks did: it is part of another one's undo.
    pub(super) fn without_undo_tasks(&self, mut deeds: UndoableTasks) -> UndoableTasks {
        let blocks = self.undo_tasks(&self.root_scope());
        let is_one = |task: &str| {
            let mut tasks = blocks.iter().flat_map(|block| &block.tasks);
            tasks.any(|known| is_of(task, known))
        };
        deeds.deeds.retain(|deed| !is_one(&deed.task));
        deeds
    }

    /// Sets what tasks of the run registered, as far as the journal has it.
    fn known_results(&self, root: &Scope, history: &History) {
        self.known_facts(root, history);
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, self.play_scope(root, play));
            for (task, _) in tasks_of(self, play, &frame) {
                let Some(name) = &task.register else { continue };
                match history.task(self.identities.get(task)) {
                    Some(TaskHistory::Finished(finished)) => {
                        root.set(name, finished.result.clone());
                    }
                    Some(TaskHistory::Skipped { condition }) => {
                        root.set(name, skipped_result(condition));
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Session<'_> {
    /// Runs the tasks that come before the undo of a task.
    pub(super) async fn before_undo_of(&mut self, task: &str) -> Result<Flow, Stop> {
        let engine = self.engine;
        let is_wanted = |block: &UndoTasks<'_>| is_of(task, block.owner);
        if !engine.undo_tasks(&self.root).iter().any(is_wanted) {
            return Ok(Flow::Next);
        }
        engine.known_results(&self.root, &self.history);
        for block in engine.undo_tasks(&self.root).into_iter().filter(is_wanted) {
            let flow = self.all_rounds(block.block, &block.frame).await?;
            if let Flow::Failed(_) = flow {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// Wants those again that ran before a run went forward: what they saw, or saved, may be of yesterday.
    pub(super) fn forget_older_undo_tasks(&mut self) -> Result<(), Stop> {
        let runs = &self.history.runs;
        let Some(last) = runs.iter().rposition(|run| run.command.is_none()) else {
            return Ok(());
        };
        let older: Vec<&str> = runs[..=last].iter().map(|run| run.id.as_str()).collect();
        let of_engine = self.engine.undo_tasks(&self.root);
        let known: Vec<&str> = of_engine
            .iter()
            .flat_map(|block| block.tasks.clone())
            .collect();
        let ran_before = |history: &TaskHistory| match history {
            TaskHistory::Finished(finished) => older.contains(&finished.run.as_str()),
            _ => false,
        };
        let stale: Vec<String> = self
            .history
            .tasks()
            .filter(|(identity, _)| known.iter().any(|known| is_of(identity, known)))
            .filter(|(_, history)| ran_before(history))
            .map(|(identity, _)| identity.to_owned())
            .collect();
        for task in stale {
            self.record(Body::TaskResolved {
                task,
                answer: Answer::Redo,
                reason: "a run went forward since".into(),
                user: self.engine.options.operator.user.clone(),
                fingerprint: None,
            })?;
        }
        Ok(())
    }

    /// Tasks that came before the undo of these, as far as they have left a record.
    pub(super) fn came_before_undo_of(&self, tasks: &[&str]) -> Vec<String> {
        let blocks = self.engine.undo_tasks(&self.root);
        let wanted = blocks
            .iter()
            .filter(|block| tasks.iter().any(|task| is_of(task, block.owner)));
        let known: Vec<&str> = wanted
            .flat_map(|block| block.tasks.iter().copied())
            .collect();
        let records = self
            .history
            .tasks()
            .filter(|(_, history)| !matches!(history, TaskHistory::Undone { .. }));
        records
            .map(|(identity, _)| identity)
            .filter(|identity| known.iter().any(|known| is_of(identity, known)))
            .map(str::to_owned)
            .collect()
    }
}
