//! Fits arguments to a module's JSON Schema, as generous as Ansible: `"yes"` is a boolean where one is
//! wanted, a number is a text, `a,b` is a list of texts.

pub(crate) mod convert;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::{Map, Value};

use self::convert::{boolean, integer, number, text};
use super::template::{is_template, kind_of};
use crate::source::closest;
use crate::task::module::ArgumentError;
use crate::task::module::ModuleSpec;

/// Schemas may refer to themselves; deeper than this no argument goes.
const MAX_DEPTH: usize = 40;

/// Returns a module's schema, made once.
#[must_use]
pub fn schema_of(spec: &ModuleSpec) -> Arc<Value> {
    static SCHEMAS: LazyLock<Mutex<HashMap<usize, Arc<Value>>>> = LazyLock::new(Mutex::default);
    let mut schemas = SCHEMAS.lock().unwrap_or_else(PoisonError::into_inner);
    let schema = schemas
        .entry(spec.schema as usize)
        .or_insert_with(|| Arc::new((spec.schema)().to_value()));
    Arc::clone(schema)
}

/// Fits rendered arguments to a schema.
///
/// # Errors
/// Everything that does not fit: unknown names, missing arguments, wrong types and values.
pub fn coerce(schema: &Value, value: Value) -> Result<Value, Vec<ArgumentError>> {
    let mut fitting = Fitting {
        root: schema,
        templates_fit: false,
        mismatches: Vec::new(),
        path: Vec::new(),
    };
    let fitted = fitting.fit(schema, value, 0);
    if fitting.mismatches.is_empty() {
        return Ok(fitted);
    }
    Err(fitting
        .mismatches
        .into_iter()
        .map(|mismatch| ArgumentError {
            path: path_text(&mismatch.path),
            message: mismatch.message(),
        })
        .collect())
}

/// Fits arguments as they stand in the playbook; texts with templates fit everywhere.
pub(crate) fn check_literals(schema: &Value, value: Value) -> Vec<Mismatch> {
    let mut fitting = Fitting {
        root: schema,
        templates_fit: true,
        mismatches: Vec::new(),
        path: Vec::new(),
    };
    fitting.fit(schema, value, 0);
    fitting.mismatches
}

/// A step into a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mismatch {
    /// Where; for an unknown or missing name, its mapping.
    pub path: Vec<Segment>,
    pub kind: MismatchKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MismatchKind {
    /// A name that the schema does not have.
    Unknown { name: String, known: Vec<String> },
    /// A required name that is not there.
    Missing { name: String },
    /// A value of the wrong type or outside of what is allowed.
    Value { message: String },
}

impl Mismatch {
    fn message(&self) -> String {
        match &self.kind {
            MismatchKind::Unknown { name, .. } => match self.suggestion() {
                Some(help) => format!("unknown argument `{name}`; {help}"),
                None => format!("unknown argument `{name}`"),
            },
            MismatchKind::Missing { name } => format!("`{name}` is required"),
            MismatchKind::Value { message } => message.clone(),
        }
    }

    /// Returns what to do about an unknown name.
    pub fn suggestion(&self) -> Option<String> {
        let MismatchKind::Unknown { name, known } = &self.kind else {
            return None;
        };
        if let Some(near) = closest(name, known.iter().map(String::as_str)) {
            return Some(format!("did you mean `{near}`?"));
        }
        (!known.is_empty()).then(|| format!("known here: {}", known.join(", ")))
    }
}

fn path_text(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

struct Fitting<'a> {
    root: &'a Value,
    templates_fit: bool,
    mismatches: Vec<Mismatch>,
    path: Vec<Segment>,
}

impl<'a> Fitting<'a> {
    fn fit(&mut self, schema: &'a Value, value: Value, depth: usize) -> Value {
        if depth > MAX_DEPTH || self.is_open(&value) {
            return value;
        }
        let Some(map) = schema.as_object() else {
            return value;
        };
        if let Some(target) = map.get("$ref").and_then(Value::as_str) {
            return match self.resolve(target) {
                Some(target) => self.fit(target, value, depth + 1),
                None => value,
            };
        }
        let forms = map
            .get("anyOf")
            .or_else(|| map.get("oneOf"))
            .and_then(Value::as_array);
        if let Some(forms) = forms {
            return self.fit_any(forms, value, depth);
        }
        if let Some(parts) = map.get("allOf").and_then(Value::as_array) {
            return parts
                .iter()
                .fold(value, |value, part| self.fit(part, value, depth + 1));
        }
        let value = match map.get("type") {
            Some(Value::String(kind)) => self.fit_type(kind, map, value, depth),
            Some(Value::Array(kinds)) => {
                let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
                self.fit_types(&kinds, map, value, depth)
            }
            _ => value,
        };
        if self.is_open(&value) {
            return value;
        }
        self.check_allowed(map, &value);
        value
    }

