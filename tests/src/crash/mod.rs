//! Exactly once, under fire: kills, faults and power losses in the middle of a migration, each judged by
//! its end against one that nobody disturbed.
//!
//! `cargo run -p lab --bin crash` runs all of it and prints a table; `tests/README.md` says what is in it.

mod back;
mod daemon;
mod disk;
mod far;
mod faults;
mod hosts;
mod journal;
mod leg;
mod older;
mod pause;
mod power;
mod random;
mod records;
mod reference;
mod report;
mod strike;

pub use back::{Until, records_of, ways_back};
pub use daemon::{daemon_restart, daemon_restarts};
pub use disk::{Full, full_disk, full_disks};
pub use far::migrations_over_ssh;
pub use faults::{Blow, SCENES, server_fault, server_faults};
pub use hosts::faults_between_hosts;
pub use journal::Tasks;
pub use leg::{Fire, Leg, Watched};
pub use older::{OlderAgent, taken_over};
pub use power::power_losses;
pub(crate) use random::Random;
pub use random::random_kills;
pub use records::{PHASES, kill_within, kills_at_records, point_count};
pub use reference::Reference;
pub use report::{Case, Seen, Table, Verdict, run_all};
pub use strike::Moment;
