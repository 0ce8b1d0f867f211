//! `ldap_data_directory`: data and configuration of a slapd on disk, and who uses them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::error::LdapError;
use crate::host::error::{ModuleError, PathError};
use crate::host::files::blocking::blocking;
use crate::host::files::durable::sha256_file;
use crate::host::files::in_use::refuse_in_use;
use crate::host::holders::holders;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// The data of slapd's mdb backend.
const DATA: &str = "data.mdb";
/// The root of a configuration directory.
const CONFIG: &str = "cn=config.ldif";

/// Looks at the directories of a slapd that does not run: whether they are ones, their owner and size, and
/// who uses them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LdapDataDirectory {
    /// The data: a directory with `data.mdb`. An empty one is an error, never an empty directory.
    pub path: PathBuf,
    /// The configuration: a directory with `cn=config.ldif`.
    pub config: PathBuf,
    /// Fail when a process has a file of it open, or a running container has it mounted. Default: false.
    #[serde(default)]
    pub idle: bool,
}

impl TypedModule for LdapDataDirectory {
    const NAME: &'static str = "ldap_data_directory";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.ldap_data_directory"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Looks at the directories of a slapd: content, owner, users.";
    const EXAMPLE: &'static str = r#"- name: The LDAP directory is where it should be, and at rest
  ldap_data_directory:
    path: "{{ fast_data_dir }}/ldap"
    config: "{{ fast_data_dir }}/slapd.d"
    idle: true
  register: ldap   # ldap.size_bytes, .uid, .gid, .data_sha256, .config_sha256
"#;
}

impl LdapDataDirectory {
    /// Looks at the files. Blocks.
    fn look(&self, ctx: &TaskContext) -> Result<Outcome, ModuleError> {
        let (path, config) = (ctx.resolve(&self.path), ctx.resolve(&self.config));
        let data = must_hold(&path, DATA)?;
        if self.idle {
            refuse_in_use(&path, ctx)?;
            refuse_in_use(&config, ctx)?;
        }
        let sum = |file: PathBuf| sha256_file(&file, &ctx.cancel, |_| {});
        // Sparse: what counts is what is on the disk (blocks of 512 bytes, stat(2)).
        let size_bytes = data.blocks() * 512;
        Ok(Outcome::ok()
            .with("path", path.display().to_string())
            .with("config", config.display().to_string())
            .with("size_bytes", size_bytes)
            .with("uid", data.uid())
            .with("gid", data.gid())
            .with("data_sha256", sum(path.join(DATA))?)
            .with("config_sha256", sum(config.join(CONFIG))?)
            .summary(format!("{} KiB of data", size_bytes >> 10)))
    }

    /// A container may have it mounted without a file open yet.
    async fn refuse_containers(&self, ctx: &TaskContext) -> Result<(), ModuleError> {
        for path in [&self.path, &self.config].map(|path| ctx.resolve(path)) {
            if let Some(holder) = holders(ctx, &path).await?.first() {
                let by = holder.to_string();
                return Err(LdapError::DirectoryInUse { path, by }.into());
            }
        }
        Ok(())
    }
}

fn must_hold(path: &Path, file: &'static str) -> Result<std::fs::Metadata, LdapError> {
    match std::fs::metadata(path.join(file)) {
        Ok(meta) if meta.is_file() => Ok(meta),
        Ok(_) => Err(LdapError::NoDirectory {
            path: path.to_path_buf(),
            file,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(LdapError::NoDirectory {
            path: path.to_path_buf(),
            file,
        }),
        Err(error) => Err(PathError::on("inspect", &path.join(file))(error).into()),
    }
}

#[async_trait]
impl Module for LdapDataDirectory {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        must_hold(&ctx.resolve(&self.path), DATA)?;
        must_hold(&ctx.resolve(&self.config), CONFIG)?;
        if self.idle {
            self.refuse_containers(ctx).await?;
        }
        blocking(self, ctx, Self::look).await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
