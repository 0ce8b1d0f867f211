//! `template`: a rendered file. The engine renders it, because only the engine knows the variables; from
//! there on it is a `copy` of text.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::content::Source;
use super::put::{Change, Put, vouched};
use crate::host::error::ModuleError;
use crate::host::files::attributes::Wanted;
use crate::host::files::blocking::blocking;
use crate::host::files::converge::Converge;
use crate::host::files::durable::remove_partial;
use crate::host::files::error::{FilesError, FilesResult};
use crate::host::files::mode::Mode;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_state::{Before, before_of, intent_of, undo_of_path};
use crate::task::undo::{PastAttempt, Undo};

/// What the engine makes of `src`.
#[derive(Debug, Clone, Deserialize)]
struct Rendered {
    /// The template's path.
    path: PathBuf,
    /// What it rendered to.
    content: String,
}

fn path_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string"})
}

/// Renders a template file (Jinja2) to a path.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateModule {
    /// The template. A relative path is looked for in `templates/` beside the playbook, then beside it.
    #[schemars(schema_with = "path_schema")]
    src: Rendered,
    /// Where to. A path ending in `/` or an existing directory gets the file under the template's name.
    #[serde(alias = "path")]
    #[schemars(extend("aliases" = ["path"]))]
    dest: PathBuf,
    /// Mode: `0644`, `"0644"` or `u=rw,g=r`. Default: an existing file's own, for a new one the umask
    /// decides.
    #[serde(default)]
    mode: Option<Mode>,
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
    /// Writes to what a link at `dest` points to. Default: false, the link is replaced.
    #[serde(default)]
    follow: bool,
    /// Command that must accept the new content before it replaces the old; `%s` is its path.
    #[serde(default)]
    validate: Option<String>,
    /// Takes the line end behind a `{% … %}` away. Default: true.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    trim_blocks: Option<bool>,
    /// Takes the blanks before a `{% … %}` away. Default: false.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    lstrip_blocks: Option<bool>,
    /// What begins a block. Default: `{%`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    block_start_string: Option<String>,
    /// What ends a block. Default: `%}`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    block_end_string: Option<String>,
    /// What begins an expression. Default: `{{`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    variable_start_string: Option<String>,
    /// What ends an expression. Default: `}}`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    variable_end_string: Option<String>,
    /// What begins a comment. Default: `{#`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    comment_start_string: Option<String>,
    /// What ends a comment. Default: `#}`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    comment_end_string: Option<String>,
    /// What ends a line: `\n` (default), `\r` or `\r\n`.
    #[serde(default)]
    newline_sequence: Option<String>,
}

fn yes() -> bool {
    true
}

impl TemplateModule {
    fn target(&self, ctx: &TaskContext) -> FilesResult<PathBuf> {
        let dest = ctx.resolve(&self.dest);
        let into = self.dest.as_os_str().as_encoded_bytes().ends_with(b"/") || dest.is_dir();
        let mut target = match into {
            true => dest.join(self.src.path.file_name().unwrap_or_default()),
            false => dest,
        };
        if self.follow && target.exists() {
            target = std::fs::canonicalize(&target)
                .map_err(crate::host::error::PathError::on("resolve", &target))?;
        }
        Ok(target)
    }

    fn text(&self) -> FilesResult<String> {
        let text = &self.src.content;
        Ok(match self.newline_sequence.as_deref() {
            None | Some("\n" | "\\n") => text.clone(),
            Some("\r\n" | "\\r\\n") => text.replace("\r\n", "\n").replace('\n', "\r\n"),
            Some("\r" | "\\r") => text.replace("\r\n", "\n").replace('\n', "\r"),
            Some(_) => {
                let message = r"`newline_sequence` is `\n`, `\r` or `\r\n`";
                return Err(FilesError::argument(message).into());
            }
        })
    }

    fn converge(
        &self,
        ctx: &TaskContext,
        mode: Converge,
        before: Option<&Before>,
    ) -> FilesResult<(PathBuf, Change)> {
        let target = self.target(ctx)?;
        let wanted = Wanted::look_up(
            self.mode.as_ref(),
            self.owner.as_deref(),
            self.group.as_deref(),
        )?;
        let put = Put {
            force: self.force,
            backup: self.backup,
            validate: self.validate.as_deref(),
        };
        let text = self.text()?;
        let change = put.file(ctx, Source::Text(&text), &target, &wanted, mode, before)?;
        Ok((target, change))
    }
}

#[async_trait]
impl Module for TemplateModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let (_, change) = blocking(self, ctx, |module, ctx| {
            module.converge(ctx, Converge::Check, None)
        })
        .await?;
        Ok(Plan::from(change.lines))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            intent_of(&module.target(ctx)?, ctx)
        })
        .await
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let intent = intent.clone();
        blocking(self, ctx, move |module, ctx| {
            let before = before_of(&intent, &module.target(ctx)?, ctx)?;
            let (target, change) = module.converge(ctx, Converge::Apply, Some(&before))?;
            let mut outcome = Outcome {
                changed: !change.lines.is_empty(),
                ..Outcome::default()
            }
            .with("src", module.src.path.display().to_string());
            if let Some(backup) = change.backup {
                outcome = outcome.with("backup_file", backup.display().to_string());
            }
            if let Some(first) = change.lines.first() {
                outcome = outcome.summary(first.clone());
            }
            vouched(outcome, target, ctx)
        })
        .await
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            let target = module.target(ctx)?;
            remove_partial(&target, ctx.interrupted_attempt.as_deref())?;
            Ok(Recovery::NotDone)
        })
        .await
    }
}

impl TypedModule for TemplateModule {
    const NAME: &'static str = "template";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.template", "ansible.legacy.template"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "as `copy`";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Renders a template file to a path";
    const EXAMPLE: &'static str = "\
- name: The server's configuration
  template:
    src: postgresql.conf.j2
    dest: \"{{ fast_data_dir }}/postgresql.conf\"
    mode: \"0640\"
";
    const TEMPLATE_FILE: Option<&'static str> = Some("src");

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        undo_of_path(efforts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::rendered::rendered;
    use serde_json::json;

    #[tokio::test]
    async fn a_rendered_text_is_written_once_and_taken_back_by_its_name() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ctx = TaskContext::for_tests(dir.path());
        let module: TemplateModule = serde_json::from_value(json!({
            "src": rendered(std::path::Path::new("templates/a.j2"), "one\ntwo\n"),
            "dest": format!("{}/", dir.path().display()),
            "newline_sequence": "\r\n",
            "mode": "0640",
        }))
        .expect("arguments");
        assert!(matches!(
            module.check(&ctx).await.expect("check"),
            Plan::NeedsChange(_)
        ));
        let intent = module.prepare(&ctx).await.expect("prepare");
        let outcome = module.apply(&ctx, &intent).await.expect("apply");
        assert!(outcome.changed);
        assert_eq!(outcome.result["mode"], "0640");
        let text = std::fs::read_to_string(dir.path().join("a.j2")).expect("written");
        assert_eq!(text, "one\r\ntwo\r\n");
        assert_eq!(module.check(&ctx).await.expect("check"), Plan::InSync);
    }
}
