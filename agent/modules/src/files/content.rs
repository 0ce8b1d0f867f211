//! The content of one file: where it comes from, whether it is there already, how it gets there, and
//! what else the user wants done with it on the way (`validate`, `backup`).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::error::PathError;
use crate::host::files::attributes::Attributes;
use crate::host::files::durable::{CHUNK_BYTES, PendingFile, mode_of, read_through};
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::words;
use crate::task::context::TaskContext;

/// Where a file's new content comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// Text of the task.
    Text(&'a str),
}

/// Tells whether a target holds this content already.
///
/// # Errors
/// When reading fails, or cancelled.
pub(super) fn same_content(
    ctx: &TaskContext,
    source: Source<'_>,
    target: &Path,
) -> FilesResult<bool> {
    let mut new = match source {
        Source::Text(text) => {
            let size = fs::metadata(target)
                .map_err(PathError::on("inspect", target))?
                .len();
            return Ok(size == text.len() as u64
                && fs::read(target).map_err(PathError::on("read", target))? == text.as_bytes());
        }
        Source::File(path) => File::open(path).map_err(PathError::on("open", path))?,
    };
    let size = |file: &File| file.metadata().map(|meta| meta.len());
    let mut old = File::open(target).map_err(PathError::on("open", target))?;
    let sizes = size(&new).and_then(|new| Ok((new, size(&old)?)));
    let (new_size, old_size) = sizes.map_err(PathError::on("inspect", target))?;
    if new_size != old_size {
        return Ok(false);
    }
    let mut same = true;
    let mut buffer = vec![0; CHUNK_BYTES];
    let path = match source {
        Source::File(path) => path,
        Source::Text(_) => target,
    };
    read_through(&mut new, path, &ctx.cancel, |piece| {
        if same {
            old.read_exact(&mut buffer[..piece.len()])
                .map_err(PathError::on("read", target))?;
            same = buffer[..piece.len()] == *piece;
        }
        Ok(())
    })?;
    Ok(same)
}

/// Fills a file under construction, sharing the source's blocks where the filesystem can.
///
/// # Errors
/// When reading or writing fails, or cancelled.
pub(super) fn write_content(
    ctx: &TaskContext,
    source: Source<'_>,
    pending: &mut PendingFile,
) -> FilesResult<()> {
    let temporary = pending.path().to_path_buf();
    match source {
        Source::Text(text) => {
            pending
                .file
                .write_all(text.as_bytes())
                .map_err(PathError::on("write", &temporary))?;
        }
        Source::File(path) => {
            let mut file = File::open(path).map_err(PathError::on("open", path))?;
            if rustix::fs::ioctl_ficlone(&pending.file, &file).is_ok() {
                return Ok(());
            }
            let total = file.metadata().map(|meta| meta.len()).ok();
            let mut done = 0;
            read_through(&mut file, path, &ctx.cancel, |piece| {
                pending
                    .file
                    .write_all(piece)
                    .map_err(PathError::on("write", &temporary))?;
                done += piece.len() as u64;
                ctx.progress.bytes(done, total);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Lets a command of the user's judge the new content before it replaces the old.
///
/// # Errors
/// [`FilesError::Invalid`] when it refuses.
pub(super) fn validate(
    ctx: &TaskContext,
    command: &str,
    temporary: &Path,
    target: &Path,
) -> FilesResult<()> {
    if !command.contains("%s") {
        return Err(FilesError::argument("`validate` must contain %s").into());
    }
    let words = words::split(command)
        .map_err(|error| FilesError::argument(format!("`validate`: {error}")))?;
    let path = temporary.display().to_string();
    let mut words = words.iter().map(|word| word.replace("%s", &path));
    let Some(program) = words.next() else {
        return Err(FilesError::argument("`validate` is empty").into());
    };
    let output = Command::new(&program)
        .args(words)
        .envs(&ctx.environment)
        .current_dir(&ctx.base_dir)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(PathError::on("run", Path::new(&program)))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(FilesError::Invalid {
        path: target.to_path_buf(),
        command: command.to_owned(),
        output: String::from_utf8_lossy(&said[..said.len().min(2000)])
            .trim()
            .to_owned(),
    }
    .into())
}

/// Keeps the old content under a name with process and time, as Ansible names it.
///
/// # Errors
/// When the backup cannot be written; the old content is untouched then.
pub(super) fn keep_backup(ctx: &TaskContext, target: &Path) -> FilesResult<PathBuf> {
    let time = jiff::Zoned::now().strftime("%Y-%m-%d@%H:%M:%S").to_string();
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}.{time}~", std::process::id()));
    let backup = PathBuf::from(name);
    let meta = fs::metadata(target).map_err(PathError::on("inspect", target))?;
    let mut pending = PendingFile::create(&backup, &ctx.attempt)?;
    write_content(ctx, Source::File(target), &mut pending)?;
    pending.commit(&Attributes {
        mode: Some(mode_of(&meta)),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })?;
    Ok(backup)
}
