//! `file: state: absent`: one rename into quarantine, announced by the journal with device and inode, so
//! that a crash leaves no doubt, and taken back by the rename the other way.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::result::with_file_facts;
use crate::host::files::durable::{Identity, fsync_dir, metadata_of, parent_of, rename_noreplace};
use crate::host::files::error::{FilesError, FilesResult, human_bytes};
use crate::host::files::quarantine::make_folder;
use crate::host::files::remove::{finish_removal, refuse_vital};
use crate::host::files::walk::tree_size;
use crate::task::context::TaskContext;
use crate::task::module::{Outcome, Recovery};
use crate::task::undo::{PastAttempt, Step, Undo};

/// What `recover` and an undo need of a removal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Removal {
    /// Absent in journals of older agents, which deleted.
    pub path: Option<PathBuf>,
    pub identity: Option<Identity>,
    pub quarantined_to: Option<PathBuf>,
    /// Folder of this attempt in the state's quarantine; none where the task names a place of its own.
    pub quarantine: Option<PathBuf>,
}

impl Removal {
    /// Takes the name away, by the one rename that the journal announced.
    pub(super) fn carry_out(&self, ctx: &TaskContext, path: &Path) -> FilesResult<Outcome> {
        let Some(now) = Identity::at(path)? else {
            return with_file_facts(Outcome::ok(), "path", path);
        };
        refuse_vital(path, ctx)?;
        let Some(target) = self
            .quarantined_to
            .as_ref()
            .filter(|_| self.identity == Some(now))
        else {
            return Err(FilesError::ChangedMeanwhile {
                path: path.to_path_buf(),
                what: "it is another file or directory than the journal names".into(),
            }
            .into());
        };
        make_folder(target)?;
        rename_noreplace(path, target)?;
        removed(ctx, path, target)
    }

    /// Tells what became of an interrupted removal.
    pub(super) fn recover(&self, ctx: &TaskContext, path: &Path) -> FilesResult<Recovery> {
        // An older agent renamed a tree beside its place, and then deleted it there.
        let deleted = finish_removal(path, ctx)?;
        let target = self.quarantined_to.as_ref();
        let moved = match (target, self.identity) {
            (Some(target), Some(identity)) => Identity::at(target)? == Some(identity),
            _ => false,
        };
        if metadata_of(path)?.is_some() {
            return Ok(Recovery::NotDone);
        }
        Ok(match target.filter(|_| moved) {
            Some(target) => {
                // Done before the crash, but perhaps not yet on the disk.
                fsync_dir(parent_of(target))?;
                fsync_dir(parent_of(path))?;
                Recovery::Done(removed(ctx, path, target)?)
            }
            None if deleted => Recovery::Done(with_file_facts(Outcome::changed(), "path", path)?),
            None => Recovery::NotDone,
        })
    }
}

/// What a task that moved a path into quarantine returns.
fn removed(ctx: &TaskContext, path: &Path, target: &Path) -> FilesResult<Outcome> {
    let size = tree_size(target, ctx)?.allocated_bytes;
    let summary = format!(
        "{} -> {} ({}), until `purge`",
        path.display(),
        target.display(),
        human_bytes(size)
    );
    Ok(with_file_facts(Outcome::changed(), "path", path)?
        .with("quarantined_to", target.display().to_string())
        .with("size_bytes", size)
        .summary(summary))
}

/// What takes a removal back.
pub(super) fn undo_removals(efforts: &[PastAttempt<'_>]) -> Undo {
    let mut steps = Vec::new();
    for effort in efforts.iter().rev() {
        let removal: Removal = serde_json::from_value(effort.intent.clone()).unwrap_or_default();
        let Removal {
            path: Some(to),
            identity: Some(identity),
            quarantined_to: Some(from),
            ..
        } = removal
        else {
            if removal.identity.is_none() {
                continue;
            }
            return Undo::Impossible("an older agent deleted it for good".into());
        };
        steps.push(Step::MoveBack { from, to, identity });
    }
    Undo::Steps(steps)
}
