//! `setup`: facts about the host.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::facts;
use crate::host::error::ModuleError;
use crate::host::glob::regex_of;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Gathers facts about the host: distribution, kernel, names, processors, memory, mounts, user, time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetupModule {
    /// Patterns of names that are kept, with or without `ansible_`. Default: all.
    #[serde(default)]
    filter: Vec<String>,
    /// Accepted for Ansible's sake: facts are gathered so fast that all of them always are.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    gather_subset: Option<Vec<String>>,
    /// Accepted for Ansible's sake.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    gather_timeout: Option<u64>,
}

#[async_trait]
impl Module for SetupModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let patterns: Vec<regex::Regex> = self
            .filter
            .iter()
            .filter_map(|pattern| regex::Regex::new(&regex_of(pattern)).ok())
            .collect();
        let kept = |name: &str| {
            patterns.is_empty()
                || patterns.iter().any(|pattern| {
                    pattern.is_match(name) || pattern.is_match(&format!("ansible_{name}"))
                })
        };
        let facts: Map<String, Value> = facts::gather(&ctx.environment)
            .into_iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (format!("ansible_{name}"), value))
            .collect();
        let count = facts.len();
        Ok(Outcome::ok()
            .with("ansible_facts", facts)
            .summary(format!("{count} facts")))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for SetupModule {
    const NAME: &'static str = "setup";
    const ALIASES: &'static [&'static str] = &[
        "ansible.builtin.setup",
        "ansible.legacy.setup",
        "ansible.builtin.gather_facts",
        "gather_facts",
    ];
    const KIND: Kind = Kind::ReadOnly;
    const SETS_FACTS: &'static [&'static str] = super::facts::NAMES;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Gathers facts about the host";
    const EXAMPLE: &'static str = "\
- name: Which distribution is it
  setup:
    filter: [\"ansible_distribution*\"]
";
}
