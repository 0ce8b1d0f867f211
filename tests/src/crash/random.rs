//! Kills at random moments, from outside, one to four in a row.

use super::leg::{Fire, Leg, Watched, finished_tasks, on_a_site};
use super::reference::Reference;
use super::report::{Case, Seen};
use crate::error::LabError;
use crate::migration::{Migration, must};
use crate::site::Scale;
use crate::way::Way;

/// Most kills in a row.
const MOST_IN_A_ROW: u64 = 4;

/// A small generator of numbers (SplitMix64, Steele, Lea and Flood 2014): the same seed, the same kills.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, case: u64) -> Self {
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
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// Cases `from` to `to` (not included) of a seed.
#[must_use]
pub fn random_kills(way: Way, scale: Scale, seed: u64, from: u64, to: u64) -> Vec<Case> {
    (from..to)
        .map(|case| Case {
            kind: "random kills",
            name: format!(
                "case {case} of seed {seed}, scale {}, {}",
                scale.letter(),
                way.name()
            ),
            replay: format!(
                "--random 1 --seed {seed} --case {case} --scale {}{}",
                scale.letter(),
                way.options()
            ),
            work: Box::new(move || kill_at_random(way, scale, seed, case)),
        })
        .collect()
}

fn kill_at_random(way: Way, scale: Scale, seed: u64, case: u64) -> Result<Seen, LabError> {
    let reference = Reference::on(way, scale)?;
    let mut random = Random::new(seed, case);
    // Parts of a thousand of what is left of a migration when the agent is started.
    let moments: Vec<u64> = (0..=random.below(MOST_IN_A_ROW))
        .map(|_| random.below(1000))
        .collect();
    on_a_site(Migration::begin_on(way, scale)?, |migration| {
        kill_and_judge(migration, reference, &moments)
    })
}

fn kill_and_judge(
    migration: &Migration,
    reference: &Reference,
    moments: &[u64],
) -> Result<Seen, LabError> {
    let mut watched = Watched::default();
    let (mut said, mut kills, mut ended) = (Vec::new(), 0, false);
    for moment in moments {
        let fire = moment_of(migration, reference, *moment);
        let leg = Leg::run(migration, &fire, &mut watched)?;
        if leg.was_killed() {
            kills += 1;
            said.push(format!("{moment}‰ at {}", migration.agent.journal().len()));
        } else {
            leg.ended.must_have(0)?;
            said.push(format!("{moment}‰ too late"));
            ended = true;
        }
    }
    let leg = Leg::run(migration, &Fire::None, &mut watched)?;
    leg.ended.must_have(0)?;
    must(ended || !watched.histories.is_empty(), || {
        "nobody saw the schema history".into()
    })?;
    reference.must_be_reached_by(migration, &watched, true)?;
    let said = said.join(", ");
    Ok(Seen { said, kills })
}

/// The moment at which this part of a thousand of the work that is left would be done, told by the number
/// of tasks that are finished by then: on a busy machine a time alone would mean an earlier task.
fn moment_of(migration: &Migration, reference: &Reference, moment: u64) -> Fire {
    let done = finished_tasks(&migration.agent.journal_path());
    let now = reference.when_finished(done);
    let left = reference.took.saturating_sub(now);
    let then = now + left.mul_f64(moment as f64 / 1000.0);
    let (finished, since) = reference.finished_by(then);
    Fire::After(finished.max(done), then.saturating_sub(since.max(now)))
}
