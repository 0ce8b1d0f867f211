//! `docker_container_info`: what Docker knows of a container.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::docker::error::DockerError;
use crate::host::docker::lifecycle;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Looks at a container. One that is not there is no error.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerContainerInfo {
    /// Name or id.
    pub name: String,
}

#[async_trait]
impl Module for DockerContainerInfo {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let found = lifecycle::inspect(&docker, &self.name).await?;
        let said = match &found {
            None => format!("there is no container {}", self.name),
            Some(found) => {
                let status = found.state.as_ref().and_then(|state| state.status);
                let status = status.map(|status| status.to_string());
                format!("{} is {}", self.name, status.unwrap_or_default())
            }
        };
        let exists = found.is_some();
        let mut shown = serde_json::to_value(&found).map_err(|error| DockerError::Api {
            action: format!("inspect container {}", self.name),
            message: error.to_string(),
            status: None,
        })?;
        hide_values_of_environment(&mut shown);
        Ok(Outcome::ok()
            .with("exists", exists)
            .with("container", shown)
            .summary(said))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

/// What `docker inspect` prints of a database's environment holds its password, and a result goes into the
/// journal.
pub(super) fn hide_values_of_environment(container: &mut Value) {
    let Some(all) = container.pointer_mut("/Config/Env") else {
        return;
    };
    for entry in all.as_array_mut().into_iter().flatten() {
        let name = entry
            .as_str()
            .and_then(|entry| Some(entry.split_once('=')?.0.to_owned()));
        if let Some(name) = name.filter(|name| is_secret(name)) {
            *entry = Value::from(format!("{name}=********"));
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASS", "SECRET", "TOKEN", "KEY"]
        .iter()
        .any(|word| name.contains(word))
}

impl TypedModule for DockerContainerInfo {
    const NAME: &'static str = "docker_container_info";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_container_info"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Tells what Docker knows of a container.";
    const EXAMPLE: &'static str = r#"- name: Is the old server still there
  docker_container_info: {name: pacs-old}
  register: old   # old.exists, old.container.State.Running
"#;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_the_environment_stay_out_of_the_journal() {
        let mut container = serde_json::json!({"Config": {"Env": [
            "PGDATA=/var/lib", "POSTGRES_PASSWORD=pacs", "X_TOKEN=1=2",
        ]}});
        hide_values_of_environment(&mut container);
        assert_eq!(
            container["Config"]["Env"],
            serde_json::json!([
                "PGDATA=/var/lib",
                "POSTGRES_PASSWORD=********",
                "X_TOKEN=********"
            ])
        );
    }
}
