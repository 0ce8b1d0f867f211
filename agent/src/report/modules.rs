//! The reference of modules, made from their argument types.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::style::{Ink, View};
use crate::playbook::arguments::schema_of;
use crate::task::module::{Kind, ModuleSpec};

/// A kind as a word.
#[must_use]
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::ReadOnly => "read-only",
        Kind::Converging => "converging",
        Kind::OneWay => "one-way",
    }
}

fn kind_meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::ReadOnly => "read-only: it looks; running it again is always right",
        Kind::Converging => {
            "converging: describes a state; runs again when its arguments or input files change"
        }
        Kind::OneWay => {
            "one-way: must not happen twice; with changed arguments after success the run stops and asks"
        }
    }
}

/// Lists modules, a line each.
#[must_use]
pub fn list(modules: &[ModuleSpec], view: View) -> String {
    let width = modules.iter().map(|m| m.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for module in modules {
        let line = format!(
            "{} {:<10}  {}",
            view.paint(Ink::Strong, &format!("{:<width$}", module.name)),
            kind(module.kind),
            module.summary
        );
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    out
}

/// One argument.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
struct Argument {
    name: String,
    aliases: Vec<String>,
    r#type: String,
    required: bool,
    default: Option<Value>,
    description: String,
}

/// Everything about one module.
#[must_use]
pub fn page(module: &ModuleSpec, view: View) -> String {
    let mut out = format!(
        "{}\n{}\n\n{}\n",
        view.paint(Ink::Strong, module.name),
        module.summary,
        kind_meaning(module.kind)
    );
    if !module.aliases.is_empty() {
        let _ = writeln!(out, "also called: {}", module.aliases.join(", "));
    }
    let _ = writeln!(out, "after an interruption: {}", module.after_interruption);
    let _ = writeln!(out, "check mode: {}", module.check_mode);
    if let Some(argument) = module.free_form {
        let _ = writeln!(out, "a bare text is its `{argument}`");
    }
    let _ = writeln!(out, "\n{}", view.paint(Ink::Strong, "Arguments"));
    for argument in arguments(module) {
        let mut facts = vec![argument.r#type];
        if argument.required {
            facts.push("required".into());
        }
        if let Some(default) = argument.default {
            facts.push(format!("default: {}", plain(&default)));
        }
        if !argument.aliases.is_empty() {
            facts.push(format!("also: {}", argument.aliases.join(", ")));
        }
        let _ = writeln!(
            out,
            "  {}  {}",
            view.paint(Ink::Strong, &argument.name),
            view.paint(Ink::Faint, &format!("({})", facts.join("; ")))
        );
        for line in wrapped(
            &argument.description,
            view.width.unwrap_or(100).min(100) - 6,
        ) {
            let _ = writeln!(out, "      {line}");
        }
    }
    let _ = writeln!(
        out,
        "\n{}\n{}",
        view.paint(Ink::Strong, "Example"),
        module.example
    );
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + word.chars().count() >= width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// A module for programs.
#[must_use]
pub fn json(module: &ModuleSpec) -> Value {
    json!({
        "v": 1, "module": module.name, "aliases": module.aliases, "kind": module.kind,
        "summary": module.summary, "free_form": module.free_form,
        "after_an_interruption": module.after_interruption,
        "check_mode": module.check_mode,
        "arguments": arguments(module), "example": module.example,
    })
}

/// Arguments, the required ones first.
fn arguments(module: &ModuleSpec) -> Vec<Argument> {
    let schema: Arc<Value> = schema_of(module);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let empty = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let mut found: Vec<Argument> = properties
        .iter()
        .map(|(name, property)| Argument {
            name: name.clone(),
            aliases: texts(property.get("aliases")),
            r#type: type_of(&schema, property, 0),
            required: required.contains(&name.as_str()),
            default: property.get("default").filter(|v| !v.is_null()).cloned(),
            description: described(&schema, property),
        })
        .collect();
    found.sort_by(|a, b| (!a.required, &a.name).cmp(&(!b.required, &b.name)));
    found
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// A property's own description, else that of the type that it refers to.
fn described(root: &Value, property: &Value) -> String {
    let own = |schema: &Value| {
        schema
            .get("description")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    own(property)
        .or_else(|| target(root, property).and_then(own))
        .unwrap_or_default()
}

fn target<'s>(root: &'s Value, schema: &Value) -> Option<&'s Value> {
    let path = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
    root.pointer(path)
}

/// A type in Ansible's words.
fn type_of(root: &Value, schema: &Value, depth: usize) -> String {
    if depth > 8 {
        return "any".into();
    }
    if let Some(target) = target(root, schema) {
        return type_of(root, target, depth + 1);
    }
    if let Some(only) = schema.get("const") {
        return plain(only);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().filter(|v| !v.is_null()).map(plain).collect();
        return values.join(" | ");
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(forms) = schema.get(key).and_then(Value::as_array) {
            let mut words: Vec<String> = Vec::new();
            for form in forms {
                let word = type_of(root, form, depth + 1);
                if word != "null" && !words.contains(&word) {
                    words.push(word);
                }
            }
            let short = words.iter().all(|word| !word.contains(' '));
            return words.join(if short { " | " } else { " or " });
        }
    }
    let one = |kind: &str| match kind {
        "string" => "str".to_owned(),
        "integer" => "int".into(),
        "number" => "float".into(),
        "boolean" => "bool".into(),
        "array" => {
            let items = schema.get("items").filter(|items| items.is_object());
            match items.map(|items| type_of(root, items, depth + 1)) {
                Some(items) if items != "any" => format!("list of {items}"),
                _ => "list".into(),
            }
        }
        "object" => "dict".into(),
        other => other.to_owned(),
    };
    match schema.get("type") {
        Some(Value::String(kind)) => one(kind),
        Some(Value::Array(kinds)) => {
            let words: Vec<String> = kinds
                .iter()
                .filter_map(Value::as_str)
                .filter(|kind| *kind != "null")
                .map(one)
                .collect();
            words.join(" | ")
        }
        _ => "any".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::registry;
    use crate::report::style::Style;

    const PLAIN: View = View {
        style: Style { colour: false },
        width: None,
    };

    #[test]
    fn a_page_tells_types_defaults_and_what_is_required() {
        let restore = registry::find("postgresql_script").expect("there");
        let page = page(restore, PLAIN);
        assert!(
            page.contains("  path  (str; required)\n      The file, on this host."),
            "{page}"
        );
        assert!(
            page.contains("  transaction  (bool; default: true)"),
            "{page}"
        );
        assert!(page.contains("  db  (str; also: login_db)"), "{page}");
        assert!(page.contains("check mode: "), "{page}");
        let file = registry::find("file").expect("there");
        assert!(
            super::page(file, PLAIN).contains("  state  (absent | directory | "),
            "{}",
            super::page(file, PLAIN)
        );
    }

    #[test]
    fn no_argument_of_any_module_is_without_type_or_description() {
        for module in registry::all() {
            for argument in arguments(module) {
                assert!(
                    !argument.r#type.is_empty(),
                    "{}.{}",
                    module.name,
                    argument.name
                );
                assert!(
                    !argument.description.is_empty(),
                    "{}.{}",
                    module.name,
                    argument.name
                );
            }
        }
    }
}
