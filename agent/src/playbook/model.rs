//! A playbook after parsing: everything keeps its place in the source.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use crate::modules::ModuleSpec;
use crate::source::{Location, SourceFile};

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
    /// `vars`.
    pub vars: Vars,
    /// Contents of `vars_files`, later files win.
    pub vars_files: Vec<Vars>,
    /// `environment`: a mapping, where given.
    pub environment: Option<Node>,
    /// `become`.
    pub r#become: Option<Node>,
    /// Names of variables whose values are never shown or written.
    pub secrets: Vec<String>,
    /// `tags`.
    pub tags: Vec<String>,
    /// `pre_tasks`, `tasks`, `post_tasks`, in this order.
    pub items: Vec<Item>,
    /// `handlers`.
    pub handlers: Vec<Task>,
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
    /// `with_items`: lists inside the list are flattened, one level.
    pub flatten: bool,
    /// `loop_control.loop_var`, by default `item`.
    pub loop_var: String,
    /// `loop_control.index_var`.
    pub index_var: Option<String>,
    /// `loop_control.label`.
    pub label: Option<Node>,
}

/// Tasks that share keywords.
#[derive(Debug, Clone)]
pub struct Block {
    /// Shared keywords.
    pub common: Common,
    /// Containers that the block's tasks need.
    pub services: Vec<Service>,
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
