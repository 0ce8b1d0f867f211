//! `group`: a group of the host.

use async_trait::async_trait;
use nix::unistd::Group;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::program::must;
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::presence::Presence;

/// Makes sure that a group is there, or that none has the name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupModule {
    /// The group.
    name: String,
    /// Its number. Default: the next that is free.
    #[serde(default)]
    gid: Option<u32>,
    /// A group of the system, with a low number. For new ones. Default: false.
    #[serde(default)]
    system: bool,
    /// `present` (default) or `absent`.
    #[serde(default)]
    state: Presence,
    /// Allows a number that another group has. Default: false.
    #[serde(default)]
    non_unique: bool,
}

impl GroupModule {
    fn found(&self) -> Result<Option<Group>, ModuleError> {
        let failed = |error| ControlError::argument(format!("the groups cannot be read: {error}"));
        Ok(Group::from_name(&self.name).map_err(failed)?)
    }

    /// The command that is left to do.
    fn command(&self) -> Result<Option<Vec<String>>, ModuleError> {
        let mut words: Vec<String> = Vec::new();
        match (self.state, self.found()?) {
            (Presence::Absent, None) => return Ok(None),
            (Presence::Absent, Some(_)) => words.push("groupdel".into()),
            (Presence::Present, Some(group)) => {
                match self.gid {
                    Some(gid) if group.gid.as_raw() != gid => {
                        words.extend(["groupmod".into(), "-g".into(), gid.to_string()]);
                    }
                    _ => return Ok(None),
                }
                if self.non_unique {
                    words.push("-o".into());
                }
            }
            (Presence::Present, None) => {
                words.push("groupadd".into());
                if let Some(gid) = self.gid {
                    words.extend(["-g".into(), gid.to_string()]);
                }
                if self.non_unique {
                    words.push("-o".into());
                }
                if self.system {
                    words.push("-r".into());
                }
            }
        }
        words.push(self.name.clone());
        Ok(Some(words))
    }
}

#[async_trait]
impl Module for GroupModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(match self.command()? {
            None => Plan::InSync,
            Some(words) => Plan::NeedsChange(vec![words.join(" ")]),
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let mut outcome = Outcome::ok();
        if let Some(words) = self.command()? {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            must(ctx, &words, &[], None).await?;
            outcome = Outcome::changed().summary(words.join(" "));
        }
        outcome = outcome
            .with("name", self.name.clone())
            .with("state", self.state.word())
            .with("system", self.system);
        if let Some(group) = self.found()? {
            outcome = outcome.with("gid", group.gid.as_raw());
        }
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for GroupModule {
    const NAME: &'static str = "group";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.group", "ansible.legacy.group"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "looks what is there, and does the rest";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Makes sure that a group is there, or that none has the name";
    const EXAMPLE: &'static str = "\
- name: Who may talk to Docker
  group:
    name: docker
    system: true
";
}
