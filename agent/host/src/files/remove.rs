//! Takes names away: refuses what would break the host, and deletes what has lost its name by a rename.

use std::fs;
use std::path::{Path, PathBuf};

use super::durable::{self, metadata_of, parent_of, sibling};
use super::error::{FilesError, FilesResult};
use super::mounts::Mounts;
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::error::PathError;

/// Directories without which a Linux host does not work, beside everything directly under `/`.
const SYSTEM: &[&str] = &[
    "/etc/ssh",
    "/etc/systemd",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var/lib",
    "/var/log",
    "/var/lib/dpkg",
    "/var/lib/docker",
    "/var/snap",
    "/var/lib/snapd",
];

/// Refuses to remove or move a directory that the host or this run needs.
///
/// # Errors
/// [`FilesError::Refused`] with the reason.
pub fn refuse_vital(path: &Path, ctx: &HostContext) -> FilesResult<()> {
    let refused = |why: String| {
        Err(FilesError::Refused {
            path: path.to_path_buf(),
            why,
        }
        .into())
    };
    let Some(meta) = metadata_of(path)? else {
        return Ok(());
    };
    if !meta.is_dir() {
        return Ok(());
    }
    let real = fs::canonicalize(path).map_err(PathError::on("resolve", path))?;
    if real == Path::new("/") {
        return refused("it is the root directory".into());
    }
    if parent_of(&real) == Path::new("/") || SYSTEM.iter().any(|system| real == Path::new(system)) {
        return refused("it is a top-level system directory".into());
    }
    if parent_of(&real) == Path::new("/home") && real.join(".ssh").exists() {
        return refused("it is a user's home directory".into());
    }
    let playbook = fs::canonicalize(&ctx.base_dir).unwrap_or_else(|_| ctx.base_dir.clone());
    if playbook.starts_with(&real) {
        return refused("the playbook is in it".into());
    }
    let mounts = Mounts::read()?;
    if let Some(mount) = mounts.at_or_below(&real).first() {
        return refused(if mount.point == real {
            format!("it is a mount point ({mount})")
        } else {
            format!("{mount} is mounted below it")
        });
    }
    Ok(())
}

/// Where a tree waits for its deletion, its old name already free.
#[must_use]
pub fn waiting_name(path: &Path, attempt: &str) -> PathBuf {
    sibling(path, "removing", attempt)
}

/// Deletes a tree that has already lost its name, telling how far it is.
///
/// # Errors
/// When something cannot be removed, or [`ModuleError::Cancelled`] in the middle: the rest is deleted
/// by another call.
pub fn delete_tree(tree: &Path, ctx: &HostContext) -> FilesResult<()> {
    let mut count = 0;
    delete_below(tree, ctx, &mut count)?;
    fs::remove_dir(tree).map_err(PathError::on("remove", tree))?;
    Ok(durable::fsync_dir(parent_of(tree))?)
}

fn delete_below(dir: &Path, ctx: &HostContext, count: &mut u64) -> FilesResult<()> {
    // Collected first: deleting while reading a directory may make some filesystems skip entries.
    let entries: Vec<_> = fs::read_dir(dir)
        .and_then(Iterator::collect)
        .map_err(PathError::on("list", dir))?;
    for entry in entries {
        if ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(PathError::on("inspect", &path))?;
        if kind.is_dir() {
            delete_below(&path, ctx, count)?;
            fs::remove_dir(&path).map_err(PathError::on("remove", &path))?;
        } else {
            fs::remove_file(&path).map_err(PathError::on("remove", &path))?;
        }
        *count += 1;
        if count.is_multiple_of(256) {
            ctx.progress.items(*count, None, path.display().to_string());
        }
    }
    Ok(())
}

/// Finishes a deletion that an interrupted attempt began, and says whether there was one.
///
/// # Errors
/// As [`delete_tree`].
pub fn finish_removal(path: &Path, ctx: &HostContext) -> FilesResult<bool> {
    let Some(attempt) = &ctx.interrupted_attempt else {
        return Ok(false);
    };
    let waiting = waiting_name(path, attempt);
    if metadata_of(&waiting)?.is_none() {
        return Ok(false);
    }
    delete_tree(&waiting, ctx)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vital_directories_are_refused() {
        let base = tempfile::tempdir().expect("temp dir");
        let playbook = base.path().join("play/books");
        fs::create_dir_all(&playbook).expect("mkdir");
        let ctx = HostContext::for_tests(&playbook);
        for path in ["/", "/etc", "/usr/../etc", "/proc", "/usr/lib"] {
            let error = refuse_vital(Path::new(path), &ctx).expect_err(path);
            assert!(error.to_string().starts_with("refused to touch"), "{error}");
        }
        assert!(refuse_vital(&base.path().join("play"), &ctx).is_err());
        fs::create_dir(base.path().join("data")).expect("mkdir");
        refuse_vital(&base.path().join("data"), &ctx).expect("harmless");
    }

    #[test]
    fn a_cancelled_deletion_is_finished_later() {
        let base = tempfile::tempdir().expect("temp dir");
        let tree = base.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).expect("mkdir");
        fs::write(tree.join("a/b/c"), "x").expect("write");
        let mut ctx = HostContext::for_tests(Path::new("/nowhere"));
        ctx.cancel.cancel();
        let waiting = waiting_name(&tree, &ctx.attempt);
        fs::rename(&tree, &waiting).expect("the name is free at once");
        let stopped = delete_tree(&waiting, &ctx);
        assert!(matches!(stopped, Err(ModuleError::Cancelled)));

        let mut next = HostContext::for_tests(Path::new("/nowhere"));
        next.interrupted_attempt = Some(std::mem::take(&mut ctx.attempt));
        assert!(finish_removal(&tree, &next).expect("finished"));
        assert_eq!(fs::read_dir(base.path()).expect("list").count(), 0);
    }
}
