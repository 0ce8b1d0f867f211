//! `again_until`: only looks can be repeated, and what they are repeated for comes later in the play.

use std::collections::HashMap;

use super::Validator;
use crate::model::Task;
use crate::source::{Location, Problem, closest};
use crate::task::module::Kind;

/// What a play's `again_until` name.
#[derive(Default)]
pub(super) struct Resting {
    /// Number of tasks up to now.
    count: usize,
    /// Where each `id` stands among the tasks, and whether its task only looks.
    ids: HashMap<String, (usize, bool)>,
    /// Number of the task, what it names, and where.
    named: Vec<(usize, String, Location)>,
    /// Handlers are looked at.
    pub of_handlers: bool,
}

impl Validator {
    /// Notes what a task names, and refuses it on a task that cannot be repeated.
    pub(super) fn again_until(&mut self, task: &Task) {
        self.resting.count += 1;
        let number = self.resting.count;
        if let Some(id) = &task.id
            && !self.resting.of_handlers
        {
            let looks = task.module.kind == Kind::ReadOnly;
            self.resting.ids.insert(id.clone(), (number, looks));
        }
        let Some((_, at)) = task.again_until.first() else {
            return;
        };
        let wrong = if self.resting.of_handlers {
            Some("a handler runs when it is notified, and looks at nothing again".to_owned())
        } else if task.module.kind == Kind::OneWay {
            let name = task.module.name;
            Some(format!(
                "`{name}` does something that must not happen twice, and is no look"
            ))
        } else {
            None
        };
        if let Some(message) = wrong {
            self.problem(
                Problem::new(
                    "playbook::again_until",
                    at,
                    message,
                    "cannot be looked at again",
                )
                .with_help("put `again_until` on tasks that look, or that describe a state"),
            );
        }
        let named = task.again_until.iter().cloned();
        self.resting
            .named
            .extend(named.map(|(id, at)| (number, id, at)));
    }

    /// What is named must come later, and be more than a look.
    pub(super) fn named_later(&mut self) {
        let Resting { ids, named, .. } = std::mem::take(&mut self.resting);
        for (number, id, at) in named {
            let message = match ids.get(&id) {
                Some((place, false)) if *place > number => continue,
                Some((place, true)) if *place > number => {
                    format!("`{id}` only looks, so that nothing ever rests on this for good")
                }
                Some(_) => format!("`{id}` does not come later in the play"),
                None => format!("no task of the play has the id `{id}`"),
            };
            let later = ids
                .iter()
                .filter(|(_, (place, looks))| *place > number && !looks);
            let near = closest(&id, later.map(|(id, _)| id.as_str()));
            let help = near.map_or_else(
                || "name the `id` of the later task whose effect rests on this look".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            self.problem(
                Problem::new(
                    "playbook::unknown_again_until",
                    &at,
                    message,
                    "no later effect",
                )
                .with_help(help),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::load::LoadOptions;
    use crate::model::{Item, Task};
    use crate::task::module::Kind;
    use crate::validate::{KnownNames, check};

    fn problems(tasks: &str) -> Vec<String> {
        let indented: String = tasks.lines().map(|line| format!("    {line}\n")).collect();
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("p.yaml");
        std::fs::write(&path, format!("- hosts: all\n  tasks:\n{indented}")).expect("write");
        match check(&path, &LoadOptions::default(), &KnownNames::default()) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|problem| problem.message)
                .collect(),
        }
    }

    #[test]
    fn what_rests_on_a_look_comes_later_and_is_more_than_a_look() {
        let effect = "- {id: effect, command: x}";
        let cases = [
            ("- {stat: {path: /x}, again_until: effect}", "", effect, ""),
            (
                "- {stat: {path: /x}, again_until: [effect, effect]}",
                "",
                effect,
                "",
            ),
            ("- {file: {path: /x}, again_until: effect}", "", effect, ""),
            (
                "- {stat: {path: /x}, again_until: efect}",
                "",
                effect,
                "no task of the play",
            ),
            (
                "- {stat: {path: /x}, again_until: effect}",
                effect,
                "",
                "does not come later",
            ),
            (
                "- {stat: {path: /x}, again_until: look}",
                "",
                "- {id: look, stat: {path: /y}}",
                "only looks",
            ),
            (
                "- {id: own, stat: {path: /x}, again_until: own}",
                "",
                "",
                "does not come later",
            ),
            (
                "- {id: a, command: y, again_until: effect}",
                "",
                effect,
                "must not happen twice",
            ),
        ];
        for (task, before, after, expected) in cases {
            let tasks = format!("{before}\n{task}\n{after}\n");
            let found = problems(&tasks);
            match expected {
                "" => assert!(found.is_empty(), "{tasks}: {found:?}"),
                words => {
                    assert_eq!(found.len(), 1, "{tasks}: {found:?}");
                    assert!(found[0].contains(words), "{tasks}: {found:?}");
                }
            }
        }
    }

    /// Looks of the shipped playbooks whose answer may change between two runs, and what they are not bound
    /// for.
    const NOT_BOUND: &[&str] = &[
        // Notes how the run left it: compared later, never judged.
        "after-dump",
        // What the steps before have put there.
        "scripts-there",
    ];

    #[test]
    fn every_look_of_the_shipped_playbooks_that_may_change_is_looked_at_again() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks");
        let mut bound = 0;
        for name in ["kaapana-0.2-to-0.3.yaml", "kaapana-0.3-schema.yaml"] {
            let options = LoadOptions::default();
            let checked = check(&folder.join(name), &options, &KnownNames::default());
            let playbook = checked.expect("it ships well-formed").playbook;
            for play in &playbook.plays {
                assert!(play.site.is_some(), "{name} names its site");
                each_task(&play.items, &mut |task| {
                    let id = task.id.as_deref().unwrap_or_default();
                    let judged = task.module.name != "stat" || !task.failed_when.is_empty();
                    let changes = [
                        "postgresql_data_directory",
                        "ldap_data_directory",
                        "disk_space",
                        "docker_image",
                        "k8s_info",
                        "stat",
                    ];
                    if changes.contains(&task.module.name) && judged && !NOT_BOUND.contains(&id) {
                        assert!(!task.again_until.is_empty(), "{name}: {id}");
                        assert_ne!(task.module.kind, Kind::OneWay);
                        bound += 1;
                    }
                });
            }
        }
        assert!(bound >= 18, "only {bound} were found");
    }

    fn each_task(items: &[Item], visit: &mut impl FnMut(&Task)) {
        for item in items {
            match item {
                Item::Task(task) => visit(task),
                // Those of a rollback belong to one undo.
                Item::Block(block) if block.before_undo_of.is_some() => {}
                Item::Block(block) => {
                    for list in [&block.block, &block.rescue, &block.always] {
                        each_task(list, visit);
                    }
                }
            }
        }
    }
}
