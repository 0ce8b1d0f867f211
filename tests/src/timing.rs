//! What the benches share: medians, how they are printed, and a disk with nothing left to write.

use std::process::Command;
use std::time::Duration;

use crate::error::LabError;
use crate::tool;

/// Returns the middle one; the upper of two.
#[must_use]
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Returns the median in seconds, with the range in brackets.
#[must_use]
pub fn shown(times: &[Duration], decimals: usize) -> String {
    let seconds = |time: Option<&Duration>| time.copied().unwrap_or_default().as_secs_f64();
    format!(
        "{:.decimals$} [{:.decimals$}-{:.decimals$}]",
        median(times).as_secs_f64(),
        seconds(times.iter().min()),
        seconds(times.iter().max())
    )
}

/// Has everything written that the setting up left to be written, before the clock starts.
///
/// # Errors
/// `sync` fails.
pub fn settle() -> Result<(), LabError> {
    tool::run(&mut Command::new("sync"), "write out what is pending").map(|_| ())
}
