//! A task's identity: the name under which the journal knows it.
//!
//! Play, names of the enclosing blocks, and the task's `id`, else its name, else its module, joined by
//! ` / `; an ordinal (`#2`) where the same text comes again; the loop item's key in brackets. Templates
//! in names are left as they are written, so an identity does not depend on variables.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::playbook::model::{Block, Item, Play, Playbook, Task};
use crate::state::fingerprint::sha256_hex;

/// Identities of every task of a playbook, by the task's place in memory.
#[derive(Debug)]
pub struct Identities {
    by_task: HashMap<usize, String>,
    names: HashSet<String>,
    total: usize,
}

impl Identities {
    /// Gives every task of the playbook its identity.
    #[must_use]
    pub fn of(playbook: &Playbook) -> Self {
        let mut walk = Walk::default();
        for play in &playbook.plays {
            walk.items(&play.items, &play.name);
            for handler in &play.handlers {
                walk.task(handler, &handlers_path(play));
            }
        }
        Self {
            total: walk.by_task.len() - walk.of_undo,
            names: walk.by_task.values().cloned().collect(),
            by_task: walk.by_task,
        }
    }

    /// Returns a task's identity, without a loop item.
    #[must_use]
    pub fn get(&self, task: &Task) -> &str {
        self.by_task.get(&address(task)).map_or("", String::as_str)
    }

    /// Every identity, without loop items.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Number of tasks of a run, loops counted once, handlers included.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Tells whether an identity (with or without loop item) belongs to this playbook.
    #[must_use]
    pub fn knows(&self, identity: &str) -> bool {
        // A name may hold what looks like the beginning of an item.
        let mut without_item = identity
            .match_indices(" [")
            .map(|(end, _)| &identity[..end]);
        self.names.contains(identity) || without_item.any(|name| self.names.contains(name))
    }
}

/// The task's place in memory: the playbook is not moved while its identities are in use.
fn address(task: &Task) -> usize {
    std::ptr::from_ref(task).addr()
}

fn handlers_path(play: &Play) -> String {
    format!("{} / handlers", play.name)
}

#[derive(Default)]
struct Walk {
    by_task: HashMap<usize, String>,
    /// Tasks that only a rollback runs.
    of_undo: usize,
    seen: HashMap<String, usize>,
}

impl Walk {
    fn items(&mut self, items: &[Item], path: &str) {
        for item in items {
            match item {
                Item::Task(task) => self.task(task, path),
                Item::Block(block) => self.block(block, path),
            }
        }
    }

    fn block(&mut self, block: &Block, path: &str) {
        let path = match &block.common.name {
            Some(name) => format!("{path} / {name}"),
            None => path.to_owned(),
        };
        let before = self.by_task.len();
        self.items(&block.block, &path);
        self.items(&block.rescue, &path);
        self.items(&block.always, &path);
        if block.before_undo_of.is_some() {
            self.of_undo += self.by_task.len() - before;
        }
    }

    fn task(&mut self, task: &Task, path: &str) {
        // It is the engine's own word and leaves no record.
        if task.module.name == "meta" {
            return;
        }
        let own = task
            .id
            .as_deref()
            .or(task.common.name.as_deref())
            .unwrap_or(task.module.name);
        let identity = format!("{path} / {own}");
        let count = self.seen.entry(identity.clone()).or_insert(0);
        *count += 1;
        let identity = if *count == 1 {
            identity
        } else {
            format!("{identity} #{count}")
        };
        self.by_task.insert(address(task), identity);
    }
}

/// Longest text, in characters, by which a loop's item is known; a longer one is known by its hash. Wide
/// enough for the paths that people loop over: whoever reads the journal must know them again.
const LONGEST_ITEM_KEY: usize = 240;

/// Keys of a loop's items, unique and readable: a label, a plain value, a map's `name`, or a hash.
#[must_use]
pub fn item_keys(items: &[Value], labels: &[Option<String>]) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    items
        .iter()
        .zip(labels)
        .map(|(item, label)| {
            let key = label.clone().unwrap_or_else(|| item_key(item));
            let count = seen.entry(key.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                key
            } else {
                format!("{key} #{count}")
            }
        })
        .collect()
}

fn item_key(item: &Value) -> String {
    let text = match item {
        Value::String(text) => text.clone(),
        Value::Object(map) => match map.get("name").or_else(|| map.get("key")) {
            Some(Value::String(name)) => name.clone(),
            _ => item.to_string(),
        },
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST_ITEM_KEY && !text.contains('\n') {
        text
    } else {
        sha256_hex(text.as_bytes())[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn items_that_look_alike_get_an_ordinal() {
        let items = [
            json!("a"),
            json!({"name": "a"}),
            json!(["x"]),
            json!("y".repeat(300)),
            json!(format!("/{}", "d".repeat(200))),
        ];
        let keys = item_keys(&items, &vec![None; items.len()]);
        assert_eq!(keys[..3], ["a", "a #2", "[\"x\"]"]);
        assert_eq!(keys[3].len(), 12);
        assert_eq!(keys[4].len(), 201, "a path stays readable");
    }
}
