//! `move`: one rename, proved by inode; across filesystems a verified copy, and only then the removal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::result::with_file_facts;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::Attributes;
use crate::host::files::blocking::blocking;
use crate::host::files::durable::{
    Identity, PendingFile, free_bytes, fsync_dir, kind_of, metadata_of, parent_of, remove_if_there,
    rename_noreplace, sha256_file, sibling,
};
use crate::host::files::error::{FilesError, FilesResult, human_bytes};
use crate::host::files::in_use::refuse_in_use;
use crate::host::files::mounts::Mounts;
use crate::host::files::remove::{delete_tree, refuse_vital, waiting_name};
use crate::host::files::tree_copy::copy_tree;
use crate::host::files::walk::{TreeSize, tree_size};
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Step, Undo};

/// Moves a file or directory to a name that must be free, exactly once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveModule {
    /// What to move; a link itself, not its target.
    src: PathBuf,
    /// Its new name. Must not exist: nothing is overwritten, and nothing is put into a directory.
    #[serde(alias = "path")]
    #[schemars(extend("aliases" = ["path"]))]
    dest: PathBuf,
    /// Refuses when a process has its working directory or an open file at or below `src`. Default:
    /// false.
    #[serde(default)]
    idle: bool,
    /// Where `dest` is on another filesystem, copies (with owners, modes, times, extended attributes,
    /// links and holes), verifies every file's SHA-256, and only then removes `src`. Default: false,
    /// which refuses.
    #[serde(default)]
    cross_filesystem: bool,
    /// Files below `src` and the SHA-256 (hex) that they must still have, e.g. a data directory's
    /// `global/pg_control`, which changes with every start of a server. Default: none.
    #[serde(default)]
    expect: BTreeMap<PathBuf, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Rename,
    Copy,
}

/// What is journaled before anything moves.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Intent {
    src: PathBuf,
    dest: PathBuf,
    identity: Identity,
    dest_parent: Identity,
    method: Method,
    /// What a copy has to hold.
    size: Option<TreeSize>,
}

/// Written beside `dest` when the copy is verified: from then on this inode is the moved data.
#[derive(Debug, Serialize, Deserialize)]
struct Verified {
    copy: Identity,
}

impl MoveModule {
    fn refuse_changed(&self, ctx: &TaskContext, src: &Path) -> FilesResult<()> {
        for (file, expected) in &self.expect {
            let path = src.join(file);
            if sha256_file(&path, &ctx.cancel, |_| {})? != *expected {
                return Err(FilesError::ChangedMeanwhile {
                    path,
                    what: "its content is not what an earlier task saw".into(),
                }
                .into());
            }
        }
        Ok(())
    }

