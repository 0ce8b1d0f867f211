//! A few small modules and helpers for this room's tests.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::load::{Catalog, LoadOptions};
use super::model::Node;
use super::validate::{Checked, KnownNames, check};
use super::yaml;
use crate::host::error::ModuleError;
use crate::source::{Problem, SourceFile};
use crate::task::context::TaskContext;
use crate::task::module::{
    Kind, Module, ModuleSpec, Outcome, Plan, Recovery, TypedModule, spec_of,
};

macro_rules! module {
    ($type:ty, $name:literal, $aliases:expr, $kind:expr, $example:literal, $free:expr, $expressions:expr) => {
        #[async_trait]
        impl Module for $type {
            async fn check(&self, _: &TaskContext) -> Result<Plan, ModuleError> {
                Ok(Plan::InSync)
            }
            async fn apply(&self, _: &TaskContext, _: &Value) -> Result<Outcome, ModuleError> {
                Ok(Outcome::ok())
            }
            async fn recover(&self, _: &TaskContext, _: &Value) -> Result<Recovery, ModuleError> {
                Ok(Recovery::NotDone)
            }
        }
        impl TypedModule for $type {
            const NAME: &'static str = $name;
            const ALIASES: &'static [&'static str] = $aliases;
            const KIND: Kind = $kind;
            const AFTER_INTERRUPTION: &'static str = "";
            const CHECK_MODE: &'static str = "";
            const SUMMARY: &'static str = "A test's module.";
            const EXAMPLE: &'static str = $example;
            const FREE_FORM: Option<&'static str> = $free;
            const EXPRESSIONS: &'static [&'static str] = $expressions;
        }
    };
}

/// What a path shall be.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
enum State {
    /// A file.
    #[default]
    File,
    /// A directory.
    Directory,
    /// Nothing.
    Absent,
}

/// A mode: a number or a text.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is of interest")]
enum Mode {
    /// `0644`
    Number(u32),
    /// `"u=rw"`
    Text(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct File {
    path: String,
    #[serde(default)]
    state: State,
    mode: Option<Mode>,
    #[serde(default)]
    recurse: bool,
    depth: Option<u32>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    env: HashMap<String, String>,
    nested: Option<Nested>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct Nested {
    size: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct Command {
    cmd: String,
    creates: Option<String>,
    chdir: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct SetFact {
    #[serde(default)]
    cacheable: bool,
    #[serde(flatten)]
    facts: HashMap<String, Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct Assert {
    that: Vec<Value>,
}

module!(
    File,
    "file",
    &["ansible.builtin.file"],
    Kind::Converging,
    "file: {path: /srv, state: directory}",
    None,
    &[]
);
module!(
    Command,
    "command",
    &["ansible.builtin.command"],
    Kind::OneWay,
    "command: ls",
    Some("cmd"),
    &[]
);
module!(
    SetFact,
    "set_fact",
    &["ansible.builtin.set_fact"],
    Kind::ReadOnly,
    "set_fact: {a: 1}",
    None,
    &[]
);
module!(
    Assert,
    "assert",
    &["ansible.builtin.assert"],
    Kind::ReadOnly,
    "assert: {that: a == 1}",
    None,
    &["that"]
);

static MODULES: LazyLock<Vec<ModuleSpec>> = LazyLock::new(|| {
    vec![
        spec_of::<Assert>(),
        spec_of::<Command>(),
        spec_of::<File>(),
        spec_of::<SetFact>(),
    ]
});

/// Options with this file's modules.
pub(super) fn options() -> LoadOptions {
    LoadOptions {
        catalog: Catalog::new(&MODULES),
        ..LoadOptions::default()
    }
}

/// The schema of the `file` module.
pub(super) fn file_schema() -> Value {
    schemars::schema_for!(File).to_value()
}

/// A node from YAML text.
pub(super) fn node(text: &str) -> Node {
    try_node(text).expect("the test's YAML is valid")
}

/// A node, or what is wrong.
pub(super) fn try_node(text: &str) -> Result<Node, Vec<Problem>> {
    yaml::parse(&Arc::new(SourceFile {
        path: "t.yml".into(),
        text: text.to_owned(),
    }))
}

/// `line:column message` of each problem, with `= help` behind where there is one.
pub(super) fn lines(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.at.line_column();
            let help = problem.help.as_ref().map(|help| format!(" = {help}"));
            format!(
                "{line}:{column} {}{}",
                problem.message,
                help.unwrap_or_default()
            )
        })
        .collect()
}

/// Writes files into a new folder; the first is the playbook.
pub(super) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is inside the folder"))
            .expect("a folder can be made");
        std::fs::write(path, text).expect("a file can be written");
    }
    folder
}

/// Reads and validates a playbook of one or several files.
pub(super) fn checked(files: &[(&str, &str)]) -> Result<Checked, Vec<Problem>> {
    let folder = folder(files);
    check(
        &folder.path().join(files[0].0),
        &options(),
        &KnownNames::default(),
    )
}

/// What is wrong with a playbook; its path is shown as `P`.
pub(super) fn wrong(playbook: &str) -> Vec<String> {
    let Err(problems) = checked(&[("p.yml", playbook)]) else {
        return Vec::new();
    };
    let path = problems[0].at.file.path.display().to_string();
    lines(&problems)
        .into_iter()
        .map(|line| line.replace(&path, "P"))
        .collect()
}
