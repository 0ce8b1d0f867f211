//! Facts: what tasks hand on to all that follow, in `ansible_facts` of their results.

use serde_json::{Map, Value};

use crate::playbook::model::Task;
use crate::playbook::template::Scope;

/// Name under which facts about the host are there together.
const ALL: &str = "ansible_facts";
/// What their names begin with where they are variables of their own.
const PREFIX: &str = "ansible_";

/// Sets the facts of a task's result. Those of `include_vars` may hold templates, rendered when they are
/// needed; facts about the host (`setup`, `getent`) are also entries of `ansible_facts`.
pub(super) fn take(root: &Scope, task: &Task, result: &Value) {
    let Some(Value::Object(facts)) = result.get(ALL) else {
        return;
    };
    match task.module.name {
        "include_vars" => root.set_templates(facts, &task.common.at),
        "setup" | "getent" => {
            let mut all = match root.get(ALL) {
                Some(Value::Object(all)) => all,
                _ => Map::new(),
            };
            for (name, value) in facts {
                let short = name.strip_prefix(PREFIX).unwrap_or(name);
                all.insert(short.to_owned(), value.clone());
                root.set(name, value.clone());
            }
            root.set(ALL, all.into());
        }
        _ => {
            for (name, value) in facts {
                root.set(name, value.clone());
            }
        }
    }
}
