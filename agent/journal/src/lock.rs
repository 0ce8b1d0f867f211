//! One run at a time: an exclusive `flock` that the kernel drops when the process ends, however.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::StateError;

/// Holds the lock until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock without waiting and writes `holder` (one line) into the file for others to read.
    ///
    /// # Errors
    /// [`StateError::Locked`] with the other's line when somebody holds it; `Io` otherwise.
    pub fn take(path: &Path, holder: &str) -> Result<Self, StateError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(StateError::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(locked(path, &mut file)),
            Err(TryLockError::Error(source)) => return Err(StateError::io("lock", path)(source)),
        }
        file.set_len(0).map_err(StateError::io("write", path))?;
        file.seek(SeekFrom::Start(0))
            .map_err(StateError::io("write", path))?;
        writeln!(file, "{holder}").map_err(StateError::io("write", path))?;
        Ok(Self {
            _file: file,
            path: path.to_path_buf(),
        })
    }

    /// Looks whether somebody holds the lock, without taking it for longer than the look.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn look(path: &Path) -> Result<(), StateError> {
        let mut file = File::open(path).map_err(StateError::io("open", path))?;
        match file.try_lock_shared() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(locked(path, &mut file)),
            Err(TryLockError::Error(source)) => Err(StateError::io("lock", path)(source)),
        }
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn locked(path: &Path, file: &mut File) -> StateError {
    let mut text = String::new();
    // The text is a courtesy: an unreadable one must not hide that the lock is held.
    let _ = file.read_to_string(&mut text);
    let holder = match text.trim() {
        "" => "an unknown process".to_owned(),
        text => text.to_owned(),
    };
    StateError::Locked {
        path: path.to_path_buf(),
        holder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("lock");
        let first = Lock::take(&path, "pid 1, run a").expect("free");
        let Err(StateError::Locked { holder, .. }) = Lock::take(&path, "pid 2, run b") else {
            panic!("the lock was given twice");
        };
        assert_eq!(holder, "pid 1, run a");
        drop(first);
        Lock::take(&path, "pid 2, run b").expect("free again");
    }
}
