//! `ping` and `meta`: nothing on the host is touched.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Answers, to show that a playbook is run at all.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PingModule {
    /// What it answers; `crash` makes it fail. Default: `pong`.
    #[serde(default = "pong")]
    data: String,
}

fn pong() -> String {
    "pong".into()
}

#[async_trait]
impl Module for PingModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if self.data == "crash" {
            let message = "`data: crash` asks for a failure".into();
            return Err(ControlError::Fail { message }.into());
        }
        Ok(Outcome::ok().with("ping", self.data.clone()))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for PingModule {
    const NAME: &'static str = "ping";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.ping", "ansible.legacy.ping"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "answers again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Answers, to show that a playbook is run at all";
    const EXAMPLE: &'static str = "\
- name: Does it run
  ping: {}
";
}

/// Says something to the run itself. The engine takes it before it becomes a task: it has no result, no
/// record and no place in the recap.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetaModule {
    /// `flush_handlers` runs the handlers that were notified; `end_play` (`end_batch`, `end_host`) goes on
    /// with the next play; `noop`, `clear_host_errors`, `refresh_inventory` and
    /// `reset_connection` make no difference here.
    #[expect(dead_code, reason = "read by the engine")]
    free_form: MetaAction,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum MetaAction {
    FlushHandlers,
    EndPlay,
    EndBatch,
    EndHost,
    Noop,
    ClearHostErrors,
    RefreshInventory,
    ResetConnection,
}

#[async_trait]
impl Module for MetaModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let message = "`meta` is a task of its own; it cannot stand for another module";
        Err(ControlError::argument(message).into())
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for MetaModule {
    const NAME: &'static str = "meta";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.meta", "ansible.legacy.meta"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "leaves no record";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Runs the handlers now, or ends the play or the run";
    const EXAMPLE: &'static str = "\
- name: The new configuration counts from here on
  meta: flush_handlers
";
    const FREE_FORM: Option<&'static str> = Some("free_form");
}
