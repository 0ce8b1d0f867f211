//! `docker_volume`: a named volume as described.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::docker::error::DockerError;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::presence::Presence;

/// Keeps a named volume: made, or absent. A volume that differs is never made anew, as its data would go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerVolume {
    /// Its name.
    #[serde(alias = "name")]
    #[schemars(extend("aliases" = ["name"]))]
    pub volume_name: String,
    /// `present` (default) or `absent`. `absent` removes its data, and fails while a container has it.
    #[serde(default)]
    pub state: Presence,
    /// Driver. Default: `local`.
    #[serde(default)]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(default)]
    pub driver_options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

async fn inspect(docker: &Docker, name: &str) -> Result<Option<Volume>, DockerError> {
    let answer = docker.inspect_volume(name).await;
    DockerError::or_absent(answer, format!("inspect volume {name}"))
}

impl DockerVolume {
    fn differences(&self, found: &Volume) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(driver) = self.driver.as_ref().filter(|name| **name != found.driver) {
            lines.push(format!("driver: {} instead of {driver}", found.driver));
        }
        let mut maps = |what: &str, has: &HashMap<String, String>, all: &BTreeMap<_, String>| {
            for (name, wanted) in all {
                let has = has.get::<String>(name).map_or("", String::as_str);
                if has != wanted {
                    lines.push(format!("{what}.{name}: `{has}` instead of `{wanted}`"));
                }
            }
        };
        maps("driver_options", &found.options, &self.driver_options);
        maps("labels", &found.labels, &self.labels);
        lines
    }

    /// What is left to do.
    ///
    /// # Errors
    /// The volume is there and differs.
    async fn todo(&self, docker: &Docker) -> Result<Option<String>, DockerError> {
        let name = &self.volume_name;
        let found = inspect(docker, name).await?;
        match (self.state, found) {
            (Presence::Absent, None) => Ok(None),
            (Presence::Absent, Some(_)) => Ok(Some(format!("remove volume {name}"))),
            (Presence::Present, None) => Ok(Some(format!("create volume {name}"))),
            (Presence::Present, Some(found)) => {
                let different = self.differences(&found);
                if different.is_empty() {
                    return Ok(None);
                }
                Err(DockerError::Argument {
                    argument: "volume_name",
                    message: format!(
                        "the volume {name} is there and differs ({}); its data would be lost if it \
                         were made anew: choose another name, or remove it with `state: absent` \
                         first",
                        different.join("; ")
                    ),
                })
            }
        }
    }
}

#[async_trait]
impl Module for DockerVolume {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let lines: Vec<String> = self.todo(&docker).await?.into_iter().collect();
        Ok(Plan::from(lines))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let name = self.volume_name.as_str();
        let todo = self.todo(&docker).await?;
        match (&todo, self.state) {
            (None, _) => {}
            (Some(action), Presence::Absent) => {
                docker
                    .remove_volume(name, None::<RemoveVolumeOptions>)
                    .await
                    .map_err(DockerError::api(action.clone()))?;
            }
            (Some(action), Presence::Present) => {
                let request = VolumeCreateRequest {
                    name: Some(name.to_owned()),
                    driver: Some(self.driver.clone().unwrap_or_else(|| "local".into())),
                    driver_opts: Some(self.driver_options.clone().into_iter().collect()),
                    labels: Some(self.labels.clone().into_iter().collect()),
                    cluster_volume_spec: None,
                };
                docker
                    .create_volume(request)
                    .await
                    .map_err(DockerError::api(action.clone()))?;
            }
        }
        let found = inspect(&docker, name).await?;
        Ok(Outcome::of_steps(todo.as_slice())
            .with("volume", serde_json::to_value(&found).unwrap_or_default()))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for DockerVolume {
    const NAME: &'static str = "docker_volume";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_volume"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "looks what is there, and does the rest";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Keeps a named volume: made, or absent.";
    const EXAMPLE: &'static str = r#"- name: Where the scratch server keeps its data
  docker_volume:
    name: pacs-scratch
    labels: {purpose: migration}
  register: scratch   # scratch.volume.Mountpoint
"#;
}
