//! One task as the present playbook has it, beside what the journal knows: nothing is run.

use serde::Serialize;
use serde_json::Value;

use super::frame::Frame;
use super::plan::differences;
use super::run::Engine;
use super::unit::{Look, Place};
use crate::modules::Kind;
use crate::playbook::model::{Block, Item, Task};
use crate::state::{Fingerprint, History, TaskHistory};

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
    /// `arguments`, or the path of an input file.
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
    parts
}

impl Engine {
    /// Finds a task of the present playbook by its identity, loop items included. Registered results
    /// and facts are the journal's.
    #[must_use]
    pub fn task_now(&self, identity: &str, history: &History) -> Option<TaskNow> {
        let root = self.root_scope();
        for (_, known) in history.tasks() {
            if let TaskHistory::Finished(finished) = known
                && let Some(Value::Object(facts)) = finished.result.get("ansible_facts")
            {
                for (name, value) in facts {
                    root.set(name, value.clone());
                }
            }
        }
        for play in &self.playbook.plays {
            let frame = Frame::of_play(play, self.play_scope(&root, play));
            let mut found = Vec::new();
            collect(&play.items, &frame, &mut found);
            found.extend(play.handlers.iter().map(|handler| (handler, frame.clone())));
            for (task, frame) in found {
                let own = self.identities.get(task);
                if let Some(name) = &task.register
                    && let Some(TaskHistory::Finished(finished)) = history.task(own)
                {
                    root.set(name, finished.result.clone());
                }
                if !identity.starts_with(own) {
                    continue;
                }
                if let Some(place) = self
                    .places(task, &frame)
                    .iter()
                    .find(|place| place.identity == identity)
                {
                    return Some(self.now_of(place, history));
                }
            }
        }
        None
    }

    fn now_of(&self, place: &Place<'_>, history: &History) -> TaskNow {
        let look = self.look(place, &self.unit_scope(place), history, &[]);
        let ready = match look {
            Ok(Look::Ready(ready)) => Some(ReadyNow {
                arguments: ready.shown,
                fingerprint: ready.fingerprint,
            }),
            _ => None,
        };
        TaskNow {
            module: place.task.module.name,
            kind: place.task.module.kind,
            ready,
        }
    }
}

fn collect<'p>(items: &'p [Item], frame: &Frame<'p>, found: &mut Vec<(&'p Task, Frame<'p>)>) {
    for item in items {
        match item {
            Item::Task(task) => found.push((task, frame.clone())),
            Item::Block(block) => {
                let Block {
                    block: inner,
                    rescue,
                    always,
                    ..
                } = block.as_ref();
                let frame = frame.enter(block);
                for items in [inner, rescue, always] {
                    collect(items, &frame, found);
                }
            }
        }
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
