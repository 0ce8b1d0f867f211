//! The variables that a template sees, in layers.
//!
//! A name's value is that of the strongest rank that has it, whenever it was set ([`Rank`] for what tasks
//! set). Strongest first: loop variables ([`Scope::bind`]), extra variables (`-e`), `vars` of includes
//! ([`Scope::push_params`]), `set_fact` and `register`, `include_vars`, then the pushed layers, the last
//! pushed first, and facts about the host. Within a rank the last one wins. Layers are shared between a
//! scope and its children, so a scope per task costs a few pointers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use minijinja::Value as Engine;
use serde_json::{Map, Value};

use super::cut::{Cut, Reached, Rest};
use super::value::from_json;
use crate::model::{Node, Vars};
use crate::source::Location;

/// A variable's value, ready or still to be rendered.
pub(super) enum Variable {
    /// Rendered when it is first needed; the cell is for nodes without templates.
    Node(Node, OnceLock<Engine>),
    /// Never rendered: results and facts may hold braces that are not ours.
    Ready(Value, OnceLock<Engine>),
    /// As `Ready`, from the journal and without its secrets.
    Rest(Rest),
}

impl Variable {
    fn ready(value: Value) -> Arc<Self> {
        Arc::new(Self::Ready(value, OnceLock::new()))
    }

    fn node(node: &Node) -> Arc<Self> {
        Arc::new(Self::Node(node.clone(), OnceLock::new()))
    }

    /// Returns the engine's value if no rendering is needed.
    pub fn constant(&self) -> Option<Engine> {
        match self {
            Self::Ready(value, cell) => Some(cell.get_or_init(|| from_json(value)).clone()),
            Self::Node(node, cell) if !node.has_template() => {
                Some(cell.get_or_init(|| from_json(&node.to_value())).clone())
            }
            Self::Node(..) => None,
            Self::Rest(rest) => Some(rest.clone().handed_out()),
        }
    }
}

struct Layer {
    variables: HashMap<String, Arc<Variable>>,
    below: Option<Arc<Layer>>,
}

impl Layer {
    fn find(layer: Option<&Arc<Layer>>, name: &str) -> Option<Arc<Variable>> {
        let mut layer = layer;
        while let Some(here) = layer {
            if let Some(variable) = here.variables.get(name) {
                return Some(Arc::clone(variable));
            }
            layer = here.below.as_ref();
        }
        None
    }

    fn names(layer: Option<&Arc<Layer>>, names: &mut BTreeSet<String>) {
        let mut layer = layer;
        while let Some(here) = layer {
            names.extend(here.variables.keys().cloned());
            layer = here.below.as_ref();
        }
    }
}

/// How strong a variable is that a task sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// About the host (`setup`, `getent`): weaker than whatever the playbook says.
    Host,
    /// `include_vars`: stronger than `vars` of plays, blocks and tasks.
    Included,
    /// `set_fact` and `register`.
    Set,
}

/// What tasks have set, by rank.
#[derive(Default)]
struct Facts {
    /// Raised with every change, so that cached values that may rest on an old fact are dropped.
    version: u64,
    host: HashMap<String, Arc<Variable>>,
    included: HashMap<String, Arc<Variable>>,
    set: HashMap<String, Arc<Variable>>,
}

impl Facts {
    fn of(&mut self, rank: Rank) -> &mut HashMap<String, Arc<Variable>> {
        match rank {
            Rank::Host => &mut self.host,
            Rank::Included => &mut self.included,
            Rank::Set => &mut self.set,
        }
    }
}

#[derive(Default)]
struct Cache {
    version: u64,
    values: HashMap<String, Engine>,
}

/// The variables that a template sees. Clones are cheap and share facts; other changes to a clone stay
/// with it.
#[derive(Clone, Default)]
pub struct Scope {
    layers: Option<Arc<Layer>>,
    bound: Option<Arc<Layer>>,
    extra: Option<Arc<Layer>>,
    params: Option<Arc<Layer>>,
    facts: Arc<RwLock<Facts>>,
    cache: Arc<Mutex<Cache>>,
    reached: Arc<Reached>,
    /// What was cut may be reached: somebody looks who notes it.
    lenient: bool,
}

