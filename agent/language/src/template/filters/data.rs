//! Filters between values and texts: JSON, YAML, numbers, booleans, defaults.

use std::sync::Arc;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::super::error::say;
use super::super::value::{from_json, to_json};
use crate::python_json;
use crate::source::SourceFile;
use crate::yaml;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("bool", boolean);
    environment.add_filter("int", integer);
    environment.add_filter("float", float);
    environment.add_filter("mandatory", mandatory);
    environment.add_filter("ternary", ternary);
    environment.add_filter("type_debug", type_debug);
    environment.add_filter("to_json", |value: Value| {
        json(&value).map(|value| python_json::write(&value, None, false))
    });
    environment.add_filter("to_nice_json", |value: Value, kwargs: Kwargs| {
        let indent = kwargs.get::<Option<usize>>("indent")?.unwrap_or(4);
        let sorted = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(true);
        kwargs.assert_all_used()?;
        json(&value).map(|value| python_json::write(&value, Some(indent.min(16)), sorted))
    });
    environment.add_filter("from_json", |text: String| {
        serde_json::from_str(&text)
            .map(|value: serde_json::Value| from_json(&value))
            .map_err(|_| say("`from_json` is given something that is not JSON"))
    });
    for name in ["to_yaml", "to_nice_yaml"] {
        environment.add_filter(name, |value: Value, _options: Kwargs| {
            json(&value).and_then(|value| {
                yaml::to_text(&value).ok_or_else(|| say("the value has no YAML form"))
            })
        });
    }
    environment.add_filter("from_yaml", from_yaml);
}

/// As Ansible's: what is not a word for true is false.
fn boolean(value: Value) -> Value {
    match value.kind() {
        ValueKind::None | ValueKind::Bool => value,
        _ => {
            let text = value.to_string().to_lowercase();
            Value::from(matches!(
                text.as_str(),
                "yes" | "on" | "1" | "true" | "t" | "y" | "1.0"
            ))
        }
    }
}

/// As Jinja's: what is no number gives the default, 0.
fn integer(
    value: Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = default
        .or(kwargs.get("default")?)
        .unwrap_or_else(|| Value::from(0));
    let base = base.or(kwargs.get("base")?).unwrap_or(10);
    kwargs.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(say("`int` takes a base from 2 to 36"));
    }
    let truncated = |number: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within the range of i64, checked first"
        )]
        (number.abs() < 9.0e18).then_some(number as i64)
    };
    let number = match value.kind() {
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::Number if value.is_integer() => return Ok(value),
        ValueKind::Number => f64::try_from(value).ok().and_then(truncated),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim().replace('_', "");
            let digits = match base {
                16 => text.trim_start_matches("0x"),
                8 => text.trim_start_matches("0o"),
                2 => text.trim_start_matches("0b"),
                _ => &text,
            };
            i64::from_str_radix(digits, base).ok().or_else(|| {
                let number = text.parse::<f64>().ok().filter(|_| base == 10)?;
                truncated(number)
            })
        }
        _ => None,
    };
    Ok(number.map_or(default, Value::from))
}

/// As Jinja's: what is no number gives the default, 0.0.
fn float(value: Value, default: Option<f64>) -> Result<f64, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    let default = default.unwrap_or(0.0);
    Ok(match value.kind() {
        ValueKind::Bool => f64::from(u8::from(value.is_true())),
        ValueKind::String => value
            .as_str()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(default),
        _ => f64::try_from(value).unwrap_or(default),
    })
}

fn mandatory(value: Value, message: Option<String>, kwargs: Kwargs) -> Result<Value, Error> {
    let message = message.or(kwargs.get("msg")?);
    kwargs.assert_all_used()?;
    if value.is_undefined() {
        return Err(message.map_or_else(|| say("a mandatory variable is not defined"), say));
    }
    Ok(value)
}

fn ternary(value: Value, yes: Value, no: Value, none: Option<Value>) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(ErrorKind::UndefinedError.into()),
        ValueKind::None => Ok(none.unwrap_or(no)),
        _ => Ok(if value.is_true() { yes } else { no }),
    }
}

/// Python's names, since playbooks compare with them.
fn type_debug(value: Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq | ValueKind::Iterable => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}

fn from_yaml(text: String) -> Result<Value, Error> {
    let file = Arc::new(SourceFile {
        path: "from_yaml".into(),
        text,
    });
    if file.text.trim().is_empty() {
        return Ok(Value::from(()));
    }
    yaml::parse(&file)
        .map(|node| from_json(&node.to_value()))
        .map_err(|_| say("`from_yaml` is given something that is not valid YAML"))
}

pub(super) fn json(value: &Value) -> Result<serde_json::Value, Error> {
    to_json(value).map_err(|unfit| match unfit {
        super::super::value::Unfit::Undefined => ErrorKind::UndefinedError.into(),
        super::super::value::Unfit::Failed => say("a variable inside cannot be rendered"),
        super::super::value::Unfit::Other(reason) => {
            say(format!("this has no JSON form: {reason}"))
        }
    })
}
