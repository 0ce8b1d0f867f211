//! Everything that can be known to be wrong before the first task runs: arguments against the modules'
//! schemas, templates, names that nothing defines, identities, handlers.

mod again;
mod arguments;
mod declared;
mod names;
mod places;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use self::declared::mentions;
use self::names::Names;
use super::load::{LoadOptions, load_what_can_be};
use super::model::{Block, Item, Loop, Node, NodeKind, PROBE, Play, Playbook, Task};
use super::template::{Templates, is_template};
use crate::source::{Location, Problem, closest};
use crate::task::module::Kind;

/// Names that are defined outside of the playbook.
#[derive(Debug, Clone, Default)]
pub struct KnownNames {
    /// Extra variables (`-e`), inventory variables.
    pub names: BTreeSet<String>,
    /// Values of extra variables, which may hold templates.
    pub extra: Vec<Node>,
    /// Extra variables, each where it stands.
    pub given: Vec<(String, Location)>,
    /// Whether more names may be defined than these (an inventory that is read later): undefined
    /// names are not reported then.
    pub open: bool,
    /// Files of tasks that could not be read: an undefined name may be one that they register.
    pub unread_tasks: Vec<PathBuf>,
}

impl KnownNames {
    /// Names of extra variables.
    #[must_use]
    pub fn of(variables: &Map<String, Value>) -> Self {
        Self {
            names: variables.keys().cloned().collect(),
            ..Self::default()
        }
    }
}

/// What validation found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Mistakes: nothing may run.
    pub problems: Vec<Problem>,
    /// Things that will hurt later.
    pub warnings: Vec<Problem>,
}

/// A playbook without mistakes.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The playbook.
    pub playbook: Playbook,
    /// Things that will hurt later.
    pub warnings: Vec<Problem>,
}

/// Reads and validates a playbook: what cannot be read and what is wrong are reported together.
///
/// # Errors
/// Everything that is wrong, in the order of files and places.
pub fn check(
    path: &Path,
    options: &LoadOptions,
    known: &KnownNames,
) -> Result<Checked, Vec<Problem>> {
    let loaded = load_what_can_be(path, options);
    let mut known = known.clone();
    let extra = &options.extra_vars;
    known.names.extend(extra.keys().cloned());
    let nodes = extra
        .iter()
        .map(|(name, value)| Node::of_extra(name, value));
    known.extra.extend(nodes);
    let given = extra.iter().map(|(name, value)| {
        let place = options.extra_places.get(name).cloned();
        let place = place.unwrap_or_else(|| Node::of_extra(name, value).at);
        (name.clone(), place)
    });
    known.given.extend(given);
    known.names.extend(loaded.defined_elsewhere);
    known.open |= loaded.names_incomplete;
    known.unread_tasks.extend(loaded.unread_tasks);
    let findings = validate(&loaded.playbook, &known);
    let mut problems = loaded.problems;
    problems.extend(findings.problems);
    if problems.is_empty() {
        return Ok(Checked {
            playbook: loaded.playbook,
            warnings: findings.warnings,
        });
    }
    let order: HashMap<&Path, usize> = loaded
        .playbook
        .sources
        .iter()
        .enumerate()
        .map(|(index, source)| (source.path.as_path(), index))
        .collect();
    problems.sort_by_key(|problem| {
        let file = order.get(problem.at.file.path.as_path()).copied();
        (file.unwrap_or(usize::MAX), problem.at.start)
    });
    // The same task in a file that is included twice is wrong once.
    problems.dedup_by(|one, other| one.at == other.at && one.message == other.message);
    Err(problems)
}

/// Validates a playbook.
#[must_use]
pub fn validate(playbook: &Playbook, known: &KnownNames) -> Findings {
    let mut validator = Validator {
        templates: Templates::new(),
        names: Names::of(playbook, known),
        guarded: Vec::new(),
        local: Vec::new(),
        ids: HashMap::new(),
        resting: again::Resting::default(),
        findings: Findings::default(),
    };
    // Of several plays, a name may be one that another one defines.
    let extra = match playbook.plays.len() {
        1 => &known.extra[..],
        _ => &[],
    };
    for play in &playbook.plays {
        validator.play(play, extra);
    }
    validator.given(playbook, known);
    validator.findings
}

