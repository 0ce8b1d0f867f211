//! A kill at every record of the journal.

use super::leg::{Fire, Leg, Watched, on_a_site};
use super::reference::Reference;
use super::report::{Case, Seen};
use crate::error::LabError;
use crate::migration::{Migration, must};
use crate::site::Scale;
use crate::way::{LdapUpdate, Route, Way};

/// The moments of an append, as the agent names them, in the order in which they come.
pub const PHASES: [&str; 4] = ["before", "torn", "written", "after"];

/// Number of records that an undisturbed migration writes, and the first of what it does in pods.
///
/// # Errors
/// It does not come to the right end.
pub fn point_count(way: Way, scale: Scale) -> Result<(u64, Option<u64>), LabError> {
    Reference::on(way, scale).map(|reference| (reference.records, reference.first_in_pods))
}

/// One case for each of these records and phases: killed there, then run to the end.
#[must_use]
pub fn kills_at_records(
    way: Way,
    scale: Scale,
    records: &[u64],
    phases: &[&'static str],
) -> Vec<Case> {
    let mut cases = Vec::new();
    for record in records {
        for phase in phases {
            let (record, phase) = (*record, *phase);
            cases.push(Case {
                kind: kind_of(way),
                name: format!("{phase} record {record}, scale {}", scale.letter()),
                replay: format!(
                    "--records --from {record} --to {record} --phase {phase} --scale {}{}",
                    scale.letter(),
                    way.options()
                ),
                work: Box::new(move || kill_at(way, scale, record, phase)),
            });
        }
    }
    cases
}

/// As [`kills_at_records`], at the record that stands so many thousandths into the journal, which nobody
/// has to know before the case begins.
#[must_use]
pub fn kill_within(way: Way, scale: Scale, thousandths: u64, phase: &'static str) -> Case {
    Case {
        kind: kind_of(way),
        name: format!(
            "{phase} the record at {thousandths}‰, scale {}",
            scale.letter()
        ),
        replay: format!(
            "--records --within {thousandths} --phase {phase} --scale {}{}",
            scale.letter(),
            way.options()
        ),
        work: Box::new(move || {
            let records = Reference::on(way, scale)?.records;
            kill_at(way, scale, (records * thousandths / 1000).max(1), phase)
        }),
    }
}

fn kind_of(way: Way) -> &'static str {
    match (way.route, way.ldap) {
        (Route::Guide, LdapUpdate::Confirm) => "kill at a record",
        (Route::Guide, LdapUpdate::Offline) => "kill at a record, offline",
        (Route::Guide, LdapUpdate::Pod) => "kill at a record, in pods",
        (Route::Direct, LdapUpdate::Confirm) => "kill at a record, direct",
        (Route::Direct, LdapUpdate::Offline) => "kill at a record, direct, offline",
        (Route::Direct, LdapUpdate::Pod) => "kill at a record, direct, in pods",
    }
}

fn kill_at(way: Way, scale: Scale, record: u64, phase: &str) -> Result<Seen, LabError> {
    let reference = Reference::on(way, scale)?;
    on_a_site(Migration::begin_on(way, scale)?, |migration| {
        kill_and_judge(migration, reference, record, phase)
    })
}

fn kill_and_judge(
    migration: &Migration,
    reference: &Reference,
    record: u64,
    phase: &str,
) -> Result<Seen, LabError> {
    let mut watched = Watched::default();
    Leg::killed_at(migration, phase, record, &mut watched)?;
    let records = migration.agent.journal();
    let whole = if ["before", "torn"].contains(&phase) {
        record - 1
    } else {
        record
    };
    must(records.len() as u64 == whole, || {
        format!("{} records are whole instead of {whole}", records.len())
    })?;
    let at = records.last().map_or_else(String::new, |last| {
        let task = last["task"].as_str().unwrap_or_default();
        let task = task.rsplit(" / ").next().unwrap_or_default();
        format!(
            "record {record}, after {} {task}",
            last["event"].as_str().unwrap_or_default()
        )
    });
    let leg = Leg::run(migration, &Fire::None, &mut watched)?;
    leg.ended.must_have(0)?;
    must(!watched.histories.is_empty(), || {
        "nobody saw the schema history".into()
    })?;
    reference.must_be_reached_by(migration, &watched, true)?;
    Ok(Seen { said: at, kills: 1 })
}
