//! Values between JSON and the template engine.

use minijinja::Value as Engine;
use minijinja::value::ValueKind;
use serde_json::{Number, Value};

/// Why an engine value has no JSON form.
pub(super) enum Unfit {
    /// Something inside is undefined.
    Undefined,
    /// A variable inside could not be rendered.
    Failed,
    /// Not a value that can be kept (a function, not-a-number).
    Other(&'static str),
}

/// Returns the engine's value for a JSON one; mappings keep their order.
pub(super) fn from_json(value: &Value) -> Engine {
    match value {
        Value::Null => Engine::from(()),
        Value::Bool(value) => Engine::from(*value),
        Value::Number(number) => number
            .as_i64()
            .map(Engine::from)
            .or_else(|| number.as_u64().map(Engine::from))
            .unwrap_or_else(|| Engine::from(number.as_f64().unwrap_or_default())),
        Value::String(text) => Engine::from(text.as_str()),
        Value::Array(items) => items.iter().map(from_json).collect::<Vec<_>>().into(),
        Value::Object(map) => Engine::from_pairs(
            map.iter()
                .map(|(key, item)| (key.as_str(), from_json(item))),
        ),
    }
}

/// Returns the JSON value of an engine value.
pub(super) fn to_json(value: &Engine) -> Result<Value, Unfit> {
    let unfit = |_| Unfit::Other("it cannot be listed");
    match value.kind() {
        ValueKind::Undefined => Err(Unfit::Undefined),
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => number(value)
            .map(Value::Number)
            .ok_or(Unfit::Other("the number does not fit into 64 bits")),
        ValueKind::String => Ok(Value::String(value.as_str().unwrap_or_default().to_owned())),
        ValueKind::Bytes => Ok(Value::String(
            String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned(),
        )),
        ValueKind::Seq | ValueKind::Iterable => value
            .try_iter()
            .map_err(unfit)?
            .map(|item| to_json(&item))
            .collect(),
        ValueKind::Map => {
            let mut map = serde_json::Map::new();
            for key in value.try_iter().map_err(unfit)? {
                let item = value.get_item(&key).map_err(unfit)?;
                // JSON keys are texts; `{1: …}` made by an expression gets "1".
                map.insert(key.to_string(), to_json(&item)?);
            }
            Ok(map.into())
        }
        ValueKind::Invalid => Err(Unfit::Failed),
        _ => Err(Unfit::Other("it is a function, not a value")),
    }
}

fn number(value: &Engine) -> Option<Number> {
    if value.is_integer() {
        return value
            .as_i64()
            .map(Number::from)
            .or_else(|| u64::try_from(value.clone()).ok().map(Number::from));
    }
    f64::try_from(value.clone()).ok().and_then(Number::from_f64)
}

/// Returns a value's kind in the words that messages use.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}
