//! Kills at random moments, from outside, one to four in a row.

use std::time::Duration;

use super::leg::{Fire, Leg, Watched, on_a_site};
use super::reference::Reference;
use super::report::Case;
use crate::error::LabError;
use crate::migration::{Migration, must};
use crate::site::Scale;

/// Most kills in a row.
const MOST_IN_A_ROW: u64 = 4;

/// A small generator of numbers (SplitMix64, Steele, Lea and Flood 2014): the same seed, the same kills.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, case: u64) -> Self {
        let mut random = Self(seed);
        random.0 ^= case.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Cases `from` to `to` (not included) of a seed.
#[must_use]
pub fn random_kills(scale: Scale, seed: u64, from: u64, to: u64) -> Vec<Case> {
    (from..to)
        .map(|case| Case {
            kind: "random kills",
            name: format!("case {case} of seed {seed}, scale {}", scale.letter()),
            replay: format!(
                "--random 1 --seed {seed} --case {case} --scale {}",
                scale.letter()
            ),
            work: Box::new(move || kill_at_random(scale, seed, case)),
        })
        .collect()
}

fn kill_at_random(scale: Scale, seed: u64, case: u64) -> Result<String, LabError> {
    let reference = Reference::of(scale)?;
    let mut random = Random::new(seed, case);
    // Parts of a thousand of an undisturbed migration's time.
    let typical = u64::try_from(reference.took.as_micros()).unwrap_or(u64::MAX) / 1000;
    let moments: Vec<u64> = (0..=random.below(MOST_IN_A_ROW))
        .map(|_| random.below(1000))
        .collect();
    on_a_site(Migration::begin(scale)?, |migration| {
        kill_and_judge(migration, reference, typical, &moments)
    })
}

fn kill_and_judge(
    migration: &Migration,
    reference: &Reference,
    typical: u64,
    moments: &[u64],
) -> Result<String, LabError> {
    let mut watched = Watched::default();
    let mut seen = Vec::new();
    let mut done = false;
    for moment in moments {
        let time = Duration::from_micros(typical * moment);
        let leg = Leg::run(migration, &Fire::After(time), &mut watched)?;
        if leg.was_killed() {
            seen.push(format!("{moment}‰ at {}", migration.agent.journal().len()));
        } else {
            leg.ended.must_have(0)?;
            seen.push(format!("{moment}‰ too late"));
            done = true;
        }
    }
    let leg = Leg::run(migration, &Fire::None, &mut watched)?;
    leg.ended.must_have(0)?;
    must(done || !watched.histories.is_empty(), || {
        "nobody saw the schema history".into()
    })?;
    reference.must_be_reached_by(migration, &watched, true)?;
    Ok(seen.join(", "))
}
