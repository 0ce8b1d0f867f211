//! A sample of the harness `crash` that ends within minutes; the whole of it is
//! `cargo run -p lab --bin crash -- --all`.

use std::time::{Duration, Instant};

use lab::crash::{self, Blow, Case, Full, Moment, Table, Verdict};
use lab::site::Scale;
use lab::way::{LdapUpdate, Route, Way};

/// No case of the sample begins later than this after the agent is built and an undisturbed migration is
/// seen: with the longest one it stays below five minutes.
const BUDGET: Duration = Duration::from_secs(150);
/// At least so many are tried, however slow the machine is.
const LEAST: usize = 2;
const SEED: u64 = 7;

/// Kills on every way but the default, each at another place of its journal and in another phase.
fn on_every_way() -> Vec<Case> {
    let others = Way::ALL.into_iter().filter(|way| *way != Way::default());
    let phases = ["before", "torn", "after", "written"];
    let case = |(index, way): (usize, Way)| {
        let index = index as u64;
        let thousandths = (SEED * 131 + index * 389) % 1000;
        let phase = phases[(SEED + index) as usize % phases.len()];
        crash::kill_within(way, Scale::S, thousandths, phase)
    };
    others.enumerate().map(case).collect()
}

/// Those that find most come first, as a slow machine may not come to the last.
fn sample() -> Vec<Case> {
    let direct = Way {
        route: Route::Direct,
        ldap: LdapUpdate::Offline,
    };
    let random = |way, case| crash::random_kills(way, Scale::S, SEED, case, case + 1);
    let mut cases = vec![
        crash::full_disk(Full::State, "before:task_started:keep-old", 0),
        crash::server_fault(
            Scale::S,
            Blow::Postmaster,
            Moment::At("after:task_started:restore-work"),
            "pacs_work",
        ),
        crash::kill_within(Way::default(), Scale::S, 625, "before"),
    ];
    cases.extend(on_every_way());
    cases.extend(random(Way::default(), 0));
    cases.extend(random(direct, 1));
    cases.push(crash::full_disk(
        Full::Backup,
        "after:task_started:dump-old",
        200 << 10,
    ));
    cases.extend((2..6).flat_map(|case| random(Way::ALL[case as usize], case)));
    cases
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
fn a_sample_of_kills_and_faults_comes_to_the_right_end() {
    let mut cases = sample();
    let until = Instant::now() + BUDGET;
    let rest = cases.split_off(LEAST);
    let mut verdicts = crash::run_all(cases, 2, None);
    verdicts.extend(crash::run_all(rest, 2, Some(until)));
    must_be_right(&verdicts);
}

#[test]
fn no_power_loss_loses_a_finished_step() {
    let verdicts = crash::run_all(crash::power_losses(SEED, Some(60)), 1, None);
    must_be_right(&verdicts);
}
