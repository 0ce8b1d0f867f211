//! A kill at every record of the guide's last third, in pods: the directory's update in its pod, and the
//! restarts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use serde_json::Value;

use super::journal::{self, Tasks};
use super::leg::{Fire, Leg, Watched, on_a_site};
use super::report::{Case, Seen};
use crate::agent::is_about;
use crate::error::LabError;
use crate::images::docker;
use crate::kubernetes::Cluster;
use crate::ldap_update::{Content, by_script, content, copy_of, deploy, update_in_pods};
use crate::migration::{Migration, must};
use crate::site::Scale;

/// The task before which Kaapana 0.3 has to be deployed.
const DEPLOYED_BY: &str = "ldap-pod-ready";
/// How often somebody looks whether Kaapana is to be deployed.
const LOOK: Duration = Duration::from_millis(20);

/// An undisturbed migration with its last third in pods.
#[derive(Debug)]
struct Reference {
    /// The first record of that part.
    first: u64,
    /// The last record.
    last: u64,
    tasks: Tasks,
    /// What the image's own scripts make of the directory.
    directory: Content,
}

/// One case for each record of this part and each of these phases: killed there, then run to the end.
///
/// # Errors
/// An undisturbed migration does not come to the right end.
pub fn kills_in_pods(
    from: u64,
    to: Option<u64>,
    phases: &[&'static str],
) -> Result<Vec<Case>, LabError> {
    let reference = Reference::get()?;
    let (first, last) = (
        reference.first.max(from),
        reference.last.min(to.unwrap_or(u64::MAX)),
    );
    let mut cases = Vec::new();
    for record in first..=last {
        for phase in phases {
            let phase = *phase;
            cases.push(Case {
                kind: "kill at a record, in pods",
                name: format!("{phase} record {record} of {}", reference.last),
                replay: format!("--pods --from {record} --to {record} --phase {phase}"),
                work: Box::new(move || kill_at(record, phase)),
            });
        }
    }
    Ok(cases)
}

fn kill_at(record: u64, phase: &str) -> Result<Seen, LabError> {
    let reference = Reference::get()?;
    let cluster = Cluster::start()?;
    on_a_site(begin(&cluster)?, |migration| {
        let mut watched = Watched::default();
        let said = with_a_person(migration, &cluster, || {
            Leg::killed_at(migration, phase, record, &mut watched)?;
            let records = migration.agent.journal();
            let last = records.last().unwrap_or(&Value::Null);
            let said = format!("behind {} {}", last["event"], last["task"]);
            let leg = Leg::run(migration, &Fire::None, &mut watched)?;
            leg.ended.must_have(0)?;
            Ok(said)
        })?;
        reference.must_be_reached_by(migration, &cluster)?;
        Ok(Seen { said, kills: 1 })
    })
}

fn begin(cluster: &Cluster) -> Result<Migration, LabError> {
    let migration = Migration::begin(Scale::S)?;
    migration.agent.set(&update_in_pods(cluster))?;
    Ok(migration)
}

/// Works while somebody deploys Kaapana 0.3 as soon as the agent waits for it.
pub(super) fn with_a_person<T>(
    migration: &Migration,
    cluster: &Cluster,
    work: impl FnOnce() -> Result<T, LabError>,
) -> Result<T, LabError> {
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        let person = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                if migration.has_started(DEPLOYED_BY) {
                    return deploy(cluster, &migration.site);
                }
                sleep(LOOK);
            }
            Ok(())
        });
        let done = work();
        is_over.store(true, Ordering::SeqCst);
        match person.join() {
            Ok(deployed) => deployed.and(done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Reference {
    /// Migrates a site undisturbed, once a process.
    fn get() -> Result<&'static Self, LabError> {
        static KNOWN: OnceLock<Reference> = OnceLock::new();
        if let Some(known) = KNOWN.get() {
            return Ok(known);
        }
        let cluster = Cluster::start()?;
        let migration = begin(&cluster)?;
        let copy = copy_of(&migration.site, "by-script")?;
        with_a_person(&migration, &cluster, || {
            let leg = Leg::run(&migration, &Fire::None, &mut Watched::default())?;
            leg.ended.must_have(0)
        })?;
        let records = migration.agent.journal();
        let first = records
            .iter()
            .find(|record| is_about(record, "task_started", DEPLOYED_BY))
            .and_then(|record| record["seq"].as_u64());
        let reference = Self {
            first: first.ok_or_else(|| LabError::Unexpected("nothing was done in pods".into()))?,
            last: records.len() as u64,
            tasks: Tasks::of(&records, &migration.site.root)?,
            directory: by_script(&copy)?,
        };
        reference.must_be_reached_by(&migration, &cluster)?;
        Ok(KNOWN.get_or_init(|| reference))
    }

    /// Fails unless the migration came to the one right end. Ends the directory's pod.
    fn must_be_reached_by(&self, migration: &Migration, cluster: &Cluster) -> Result<(), LabError> {
        journal::must_be_whole(&migration.agent.journal_path())?;
        let records = migration.agent.journal();
        Tasks::of(&records, &migration.site.root)?.must_be_those_of(&self.tasks)?;
        let failures = journal::failures(&records);
        must(failures.is_empty(), || {
            format!("tasks failed on the way: {failures:?}")
        })?;
        for workload in ["ldap", "dcm4chee"] {
            let deletions = cluster.deletions(workload);
            must(deletions == 1, || {
                format!(
                    "{workload} was restarted {deletions} times: {:?}",
                    cluster.changes()
                )
            })?;
        }
        let before = (cluster.execs(), cluster.changes());
        migration.must_be_passed_over()?;
        must((cluster.execs(), cluster.changes()) == before, || {
            "a run of a finished migration asked the cluster".into()
        })?;
        migration.must_have_ended_right()?;

        let pod = cluster.container("ldap", "ldap-container")?;
        docker(&["stop", "--time", "60", &pod])?;
        let site = &migration.site;
        let found = content(&site.ldap_dir(), &site.slapd_config_dir())?;
        must(found == self.directory, || {
            "the directory is another one than the image's own scripts make".into()
        })
    }
}
