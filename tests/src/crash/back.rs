//! A kill at a record of a migration, and then the way back: on both routes, with every way of the LDAP
//! part, and from the end as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::leg::{POINTS, on_a_site};
use super::report::{Case, Seen};
use crate::agent::is_about;
use crate::error::LabError;
use crate::images::docker;
use crate::kubernetes::Cluster;
use crate::ldap_update::checksums;
use crate::migration::{Ended, Migration, Running, must};
use crate::site::Scale;
use crate::tool;
use crate::way::Way;

/// The task that a person confirms once Kaapana 0.3 is deployed.
const DEPLOYED: &str = "redeployed";

/// How far a migration comes before it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// It is killed at this phase of the append of this record.
    Record(u64, &'static str),
    /// To its end.
    End,
}

/// One case for each of these points: a migration that comes so far, and is taken back.
#[must_use]
pub fn ways_back(way: Way, points: &[Until]) -> Vec<Case> {
    let case = |until: &Until| {
        let until = *until;
        let (route, ldap) = (way.route.word(), way.ldap.word());
        let (name, replay) = match until {
            Until::End => ("the end".to_owned(), "--case 1".to_owned()),
            Until::Record(record, phase) => (
                format!("{phase} record {record}"),
                format!("--from {record} --to {record} --phase {phase}"),
            ),
        };
        Case {
            kind: "way back",
            name: format!("from {name}, route {route}, ldap_update {ldap}"),
            replay: format!("--back --route {route} --ldap {ldap} {replay}"),
            work: Box::new(move || go_and_come_back(way, until)),
        }
    };
    points.iter().map(case).collect()
}

static KNOWN: Mutex<BTreeMap<Way, u64>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<Way, u64>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records that an undisturbed migration of this kind writes. Where no case of this process went back from the
/// end, one goes there and back.
///
/// # Errors
/// It does not come to its end, or not back.
pub fn records_of(way: Way) -> Result<u64, LabError> {
    let records = || known().get(&way).copied();
    if records().is_none() {
        go_and_come_back(way, Until::End)?;
    }
    records().ok_or_else(|| LabError::Unexpected("nobody went to the end".into()))
}

fn go_and_come_back(way: Way, until: Until) -> Result<Seen, LabError> {
    on_a_site(Migration::begin_on(way, Scale::S)?, |migration| {
        let directory = checksums(&migration.site.fast_data_dir, "")?;
        there(migration, until)?;
        let records = migration.agent.journal();
        if until == Until::End {
            known().insert(way, records.len() as u64);
        }
        let last = records.last().unwrap_or(&Value::Null);
        let said = format!("behind {} {}", last["event"], last["task"]);
        if let Some(deployment) = &migration.deployment {
            undeploy(migration, &deployment.cluster)?;
        }
        let ended = back(migration)?;
        ended.must_have(0)?;
        migration.must_be_rolled_back()?;
        let found = checksums(&migration.site.fast_data_dir, "")?;
        must(found == directory, || {
            "the LDAP directory is another one".into()
        })?;
        let kills = usize::from(until != Until::End);
        Ok(Seen { said, kills })
    })
}

/// Migrates until there, while somebody deploys Kaapana 0.3 where pods belong to it.
fn there(migration: &Migration, until: Until) -> Result<(), LabError> {
    migration.attended(|| match until {
        Until::End => migration.finish(),
        Until::Record(record, phase) => {
            let mut command = migration.agent.run();
            command.env(POINTS, format!("kill:{phase}:{record}"));
            let ended = Running::start(&mut command)?.end()?;
            must(ended.code.is_none(), || {
                format!("it was not killed: {:?}\n{}", ended.code, ended.stderr)
            })
        }
    })
}

fn back(migration: &Migration) -> Result<Ended, LabError> {
    migration.start_rollback()?.end()
}

/// What the question asks a person to do: undeploys Kaapana 0.3, and puts the copies of the LDAP directory back.
fn undeploy(migration: &Migration, cluster: &Cluster) -> Result<(), LabError> {
    let records = migration.agent.journal();
    if !records
        .iter()
        .any(|record| is_about(record, "task_finished", DEPLOYED))
    {
        return Ok(());
    }
    for (workload, container) in [
        ("ldap", "ldap-container"),
        ("dcm4chee", "dcm4chee-container"),
    ] {
        // It was killed before somebody had deployed it.
        if let Ok(pod) = cluster.container(workload, container) {
            docker(&["stop", "--time", "60", &pod])?;
        }
    }
    let site = &migration.site;
    for dir in [site.ldap_dir(), site.slapd_config_dir()] {
        let named = |suffix: &str| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            dir.with_file_name(format!("{name}{suffix}"))
        };
        let mut mv = std::process::Command::new("mv");
        tool::run(
            mv.args(["-T"]).arg(&dir).arg(named("-0.3")),
            "move the directory",
        )?;
        let mut mv = std::process::Command::new("mv");
        tool::run(
            mv.args(["-T"]).arg(named("-old")).arg(&dir),
            "move the directory",
        )?;
    }
    Ok(())
}
