//! The DICOM files of a site.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::error::{LabError, io_error};

/// The user of the archive's WildFly server.
pub(super) const ARCHIVE_UID: u32 = 1023;

/// Writes the files of a listing: a line a file, path and content in hexadecimal, parted by a tab.
pub(super) fn write_all(dir: &Path, listing: &str) -> Result<(), LabError> {
    let mut made: HashSet<PathBuf> = HashSet::new();
    make_dirs(dir, &mut made)?;
    for line in listing.lines() {
        let unreadable = || LabError::Unexpected(format!("read a DICOM file from `{:.80}`", line));
        let (path, content) = line.split_once('\t').ok_or_else(unreadable)?;
        let content = hex::decode(content).map_err(|_| unreadable())?;
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            make_dirs(parent, &mut made)?;
        }
        fs::write(&path, content).map_err(io_error("write", &path))?;
        own(&path)?;
    }
    Ok(())
}

fn make_dirs(dir: &Path, made: &mut HashSet<PathBuf>) -> Result<(), LabError> {
    if made.contains(dir) || dir.exists() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent, made)?;
    }
    fs::create_dir(dir).map_err(io_error("create", dir))?;
    own(dir)?;
    made.insert(dir.to_path_buf());
    Ok(())
}

fn own(path: &Path) -> Result<(), LabError> {
    chown(path, Some(ARCHIVE_UID), Some(ARCHIVE_UID)).map_err(io_error("change the owner of", path))
}
