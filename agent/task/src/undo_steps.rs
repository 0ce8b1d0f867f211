//! Takes the steps of an undo. A planned step names things by device and inode, so that after a crash the same steps are
//! taken again and each finds out for itself whether it was done.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ask::ask;
use crate::context::TaskContext;
use crate::host::docker::{client, lifecycle};
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::{Attributes, apply_to_path};
use crate::host::files::durable::{Identity, fsync_dir, metadata_of, parent_of, rename_noreplace};
use crate::host::files::error::{FilesError, human_bytes};
use crate::host::files::in_use::refuse_in_use;
use crate::host::files::quarantine::make_folder;
use crate::host::files::walk::tree_size;
use crate::host::worker;
use crate::prior_state::PriorState;

/// A step that is ready to be taken, as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Planned {
    /// Renames a thing back, or into quarantine.
    Rename {
        /// Its present name.
        from: PathBuf,
        /// The name it gets.
        to: PathBuf,
        /// Which thing it is.
        identity: Identity,
        /// Whether it goes into quarantine.
        quarantine: bool,
        /// Stays where it is unless it is an empty directory.
        only_empty: bool,
    },
    /// Gives owner and mode back.
    Attributes {
        /// Path.
        path: PathBuf,
        /// What it was.
        was: PriorState,
    },
    /// Stops and removes a container.
    RemoveContainer {
        /// Docker's id.
        id: String,
        /// Its name.
        name: String,
    },
    /// Asks a person.
    Confirm {
        /// The question.
        prompt: String,
    },
}

impl std::fmt::Display for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rename {
                from,
                to,
                quarantine,
                only_empty,
                ..
            } => {
                let what = match (quarantine, only_empty) {
                    (true, true) => "take away the empty folder",
                    (true, false) => "take away",
                    (false, _) => "move back",
                };
                write!(f, "{what} {} -> {}", from.display(), to.display())
            }
            Self::Attributes { path, was } => write!(
                f,
                "give {} mode {:04o}, owner {} and group {} back",
                path.display(),
                was.mode,
                was.uid,
                was.gid
            ),
            Self::RemoveContainer { name, .. } => write!(f, "remove the container {name}"),
            Self::Confirm { prompt } => {
                let line = prompt.lines().last().unwrap_or_default();
                write!(f, "ask: {line}")
            }
        }
    }
}

/// Another thing has the name that a step is about.
#[must_use]
pub fn another(path: &Path) -> ModuleError {
    FilesError::ChangedMeanwhile {
        path: path.to_path_buf(),
        what: "it is another file or directory than the journal names".into(),
    }
    .into()
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Taken {
    /// A thing has its old name again.
    MovedBack {
        /// Where it was.
        from: PathBuf,
        /// Its name.
        to: PathBuf,
    },
    /// A thing is in quarantine.
    Quarantined {
        /// Its old name.
        path: PathBuf,
        /// Where it is now.
        to: PathBuf,
        /// Bytes that it takes on disk.
        size_bytes: u64,
    },
    /// A directory stays: others have put something into it.
    Kept {
        /// The directory.
        path: PathBuf,
    },
    /// Owner and mode are as before.
    Attributes {
        /// The path.
        path: PathBuf,
    },
    /// A container is gone.
    Removed {
        /// Its name.
        container: String,
    },
    /// A person said so.
    Confirmed {
        /// Who.
        by: String,
    },
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MovedBack { from, to } => write!(f, "{} -> {}", from.display(), to.display()),
            Self::Quarantined {
                path,
                to,
                size_bytes,
            } => write!(
                f,
                "{} -> {} ({})",
                path.display(),
                to.display(),
                human_bytes(*size_bytes)
            ),
            Self::Kept { path } => write!(f, "{} stays, it is not empty", path.display()),
            Self::Attributes { path } => write!(f, "owner and mode of {}", path.display()),
            Self::Removed { container } => write!(f, "container {container} removed"),
            Self::Confirmed { by } => write!(f, "confirmed by {by}"),
        }
    }
}

/// Takes planned steps, or what an interrupted undo left of them. When it returns, they are durable.
///
/// # Errors
/// [`ModuleError::Cancelled`] between two steps, or why one could not be taken; the same steps can be
/// taken again.
pub async fn apply_steps(steps: &[Planned], ctx: &TaskContext) -> Result<Vec<Taken>, ModuleError> {
    let before = steps_taken(steps)?;
    let mut taken = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        // The last of them is taken again: it may not be on the disk yet.
        taken.push(if index + 1 < before {
            taken_before(step, ctx)
        } else {
            apply(step, ctx).await?
        });
    }
    Ok(taken)
}

