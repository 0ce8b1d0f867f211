//! What the modules that edit one text file share: read, change in memory, put back whole.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::content::Source;
use super::put::Put;
use super::result::with_file_facts;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::{Wanted, umask};
use crate::host::files::blocking::blocking;
use crate::host::files::converge::{Converge, make_directories};
use crate::host::files::durable::{metadata_of, parent_of, remove_partial};
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::files::mode::Mode;
use crate::task::context::TaskContext;
use crate::task::module::{Outcome, Plan, Recovery};
use crate::task::prior_state::{Before, before_of, intent_of};

/// Arguments that these modules have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    pub path: &'a Path,
    pub mode: Option<&'a Mode>,
    pub owner: Option<&'a str>,
    pub group: Option<&'a str>,
    pub backup: bool,
    pub validate: Option<&'a str>,
}

/// A file's new text.
#[derive(Debug, Clone, Default)]
pub(super) struct Edited {
    /// The whole text; `None` where there is no file and shall be none.
    pub text: Option<String>,
    /// What was done, in Ansible's words; empty where nothing was.
    pub message: String,
    /// More return values.
    pub found: Option<u64>,
}

/// The arguments that the modules have in common.
pub(super) trait Common {
    /// Returns them.
    fn options(&self) -> Options<'_>;
}

/// A module that edits one text file.
pub(super) trait Edit: Common + Clone + Send + Sync + 'static {
    /// Returns the text that a file with this text should have; `None`: there is no file.
    fn edit(&self, old: Option<&str>) -> FilesResult<Edited>;

    /// Why a missing file is an error.
    fn missing(&self) -> FilesResult<Edited> {
        let path = self.options().path.to_path_buf();
        let what = "the file";
        Err(FilesError::Missing { what, path }.into())
    }
}

/// Links are followed: the text belongs to what they point to.
fn target(edit: &impl Edit, ctx: &TaskContext) -> PathBuf {
    let path = ctx.resolve(edit.options().path);
    fs::canonicalize(&path).unwrap_or(path)
}

fn converge(
    edit: &impl Edit,
    ctx: &TaskContext,
    mode: Converge,
    before: Option<&Before>,
) -> FilesResult<(PathBuf, Outcome, Vec<String>)> {
    let options = edit.options();
    let target = target(edit, ctx);
    let old = match metadata_of(&target)? {
        None => None,
        Some(meta) if meta.is_dir() => {
            return Err(FilesError::WrongKind {
                path: target,
                wanted: "file",
                found: "directory",
            }
            .into());
        }
        Some(_) => {
            let bytes = fs::read(&target).map_err(PathError::on("read", &target))?;
            let text = String::from_utf8(bytes).map_err(|error| {
                FilesError::argument_with_help(
                    format!(
                        "{} is not UTF-8 text (byte {})",
                        target.display(),
                        error.utf8_error().valid_up_to()
                    ),
                    "edit it with a `command`, or replace it whole with `copy`",
                )
            })?;
            Some(text)
        }
    };
    let edited = edit.edit(old.as_deref())?;
    let mut outcome = Outcome::ok().with("msg", edited.message.clone());
    if let Some(found) = edited.found {
        outcome = outcome.with("found", found);
    }
    let Some(text) = edited.text else {
        return Ok((target, outcome, Vec::new()));
    };
    let wanted = Wanted::look_up(options.mode, options.owner, options.group)?;
    if mode == Converge::Apply && !parent_of(&target).is_dir() {
        make_directories(parent_of(&target), &|default, is_dir| {
            Wanted::default().for_new(default & !umask(), is_dir)
        })?;
    }
    let put = Put {
        force: true,
        backup: options.backup,
        validate: options.validate,
    };
    let change = put.file(ctx, Source::Text(&text), &target, &wanted, mode, before)?;
    let backup = change
        .backup
        .map_or_else(String::new, |path| path.display().to_string());
    outcome = outcome.with("backup", backup);
    outcome.changed = !change.lines.is_empty();
    if outcome.changed && edited.message.is_empty() {
        outcome = outcome.with("msg", "ownership, perms or SE linux context changed");
    }
    Ok((target, outcome, change.lines))
}

