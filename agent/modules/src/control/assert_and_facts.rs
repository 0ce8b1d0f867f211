//! `assert`, `fail`, `debug` and `set_fact`: nothing on the host is touched.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// An expression of the playbook and what it gave.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
struct Evaluated {
    /// As it stands in the playbook.
    expression: String,
    /// Its value.
    value: Value,
}

/// One or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn items(&self) -> &[T] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }
}

/// What the playbook may write: the engine replaces each text by its value before the module is built.
fn expressions_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let one = json!({"type": ["string", "boolean"]});
    schemars::json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
}

fn expression_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string"})
}

fn message_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}}
    ]})
}

fn lines_of(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        Value::Array(lines) => lines.iter().map(lines_of).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    }
}

/// Fails unless every expression is true.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssertModule {
    /// Expressions without braces, one or a list; each must give true or false.
    #[schemars(schema_with = "expressions_schema")]
    that: OneOrMany<Evaluated>,
    /// Message when one is false. Default: names the expressions.
    #[serde(default, alias = "msg")]
    #[schemars(schema_with = "message_schema", extend("aliases" = ["msg"]))]
    fail_msg: Option<Value>,
    /// Message when all are true. Default: `all assertions passed`.
    #[serde(default)]
    #[schemars(schema_with = "message_schema")]
    success_msg: Option<Value>,
    /// Leaves the single expressions out of the result. Default: false.
    #[serde(default)]
    quiet: bool,
}

#[async_trait]
impl Module for AssertModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let mut wrong = Vec::new();
        for item in self.that.items() {
            match &item.value {
                Value::Bool(true) => {}
                Value::Bool(false) => wrong.push(item.expression.as_str()),
                // As in Ansible 2.19 and later: `that: some_list` has often meant something else.
                other => {
                    return Err(ControlError::argument(format!(
                        "`{}` gives {}, not true or false",
                        item.expression,
                        kind_of(other)
                    ))
                    .into());
                }
            }
        }
        if wrong.is_empty() {
            let message = self.success_msg.as_ref().map(lines_of);
            let message = message.unwrap_or_else(|| "all assertions passed".into());
            return Ok(Outcome::ok().with("msg", message.clone()).summary(message));
        }
        let message = match &self.fail_msg {
            Some(message) => lines_of(message),
            None => format!("not true: {}", wrong.join("; ")),
        };
        let mut result = Map::new();
        result.insert("msg".into(), message.clone().into());
        result.insert("assertion".into(), wrong[0].into());
        result.insert("evaluated_to".into(), false.into());
        if !self.quiet {
            result.insert("assertions_failed".into(), json!(wrong));
        }
        Err(ControlError::Assertion { message, result }.into())
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

impl TypedModule for AssertModule {
    const NAME: &'static str = "assert";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.assert", "ansible.legacy.assert"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Fails unless every expression is true";
    const EXAMPLE: &'static str = "\
- name: The archive is not empty
  assert:
    that:
      - before.tables['public.instance'].rows > 0
    fail_msg: The database holds no instances; is {{ fast_data_dir }} the right directory?
";
    const EXPRESSIONS: &'static [&'static str] = &["that"];
}

/// Fails with a message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FailModule {
    /// The message. Default: `failed as requested from task`.
    #[serde(default)]
    #[schemars(schema_with = "message_schema")]
    msg: Option<Value>,
}

#[async_trait]
impl Module for FailModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let message = self.msg.as_ref().map(lines_of);
        Err(ControlError::Fail {
            message: message.unwrap_or_else(|| "failed as requested from task".into()),
        }
        .into())
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for FailModule {
    const NAME: &'static str = "fail";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.fail", "ansible.legacy.fail"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Fails with a message";
    const EXAMPLE: &'static str = "\
- name: Only 0.2 can be migrated
  fail:
    msg: Kaapana {{ kaapana_version }} is not supported
  when: kaapana_version is not version('0.3', '<')
";
    const FREE_FORM: Option<&'static str> = Some("msg");
}

/// Prints a message or a variable.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebugModule {
    /// What to print: text, or any value. Default: `Hello world!`.
    #[serde(default)]
    msg: Option<Value>,
    /// Expression without braces whose value is printed; instead of `msg`.
    #[serde(default)]
    #[schemars(schema_with = "expression_schema")]
    var: Option<Evaluated>,
    /// Prints only at this level of verbosity or above. Default: 0.
    #[serde(default)]
    verbosity: u32,
}

