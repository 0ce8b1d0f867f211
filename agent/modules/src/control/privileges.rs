//! `privileges`: who the agent runs as, and whether that is enough.

use async_trait::async_trait;
use nix::unistd::{User, getegid, geteuid};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Tells who the agent runs as, and fails when root is needed and missing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivilegesModule {
    /// Fails unless the agent runs as root. Default: false.
    #[serde(default)]
    root: bool,
    /// What needs it, for the error.
    #[serde(default)]
    reason: Option<String>,
}

impl PrivilegesModule {
    fn judge(&self, is_root: bool, result: Map<String, Value>) -> Result<Outcome, ControlError> {
        let user = result["user"].as_str().unwrap_or_default().to_owned();
        if !self.root || is_root {
            return Ok(Outcome {
                result,
                ..Outcome::ok().summary(format!("running as {user}"))
            });
        }
        let reason = self.reason.as_deref().map(|reason| format!(": {reason}"));
        Err(ControlError::Privileges {
            message: format!(
                "the agent runs as {user}, but needs root{}",
                reason.unwrap_or_default()
            ),
            result,
        })
    }
}

#[async_trait]
impl Module for PrivilegesModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let uid = geteuid();
        let user = match User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            _ => uid.to_string(),
        };
        let result = json!({"uid": uid.as_raw(), "gid": getegid().as_raw(), "user": user,
            "root": uid.is_root()});
        let result = result.as_object().cloned().unwrap_or_default();
        Ok(self.judge(uid.is_root(), result)?)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for PrivilegesModule {
    const NAME: &'static str = "privileges";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.privileges"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Tells who the agent runs as, and fails when root is needed";
    const EXAMPLE: &'static str = "\
- name: The data directories belong to root and to the containers' users
  privileges:
    root: true
    reason: files of PostgreSQL and LDAP are copied with their owners
";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_is_reported_and_its_absence_says_what_for() {
        let module: PrivilegesModule =
            serde_json::from_value(json!({"root": true, "reason": "chown"})).expect("arguments");
        let ctx = TaskContext::for_tests(std::path::Path::new("/"));
        if geteuid().is_root() {
            let outcome = module.apply(&ctx, &Value::Null).await.expect("root");
            assert_eq!(
                (&outcome.result["uid"], &outcome.result["user"]),
                (&json!(0), &json!("root"))
            );
        }
        let result = json!({"uid": 1000, "user": "alice"});
        let result = result.as_object().cloned().expect("object");
        let error = module.judge(false, result).expect_err("alice").to_string();
        assert_eq!(error, "the agent runs as alice, but needs root: chown");
    }
}
