//! What the benches share: medians, how they are printed, what a program takes, and a disk with nothing left
//! to write.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{LabError, io_error};
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

/// What a program took.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// From start to end.
    pub elapsed: Duration,
    /// The most memory that it had at a time.
    pub peak_kib: u64,
}

/// Runs a program to its end and looks at its memory on the way; what it prints is read and dropped.
///
/// # Errors
/// It cannot be started, or ends with another status than 0; the error has what it printed.
pub fn watched(command: &mut Command) -> Result<Watched, LabError> {
    let program = PathBuf::from(command.get_program());
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_error("start", &program))?;
    // Read along, so that it never waits for us.
    let out = child.stdout.take().map(read_along);
    let err = child.stderr.take().map(read_along);
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_kib(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().map_err(io_error("wait for", &program))? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let elapsed = started.elapsed();
    let printed: Vec<String> = [out, err]
        .into_iter()
        .flatten()
        .filter_map(|reader| reader.join().ok())
        .collect();
    if !status.success() {
        let text = format!(
            "{} ended with {status}\n{}",
            program.display(),
            printed.concat()
        );
        return Err(LabError::Unexpected(text));
    }
    Ok(Watched {
        elapsed,
        peak_kib: peak,
    })
}

fn read_along(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has told all that it will.
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
