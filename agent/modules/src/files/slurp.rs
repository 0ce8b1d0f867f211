//! `slurp`: a file's content into a variable.

use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::blocking::blocking;
use crate::host::files::error::{FilesError, human_bytes};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// The journal keeps what is read: larger files belong elsewhere.
const LIMIT: u64 = 16 << 20;

/// Reads a file, encoded in base64.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlurpModule {
    /// The file, of 16 MiB at most: the journal keeps what is read.
    #[serde(alias = "path")]
    #[schemars(extend("aliases" = ["path"]))]
    src: PathBuf,
}

#[async_trait]
impl Module for SlurpModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            let path = ctx.resolve(&module.src);
            let meta = fs::metadata(&path).map_err(PathError::on("inspect", &path))?;
            if meta.is_dir() {
                return Err(FilesError::WrongKind {
                    path,
                    wanted: "file",
                    found: "directory",
                }
                .into());
            }
            if meta.len() > LIMIT {
                let size = human_bytes(meta.len());
                return Err(FilesError::argument_with_help(
                    format!(
                        "{} has {size}, more than the 16 MiB that are read",
                        path.display()
                    ),
                    "copy the file, or look at it with `stat`",
                )
                .into());
            }
            let content = fs::read(&path).map_err(PathError::on("read", &path))?;
            Ok(Outcome::ok()
                .with("content", STANDARD.encode(content))
                .with("encoding", "base64")
                .with("source", path.display().to_string()))
        })
        .await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for SlurpModule {
    const NAME: &'static str = "slurp";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.slurp", "ansible.legacy.slurp"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "reads again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Reads a file, encoded in base64";
    const EXAMPLE: &'static str = "\
- name: Which version wrote the directory
  slurp:
    src: \"{{ data_dir }}/PG_VERSION\"
  register: version_file
";
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn bytes_that_are_no_text_come_through() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ctx = TaskContext::for_tests(Path::new("/"));
        let path = dir.path().join("f");
        fs::write(&path, [0, 255, 10]).expect("write");
        let slurp = |path: &Path| -> SlurpModule {
            serde_json::from_value(json!({"src": path})).expect("arguments")
        };
        let outcome = slurp(&path).apply(&ctx, &Value::Null).await.expect("apply");
        assert_eq!(outcome.result["content"], "AP8K");
        assert!(slurp(dir.path()).apply(&ctx, &Value::Null).await.is_err());
        assert!(
            slurp(Path::new("/no/such"))
                .apply(&ctx, &Value::Null)
                .await
                .is_err()
        );
    }
}
