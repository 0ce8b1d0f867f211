//! Directories for `copy`: whole and verified where the target is new, file by file where it is not.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::content::Source;
use super::copy::CopyModule;
use super::put::Change;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::{Attributes, Wanted, apply_to_path, umask};
use crate::host::files::converge::Converge;
use crate::host::files::durable::{
    free_bytes, fsync_dir, kind_of, metadata_of, mode_of, nearest_existing, parent_of,
    remove_if_there, remove_partial, rename_noreplace, sibling,
};
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::files::mode::Mode;
use crate::host::files::mounts::Mounts;
use crate::host::files::tree_copy::copy_tree;
use crate::host::files::walk::tree_size;
use crate::task::context::TaskContext;

/// Where a directory goes: into `dest` under its own name, or, where `src` ends in `/`, onto `dest`.
pub(super) fn target_of(module: &CopyModule, ctx: &TaskContext, src: &Path) -> PathBuf {
    let dest = ctx.resolve(&module.dest);
    let dest: PathBuf = dest.components().collect();
    let content_only = module
        .src
        .as_ref()
        .is_some_and(|src| src.as_os_str().as_encoded_bytes().ends_with(b"/"));
    match src.file_name() {
        Some(name) if !content_only => dest.join(name),
        _ => dest,
    }
}

/// Brings a directory there, or tells what would change.
///
/// # Errors
/// What the system or the verification said; [`ModuleError::Cancelled`].
pub(super) fn converge(
    module: &CopyModule,
    ctx: &TaskContext,
    src: &Path,
    mode: Converge,
) -> FilesResult<(PathBuf, Change)> {
    let target = target_of(module, ctx, src);
    if fs::canonicalize(nearest_existing(&target))
        .is_ok_and(|near| fs::canonicalize(src).is_ok_and(|src| near.starts_with(src)))
    {
        return Err(FilesError::argument("`dest` is `src` or lies in it").into());
    }
    let mut change = Change::default();
    if module.remote_src && metadata_of(&target)?.is_none() {
        whole(module, ctx, src, &target, mode, &mut change)?;
        return Ok((target, change));
    }
    merge(module, ctx, src, &target, mode, &mut change)?;
    Ok((target, change))
}

fn whole(
    module: &CopyModule,
    ctx: &TaskContext,
    src: &Path,
    target: &Path,
    mode: Converge,
    change: &mut Change,
) -> FilesResult<()> {
    change
        .lines
        .push(format!("copy {} to {}", src.display(), target.display()));
    let size = tree_size(src, ctx)?;
    let near = nearest_existing(target);
    let (free, _) = free_bytes(&near)?;
    if size.allocated_bytes > free {
        return Err(FilesError::NotEnoughSpace {
            mount: Mounts::read()?.describe(&near),
            path: target.to_path_buf(),
            free,
            required: size.allocated_bytes,
        }
        .into());
    }
    if mode == Converge::Check {
        return Ok(());
    }
    make_parents(parent_of(target))?;
    let partial = sibling(target, "partial", &ctx.attempt);
    remove_if_there(&partial)?;
    let done = copy_tree(src, &partial, ctx)
        .and_then(|_| {
            let wanted = module.wanted(None)?;
            if wanted.is_empty() && module.directory_mode.is_none() {
                return Ok(());
            }
            attributes_below(module, ctx, &partial, &wanted)
        })
        .and_then(|()| rename_noreplace(&partial, target));
    if done.is_err() {
        // The first error is the one to report; `recover` removes what stays.
        let _ = remove_if_there(&partial);
    }
    done
}

fn make_parents(dir: &Path) -> FilesResult<()> {
    if dir.is_dir() {
        return Ok(());
    }
    make_parents(parent_of(dir))?;
    fs::create_dir(dir).map_err(PathError::on("create", dir))?;
    Ok(fsync_dir(parent_of(dir))?)
}

/// Sets what the task says about owner and mode on a whole new tree.
fn attributes_below(
    module: &CopyModule,
    ctx: &TaskContext,
    path: &Path,
    wanted: &Wanted,
) -> FilesResult<()> {
    if ctx.cancel.is_cancelled() {
        return Err(ModuleError::Cancelled);
    }
    let meta = fs::symlink_metadata(path).map_err(PathError::on("inspect", path))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(PathError::on("list", path))? {
            let entry = entry.map_err(PathError::on("list", path))?;
            attributes_below(module, ctx, &entry.path(), wanted)?;
        }
    }
    let (change, _) = wanted_of(module, &meta, wanted).difference(&meta);
    Ok(apply_to_path(path, &change)?)
}

/// A directory's own mode is `directory_mode`; `mode` is for files.
fn wanted_of(module: &CopyModule, meta: &fs::Metadata, wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    if meta.is_dir() {
        wanted.mode.clone_from(&module.directory_mode);
    }
    wanted
}

