//! `docker_container_exec`: a command in a running container.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::docker::arguments::{Words, env_map};
use crate::host::docker::error::DockerError;
use crate::host::docker::exec::{ExecRequest, ExecStreams, run};
use crate::host::docker::lifecycle;
use crate::host::error::ModuleError;
use crate::host::files::durable::sync_everything;
use crate::task::arguments::stdin_text;
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::target::target;

/// Runs a command in a running container, without a terminal.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerContainerExec {
    /// Name or id of the container. Default: the container of `service`, or of the innermost one.
    #[serde(default)]
    pub container: Option<String>,
    /// Service whose container is meant. Default: the innermost one of the enclosing blocks.
    #[serde(default)]
    pub service: Option<String>,
    /// Command, as one text cut into words; nothing is expanded. Either this or `argv`.
    #[serde(default)]
    pub command: Option<String>,
    /// Command, word by word. Either this or `command`.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Working directory in the container.
    #[serde(default)]
    pub chdir: Option<String>,
    /// User, `uid` or `uid:gid`. Default: the container's.
    #[serde(default)]
    pub user: Option<String>,
    /// Environment variables of the command.
    #[serde(default, deserialize_with = "env_map")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub env: BTreeMap<String, String>,
    /// Text fed to the command.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Add a line end to `stdin`. Default: true.
    #[serde(default = "yes")]
    pub stdin_add_newline: bool,
}

fn yes() -> bool {
    true
}

impl TypedModule for DockerContainerExec {
    const NAME: &'static str = "docker_container_exec";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_container_exec"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "*unknown*: you are asked, unless `done_when` is true";
    const CHECK_MODE: &'static str = "skipped";
    const SUMMARY: &'static str = "Runs a command in a running container, without a terminal.";
    const EXAMPLE: &'static str = r#"- name: What the server says of itself
  docker_container_exec:
    service: pacs_old
    argv: [pg_controldata, /var/lib/postgresql/data]
    user: postgres
  register: control   # control.rc, control.stdout, control.stdout_lines, control.stderr
"#;
    const FREE_FORM: Option<&'static str> = Some("command");
}

impl DockerContainerExec {
    fn words(&self) -> Result<Vec<String>, DockerError> {
        let bad = |message: &str| DockerError::Argument {
            argument: "command",
            message: message.into(),
        };
        let words = match (&self.command, self.argv.is_empty()) {
            (Some(_), false) => return Err(bad("give either `command` or `argv`, not both")),
            (Some(text), true) => Words::Text(text.clone()).split("command")?,
            (None, _) => self.argv.clone(),
        };
        if words.is_empty() {
            return Err(bad("`command` or `argv` is required"));
        }
        Ok(words)
    }
}

#[async_trait]
impl Module for DockerContainerExec {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.words()?;
        Ok(Plan::CannotPredict)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let command = self.words()?;
        let container = target(ctx, self.container.as_deref(), self.service.as_deref())?;
        let docker = crate::host::docker::client::connect(ctx).await?;
        let found = lifecycle::inspect(&docker, &container).await?;
        let found = found.ok_or_else(|| DockerError::NoContainer {
            name: container.clone(),
        })?;
        if !lifecycle::is_running(&found) {
            let state = found
                .state
                .and_then(|state| state.status)
                .map(|status| status.to_string());
            let state = state.unwrap_or_default();
            return Err(DockerError::NotRunning {
                name: container,
                state,
            }
            .into());
        }
        let env = ctx.environment.iter().chain(&self.env);
        let request = ExecRequest {
            command: command.clone(),
            env: env.map(|(name, value)| format!("{name}={value}")).collect(),
            user: self.user.clone(),
            working_dir: self.chdir.clone(),
        };
        let text = stdin_text(self.stdin.as_ref(), self.stdin_add_newline);
        let mut input = text.as_ref().map(String::as_bytes);
        let mut hear = |line: &str| ctx.progress.line(ctx.redactor.text(line));
        let streams = ExecStreams {
            stdin: input
                .as_mut()
                .map(|input| input as &mut (dyn tokio::io::AsyncRead + Unpin + Send)),
            stdout: None,
            on_stderr: Some(&mut hear),
        };
        let end = run(&docker, &container, &request, streams, &ctx.cancel).await?;
        // What it wrote is on the disks of this host.
        sync_everything(&ctx.cancel).await?;
        for line in end.stdout.lines() {
            ctx.progress.line(ctx.redactor.text(line));
        }
        let (stdout, stderr) = (
            end.stdout.trim_end_matches('\n'),
            end.stderr.trim_end_matches('\n'),
        );
        if end.exit_code != 0 {
            return Err(DockerError::CommandFailed {
                command: command.first().cloned().unwrap_or_default(),
                container,
                rc: end.exit_code,
                stdout: stdout.to_owned(),
                stderr: stderr.to_owned(),
            }
            .into());
        }
        Ok(Outcome::changed()
            .with("rc", end.exit_code)
            .printed(stdout, stderr))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        let words = self.words()?;
        Ok(Recovery::Unknown {
            doing: format!("running `{}` in a container", words.join(" ")),
            found: "what the command has done cannot be told from outside".into(),
        })
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, ctx: &TaskContext) -> Advice {
        let service = ctx
            .service(None)
            .map(|service| service.container_name.as_str());
        let container = self.container.as_deref().or(service).unwrap_or("CONTAINER");
        Advice {
            look: format!(
                "whether it still runs in there (`docker top {container}`), and at what it changes \
                 (`docker exec {container} …`)"
            ),
            done: "it came to its end, or all that it changes is changed".into(),
            redo: "it no longer runs, and its first half may be repeated: it runs again from its \
                   beginning"
                .into(),
        }
    }
}