    fn intent(&self, ctx: &TaskContext) -> FilesResult<Intent> {
        let (src, dest) = (ctx.resolve(&self.src), ctx.resolve(&self.dest));
        // `dest/` names the same as `dest`; the system calls would not take it for a new directory.
        let dest: PathBuf = dest.components().collect();
        let src: PathBuf = src.components().collect();
        let Some(meta) = metadata_of(&src)? else {
            return Err(FilesError::Missing {
                what: "the source",
                path: src,
            }
            .into());
        };
        if let Some(found) = metadata_of(&dest)? {
            return Err(FilesError::TargetExists {
                path: dest,
                found: kind_of(&found),
            }
            .into());
        }
        self.refuse_changed(ctx, &src)?;
        let parent = parent_of(&dest).to_path_buf();
        let Some(dest_parent) = fs::metadata(&parent).ok().filter(fs::Metadata::is_dir) else {
            return Err(FilesError::Missing {
                what: "the target's folder",
                path: parent,
            }
            .into());
        };
        let real = |path: &Path| fs::canonicalize(path).map_err(PathError::on("resolve", path));
        if meta.is_dir() && real(&parent)?.starts_with(real(&src)?) {
            return Err(FilesError::argument("`dest` lies below `src`").into());
        }
        refuse_vital(&src, ctx)?;
        let mounts = Mounts::read()?;
        let method = if mounts.same_for_rename(&src, &dest) {
            Method::Rename
        } else if self.cross_filesystem {
            Method::Copy
        } else {
            return Err(FilesError::OtherFilesystem {
                source_mount: mounts.describe(parent_of(&src)),
                target_mount: mounts.describe(&parent),
                source_path: src,
                target_path: dest,
            }
            .into());
        };
        let identity = Identity::of(&meta);
        let size = match method {
            Method::Copy => {
                let size = tree_size(&src, ctx)?;
                let (free, _) = free_bytes(&parent)?;
                // What an interrupted attempt copied is completed, and takes no room twice.
                let begun = partial_of(&dest, identity);
                let there = match metadata_of(&begun)? {
                    Some(_) => tree_size(&begun, ctx)?.allocated_bytes,
                    None => 0,
                };
                if size.allocated_bytes > free.saturating_add(there) {
                    return Err(FilesError::NotEnoughSpace {
                        mount: mounts.describe(&parent),
                        path: parent,
                        free,
                        required: size.allocated_bytes,
                    }
                    .into());
                }
                Some(size)
            }
            Method::Rename => None,
        };
        if self.idle {
            refuse_in_use(&src, ctx)?;
        }
        Ok(Intent {
            src,
            dest,
            identity,
            dest_parent: Identity::of(&dest_parent),
            method,
            size,
        })
    }

    fn run(&self, ctx: &TaskContext, intent: &Intent) -> FilesResult<Outcome> {
        // The host may have changed since the intent was written, by minutes if the disk was slow.
        let now = self.intent(ctx)?;
        if now.identity != intent.identity || now.dest_parent != intent.dest_parent {
            return Err(FilesError::ChangedMeanwhile {
                path: intent.src.clone(),
                what: "it is another file or directory than the journal names".into(),
            }
            .into());
        }
        match intent.method {
            Method::Rename => {
                rename_noreplace(&intent.src, &intent.dest)?;
                done(intent, None)
            }
            Method::Copy => copy_then_remove(ctx, intent),
        }
    }
}

/// Where a copy grows. The name is the source's, not the attempt's: the next attempt completes what it
/// finds there.
fn partial_of(dest: &Path, source: Identity) -> PathBuf {
    sibling(
        dest,
        "partial",
        &format!("{:x}-{:x}", source.dev, source.ino),
    )
}

fn copy_then_remove(ctx: &TaskContext, intent: &Intent) -> FilesResult<Outcome> {
    let partial = partial_of(&intent.dest, intent.identity);
    let copied = match copy_tree(&intent.src, &partial, ctx) {
        Ok(copied) => copied,
        // Hours of work, perhaps: the next run goes on with it.
        Err(ModuleError::Cancelled) => return Err(ModuleError::Cancelled),
        Err(error) => {
            // The first error is the one to report; `recover` removes what stays.
            let _ = remove_if_there(&partial);
            return Err(error);
        }
    };
    let marker = sibling(&intent.dest, "verified", &ctx.attempt);
    if let Some(copy) = Identity::at(&partial)? {
        let pending = PendingFile::create(&marker, &ctx.attempt)?;
        serde_json::to_writer(&pending.file, &Verified { copy })
            .map_err(|error| PathError::on("write", &marker)(error.into()))?;
        pending.commit(&Attributes::default())?;
    }
    if let Err(error) = rename_noreplace(&partial, &intent.dest) {
        let _ = remove_if_there(&partial);
        let _ = remove_if_there(&marker);
        return Err(error);
    }
    remove_source(ctx, intent, &ctx.attempt)?;
    Ok(done(intent, Some(copied.size))?
        .with("copied_bytes", copied.copied_bytes)
        .with("kept_bytes", copied.kept_bytes))
}

