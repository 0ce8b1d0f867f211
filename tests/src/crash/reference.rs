//! What an undisturbed migration looks like: the measure of all others.

use std::sync::Mutex;
use std::time::Duration;

use super::journal::{self, Tasks};
use super::leg::{Fire, Leg, Watched};
use crate::agent::is_about;
use crate::error::LabError;
use crate::migration::{Migration, must};
use crate::site::Scale;
use crate::way::{DEPLOYED_BY, Directory, Way};

/// An undisturbed migration.
#[derive(Debug)]
pub struct Reference {
    /// Records of its journal.
    pub records: u64,
    /// The first record of what is done in pods, where anything is.
    pub first_in_pods: Option<u64>,
    /// How long it took.
    pub took: Duration,
    /// Numbers of finished tasks, and when since the start they were reached.
    pace: Vec<(usize, Duration)>,
    /// How its tasks ended.
    pub tasks: Tasks,
    /// The rows of the schema history.
    pub history: String,
    /// What becomes of the LDAP directory.
    directory: Directory,
}

/// For every scale and way: one at a time is made, once a process.
static KNOWN: [[Mutex<Option<&'static Reference>>; Way::ALL.len()]; 3] =
    [const { [const { Mutex::new(None) }; Way::ALL.len()] }; 3];

impl Reference {
    /// Migrates a site of this scale undisturbed on the default way, once a process.
    ///
    /// # Errors
    /// It does not come to the right end.
    pub fn of(scale: Scale) -> Result<&'static Self, LabError> {
        Self::on(Way::default(), scale)
    }

    /// As [`Reference::of`], on another way.
    ///
    /// # Errors
    /// As [`Reference::of`].
    pub fn on(way: Way, scale: Scale) -> Result<&'static Self, LabError> {
        let mut known = KNOWN[scale as usize][way.index()]
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(reference) = *known {
            return Ok(reference);
        }
        let migration = Migration::begin_on(way, scale)?;
        let directory = Directory::expected(way, &migration.site)?;
        let mut watched = Watched::default();
        let leg = Leg::run(&migration, &Fire::None, &mut watched)?;
        leg.ended.must_have(0)?;
        let records = migration.agent.journal();
        let history = watched.histories.pop().unwrap_or_default();
        let lines = history.lines().count();
        must(lines == crate::schema::UPDATES.len(), || {
            format!("the schema history has {lines} rows: {history}")
        })?;
        let first_in_pods = records
            .iter()
            .find(|record| is_about(record, "task_started", DEPLOYED_BY))
            .and_then(|record| record["seq"].as_u64());
        let reference = Self {
            records: records.len() as u64,
            first_in_pods,
            took: leg.took,
            pace: leg.pace,
            tasks: Tasks::of(&records, &migration.site.root)?,
            history,
            directory,
        };
        reference.must_be_reached_by(&migration, &Watched::default(), true)?;
        let reference: &'static Self = Box::leak(Box::new(reference));
        *known = Some(reference);
        Ok(reference)
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
        let asked = pods_must_be_restarted_once(migration)?;
        migration.must_be_passed_over()?;
        must(pods_must_be_restarted_once(migration)? == asked, || {
            "a run of a finished migration asked the cluster".into()
        })?;
        migration.must_have_ended_right()?;
        self.directory.must_be_left_by(migration)
    }
}

/// Says what was asked of the cluster, where there is one, and fails unless each of its pods was restarted
/// once.
fn pods_must_be_restarted_once(migration: &Migration) -> Result<(usize, Vec<String>), LabError> {
    let Some(deployment) = &migration.deployment else {
        return Ok((0, Vec::new()));
    };
    let cluster = &deployment.cluster;
    for workload in ["ldap", "dcm4chee"] {
        let deletions = cluster.deletions(workload);
        must(deletions == 1, || {
            format!(
                "{workload} was restarted {deletions} times: {:?}",
                cluster.changes()
            )
        })?;
    }
    Ok((cluster.execs(), cluster.changes()))
}
