//! `systemd_service`: a unit of systemd runs, or does not, now and at the next start.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::program::{look, must};
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Starts, stops, enables or masks a unit of systemd.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemdServiceModule {
    /// The unit; `.service` may be left out.
    #[serde(default, alias = "service", alias = "unit")]
    #[schemars(extend("aliases" = ["service", "unit"]))]
    name: Option<String>,
    /// `started`, `stopped`, `restarted` or `reloaded`; the last two happen whenever the task runs.
    #[serde(default)]
    state: Option<State>,
    /// Whether it starts with the host.
    #[serde(default)]
    enabled: Option<bool>,
    /// Whether it cannot be started at all.
    #[serde(default)]
    masked: Option<bool>,
    /// Reads the units' files again before anything else. Default: false.
    #[serde(default, alias = "daemon-reload")]
    #[schemars(extend("aliases" = ["daemon-reload"]))]
    daemon_reload: bool,
    /// Does not wait until it is done. Default: false.
    #[serde(default)]
    no_block: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    Started,
    Stopped,
    Restarted,
    Reloaded,
}

impl SystemdServiceModule {
    async fn status(
        &self,
        ctx: &TaskContext,
        name: &str,
    ) -> Result<Map<String, Value>, ModuleError> {
        let words = [
            "systemctl",
            "show",
            name,
            "--property=LoadState,ActiveState,SubState,UnitFileState,MainPID,Id,Result",
        ];
        let shown = must(ctx, &words, &[], None).await?;
        Ok(shown
            .stdout
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect())
    }

    /// Commands that are left to do.
    async fn todo(&self, ctx: &TaskContext) -> Result<Vec<Vec<String>>, ModuleError> {
        let words = |verb: &str, name: &str| {
            let mut words = vec!["systemctl".to_owned(), verb.to_owned()];
            if self.no_block {
                words.push("--no-block".into());
            }
            words.push(name.to_owned());
            words
        };
        let mut todo = Vec::new();
        if self.daemon_reload {
            todo.push(vec!["systemctl".to_owned(), "daemon-reload".to_owned()]);
        }
        let Some(name) = &self.name else {
            if self.state.is_some() || self.enabled.is_some() || self.masked.is_some() {
                return Err(ControlError::argument("`name` is needed").into());
            }
            return Ok(todo);
        };
        let status = self.status(ctx, name).await?;
        let is = |key: &str, value: &str| status.get(key).and_then(Value::as_str) == Some(value);
        // Units that a reload would bring are not known yet.
        if is("LoadState", "not-found") && !self.daemon_reload {
            let message = format!("systemd has no unit `{name}`");
            return Err(ControlError::argument(message).into());
        }
        let masked = is("LoadState", "masked");
        match self.masked {
            Some(true) if !masked => todo.push(words("mask", name)),
            Some(false) if masked => todo.push(words("unmask", name)),
            _ => {}
        }
        if let Some(enabled) = self.enabled {
            let now = look(ctx, &["systemctl", "is-enabled", name], &[], None).await?;
            if (now.rc == 0) != enabled {
                todo.push(words(if enabled { "enable" } else { "disable" }, name));
            }
        }
        let runs = is("ActiveState", "active") || is("ActiveState", "activating");
        match self.state {
            Some(State::Started) if !runs => todo.push(words("start", name)),
            Some(State::Stopped) if runs || is("ActiveState", "deactivating") => {
                todo.push(words("stop", name));
            }
            Some(State::Restarted) => todo.push(words("restart", name)),
            Some(State::Reloaded) if runs => todo.push(words("reload", name)),
            Some(State::Reloaded) => todo.push(words("start", name)),
            _ => {}
        }
        Ok(todo)
    }
}

#[async_trait]
impl Module for SystemdServiceModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let todo = self.todo(ctx).await?;
        // As Ansible: reading files again is no change.
        let lines: Vec<String> = todo
            .iter()
            .filter(|words| words.get(1).is_some_and(|verb| verb != "daemon-reload"))
            .map(|words| words.join(" "))
            .collect();
        Ok(Plan::from(lines))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let mut outcome = Outcome::ok();
        let todo = self.todo(ctx).await?;
        for words in &todo {
            let line = words.join(" ");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            must(ctx, &words, &[], None).await?;
            if words.get(1) != Some(&"daemon-reload") {
                outcome.changed = true;
                outcome = outcome.summary(line);
            }
        }
        if let Some(name) = &self.name {
            let status = self.status(ctx, name).await?;
            outcome = outcome.with("name", name.clone()).with("status", status);
        }
        if let Some(enabled) = self.enabled {
            outcome = outcome.with("enabled", enabled);
        }
        if let Some(state) = self.state {
            let word = match state {
                State::Stopped => "stopped",
                _ => "started",
            };
            outcome = outcome.with("state", json!(word));
        }
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for SystemdServiceModule {
    const NAME: &'static str = "systemd_service";
    const ALIASES: &'static [&'static str] = &[
        "ansible.builtin.systemd_service",
        "ansible.builtin.systemd",
        "systemd",
        "service",
        "ansible.builtin.service",
    ];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "looks what is there, and does the rest; `restarted` restarts again";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Starts, stops, enables or masks a unit of systemd";
    const EXAMPLE: &'static str = "\
- name: Docker runs, now and after the next start
  systemd_service:
    name: docker
    state: started
    enabled: true
";
}
