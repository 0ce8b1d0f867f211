//! `file`: a path is a file, a directory, a link, or not there, with this owner and mode.

mod links;
mod touch;

use std::fs::{self};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::removal::{Removal, undo_removals};
use super::result::with_file_facts;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::Wanted;
use crate::host::files::blocking::blocking;
use crate::host::files::converge::{Converge, make_directories, recurse, set_attributes};
use crate::host::files::durable::{
    Identity, kind_of, metadata_of, nearest_existing, parent_of, remove_if_there, sibling,
};
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::files::mode::Mode;
use crate::host::files::mounts::Mounts;
use crate::host::files::remove::refuse_vital;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_state::{Before, UNTOLD, before_of, intent_of, undo_of_path};
use crate::task::undo::unless_unchanged;
use crate::task::undo::{PastAttempt, Step, Undo};
use touch::TouchTime;

/// Sets what a path is: file, directory, link or nothing, with owner, group and mode.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileModule {
    /// Path to manage. A relative one starts at the playbook's folder.
    #[serde(alias = "dest", alias = "name")]
    #[schemars(extend("aliases" = ["dest", "name"]))]
    path: PathBuf,
    /// `file` (must exist; only its attributes are set), `directory` (made with its parents),
    /// `touch` (made, or its times set), `link` (symbolic link to `src`), `absent` (moved into
    /// quarantine, a directory with everything in it; `purge` deletes it), `hard` (another name of the file
    /// `src`). Default: what is there, else `file`.
    #[serde(default)]
    state: Option<State>,
    /// What the link points to, taken as it is. For `state: link` and `state: hard`.
    #[serde(default)]
    src: Option<PathBuf>,
    /// Mode: `0644`, `"0644"` or `u=rwX,g=rX,o=`. Default: left alone; new ones follow the umask.
    #[serde(default)]
    mode: Option<Mode>,
    /// Owner, a name or number. Default: left alone.
    #[serde(default)]
    owner: Option<String>,
    /// Group, a name or number. Default: left alone.
    #[serde(default)]
    group: Option<String>,
    /// Sets owner, group and mode of everything below a directory, too.
    #[serde(default)]
    recurse: bool,
    /// Follows a link at `path` when attributes are set. Default: true.
    #[serde(default = "yes")]
    follow: bool,
    /// Makes a link although `src` does not exist, or in place of a file. Default: false.
    #[serde(default)]
    force: bool,
    /// For `state: touch`: `now` (default), `preserve` leaves it as it is, or a time as
    /// `YYYYMMDDHHMM.SS`.
    #[serde(default)]
    modification_time: TouchTime,
    /// The same for the time of the last access.
    #[serde(default)]
    access_time: TouchTime,
    /// How fixed times are written. Default: `%Y%m%d%H%M.%S`.
    #[serde(default)]
    modification_time_format: Option<String>,
    /// The same for the time of the last access.
    #[serde(default)]
    access_time_format: Option<String>,
    /// For `state: absent` (ours): moves the path into this directory, which must be on the same
    /// filesystem, instead of the state's own quarantine. `purge` does not touch it.
    #[serde(default)]
    quarantine: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    Absent,
    Directory,
    File,
    Hard,
    Link,
    Touch,
}

fn yes() -> bool {
    true
}

impl FileModule {
    fn wanted(&self) -> FilesResult<Wanted> {
        Wanted::look_up(
            self.mode.as_ref(),
            self.owner.as_deref(),
            self.group.as_deref(),
        )
    }

    fn state(&self, path: &Path) -> FilesResult<State> {
        let state = match (self.state, metadata_of(path)?) {
            (Some(state), _) => state,
            (None, _) if self.src.is_some() => State::Link,
            (None, _) if self.recurse => State::Directory,
            (None, Some(meta)) if meta.is_dir() => State::Directory,
            (None, Some(meta)) if meta.is_symlink() && !self.follow => State::Link,
            (None, _) => State::File,
        };
        if self.recurse && state != State::Directory {
            return Err(FilesError::argument("`recurse` needs `state: directory`").into());
        }
        if self.src.is_some() && !matches!(state, State::Link | State::Hard) {
            return Err(FilesError::argument("`src` is for `state: link` and `hard`").into());
        }
        if self.quarantine.is_some() && state != State::Absent {
            return Err(FilesError::argument("`quarantine` is for `state: absent`").into());
        }
        Ok(state)
    }

