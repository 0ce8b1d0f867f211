//! Plans the steps of an undo against the host, as it is or as earlier undos will have made it: what
//! cannot be taken back is found before anything is.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::undo::Step;
use super::undo_steps::{Planned, another};
use crate::context::TaskContext;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::durable::{Identity, kind_of, metadata_of, mode_of, parent_of};
use crate::host::files::error::FilesError;
use crate::host::files::in_use::refuse_in_use;
use crate::host::files::remove::refuse_vital;
use crate::prior_state::PriorState;

/// The host's names, as they are or as steps that were planned will have made them.
#[derive(Debug, Clone, Default)]
pub struct View {
    renames: Vec<(PathBuf, PathBuf)>,
    gone: HashSet<PathBuf>,
    /// Whether it is looked who uses what; not while left-over containers may still run.
    pub idle: bool,
}

impl View {
    /// The host as it is; what was purged counts as gone, also where some of it still lies there.
    #[must_use]
    pub fn of_host(purged: HashSet<PathBuf>, idle: bool) -> Self {
        Self {
            renames: Vec::new(),
            gone: purged,
            idle,
        }
    }

    /// Takes a planned step for taken.
    pub fn assume(&mut self, step: &Planned) {
        if let Planned::Rename { from, to, .. } = step {
            self.renames.push((from.clone(), to.clone()));
        }
    }

    /// Returns where that is now which will have this name.
    fn now(&self, path: &Path) -> Option<PathBuf> {
        let mut path = path.to_path_buf();
        for (from, to) in self.renames.iter().rev() {
            if let Ok(rest) = path.strip_prefix(to) {
                path = joined(from, rest);
            } else if path.starts_with(from) {
                return None;
            }
        }
        let gone = self.gone.iter().any(|gone| path.starts_with(gone));
        (!gone).then_some(path)
    }

    fn metadata(&self, path: &Path) -> Result<Option<fs::Metadata>, PathError> {
        match self.now(path) {
            Some(now) => metadata_of(&now),
            None => Ok(None),
        }
    }

    fn identity(&self, path: &Path) -> Result<Option<Identity>, PathError> {
        Ok(self.metadata(path)?.as_ref().map(Identity::of))
    }

    /// Returns what will be in a directory.
    fn names(&self, dir: &Path) -> Result<Vec<PathBuf>, PathError> {
        let mut names = Vec::new();
        if let Some(now) = self.now(dir) {
            for entry in fs::read_dir(&now).map_err(PathError::on("list", &now))? {
                let entry = entry.map_err(PathError::on("list", &now))?;
                names.push(dir.join(entry.file_name()));
            }
        }
        let arrived = self.renames.iter().map(|(_, to)| to);
        names.extend(arrived.filter(|to| parent_of(to) == dir).cloned());
        let mut there = Vec::new();
        for name in names {
            if self.identity(&name)?.is_some() && !there.contains(&name) {
                there.push(name);
            }
        }
        Ok(there)
    }
}

/// `join` would end a path with `/` where nothing is to be joined.
fn joined(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        path.to_path_buf()
    } else {
        path.join(rest)
    }
}

/// Plans steps and assumes them in `view`. `undo` names the folder in quarantine. Changes nothing.
///
/// # Errors
/// Why a step cannot be taken: the thing is gone or another one, its old name is taken, it is in use.
pub fn plan_steps(
    steps: &[Step],
    undo: &str,
    view: &mut View,
    ctx: &TaskContext,
) -> Result<Vec<Planned>, ModuleError> {
    let mut planner = Planner {
        undo,
        view,
        ctx,
        taken: Vec::new(),
        planned: Vec::new(),
    };
    for step in steps {
        planner.step(step)?;
    }
    Ok(planner.planned)
}

struct Planner<'a> {
    undo: &'a str,
    view: &'a mut View,
    ctx: &'a TaskContext,
    taken: Vec<PathBuf>,
    planned: Vec<Planned>,
}

