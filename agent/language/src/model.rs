//! A playbook after parsing: everything keeps its place in the source.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::declared::Declarations;
use crate::source::{Location, SourceFile};
use crate::task::module::ModuleSpec;

/// A YAML value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub kind: NodeKind,
    /// Where it stands.
    pub at: Location,
}

/// The value of a [`Node`]. Mappings keep their order; their keys are texts.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// `null`, `~` or nothing.
    Null,
    /// A boolean, YAML 1.1's plain `yes`, `no`, `on`, `off` included.
    Bool(bool),
    /// An integer or float, YAML 1.1's `0644` (octal) included.
    Number(Number),
    /// A text, possibly a template.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// A map: key, place of the key, value.
    Mapping(Vec<(String, Location, Node)>),
}

impl Node {
    /// Makes a node of an extra variable. Messages say `-e NAME` for its place, and never show its value,
    /// which may be a secret.
    #[must_use]
    pub fn of_extra(name: &str, value: &Value) -> Self {
        let at = Location {
            file: Arc::new(SourceFile {
                path: format!("-e {name}").into(),
                text: String::new(),
            }),
            start: 0,
            end: 0,
        };
        Self::of_value(value, &at)
    }

    /// Makes a node of a value, all of it at one place.
    #[must_use]
    pub fn of_value(value: &Value, at: &Location) -> Self {
        let kind = match value {
            Value::Null => NodeKind::Null,
            Value::Bool(value) => NodeKind::Bool(*value),
            Value::Number(value) => NodeKind::Number(value.clone()),
            Value::String(value) => NodeKind::String(value.clone()),
            Value::Array(items) => {
                NodeKind::Sequence(items.iter().map(|item| Self::of_value(item, at)).collect())
            }
            Value::Object(map) => NodeKind::Mapping(
                map.iter()
                    .map(|(key, item)| (key.clone(), at.clone(), Self::of_value(item, at)))
                    .collect(),
            ),
        };
        Self {
            kind,
            at: at.clone(),
        }
    }

    /// Returns the value without places and without rendering templates.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(value) => Value::Bool(*value),
            NodeKind::Number(value) => Value::Number(value.clone()),
            NodeKind::String(value) => Value::String(value.clone()),
            NodeKind::Sequence(items) => items.iter().map(Node::to_value).collect(),
            NodeKind::Mapping(entries) => entries
                .iter()
                .map(|(key, _, value)| (key.clone(), value.to_value()))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    /// Tells whether a text anywhere inside needs rendering.
    #[must_use]
    pub fn has_template(&self) -> bool {
        match &self.kind {
            NodeKind::String(text) => super::template::is_template(text),
            NodeKind::Sequence(items) => items.iter().any(Self::has_template),
            NodeKind::Mapping(entries) => entries
                .iter()
                .any(|(key, _, value)| super::template::is_template(key) || value.has_template()),
            _ => false,
        }
    }

    /// Returns the value under a key of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Mapping(entries) => entries
                .iter()
                .find(|(name, _, _)| name == key)
                .map(|(_, _, value)| value),
            _ => None,
        }
    }
}

/// Named values, in the order of the source.
pub type Vars = Vec<(String, Location, Node)>;

/// A parsed playbook file with everything it includes.
#[derive(Debug, Clone)]
pub struct Playbook {
    /// Path as given.
    pub path: PathBuf,
    /// Plays in order.
    pub plays: Vec<Play>,
    /// Every file that was read: the playbook, includes, variables.
    pub sources: Vec<Arc<SourceFile>>,
    /// Keywords that would mean something if there were several hosts.
    pub fleet_only: Vec<FleetOnly>,
}

/// A keyword that makes no difference where there is one host, and is not supported where there are more.
#[derive(Debug, Clone)]
pub struct FleetOnly {
    /// Where it stands.
    pub at: Location,
    /// The keyword.
    pub keyword: &'static str,
    /// What to do instead.
    pub help: &'static str,
}

/// How a play goes over several hosts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// `serial`: the sizes of batches, of which the last one repeats; empty: all hosts are one batch.
    pub serial: Vec<Batch>,
    /// Where `serial` stands.
    pub serial_at: Option<Location>,
    /// `any_errors_fatal`.
    pub any_errors_fatal: bool,
    /// `max_fail_percentage`, 0 to 100.
    pub max_fail_percentage: Option<f64>,
}

