//! `ldif_verify`: a directory holds what files of LDIF records make of it.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::Value;

use super::directory::cancellable;
use super::effect::{Judge, Standing};
use super::error::LdapError;
use super::login::with_directory;
use super::script::{Paths, Script, Source};
use super::substitute::Substitution;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_directory! {
    /// Looks whether the effect of every record is in the directory, or was overtaken by a later record of
    /// the same list of files. Changes nothing.
    pub struct LdifVerify {
        /// The file, on this host, or a list of files that are read as one. Relative paths start at the
        /// playbook.
        pub path: Paths,
        /// As in `ldif_apply`.
        #[serde(default)]
        pub substitute: Vec<Substitution>,
        /// As in `ldif_apply`.
        #[serde(default)]
        pub values_from: Option<PathBuf>,
    }
}

impl TypedModule for LdifVerify {
    const NAME: &'static str = "ldif_verify";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.ldif_verify"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Looks whether a directory holds what LDIF files make of it.";
    const EXAMPLE: &'static str = r#"- name: Every record of every update is in the directory
  ldif_verify:
    path: "{{ all_updates }}"
    values_from: "{{ work_dir }}/ldif"
  register: verified   # verified.records; on failure: verified.missing
"#;
}

impl LdifVerify {
    fn source(&self) -> Source<'_> {
        Source {
            paths: &self.path,
            checksum: None,
            substitute: &self.substitute,
            values_from: self.values_from.as_deref(),
        }
    }

    async fn missing(
        &self,
        ctx: &TaskContext,
        script: &Script,
    ) -> Result<Vec<String>, ModuleError> {
        let directory = self.login().directory(ctx).await?;
        let judge = Judge {
            directory: &directory,
            records: &script.records,
        };
        let total = script.records.len();
        let mut missing = Vec::new();
        for index in 0..total {
            let name = script.name_of(index);
            ctx.progress.items(index as u64, Some(total as u64), &name);
            match cancellable(&ctx.cancel, judge.standing(index)).await? {
                Standing::There => {}
                Standing::Open { .. } => missing.push(name),
                Standing::Conflict(found) => missing.push(format!("{name}: {found}")),
            }
        }
        Ok(missing)
    }
}

#[async_trait]
impl Module for LdifVerify {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        self.source().paths(ctx)
    }

    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let script = self.source().read(ctx)?;
        let missing = self.missing(ctx, &script).await?;
        let records = script.records.len();
        if missing.is_empty() {
            return Ok(Outcome::ok()
                .with("files", script.described())
                .with("records", records)
                .summary(format!("{records} records are there")));
        }
        Err(LdapError::Missing { records, missing }.into())
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
