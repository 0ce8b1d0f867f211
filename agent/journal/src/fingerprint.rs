//! The hash that says "same task, same inputs".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What a task's work depended on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 over module and arguments in canonical form; hex.
    pub arguments: String,
    /// Input file -> SHA-256 of its content, hex; `None` where it could not be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<PathBuf, Option<String>>,
    /// Service around the task -> what it runs on: image, volumes and mounts, secrets cut out. Absent
    /// in records of tasks without services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Value>,
    /// The hash over all arguments, where some of them are left out of `arguments`: journals that were begun
    /// by older agents have it in its place.
    #[serde(skip)]
    pub whole: Option<String>,
}

impl Fingerprint {
    /// Hashes module, arguments (secrets already cut out) and input files.
    #[must_use]
    pub fn new(module: &str, arguments: &Value, files: &[PathBuf]) -> Self {
        let files = files
            .iter()
            .map(|path| (path.clone(), sha256_of_file(path).ok()))
            .collect();
        Self {
            arguments: hash_of(module, arguments),
            files,
            services: BTreeMap::new(),
            whole: None,
        }
    }

    /// Leaves arguments out that have no part in what comes out.
    #[must_use]
    pub fn without(mut self, module: &str, arguments: &Value, left_out: &[&str]) -> Self {
        let Value::Object(map) = arguments else {
            return self;
        };
        if !left_out.iter().any(|name| map.contains_key(*name)) {
            return self;
        }
        let rest = map
            .iter()
            .filter(|(name, _)| !left_out.contains(&name.as_str()));
        let rest: serde_json::Map<_, _> = rest.map(|(name, v)| (name.clone(), v.clone())).collect();
        let whole = std::mem::replace(&mut self.arguments, hash_of(module, &rest.into()));
        self.whole = Some(whole);
        self
    }

    /// Adds what the services around the task run on.
    #[must_use]
    pub fn with_services(mut self, services: BTreeMap<String, Value>) -> Self {
        self.services = services;
        self
    }

    /// Tells whether a task finished under `self` may count as finished under `now`. An input file
    /// that has since gone does not make a finished task unfinished: its effect is there. Nor does a
    /// service that the task had not known.
    #[must_use]
    pub fn covers(&self, now: &Self) -> bool {
        (self.arguments == now.arguments || now.whole.as_ref() == Some(&self.arguments))
            && now
                .files
                .iter()
                .all(|(path, hash)| match (hash, self.files.get(path)) {
                    (None, _) => true,
                    (Some(hash), Some(Some(old))) => hash == old,
                    (Some(_), _) => false,
                })
            && now
                .services
                .iter()
                .all(|(name, runs_on)| self.services.get(name).is_none_or(|old| old == runs_on))
    }
}

fn hash_of(module: &str, arguments: &Value) -> String {
    let mut text = String::from(module);
    text.push('\n');
    canonical(arguments, &mut text);
    sha256_hex(text.as_bytes())
}

/// Writes JSON with sorted keys and no spaces.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(item, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// SHA-256 as lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 of a file's content as lower-case hex.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_of_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_arguments_does_not_matter_but_their_values_and_the_module_do() {
        let print = |module, value| Fingerprint::new(module, &value, &[]);
        let one = print("copy", json!({"a": 1, "b": {"c": 2, "d": 3}}));
        assert_eq!(one, print("copy", json!({"b": {"d": 3, "c": 2}, "a": 1})));
        assert_ne!(one, print("copy", json!({"b": {"d": 3, "c": 2}, "a": 2})));
        assert_ne!(one, print("file", json!({"b": {"d": 3, "c": 2}, "a": 1})));
    }

    #[test]
    fn an_argument_that_is_left_out_may_change_and_older_records_have_it_in_their_hash() {
        let args = |connections| json!({"db": "pacs", "connections": connections});
        let print = |n| Fingerprint::new("m", &args(n), &[]);
        let now = |n| print(n).without("m", &args(n), &["connections"]);
        assert!(now(2).covers(&now(3)));
        assert!(print(2).covers(&now(2)), "an older record");
        assert!(
            !print(2).covers(&now(3)),
            "an older record, of another value"
        );
        let other = json!({"db": "other", "connections": 2});
        let other = Fingerprint::new("m", &other, &[]).without("m", &other, &["connections"]);
        assert!(!now(2).covers(&other));
    }

    #[test]
    fn a_changed_input_file_counts_and_one_that_went_away_does_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("script.sql");
        std::fs::write(&path, "one").expect("write");
        let print = || Fingerprint::new("m", &Value::Null, std::slice::from_ref(&path));
        let before = print();
        std::fs::write(&path, "two").expect("write");
        assert!(!before.covers(&print()));
        std::fs::remove_file(&path).expect("remove");
        assert!(before.covers(&print()));
    }

    #[test]
    fn another_directory_under_a_service_counts_and_a_service_that_was_not_there_does_not() {
        let on = |directory: &str| {
            let runs_on = BTreeMap::from([("db".to_owned(), json!({"volumes": [directory]}))]);
            Fingerprint::new("m", &Value::Null, &[]).with_services(runs_on)
        };
        assert!(on("/a").covers(&on("/a")));
        assert!(!on("/a").covers(&on("/b")));
        assert!(Fingerprint::new("m", &Value::Null, &[]).covers(&on("/a")));
    }
}