/// The copy has the name; takes the source away, and the marker last.
fn remove_source(ctx: &TaskContext, intent: &Intent, attempt: &str) -> FilesResult<()> {
    let waiting = waiting_name(&intent.src, attempt);
    if Identity::at(&intent.src)? == Some(intent.identity) {
        rename_noreplace(&intent.src, &waiting)?;
    }
    match metadata_of(&waiting)? {
        Some(meta) if meta.is_dir() => delete_tree(&waiting, ctx)?,
        Some(_) => {
            remove_if_there(&waiting)?;
        }
        None => {}
    }
    fsync_dir(parent_of(&intent.src))?;
    remove_if_there(&sibling(&intent.dest, "verified", attempt))?;
    Ok(fsync_dir(parent_of(&intent.dest))?)
}

fn done(intent: &Intent, copied: Option<TreeSize>) -> FilesResult<Outcome> {
    let method = if copied.is_some() { "copy" } else { "rename" };
    let mut outcome = with_file_facts(Outcome::changed(), "dest", &intent.dest)?
        .with("src", intent.src.display().to_string())
        .with("method", method);
    let mut summary = format!("{} -> {}", intent.src.display(), intent.dest.display());
    if let Some(size) = copied {
        outcome = outcome
            .with("files", size.files)
            .with("size_bytes", size.bytes);
        summary.push_str(&format!(
            " (copied and verified {} in {} files)",
            human_bytes(size.bytes),
            size.files
        ));
    }
    Ok(outcome.summary(summary))
}

/// Tells from what has which name, and what the journal says it was, how far an attempt came.
fn recover(ctx: &TaskContext, intent: &Intent) -> FilesResult<Recovery> {
    let src = Identity::at(&intent.src)?;
    let dest = Identity::at(&intent.dest)?;
    let untouched = src == Some(intent.identity);
    match intent.method {
        Method::Rename => {
            if src.is_none() && dest == Some(intent.identity) {
                // Done before the crash, but perhaps not yet on the disk.
                fsync_dir(parent_of(&intent.dest))?;
                fsync_dir(parent_of(&intent.src))?;
                return Ok(Recovery::Done(done(intent, None)?));
            }
            if untouched && dest.is_none() {
                return Ok(Recovery::NotDone);
            }
        }
        Method::Copy => {
            if let Some(recovery) = recover_copy(ctx, intent, untouched, dest)? {
                return Ok(recovery);
            }
        }
    }
    let found = |path: &Path, now: Option<Identity>| match now {
        None => format!("{} is not there", path.display()),
        Some(now) if now == intent.identity => format!("{} is the original", path.display()),
        Some(_) => format!("{} is something else", path.display()),
    };
    Ok(Recovery::Unknown {
        doing: format!(
            "moving {} to {}",
            intent.src.display(),
            intent.dest.display()
        ),
        found: format!("{}, {}", found(&intent.src, src), found(&intent.dest, dest)),
    })
}

fn recover_copy(
    ctx: &TaskContext,
    intent: &Intent,
    untouched: bool,
    dest: Option<Identity>,
) -> FilesResult<Option<Recovery>> {
    let Some(attempt) = ctx.interrupted_attempt.as_deref() else {
        return Ok(None);
    };
    let marker = sibling(&intent.dest, "verified", attempt);
    let verified: Option<Verified> = match fs::read(&marker) {
        Ok(text) => serde_json::from_slice(&text).ok(),
        Err(_) => None,
    };
    let copy_arrived = dest.is_some() && verified.map(|verified| verified.copy) == dest;
    let waiting = Identity::at(&waiting_name(&intent.src, attempt))? == Some(intent.identity);
    if untouched && dest.is_none() {
        // The half copy stays: the next attempt compares it with the source and completes it.
        remove_if_there(&sibling(&marker, "partial", attempt))?;
        remove_if_there(&marker)?;
        return Ok(Some(Recovery::NotDone));
    }
    // Only what the marker vouches for lets the source go.
    let source_gone = Identity::at(&intent.src)?.is_none();
    if copy_arrived && (untouched || source_gone) {
        remove_source(ctx, intent, attempt)?;
        return Ok(Some(Recovery::Done(done(intent, intent.size)?)));
    }
    // The marker goes last, after the source. Killed between that and the journal's record, the copy
    // is whole if it holds what the source held.
    if source_gone && !waiting && dest.is_some() && !marker.exists() {
        let size = tree_size(&intent.dest, ctx)?;
        let same = intent.size.is_some_and(|was| {
            (was.bytes, was.files, was.directories) == (size.bytes, size.files, size.directories)
        });
        if same {
            return Ok(Some(Recovery::Done(done(intent, intent.size)?)));
        }
    }
    Ok(None)
}

