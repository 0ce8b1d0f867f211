//! Return values that file modules share, by Ansible's names.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::host::files::attributes::{group_name, user_name};
use crate::host::files::durable::{metadata_of, mode_of};
use crate::host::files::error::FilesResult;
use crate::host::files::mode::show_mode;
use crate::task::module::Outcome;

/// Adds `state`, `mode`, `uid`, `gid`, `owner`, `group` `size`, and `device` and `inode` (a link's own)
/// of what has the name now, and the name itself under `key`.
///
/// # Errors
/// When the system cannot tell.
pub fn with_file_facts(outcome: Outcome, key: &str, path: &Path) -> FilesResult<Outcome> {
    let outcome = outcome.with(key, path.display().to_string());
    let Some(link) = metadata_of(path)? else {
        return Ok(outcome.with("state", "absent"));
    };
    let state = if link.is_symlink() {
        "link"
    } else if link.is_dir() {
        "directory"
    } else {
        "file"
    };
    let (device, inode) = (link.dev(), link.ino());
    // Attributes are those behind a link, where there is something behind it.
    let meta = fs::metadata(path).unwrap_or(link);
    Ok(outcome
        .with("state", state)
        .with("mode", show_mode(mode_of(&meta)))
        .with("uid", meta.uid())
        .with("gid", meta.gid())
        .with("owner", user_name(meta.uid()))
        .with("group", group_name(meta.gid()))
        .with("size", meta.size())
        .with("device", device)
        .with("inode", inode))
}
