//! Adds up what a tree holds.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::durable::Identity;
use super::error::FilesResult;
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::error::PathError;

/// What a tree holds; a file with several names in it counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSize {
    /// Sum of the regular files' lengths.
    pub bytes: u64,
    /// What the tree takes on the disk, holes not counted.
    pub allocated_bytes: u64,
    /// Everything that is no directory.
    pub files: u64,
    /// Directories, the top one included.
    pub directories: u64,
}

/// Adds up a tree (or a single file); links are not followed, other filesystems are entered.
///
/// # Errors
/// [`ModuleError::Cancelled`], or what the system said.
pub fn tree_size(path: &Path, ctx: &HostContext) -> FilesResult<TreeSize> {
    let mut size = TreeSize::default();
    let mut seen = HashSet::new();
    add(path, ctx, &mut size, &mut seen)?;
    Ok(size)
}

fn add(
    path: &Path,
    ctx: &HostContext,
    size: &mut TreeSize,
    seen: &mut HashSet<Identity>,
) -> FilesResult<()> {
    if ctx.cancel.is_cancelled() {
        return Err(ModuleError::Cancelled);
    }
    let meta = fs::symlink_metadata(path).map_err(PathError::on("inspect", path))?;
    if meta.is_dir() {
        size.directories += 1;
        size.allocated_bytes += meta.blocks() * 512;
        for entry in fs::read_dir(path).map_err(PathError::on("list", path))? {
            let entry = entry.map_err(PathError::on("list", path))?;
            add(&entry.path(), ctx, size, seen)?;
        }
        return Ok(());
    }
    // Only names that may repeat are remembered; a million plain files cost no memory.
    if meta.nlink() > 1 && !seen.insert(Identity::of(&meta)) {
        return Ok(());
    }
    size.files += 1;
    size.allocated_bytes += meta.blocks() * 512;
    if meta.is_file() {
        size.bytes += meta.len();
    }
    if size.files.is_multiple_of(4096) {
        ctx.progress
            .items(size.files, None, format!("counting {}", path.display()));
    }
    Ok(())
}
