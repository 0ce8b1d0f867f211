//! Which names are defined where.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use super::{KnownNames, Validator};
use crate::model::{Common, Item, NodeKind, Play, Playbook, Task};
use crate::source::{closest, shown};
use crate::template::{Inspected, undefined_name};

/// Names that the agent itself defines.
const MAGIC: &[&str] = &[
    "ansible_check_mode",
    "ansible_diff_mode",
    "ansible_failed_result",
    "ansible_failed_task",
    "ansible_host",
    "ansible_loop_var",
    "ansible_play_batch",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_play_name",
    "ansible_run_tags",
    "ansible_skip_tags",
    "ansible_verbosity",
    "group_names",
    "groups",
    "hostvars",
    "inventory_hostname",
    "inventory_hostname_short",
    "omit",
    "play_hosts",
    "playbook_dir",
    "vars",
];

/// The names of a playbook.
pub(super) struct Names {
    /// From outside, and what any task of any play registers or sets.
    global: BTreeSet<String>,
    /// What a play's `vars` and `vars_files` define, by the place where the play begins.
    plays: HashMap<(String, usize), BTreeSet<String>>,
    /// More names may be defined than are known: undefined ones are not reported.
    pub open: bool,
    /// Files of tasks that could not be read.
    unread_tasks: Vec<PathBuf>,
    current: (String, usize),
}

fn key(play: &Play) -> (String, usize) {
    (play.at.file.path.display().to_string(), play.at.start)
}

impl Names {
    pub fn of(playbook: &Playbook, known: &KnownNames) -> Self {
        let mut names = Self {
            global: known.names.clone(),
            plays: HashMap::new(),
            open: known.open,
            unread_tasks: known.unread_tasks.clone(),
            current: (String::new(), 0),
        };
        names
            .global
            .extend(MAGIC.iter().map(|name| (*name).to_owned()));
        for play in &playbook.plays {
            let own = std::iter::once(&play.vars)
                .chain(&play.vars_files)
                .flatten()
                .map(|(name, _, _)| name.clone());
            let declared = play.declared.iter().flat_map(|all| all.defaults());
            let own = own.chain(declared.map(|(name, _, _)| name));
            names.plays.entry(key(play)).or_default().extend(own);
            each_task(&play.items, &mut |task| names.defined_by(task));
            for handler in &play.handlers {
                names.defined_by(handler);
            }
        }
        names
    }

    fn defined_by(&mut self, task: &Task) {
        self.global.extend(task.register.clone());
        self.open |= task.module.reads_variables;
        let facts = task.module.sets_facts;
        self.global
            .extend(facts.iter().map(|name| (*name).to_owned()));
        if task.module.name != "set_fact" {
            return;
        }
        if let NodeKind::Mapping(entries) = &task.args.kind {
            for (name, _, _) in entries {
                // A name that is a template itself may become any.
                self.open |= crate::template::is_template(name);
                self.global.insert(name.clone());
            }
        }
    }

    pub fn defines(&self, play: &Play, name: &str) -> bool {
        self.global.contains(name)
            || self
                .plays
                .get(&key(play))
                .is_some_and(|names| names.contains(name))
            || self.anywhere(play).iter().any(|known| known == name)
    }

    pub fn all(&self, play: &Play) -> BTreeSet<String> {
        let own = self.plays.get(&key(play)).into_iter().flatten();
        self.global.iter().chain(own).cloned().collect()
    }

    /// Names that tasks, blocks and loops of a play define for themselves.
    pub fn anywhere(&self, play: &Play) -> Vec<String> {
        fn vars(common: &Common, names: &mut Vec<String>) {
            names.extend(common.vars.iter().map(|(name, _, _)| name.clone()));
        }
        fn walk(items: &[Item], names: &mut Vec<String>) {
            for item in items {
                match item {
                    Item::Task(task) => of_task(task, names),
                    Item::Block(block) => {
                        vars(&block.common, names);
                        if let Some(repeat) = &block.r#loop {
                            names.extend(super::names_of(repeat).map(str::to_owned));
                        }
                        for list in [&block.block, &block.rescue, &block.always] {
                            walk(list, names);
                        }
                    }
                }
            }
        }
        fn of_task(task: &Task, names: &mut Vec<String>) {
            vars(&task.common, names);
            if let Some(repeat) = &task.r#loop {
                names.extend(super::names_of(repeat).map(str::to_owned));
            }
        }
        let mut names = Vec::new();
        walk(&play.items, &mut names);
        for handler in &play.handlers {
            of_task(handler, &mut names);
        }
        names
    }

    pub fn enter(&mut self, play: &Play) {
        self.current = key(play);
    }

    fn here(&self, name: &str) -> bool {
        self.global.contains(name)
            || self
                .plays
                .get(&self.current)
                .is_some_and(|names| names.contains(name))
    }
}

fn each_task(items: &[Item], visit: &mut impl FnMut(&Task)) {
    for item in items {
        match item {
            Item::Task(task) => visit(task),
            Item::Block(block) => {
                for list in [&block.block, &block.rescue, &block.always] {
                    each_task(list, visit);
                }
            }
        }
    }
}

impl Validator {
    /// Keeps the mistakes of a template, and reports names that nothing defines. `lenient`: `item` may
    /// be used (a play variable that is used in loops only).
    pub(super) fn report(&mut self, found: Inspected, lenient: bool) {
        for problem in found.problems {
            self.problem(problem);
        }
        if self.names.open {
            return;
        }
        for needed in found.needed {
            let name = needed.name.as_str();
            if needed.guarded
                || self.names.here(name)
                || self.local.iter().any(|known| known == name)
                || self.guarded.iter().any(|known| known == name)
                || (lenient && name == "item")
            {
                continue;
            }
            let own = self.names.plays.get(&self.names.current);
            let near = closest(
                name,
                self.local
                    .iter()
                    .chain(own.into_iter().flatten())
                    .chain(&self.names.global)
                    .map(String::as_str),
            )
            .map(str::to_owned);
            let message_at = needed.at.clone();
            let mut problem = undefined_name(name, &message_at, near.as_deref());
            if name == "item" && problem.help.is_none() {
                problem.help = Some("`item` is there in a task with `loop` only".to_owned());
            }
            if problem.help.is_none()
                && let Some(path) = self.names.unread_tasks.first()
            {
                problem.help = Some(format!(
                    "unless {}, which cannot be read, registers it",
                    shown(path)
                ));
            }
            self.problem(problem);
        }
    }
}
