//! Facts: what tasks hand on to all that follow, in `ansible_facts` of their results.

use serde_json::{Map, Value};

use crate::playbook::model::Task;
use crate::playbook::template::{Cut, Rank, Scope};

/// Name under which facts about the host are there together.
const ALL: &str = "ansible_facts";
/// What their names begin with where they are variables of their own.
const PREFIX: &str = "ansible_";

/// Sets the facts of a task's result. Those of `include_vars` may hold templates, rendered when they are
/// needed; facts about the host (`setup`, `getent`) are also entries of `ansible_facts`. `cut` says what the
/// result lost on its way through the journal; with `lost_only` nothing is set but what was lost before.
pub(super) fn take(root: &Scope, task: &Task, result: &Value, cut: &Cut, lost_only: bool) {
    let Some(Value::Object(facts)) = result.get(ALL) else {
        if task.module.name == "set_fact" && result.get("censored").is_some() {
            all_lost(root, task, cut);
        }
        return;
    };
    let wanted = |name: &str| !lost_only || root.is_cut(name, &cut.origin);
    let part = |name: &str| Cut {
        paths: below(&cut.paths, name),
        origin: cut.origin.clone(),
    };
    match task.module.name {
        "include_vars" => {
            let (lost, whole): (Map<_, _>, Map<_, _>) = facts
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .partition(|(name, _)| !part(name).paths.is_empty());
            root.set_templates(&whole, &task.common.at);
            for (name, value) in lost {
                // As a whole: templates in what is left of it are never rendered.
                let cut = Cut {
                    paths: vec![String::new()],
                    origin: cut.origin.clone(),
                };
                root.set_cut(Rank::Included, name, value, cut);
            }
        }
        "setup" | "getent" => {
            let mut all = match root.get(ALL) {
                Some(Value::Object(all)) => all,
                _ => Map::new(),
            };
            let mut lost = Vec::new();
            for (name, value) in facts {
                let short = name.strip_prefix(PREFIX).unwrap_or(name);
                all.insert(short.to_owned(), value.clone());
                let cut = part(name);
                lost.extend(cut.paths.iter().map(|path| format!("/{short}{path}")));
                root.set_cut(Rank::Host, name, value.clone(), cut);
            }
            let cut = Cut {
                paths: lost,
                origin: cut.origin.clone(),
            };
            root.set_cut(Rank::Host, ALL, all.into(), cut);
        }
        _ => {
            for (name, value) in facts.iter().filter(|(name, _)| wanted(name)) {
                root.set_cut(Rank::Set, name, value.clone(), part(name));
            }
        }
    }
}

/// Under `no_log` the journal does not even have the names; the playbook has them.
fn all_lost(root: &Scope, task: &Task, cut: &Cut) {
    let Value::Object(arguments) = task.args.to_value() else {
        return;
    };
    for (name, _) in arguments {
        let cut = Cut {
            paths: vec![String::new()],
            origin: cut.origin.clone(),
        };
        root.set_cut(Rank::Set, name, Value::Null, cut);
    }
}

/// Pointers into one fact, of those into the result.
fn below(paths: &[String], name: &str) -> Vec<String> {
    let name = name.replace('~', "~0").replace('/', "~1");
    let prefix = format!("/{ALL}/{name}");
    let within = |path: &String| {
        let rest = path.strip_prefix(&prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    paths.iter().filter_map(within).collect()
}
