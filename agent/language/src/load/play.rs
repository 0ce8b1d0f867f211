//! Plays: hosts, variables and lists of tasks.

use std::path::Path;

use super::Loader;
use super::fields::{Fields, vars_of, wrong_type};
use super::keywords;
use super::task::Inherited;
use crate::declared::Declarations;
use crate::model::{Item, Node, NodeKind, Play, Prompt, Task, Vars};
use crate::source::{Location, Problem};
use crate::template::{Scope, is_template};

impl Loader<'_> {
    pub(super) fn main_file(&mut self, path: &Path) -> Vec<Play> {
        self.plays_of(path, None)
    }

    fn plays_of(&mut self, path: &Path, named_at: Option<&Location>) -> Vec<Play> {
        let Some(()) = self.enter(path, named_at) else {
            return Vec::new();
        };
        let plays = match self.file(path, "playbook", named_at) {
            None => Vec::new(),
            Some(Node {
                kind: NodeKind::Sequence(items),
                ..
            }) => items
                .iter()
                .flat_map(|item| self.play(item, path))
                .collect(),
            Some(node) => {
                self.problem(
                    wrong_type(&node.at, "a playbook", "a list of plays", &node)
                        .with_help("begin with `- name: …` and `hosts: …`"),
                );
                Vec::new()
            }
        };
        self.reading.pop();
        plays
    }

    /// Notes that a file is being read; `None` if it already is: it includes itself.
    pub(super) fn enter(&mut self, path: &Path, named_at: Option<&Location>) -> Option<()> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.reading.contains(&real) {
            if let Some(at) = named_at {
                let chain: Vec<String> = self
                    .reading
                    .iter()
                    .skip_while(|known| **known != real)
                    .chain(std::iter::once(&real))
                    .map(|path| {
                        path.file_name()
                            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
                    })
                    .collect();
                self.problem(Problem::new(
                    "playbook::include_cycle",
                    at,
                    format!("the file includes itself: {}", chain.join(" -> ")),
                    "leads back to itself",
                ));
            }
            return None;
        }
        self.reading.push(real);
        Some(())
    }

    fn play(&mut self, node: &Node, file: &Path) -> Vec<Play> {
        let mut found = Vec::new();
        let Some(mut fields) = Fields::of(node, "a play", &mut found) else {
            self.problems.extend(found);
            return Vec::new();
        };
        if let Some(keyword) = keywords::IMPORT_PLAYBOOK.iter().find(|key| fields.has(key)) {
            return self.import_playbook(keyword, fields, file);
        }
        let name = fields.text("name");
        let hosts = fields.node("hosts");
        let spec = fields.take("argument_spec");
        let declared = self.declarations(spec, file);
        let vars = fields.vars("vars");
        let files = fields.nodes("vars_files");
        let environment = fields.mapping("environment");
        let r#become = fields.node("become");
        let mut secrets = fields.texts("secrets");
        for variable in declared.iter().flat_map(|all| &all.variables) {
            if variable.no_log && !secrets.contains(&variable.name) {
                secrets.push(variable.name.clone());
            }
        }
        let site = fields.node("site").and_then(|node| match &node.kind {
            NodeKind::String(_) => Some(node),
            _ => {
                fields.wrong("site", "a path", &node);
                None
            }
        });
        let tags = fields.texts("tags");
        let no_log = fields.boolean("no_log").unwrap_or(false);
        let diff = fields.node("diff");
        let gather = fields.take("gather_facts").map(|(at, _)| at.clone());
        let gather = gather.filter(|_| fields.boolean("gather_facts") == Some(true));
        let fleet = self.fleet(&mut fields, &vars);
        self.without_effect(&mut fields);
        let prompts = fields.nodes("vars_prompt");
        let prompts: Vec<Prompt> = prompts
            .iter()
            .filter_map(|node| self.prompt(node))
            .collect();
        let defaults = fields.mapping("module_defaults");
        let lists: Vec<(usize, Node)> = ["pre_tasks", "tasks", "post_tasks"]
            .iter()
            .enumerate()
            .filter_map(|(part, key)| Some((part, fields.node(key)?)))
            .collect();
        let handlers = fields.node("handlers");
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            self.leftover("a play", key, at, &[keywords::PLAY], false);
        }
        let hosts = hosts.unwrap_or_else(|| {
            self.problem(
                Problem::new(
                    "playbook::missing_keyword",
                    &first_line(&node.at),
                    "the play does not say on which hosts it runs",
                    "no `hosts`",
                )
                .with_help("add `hosts: localhost`"),
            );
            Node {
                kind: NodeKind::Null,
                at: node.at.clone(),
            }
        });
        let vars_files = self.vars_files(&files, declared.as_ref(), &vars, file);
        let inherited = Inherited {
            tags: tags.clone(),
            no_log,
            defaults: self.module_defaults(defaults),
            file: file.to_owned(),
        };
        let handlers = handlers
            .map(|list| self.handlers(&list, &inherited))
            .unwrap_or_default();
        let mut items: Vec<Item> = gather
            .and_then(|at| {
                self.engine_task("setup", Some("Gathering Facts"), None, &at, &inherited)
            })
            .into_iter()
            .collect();
        let mut parts = 0;
        for (part, list) in &lists {
            // Handlers run at the end of each part, be it empty; before the first nothing was notified.
            for _ in parts..=*part {
                if parts > 0 && !handlers.is_empty() {
                    let flush = Some(("free_form", "flush_handlers"));
                    items.extend(self.engine_task("meta", None, flush, &list.at, &inherited));
                }
            }
            parts = part + 1;
            items.extend(self.items(list, &inherited));
        }
        let flushes = 4 - parts.clamp(1, 3);
        vec![Play {
            name: name.unwrap_or_else(|| super::fields::scalar_text(&hosts).unwrap_or_default()),
            at: node.at.clone(),
            hosts,
            fleet,
            declared,
            vars,
            vars_files,
            environment,
            r#become,
            diff,
            prompts,
            secrets,
            site,
            tags,
            flushes,
            items,
            handlers,
        }]
    }

    /// A task that stands for something else than a task of the file.
    fn engine_task(
        &mut self,
        module: &str,
        name: Option<&str>,
        argument: Option<(&str, &str)>,
        at: &Location,
        inherited: &Inherited,
    ) -> Option<Item> {
        let module = self.options.catalog.find(module)?;
        let entries = argument.into_iter().map(|(key, value)| {
            let node = Node {
                kind: NodeKind::String(value.to_owned()),
                at: at.clone(),
            };
            (key.to_owned(), at.clone(), node)
        });
        let args = Node {
            kind: NodeKind::Mapping(entries.collect()),
            at: at.clone(),
        };
        let mut tags = inherited.tags.clone();
        super::task::add_tags(&mut tags, &["always".to_owned()]);
        let inherited = Inherited {
            tags,
            ..inherited.clone()
        };
        Some(Item::Task(Box::new(Task::plain(
            module,
            name,
            args,
            at,
            inherited.tags,
            inherited.no_log,
        ))))
    }

    /// Reads an entry of `vars_prompt`.
    fn prompt(&mut self, node: &Node) -> Option<Prompt> {
        let mut found = Vec::new();
        let Some(mut fields) = Fields::of(node, "an entry of `vars_prompt`", &mut found) else {
            self.problems.extend(found);
            return None;
        };
        let name = fields.variable_name("name");
        let at = fields
            .take("name")
            .map_or(&node.at, |(_, node)| &node.at)
            .clone();
        let prompt = fields.text("prompt");
        let private = fields.boolean("private").unwrap_or(true);
        let confirm = fields.boolean("confirm").unwrap_or(false);
        let default = fields.text("default");
        // Values are never rendered: each of them is what Ansible calls unsafe.
        fields.boolean("unsafe");
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            if ["encrypt", "salt", "salt_size"].contains(&key) {
                let message = format!("`{key}` of `vars_prompt` is not supported here");
                self.problem(
                    Problem::new("playbook::unsupported", at, message, "not supported")
                        .with_help("give the encrypted value with `-e`"),
                );
                continue;
            }
            let known: [&[&str]; 1] =
                [&["name", "prompt", "private", "confirm", "default", "unsafe"]];
            self.leftover("`vars_prompt`", key, at, &known, false);
        }
        if name.is_none() && !fields.has("name") {
            self.problem(Problem::new(
                "playbook::missing_keyword",
                &first_line(&node.at),
                "this does not say which variable is asked for",
                "no `name`",
            ));
        }
        let name = name?;
        self.defined_elsewhere.insert(name.clone());
        Some(Prompt {
            prompt: prompt.unwrap_or_else(|| name.clone()),
            name,
            at,
            private,
            confirm,
            default,
        })
    }

    fn import_playbook(&mut self, keyword: &str, mut fields: Fields<'_>, file: &Path) -> Vec<Play> {
        let target = fields.take(keyword);
        let vars = fields.vars("vars");
        let tags = fields.texts("tags");
        fields.text("name");
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            let help = match key {
                "when" => Some("put `when` on the tasks of the imported plays"),
                _ => None,
            };
            match help {
                Some(help) => self.problem(
                    Problem::new(
                        "playbook::unsupported",
                        at,
                        format!("`{key}` is not supported on `import_playbook`"),
                        "not supported",
                    )
                    .with_help(help),
                ),
                None => self.leftover(
                    "`import_playbook`",
                    key,
                    at,
                    &[&["import_playbook", "name", "vars", "tags"]],
                    false,
                ),
            }
        }
        let Some((_, target)) = target else {
            return Vec::new();
        };
        let Some(path) = self.fixed_path("import_playbook", target, file) else {
            return Vec::new();
        };
        let mut plays = self.plays_of(&path, Some(&target.at));
        for play in &mut plays {
            // As in Ansible, `vars` on the import are weaker than the play's own of the same name.
            let mut merged: Vars = vars
                .iter()
                .filter(|(name, _, _)| !play.vars.iter().any(|(known, _, _)| known == name))
                .cloned()
                .collect();
            merged.append(&mut play.vars);
            play.vars = merged;
            super::task::add_tags(&mut play.tags, &tags);
            for item in &mut play.items {
                super::task::tag_item(item, &tags);
            }
            for handler in &mut play.handlers {
                super::task::add_tags(&mut handler.common.tags, &tags);
            }
        }
        plays
    }

    /// Reads `vars_files`. A path may hold a template over the play's own and extra variables.
    fn vars_files(
        &mut self,
        files: &[Node],
        declared: Option<&Declarations>,
        vars: &Vars,
        from: &Path,
    ) -> Vec<Vars> {
        let mut scope = Scope::new();
        if let Some(declared) = declared {
            scope.push_vars(&declared.defaults());
        }
        scope.push_vars(vars);
        scope.push_extra(&self.options.extra_vars);
        let mut contents = Vec::new();
        for node in files {
            let NodeKind::String(text) = &node.kind else {
                let problem = wrong_type(&node.at, "an entry of `vars_files`", "a path", node);
                self.problem(problem);
                self.names_incomplete = true;
                continue;
            };
            let path = if is_template(text) {
                match self.templates.render(node, &scope) {
                    Ok(serde_json::Value::String(path)) => path,
                    Ok(_) => {
                        let problem =
                            wrong_type(&node.at, "an entry of `vars_files`", "a path", node);
                        self.problem(problem);
                        continue;
                    }
                    Err(problem) => {
                        self.names_incomplete = true;
                        self.problem(problem.with_help(
                            "a path in `vars_files` can use the play's `vars` and `-e` only",
                        ));
                        continue;
                    }
                }
            } else {
                text.clone()
            };
            let path = from.parent().unwrap_or(Path::new("")).join(path);
            let Some(content) = self.file(&path, "variables file", Some(&node.at)) else {
                continue;
            };
            let mut found = Vec::new();
            let layer = vars_of(&content, "a variables file", &mut found);
            if !found.is_empty() {
                self.names_incomplete = true;
            }
            self.problems.extend(found);
            scope.push_vars(&layer);
            contents.push(layer);
        }
        contents
    }
}

/// Shortens a place to its first line, so that a whole play is not marked.
pub(super) fn first_line(at: &Location) -> Location {
    let text = &at.file.text[at.start..at.end];
    let length = text.find('\n').unwrap_or(text.len());
    Location {
        file: at.file.clone(),
        start: at.start,
        end: at.start + text[..length].trim_end().len(),
    }
}
