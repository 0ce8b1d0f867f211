//! `getent`: entries of the host's databases of users, groups, names.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::program::look;
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Looks up entries of a database of the host, whatever service answers for it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GetentModule {
    /// `passwd`, `group`, `hosts`, `services` …
    database: String,
    /// The entry; all of them where it is left out.
    #[serde(default)]
    key: Option<String>,
    /// What parts an entry. Default: `:` for `passwd`, `group`, `shadow` and `gshadow`, else blanks.
    #[serde(default)]
    split: Option<String>,
    /// Fails where there is no such entry. Default: true.
    #[serde(default = "yes")]
    fail_key: bool,
}

fn yes() -> bool {
    true
}

#[async_trait]
impl Module for GetentModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let mut words = vec!["getent", self.database.as_str()];
        words.extend(self.key.as_deref());
        let ended = look(ctx, &words, &[], None).await?;
        let name = format!("getent_{}", self.database);
        match ended.rc {
            0 => {}
            2 if !self.fail_key => {
                let key = self.key.clone().unwrap_or_default();
                let none = Map::from_iter([(name, json!({ key: null }))]);
                return Ok(Outcome::ok().with("ansible_facts", none));
            }
            2 => {
                let key = self.key.clone().unwrap_or_default();
                let message = format!("`{}` has no entry `{key}`", self.database);
                return Err(ControlError::argument(message).into());
            }
            _ => {
                let message = format!("there is no database `{}`", self.database);
                return Err(ControlError::argument(message).into());
            }
        }
        let colons = ["passwd", "group", "shadow", "gshadow"].contains(&self.database.as_str());
        let split = self.split.as_deref().or(colons.then_some(":"));
        let mut entries = Map::new();
        for line in ended.stdout.lines() {
            let mut parts: Vec<&str> = match split {
                Some(split) => line.split(split).collect(),
                None => line.split_whitespace().collect(),
            };
            if !parts.is_empty() {
                let key = parts.remove(0).to_owned();
                entries.insert(key, json!(parts));
            }
        }
        let facts = Map::from_iter([(name, Value::Object(entries))]);
        Ok(Outcome::ok().with("ansible_facts", facts))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for GetentModule {
    const NAME: &'static str = "getent";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.getent", "ansible.legacy.getent"];
    const KIND: Kind = Kind::ReadOnly;
    const SETS_FACTS: &'static [&'static str] = &[
        "ansible_facts",
        "getent_passwd",
        "getent_group",
        "getent_hosts",
        "getent_services",
    ];
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Looks up users, groups and names of the host";
    const EXAMPLE: &'static str = "\
- name: Is there a user for the archive
  getent:
    database: passwd
    key: dcm4chee
    fail_key: false
";
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn entries_are_taken_apart_and_a_missing_one_is_what_the_task_says() {
        let ctx = TaskContext::for_tests(Path::new("/"));
        let get = async |arguments: Value| {
            let module: GetentModule = serde_json::from_value(arguments).expect("arguments");
            module.apply(&ctx, &Value::Null).await
        };
        let root = get(json!({"database": "passwd", "key": "root"}))
            .await
            .expect("there");
        assert_eq!(
            root.result["ansible_facts"]["getent_passwd"]["root"][1],
            "0"
        );
        let none = json!({"database": "passwd", "key": "no-such-user", "fail_key": false});
        let none = get(none).await.expect("allowed");
        assert_eq!(
            none.result["ansible_facts"]["getent_passwd"],
            json!({"no-such-user": null})
        );
        assert!(
            get(json!({"database": "passwd", "key": "no-such-user"}))
                .await
                .is_err()
        );
        assert!(get(json!({"database": "no-such-database"})).await.is_err());
    }
}
