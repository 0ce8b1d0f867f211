//! A kill at a record of a migration, and then the way back: on both routes, with every way of the LDAP
//! part, and from the end as well.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::leg::{POINTS, on_a_site};
use super::pods::with_a_person;
use super::report::{Case, Seen};
use crate::agent::is_about;
use crate::error::LabError;
use crate::images::{docker, new_slapd};
use crate::kubernetes::Cluster;
use crate::ldap_update::{checksums, update_in_pods};
use crate::migration::{Ended, Migration, Running, must};
use crate::site::Scale;
use crate::tool;

/// The ways of the database.
pub const ROUTES: [&str; 2] = ["guide", "direct"];
/// The ways of the LDAP part.
pub const LDAP_UPDATES: [&str; 3] = ["confirm", "offline", "pod"];
/// The task that a person confirms once Kaapana 0.3 is deployed.
const DEPLOYED: &str = "redeployed";

/// Which migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Which {
    /// `route`.
    pub route: &'static str,
    /// `ldap_update`.
    pub ldap: &'static str,
}

impl Which {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let of = |route| LDAP_UPDATES.map(|ldap| Self { route, ldap });
        ROUTES.into_iter().flat_map(of).collect()
    }

    fn variables(self, cluster: Option<&Cluster>) -> Result<Value, LabError> {
        let mut all = match (self.ldap, cluster) {
            (_, Some(cluster)) => update_in_pods(cluster),
            ("offline", None) => json!({
                "ldap_update": "offline",
                "slapd_image": new_slapd()?,
                "ldap_schema_files": ["dicom-modify.ldif", "dcm4chee-archive-modify.ldif"],
            }),
            (other, None) => json!({"ldap_update": other}),
        };
        all["route"] = self.route.into();
        Ok(all)
    }
}

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
pub fn ways_back(which: Which, points: &[Until]) -> Vec<Case> {
    let case = |until: &Until| {
        let until = *until;
        let Which { route, ldap } = which;
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
            work: Box::new(move || go_and_come_back(which, until)),
        }
    };
    points.iter().map(case).collect()
}

static KNOWN: Mutex<BTreeMap<Which, u64>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<Which, u64>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records that an undisturbed migration of this kind writes. Where no case of this process went back from the
/// end, one goes there and back.
///
/// # Errors
/// It does not come to its end, or not back.
pub fn records_of(which: Which) -> Result<u64, LabError> {
    let records = || known().get(&which).copied();
    if records().is_none() {
        go_and_come_back(which, Until::End)?;
    }
    records().ok_or_else(|| LabError::Unexpected("nobody went to the end".into()))
}

fn go_and_come_back(which: Which, until: Until) -> Result<Seen, LabError> {
    on_a_site(Migration::begin(Scale::S)?, |migration| {
        let directory = checksums(&migration.site.fast_data_dir, "")?;
        let cluster = there(migration, which, until)?;
        let records = migration.agent.journal();
        if until == Until::End {
            known().insert(which, records.len() as u64);
        }
        let last = records.last().unwrap_or(&Value::Null);
        let said = format!("behind {} {}", last["event"], last["task"]);
        if let Some(cluster) = cluster {
            undeploy(migration, &cluster)?;
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

/// Migrates until there; with a cluster, where pods belong to it.
fn there(migration: &Migration, which: Which, until: Until) -> Result<Option<Cluster>, LabError> {
    let cluster = match which.ldap {
        "pod" => Some(Cluster::start()?),
        _ => None,
    };
    migration.agent.set(&which.variables(cluster.as_ref())?)?;
    let go = || match until {
        Until::End => migration.finish(),
        Until::Record(record, phase) => {
            let mut command = migration.agent.run();
            command.env(POINTS, format!("kill:{phase}:{record}"));
            let ended = Running::start(&mut command)?.end()?;
            must(ended.code.is_none(), || {
                format!("it was not killed: {:?}\n{}", ended.code, ended.stderr)
            })
        }
    };
    match &cluster {
        Some(cluster) => with_a_person(migration, cluster, go)?,
        None => go()?,
    }
    Ok(cluster)
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