/// Returns how many of the steps an interrupted undo has taken, as far as the host can tell. What it did
/// last has all before it behind it, also where a thing has moved on since.
///
/// # Errors
/// When the system cannot tell.
pub fn steps_taken(steps: &[Planned]) -> Result<usize, PathError> {
    let mut taken = 0;
    for (index, step) in steps.iter().enumerate() {
        if let Planned::Rename { to, identity, .. } = step
            && Identity::at(to)? == Some(*identity)
        {
            taken = index + 1;
        }
    }
    Ok(taken)
}

/// A step that an interrupted undo took.
fn taken_before(step: &Planned, ctx: &TaskContext) -> Taken {
    match step {
        Planned::Rename {
            from,
            to,
            quarantine: true,
            ..
        } => Taken::Quarantined {
            path: from.clone(),
            to: to.clone(),
            size_bytes: tree_size(to, ctx).map_or(0, |size| size.allocated_bytes),
        },
        Planned::Rename { from, to, .. } => Taken::MovedBack {
            from: from.clone(),
            to: to.clone(),
        },
        Planned::Attributes { path, .. } => Taken::Attributes { path: path.clone() },
        Planned::RemoveContainer { name, .. } => Taken::Removed {
            container: name.clone(),
        },
        Planned::Confirm { .. } => Taken::Confirmed {
            by: "an answer before the interruption".into(),
        },
    }
}

async fn apply(step: &Planned, ctx: &TaskContext) -> Result<Taken, ModuleError> {
    match step {
        Planned::Rename { .. } => {
            let (step, ctx) = (step.clone(), ctx.clone());
            worker::blocking("undo", move || rename(&step, &ctx)).await?
        }
        Planned::Attributes { path, was } => {
            if Identity::at(path)? != Some(was.identity) {
                return Err(another(path));
            }
            let attributes = Attributes {
                mode: Some(was.mode),
                uid: Some(was.uid),
                gid: Some(was.gid),
            };
            apply_to_path(path, &attributes)?;
            fs::File::open(path)
                .and_then(|file| file.sync_all())
                .map_err(PathError::on("sync", path))?;
            let path = path.clone();
            Ok(Taken::Attributes { path })
        }
        Planned::RemoveContainer { id, name } => {
            let docker = client::connect(ctx).await?;
            if let Some(found) = lifecycle::inspect(&docker, id).await? {
                if lifecycle::is_running(&found) {
                    lifecycle::stop(&docker, id, lifecycle::STOP_TIMEOUT).await?;
                }
                lifecycle::remove(&docker, id).await?;
            }
            let container = name.clone();
            Ok(Taken::Removed { container })
        }
        Planned::Confirm { prompt } => {
            let question = ctx.redactor.text(prompt);
            let by = ask(ctx, &question).await?;
            Ok(Taken::Confirmed { by })
        }
    }
}

fn rename(step: &Planned, ctx: &TaskContext) -> Result<Taken, ModuleError> {
    let Planned::Rename {
        from,
        to,
        identity,
        quarantine,
        only_empty,
    } = step
    else {
        return Err(FilesError::argument("not a rename").into());
    };
    if Identity::at(to)? == Some(*identity) {
        // Done before a crash, but perhaps not yet on the disk.
        fsync_dir(parent_of(to))?;
        if metadata_of(parent_of(from))?.is_some() {
            fsync_dir(parent_of(from))?;
        }
    } else if Identity::at(from)? == Some(*identity) {
        let filled = || fs::read_dir(from).is_ok_and(|mut entries| entries.next().is_some());
        if *only_empty && filled() {
            let path = from.clone();
            return Ok(Taken::Kept { path });
        }
        if !only_empty {
            refuse_in_use(from, ctx)?;
        }
        if *quarantine {
            make_folder(to)?;
        }
        rename_noreplace(from, to)?;
    } else {
        return Err(another(from));
    }
    Ok(if *quarantine {
        Taken::Quarantined {
            path: from.clone(),
            size_bytes: tree_size(to, ctx)?.allocated_bytes,
            to: to.clone(),
        }
    } else {
        Taken::MovedBack {
            from: from.clone(),
            to: to.clone(),
        }
    })
}

#[cfg(test)]
#[path = "undo_steps_tests.rs"]
mod tests;
