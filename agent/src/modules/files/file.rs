//! `file`: a path is a file, a directory, a link, or not there, with this owner and mode.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attributes::{Attributes, Mode, Wanted, apply_to_path, umask};
use super::blocking::blocking;
use super::durable::{
    Identity, fsync_dir, kind_of, metadata_of, nearest_existing, parent_of, remove_if_there,
    rename_noreplace, sibling,
};
use super::error::{FilesError, FilesResult};
use super::mounts::Mounts;
use super::remove::{finish_removal, refuse_vital, remove};
use super::result::with_file_facts;
use crate::modules::error::PathError;
use crate::modules::{
    Kind, Module, ModuleError, Outcome, Plan, Recovery, TaskContext, TypedModule,
};

/// Sets what a path is: file, directory, link or nothing, with owner, group and mode.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileModule {
    /// Path to manage. A relative one starts at the playbook's folder.
    #[serde(alias = "dest", alias = "name")]
    #[schemars(extend("aliases" = ["dest", "name"]))]
    path: PathBuf,
    /// `file` (must exist; only its attributes are set), `directory` (made with its parents),
    /// `touch` (made, or its times set), `link` (symbolic link to `src`), `absent` (removed, a
    /// directory with everything in it). Default: what is there, else `file`.
    #[serde(default)]
    state: Option<State>,
    /// What the link points to, taken as it is. For `state: link`.
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
    /// For `state: touch`: `now` sets the times of an existing file, `preserve` leaves them. Default:
    /// `now`.
    #[serde(default)]
    modification_time: TouchTime,
    /// For `state: absent` (ours): moves the path into this directory, which must be on the same
    /// filesystem, instead of deleting it.
    #[serde(default)]
    quarantine: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    Absent,
    Directory,
    File,
    Link,
    Touch,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TouchTime {
    #[default]
    Now,
    Preserve,
}

fn yes() -> bool {
    true
}

/// What `recover` needs of a removal.
#[derive(Debug, Serialize, Deserialize)]
struct Intent {
    identity: Option<Identity>,
    quarantined_to: Option<PathBuf>,
}