    fn converge(
        &self,
        ctx: &TaskContext,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<Vec<String>> {
        let path = ctx.resolve(&self.path);
        let state = self.state(&path)?;
        match state {
            State::Absent => self.absent(&path, ctx),
            State::Directory => self.directory(&path, ctx, mode),
            State::File => self.file(&path, mode),
            State::Touch => self.touch(&path, mode),
            State::Link => self.link(&path, ctx, mode, before),
            State::Hard => self.hard(&path, ctx, mode, before),
        }
    }

    /// Says what a removal would do.
    fn absent(&self, path: &Path, ctx: &TaskContext) -> FilesResult<Vec<String>> {
        let Some(meta) = metadata_of(path)? else {
            return Ok(Vec::new());
        };
        refuse_vital(path, ctx)?;
        let target = self.removal(path, ctx)?.quarantined_to;
        let target = target.map_or_else(String::new, |to| format!(" to {}", to.display()));
        Ok(vec![format!("move {}{target}", kind_of(&meta))])
    }

    /// What a removal needs, looked up before anything moves.
    fn removal(&self, path: &Path, ctx: &TaskContext) -> FilesResult<Removal> {
        let mut removal = Removal {
            path: Some(path.to_path_buf()),
            identity: Identity::at(path)?,
            ..Removal::default()
        };
        if removal.identity.is_none() {
            return Ok(removal);
        }
        removal.quarantined_to = self.quarantine_target(path, ctx)?;
        if removal.quarantined_to.is_none() {
            let place = ctx.quarantine.place(path, &ctx.attempt, &mut Vec::new())?;
            removal.quarantine = Some(parent_of(&place).to_path_buf());
            removal.quarantined_to = Some(place);
        }
        Ok(removal)
    }

    /// Where the path goes, checked to be reachable by a rename.
    fn quarantine_target(&self, path: &Path, ctx: &TaskContext) -> FilesResult<Option<PathBuf>> {
        let Some(dir) = &self.quarantine else {
            return Ok(None);
        };
        let dir = ctx.resolve(dir);
        let mut target = dir.join(path.file_name().unwrap_or_default());
        if dir.starts_with(path) {
            return Err(FilesError::argument("`quarantine` lies below `path`").into());
        }
        let mounts = Mounts::read()?;
        let near = nearest_existing(&dir).join("entry");
        if !mounts.same_for_rename(path, &near) {
            return Err(FilesError::OtherFilesystem {
                source_path: path.to_path_buf(),
                source_mount: mounts.describe(parent_of(path)),
                target_mount: mounts.describe(&dir),
                target_path: dir,
            }
            .into());
        }
        if metadata_of(&target)?.is_some() {
            // Both are kept: the name of an earlier one gets this attempt's id.
            let hidden = sibling(&target, "again", &ctx.attempt);
            let name = hidden.file_name().unwrap_or_default().to_string_lossy();
            target = dir.join(name.trim_start_matches('.'));
        }
        Ok(Some(target))
    }

    fn directory(
        &self,
        path: &Path,
        ctx: &TaskContext,
        mode: Converge,
    ) -> FilesResult<Vec<String>> {
        let wanted = self.wanted()?;
        let mut lines = Vec::new();
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(meta) => {
                return Err(FilesError::WrongKind {
                    path: path.to_path_buf(),
                    wanted: "directory",
                    found: kind_of(&meta),
                }
                .into());
            }
            Err(_) => {
                if let Some(found) = metadata_of(path)? {
                    return Err(FilesError::WrongKind {
                        path: path.to_path_buf(),
                        wanted: "directory",
                        found: if found.is_symlink() {
                            "dangling link"
                        } else {
                            kind_of(&found)
                        },
                    }
                    .into());
                }
                lines.push(format!("create directory {}", path.display()));
                if mode == Converge::Check {
                    return Ok(lines);
                }
                make_directories(path, &|default, is_dir| wanted.for_new(default, is_dir))?;
            }
        }
        lines.extend(self.attributes(path, &wanted, mode)?);
        if self.recurse && !wanted.is_empty() {
            let mut changed = 0;
            recurse(path, &wanted, ctx, mode, &mut changed)?;
            if changed > 0 {
                lines.push(format!(
                    "set attributes of {changed} paths below {}",
                    path.display()
                ));
            }
        }
        Ok(lines)
    }

