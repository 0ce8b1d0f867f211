//! Every declared variable, changed one at a time: after the end, in the middle, after a rollback. No server
//! may ever start on a directory that is not its own, no owner may change, and no run may end well where
//! something else is there than asked.
//!
//! `cargo run -p lab --bin variables` runs all of it and prints a table; `tests/README.md` says what is in it.

mod declared;
mod judge;
mod stand;
mod values;
mod watch;

pub use declared::{Variable, declared_by, declared_in};
pub use stand::{Moment, Stand};
pub use values::{Other, others};

use std::fs;

use judge::Trial;

use crate::crash::{Case, Random, Seen};
use crate::error::{LabError, io_error};
use crate::way::{LdapUpdate, Route, Way};

/// Kills of a way's sites in the middle: so many places in the journal for all cases of a seed, so that they
/// can share sites.
const KILLS: u64 = 4;

/// Ways of the sites. In pods nothing more is decided by variables than without them.
const WAYS: [Way; 4] = [
    Way {
        route: Route::Guide,
        ldap: LdapUpdate::Confirm,
    },
    Way {
        route: Route::Direct,
        ldap: LdapUpdate::Offline,
    },
    Way {
        route: Route::Direct,
        ldap: LdapUpdate::Confirm,
    },
    Way {
        route: Route::Guide,
        ldap: LdapUpdate::Offline,
    },
];

/// One change at one moment.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number, for this seed and these variables.
    pub number: u64,
    /// The variable.
    pub variable: Variable,
    /// What it becomes.
    pub other: Other,
    /// When.
    pub moment: Moment,
    /// On which way.
    pub way: Way,
}

impl Change {
    /// In words.
    #[must_use]
    pub fn name(&self) -> String {
        format!(
            "{} {}: `{}` becomes {}, {} ({})",
            self.number,
            self.moment.word(),
            self.variable.name,
            self.other.word(),
            self.way.name(),
            match self.variable.settled {
                true => "settled",
                false => "not settled",
            }
        )
    }
}

/// All changes of a seed, those of one moment and way side by side.
#[must_use]
pub fn changes(variables: &[Variable], seed: u64) -> Vec<Change> {
    let mut kills = Random::new(seed, u64::MAX);
    // Not before the first effects, and not behind the swap's end alone.
    let places: Vec<u64> = (0..KILLS)
        .map(|part| 250 + 700 / KILLS * part + kills.below(700 / KILLS))
        .collect();
    let mut all = Vec::new();
    for moment in 0..3 {
        for variable in variables {
            for other in others(variable) {
                let number = all.len() as u64;
                let mut random = Random::new(seed, number);
                let way = WAYS[random.below(WAYS.len() as u64) as usize];
                let place = places[random.below(KILLS) as usize];
                all.push(Change {
                    number,
                    variable: variable.clone(),
                    other,
                    moment: match moment {
                        0 => Moment::AfterTheEnd,
                        1 => Moment::InTheMiddle(place),
                        _ => Moment::AfterRollback,
                    },
                    way,
                });
            }
        }
    }
    all
}

/// The case that tries a change. `more`: options that the replay needs.
#[must_use]
pub fn case_of(change: Change, seed: u64, more: &str) -> Case {
    Case {
        kind: match (change.moment, change.variable.settled) {
            (Moment::AfterTheEnd, true) => "settled, after the end",
            (Moment::AfterTheEnd, false) => "not settled, after the end",
            (Moment::InTheMiddle(_), true) => "settled, in the middle",
            (Moment::InTheMiddle(_), false) => "not settled, in the middle",
            (Moment::AfterRollback, true) => "settled, after a rollback",
            (Moment::AfterRollback, false) => "not settled, after a rollback",
        },
        name: change.name(),
        replay: format!("--seed {seed} --case {0} --to {0}{more}", change.number),
        work: Box::new(move || attempt(&change)),
    }
}

fn attempt(change: &Change) -> Result<Seen, LabError> {
    let stand = Stand::at(change.way, change.moment)?;
    let migration = &stand.migration;
    let holding = migration.agent.variables()?;
    let now = holding
        .get(&change.variable.name)
        .unwrap_or(&change.variable.default);
    let Some(value) = values::change(&change.variable, &change.other, now, migration) else {
        stand.free();
        return Ok("no other value".to_owned().into());
    };
    let file = migration.site.root.join("change.json");
    fs::write(&file, format!("{value:#}\n")).map_err(io_error("write", &file))?;
    let subject = (&change.variable, &change.other);
    let judged = Trial::begin(&stand)
        .and_then(|trial| trial.run(&file))
        .and_then(|deed| {
            // In the middle, and after a rollback, a run that only looked has gone on all the same.
            let is_at_the_end = change.moment == Moment::AfterTheEnd;
            let is_clean = !deed.touched || (is_at_the_end && !deed.changed);
            judge::must_be_right(&stand, change.moment, subject, &file, deed)
                .map(|said| (said, is_clean))
        });
    match judged {
        Ok((said, is_clean)) => {
            if is_clean {
                stand.free();
            }
            Ok(format!("{said}, with {value}").into())
        }
        Err(error) => {
            let mut stand = stand;
            let root = stand.migration.site.root.display().to_string();
            // The error is what counts.
            let _ = stand.migration.site.keep();
            Err(LabError::Unexpected(format!(
                "{error}\n  with {value}; the site: {root}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn variable(name: &str, kind: &str) -> Variable {
        Variable {
            name: name.into(),
            kind: kind.into(),
            choices: Vec::new(),
            default: Value::Null,
            required: false,
            no_log: false,
            settled: true,
        }
    }

    #[test]
    fn a_seed_names_the_same_changes_and_every_variable_meets_every_moment() {
        let mut route = variable("route", "str");
        route.choices = vec![json!("guide"), json!("direct")];
        let variables = [route, variable("backup_dir", "path")];
        let (one, again) = (changes(&variables, 7), changes(&variables, 7));
        let names = |all: &[Change]| all.iter().map(Change::name).collect::<Vec<_>>();
        assert_eq!(names(&one), names(&again));
        assert_ne!(names(&one), names(&changes(&variables, 8)));
        for variable in &variables {
            let of_it = one.iter().filter(|c| c.variable == *variable);
            assert_eq!(of_it.count(), 3 * others(variable).len());
        }
        assert!(one.iter().enumerate().all(|(i, c)| c.number == i as u64));
    }
}
