//! One task as the present playbook has it, beside what the journal knows: nothing is run.

use serde::Serialize;
use serde_json::Value;

use super::question::differences;
use super::run::Engine;
use crate::state::fingerprint::sha256_hex;
use crate::state::{Fingerprint, History};
use crate::task::module::Kind;

/// A task of the present playbook.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskNow {
    /// Module.
    pub module: &'static str,
    /// What running it twice means.
    pub kind: Kind,
    /// Rendered arguments, secrets hidden; `None` where they depend on tasks that have not run, or a
    /// condition is false.
    pub ready: Option<ReadyNow>,
}

/// What a task's work would depend on now.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyNow {
    /// Rendered arguments, secrets hidden.
    pub arguments: Value,
    /// Their hash, and the input files'.
    pub fingerprint: Fingerprint,
}

/// A part of a fingerprint, then and now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// `arguments`, the path of an input file, or `service NAME`.
    pub name: String,
    /// SHA-256 of then; `None` where there was none.
    pub then: Option<String>,
    /// SHA-256 of now; `None` where there is none, or the file cannot be read.
    pub now: Option<String>,
    /// Whether it counts as unchanged.
    pub same: bool,
    /// Where it differs: `src: /a -> /b`, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

/// Compares what a task depended on with what it depends on now, part by part.
#[must_use]
pub fn compare(then: &Fingerprint, arguments: &Value, now: &ReadyNow) -> Vec<Part> {
    let same = then.arguments == now.fingerprint.arguments;
    let mut differing = Vec::new();
    if !same {
        differing = differences("", arguments, &now.arguments);
        if differing.is_empty() {
            differing.push("another module, or an argument that is not kept in the journal".into());
        }
    }
    let mut parts = vec![Part {
        name: "arguments".into(),
        then: Some(then.arguments.clone()),
        now: Some(now.fingerprint.arguments.clone()),
        same,
        differences: differing,
    }];
    let mut paths: Vec<_> = then
        .files
        .keys()
        .chain(now.fingerprint.files.keys())
        .collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let hash = |print: &Fingerprint| print.files.get(path).cloned().flatten();
        let (then, now) = (hash(then), hash(&now.fingerprint));
        parts.push(Part {
            name: path.display().to_string(),
            // A file that went away since does not make done work undone.
            same: now.is_none() || then == now,
            then,
            now,
            differences: Vec::new(),
        });
    }
    for (service, runs_on) in &now.fingerprint.services {
        let before = then.services.get(service);
        let hash = |value: &Value| sha256_hex(value.to_string().as_bytes());
        parts.push(Part {
            name: format!("service {service}"),
            then: before.map(hash),
            now: Some(hash(runs_on)),
            same: before.is_none_or(|before| before == runs_on),
            differences: before.map_or_else(Vec::new, |before| differences("", before, runs_on)),
        });
    }
    parts
}

impl Engine {
    /// Finds a task of the present playbook by its identity, loop items included. Registered results
    /// and facts are the journal's.
    #[must_use]
    pub fn task_now(&self, identity: &str, history: &History) -> Option<TaskNow> {
        let place = self.place_now(identity, history)?;
        let ready = self.ready_now(identity, history).map(|ready| ReadyNow {
            arguments: ready.shown,
            fingerprint: ready.fingerprint,
        });
        Some(TaskNow {
            module: place.task.module.name,
            kind: place.task.module.kind,
            ready,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_part_that_differs_is_named_with_both_values() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("script.sql");
        std::fs::write(&file, "one").expect("write");
        let (old, new) = (json!({"db": "a"}), json!({"db": "b"}));
        let files = [file.clone()];
        let then = Fingerprint::new("m", &old, &files);
        std::fs::write(&file, "two").expect("write");
        let now = ReadyNow {
            fingerprint: Fingerprint::new("m", &new, &files),
            arguments: new,
        };
        let parts = compare(&then, &old, &now);
        assert_eq!(parts[0].differences, ["db: a -> b"]);
        assert!(!parts[1].same && parts[1].name.ends_with("script.sql"));
        let unchanged = ReadyNow {
            arguments: old.clone(),
            fingerprint: Fingerprint::new("m", &old, &files),
        };
        assert!(
            compare(&unchanged.fingerprint, &old, &unchanged)
                .iter()
                .all(|part| part.same)
        );
    }
}