struct Validator {
    templates: Templates,
    names: Names,
    /// Names that a `when` around here asks for with `is defined`.
    guarded: Vec<String>,
    /// Names of loops, tasks and blocks around here.
    local: Vec<String>,
    /// Where each `id` of the play was first.
    ids: HashMap<String, Location>,
    /// What each `again_until` of the play names, looked up at its end.
    resting: again::Resting,
    findings: Findings,
}

impl Validator {
    fn problem(&mut self, problem: Problem) {
        let repeated = self
            .findings
            .problems
            .iter()
            .any(|known| known.at == problem.at && known.message == problem.message);
        if !repeated {
            self.findings.problems.push(problem);
        }
    }

    fn play(&mut self, play: &Play, extra: &[Node]) {
        self.ids.clear();
        self.names.enter(play);
        // Play variables are rendered where they are used, so every name of the play may be meant.
        self.local = self.names.anywhere(play);
        self.declarations(play);
        let defaults = play.declared.iter().map(|all| all.defaults());
        for vars in defaults.collect::<Vec<_>>().iter() {
            for (_, _, node) in vars {
                self.templates_in(node, true);
            }
        }
        for vars in std::iter::once(&play.vars).chain(&play.vars_files) {
            for (_, _, node) in vars {
                self.templates_in(node, true);
            }
        }
        for node in extra {
            self.templates_in(node, true);
        }
        self.local.clear();
        self.templates_in(&play.hosts, false);
        for node in [&play.site, &play.environment, &play.r#become]
            .into_iter()
            .flatten()
        {
            self.templates_in(node, false);
        }
        for name in &play.secrets {
            self.secret(play, name);
        }
        let handlers: HashSet<&str> = play
            .handlers
            .iter()
            .flat_map(|handler| {
                let names = handler.listen.iter().map(String::as_str);
                names.chain(handler.common.name.as_deref())
            })
            .collect();
        let mut services = HashMap::new();
        self.resting = again::Resting::default();
        self.items(&play.items, &handlers, &mut services);
        self.resting.of_handlers = true;
        for handler in &play.handlers {
            self.task(handler, &handlers);
        }
        self.named_later();
    }

    fn secret(&mut self, play: &Play, name: &str) {
        if self.names.open || self.names.defines(play, name) {
            return;
        }
        let known = self.names.all(play);
        let near = closest(name, known.iter().map(String::as_str)).map(str::to_owned);
        let at = places::word_in_play(play, "secrets", name);
        self.problem(
            Problem::new(
                "playbook::undefined",
                &at,
                format!("`secrets` names `{name}`, which nothing defines"),
                "not defined",
            )
            .with_optional_help(near.map(|near| format!("did you mean `{near}`?"))),
        );
    }

    fn items(
        &mut self,
        items: &[Item],
        handlers: &HashSet<&str>,
        services: &mut HashMap<String, Location>,
    ) {
        self.warn_about_identities(items);
        for item in items {
            match item {
                Item::Task(task) => self.task(task, handlers),
                Item::Block(block) => self.block(block, handlers, services),
            }
        }
    }

    /// A one-way task must be found again after the playbook was edited.
    fn warn_about_identities(&mut self, items: &[Item]) {
        let mut names: HashMap<&str, usize> = HashMap::new();
        for item in items {
            if let Item::Task(task) = item
                && let Some(name) = &task.common.name
            {
                *names.entry(name).or_default() += 1;
            }
        }
        for item in items {
            let Item::Task(task) = item else { continue };
            if task.module.kind != Kind::OneWay || task.id.is_some() {
                continue;
            }
            let message = match task.common.name.as_deref() {
                None => "this task must not run twice, and has neither `id` nor name".to_owned(),
                Some(name) if names.get(name).is_some_and(|count| *count > 1) => {
                    format!("this task must not run twice, and shares the name `{name}`")
                }
                Some(_) => continue,
            };
            self.findings.warnings.push(
                Problem::new(
                    "playbook::unstable_identity",
                    &task.module_at,
                    message,
                    "known by its position only",
                )
                .with_help(
                    "add an `id`, so that it is recognised as done after the playbook is edited",
                ),
            );
        }
    }

    fn block(
        &mut self,
        block: &Block,
        handlers: &HashSet<&str>,
        services: &mut HashMap<String, Location>,
    ) {
        let (guarded, local) = (self.guarded.len(), self.local.len());
        let mut loop_names: Vec<&str> = Vec::new();
        if let Some(repeat) = &block.r#loop {
            loop_names.extend(names_of(repeat));
            self.templates_in(&repeat.items, false);
        }
        self.common(&block.common, &loop_names);
        if let Some((id, at)) = &block.before_undo_of {
            self.undone_by(id, at);
        }
        for service in &block.services {
            if let Some(first) = services.get(&service.name) {
                let message = format!(
                    "the service `{}` stands twice in the play, first at {first}",
                    service.name
                );
                self.problem(
                    Problem::new(
                        "playbook::duplicate_service",
                        &places::first_line(&service.at),
                        message,
                        "a second time",
                    )
                    .with_help("give each service a name of its own"),
                );
            } else {
                services.insert(service.name.clone(), places::first_line(&service.at));
            }
            self.service(service);
        }
        self.items(&block.block, handlers, services);
        self.items(&block.rescue, handlers, services);
        self.items(&block.always, handlers, services);
        self.guarded.truncate(guarded);
        self.local.truncate(local);
    }