impl std::fmt::Debug for Scope {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Scope").field(&self.names()).finish()
    }
}

impl Scope {
    /// Returns a scope without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a scope that sees everything this one sees; facts set in either are seen by both.
    #[must_use]
    pub fn child(&self) -> Self {
        self.clone()
    }

    /// Adds a layer of playbook variables above those pushed before; rendered when needed.
    pub fn push_vars(&mut self, vars: &Vars) {
        if !vars.is_empty() {
            self.layers = Some(Self::node_layer(vars, self.layers.take()));
            self.forget();
        }
    }

    /// Adds `vars` of an include, above what tasks set; rendered when needed.
    pub fn push_params(&mut self, vars: &Vars) {
        if !vars.is_empty() {
            self.params = Some(Self::node_layer(vars, self.params.take()));
            self.forget();
        }
    }

    /// Adds a layer of ready values above those pushed before; they are never rendered.
    pub fn push_values(&mut self, values: Map<String, Value>) {
        if values.is_empty() {
            return;
        }
        self.layers = Some(Self::ready_layer(values, self.layers.take()));
        self.forget();
    }

    /// Adds extra variables (`-e`): stronger than everything but loop variables, rendered when needed.
    pub fn push_extra(&mut self, values: &Map<String, Value>) {
        if values.is_empty() {
            return;
        }
        let variables = values
            .iter()
            .map(|(name, value)| (name.clone(), Variable::node(&Node::of_extra(name, value))))
            .collect();
        self.extra = Some(Arc::new(Layer {
            variables,
            below: self.extra.take(),
        }));
        self.forget();
    }

    /// Binds a name in this scope and its children, above everything else: loop variables.
    pub fn bind(&mut self, name: impl Into<String>, value: Value) {
        let mut values = Map::new();
        values.insert(name.into(), value);
        self.bound = Some(Self::ready_layer(values, self.bound.take()));
        self.forget();
    }

    /// Sets what `set_fact` or `register` says; every scope that shares this one's origin sees it.
    pub fn set(&self, name: impl Into<String>, value: Value) {
        self.set_in(Rank::Set, name, value);
    }

    /// Sets a variable of a rank; every scope that shares this one's origin sees it.
    pub fn set_in(&self, rank: Rank, name: impl Into<String>, value: Value) {
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        facts.version += 1;
        facts.of(rank).insert(name.into(), Variable::ready(value));
    }

    /// Sets a variable that came back from the journal without its secrets.
    pub fn set_cut(&self, rank: Rank, name: impl Into<String>, value: Value, cut: Cut) {
        if cut.paths.is_empty() {
            return self.set_in(rank, name, value);
        }
        let rest = self.rest(value, cut);
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        facts.version += 1;
        facts.of(rank).insert(name.into(), Arc::new(rest));
    }

    /// Binds a name to what was made of a value without its secrets, as [`Scope::bind`] does.
    pub fn bind_cut(&mut self, name: impl Into<String>, value: Value, cut: Cut) {
        let rest = Arc::new(self.rest(value, cut));
        self.bound = Some(Arc::new(Layer {
            variables: [(name.into(), rest)].into(),
            below: self.bound.take(),
        }));
        self.forget();
    }

    fn rest(&self, value: Value, cut: Cut) -> Variable {
        Variable::Rest(Rest {
            value,
            cut,
            reached: Arc::clone(&self.reached),
        })
    }

    /// Returns this scope for a look: what was cut may be reached, and [`Scope::take_reached`] tells.
    #[must_use]
    pub fn lenient(&self) -> Self {
        Self {
            lenient: true,
            ..self.clone()
        }
    }

    /// Whether a variable is what is left of this task's result.
    #[must_use]
    pub fn is_cut(&self, name: &str, origin: &str) -> bool {
        let found = self.find(name);
        matches!(found.as_deref(), Some(Variable::Rest(rest)) if rest.cut.origin == origin)
    }

    /// The tasks whose results were reached where something was cut from them, since this was asked last.
    #[must_use]
    pub fn take_reached(&self) -> BTreeSet<String> {
        self.reached.take()
    }

    pub(super) fn reached(&self) -> u64 {
        self.reached.times()
    }

