//! A sample of the harness `crash` that ends within minutes; the whole of it is
//! `cargo run -p lab --bin crash -- --all`.

use std::time::{Duration, Instant};

use lab::crash::{self, Blow, Case, Full, Moment, Table, Verdict};
use lab::error::LabError;
use lab::site::Scale;

/// No case of the sample begins later than this after the agent is built and an undisturbed migration is
/// seen: with the longest one it stays below five minutes.
const BUDGET: Duration = Duration::from_secs(150);
/// At least so many are tried, however slow the machine is.
const LEAST: usize = 2;
const SEED: u64 = 7;

/// Those that find most come first, as a slow machine may not come to the last.
fn sample() -> Result<Vec<Case>, LabError> {
    let records = crash::point_count(Scale::S)?;
    // One behind the other through the whole journal, in another phase each.
    let at = |part: u64, phase| crash::kills_at_records(Scale::S, &[records * part / 8], &[phase]);
    let mut cases = vec![
        crash::full_disk(Full::State, "before:task_started:keep-old", 0),
        crash::server_fault(
            Scale::S,
            Blow::Postmaster,
            Moment::At("after:task_started:restore-work"),
            "pacs_work",
        ),
    ];
    cases.extend(at(5, "before"));
    cases.extend(crash::random_kills(Scale::S, SEED, 0, 2));
    cases.extend(at(7, "torn"));
    cases.extend(at(4, "after"));
    cases.push(crash::full_disk(
        Full::Backup,
        "after:task_started:dump-old",
        200 << 10,
    ));
    cases.extend(at(6, "written"));
    cases.extend(crash::random_kills(Scale::S, SEED, 2, 6));
    Ok(cases)
}

fn must_be_right(verdicts: &[Verdict]) {
    println!("{}", Table::of(verdicts));
    let wrong: Vec<_> = verdicts
        .iter()
        .filter(|verdict| verdict.wrong.is_some())
        .collect();
    assert!(wrong.is_empty(), "wrong ends, seed {SEED}: {wrong:#?}");
}

#[test]
fn a_sample_of_kills_and_faults_comes_to_the_right_end() -> Result<(), LabError> {
    let mut cases = sample()?;
    let until = Instant::now() + BUDGET;
    let rest = cases.split_off(LEAST);
    let mut verdicts = crash::run_all(cases, 2, None);
    verdicts.extend(crash::run_all(rest, 2, Some(until)));
    must_be_right(&verdicts);
    Ok(())
}

#[test]
fn no_power_loss_loses_a_finished_step() {
    let verdicts = crash::run_all(crash::power_losses(SEED, Some(60)), 1, None);
    must_be_right(&verdicts);
}