    fn common(&mut self, common: &super::model::Common, loop_names: &[&str]) {
        self.local
            .extend(common.vars.iter().map(|(name, _, _)| name.clone()));
        self.local
            .extend(loop_names.iter().map(|name| (*name).to_owned()));
        // All conditions must hold, so each may rest on what another asks for.
        for condition in &common.when {
            if let NodeKind::String(text) = &condition.kind {
                let inspected = self.templates.inspect_expression(text, &condition.at);
                let guarded = inspected.needed.into_iter().filter(|name| name.guarded);
                self.guarded.extend(guarded.map(|name| name.name));
            }
        }
        for condition in &common.when {
            self.expression(condition);
        }
        for (_, _, node) in &common.vars {
            self.templates_in(node, false);
        }
        let nodes = [
            &common.environment,
            &common.r#become,
            &common.ignore_errors,
            &common.check_mode,
            &common.diff,
        ];
        for node in nodes.into_iter().flatten() {
            self.templates_in(node, false);
        }
    }

    fn task(&mut self, task: &Task, handlers: &HashSet<&str>) {
        let (guarded, local) = (self.guarded.len(), self.local.len());
        let mut loop_names: Vec<&str> = Vec::new();
        if let Some(repeat) = &task.r#loop {
            loop_names.extend(names_of(repeat));
            self.templates_in(&repeat.items, false);
        }
        self.common(&task.common, &loop_names);
        if let Some(label) = task
            .r#loop
            .as_ref()
            .and_then(|repeat| repeat.label.as_ref())
        {
            self.templates_in(label, false);
        }
        self.arguments(task.module, &task.args, &task.module_at);
        let expressions = [&task.until, &task.failed_when, &task.changed_when];
        for expression in expressions.into_iter().flatten() {
            self.expression(expression);
        }
        if let Some((spec, arguments)) = &task.done_when.probe {
            self.arguments(spec, arguments, &arguments.at);
            self.local.push(PROBE.to_owned());
        }
        for expression in &task.done_when.that {
            self.expression(expression);
        }
        let nodes = [&task.retries, &task.delay, &task.timeout];
        for node in nodes.into_iter().flatten() {
            self.templates_in(node, false);
            self.positive_number(node);
        }
        for node in &task.notify {
            self.notify(node, handlers);
        }
        if let Some((id, at)) = &task.undone_by {
            self.undone_by(id, at);
        }
        self.again_until(task);
        if let Some(id) = &task.id {
            let at = places::value_of_id(task, id);
            if let Some(first) = self.ids.get(id) {
                let message = format!("two tasks have the id `{id}`, the first at {first}");
                self.problem(
                    Problem::new("playbook::duplicate_id", &at, message, "a second time")
                        .with_help("give each task an id of its own"),
                );
            } else {
                self.ids.insert(id.clone(), at);
            }
        }
        self.guarded.truncate(guarded);
        self.local.truncate(local);
    }

    /// The task that takes this one's effect away, or before whose undo these run, must stand before.
    fn undone_by(&mut self, id: &str, at: &Location) {
        if self.ids.contains_key(id) {
            return;
        }
        let near = closest(id, self.ids.keys().map(String::as_str));
        let help = near.map_or_else(
            || "name the `id` of a task that stands before this".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("no task before this one in the play has the id `{id}`");
        self.problem(
            Problem::new(
                "playbook::unknown_undone_by",
                at,
                message,
                "no earlier task",
            )
            .with_help(help),
        );
    }

    fn positive_number(&mut self, node: &Node) {
        let fits = match &node.kind {
            NodeKind::Number(number) => number.as_f64().is_some_and(|value| value >= 0.0),
            NodeKind::String(text) => {
                is_template(text) || text.trim().parse::<f64>().is_ok_and(|value| value >= 0.0)
            }
            NodeKind::Null => true,
            _ => false,
        };
        if !fits {
            self.problem(Problem::new(
                "playbook::wrong_type",
                &node.at,
                "this must be a number, zero or more",
                "not a number",
            ));
        }
    }

    fn notify(&mut self, node: &Node, handlers: &HashSet<&str>) {
        let NodeKind::String(name) = &node.kind else {
            self.problem(Problem::new(
                "playbook::wrong_type",
                &node.at,
                "`notify` takes names of handlers",
                "not a name",
            ));
            return;
        };
        if is_template(name) {
            self.templates_in(node, false);
            return;
        }
        if handlers.contains(name.as_str()) {
            return;
        }
        let near = closest(name, handlers.iter().copied());
        self.problem(
            Problem::new(
                "playbook::unknown_handler",
                &node.at,
                format!("there is no handler `{name}`"),
                "no handler has or listens to this name",
            )
            .with_optional_help(near.map(|near| format!("did you mean `{near}`?"))),
        );
    }

    /// Checks every template in a node.
    fn templates_in(&mut self, node: &Node, lenient: bool) {
        match &node.kind {
            NodeKind::String(text) => {
                let found = self.templates.inspect_text(text, &node.at);
                self.report(found, lenient);
            }
            NodeKind::Sequence(items) => {
                for item in items {
                    self.templates_in(item, lenient);
                }
            }
            NodeKind::Mapping(entries) => {
                for (key, at, value) in entries {
                    let found = self.templates.inspect_text(key, at);
                    self.report(found, lenient);
                    self.templates_in(value, lenient);
                }
            }
            _ => {}
        }
    }

    /// Checks a bare expression.
    fn expression(&mut self, node: &Node) {
        match &node.kind {
            NodeKind::String(text) => {
                let found = self.templates.inspect_expression(text, &node.at);
                self.report(found, false);
            }
            _ => self.templates_in(node, false),
        }
    }
}

/// Names that a loop defines.
fn names_of(repeat: &Loop) -> impl Iterator<Item = &str> {
    let extended = repeat.extended.then_some("ansible_loop");
    std::iter::once(repeat.loop_var.as_str())
        .chain(repeat.index_var.as_deref())
        .chain(extended)
}

#[cfg(test)]
mod tests;
