//! Global functions that do more than the template engine's own.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, Value};

use super::error::say;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function("dict", dict);
}

/// As Python's: of a map or a list of pairs, and of keywords.
fn dict(of: Option<Value>, more: Kwargs) -> Result<Value, Error> {
    let mut pairs = Vec::new();
    match of {
        None => {}
        Some(map) if map.kind() == ValueKind::Map => {
            for key in map.try_iter()? {
                let value = map.get_item(&key)?;
                pairs.push((key, value));
            }
        }
        Some(list) => {
            for (number, pair) in list.try_iter()?.enumerate() {
                let pair: Vec<Value> = pair.try_iter()?.collect();
                let [key, value] = pair.as_slice() else {
                    return Err(say(format!(
                        "`dict` takes pairs, and item {number} has {} values",
                        pair.len()
                    )));
                };
                pairs.push((key.clone(), value.clone()));
            }
        }
    }
    for name in more.args() {
        pairs.push((Value::from(name), more.get::<Value>(name)?));
    }
    Ok(Value::from_pairs(pairs))
}