/// The size of a batch of hosts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Batch {
    /// So many; 0 is all that are left.
    Hosts(usize),
    /// So many in a hundred of all, rounded down, but one at least.
    Percent(f64),
}

/// Hosts and tasks.
#[derive(Debug, Clone)]
pub struct Play {
    /// `name`, or the hosts pattern.
    pub name: String,
    /// Where the play begins.
    pub at: Location,
    /// Host pattern.
    pub hosts: Node,
    /// How it goes over several hosts.
    pub fleet: Fleet,
    /// `argument_spec`: the variables that are set from outside.
    pub declared: Option<Declarations>,
    /// `vars`.
    pub vars: Vars,
    /// Contents of `vars_files`, later files win.
    pub vars_files: Vec<Vars>,
    /// `site`: the folder that all of the play's work belongs to.
    pub site: Option<Node>,
    /// `environment`: a mapping, where given.
    pub environment: Option<Node>,
    /// `become`.
    pub r#become: Option<Node>,
    /// `diff`.
    pub diff: Option<Node>,
    /// `vars_prompt`.
    pub prompts: Vec<Prompt>,
    /// Names of variables whose values are never shown or written.
    pub secrets: Vec<String>,
    /// `tags`.
    pub tags: Vec<String>,
    /// Flushes of handlers at the end: one for each of `pre_tasks`, `tasks` and `post_tasks` that ends there,
    /// be it empty.
    pub flushes: usize,
    /// `pre_tasks`, `tasks`, `post_tasks`, in this order.
    pub items: Vec<Item>,
    /// `handlers`.
    pub handlers: Vec<Task>,
}

/// A variable that a person is asked for.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// The variable.
    pub name: String,
    /// Where it is named.
    pub at: Location,
    /// The question.
    pub prompt: String,
    /// Whether what is typed stays invisible and counts as a secret.
    pub private: bool,
    /// Asks twice.
    pub confirm: bool,
    /// What an empty answer means.
    pub default: Option<String>,
}

/// A task or a block.
#[derive(Debug, Clone)]
pub enum Item {
    /// One module call.
    Task(Box<Task>),
    /// Tasks that share keywords; imported and included files are blocks too.
    Block(Box<Block>),
}

/// Keywords that tasks and blocks share.
#[derive(Debug, Clone)]
pub struct Common {
    /// `name`.
    pub name: Option<String>,
    /// Where it begins.
    pub at: Location,
    /// `when`: all must be true. Expressions without braces.
    pub when: Vec<Node>,
    /// `vars`.
    pub vars: Vars,
    /// Own tags plus those inherited.
    pub tags: Vec<String>,
    /// `environment`.
    pub environment: Option<Node>,
    /// `become`.
    pub r#become: Option<Node>,
    /// `ignore_errors`.
    pub ignore_errors: Option<Node>,
    /// `check_mode`.
    pub check_mode: Option<Node>,
    /// `no_log`.
    pub no_log: bool,
    /// `diff`.
    pub diff: Option<Node>,
}

/// One module call.
#[derive(Debug, Clone)]
pub struct Task {
    /// Shared keywords.
    pub common: Common,
    /// `id`: a stable identity.
    pub id: Option<String>,
    /// The module.
    pub module: &'static ModuleSpec,
    /// Name of the module as written.
    pub module_name: String,
    /// Place of the module's name.
    pub module_at: Location,
    /// Arguments before rendering; a mapping (free form is already under its argument's name).
    pub args: Node,
    /// `register`.
    pub register: Option<String>,
    /// `loop` or `with_items` (the latter flattens one level).
    pub r#loop: Option<Loop>,
    /// `until`: expressions.
    pub until: Vec<Node>,
    /// `retries`.
    pub retries: Option<Node>,
    /// `delay`, in seconds.
    pub delay: Option<Node>,
    /// `timeout`, in seconds.
    pub timeout: Option<Node>,
    /// `notify`.
    pub notify: Vec<Node>,
    /// `listen` (handlers).
    pub listen: Vec<String>,
    /// `failed_when`: expressions, any of them.
    pub failed_when: Vec<Node>,
    /// `changed_when`: expressions, all of them.
    pub changed_when: Vec<Node>,
    /// `done_when`: tells whether the effect is already there.
    pub done_when: DoneWhen,
    /// `undone_by`: the `id` of an earlier task; what this one does lies inside what that one makes.
    pub undone_by: Option<(String, Location)>,
    /// `again_until`: the `id`s of later tasks; a later run looks again until one of them has begun.
    pub again_until: Vec<(String, Location)>,
}

