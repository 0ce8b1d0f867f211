//! Tasks of other files: `import_tasks` and `include_tasks` with a fixed path become a block.

use std::path::{Path, PathBuf};

use super::Loader;
use super::fields::{Fields, scalar_text, wrong_type};
use super::keywords;
use super::task::Inherited;
use crate::model::{Block, Item, Node, NodeKind, Task};
use crate::source::{Location, Problem};
use crate::template::is_template;

impl Loader<'_> {
    /// Reads the include that `fields` holds.
    pub(super) fn include(
        &mut self,
        keyword: &str,
        mut fields: Fields<'_>,
        inherited: &Inherited,
    ) -> Option<Block> {
        let mut common = self.common(&mut fields, inherited);
        self.without_effect(&mut fields);
        let r#loop = match keyword.ends_with("include_tasks") {
            true => self.repetition(&mut fields),
            false => None,
        };
        let (keyword_at, target) = fields.take(keyword)?;
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            let help = match key {
                "loop" | "with_items" | "loop_control" => {
                    "use `include_tasks`, or repeat the tasks inside the file"
                }
                "register" | "until" | "retries" | "notify" | "changed_when" | "failed_when" => {
                    "put it on the tasks inside the file"
                }
                _ => {
                    let known = [keywords::COMMON, keywords::INCLUDE];
                    self.leftover("an include", key, at, &known, false);
                    continue;
                }
            };
            self.problem(
                Problem::new(
                    "playbook::unsupported",
                    at,
                    format!("`{key}` is not supported on `{keyword}`"),
                    "not supported",
                )
                .with_help(help),
            );
        }
        let target = match &target.kind {
            NodeKind::Mapping(entries) => {
                for (key, at, _) in entries.iter().filter(|(key, _, _)| key != "file") {
                    self.leftover(&format!("`{keyword}`"), key, at, &[&["file"]], false);
                }
                match target.get("file") {
                    Some(file) => file,
                    None => {
                        self.problem(Problem::new(
                            "playbook::missing_keyword",
                            keyword_at,
                            format!("`{keyword}` does not say which file"),
                            "no `file`",
                        ));
                        return None;
                    }
                }
            }
            _ => target,
        };
        let path = self.fixed_path(keyword, target, &inherited.file)?;
        common.name.get_or_insert_with(|| {
            path.file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        });
        self.enter(&path, Some(&target.at))?;
        let inner = Inherited {
            tags: common.tags.clone(),
            no_log: common.no_log,
            defaults: inherited.defaults.clone(),
            file: path.clone(),
        };
        let names_incomplete = self.names_incomplete;
        let list = self.file(&path, "tasks file", Some(&target.at));
        if list.is_none() {
            // It can register a name or two only: what is undefined without it is worth telling.
            self.names_incomplete = names_incomplete;
            self.unread_tasks.push(path.clone());
        }
        let block = list
            .map(|list| {
                if matches!(&list.kind, NodeKind::Sequence(items) if looks_like_plays(items)) {
                    self.problem(
                        Problem::new(
                            "playbook::include_plays",
                            &target.at,
                            "the file holds plays, not tasks",
                            "a playbook",
                        )
                        .with_help("import it between the plays with `import_playbook`"),
                    );
                    return Vec::new();
                }
                self.items(&list, &inner)
            })
            .unwrap_or_default();
        self.reading.pop();
        Some(Block {
            common,
            dynamic: keyword.ends_with("include_tasks"),
            r#loop,
            services: Vec::new(),
            before_undo_of: None,
            block,
            rescue: Vec::new(),
            always: Vec::new(),
        })
    }

    /// Returns the path that a keyword names: beside the file that names it, else beside the playbook.
    pub(super) fn fixed_path(
        &mut self,
        keyword: &str,
        node: &Node,
        from: &Path,
    ) -> Option<PathBuf> {
        let Some(text) = scalar_text(node).filter(|text| !text.trim().is_empty()) else {
            let problem = wrong_type(&node.at, &format!("`{keyword}`"), "a path", node);
            self.problem(problem);
            return None;
        };
        if is_template(&text) {
            self.problem(
                Problem::new(
                    "playbook::include_template",
                    &node.at,
                    format!("`{keyword}` needs a fixed path"),
                    "a template",
                )
                .with_help(
                    "everything is checked before anything runs: include each file by its path, \
                     with `when`",
                ),
            );
            self.names_incomplete = true;
            return None;
        }
        let beside = from.parent().unwrap_or(Path::new("")).join(text.trim());
        if beside.exists() {
            return Some(beside);
        }
        let from_playbook = self.folder.join(text.trim());
        Some(if from_playbook.exists() {
            from_playbook
        } else {
            beside
        })
    }

    /// Reads `handlers`; included files are laid flat, because a handler is notified by its own name.
    pub(super) fn handlers(&mut self, list: &Node, inherited: &Inherited) -> Vec<Task> {
        let items = self.items(list, inherited);
        let mut handlers = Vec::new();
        for item in items {
            self.flatten(item, &mut handlers);
        }
        handlers
    }

    fn flatten(&mut self, item: Item, handlers: &mut Vec<Task>) {
        match item {
            Item::Task(task) => handlers.push(*task),
            Item::Block(block) => {
                let unfit = !block.rescue.is_empty()
                    || !block.always.is_empty()
                    || !block.services.is_empty();
                if unfit {
                    self.problem(
                        Problem::new(
                            "playbook::handler_block",
                            &first_word(&block.common.at),
                            "a handler cannot be a block with `rescue`, `always` or `services`",
                            "a block",
                        )
                        .with_help("make each task a handler of its own"),
                    );
                }
                let before = handlers.len();
                for item in block.block {
                    self.flatten(item, handlers);
                }
                for handler in &mut handlers[before..] {
                    let outer = &block.common;
                    let own = std::mem::take(&mut handler.common.when);
                    handler.common.when = outer.when.iter().cloned().chain(own).collect();
                    let own = std::mem::take(&mut handler.common.vars);
                    handler.common.vars = outer
                        .vars
                        .iter()
                        .filter(|(name, _, _)| !own.iter().any(|(known, _, _)| known == name))
                        .cloned()
                        .collect();
                    handler.common.vars.extend(own);
                    for (mine, theirs) in [
                        (&mut handler.common.environment, &outer.environment),
                        (&mut handler.common.r#become, &outer.r#become),
                        (&mut handler.common.ignore_errors, &outer.ignore_errors),
                        (&mut handler.common.check_mode, &outer.check_mode),
                    ] {
                        if mine.is_none() {
                            mine.clone_from(theirs);
                        }
                    }
                }
            }
        }
    }
}

fn looks_like_plays(items: &[Node]) -> bool {
    items.iter().any(|item| item.get("hosts").is_some())
}

fn first_word(at: &Location) -> Location {
    super::play::first_line(at)
}
