//! Steps that predict and change in one: the same walk serves both.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::attributes::{Attributes, Wanted, apply_to_path, umask};
use super::durable::{fsync_dir, parent_of};
use super::error::FilesResult;
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::error::PathError;

/// Looks only, or changes too. One walk serves both, so that a prediction cannot differ from the deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Converge {
    /// Changes nothing.
    Check,
    /// Changes.
    Apply,
}

/// Gives a path what is wanted, and says what differed.
///
/// # Errors
/// When the system refuses.
pub fn set_attributes(path: &Path, wanted: &Wanted, mode: Converge) -> FilesResult<Vec<String>> {
    let meta = fs::symlink_metadata(path).map_err(PathError::on("inspect", path))?;
    let (change, lines) = wanted.difference(&meta);
    if mode == Converge::Apply && change != Attributes::default() {
        apply_to_path(path, &change)?;
        if !meta.is_symlink() {
            File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(PathError::on("sync", path))?;
        }
    }
    Ok(lines)
}

/// Sets the attributes of everything below a directory; links keep their targets untouched.
pub fn recurse(
    dir: &Path,
    wanted: &Wanted,
    ctx: &HostContext,
    mode: Converge,
    changed: &mut u64,
) -> FilesResult<()> {
    for entry in fs::read_dir(dir).map_err(PathError::on("list", dir))? {
        if ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        let path = entry.map_err(PathError::on("list", dir))?.path();
        let meta = fs::symlink_metadata(&path).map_err(PathError::on("inspect", &path))?;
        let (change, lines) = wanted.difference(&meta);
        if !lines.is_empty() {
            *changed += 1;
            if mode == Converge::Apply {
                apply_to_path(&path, &change)?;
                ctx.progress
                    .items(*changed, None, path.display().to_string());
            }
        }
        if meta.is_dir() {
            recurse(&path, wanted, ctx, mode, changed)?;
        }
    }
    Ok(())
}

/// Makes a directory and its missing parents, each with the attributes and synced into its parent.
pub fn make_directories(
    path: &Path,
    attributes: &dyn Fn(u32, bool) -> Attributes,
) -> FilesResult<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_directories(parent_of(path), attributes)?;
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            apply_to_path(path, &attributes(0o777 & !umask(), true))?;
            Ok(fsync_dir(parent_of(path))?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(PathError::on("create", path)(error).into()),
    }
}