#[async_trait]
impl Module for DebugModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let (key, value) = match (&self.msg, &self.var) {
            (Some(_), Some(_)) => {
                return Err(ControlError::argument("`msg` and `var` exclude each other").into());
            }
            (Some(value), None) => ("msg", value.clone()),
            (None, Some(var)) => (var.expression.as_str(), var.value.clone()),
            (None, None) => ("msg", "Hello world!".into()),
        };
        if self.verbosity > 0 {
            return Ok(Outcome::ok()
                .with("skipped", true)
                .with("skipped_reason", "Verbosity threshold not met."));
        }
        let text = match &value {
            Value::String(text) => text.clone(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        let outcome = Outcome::ok().with(key, value);
        let lines: Vec<&str> = text.lines().collect();
        Ok(match lines[..] {
            [] => outcome,
            [line] => outcome.summary(line),
            [first, ..] => {
                for line in &lines {
                    ctx.progress.line(*line);
                }
                let more = lines.len() - 1;
                outcome.summary(format!("{first} … (`-v` shows {more} more lines)"))
            }
        })
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for DebugModule {
    const NAME: &'static str = "debug";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.debug", "ansible.legacy.debug"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Prints a message or a variable";
    const EXAMPLE: &'static str = "\
- name: Say what was found
  debug:
    msg: \"{{ before.tables | length }} tables\"
";
    const EXPRESSIONS: &'static [&'static str] = &["var"];
}

/// Sets variables for the tasks that follow.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SetFactModule {
    /// Accepted for Ansible's sake; the journal keeps all facts.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    cacheable: bool,
    /// Name and value of each variable.
    #[serde(flatten)]
    facts: Map<String, Value>,
}

#[async_trait]
impl Module for SetFactModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if self.facts.is_empty() {
            return Err(ControlError::argument("no variable is named").into());
        }
        let is_name = |name: &str| {
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
        };
        if let Some(wrong) = self.facts.keys().find(|name| !is_name(name)) {
            return Err(ControlError::argument(format!(
                "`{wrong}` is no name for a variable: letters, digits and underscores, no digit first"
            ))
            .into());
        }
        Ok(Outcome::ok().with("ansible_facts", self.facts.clone()))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for SetFactModule {
    const NAME: &'static str = "set_fact";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.set_fact", "ansible.legacy.set_fact"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "sets it again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Sets variables for the tasks that follow";
    const EXAMPLE: &'static str = "\
- name: Where the dumps go
  set_fact:
    dump_dir: \"{{ backup_dir }}/{{ before.database }}\"
";
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    async fn apply<M: TypedModule>(arguments: Value) -> Result<Outcome, ModuleError> {
        let module: M = serde_json::from_value(arguments).expect("arguments");
        let ctx = TaskContext::for_tests(Path::new("/"));
        assert_eq!(module.check(&ctx).await.expect("check"), Plan::InSync);
        module.apply(&ctx, &Value::Null).await
    }

    #[tokio::test]
    async fn a_false_expression_is_named_and_other_values_are_refused() {
        let that = |value: Value| json!({"expression": "n > 0", "value": value});
        let passed = apply::<AssertModule>(json!({"that": that(json!(true))}))
            .await
            .expect("true");
        assert_eq!(passed.result["msg"], "all assertions passed");
        let mixed = json!({"that": [that(json!(true)), {"expression": "a == b", "value": false}]});
        let error = apply::<AssertModule>(mixed).await.expect_err("false");
        assert_eq!(error.to_string(), "not true: a == b");
        let ModuleError::Failed(failure) = error else {
            panic!("{error}")
        };
        assert_eq!(failure.result()["assertion"], "a == b");
        let text = json!({"that": that(json!("yes")), "msg": "mine"});
        let error = apply::<AssertModule>(text)
            .await
            .expect_err("text")
            .to_string();
        assert_eq!(error, "`n > 0` gives a text, not true or false");
        let own = json!({"that": [that(json!(false))], "msg": ["two", "lines"]});
        let error = apply::<AssertModule>(own)
            .await
            .expect_err("false")
            .to_string();
        assert_eq!(error, "two\nlines");
    }

    #[tokio::test]
    async fn debug_and_set_fact_hand_values_on() {
        let var = json!({"var": {"expression": "a.b", "value": [1, 2]}});
        assert_eq!(
            apply::<DebugModule>(var).await.expect("ok").result["a.b"],
            json!([1, 2])
        );
        let facts = apply::<SetFactModule>(json!({"a": 1, "cacheable": true}))
            .await
            .expect("ok");
        assert_eq!(facts.result["ansible_facts"], json!({"a": 1}));
        assert!(apply::<SetFactModule>(json!({"a-b": 1})).await.is_err());
        assert!(apply::<SetFactModule>(json!({})).await.is_err());
        let error = apply::<FailModule>(json!({"msg": "stop"}))
            .await
            .expect_err("fails");
        assert_eq!(error.to_string(), "stop");
    }
}