    /// A template may become anything.
    fn is_open(&self, value: &Value) -> bool {
        self.templates_fit && value.as_str().is_some_and(is_template)
    }

    fn resolve(&self, target: &str) -> Option<&'a Value> {
        self.root.pointer(target.strip_prefix('#')?)
    }

    fn wrong(&mut self, message: String) {
        self.mismatches.push(Mismatch {
            path: self.path.clone(),
            kind: MismatchKind::Value { message },
        });
    }

    /// Tries a form; gives back what it finds wrong instead of keeping it.
    fn attempt(
        &mut self,
        form: &'a Value,
        value: &Value,
        depth: usize,
    ) -> Result<Value, Vec<Mismatch>> {
        let before = self.mismatches.len();
        let fitted = self.fit(form, value.clone(), depth + 1);
        let found = self.mismatches.split_off(before);
        if found.is_empty() {
            Ok(fitted)
        } else {
            Err(found)
        }
    }

    fn fit_any(&mut self, forms: &'a [Value], value: Value, depth: usize) -> Value {
        let is_null = |form: &Value| form.get("type").and_then(Value::as_str) == Some("null");
        if value.is_null() && forms.iter().any(is_null) {
            return value;
        }
        let forms: Vec<&'a Value> = forms.iter().filter(|form| !is_null(form)).collect();
        if let [only] = forms[..] {
            return self.fit(only, value, depth + 1);
        }
        let mut fitted = None;
        let mut nearest: Option<Vec<Mismatch>> = None;
        for form in &forms {
            match self.attempt(form, &value, depth) {
                // A form that takes the value as it is beats one that converts it.
                Ok(same) if same == value => return same,
                Ok(converted) => {
                    fitted.get_or_insert(converted);
                }
                Err(found) => {
                    // What is wrong deepest inside tells most about the form that was meant.
                    let depth_of = |found: &[Mismatch]| {
                        found.iter().map(|m| m.path.len()).max().unwrap_or_default()
                    };
                    if nearest
                        .as_ref()
                        .is_none_or(|known| depth_of(&found) > depth_of(known))
                    {
                        nearest = Some(found);
                    }
                }
            }
        }
        if let Some(fitted) = fitted {
            return fitted;
        }
        let allowed: Vec<String> = forms.iter().flat_map(|form| self.allowed(form)).collect();
        let deeper = nearest
            .as_ref()
            .is_some_and(|found| found.iter().any(|m| m.path.len() > self.path.len()));
        match nearest {
            Some(found) if deeper => self.mismatches.extend(found),
            _ if !allowed.is_empty() => self.wrong(one_of(&allowed, &value)),
            Some(found) => self.mismatches.extend(found),
            None => {}
        }
        value
    }

    /// Returns the texts that a schema allows, where it lists them.
    fn allowed(&self, schema: &Value) -> Vec<String> {
        let schema = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|target| self.resolve(target))
            .unwrap_or(schema);
        let texts = |values: &[Value]| {
            values
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        match (schema.get("const"), schema.get("enum")) {
            (Some(value), _) => texts(std::slice::from_ref(value)),
            (None, Some(Value::Array(values))) => texts(values),
            _ => Vec::new(),
        }
    }

    fn check_allowed(&mut self, schema: &Map<String, Value>, value: &Value) {
        let listed = match (schema.get("const"), schema.get("enum")) {
            (Some(only), _) => std::slice::from_ref(only),
            (None, Some(Value::Array(values))) => values,
            _ => &[],
        };
        if !listed.is_empty() && !listed.contains(value) {
            let names: Vec<String> = listed
                .iter()
                .map(|value| {
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned)
                })
                .collect();
            self.wrong(one_of(&names, value));
        }
        let Some(number) = value.as_f64() else { return };
        let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
        if let Some(minimum) = limit("minimum").filter(|minimum| number < *minimum) {
            self.wrong(format!("must be at least {minimum}"));
        }
        if let Some(maximum) = limit("maximum").filter(|maximum| number > *maximum) {
            self.wrong(format!("must be at most {maximum}"));
        }
    }

    fn fit_types(
        &mut self,
        kinds: &[&str],
        schema: &'a Map<String, Value>,
        value: Value,
        depth: usize,
    ) -> Value {
        if value.is_null() && kinds.contains(&"null") {
            return value;
        }
        let own = match &value {
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Null => "null",
        };
        if kinds.contains(&own) {
            return self.fit_type(own, schema, value, depth);
        }
        let before = self.mismatches.len();
        for kind in kinds.iter().filter(|kind| **kind != "null") {
            self.mismatches.truncate(before);
            let fitted = self.fit_type(kind, schema, value.clone(), depth);
            if self.mismatches.len() == before {
                return fitted;
            }
        }
        value
    }

    fn fit_type(
        &mut self,
        kind: &str,
        schema: &'a Map<String, Value>,
        value: Value,
        depth: usize,
    ) -> Value {
        let fitted = match kind {
            "boolean" => boolean(&value).map(Value::Bool),
            "integer" => integer(&value).map(Value::Number),
            "number" => number(&value).map(Value::Number),
            "string" => text(&value).map(Value::String),
            "array" => return self.fit_list(schema, value, depth),
            "object" => return self.fit_mapping(schema, value, depth),
            _ => return value,
        };
        fitted.unwrap_or_else(|| {
            let wanted = match kind {
                "boolean" => "true or false",
                "integer" => "an integer",
                "number" => "a number",
                _ => "a text",
            };
            self.wrong(format!("must be {wanted}, and is {}", kind_of(&value)));
            value
        })
    }

    fn fit_list(&mut self, schema: &'a Map<String, Value>, value: Value, depth: usize) -> Value {
        let items = match value {
            Value::Array(items) => items,
            Value::String(text) => text
                .split(',')
                .map(|part| Value::String(part.trim().to_owned()))
                .filter(|part| part.as_str() != Some(""))
                .collect(),
            Value::Number(number) => vec![Value::Number(number)],
            other => {
                self.wrong(format!("must be a list, and is {}", kind_of(&other)));
                return other;
            }
        };
        let Some(item_schema) = schema.get("items") else {
            return Value::Array(items);
        };
        let mut fitted = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            self.path.push(Segment::Index(index));
            fitted.push(self.fit(item_schema, item, depth + 1));
            self.path.pop();
        }
        Value::Array(fitted)
    }

    fn fit_mapping(&mut self, schema: &'a Map<String, Value>, value: Value, depth: usize) -> Value {
        static NO_PROPERTIES: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let given = match value {
            Value::Object(map) => map,
            Value::String(text) if text.trim_start().starts_with('{') => {
                match serde_json::from_str(&text) {
                    Ok(map) => map,
                    Err(_) => {
                        self.wrong("must be a mapping, and is a text".to_owned());
                        return Value::String(text);
                    }
                }
            }
            other => {
                self.wrong(format!("must be a mapping, and is {}", kind_of(&other)));
                return other;
            }
        };
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&NO_PROPERTIES);
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let rest = schema.get("additionalProperties");
        let mut fitted = Map::new();
        for (name, item) in given {
            let name = canonical(&name, properties).unwrap_or(name);
            let Some(item_schema) = properties
                .get(&name)
                .or_else(|| rest.filter(|rest| rest.is_object() || **rest == Value::Bool(true)))
            else {
                // A mapping that says nothing about other names takes them.
                if rest.is_none() || (self.templates_fit && is_template(&name)) {
                    fitted.insert(name, item);
                } else {
                    self.mismatches.push(Mismatch {
                        path: self.path.clone(),
                        kind: MismatchKind::Unknown {
                            name,
                            known: properties.keys().cloned().collect(),
                        },
                    });
                }
                continue;
            };
            // Nothing given is the same as not given, as in Ansible.
            if item.is_null() && properties.contains_key(&name) && !self.takes_null(item_schema) {
                continue;
            }
            self.path.push(Segment::Key(name.clone()));
            let item = self.fit(item_schema, item, depth + 1);
            self.path.pop();
            fitted.insert(name, item);
        }
        for name in required {
            if !fitted.contains_key(name) {
                self.mismatches.push(Mismatch {
                    path: self.path.clone(),
                    kind: MismatchKind::Missing {
                        name: name.to_owned(),
                    },
                });
            }
        }
        Value::Object(fitted)
    }

    fn takes_null(&self, schema: &Value) -> bool {
        let Some(map) = schema.as_object() else {
            return true;
        };
        if let Some(target) = map.get("$ref").and_then(Value::as_str) {
            return self
                .resolve(target)
                .is_some_and(|target| target.get("$ref").is_none() && self.takes_null(target));
        }
        let forms = map.get("anyOf").or_else(|| map.get("oneOf"));
        if let Some(forms) = forms.and_then(Value::as_array) {
            return forms.iter().any(|form| self.takes_null(form));
        }
        match map.get("type") {
            Some(Value::String(kind)) => kind == "null",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "null"),
            _ => !map.contains_key("enum") && !map.contains_key("const"),
        }
    }
}

/// Returns the name that a property's `aliases` (a schema extension) lead to.
fn canonical(name: &str, properties: &Map<String, Value>) -> Option<String> {
    if properties.contains_key(name) {
        return None;
    }
    properties
        .iter()
        .find(|(_, schema)| {
            schema
                .get("aliases")
                .and_then(Value::as_array)
                .is_some_and(|aliases| aliases.iter().any(|alias| alias == name))
        })
        .map(|(name, _)| name.clone())
}

fn one_of(allowed: &[String], value: &Value) -> String {
    let near = value
        .as_str()
        .and_then(|given| closest(given, allowed.iter().map(String::as_str)))
        .map(|near| format!(" (did you mean `{near}`?)"));
    format!(
        "must be one of {}{}",
        allowed.join(", "),
        near.unwrap_or_default()
    )
}
