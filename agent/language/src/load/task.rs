//! Tasks and blocks.

use std::path::PathBuf;
use std::sync::Arc;

use super::Loader;
use super::fields::{Fields, wrong_type};
use super::keywords;
use super::module_args::add_below;
use crate::model::{Block, Common, Item, Loop, LoopStyle, Node, NodeKind, Task};
use crate::source::{Location, Problem};
use crate::task::module::ModuleSpec;

/// `module_defaults`: arguments by module.
pub(super) type Defaults = Arc<Vec<(&'static ModuleSpec, Vec<(String, Location, Node)>)>>;

/// What items get from where they stand.
#[derive(Clone)]
pub(super) struct Inherited {
    pub tags: Vec<String>,
    pub no_log: bool,
    pub defaults: Defaults,
    /// The file that holds the items; paths in it are relative to its folder.
    pub file: PathBuf,
}

pub(super) fn add_tags(tags: &mut Vec<String>, more: &[String]) {
    for tag in more {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
}

/// Gives an item, and what it holds, more tags.
pub(super) fn tag_item(item: &mut Item, tags: &[String]) {
    match item {
        Item::Task(task) => add_tags(&mut task.common.tags, tags),
        Item::Block(block) => {
            add_tags(&mut block.common.tags, tags);
            let lists = [&mut block.block, &mut block.rescue, &mut block.always];
            for item in lists.into_iter().flatten() {
                tag_item(item, tags);
            }
        }
    }
}

/// The keywords of loops.
pub(crate) const LOOPS: &[(&str, LoopStyle)] = &[
    ("loop", LoopStyle::List),
    ("with_items", LoopStyle::Items),
    ("with_list", LoopStyle::List),
    ("with_flattened", LoopStyle::Items),
    ("with_dict", LoopStyle::Dict),
    ("with_nested", LoopStyle::Nested),
    ("with_cartesian", LoopStyle::Nested),
    ("with_together", LoopStyle::Together),
    ("with_indexed_items", LoopStyle::Indexed),
    ("with_sequence", LoopStyle::Sequence),
    ("with_fileglob", LoopStyle::FileGlob),
];

/// The tasks of `again_until`, each with its place.
fn again_until(fields: &mut Fields<'_>) -> Vec<(String, Location)> {
    let names = fields.texts("again_until");
    let Some((_, node)) = fields.take("again_until") else {
        return Vec::new();
    };
    match &node.kind {
        NodeKind::Sequence(items) => names
            .into_iter()
            .zip(items.iter().map(|item| item.at.clone()))
            .collect(),
        _ => names
            .into_iter()
            .map(|name| (name, node.at.clone()))
            .collect(),
    }
}

impl Loader<'_> {
    /// Reads a list of tasks and blocks.
    pub(super) fn items(&mut self, list: &Node, inherited: &Inherited) -> Vec<Item> {
        match &list.kind {
            NodeKind::Null => Vec::new(),
            NodeKind::Sequence(items) => items
                .iter()
                .filter_map(|item| self.item(item, inherited))
                .collect(),
            _ => {
                let problem = wrong_type(&list.at, "tasks", "a list", list);
                self.problem(problem);
                Vec::new()
            }
        }
    }

    fn item(&mut self, node: &Node, inherited: &Inherited) -> Option<Item> {
        let mut found = Vec::new();
        let Some(fields) = Fields::of(node, "a task", &mut found) else {
            self.problems.extend(found);
            return None;
        };
        if fields.has("block") {
            return Some(Item::Block(Box::new(self.block(fields, inherited))));
        }
        if let Some(keyword) = keywords::INCLUDE.iter().find(|key| fields.has(key)) {
            return self
                .include(keyword, fields, inherited)
                .map(|block| Item::Block(Box::new(block)));
        }
        // Names that a task defines count even if the task itself is wrong.
        for key in ["register"] {
            if let Some(NodeKind::String(name)) = node.get(key).map(|node| &node.kind) {
                self.defined_elsewhere.insert(name.clone());
            }
        }
        self.task(fields, inherited)
            .map(|task| Item::Task(Box::new(task)))
    }

    pub(super) fn common(&mut self, fields: &mut Fields<'_>, inherited: &Inherited) -> Common {
        let mut tags = fields.texts("tags");
        add_tags(&mut tags, &inherited.tags);
        Common {
            name: fields.text("name"),
            at: fields.at.clone(),
            when: fields.expressions("when"),
            vars: fields.vars("vars"),
            tags,
            environment: fields.mapping("environment"),
            r#become: fields.node("become"),
            ignore_errors: fields.node("ignore_errors"),
            check_mode: fields.node("check_mode"),
            no_log: fields.boolean("no_log").unwrap_or(inherited.no_log),
            diff: fields.node("diff"),
        }
    }

    /// Takes the keywords that make no difference here, and refuses the values that would.
    pub(super) fn without_effect(&mut self, fields: &mut Fields<'_>) {
        self.only_with_one_host(fields);
        let only: [(&str, &[&str], &str); 4] = [
            (
                "become_user",
                &["root"],
                "for another user, start `sudo -u` in the command",
            ),
            (
                "connection",
                &["local"],
                "leave it out: the agent works on the host it runs on",
            ),
            (
                "delegate_to",
                &["localhost", "127.0.0.1"],
                "the agent works on the host it runs on",
            ),
            (
                "strategy",
                &["linear", "free", "host_pinned"],
                "leave it out: tasks run one after the other",
            ),
        ];
        for (key, known, help) in only {
            let Some(node) = fields.node(key) else {
                fields.take(key);
                continue;
            };
            let fits =
                matches!(&node.kind, NodeKind::String(word) if known.contains(&word.as_str()));
            if !fits {
                let message = format!("only `{key}: {}` is supported here", known[0]);
                self.problem(
                    Problem::new("playbook::unsupported", &node.at, message, "not supported")
                        .with_help(help),
                );
            }
        }
    }

    fn block(&mut self, mut fields: Fields<'_>, inherited: &Inherited) -> Block {
        let common = self.common(&mut fields, inherited);
        self.without_effect(&mut fields);
        let nearer = fields.mapping("module_defaults");
        let mut defaults = self.module_defaults(nearer);
        if defaults.is_empty() {
            defaults = inherited.defaults.clone();
        } else {
            Arc::make_mut(&mut defaults).extend(inherited.defaults.iter().cloned());
        }
        let inner = Inherited {
            tags: common.tags.clone(),
            no_log: common.no_log,
            defaults,
            ..inherited.clone()
        };
        let services = fields.nodes("services");
        let before_undo_of = fields.fixed_text("before_undo_of");
        let before_undo_of = before_undo_of.zip(
            fields
                .take("before_undo_of")
                .map(|(_, node)| node.at.clone()),
        );
        let lists: Vec<Option<Node>> = ["block", "rescue", "always"]
            .iter()
            .map(|key| fields.node(key))
            .collect();
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            if keywords::TASK.contains(&key) {
                self.problem(
                    Problem::new(
                        "playbook::unknown_keyword",
                        at,
                        format!("a block cannot have `{key}`"),
                        "not on a block",
                    )
                    .with_help("put it on the tasks inside"),
                );
                continue;
            }
            let known = [keywords::COMMON, keywords::BLOCK];
            self.leftover("a block", key, at, &known, false);
        }
        let services = self.services(&services);
        let mut lists = lists.into_iter().map(|list| {
            list.map(|list| self.items(&list, &inner))
                .unwrap_or_default()
        });
        Block {
            common,
            dynamic: false,
            r#loop: None,
            services,
            before_undo_of,
            block: lists.next().unwrap_or_default(),
            rescue: lists.next().unwrap_or_default(),
            always: lists.next().unwrap_or_default(),
        }
    }

    fn task(&mut self, mut fields: Fields<'_>, inherited: &Inherited) -> Option<Task> {
        let common = self.common(&mut fields, inherited);
        self.without_effect(&mut fields);
        let id = fields.fixed_text("id");
        let register = fields.variable_name("register");
        let r#loop = self.repetition(&mut fields);
        let until = fields.expressions("until");
        let retries = fields.node("retries");
        let delay = fields.node("delay");
        let timeout = fields.node("timeout");
        let notify = fields.nodes("notify");
        let listen = fields.texts("listen");
        let failed_when = fields.expressions("failed_when");
        let changed_when = fields.expressions("changed_when");
        let done_when = self.done_when(&mut fields);
        let undone_by = fields.fixed_text("undone_by");
        let undone_by = undone_by.zip(fields.take("undone_by").map(|(_, node)| node.at.clone()));
        let again_until = again_until(&mut fields);
        let args = fields.take("args").map(|(_, node)| node.clone());
        self.problems.append(&mut fields.problems);
        let old_form = fields.has("action") || fields.has("local_action");
        let action = self.action(&mut fields);
        self.problems.append(&mut fields.problems);
        let (module, module_name, module_at, value) = match &action {
            Some(node) => self.module_of_action(&fields, node)?,
            None if old_form => return None,
            None => self.module(&fields)?,
        };
        if module.name == "set_fact"
            && let NodeKind::Mapping(entries) = &value.kind
        {
            let names = entries.iter().map(|(name, _, _)| name.clone());
            self.defined_elsewhere.extend(names);
        }
        let mut entries = self.arguments(module, &module_at, value)?;
        match args.as_ref().map(|node| (&node.kind, node)) {
            None | Some((NodeKind::Null, _)) => {}
            Some((NodeKind::Mapping(more), _)) => add_below(&mut entries, more),
            Some((_, node)) => {
                let problem = wrong_type(&node.at, "`args`", "a mapping", node);
                self.problem(problem);
            }
        }
        for (spec, defaults) in inherited.defaults.iter() {
            if spec.name == module.name {
                add_below(&mut entries, defaults);
            }
        }
        let at = if value.kind == NodeKind::Null {
            module_at.clone()
        } else {
            value.at.clone()
        };
        Some(Task {
            common,
            id,
            module,
            module_name,
            module_at,
            args: Node {
                kind: NodeKind::Mapping(entries),
                at,
            },
            register,
            r#loop,
            until,
            retries,
            delay,
            timeout,
            notify,
            listen,
            failed_when,
            changed_when,
            done_when,
            undone_by,
            again_until,
        })
    }

    /// `action: copy src=a dest=b` and `local_action`, in all their forms, as a mapping with the module's name
    /// as its one key.
    fn action(&mut self, fields: &mut Fields<'_>) -> Option<Node> {
        let (key, (at, node)) = ["action", "local_action"]
            .into_iter()
            .find_map(|key| Some((key, fields.take(key)?)))?;
        let (name, name_at, arguments) = match &node.kind {
            NodeKind::String(text) => {
                let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
                let rest = match rest.trim() {
                    "" => NodeKind::Null,
                    rest => NodeKind::String(rest.to_owned()),
                };
                (name.to_owned(), node.at.clone(), rest)
            }
            NodeKind::Mapping(entries) => {
                let named = entries.iter().find(|(key, _, _)| key == "module");
                let Some((_, _, named)) = named else {
                    let problem = Problem::new(
                        "playbook::no_module",
                        at,
                        format!("`{key}` does not say which module"),
                        "no `module`",
                    );
                    self.problem(
                        problem.with_help("write the module's name as the key: `copy: {…}`"),
                    );
                    return None;
                };
                let rest = entries
                    .iter()
                    .filter(|(key, _, _)| key != "module")
                    .cloned();
                let name = super::fields::scalar_text(named).unwrap_or_default();
                (name, named.at.clone(), NodeKind::Mapping(rest.collect()))
            }
            _ => {
                let problem = wrong_type(&node.at, &format!("`{key}`"), "a module's name", node);
                self.problem(problem);
                return None;
            }
        };
        let arguments = Node {
            kind: arguments,
            at: node.at.clone(),
        };
        Some(Node {
            kind: NodeKind::Mapping(vec![(name, name_at, arguments)]),
            at: node.at.clone(),
        })
    }

    /// The module of an `action`; a second one beside it is a mistake.
    fn module_of_action<'n>(
        &mut self,
        fields: &Fields<'n>,
        action: &'n Node,
    ) -> Option<(&'static ModuleSpec, String, Location, &'n Node)> {
        let mut problems = Vec::new();
        let named = Fields::of(action, "`action`", &mut problems)?;
        for (key, at, _) in fields.rest() {
            let known = [keywords::COMMON, keywords::TASK];
            self.leftover("a task with `action`", key, at, &known, false);
        }
        self.module(&named)
    }

    /// Finds the one key that names a module.
    fn module<'n>(
        &mut self,
        fields: &Fields<'n>,
    ) -> Option<(&'static ModuleSpec, String, Location, &'n Node)> {
        let mut modules: Vec<(&'static ModuleSpec, &str, &Location, &'n Node)> = Vec::new();
        let mut unknown = 0;
        for (key, at, value) in fields.rest() {
            if let Some(spec) = self.options.catalog.find(key) {
                modules.push((spec, key, at, value));
                continue;
            }
            unknown += 1;
            if ["rescue", "always", "services", "before_undo_of"].contains(&key) {
                self.problem(
                    Problem::new(
                        "playbook::unknown_keyword",
                        at,
                        format!("`{key}` stands without a `block`"),
                        "no block",
                    )
                    .with_help("put the tasks under `block:`"),
                );
                continue;
            }
            let known = [
                keywords::COMMON,
                keywords::TASK,
                keywords::BLOCK,
                keywords::INCLUDE,
            ];
            self.leftover("a task", key, at, &known, true);
        }
        if modules.is_empty() && unknown == 0 {
            self.problem(
                Problem::new(
                    "playbook::no_module",
                    &super::play::first_line(fields.at),
                    "the task does not say what to do",
                    "no module",
                )
                .with_help("add a module, or `block` with tasks"),
            );
        }
        if let [first, second, ..] = modules[..] {
            self.problem(
                Problem::new(
                    "playbook::two_modules",
                    second.2,
                    format!("the task has two modules, `{}` and `{}`", first.1, second.1),
                    "a second module",
                )
                .with_help("make it two tasks"),
            );
            return None;
        }
        let (spec, name, at, value) = modules.first()?;
        Some((spec, (*name).to_owned(), (*at).clone(), value))
    }

    pub(super) fn repetition(&mut self, fields: &mut Fields<'_>) -> Option<Loop> {
        let control = fields.node("loop_control");
        let mut found: Vec<(&str, LoopStyle, &Location, &Node)> = Vec::new();
        for (key, style) in LOOPS {
            if let Some((at, node)) = fields.take(key) {
                found.push((key, *style, at, node));
            }
        }
        if let [(first, ..), (second, _, at, _), ..] = found[..] {
            fields.problems.push(
                Problem::new(
                    "playbook::two_loops",
                    at,
                    format!("the task has both `{first}` and `{second}`"),
                    "a second loop",
                )
                .with_help("keep one of them"),
            );
        }
        let Some((key, style, _, items)) = found.first().copied() else {
            if let Some(control) = control {
                fields.problems.push(Problem::new(
                    "playbook::loop_control",
                    &control.at,
                    "`loop_control` stands without a `loop`",
                    "no loop",
                ));
            }
            return None;
        };
        let fits = match (&items.kind, style) {
            (NodeKind::Sequence(_), _) => true,
            (NodeKind::Mapping(_), LoopStyle::Dict | LoopStyle::Sequence) => true,
            (NodeKind::String(_), LoopStyle::Sequence | LoopStyle::FileGlob) => true,
            (NodeKind::String(text), _) => crate::template::is_template(text),
            _ => false,
        };
        if !fits {
            let bare = matches!(&items.kind, NodeKind::String(text) if !text.contains(' '));
            let problem = wrong_type(
                &items.at,
                &format!("`{key}`"),
                "a list or a template",
                items,
            );
            let help = bare.then(|| {
                let name = super::module_args::shown(items);
                format!("a variable needs braces: \"{{{{ {name} }}}}\"")
            });
            fields.problems.push(problem.with_optional_help(help));
        }
        let mut found = Loop {
            items: items.clone(),
            style,
            loop_var: "item".to_owned(),
            index_var: None,
            label: None,
            extended: false,
            pause: None,
        };
        if let Some(control) = &control {
            self.loop_control(control, &mut found);
        }
        Some(found)
    }

    fn loop_control(&mut self, control: &Node, found: &mut Loop) {
        let mut problems = Vec::new();
        let Some(mut fields) = Fields::of(control, "`loop_control`", &mut problems) else {
            self.problems.extend(problems);
            return;
        };
        if let Some(name) = fields.variable_name("loop_var") {
            found.loop_var = name;
        }
        found.index_var = fields.variable_name("index_var");
        found.label = fields.node("label");
        found.extended = fields.boolean("extended").unwrap_or(false);
        found.pause = fields.node("pause");
        // Only what a loop that is not kept whole would leave out.
        fields.boolean("extended_allitems");
        self.problems.append(&mut fields.problems);
        for (key, at, _) in fields.rest() {
            if key == "break_when" {
                self.problem(
                    Problem::new(
                        "playbook::unsupported",
                        at,
                        format!("`{key}` in `loop_control` is not supported here"),
                        "not supported",
                    )
                    .with_help("use `until` on a task, or choose the items by a filter"),
                );
                continue;
            }
            let known: [&[&str]; 1] = [&["loop_var", "index_var", "label", "extended", "pause"]];
            self.leftover("`loop_control`", key, at, &known, false);
        }
    }

    /// Reads `module_defaults`.
    pub(super) fn module_defaults(&mut self, node: Option<Node>) -> Defaults {
        let mut defaults = Vec::new();
        let entries = match node.as_ref().map(|node| &node.kind) {
            Some(NodeKind::Mapping(entries)) => entries.as_slice(),
            Some(NodeKind::String(_)) | None => &[],
            Some(_) => &[],
        };
        for (name, at, arguments) in entries {
            let Some(spec) = self.options.catalog.find(name) else {
                if name.starts_with("group/") {
                    self.problem(
                        Problem::new(
                            "playbook::unsupported",
                            at,
                            "groups of modules are not supported here",
                            "a group",
                        )
                        .with_help("name the modules one by one"),
                    );
                    continue;
                }
                let near = crate::source::closest(name, self.options.catalog.names());
                self.problem(
                    Problem::new(
                        "playbook::unknown_module",
                        at,
                        format!("there is no module `{name}`"),
                        "no module has this name",
                    )
                    .with_optional_help(near.map(|near| format!("did you mean `{near}`?"))),
                );
                continue;
            };
            match &arguments.kind {
                NodeKind::Mapping(arguments) => defaults.push((spec, arguments.clone())),
                NodeKind::Null => {}
                _ => {
                    let problem = wrong_type(
                        &arguments.at,
                        &format!("the defaults of `{name}`"),
                        "a mapping",
                        arguments,
                    );
                    self.problem(problem);
                }
            }
        }
        Arc::new(defaults)
    }
}