    pub(super) fn is_lenient(&self) -> bool {
        self.lenient
    }

    /// Sets variables of files (`include_vars`), whose texts may hold templates, rendered when they are
    /// needed; `at` is what to blame.
    pub fn set_templates(&self, values: &Map<String, Value>, at: &Location) {
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        facts.version += 1;
        for (name, value) in values {
            let node = Node::of_value(value, at);
            facts.included.insert(name.clone(), Variable::node(&node));
        }
    }

    /// Forgets what `set_fact` or `register` set.
    pub fn unset(&self, name: &str) {
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        facts.version += 1;
        facts.set.remove(name);
    }

    /// Returns a variable as it stands, without rendering templates in it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.find(name).map(|variable| match &*variable {
            Variable::Ready(value, _) => value.clone(),
            Variable::Node(node, _) => node.to_value(),
            Variable::Rest(rest) => rest.value.clone(),
        })
    }

    /// Returns the names of all variables.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for layer in [&self.bound, &self.extra, &self.params, &self.layers] {
            Layer::names(layer.as_ref(), &mut names);
        }
        let facts = self.facts.read().unwrap_or_else(PoisonError::into_inner);
        for rank in [&facts.host, &facts.included, &facts.set] {
            names.extend(rank.keys().cloned());
        }
        names
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Variable>> {
        let facts = || self.facts.read().unwrap_or_else(PoisonError::into_inner);
        Layer::find(self.bound.as_ref(), name)
            .or_else(|| Layer::find(self.extra.as_ref(), name))
            .or_else(|| Layer::find(self.params.as_ref(), name))
            .or_else(|| {
                let facts = facts();
                let found = facts.set.get(name).or_else(|| facts.included.get(name));
                found.cloned()
            })
            .or_else(|| Layer::find(self.layers.as_ref(), name))
            .or_else(|| facts().host.get(name).cloned())
    }

    pub(super) fn cached(&self, name: &str) -> Option<Engine> {
        let version = self.fact_version();
        let mut cache = self.lock_cache();
        if cache.version != version {
            *cache = Cache {
                version,
                values: HashMap::new(),
            };
        }
        cache.values.get(name).cloned()
    }

    pub(super) fn remember(&self, name: &str, value: Engine, version: u64) {
        let mut cache = self.lock_cache();
        if cache.version == version {
            cache.values.insert(name.to_owned(), value);
        }
    }

    pub(super) fn fact_version(&self) -> u64 {
        self.facts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .version
    }

    fn lock_cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_layer(vars: &Vars, below: Option<Arc<Layer>>) -> Arc<Layer> {
        let variables = vars
            .iter()
            .map(|(name, _, node)| (name.clone(), Variable::node(node)))
            .collect();
        Arc::new(Layer { variables, below })
    }

    fn ready_layer(values: Map<String, Value>, below: Option<Arc<Layer>>) -> Arc<Layer> {
        let variables = values
            .into_iter()
            .map(|(name, value)| (name, Variable::ready(value)))
            .collect();
        Arc::new(Layer { variables, below })
    }

    /// A stronger layer can change what lower variables render to: this scope caches anew.
    fn forget(&mut self) {
        self.cache = Arc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn stronger_layers_win_and_facts_are_shared_with_children() {
        let mut scope = Scope::new();
        scope.push_values(map(json!({"a": 1, "b": 1, "c": 1, "d": 1})));
        let mut child = scope.child();
        child.push_values(map(json!({"b": 2, "c": 2, "d": 2})));
        child.set("c", json!(3));
        child.set("d", json!(3));
        scope.push_extra(&map(json!({"d": 4})));
        child.push_extra(&map(json!({"d": 4})));
        child.bind("item", json!(5));
        assert_eq!(child.get("a"), Some(json!(1)));
        assert_eq!(child.get("b"), Some(json!(2)));
        assert_eq!(scope.get("b"), Some(json!(1)));
        assert_eq!(scope.get("c"), Some(json!(3)));
        assert_eq!(child.get("d"), Some(json!(4)));
        assert_eq!(child.get("item"), Some(json!(5)));
        assert_eq!(scope.get("item"), None);
    }
}