    fn file(&self, path: &Path, mode: Converge) -> FilesResult<Vec<String>> {
        let found = if self.follow {
            fs::metadata(path)
        } else {
            fs::symlink_metadata(path)
        };
        match found {
            Ok(meta) if meta.is_dir() => Err(FilesError::WrongKind {
                path: path.to_path_buf(),
                wanted: "file",
                found: "directory",
            }
            .into()),
            Ok(_) => self.attributes(path, &self.wanted()?, mode),
            Err(_) => Err(FilesError::Missing {
                what: "the file",
                path: path.to_path_buf(),
            }
            .into()),
        }
    }

    fn attributes(&self, path: &Path, wanted: &Wanted, mode: Converge) -> FilesResult<Vec<String>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let real = if self.follow {
            fs::canonicalize(path).map_err(PathError::on("resolve", path))?
        } else {
            path.to_path_buf()
        };
        set_attributes(&real, wanted, mode)
    }

    fn outcome(&self, ctx: &TaskContext, lines: Vec<String>) -> FilesResult<Outcome> {
        let path = ctx.resolve(&self.path);
        let mut outcome = Outcome {
            changed: !lines.is_empty(),
            ..Outcome::default()
        };
        if !lines.is_empty() {
            outcome = outcome.summary(lines.join(", "));
        }
        with_file_facts(outcome, "path", &path)
    }
}

#[async_trait]
impl Module for FileModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let lines = blocking(self, ctx, |module, ctx| {
            module.converge(ctx, Converge::Check, None)
        })
        .await?;
        Ok(Plan::from(lines))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            let path = ctx.resolve(&module.path);
            if module.state == Some(State::Absent) {
                return Ok(json!(module.removal(&path, ctx)?));
            }
            let state = module.state(&path)?;
            let mut intent = intent_of(&path, ctx)?;
            intent["state"] = json!(state);
            intent["recurse"] = module.recurse.into();
            Ok(intent)
        })
        .await
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let intent = intent.clone();
        blocking(self, ctx, move |module, ctx| {
            if module.state == Some(State::Absent) {
                let removal: Removal = serde_json::from_value(intent).unwrap_or_default();
                return removal.carry_out(ctx, &ctx.resolve(&module.path));
            }
            let before = before_of(&intent, &ctx.resolve(&module.path), ctx)?;
            let lines = module.converge(ctx, Converge::Apply, Some(&before))?;
            module.outcome(ctx, lines)
        })
        .await
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let removal: Removal = serde_json::from_value(intent.clone()).unwrap_or_default();
        blocking(self, ctx, move |module, ctx| {
            let path = ctx.resolve(&module.path);
            if let Some(attempt) = &ctx.interrupted_attempt {
                remove_if_there(&sibling(&path, "partial", attempt))?;
            }
            if module.state != Some(State::Absent) {
                return Ok(Recovery::NotDone);
            }
            removal.recover(ctx, &path)
        })
        .await
    }
}

impl TypedModule for FileModule {
    const NAME: &'static str = "file";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.file", "ansible.legacy.file"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "`absent`: done where the thing, told by device and inode, is in quarantine; otherwise brings the path in order again";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str =
        "Makes a path a file, directory or link with this owner and mode, or removes it";
    const EXAMPLE: &'static str = "\
- name: A place for dumps that only root can read
  file:
    path: /var/backups/kaapana
    state: directory
    owner: root
    group: root
    mode: \"0700\"
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        unless_unchanged(efforts, || {
            let state =
                |effort: &PastAttempt<'_>| effort.intent["state"].as_str().map(str::to_owned);
            let last = efforts.last();
            if last.is_some_and(|effort| effort.intent.get("quarantined_to").is_some()) {
                return undo_removals(efforts);
            }
            if efforts
                .iter()
                .any(|effort| effort.intent["recurse"] == true)
            {
                return Undo::Impossible("owners and modes below the path were not kept".into());
            }
            let undo = match undo_of_path(efforts) {
                Undo::Steps(steps) => steps,
                // What an older agent made or set stays: a folder does no harm.
                _ if last.is_some_and(|effort| effort.intent.is_null()) => {
                    return Undo::Nothing(format!("what it made stays: {UNTOLD}"));
                }
                other => return other,
            };
            if last.and_then(state).as_deref() != Some("directory") {
                return Undo::Steps(undo);
            }
            // Others may have put their own into it.
            let empty_only = |step| match step {
                Step::SetAside { path, .. } => Step::SetAsideEmpty { path },
                step => step,
            };
            Undo::Steps(undo.into_iter().map(empty_only).collect())
        })
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
