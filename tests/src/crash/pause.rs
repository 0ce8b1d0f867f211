//! `docker pause`, but not in the middle of the start of an `exec`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::error::{LabError, io_error};
use crate::migration::Migration;

/// After this time nothing is on its way any more that was begun before.
const SETTLED: Duration = Duration::from_millis(300);
/// How often it is tried.
const TRIES: u32 = 20;

/// Pauses a container. Where a command is just being started in it, runc's own process is frozen on its way
/// in and keeps a lock, and neither `unpause` nor any other call about the container ever ends (seen with
/// Docker 20.10): then the container is thawed again, and paused a little later.
///
/// # Errors
/// Docker refuses, or there was always a command being started.
pub(super) fn pause(migration: &Migration, container: &str) -> Result<(), LabError> {
    let pid = migration.docker(&["inspect", "--format", "{{.State.Pid}}", container])?;
    let freezer = freezer_of(pid.trim())?;
    let mut last = None;
    for _ in 0..TRIES {
        // Where its processes are busy, runc gives up: "unable to freeze".
        let paused = migration.docker(&["pause", container]);
        // One that was begun just before comes in a little later.
        sleep(SETTLED);
        if paused.is_ok() && !has_a_command_on_its_way(&freezer)? {
            return Ok(());
        }
        thaw(&freezer)?;
        // What hung goes on now, and Docker gets to know of it.
        let _ = migration.docker(&["unpause", container]);
        last = paused.err();
    }
    if let Some(error) = last {
        return Err(error);
    }
    Err(LabError::Unexpected(format!(
        "{container} could not be paused: each time a command was being started in it"
    )))
}

/// The container's folder in the hierarchy of control groups that freezes: the first version's, or the second's.
fn freezer_of(pid: &str) -> Result<PathBuf, LabError> {
    let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
    let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    let place = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        match rest.split_once(':')? {
            ("freezer", path) => Some(Path::new("/sys/fs/cgroup/freezer").join(relative(path))),
            ("", path) => Some(Path::new("/sys/fs/cgroup").join(relative(path))),
            _ => None,
        }
    };
    // With both, the first version's does it.
    let mut found: Vec<PathBuf> = text.lines().filter_map(place).collect();
    found.sort_by_key(|path| !path.starts_with("/sys/fs/cgroup/freezer"));
    let first = found.into_iter().next();
    first.ok_or_else(|| LabError::Unexpected(format!("{text:?} names no freezer")))
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn has_a_command_on_its_way(freezer: &Path) -> Result<bool, LabError> {
    let path = freezer.join("cgroup.procs");
    let pids = fs::read_to_string(&path).map_err(io_error("read", &path))?;
    Ok(pids.lines().any(|pid| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(b"runc\0init")
    }))
}

fn thaw(freezer: &Path) -> Result<(), LabError> {
    let first = freezer.join("freezer.state");
    let (path, word) = match first.exists() {
        true => (first, "THAWED"),
        false => (freezer.join("cgroup.freeze"), "0"),
    };
    fs::write(&path, word).map_err(io_error("write", &path))
}