/// Looks only, or changes too. One walk serves both, so that a prediction cannot differ from the deed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Do {
    Look,
    Change,
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
        if self.src.is_some() && state != State::Link {
            return Err(FilesError::argument("`src` is for `state: link`").into());
        }
        if self.quarantine.is_some() && state != State::Absent {
            return Err(FilesError::argument("`quarantine` is for `state: absent`").into());
        }
        Ok(state)
    }

    fn converge(&self, ctx: &TaskContext, mode: Do) -> FilesResult<Vec<String>> {
        let path = ctx.resolve(&self.path);
        let state = self.state(&path)?;
        match state {
            State::Absent => self.absent(&path, ctx, mode),
            State::Directory => self.directory(&path, ctx, mode),
            State::File => self.file(&path, mode),
            State::Touch => self.touch(&path, mode),
            State::Link => self.link(&path, ctx, mode),
        }
    }

    fn absent(&self, path: &Path, ctx: &TaskContext, mode: Do) -> FilesResult<Vec<String>> {
        let Some(meta) = metadata_of(path)? else {
            return Ok(Vec::new());
        };
        refuse_vital(path, ctx)?;
        let kind = kind_of(&meta);
        if let Some(target) = self.quarantine_target(path, ctx)? {
            if mode == Do::Change {
                make_directories(parent_of(&target), &|_, _| Attributes {
                    mode: Some(0o700),
                    ..Attributes::default()
                })?;
                rename_noreplace(path, &target)?;
            }
            return Ok(vec![format!("move {kind} to {}", target.display())]);
        }
        if mode == Do::Change {
            remove(path, ctx)?;
        }
        Ok(vec![format!("remove {kind} {}", path.display())])
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

    fn directory(&self, path: &Path, ctx: &TaskContext, mode: Do) -> FilesResult<Vec<String>> {
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
                if mode == Do::Look {
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

    fn file(&self, path: &Path, mode: Do) -> FilesResult<Vec<String>> {
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

    fn touch(&self, path: &Path, mode: Do) -> FilesResult<Vec<String>> {
        let wanted = self.wanted()?;
        let mut lines = Vec::new();
        if !path.exists() {
            lines.push(format!("create file {}", path.display()));
            if mode == Do::Look {
                return Ok(lines);
            }
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(PathError::on("create", path))?;
            file.sync_all().map_err(PathError::on("sync", path))?;
            fsync_dir(parent_of(path))?;
        } else if self.modification_time == TouchTime::Now {
            lines.push(format!("set the times of {}", path.display()));
            if mode == Do::Change {
                let now = SystemTime::now();
                let times = FileTimes::new().set_accessed(now).set_modified(now);
                // Opened for reading: directories can be touched, too.
                let file = File::open(path).map_err(PathError::on("open", path))?;
                file.set_times(times)
                    .and_then(|()| file.sync_all())
                    .map_err(PathError::on("set the times of", path))?;
            }
        }
        lines.extend(self.attributes(path, &wanted, mode)?);
        Ok(lines)
    }

    fn link(&self, path: &Path, ctx: &TaskContext, mode: Do) -> FilesResult<Vec<String>> {
        let found = metadata_of(path)?;
        let current = found
            .as_ref()
            .filter(|meta| meta.is_symlink())
            .and_then(|_| fs::read_link(path).ok());
        let Some(target) = self.src.clone().or_else(|| current.clone()) else {
            return Err(FilesError::argument("`state: link` needs `src`").into());
        };
        if !self.force && !parent_of(path).join(&target).exists() {
            return Err(FilesError::argument_with_help(
                format!("the link's target {} does not exist", target.display()),
                "make the target first, or say `force: true`",
            )
            .into());
        }
        let mut lines = Vec::new();
        if current.as_ref() != Some(&target) {
            if let Some(meta) = found.filter(|meta| !meta.is_symlink()) {
                let empty = meta.is_dir()
                    && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
                if !self.force || meta.is_dir() && !empty {
                    return Err(FilesError::TargetExists {
                        path: path.to_path_buf(),
                        found: kind_of(&meta),
                    }
                    .into());
                }
                if meta.is_dir() && mode == Do::Change {
                    fs::remove_dir(path).map_err(PathError::on("remove", path))?;
                }
            }
            lines.push(match current {
                Some(old) => {
                    format!(
                        "link {} -> {} (was {})",
                        path.display(),
                        target.display(),
                        old.display()
                    )
                }
                None => format!("link {} -> {}", path.display(), target.display()),
            });
            if mode == Do::Look {
                return Ok(lines);
            }
            // A link cannot be changed in place; this way there is never none.
            let temporary = sibling(path, "partial", &ctx.attempt);
            remove_if_there(&temporary)?;
            symlink(&target, &temporary).map_err(PathError::on("create", &temporary))?;
            fs::rename(&temporary, path).map_err(PathError::on("replace", path))?;
            fsync_dir(parent_of(path))?;
        }
        if path.exists() || !self.follow {
            lines.extend(self.attributes(path, &self.wanted()?, mode)?);
        }
        Ok(lines)
    }

    fn attributes(&self, path: &Path, wanted: &Wanted, mode: Do) -> FilesResult<Vec<String>> {
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

fn set_attributes(path: &Path, wanted: &Wanted, mode: Do) -> FilesResult<Vec<String>> {
    let meta = fs::symlink_metadata(path).map_err(PathError::on("inspect", path))?;
    let (change, lines) = wanted.difference(&meta);
    if mode == Do::Change && change != Attributes::default() {
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
fn recurse(
    dir: &Path,
    wanted: &Wanted,
    ctx: &TaskContext,
    mode: Do,
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
            if mode == Do::Change {
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
fn make_directories(path: &Path, attributes: &dyn Fn(u32, bool) -> Attributes) -> FilesResult<()> {
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

#[async_trait]
impl Module for FileModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let lines = blocking(self, ctx, |module, ctx| module.converge(ctx, Do::Look)).await?;
        Ok(if lines.is_empty() {
            Plan::InSync
        } else {
            Plan::NeedsChange(lines)
        })
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            if module.state != Some(State::Absent) {
                return Ok(Value::Null);
            }
            let path = ctx.resolve(&module.path);
            let identity = Identity::at(&path)?;
            let quarantined_to = match identity {
                Some(_) => module.quarantine_target(&path, ctx)?,
                None => None,
            };
            Ok(json!(Intent {
                identity,
                quarantined_to
            }))
        })
        .await
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            let quarantined_to = match module.state {
                Some(State::Absent) if metadata_of(&ctx.resolve(&module.path))?.is_some() => {
                    module.quarantine_target(&ctx.resolve(&module.path), ctx)?
                }
                _ => None,
            };
            let lines = module.converge(ctx, Do::Change)?;
            let outcome = module.outcome(ctx, lines)?;
            Ok(match quarantined_to {
                Some(target) => outcome.with("quarantined_to", target.display().to_string()),
                None => outcome,
            })
        })
        .await
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let intent: Option<Intent> = serde_json::from_value(intent.clone()).ok();
        blocking(self, ctx, move |module, ctx| {
            let path = ctx.resolve(&module.path);
            if let Some(attempt) = &ctx.interrupted_attempt {
                remove_if_there(&sibling(&path, "partial", attempt))?;
            }
            if module.state != Some(State::Absent) {
                return Ok(Recovery::NotDone);
            }
            let deleted = finish_removal(&path, ctx)?;
            let moved = match intent {
                Some(Intent {
                    identity: Some(identity),
                    quarantined_to: Some(target),
                }) => (Identity::at(&target)? == Some(identity)).then_some(target),
                _ => None,
            };
            if metadata_of(&path)?.is_some() || !(deleted || moved.is_some()) {
                return Ok(Recovery::NotDone);
            }
            let outcome = Outcome::changed()
                .with("path", path.display().to_string())
                .with("state", "absent");
            Ok(Recovery::Done(match moved {
                Some(target) => outcome.with("quarantined_to", target.display().to_string()),
                None => outcome,
            }))
        })
        .await
    }
}

impl TypedModule for FileModule {
    const NAME: &'static str = "file";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.file", "ansible.legacy.file"];
    const KIND: Kind = Kind::Converging;
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
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
