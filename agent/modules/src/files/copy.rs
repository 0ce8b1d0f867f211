//! `copy`: puts a file's, text's or directory's content where it belongs, whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::content::Source;
use super::copy_dir;
use super::put::{Change, Put, vouched};
use super::stat::ansible_checksum;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::Wanted;
use crate::host::files::blocking::blocking;
use crate::host::files::converge::Converge;
use crate::host::files::durable::{mode_of, remove_partial, sha256_file};
use crate::host::files::error::{FilesError, FilesResult, human_bytes};
use crate::host::files::mode::Mode;
use crate::python_json;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_state::{Before, before_of, intent_of, undo_of_path};
use crate::task::undo::{PastAttempt, Undo};

/// Copies a file, a directory or given text to a path.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyModule {
    /// File or directory to copy. A directory ending in `/` gives its content, else itself. A relative
    /// path starts at the playbook's folder.
    #[serde(default)]
    pub(super) src: Option<PathBuf>,
    /// Text to write, instead of `src`.
    #[serde(default)]
    content: Option<Value>,
    /// Where to. A path ending in `/` or an existing directory gets the file under its own name.
    #[serde(alias = "path")]
    #[schemars(extend("aliases" = ["path"]))]
    pub(super) dest: PathBuf,
    /// Mode: `0644`, `"0644"`, `u=rw,g=r`, or `preserve` for the source's. Default: an existing file's
    /// own, for a new one the umask decides.
    #[serde(default)]
    mode: Option<CopyMode>,
    /// Mode of directories that are made when a directory is copied.
    #[serde(default)]
    pub(super) directory_mode: Option<Mode>,
    /// Owner, a name or number.
    #[serde(default)]
    owner: Option<String>,
    /// Group, a name or number.
    #[serde(default)]
    group: Option<String>,
    /// Keeps what was there under a name with the time. Default: false.
    #[serde(default)]
    backup: bool,
    /// Replaces a file with other content. Default: true; with false, only a missing file is written.
    #[serde(default = "yes")]
    force: bool,
    /// Command that must accept the new content before it replaces the old; `%s` is its path.
    #[serde(default)]
    validate: Option<String>,
    /// The source is data on this host: a directory is copied with owners, modes, times and links, and
    /// verified; where `dest` does not exist it appears whole. Default: false.
    #[serde(default)]
    pub(super) remote_src: bool,
    /// Writes to what a link at `dest` points to. Default: false, the link is replaced.
    #[serde(default)]
    follow: bool,
    /// Refuses unless the source has this SHA-256 (Ansible's SHA-1 is accepted, too).
    #[serde(default)]
    checksum: Option<String>,
}

/// A mode, or the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
enum CopyMode {
    Preserve,
    Mode(Mode),
}

impl<'de> Deserialize<'de> for CopyMode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value == "preserve" {
            return Ok(Self::Preserve);
        }
        Mode::deserialize(value)
            .map(Self::Mode)
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for CopyMode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CopyMode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Mode::json_schema(generator)
    }
}

fn yes() -> bool {
    true
}

impl CopyModule {
    pub(super) fn wanted(&self, source: Option<&fs::Metadata>) -> FilesResult<Wanted> {
        let preserved = source.map(|meta| Mode::Bits(mode_of(meta)));
        let mode = match &self.mode {
            Some(CopyMode::Mode(mode)) => Some(mode.clone()),
            Some(CopyMode::Preserve) => preserved,
            None => None,
        };
        Wanted::look_up(mode.as_ref(), self.owner.as_deref(), self.group.as_deref())
    }

    fn text(&self) -> FilesResult<Option<String>> {
        match (&self.src, &self.content) {
            (Some(_), Some(_)) => {
                Err(FilesError::argument("`src` and `content` exclude each other").into())
            }
            (None, None) => Err(FilesError::argument("`src` or `content` is needed").into()),
            (_, Some(Value::String(text))) => Ok(Some(text.clone())),
            // As Ansible: structures are JSON, a boolean is Python's word.
            (_, Some(Value::Bool(value))) => Ok(Some(if *value { "True" } else { "False" }.into())),
            (_, Some(value)) => Ok(Some(python_json::write(value, None, false))),
            (_, None) => Ok(None),
        }
    }

    /// The file that will be written: `dest`, a file in it, or what a link at it means.
    fn target(&self, ctx: &TaskContext) -> FilesResult<PathBuf> {
        let dest = ctx.resolve(&self.dest);
        let into = self.dest.as_os_str().as_encoded_bytes().ends_with(b"/") || dest.is_dir();
        let mut target = match (&self.src, into) {
            (Some(src), true) => dest.join(src.file_name().unwrap_or_default()),
            (None, true) => {
                return Err(FilesError::WrongKind {
                    path: dest,
                    wanted: "file",
                    found: "directory",
                }
                .into());
            }
            (_, false) => dest,
        };
        if self.follow && target.exists() {
            target = fs::canonicalize(&target).map_err(PathError::on("resolve", &target))?;
        }
        Ok(target)
    }

    /// The path that the task is about: a file's, or the directory's that a directory becomes.
    fn whole_target(&self, ctx: &TaskContext) -> FilesResult<PathBuf> {
        match self.src.as_ref().map(|src| ctx.resolve(src)) {
            Some(src) if src.is_dir() => Ok(copy_dir::target_of(self, ctx, &src)),
            _ => self.target(ctx),
        }
    }