#[async_trait]
impl Module for MoveModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            let intent = module.intent(ctx)?;
            let how = match intent.method {
                Method::Rename => "move",
                Method::Copy => "copy, verify and remove",
            };
            let (src, dest) = (intent.src.display(), intent.dest.display());
            Ok(Plan::NeedsChange(vec![format!("{how} {src} -> {dest}")]))
        })
        .await
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| Ok(json!(module.intent(ctx)?))).await
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let intent = read_intent(intent)?;
        blocking(self, ctx, move |module, ctx| module.run(ctx, &intent)).await
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let intent = read_intent(intent)?;
        blocking(self, ctx, move |_, ctx| recover(ctx, &intent)).await
    }

    fn advice(&self, ctx: &TaskContext) -> Advice {
        let (src, dest) = (ctx.resolve(&self.src), ctx.resolve(&self.dest));
        let (src, dest) = (src.display(), dest.display());
        Advice {
            look: format!(
                "which of them holds the data: `ls -lad {src} {dest}`, `du -sh {src} {dest}`"
            ),
            done: format!(
                "{dest} holds all of it; a {src} that is still there stays, and is yours to remove"
            ),
            redo: format!(
                "{src} holds all of it, and {dest} has been moved away: {src} is moved; nothing is \
                 overwritten"
            ),
        }
    }
}

fn read_intent(intent: &Value) -> FilesResult<Intent> {
    serde_json::from_value(intent.clone()).map_err(|error| {
        FilesError::argument(format!(
            "the journaled intent of a move is unreadable: {error}"
        ))
        .into()
    })
}

impl TypedModule for MoveModule {
    const NAME: &'static str = "move";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.move"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "done where the source, told by device and inode, is at `dest`; *not done* where it is still at `src`; otherwise *unknown*. A half copy to another filesystem is completed: compared with the source chunk by chunk, what differs is copied again, then all of it verified";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str =
        "Moves a file or directory to a free name by one rename, or by a verified copy";
    const EXAMPLE: &'static str = "\
- name: Keep the old database
  move:
    src: \"{{ fast_data_dir }}/postgres-dcm4che\"
    dest: \"{{ fast_data_dir }}/postgres-dcm4che-old\"
    idle: true
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        let mut steps = Vec::new();
        for effort in efforts.iter().rev() {
            let Ok(intent) = serde_json::from_value::<Intent>(effort.intent.clone()) else {
                return Undo::Impossible("the journal does not tell what it moved".into());
            };
            if intent.method == Method::Copy {
                return Undo::Impossible(format!(
                    "{} was copied to another filesystem and removed where it was",
                    intent.src.display()
                ));
            }
            // Where an attempt failed or was interrupted, the thing may still be at `src`: no step then.
            steps.push(Step::MoveBack {
                from: intent.dest,
                to: intent.src,
                identity: intent.identity,
            });
        }
        Undo::Steps(steps)
    }
}

#[cfg(test)]
#[path = "relocate_tests.rs"]
mod tests;
