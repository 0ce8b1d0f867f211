//! Keeps secrets out of everything that is printed or written.

use std::sync::{Arc, RwLock};

use serde_json::Value;

/// What stands where a secret was.
pub const HIDDEN: &str = "[hidden]";

/// Knows the secret strings of a run and cuts them out of texts and values. Clones share what is known.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Adds every text inside `value`. Texts under three characters would cut up innocent ones and are
    /// not added.
    pub fn add(&self, value: &Value) {
        match value {
            Value::String(text) if text.chars().count() >= 3 => {
                let mut secrets = self.secrets.write().unwrap_or_else(|e| e.into_inner());
                if !secrets.contains(text) {
                    secrets.push(text.clone());
                    // Longest first, so that a secret inside another does not leave its rest behind.
                    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(map) => map.values().for_each(|item| self.add(item)),
            _ => {}
        }
    }

    /// Returns the text without secrets.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(|e| e.into_inner());
        let mut text = text.to_owned();
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            text = cut(&text, secret);
        }
        text
    }

    /// Returns the value with every secret text, and every value under a password-like key, hidden.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, item)| {
                    let hide = is_secret_name(key) && !item.is_null() && !item.is_boolean();
                    (
                        key.clone(),
                        if hide {
                            HIDDEN.into()
                        } else {
                            self.value(item)
                        },
                    )
                })
                .collect(),
            other => other.clone(),
        }
    }
}

/// Where two values differ, of which one was made of the other by [`Redactor::value`]: JSON pointers.
#[must_use]
pub fn differing(whole: &Value, cut: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(whole, cut, &mut String::new(), &mut found);
    found
}

fn compare(whole: &Value, cut: &Value, path: &mut String, found: &mut Vec<String>) {
    let at = path.len();
    match (whole, cut) {
        (Value::Object(one), Value::Object(other)) => {
            for (name, item) in one {
                path.push('/');
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
                compare(item, other.get(name).unwrap_or(&Value::Null), path, found);
                path.truncate(at);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for (index, (item, other)) in one.iter().zip(other).enumerate() {
                path.push_str(&format!("/{index}"));
                compare(item, other, path, found);
                path.truncate(at);
            }
        }
        (one, other) if one == other => {}
        _ => found.push(path.clone()),
    }
}

/// A secret shorter than this is cut out only where it stands alone: `pacs` is hidden in
/// `PGPASSWORD=pacs`, and `pacsdb` stays readable.
const LONG: usize = 8;

fn cut(text: &str, secret: &str) -> String {
    let alone = secret.chars().count() < LONG;
    // A part of a path is no secret, and a path that came back cut from the journal would lead nowhere.
    let joins = |c: char| c.is_alphanumeric() || "_/-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(secret) {
        let (before, after) = (&rest[..at], &rest[at + secret.len()..]);
        let joined = before
            .chars()
            .next_back()
            .or(out.chars().next_back())
            .is_some_and(joins)
            || after.chars().next().is_some_and(joins);
        out.push_str(before);
        out.push_str(if alone && joined { secret } else { HIDDEN });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Tells whether an argument or environment variable of this name holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "private_key",
        // Ansible's `bind_pw`, and the variables of slapd's image.
        "_pw",
        "rootpass",
        "configpass",
    ]
    .iter()
    .any(|part| name.ends_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_cut_is_told_by_its_place() {
        let redactor = Redactor::default();
        redactor.add(&json!("hunter2-long"));
        let whole = json!({
            "a": ["x", "is hunter2-long"], "b/c": {"~d": "hunter2-long"}, "db_password": "other",
            "e": 1, "f": "[hidden]",
        });
        let cut = redactor.value(&whole);
        assert_eq!(
            differing(&whole, &cut),
            ["/a/1", "/b~1c/~0d", "/db_password"]
        );
        assert!(differing(&cut, &cut).is_empty());
    }

    #[test]
    fn secrets_vanish_from_texts_keys_and_nested_values() {
        let redactor = Redactor::default();
        redactor.add(&json!("pacs"));
        assert_eq!(redactor.text("/data/pacs/backup"), "/data/pacs/backup");
        assert_eq!(
            redactor.text("/pacsdb of pacs:pacs"),
            "/pacsdb of [hidden]:[hidden]"
        );
        redactor.add(&json!({"a": ["hunter2-long", "hunter2"]}));
        assert_eq!(
            redactor.text("x hunter2-long y hunter2"),
            "x [hidden] y [hidden]"
        );
        let shown =
            redactor.value(&json!({"env": {"POSTGRES_PASSWORD": "pacs"}, "cmd": "hunter2"}));
        assert_eq!(
            shown,
            json!({"env": {"POSTGRES_PASSWORD": HIDDEN}, "cmd": HIDDEN})
        );
    }
}