    fn converge(
        &self,
        ctx: &TaskContext,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<(PathBuf, Change)> {
        let text = self.text()?;
        let src = self.src.as_ref().map(|src| ctx.resolve(src));
        let Some(src) = src else {
            let text = text.unwrap_or_default();
            let target = self.target(ctx)?;
            let change = self.one_file(
                ctx,
                Source::Text(&text),
                &target,
                &self.wanted(None)?,
                mode,
                before,
            )?;
            return Ok((target, change));
        };
        let Ok(meta) = fs::metadata(&src) else {
            return Err(FilesError::Missing {
                what: "the source",
                path: src,
            }
            .into());
        };
        if meta.is_dir() {
            return copy_dir::converge(self, ctx, &src, mode);
        }
        self.verify_source(ctx, &src)?;
        let target = self.target(ctx)?;
        let wanted = self.wanted(Some(&meta))?;
        let change = self.one_file(ctx, Source::File(&src), &target, &wanted, mode, before)?;
        Ok((target, change))
    }

    fn verify_source(&self, ctx: &TaskContext, src: &Path) -> FilesResult<()> {
        let Some(expected) = &self.checksum else {
            return Ok(());
        };
        let found = if expected.len() == 40 {
            ansible_checksum(src, ctx)?
        } else {
            sha256_file(src, &ctx.cancel, |_| {})?
        };
        if found.eq_ignore_ascii_case(expected) {
            return Ok(());
        }
        Err(FilesError::ChecksumDiffers {
            what: src.display().to_string(),
            found,
            expected: expected.clone(),
        }
        .into())
    }

    /// Brings one file there; everything else of this module comes down to this.
    pub(super) fn one_file(
        &self,
        ctx: &TaskContext,
        source: Source<'_>,
        target: &Path,
        wanted: &Wanted,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<Change> {
        let put = Put {
            force: self.force,
            backup: self.backup,
            validate: self.validate.as_deref(),
        };
        put.file(ctx, source, target, wanted, mode, before)
    }
}

#[async_trait]
impl Module for CopyModule {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        let Some(src) = self.src.as_ref().map(|src| ctx.resolve(src)) else {
            return Vec::new();
        };
        if !src.is_dir() {
            return vec![src];
        }
        // Data on the host is compared when the task runs; hashing a database for a fingerprint, at
        // every start, would cost as much as the copy.
        if self.remote_src {
            return Vec::new();
        }
        copy_dir::files_below(&src)
    }

    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let (_, change) = blocking(self, ctx, |module, ctx| {
            module.converge(ctx, Converge::Check, None)
        })
        .await?;
        Ok(Plan::from(change.lines))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            intent_of(&module.whole_target(ctx)?, ctx)
        })
        .await
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let intent = intent.clone();
        blocking(self, ctx, move |module, ctx| {
            let before = before_of(&intent, &module.whole_target(ctx)?, ctx)?;
            let (target, change) = module.converge(ctx, Converge::Apply, Some(&before))?;
            let mut outcome = Outcome {
                changed: !change.lines.is_empty(),
                ..Outcome::default()
            };
            if let Some(src) = &module.src {
                outcome = outcome.with("src", ctx.resolve(src).display().to_string());
            }
            if let Some(backup) = change.backup {
                outcome = outcome.with("backup_file", backup.display().to_string());
            }
            if let Some(first) = change.lines.first() {
                let more = match change.lines.len() {
                    1 => String::new(),
                    count => format!(" and {} more", count - 1),
                };
                outcome = outcome.summary(format!("{first}{more}"));
            }
            let outcome = vouched(outcome, target, ctx)?;
            let size = outcome.outputs.first().map(|file| human_bytes(file.size));
            Ok(match size {
                Some(size) => outcome.with("size_text", size),
                None => outcome,
            })
        })
        .await
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            // A directory's left-overs lie beside the files in it.
            let attempt = ctx.interrupted_attempt.as_deref();
            match module.src.as_ref().map(|src| ctx.resolve(src)) {
                Some(src) if src.is_dir() => copy_dir::clean_up(module, ctx, &src, attempt)?,
                _ => {
                    if let Ok(target) = module.target(ctx) {
                        remove_partial(&target, attempt)?;
                    }
                }
            }
            Ok(Recovery::NotDone)
        })
        .await
    }
}

impl TypedModule for CopyModule {
    const NAME: &'static str = "copy";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.copy", "ansible.legacy.copy"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "removes its half file, writes again; a file appears by rename, never in part";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Puts a file, a directory or given text at a path";
    const EXAMPLE: &'static str = "\
- name: A working copy of the old database's directory
  copy:
    src: \"{{ fast_data_dir }}/postgres-dcm4che/\"
    dest: \"{{ work_dir }}/postgres-copy\"
    remote_src: true
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        let merged = efforts
            .iter()
            .filter_map(|effort| Before::read(effort.intent)?.was)
            .any(|was| was.kind == "directory");
        match undo_of_path(efforts) {
            Undo::Steps(_) if merged => Undo::Impossible(
                "it copied into a directory that was there, and did not keep what it replaced"
                    .into(),
            ),
            undo => undo,
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
