//! Copies of hosts' states, for audit: below `hosts/<host>/` of the controller's own state directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::error::RemoteError;
use crate::state::{archive, journal::StateDir};

/// A copy that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// The host's state directory here.
    pub dir: PathBuf,
    /// Records in the journal.
    pub records: usize,
    /// Hash of the last one.
    pub head: String,
}

/// Verifies an archive of a host's state and keeps it as `hosts/<host>/<name>` below `root`. The copy that
/// is there must be its beginning: a host's journal only grows.
///
/// # Errors
/// The archive is damaged, another playbook's, or does not go on where the copy ends; then the copy stays.
pub fn store(root: &Path, host: &str, name: &str, tar: &[u8]) -> Result<Copied, RemoteError> {
    let not_kept = |what: String| RemoteError::State { what };
    if host.is_empty() || host.starts_with('.') || host.contains('/') {
        return Err(not_kept(format!("`{host}` is no name for a folder")));
    }
    let home = root.join("hosts").join(host);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&home)
        .map_err(RemoteError::io("create", &home))?;
    let path = home.join(format!(".{name}.tar.partial"));
    let _ = fs::remove_file(&path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(tar)?;
            file.sync_all()
        })
        .map_err(RemoteError::io("write", &path))?;
    let kept = keep(&home, name, &path);
    let _ = fs::remove_file(&path);
    kept
}

fn keep(home: &Path, name: &str, tar: &Path) -> Result<Copied, RemoteError> {
    let not_kept = |what: String| RemoteError::State { what };
    let verified = archive::verify(tar).map_err(|error| not_kept(error.to_string()))?;
    if verified.manifest.playbook != name {
        return Err(not_kept(format!(
            "it is of playbook {}, not of {name}",
            verified.manifest.playbook
        )));
    }
    let dir = StateDir::new(home, name);
    let before = crate::state::reader::read(&dir.journal())
        .map_err(|error| not_kept(format!("the copy that is here: {error}")))?;
    let records = &verified.journal.records;
    if !before.records.is_empty() && records.get(before.records.len() - 1) != before.records.last()
    {
        return Err(not_kept(format!(
            "it does not go on where the copy in {} ends: that one was taken of another state, or the \
             host's journal was cut off",
            dir.path().display()
        )));
    }
    let new = home.join(format!(".{name}.partial"));
    let _ = fs::remove_dir_all(&new);
    archive::unpack(tar, &new).map_err(|error| not_kept(error.to_string()))?;
    let swapped = if dir.path().exists() {
        // In one step: whenever this ends, one whole copy is there.
        renameat_with(CWD, &new, CWD, dir.path(), RenameFlags::EXCHANGE).map_err(Into::into)
    } else {
        fs::rename(&new, dir.path())
    };
    swapped.map_err(RemoteError::io("replace", dir.path()))?;
    // What is there now goes on where this one ended.
    let _ = fs::remove_dir_all(&new);
    Ok(Copied {
        dir: dir.path().to_path_buf(),
        records: records.len(),
        head: verified.journal.head,
    })
}
