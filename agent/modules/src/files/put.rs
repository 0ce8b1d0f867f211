//! Puts one file's content where it belongs, with owner, group and mode: what `copy`, `template` and the
//! modules that edit text come down to.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::content::{Source, keep_backup, same_content, validate, write_content};
use super::difference::lines;
use super::result::with_file_facts;
use super::stat::ansible_checksum;
use crate::host::error::PathError;
use crate::host::files::attributes::{Attributes, Wanted, apply_to_path, umask};
use crate::host::files::converge::Converge;
use crate::host::files::durable::{
    PendingFile, kind_of, metadata_of, mode_of, parent_of, sha256_file,
};
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::output_file::OutputFile;
use crate::task::context::TaskContext;
use crate::task::module::Outcome;
use crate::task::prior_state::Before;

/// What became, or would become, of one file.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// One line each; none when all is well.
    pub lines: Vec<String>,
    /// Name of the old content.
    pub backup: Option<PathBuf>,
}

/// Prints how a text changes. What is no text, or long, is only named.
fn tell_difference(ctx: &TaskContext, source: Source<'_>, target: &Path, is_there: bool) {
    const LONG: u64 = 512 << 10;
    let text = |path: &Path| {
        let short = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= LONG);
        short.then(|| std::fs::read_to_string(path).ok()).flatten()
    };
    let new = match source {
        Source::Text(text) => Some(text.to_owned()),
        Source::File(path) => text(path),
    };
    let old = is_there.then(|| text(target));
    let lines = match (old, new) {
        (None, Some(new)) => lines(target, None, &new),
        (Some(Some(old)), Some(new)) => lines(target, Some(&old), &new),
        _ => vec![format!(
            "{}: not shown, as it is long or no text",
            target.display()
        )],
    };
    for line in lines {
        ctx.progress.line(line);
    }
}

/// How a file is put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Put<'a> {
    /// Replaces a file with other content.
    pub force: bool,
    /// Keeps what was there under a name with the time.
    pub backup: bool,
    /// Command that must accept the new content.
    pub validate: Option<&'a str>,
}

impl Put<'_> {
    /// Brings one file there, whole or not at all.
    ///
    /// # Errors
    /// When the system refuses, `validate` does, or something else than a file has the name.
    pub(super) fn file(
        &self,
        ctx: &TaskContext,
        source: Source<'_>,
        target: &Path,
        wanted: &Wanted,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<Change> {
        let mut change = Change::default();
        let found = metadata_of(target)?;
        if let Some(meta) = found
            .as_ref()
            .filter(|meta| !meta.is_file() && !meta.is_symlink())
        {
            return Err(FilesError::WrongKind {
                path: target.to_path_buf(),
                wanted: "file",
                found: kind_of(meta),
            }
            .into());
        }
        let file = found.as_ref().filter(|meta| meta.is_file());
        if found.is_some() && !self.force {
            return Ok(change);
        }
        if let Some(meta) = file
            && same_content(ctx, source, target)?
        {
            let (attributes, lines) = wanted.difference(meta);
            if mode == Converge::Apply && attributes != Attributes::default() {
                apply_to_path(target, &attributes)?;
                File::open(target)
                    .and_then(|file| file.sync_all())
                    .map_err(PathError::on("sync", target))?;
            }
            change.lines = lines;
            return Ok(change);
        }
        if ctx.diff {
            tell_difference(ctx, source, target, file.is_some());
        }
        let verb = if found.is_some() { "replace" } else { "create" };
        change.lines.push(format!("{verb} {}", target.display()));
        if mode == Converge::Check {
            return Ok(change);
        }
        if !parent_of(target).is_dir() {
            return Err(FilesError::Missing {
                what: "the target's folder",
                path: parent_of(target).to_path_buf(),
            }
            .into());
        }
        let mut pending = PendingFile::create(target, &ctx.attempt)?;
        write_content(ctx, source, &mut pending)?;
        // What a replaced file had stays, unless the task says otherwise.
        let mut attributes = match file {
            Some(meta) => {
                let mut keep = wanted.for_new(mode_of(meta), false);
                keep.uid = keep.uid.or(Some(meta.uid()));
                keep.gid = keep.gid.or(Some(meta.gid()));
                keep
            }
            None => wanted.for_new(0o666 & !umask(), false),
        };
        if !nix::unistd::geteuid().is_root() {
            // Only root may give files away; the temporary file is the caller's own already.
            attributes.uid = wanted.uid;
            attributes.gid = wanted.gid;
        }
        if let Some(command) = self.validate {
            validate(ctx, command, pending.path(), target)?;
        }
        if self.backup && file.is_some() {
            change.backup = Some(keep_backup(ctx, target)?);
        }
        if let (Some(before), true) = (before, found.is_some()) {
            before.keep()?;
        }
        pending.commit(&attributes)?;
        Ok(change)
    }
}

/// Adds what is at the target: owner, mode and size, and of a file the hashes that the task vouches for.
///
/// # Errors
/// It cannot be read.
pub(super) fn vouched(
    outcome: Outcome,
    target: PathBuf,
    ctx: &TaskContext,
) -> FilesResult<Outcome> {
    let outcome = with_file_facts(outcome, "dest", &target)?;
    let meta = std::fs::metadata(&target).map_err(PathError::on("inspect", &target))?;
    if !meta.is_file() {
        return Ok(outcome);
    }
    let sha256 = sha256_file(&target, &ctx.cancel, |_| {})?;
    Ok(outcome
        .with("checksum", ansible_checksum(&target, ctx)?)
        .with("sha256", sha256.clone())
        .output(OutputFile {
            path: target,
            size: meta.len(),
            sha256,
        }))
}