impl Task {
    /// Whether it looks only, or stands among the looks before an effect.
    #[must_use]
    pub fn is_look(&self) -> bool {
        self.module.kind == crate::task::module::Kind::ReadOnly || !self.again_until.is_empty()
    }

    /// A task with nothing but a module.
    #[must_use]
    pub fn plain(
        module: &'static ModuleSpec,
        name: Option<&str>,
        args: Node,
        at: &Location,
        tags: Vec<String>,
        no_log: bool,
    ) -> Self {
        Self {
            common: Common {
                name: name.map(str::to_owned),
                at: at.clone(),
                when: Vec::new(),
                vars: Vec::new(),
                tags,
                environment: None,
                r#become: None,
                ignore_errors: None,
                check_mode: None,
                no_log,
                diff: None,
            },
            id: None,
            module,
            module_name: module.name.to_owned(),
            module_at: at.clone(),
            args,
            register: None,
            r#loop: None,
            until: Vec::new(),
            retries: None,
            delay: None,
            timeout: None,
            notify: Vec::new(),
            listen: Vec::new(),
            failed_when: Vec::new(),
            changed_when: Vec::new(),
            done_when: DoneWhen::default(),
            undone_by: None,
            again_until: Vec::new(),
        }
    }
}

/// Name under which the expressions of `done_when` see what its probe found.
pub const PROBE: &str = "probe";

/// By what a task's effect is recognised.
#[derive(Debug, Clone, Default)]
pub struct DoneWhen {
    /// A module that only looks, with its arguments; asked anew whenever the task is about to run.
    pub probe: Option<(&'static ModuleSpec, Node)>,
    /// Expressions; all must be true.
    pub that: Vec<Node>,
}

impl DoneWhen {
    /// Tells whether the task has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.that.is_empty()
    }
}

/// A loop.
#[derive(Debug, Clone)]
pub struct Loop {
    /// A list, or a template that gives one.
    pub items: Node,
    /// By which keyword, and so what is made of the items.
    pub style: LoopStyle,
    /// `loop_control.loop_var`, by default `item`.
    pub loop_var: String,
    /// `loop_control.index_var`.
    pub index_var: Option<String>,
    /// `loop_control.label`.
    pub label: Option<Node>,
    /// `loop_control.extended`: `ansible_loop` tells where the loop is.
    pub extended: bool,
    /// `loop_control.pause`, in seconds.
    pub pause: Option<Node>,
}

/// What a loop's keyword makes of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopStyle {
    /// `loop`, `with_list`: the items of a list.
    List,
    /// `with_items`, `with_flattened`: lists inside the list are flattened, one level.
    Items,
    /// `with_dict`: `key` and `value` of each entry.
    Dict,
    /// `with_nested`, `with_cartesian`: every combination of an item of each list.
    Nested,
    /// `with_together`: the first of each list, the second of each …
    Together,
    /// `with_indexed_items`: number and item.
    Indexed,
    /// `with_sequence`: numbers.
    Sequence,
    /// `with_fileglob`: files beside the playbook that fit a pattern.
    FileGlob,
}

/// Tasks that share keywords.
#[derive(Debug, Clone)]
pub struct Block {
    /// Shared keywords.
    pub common: Common,
    /// `include_tasks`: its conditions are looked at once, when it comes to it.
    pub dynamic: bool,
    /// `loop` of an include: the tasks run once an item.
    pub r#loop: Option<Loop>,
    /// Containers that the block's tasks need.
    pub services: Vec<Service>,
    /// `before_undo_of`: the `id` of an earlier task. A run passes over the block; a rollback runs it before it
    /// takes that task back.
    pub before_undo_of: Option<(String, Location)>,
    /// `block`, or the tasks of an included file.
    pub block: Vec<Item>,
    /// `rescue`.
    pub rescue: Vec<Item>,
    /// `always`.
    pub always: Vec<Item>,
}

/// A container that is wanted as long as a task of its block is pending.
#[derive(Debug, Clone)]
pub struct Service {
    /// Unique in the play.
    pub name: String,
    /// Where it begins.
    pub at: Location,
    /// Arguments of `docker_container`.
    pub container: Node,
    /// Module that must succeed before the service counts as ready, with its arguments.
    pub ready: Option<(&'static ModuleSpec, Node)>,
    /// How long to wait for it, in seconds.
    pub ready_timeout: Option<Node>,
}