fn merge(
    module: &CopyModule,
    ctx: &TaskContext,
    from: &Path,
    to: &Path,
    mode: Converge,
    change: &mut Change,
) -> FilesResult<()> {
    if ctx.cancel.is_cancelled() {
        return Err(ModuleError::Cancelled);
    }
    let meta = fs::metadata(from).map_err(PathError::on("inspect", from))?;
    directory(module, &meta, to, mode, change)?;
    let mut names: Vec<_> = fs::read_dir(from)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
        .map_err(PathError::on("list", from))?;
    names.sort_unstable();
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        let own = fs::symlink_metadata(&from).map_err(PathError::on("inspect", &from))?;
        if own.is_symlink() && (module.remote_src || !from.exists()) {
            link(ctx, &from, &to, mode, change)?;
            continue;
        }
        let meta = fs::metadata(&from).map_err(PathError::on("inspect", &from))?;
        if meta.is_dir() {
            merge(module, ctx, &from, &to, mode, change)?;
        } else if meta.is_file() {
            let wanted = with_source(module, &meta, module.wanted(Some(&meta))?);
            let one = module.one_file(ctx, Source::File(&from), &to, &wanted, mode, None)?;
            change.lines.extend(one.lines);
        } else {
            return Err(FilesError::WrongKind {
                path: from,
                wanted: "file or directory",
                found: kind_of(&meta),
            }
            .into());
        }
    }
    Ok(())
}

/// Data of the host keeps its owner and mode where the task names none.
fn with_source(module: &CopyModule, meta: &fs::Metadata, mut wanted: Wanted) -> Wanted {
    if module.remote_src {
        wanted.uid = wanted.uid.or(Some(meta.uid()));
        wanted.gid = wanted.gid.or(Some(meta.gid()));
        wanted.mode = wanted.mode.or(Some(Mode::Bits(mode_of(meta))));
    }
    wanted
}

fn directory(
    module: &CopyModule,
    source: &fs::Metadata,
    to: &Path,
    mode: Converge,
    change: &mut Change,
) -> FilesResult<()> {
    let wanted = with_source(
        module,
        source,
        wanted_of(module, source, &module.wanted(None)?),
    );
    match metadata_of(to)? {
        Some(meta) if meta.is_dir() => {
            let (attributes, lines) = wanted.difference(&meta);
            change
                .lines
                .extend(lines.iter().map(|line| format!("{}: {line}", to.display())));
            if mode == Converge::Apply && attributes != Attributes::default() {
                apply_to_path(to, &attributes)?;
                fsync_dir(to)?;
            }
        }
        Some(meta) => {
            return Err(FilesError::WrongKind {
                path: to.to_path_buf(),
                wanted: "directory",
                found: kind_of(&meta),
            }
            .into());
        }
        None => {
            change
                .lines
                .push(format!("create directory {}", to.display()));
            if mode == Converge::Apply {
                make_parents(parent_of(to))?;
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(to)
                    .map_err(PathError::on("create", to))?;
                apply_to_path(to, &wanted.for_new(0o777 & !umask(), true))?;
                fsync_dir(parent_of(to))?;
            }
        }
    }
    Ok(())
}

fn link(
    ctx: &TaskContext,
    from: &Path,
    to: &Path,
    mode: Converge,
    change: &mut Change,
) -> FilesResult<()> {
    let target = fs::read_link(from).map_err(PathError::on("read", from))?;
    match metadata_of(to)? {
        Some(meta) if meta.is_dir() => {
            return Err(FilesError::WrongKind {
                path: to.to_path_buf(),
                wanted: "link",
                found: "directory",
            }
            .into());
        }
        Some(meta) if meta.is_symlink() && fs::read_link(to).is_ok_and(|now| now == target) => {
            return Ok(());
        }
        _ => {}
    }
    change
        .lines
        .push(format!("link {} -> {}", to.display(), target.display()));
    if mode == Converge::Apply {
        let temporary = sibling(to, "partial", &ctx.attempt);
        remove_if_there(&temporary)?;
        symlink(&target, &temporary).map_err(PathError::on("create", &temporary))?;
        fs::rename(&temporary, to).map_err(PathError::on("replace", to))?;
        fsync_dir(parent_of(to))?;
    }
    Ok(())
}

/// Returns the regular files below a directory, in order; what cannot be listed is left to the run.
pub(super) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    files
}

/// Removes what an interrupted attempt left in and beside the target.
pub(super) fn clean_up(
    module: &CopyModule,
    ctx: &TaskContext,
    src: &Path,
    attempt: Option<&str>,
) -> FilesResult<()> {
    let target = target_of(module, ctx, src);
    remove_partial(&target, attempt)?;
    if !module.remote_src || target.is_dir() {
        for file in files_below(src) {
            if let Ok(place) = file.strip_prefix(src) {
                remove_partial(&target.join(place), attempt)?;
            }
        }
    }
    Ok(())
}
