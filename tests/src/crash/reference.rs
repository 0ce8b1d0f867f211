//! What an undisturbed migration looks like: the measure of all others.

use std::sync::OnceLock;
use std::time::Duration;

use super::journal::{self, Tasks};
use super::leg::{Fire, Leg, Watched};
use crate::error::LabError;
use crate::migration::{Migration, must};
use crate::site::Scale;

/// An undisturbed migration.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Records of its journal.
    pub records: u64,
    /// How long it took.
    pub took: Duration,
    /// Numbers of finished tasks, and when since the start they were reached.
    pace: Vec<(usize, Duration)>,
    /// How its tasks ended.
    pub tasks: Tasks,
    /// The rows of the schema history.
    pub history: String,
}

impl Reference {
    /// Migrates a site of this scale undisturbed, once a process.
    ///
    /// # Errors
    /// It does not come to the right end.
    pub fn of(scale: Scale) -> Result<&'static Self, LabError> {
        static KNOWN: [OnceLock<Reference>; 3] = [const { OnceLock::new() }; 3];
        let known = &KNOWN[scale as usize];
        if let Some(reference) = known.get() {
            return Ok(reference);
        }
        let migration = Migration::begin(scale)?;
        let mut watched = Watched::default();
        let leg = Leg::run(&migration, &Fire::None, &mut watched)?;
        leg.ended.must_have(0)?;
        let records = migration.agent.journal();
        let history = watched.histories.pop().unwrap_or_default();
        let lines = history.lines().count();
        must(lines == crate::schema::UPDATES.len(), || {
            format!("the schema history has {lines} rows: {history}")
        })?;
        let reference = Self {
            records: records.len() as u64,
            took: leg.took,
            pace: leg.pace,
            tasks: Tasks::of(&records, &migration.site.root)?,
            history,
        };
        reference.must_be_reached_by(&migration, &Watched::default(), true)?;
        Ok(known.get_or_init(|| reference))
    }

    /// When that many tasks were finished.
    pub(super) fn when_finished(&self, count: usize) -> Duration {
        let reached = self.pace.iter().find(|(finished, _)| *finished >= count);
        reached.map_or(self.took, |(_, when)| *when)
    }

    /// How many tasks were finished by this time, and since when.
    pub(super) fn finished_by(&self, time: Duration) -> (usize, Duration) {
        let before = self.pace.iter().rev().find(|(_, when)| *when <= time);
        before.copied().unwrap_or_default()
    }

    /// Fails unless a migration came to the same end as this one. `no_failure`: no task may have failed
    /// on the way either.
    ///
    /// # Errors
    /// Says what differs.
    pub fn must_be_reached_by(
        &self,
        migration: &Migration,
        watched: &Watched,
        no_failure: bool,
    ) -> Result<(), LabError> {
        journal::must_be_whole(&migration.agent.journal_path())?;
        let records = migration.agent.journal();
        Tasks::of(&records, &migration.site.root)?.must_be_those_of(&self.tasks)?;
        let failures = journal::failures(&records);
        must(failures.is_empty() || !no_failure, || {
            format!("tasks failed on the way: {failures:?}")
        })?;
        for history in &watched.histories {
            must(*history == self.history, || {
                format!(
                    "the schema history is\n{history}\ninstead of\n{}",
                    self.history
                )
            })?;
        }
        migration.must_be_passed_over()?;
        migration.must_have_ended_right()
    }
}
