//! Attribute values between YAML and a directory.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::directory::Entry;
use super::error::LdapError;
use super::ldif::Attribute;

/// Reads `attributes:` of a task: a text, number or boolean, or a list of them. Binary
/// values come from LDIF files.
///
/// # Errors
/// A value is a map or null.
pub fn attributes_of(
    argument: &'static str,
    given: &BTreeMap<String, Value>,
) -> Result<Vec<Attribute>, LdapError> {
    given
        .iter()
        .map(|(name, value)| Ok((name.clone(), values_of(argument, name, value)?)))
        .collect()
}

fn values_of(argument: &'static str, name: &str, value: &Value) -> Result<Vec<Vec<u8>>, LdapError> {
    match value {
        Value::Array(items) => items
            .iter()
            .map(|item| value_of(argument, name, item))
            .collect(),
        one => Ok(vec![value_of(argument, name, one)?]),
    }
}

fn value_of(argument: &'static str, name: &str, value: &Value) -> Result<Vec<u8>, LdapError> {
    Ok(match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Number(number) => number.to_string().into_bytes(),
        // As the directory's own syntax has it (RFC 4517, 3.3.3).
        Value::Bool(true) => b"TRUE".to_vec(),
        Value::Bool(false) => b"FALSE".to_vec(),
        _ => {
            let message = format!("`{name}` is neither a text nor a list of texts");
            return Err(LdapError::argument(argument, message));
        }
    })
}

/// Returns an entry as `register` sees it: one value as a text, several as a list; in base64 where a
/// value is no UTF-8 or the attribute was asked for in base64.
#[must_use]
pub fn entry_to_json(entry: &Entry, in_base64: &[String]) -> Value {
    let mut map = Map::new();
    map.insert("dn".into(), entry.dn.as_str().into());
    for (name, values) in &entry.attributes {
        let base64 = in_base64
            .iter()
            .any(|asked| asked == "*" || asked.eq_ignore_ascii_case(name));
        let mut shown: Vec<Value> = values
            .iter()
            .map(|value| match std::str::from_utf8(value) {
                Ok(text) if !base64 => text.into(),
                _ => STANDARD.encode(value).into(),
            })
            .collect();
        let value = match shown.len() {
            1 => shown.remove(0),
            _ => shown.into(),
        };
        map.insert(name.clone(), value);
    }
    map.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_go_in_and_come_out() {
        let given = [
            ("a".to_owned(), json!(true)),
            ("b".to_owned(), json!(["x", 1])),
        ]
        .into();
        let attributes = attributes_of("attributes", &given).expect("valid");
        assert_eq!(attributes[0].1, [b"TRUE".to_vec()]);
        assert_eq!(attributes[1].1, [b"x".to_vec(), b"1".to_vec()]);
        let wrong = [("a".to_owned(), json!({}))].into();
        assert!(attributes_of("attributes", &wrong).is_err());
        let entry = Entry {
            dn: "cn=a".into(),
            attributes: [
                ("bin".to_owned(), vec![vec![0xff]]),
                ("one".to_owned(), vec![b"x".to_vec()]),
                ("two".to_owned(), vec![b"x".to_vec(), b"y".to_vec()]),
            ]
            .into(),
        };
        assert_eq!(
            entry_to_json(&entry, &["one".into()]),
            json!({"dn": "cn=a", "bin": "/w==", "one": "eA==", "two": ["x", "y"]})
        );
    }
}