pub(super) async fn check(edit: &impl Edit, ctx: &TaskContext) -> Result<Plan, ModuleError> {
    blocking(edit, ctx, |edit, ctx| {
        let (_, _, lines) = converge(edit, ctx, Converge::Check, None)?;
        Ok(Plan::from(lines))
    })
    .await
}

pub(super) async fn prepare(edit: &impl Edit, ctx: &TaskContext) -> Result<Value, ModuleError> {
    blocking(edit, ctx, |edit, ctx| intent_of(&target(edit, ctx), ctx)).await
}

pub(super) async fn apply(
    edit: &impl Edit,
    ctx: &TaskContext,
    intent: &Value,
) -> Result<Outcome, ModuleError> {
    let intent = intent.clone();
    blocking(edit, ctx, move |edit, ctx| {
        let before = before_of(&intent, &target(edit, ctx), ctx)?;
        let (path, outcome, lines) = converge(edit, ctx, Converge::Apply, Some(&before))?;
        let mut outcome = with_file_facts(outcome, "path", &path)?;
        if let Some(first) = lines.first() {
            let said = outcome.result.get("msg").and_then(Value::as_str);
            let said = said.unwrap_or_default().to_owned();
            outcome = outcome.summary(if said.is_empty() {
                first.clone()
            } else {
                format!("{said} in {}", path.display())
            });
        }
        Ok(outcome)
    })
    .await
}

pub(super) async fn recover(edit: &impl Edit, ctx: &TaskContext) -> Result<Recovery, ModuleError> {
    blocking(edit, ctx, |edit, ctx| {
        remove_partial(&target(edit, ctx), ctx.interrupted_attempt.as_deref())?;
        Ok(Recovery::NotDone)
    })
    .await
}

/// Defines a module's arguments together with those that the modules which edit share, and makes it a
/// module. `serde` cannot flatten a struct into one that refuses unknown fields, so the fields are written
/// into each.
macro_rules! editing_module {
    (
        $(#[$meta:meta])*
        pub struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The file.
            #[serde(alias = "dest", alias = "destfile", alias = "name")]
            #[schemars(extend("aliases" = ["dest", "destfile", "name"]))]
            path: ::std::path::PathBuf,
            $($(#[$field_meta])* $field: $kind,)*
            /// Keeps what was there under a name with the time. Default: false.
            #[serde(default)]
            backup: bool,
            /// Command that must accept the new content before it replaces the old; `%s` is its path.
            #[serde(default)]
            validate: Option<String>,
            /// Mode: `0644`, `"0644"` or `u=rw,g=r`.
            #[serde(default)]
            mode: Option<$crate::host::files::mode::Mode>,
            /// Owner, a name or number.
            #[serde(default)]
            owner: Option<String>,
            /// Group, a name or number.
            #[serde(default)]
            group: Option<String>,
        }

        impl $crate::files::edit::Common for $name {
            fn options(&self) -> $crate::files::edit::Options<'_> {
                $crate::files::edit::Options {
                    path: &self.path,
                    mode: self.mode.as_ref(),
                    owner: self.owner.as_deref(),
                    group: self.group.as_deref(),
                    backup: self.backup,
                    validate: self.validate.as_deref(),
                }
            }
        }

        #[async_trait]
        impl Module for $name {
            async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
                super::edit::check(self, ctx).await
            }

            async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
                super::edit::prepare(self, ctx).await
            }

            async fn apply(
                &self,
                ctx: &TaskContext,
                intent: &Value,
            ) -> Result<Outcome, ModuleError> {
                super::edit::apply(self, ctx, intent).await
            }

            async fn recover(
                &self,
                ctx: &TaskContext,
                _intent: &Value,
            ) -> Result<Recovery, ModuleError> {
                super::edit::recover(self, ctx).await
            }
        }
    };
}
pub(super) use editing_module;

/// Takes a text apart into lines, each with its end.
pub(super) fn lines_of(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

/// A line without its end.
pub(super) fn bare(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Builds a pattern of an argument.
pub(super) fn pattern(argument: &str, source: &str) -> FilesResult<regex::Regex> {
    crate::python_regex::build(source, |_| {})
        .map_err(|reason| FilesError::argument(format!("`{argument}`: {reason}")).into())
}

/// What undoes an edit: the file as it was.
pub(super) use crate::task::prior_state::undo_of_path as undo;
