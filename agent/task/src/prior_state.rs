//! What a path was before a task touched it: noted in the task's intent, so that the journal alone says
//! what an undo has to bring back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::TaskContext;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::durable::{Identity, fsync_dir, kind_of, metadata_of, mode_of, parent_of};
use crate::host::files::error::FilesResult;
use crate::host::files::quarantine::make_folder;
use crate::undo::{PastAttempt, Step, Undo, unless_unchanged};

/// A thing as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorState {
    /// Which thing it was.
    pub identity: Identity,
    /// File, directory, …
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl PriorState {
    /// What this says.
    #[must_use]
    pub fn of(meta: &fs::Metadata) -> Self {
        Self {
            identity: Identity::of(meta),
            kind: kind_of(meta).into(),
            mode: mode_of(meta),
            uid: meta.uid(),
            gid: meta.gid(),
        }
    }
}

/// What a path was before a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The path.
    pub path: PathBuf,
    /// What it was; nothing where nothing had the name.
    pub was: Option<PriorState>,
    /// Folders above it that were missing, topmost first.
    pub missing: Vec<PathBuf>,
    /// Where its content is kept when it is replaced.
    pub kept: Option<PathBuf>,
    /// Folder of this attempt in quarantine.
    pub quarantine: PathBuf,
}

impl Before {
    /// Looks at a path.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn of(path: &Path, ctx: &TaskContext) -> FilesResult<Self> {
        let meta = metadata_of(path)?;
        let place = ctx.quarantine.place(path, &ctx.attempt, &mut Vec::new())?;
        let keeps = meta.as_ref().is_some_and(|meta| !meta.is_dir());
        Ok(Self {
            path: path.to_path_buf(),
            was: meta.as_ref().map(PriorState::of),
            missing: missing_above(path),
            quarantine: parent_of(&place).to_path_buf(),
            kept: keeps.then_some(place),
        })
    }

    /// Reads it from a journaled intent; journals of older agents have none.
    #[must_use]
    pub fn read(intent: &Value) -> Option<Self> {
        serde_json::from_value(intent["before"].clone()).ok()
    }

    /// Keeps what is about to be replaced, under a second name of the same file. Where the filesystem
    /// has no such names, nothing is kept, and an undo says so.
    ///
    /// # Errors
    /// [`ModuleError::Failed`] when the folder in quarantine cannot be made.
    pub fn keep(&self) -> Result<(), ModuleError> {
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        make_folder(kept)?;
        if fs::hard_link(&self.path, kept).is_ok() {
            fsync_dir(parent_of(kept))?;
        }
        Ok(())
    }
}

/// Folders above a path that do not exist, topmost first.
pub fn missing_above(path: &Path) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    let mut above = parent_of(path);
    while fs::symlink_metadata(above).is_err() && above != parent_of(above) {
        missing.push(above.to_path_buf());
        above = parent_of(above);
    }
    missing.reverse();
    missing
}

/// Steps that take away folders which were made, the deepest first, where nothing is left in them.
pub fn folders_made(missing: &[PathBuf]) -> impl Iterator<Item = Step> {
    missing
        .iter()
        .rev()
        .map(|path| Step::SetAsideEmpty { path: path.clone() })
}

/// What takes back tasks that bring one path into a state.
pub fn undo_of_path(efforts: &[PastAttempt<'_>]) -> Undo {
    unless_unchanged(efforts, || {
        let befores: Vec<Before> = efforts
            .iter()
            .filter_map(|effort| Before::read(effort.intent))
            .collect();
        let Some(first) = befores.first().filter(|_| befores.len() == efforts.len()) else {
            return Undo::Impossible(UNTOLD.into());
        };
        if let Some(other) = befores.iter().find(|before| before.path != first.path) {
            return Undo::Impossible(format!(
                "it was run for {} and for {}",
                first.path.display(),
                other.path.display()
            ));
        }
        let now = efforts.last().and_then(PastAttempt::identity);
        let path = first.path.clone();
        let mut steps = vec![match &first.was {
            None => Step::SetAside {
                path,
                identity: now,
            },
            Some(was) => Step::PutBack {
                path,
                was: was.clone(),
                kept: befores
                    .iter()
                    .filter_map(|before| before.kept.clone())
                    .collect(),
                now,
            },
        }];
        steps.extend(folders_made(&first.missing));
        Undo::Steps(steps)
    })
}

/// Why a task of an older agent cannot be undone.
pub const UNTOLD: &str = "an older agent ran it, whose journal does not tell what was there before";

/// Returns what was noted where the intent is needed to go on.
///
/// # Errors
/// When the system cannot tell.
pub fn before_of(intent: &Value, path: &Path, ctx: &TaskContext) -> Result<Before, ModuleError> {
    match Before::read(intent).filter(|before| before.path == path) {
        Some(before) => Ok(before),
        None => Before::of(path, ctx),
    }
}

/// Returns the intent of a task that brings one path into a state.
///
/// # Errors
/// When the system cannot tell.
pub fn intent_of(path: &Path, ctx: &TaskContext) -> FilesResult<Value> {
    let before = Before::of(path, ctx)?;
    let value = serde_json::to_value(before)
        .map_err(|error| PathError::on("describe", path)(std::io::Error::other(error)))?;
    Ok(serde_json::json!({ "before": value }))
}