impl Planner<'_> {
    fn step(&mut self, step: &Step) -> Result<(), ModuleError> {
        match step {
            Step::MoveBack { from, to, identity } => self.move_back(from, to, *identity),
            Step::SetAside { path, identity } => self.set_aside(path, *identity, false),
            Step::SetAsideEmpty { path } => self.set_aside(path, None, true),
            Step::PutBack {
                path,
                was,
                kept,
                now,
            } => self.put_back(path, was, kept, *now),
            Step::RemoveContainer { id, name } => {
                self.add(Planned::RemoveContainer {
                    id: id.clone(),
                    name: name.clone(),
                });
                Ok(())
            }
            Step::Confirm { prompt } => {
                self.add(Planned::Confirm {
                    prompt: prompt.clone(),
                });
                Ok(())
            }
        }
    }

    fn add(&mut self, step: Planned) {
        self.view.assume(&step);
        self.planned.push(step);
    }

    fn move_back(&mut self, from: &Path, to: &Path, identity: Identity) -> Result<(), ModuleError> {
        if self.view.identity(to)? == Some(identity) {
            return Ok(());
        }
        match self.view.identity(from)? {
            Some(found) if found == identity => {}
            Some(_) => return Err(another(from)),
            None => {
                let what = "what was moved there:";
                let path = from.to_path_buf();
                return Err(FilesError::Missing { what, path }.into());
            }
        }
        if let Some(found) = self.view.metadata(to)? {
            return Err(FilesError::TargetExists {
                path: to.to_path_buf(),
                found: kind_of(&found),
            }
            .into());
        }
        let folder = parent_of(to);
        let there = self.view.metadata(folder)?;
        // A link to a folder serves as one.
        if !there.is_some_and(|meta| meta.is_dir() || meta.is_symlink()) {
            return Err(FilesError::Missing {
                what: "the folder that it was in:",
                path: folder.to_path_buf(),
            }
            .into());
        }
        self.refuse_in_use(from)?;
        self.add(Planned::Rename {
            from: from.to_path_buf(),
            to: to.to_path_buf(),
            identity,
            quarantine: false,
            only_empty: false,
        });
        Ok(())
    }

    fn set_aside(
        &mut self,
        path: &Path,
        identity: Option<Identity>,
        only_empty: bool,
    ) -> Result<(), ModuleError> {
        let Some(found) = self.view.metadata(path)? else {
            return Ok(());
        };
        let is = Identity::of(&found);
        if identity.is_some_and(|identity| identity != is) {
            return Err(another(path));
        }
        if only_empty && !(found.is_dir() && self.view.names(path)?.is_empty()) {
            return Ok(());
        }
        if let Some(now) = self.view.now(path) {
            refuse_vital(&now, self.ctx)?;
        }
        if !only_empty {
            self.refuse_in_use(path)?;
        }
        let to = self
            .ctx
            .quarantine
            .place(path, self.undo, &mut self.taken)?;
        self.add(Planned::Rename {
            from: path.to_path_buf(),
            to,
            identity: is,
            quarantine: true,
            only_empty,
        });
        Ok(())
    }

    fn put_back(
        &mut self,
        path: &Path,
        was: &PriorState,
        kept: &[PathBuf],
        now: Option<Identity>,
    ) -> Result<(), ModuleError> {
        let found = self.view.metadata(path)?;
        if let Some(meta) = found
            .as_ref()
            .filter(|meta| Identity::of(meta) == was.identity)
        {
            let same = (mode_of(meta), uid_gid(meta)) == (was.mode, (was.uid, was.gid));
            if !same && !meta.is_symlink() {
                self.add(Planned::Attributes {
                    path: path.to_path_buf(),
                    was: was.clone(),
                });
            }
            return Ok(());
        }
        let mut place = None;
        for kept in kept {
            if self.view.identity(kept)? == Some(was.identity) {
                place = Some(kept.clone());
            }
        }
        let Some(place) = place else {
            return Err(FilesError::Refused {
                path: path.to_path_buf(),
                why: "it was replaced, and what it was before is not kept".into(),
            }
            .into());
        };
        if found.is_some() {
            self.set_aside(path, now, false)?;
        }
        self.move_back(&place, path, was.identity)
    }

    fn refuse_in_use(&self, path: &Path) -> Result<(), ModuleError> {
        match self.view.now(path) {
            Some(now) if self.view.idle => refuse_in_use(&now, self.ctx),
            _ => Ok(()),
        }
    }
}

fn uid_gid(meta: &fs::Metadata) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    (meta.uid(), meta.gid())
}
