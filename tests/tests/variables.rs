//! A sample of the harness `variables` that ends within minutes; the whole of it is
//! `cargo run -p lab --bin variables`.

use std::time::{Duration, Instant};

use lab::agent::Agent;
use lab::crash::{self, Table};
use lab::error::LabError;
use lab::variables::{Change, Moment, Stand, case_of, changes, declared_by};

/// No case of the sample begins later than this.
const BUDGET: Duration = Duration::from_secs(120);
/// At least so many are tried, however slow the machine is.
const LEAST: usize = 12;
/// After a rollback a change may run as a whole migration: so many of the sample.
const RUNS: usize = 2;
const SEED: u64 = 7;

/// On one way, so that the cases share sites: what is settled first, as that must never be touched.
fn sample(all: Vec<Change>) -> Vec<Change> {
    let way = all.first().map(|change| change.way);
    let mut place = None;
    let mut sample: Vec<Change> = all
        .into_iter()
        .filter(|change| Some(change.way) == way)
        .filter(|change| match change.moment {
            // One place of a kill.
            Moment::InTheMiddle(here) => *place.get_or_insert(here) == here,
            _ => true,
        })
        .collect();
    sample.sort_by_key(|change| (!change.variable.settled, change.number % 5, change.number));
    let mut runs = 0;
    sample.retain(|change| {
        let runs_again = change.moment == Moment::AfterRollback && !change.other.is_wrong();
        runs += usize::from(runs_again);
        !runs_again || runs <= RUNS
    });
    sample
}

#[test]
fn a_changed_variable_never_starts_a_server_on_a_wrong_directory() -> Result<(), LabError> {
    let declared = declared_by(&Agent::bare()?)?;
    let sample = sample(changes(&declared, SEED));
    assert!(sample.len() >= LEAST, "only {} cases", sample.len());
    let mut cases: Vec<_> = sample
        .into_iter()
        .map(|change| case_of(change, SEED, ""))
        .collect();
    let until = Instant::now() + BUDGET;
    let rest = cases.split_off(LEAST);
    let mut verdicts = crash::run_all(cases, 2, None);
    verdicts.extend(crash::run_all(rest, 2, Some(until)));
    Stand::clear();
    println!("{}", Table::of(&verdicts));
    let wrong: Vec<_> = verdicts
        .iter()
        .filter(|verdict| verdict.wrong.is_some())
        .collect();
    assert!(wrong.is_empty(), "wrong ends, seed {SEED}: {wrong:#?}");
    Ok(())
}
