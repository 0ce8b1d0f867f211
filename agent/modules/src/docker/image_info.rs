//! `docker_image_info`: what Docker knows of images, and which PostgreSQL they hold.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::container_info::hide_values_of_environment;
use super::image::find;
use crate::host::docker::error::DockerError;
use crate::host::docker::served::version_of;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Looks at images of this host. One that is not there is no error.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerImageInfo {
    /// Names with tag, names with digest, or ids: one, or a list.
    pub name: Vec<String>,
}

#[async_trait]
impl Module for DockerImageInfo {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let (mut images, mut said) = (Vec::new(), Vec::new());
        let mut versions = Map::new();
        for name in &self.name {
            let Some(found) = find(&docker, name).await? else {
                versions.insert(name.clone(), Value::Null);
                said.push(format!("{name} is not here"));
                continue;
            };
            let config = found.config.clone().unwrap_or_default();
            let id = found.id.clone().unwrap_or_default();
            let version = version_of(&docker, &id, &config).await?;
            let postgresql = version
                .as_ref()
                .map(|version| format!("PostgreSQL {version}"));
            said.push(format!(
                "{name}: {}",
                postgresql.unwrap_or_else(|| "no PostgreSQL".into())
            ));
            versions.insert(name.clone(), version.into());
            let mut shown = serde_json::to_value(&found).map_err(|error| DockerError::Api {
                action: format!("inspect image {name}"),
                message: error.to_string(),
                status: None,
            })?;
            hide_values_of_environment(&mut shown);
            images.push(shown);
        }
        Ok(Outcome::ok()
            .with("images", images)
            .with("postgresql_versions", versions)
            .summary(said.join("; ")))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for DockerImageInfo {
    const NAME: &'static str = "docker_image_info";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_image_info"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str =
        "Tells what Docker knows of images, and which PostgreSQL each of them holds.";
    const EXAMPLE: &'static str = r#"- name: Which PostgreSQL is in the image
  docker_image_info: {name: ["docker.io/dcm4che/postgres-dcm4chee:9.6.24-26"]}
  register: found   # found.images, found.postgresql_versions (null: not here, or no PostgreSQL)
"#;
}
