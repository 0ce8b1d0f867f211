//! `include_vars`: variables from files, for the tasks that follow. The engine reads the files, because they
//! are YAML as playbooks are; here is what is made of them.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Variables of files, as the engine found them.
#[derive(Debug, Clone, Default, Deserialize)]
struct Found {
    files: Vec<PathBuf>,
    variables: Map<String, Value>,
}

/// Sets variables from files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IncludeVarsModule {
    /// A YAML or JSON file. A relative path is looked for in `vars/` beside the playbook, then beside it.
    #[serde(default, alias = "_raw_params")]
    #[expect(dead_code, reason = "the engine has read it by then")]
    file: Option<PathBuf>,
    /// A directory, instead of `file`: its files one after the other, by name, later ones win.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has read it by then")]
    dir: Option<PathBuf>,
    /// Puts all of it under this name.
    #[serde(default)]
    name: Option<String>,
    /// How deep to go into `dir`; 0, the default, is without an end.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    depth: usize,
    /// Ends of names that count in `dir`. Default: `json`, `yaml`, `yml`.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    extensions: Option<Vec<String>>,
    /// Passes over other files in `dir`. Default: false, one is an error.
    #[serde(default)]
    #[expect(dead_code, reason = "the engine has used it by then")]
    ignore_unknown_extensions: bool,
    /// What the engine read.
    #[serde(default)]
    #[schemars(skip)]
    found: Found,
}

#[async_trait]
impl Module for IncludeVarsModule {
    fn input_files(&self, _ctx: &TaskContext) -> Vec<PathBuf> {
        self.found.files.clone()
    }

    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let is_name = |name: &String| {
            !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if let Some(wrong) = self.found.variables.keys().find(|name| !is_name(name)) {
            return Err(ControlError::argument(format!(
                "`{wrong}` is no name for a variable: letters, digits and underscores, no digit first"
            ))
            .into());
        }
        let mut facts = self.found.variables.clone();
        if let Some(name) = &self.name {
            facts = Map::from_iter([(name.clone(), Value::Object(facts))]);
        }
        let files: Vec<String> = self
            .found
            .files
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Ok(Outcome::ok()
            .with("ansible_facts", facts)
            .with("ansible_included_var_files", files))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for IncludeVarsModule {
    const NAME: &'static str = "include_vars";
    const ALIASES: &'static [&'static str] = &[
        "ansible.builtin.include_vars",
        "ansible.legacy.include_vars",
    ];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "reads again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Sets variables from files";
    const EXAMPLE: &'static str = "\
- name: What differs at this site
  include_vars:
    file: \"sites/{{ site }}.yaml\"
";
    const FREE_FORM: Option<&'static str> = Some("file");
    const READS_VARIABLES: bool = true;
}
