//! `docker_container`: a container as described.

use std::collections::BTreeMap;
use std::ops::Deref;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::compare::differences;
use crate::host::docker::error::DockerError;
use crate::host::docker::lifecycle;
use crate::host::docker::spec::{ContainerState, DockerContainer};
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Step, Undo, unless_unchanged};

/// The module, over what services have, too.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DockerContainerModule(DockerContainer);

impl Deref for DockerContainerModule {
    type Target = DockerContainer;

    fn deref(&self) -> &DockerContainer {
        &self.0
    }
}

impl TypedModule for DockerContainerModule {
    const NAME: &'static str = "docker_container";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_container"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "brings the container in order, whatever was left";
    const CHECK_MODE: &'static str = "predicts; skipped where the image is not there yet";
    const SUMMARY: &'static str =
        "Keeps a container as described: made, started, stopped or absent.";
    const EXAMPLE: &'static str = r#"- name: Work server is there
  docker_container:
    name: pacs-work
    image: docker.io/postgres:15.6-alpine
    env: {POSTGRES_DB: pacsdb, POSTGRES_USER: pacs, POSTGRES_PASSWORD: "{{ password }}"}
    volumes: ["{{ work_dir }}:/var/lib/postgresql/data"]
    published_ports: ["5432"]
    stop_signal: SIGINT
  register: work   # work.container.id, work.container.ports["5432/tcp"]
"#;

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        unless_unchanged(efforts, || {
            let first = efforts.first().map(|effort| &effort.intent["before"]);
            match first {
                Some(Value::Object(before)) if before["id"].is_null() => {}
                Some(Value::Object(_)) => {
                    let why = "the container was there before, and what it was is not kept";
                    return Undo::Impossible(why.into());
                }
                _ => {
                    let why = "an older agent ran it, whose journal does not tell whether the \
                               container was there before";
                    return Undo::Impossible(why.into());
                }
            }
            let made = efforts.iter().rev().find_map(|effort| {
                let container = &effort.result?["container"];
                Some((container["id"].as_str()?, container["name"].as_str()?))
            });
            match made {
                Some((id, name)) => Undo::Steps(vec![Step::RemoveContainer {
                    id: id.to_owned(),
                    name: name.to_owned(),
                }]),
                None => Undo::Impossible(
                    "it failed, and the journal does not tell whether it had made the container"
                        .into(),
                ),
            }
        })
    }
}

/// What has to be done, in this order.
#[derive(Default)]
struct Steps {
    stop: bool,
    remove: bool,
    create: bool,
    start: bool,
    lines: Vec<String>,
}

impl DockerContainerModule {
    fn own_name(&self) -> Result<&str, DockerError> {
        self.name
            .as_deref()
            .filter(|name| !name.is_empty())
            .ok_or(DockerError::Argument {
                argument: "name",
                message: "is required".into(),
            })
    }

    async fn steps(
        &self,
        ctx: &TaskContext,
        docker: &Docker,
        found: Option<&ContainerInspectResponse>,
    ) -> Result<Steps, DockerError> {
        let name = self.own_name()?;
        let mut steps = Steps::default();
        let running = found.is_some_and(lifecycle::is_running);
        if self.state == ContainerState::Absent {
            if found.is_some() {
                steps.stop = running;
                steps.remove = true;
                steps.lines.push(format!("remove container {name}"));
            }
            return Ok(steps);
        }
        let wanted_running = self.state == ContainerState::Started;
        match found {
            None => {
                crate::host::docker::spec::check_sources(&self.mount_plans(ctx)?)?;
                lifecycle::image_id(docker, self.image()?).await?;
                steps.create = true;
                steps.lines.push(format!("create container {name}"));
            }
            Some(found) => {
                // `stopped` and `present` may leave the image out.
                let mut different = match &self.image {
                    Some(image) => {
                        let id = lifecycle::image_id(docker, image).await?;
                        differences(ctx, self, &id, found)?
                    }
                    None => Vec::new(),
                };
                if self.recreate {
                    different.push("recreate was asked for".into());
                }
                if !different.is_empty() {
                    steps.stop = running;
                    steps.remove = true;
                    steps.create = true;
                    steps.lines = different;
                }
            }
        }
        if wanted_running && (steps.create || !running) {
            steps.start = true;
            steps.lines.push(format!("start container {name}"));
        }
        if self.state == ContainerState::Stopped && running && !steps.stop {
            steps.stop = true;
            steps.lines.push(format!("stop container {name}"));
        }
        Ok(steps)
    }
}

/// Returns what `register` gets for a container.
#[must_use]
pub fn describe(found: &ContainerInspectResponse) -> Value {
    let state = found.state.as_ref();
    json!({
        "id": found.id,
        "name": found.name.as_deref().map(|name| name.trim_start_matches('/')),
        "image_id": found.image,
        "running": lifecycle::is_running(found),
        "exit_code": state.and_then(|state| state.exit_code),
        "pid": state.and_then(|state| state.pid),
        "ports": lifecycle::ports(found).into_iter()
            .map(|(port, address)| (port, address.to_string()))
            .collect::<BTreeMap<_, _>>(),
    })
}

#[async_trait]
impl Module for DockerContainerModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let found = lifecycle::inspect(&docker, self.own_name()?).await?;
        match self.steps(ctx, &docker, found.as_ref()).await {
            Ok(steps) if steps.lines.is_empty() => Ok(Plan::InSync),
            Ok(steps) => Ok(Plan::NeedsChange(steps.lines)),
            // An earlier task may be the one that brings it.
            Err(DockerError::NoImage { .. } | DockerError::BindSourceMissing { .. }) => {
                Ok(Plan::CannotPredict)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let found = lifecycle::inspect(&docker, self.own_name()?).await?;
        Ok(json!({ "before": { "id": found.and_then(|found| found.id) } }))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let name = self.own_name()?;
        let found = lifecycle::inspect(&docker, name).await?;
        let steps = self.steps(ctx, &docker, found.as_ref()).await?;
        // Before the old one goes: what is asked must be possible.
        let body = if steps.create {
            Some(self.create_body(ctx, &BTreeMap::new())?)
        } else {
            None
        };
        if steps.stop {
            lifecycle::stop(&docker, name, self.stop_patience()).await?;
        }
        if steps.remove {
            lifecycle::remove(&docker, name).await?;
        }
        if let Some(body) = body {
            lifecycle::create(&docker, Some(name), body).await?;
        }
        if steps.start {
            lifecycle::start(&docker, name).await?;
        }
        let mut outcome = Outcome::of_steps(&steps.lines);
        if let Some(found) = lifecycle::inspect(&docker, name).await? {
            if steps.start && !lifecycle::is_running(&found) && !self.auto_remove {
                let code = found
                    .state
                    .as_ref()
                    .and_then(|state| state.exit_code)
                    .unwrap_or(-1);
                if code != 0 {
                    let log = lifecycle::log_tail(&docker, name, 5).await.join(" | ");
                    return Err(DockerError::Died {
                        name: name.into(),
                        code,
                        log,
                    }
                    .into());
                }
            }
            outcome = outcome.with("container", describe(&found));
        } else {
            outcome = outcome.with("container", Value::Null);
        }
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        // Every state that a killed attempt can leave is one that `apply` brings in order.
        Ok(Recovery::NotDone)
    }
}
