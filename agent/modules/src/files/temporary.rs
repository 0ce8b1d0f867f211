//! `tempfile`: a file or directory under a name that is free.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::result::with_file_facts;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::blocking::blocking;
use crate::host::files::durable::{fsync_dir, metadata_of};
use crate::host::files::error::{FilesError, FilesResult};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::unless_unchanged;
use crate::task::undo::{PastAttempt, Step, Undo};

/// Makes a temporary file or directory, for its owner alone. The name is journaled before the thing is
/// made, so that an interrupted attempt leaves nothing behind.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TempfileModule {
    /// `file` (default) or `directory`.
    #[serde(default)]
    state: State,
    /// Folder to make it in. Default: `$TMPDIR`, else `/tmp`.
    #[serde(default)]
    path: Option<PathBuf>,
    /// Begin of its name. Default: `ansible.`.
    #[serde(default = "default_prefix")]
    prefix: String,
    /// End of its name.
    #[serde(default)]
    suffix: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    File,
    Directory,
}

fn default_prefix() -> String {
    "ansible.".into()
}

impl TempfileModule {
    fn folder(&self, ctx: &TaskContext) -> PathBuf {
        let set = ctx.environment.get("TMPDIR").map(PathBuf::from);
        match &self.path {
            Some(path) => ctx.resolve(path),
            None => set.unwrap_or_else(std::env::temp_dir),
        }
    }

    /// A name that nothing has; the attempt's id makes it differ from every other attempt's.
    fn free_name(&self, ctx: &TaskContext) -> FilesResult<PathBuf> {
        let folder = self.folder(ctx);
        if self.prefix.contains('/') || self.suffix.contains('/') {
            let message = "`prefix` and `suffix` are parts of a name and hold no `/`";
            return Err(FilesError::argument(message).into());
        }
        for number in 0_u32..1000 {
            let seed = format!("{}/{number}/{}", ctx.attempt, std::process::id());
            let middle = &hex::encode(Sha256::digest(seed))[..8];
            let path = folder.join(format!("{}{middle}{}", self.prefix, self.suffix));
            if metadata_of(&path)?.is_none() {
                return Ok(path);
            }
        }
        Err(FilesError::argument(format!("{} has no free name left", folder.display())).into())
    }

    fn make(&self, path: &Path) -> FilesResult<Outcome> {
        match self.state {
            State::File => {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o600);
                options
                    .open(path)
                    .and_then(|file| file.sync_all())
                    .map_err(PathError::on("create", path))?;
            }
            State::Directory => fs::DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(PathError::on("create", path))?,
        }
        fsync_dir(crate::host::files::durable::parent_of(path))?;
        with_file_facts(Outcome::changed(), "path", path)
    }
}

#[async_trait]
impl Module for TempfileModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        // Its name is what later tasks want, and there is none yet.
        Ok(Plan::CannotPredict)
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            Ok(json!({"path": module.free_name(ctx)?}))
        })
        .await
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let named = intent["path"].as_str().map(PathBuf::from);
        blocking(self, ctx, move |module, ctx| {
            let path = match named {
                Some(path) => path,
                None => module.free_name(ctx)?,
            };
            module.make(&path)
        })
        .await
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let named = intent["path"].as_str().map(PathBuf::from);
        blocking(self, ctx, move |_, _| {
            let Some(path) = named else {
                return Ok(Recovery::NotDone);
            };
            if metadata_of(&path)?.is_none() {
                return Ok(Recovery::NotDone);
            }
            // The name is this attempt's alone: what has it is what it made.
            Ok(Recovery::Done(with_file_facts(
                Outcome::changed(),
                "path",
                &path,
            )?))
        })
        .await
    }
}

impl TypedModule for TempfileModule {
    const NAME: &'static str = "tempfile";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.tempfile", "ansible.legacy.tempfile"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str =
        "the name was journaled before: done where it is there, otherwise made under a new one";
    const CHECK_MODE: &'static str = "skipped";
    const SUMMARY: &'static str = "Makes a temporary file or directory, for its owner alone";
    const EXAMPLE: &'static str = "\
- name: A place for what the vendor sent
  id: vendor-place
  tempfile:
    state: directory
    suffix: .vendor
  register: vendor_place
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        unless_unchanged(efforts, || {
            let steps = efforts.iter().filter_map(|effort| {
                Some(Step::SetAside {
                    path: PathBuf::from(effort.intent["path"].as_str()?),
                    identity: effort.identity(),
                })
            });
            Undo::Steps(steps.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_journaled_name_is_what_is_made_and_what_is_found_again() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ctx = TaskContext::for_tests(dir.path());
        let module: TempfileModule = serde_json::from_value(
            json!({"path": dir.path(), "prefix": "p-", "suffix": ".s", "state": "directory"}),
        )
        .expect("arguments");
        let intent = module.prepare(&ctx).await.expect("prepare");
        assert_eq!(
            module.recover(&ctx, &intent).await.expect("recover"),
            Recovery::NotDone
        );
        let outcome = module.apply(&ctx, &intent).await.expect("apply");
        let path = PathBuf::from(outcome.result["path"].as_str().expect("path"));
        assert_eq!(intent["path"], outcome.result["path"]);
        let mode = fs::metadata(&path).expect("made").permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        let found = module.recover(&ctx, &intent).await.expect("recover");
        assert!(matches!(found, Recovery::Done(outcome) if outcome.changed));
        let second = module.prepare(&ctx).await.expect("prepare");
        assert_ne!(second["path"], intent["path"]);
    }
}
