//! How far a whole run is, and how long it will still take: an estimate from what each module usually
//! costs beside the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::{Plan, PlanAction};
use crate::event::Event;
use crate::host::time::millis;

/// Less than this part of the work, or less time, says nothing about the rest.
const ENOUGH: f64 = 0.05;
const ENOUGH_TIME: Duration = Duration::from_secs(5);

/// What a task usually costs beside others, from migrations of 100,000 and 1,000,000 images.
fn cost(module: &str) -> u64 {
    match module {
        "postgresql_restore" => 40,
        "postgresql_initdb" => 12,
        "postgresql_dump" | "postgresql_snapshot" => 10,
        "postgresql_script" => 4,
        "docker_image" | "docker_container_copy_from" | "get_url" | "copy" => 2,
        "pause" => 0,
        _ => 1,
    }
}

/// The planned work of a run, and how much of it is done.
pub(super) struct RunProgress {
    costs: HashMap<String, u64>,
    total: u64,
    tasks_total: u64,
    done: AtomicU64,
    tasks_done: AtomicU64,
    since: Instant,
}

impl Default for RunProgress {
    /// Of what has no plan of tasks: a rollback, a purge.
    fn default() -> Self {
        Self::of(&Plan::default())
    }
}

impl RunProgress {
    /// Counts what a plan leaves to do.
    pub(super) fn of(plan: &Plan) -> Self {
        let open = |action| !matches!(action, PlanAction::Done | PlanAction::Skip);
        let costs: HashMap<String, u64> = plan
            .entries
            .iter()
            .filter(|entry| open(entry.action))
            .map(|entry| (entry.task.clone(), cost(&entry.module)))
            .collect();
        Self {
            total: costs.values().sum(),
            tasks_total: costs.len() as u64,
            costs,
            done: AtomicU64::new(0),
            tasks_done: AtomicU64::new(0),
            since: Instant::now(),
        }
    }

    /// Notes a task's end. Tells how far the run is, where the task was part of the plan.
    pub(super) fn ended(&self, task: &str) -> Option<Event> {
        let cost = self.costs.get(task)?;
        let done = self.done.fetch_add(*cost, Ordering::Relaxed) + cost;
        let tasks_done = self.tasks_done.fetch_add(1, Ordering::Relaxed) + 1;
        let elapsed = self.since.elapsed();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let part = (done as f64 / self.total.max(1) as f64).min(1.0);
        let left = (part >= ENOUGH && elapsed >= ENOUGH_TIME)
            .then(|| Duration::try_from_secs_f64(elapsed.as_secs_f64() * (1.0 - part) / part).ok())
            .flatten();
        Some(Event::RunProgress {
            tasks_done: tasks_done.min(self.tasks_total),
            tasks_total: self.tasks_total,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 100"
            )]
            percent: (part * 100.0) as u64,
            left_ms: left.map(millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PlanEntry;

    #[test]
    fn a_restore_counts_more_than_a_look_and_what_is_done_counts_nothing() {
        let entry = |task: &str, module: &str, action| PlanEntry {
            task: task.into(),
            name: task.into(),
            module: module.into(),
            action,
            why: String::new(),
            details: Vec::new(),
        };
        let plan = Plan {
            entries: vec![
                entry("old", "postgresql_restore", PlanAction::Done),
                entry("look", "stat", PlanAction::Run),
                entry("restore", "postgresql_restore", PlanAction::Run),
            ],
            orphans: Vec::new(),
        };
        let effort = RunProgress::of(&plan);
        assert!(effort.ended("old").is_none());
        let Some(Event::RunProgress {
            percent: 2,
            tasks_done: 1,
            tasks_total: 2,
            ..
        }) = effort.ended("look")
        else {
            panic!("one of 41 parts is done");
        };
        let Some(Event::RunProgress { percent: 100, .. }) = effort.ended("restore") else {
            panic!("all is done");
        };
    }
}
