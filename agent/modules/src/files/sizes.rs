//! `disk_space` and `directory_size`: is there room, and how much is there.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::error::ModuleError;
use crate::host::files::blocking::blocking;
use crate::host::files::durable::{free_bytes, nearest_existing};
use crate::host::files::error::{FilesError, FilesResult, human_bytes};
use crate::host::files::mounts::Mounts;
use crate::host::files::walk::tree_size;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Fails when a filesystem has too little free space, or is another than it should be.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSpaceModule {
    /// Where something will be written. Need not exist: its nearest existing folder counts.
    path: PathBuf,
    /// Bytes that must be free: a number, or text with a unit such as `20 GiB` or `500 MB`. Default:
    /// none, only tells.
    #[serde(default)]
    #[schemars(schema_with = "bytes_schema")]
    required: Option<Value>,
    /// Fails unless a rename between this path and `path` can work (same filesystem, same mount).
    #[serde(default)]
    same_filesystem_as: Option<PathBuf>,
}

fn bytes_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "number"}, {"type": "string"}],
        "examples": [1_073_741_824, "20 GiB"]
    })
}

/// Reads a number of bytes: a number, or text with a unit (`KiB`, `MiB`, … by 1024; `kB`, `MB`, … by
/// 1000; a bare `K`, `M`, `G`, `T` by 1024 as Ansible's `human_to_bytes` has it).
fn bytes_of(value: &Value) -> Result<u64, String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        other => return Err(format!("{other} is not a number of bytes")),
    };
    let wrong = || format!("`{text}` is not a number of bytes such as 1024 or \"20 GiB\"");
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction is an estimate; it is rounded up and cannot be negative"
    )]
    let bytes = (number * factor as f64).ceil() as u64;
    Ok(bytes)
}

impl DiskSpaceModule {
    fn look(&self, ctx: &TaskContext) -> FilesResult<Outcome> {
        let path = ctx.resolve(&self.path);
        let near = nearest_existing(&path);
        let mounts = Mounts::read()?;
        let (free, total) = free_bytes(&near)?;
        let required = self
            .required
            .as_ref()
            .map(bytes_of)
            .transpose()
            .map_err(|message| FilesError::argument(format!("`required`: {message}")))?;
        if let Some(other) = &self.same_filesystem_as {
            let other = ctx.resolve(other);
            // Entries inside both folders: what matters is where a rename would happen.
            let inside = nearest_existing(&other).join("entry");
            if !mounts.same_for_rename(&near.join("entry"), &inside) {
                return Err(FilesError::OtherFilesystem {
                    source_mount: mounts.describe(&path),
                    target_mount: mounts.describe(&other),
                    source_path: path,
                    target_path: other,
                }
                .into());
            }
        }
        if let Some(required) = required.filter(|required| *required > free) {
            return Err(FilesError::NotEnoughSpace {
                path,
                mount: mounts.describe(&near),
                free,
                required,
            }
            .into());
        }
        let mount = mounts
            .of(&near)
            .map(|mount| mount.point.display().to_string());
        let mut summary = format!("{} free on {}", human_bytes(free), mounts.describe(&near));
        if let Some(required) = required {
            summary.push_str(&format!(", {} needed", human_bytes(required)));
        }
        Ok(Outcome::ok()
            .with("path", path.display().to_string())
            .with("mount", mount)
            .with("free_bytes", free)
            .with("total_bytes", total)
            .with("required_bytes", required)
            .summary(summary))
    }
}

#[async_trait]
impl Module for DiskSpaceModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        blocking(self, ctx, |module, ctx| module.look(ctx)).await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for DiskSpaceModule {
    const NAME: &'static str = "disk_space";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.disk_space"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str =
        "Tells how much space is free, and fails when it is too little or on another filesystem";
    const EXAMPLE: &'static str = "\
- name: Room for two dumps
  disk_space:
    path: \"{{ backup_dir }}\"
    required: \"{{ 2 * database.size_bytes }}\"
    same_filesystem_as: \"{{ fast_data_dir }}\"
";
}

/// Adds up what is below a path.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectorySizeModule {
    /// Directory or file. Links are not followed; a file with several names counts once.
    path: PathBuf,
}

#[async_trait]
impl Module for DirectorySizeModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        blocking(self, ctx, |module, ctx| {
            let path = ctx.resolve(&module.path);
            let size = tree_size(&path, ctx)?;
            Ok(Outcome::ok()
                .with("path", path.display().to_string())
                .with("size_bytes", size.bytes)
                .with("allocated_bytes", size.allocated_bytes)
                .with("files", size.files)
                .with("directories", size.directories)
                .summary(format!(
                    "{} in {} files",
                    human_bytes(size.bytes),
                    size.files
                )))
        })
        .await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for DirectorySizeModule {
    const NAME: &'static str = "directory_size";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.directory_size"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Adds up what is below a path";
    const EXAMPLE: &'static str = "\
- name: How large the database is
  directory_size:
    path: \"{{ fast_data_dir }}/postgres-dcm4che\"
  register: database
";
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn look(arguments: Value) -> FilesResult<Outcome> {
        let module: DiskSpaceModule = serde_json::from_value(arguments).expect("arguments");
        module.look(&TaskContext::for_tests(std::path::Path::new("/")))
    }

    #[test]
    fn sizes_are_read_with_units() {
        assert_eq!(bytes_of(&json!(5)), Ok(5));
        assert_eq!(bytes_of(&json!("20 GiB")), Ok(20 << 30));
        assert_eq!(bytes_of(&json!("1.5K")), Ok(1536));
        assert_eq!(bytes_of(&json!("2 MB")), Ok(2_000_000));
        assert_eq!(bytes_of(&json!(1.25)), Ok(2));
        assert!(bytes_of(&json!("-1")).is_err());
        assert!(bytes_of(&json!("20 XiB")).is_err());
        assert!(bytes_of(&json!("99999999999 TiB")).is_err());
    }

    #[test]
    fn too_little_space_names_what_is_missing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("not/yet/there");
        let outcome = look(json!({"path": path, "required": 1})).expect("one byte");
        assert!(outcome.result["free_bytes"].as_u64() > Some(1));
        let error = look(json!({"path": path, "required": "900000 TiB"})).expect_err("too much");
        let text = error.to_string();
        assert!(text.contains("free") && text.contains("missing"), "{text}");
    }

    #[test]
    fn another_filesystem_is_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        look(json!({"path": dir.path(), "same_filesystem_as": dir.path().join("x")}))
            .expect("same");
        let error = look(json!({"path": dir.path(), "same_filesystem_as": "/proc"}));
        assert!(
            error
                .expect_err("other")
                .to_string()
                .contains("/proc (proc, proc)")
        );
    }

    #[tokio::test]
    async fn hard_links_count_once() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::create_dir(dir.path().join("d")).expect("mkdir");
        fs::write(dir.path().join("d/a"), [0; 1000]).expect("write");
        fs::hard_link(dir.path().join("d/a"), dir.path().join("b")).expect("link");
        fs::write(dir.path().join("c"), [0; 10]).expect("write");
        let module = DirectorySizeModule {
            path: dir.path().to_path_buf(),
        };
        let ctx = TaskContext::for_tests(dir.path());
        let outcome = module.apply(&ctx, &Value::Null).await.expect("apply");
        assert_eq!(outcome.result["size_bytes"], 1010);
        assert_eq!(outcome.result["files"], 2);
        assert!(!outcome.changed);
    }
}
