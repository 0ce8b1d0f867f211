//! Arguments as they stand in the playbook against the modules' schemas.

use super::Validator;
use crate::arguments::{MismatchKind, Segment, check_literals, schema_of};
use crate::model::{Node, NodeKind, Service};
use crate::source::{Location, Problem};
use crate::task::module::ModuleSpec;

impl Validator {
    pub(super) fn service(&mut self, service: &Service) {
        match crate::modules::registry::find("docker_container") {
            Some(spec) => {
                // The service's name is the container's, so it need not be given again.
                self.arguments_but(spec, &service.container, &service.container.at, &["name"]);
            }
            None => self.templates_in(&service.container, false),
        }
        if let Some((spec, arguments)) = &service.ready {
            self.arguments(spec, arguments, &arguments.at);
        }
        if let Some(timeout) = &service.ready_timeout {
            self.templates_in(timeout, false);
            self.positive_number(timeout);
        }
    }

    pub(super) fn arguments(&mut self, spec: &ModuleSpec, args: &Node, module_at: &Location) {
        self.arguments_but(spec, args, module_at, &[]);
    }

    /// Checks arguments; the names in `given` count as given.
    fn arguments_but(
        &mut self,
        spec: &ModuleSpec,
        args: &Node,
        module_at: &Location,
        given: &[&str],
    ) {
        let NodeKind::Mapping(entries) = &args.kind else {
            self.templates_in(args, false);
            return;
        };
        for (key, at, value) in entries {
            let found = self.templates.inspect_text(key, at);
            self.report(found, false);
            if spec.expressions.contains(&key.as_str()) {
                match &value.kind {
                    NodeKind::Sequence(items) => {
                        items.iter().for_each(|item| self.expression(item))
                    }
                    _ => self.expression(value),
                }
            } else {
                self.templates_in(value, false);
            }
        }
        let schema = schema_of(spec);
        for mismatch in check_literals(&schema, args.to_value()) {
            let first = match mismatch.path.first() {
                Some(Segment::Key(name)) => Some(name.as_str()),
                _ => None,
            };
            // The engine turns expressions into another shape before the module sees them.
            if first.is_some_and(|name| spec.expressions.contains(&name)) {
                continue;
            }
            let problem = match &mismatch.kind {
                MismatchKind::Unknown { name, .. } => Problem::new(
                    "playbook::unknown_argument",
                    &key_in(args, &mismatch.path, name),
                    format!(
                        "`{}` has no argument `{}`",
                        spec.name,
                        full_name(&mismatch.path, name)
                    ),
                    "not known",
                )
                .with_optional_help(mismatch.suggestion()),
                MismatchKind::Missing { name } => {
                    if mismatch.path.is_empty() && given.contains(&name.as_str()) {
                        continue;
                    }
                    let at = if mismatch.path.is_empty() {
                        module_at.clone()
                    } else {
                        super::places::first_line(&node_in(args, &mismatch.path).at)
                    };
                    Problem::new(
                        "playbook::missing_argument",
                        &at,
                        format!(
                            "`{}` needs the argument `{}`",
                            spec.name,
                            full_name(&mismatch.path, name)
                        ),
                        format!("no `{name}`"),
                    )
                    .with_help(format!("for example:\n{}", spec.example.trim_end()))
                }
                MismatchKind::Value { message } => Problem::new(
                    "playbook::wrong_argument",
                    &super::places::first_line(&node_in(args, &mismatch.path).at),
                    match mismatch.path.split_last() {
                        Some((Segment::Key(last), path)) => {
                            format!("`{}` of `{}` {message}", full_name(path, last), spec.name)
                        }
                        _ => format!("an item in the arguments of `{}` {message}", spec.name),
                    },
                    "does not fit",
                ),
            };
            self.problem(problem);
        }
    }
}

fn full_name(path: &[Segment], name: &str) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
        .chain(std::iter::once(name))
        .collect::<Vec<_>>()
        .join(".")
}

/// Follows a path as far as it goes.
fn node_in<'a>(node: &'a Node, path: &[Segment]) -> &'a Node {
    let Some((segment, rest)) = path.split_first() else {
        return node;
    };
    let next = match (segment, &node.kind) {
        (Segment::Key(key), NodeKind::Mapping(_)) => node.get(key),
        (Segment::Index(index), NodeKind::Sequence(items)) => items.get(*index),
        _ => None,
    };
    next.map_or(node, |next| node_in(next, rest))
}

fn key_in(args: &Node, path: &[Segment], name: &str) -> Location {
    let node = node_in(args, path);
    let at = match &node.kind {
        NodeKind::Mapping(entries) => entries
            .iter()
            .find(|(key, _, _)| key == name)
            .map(|(_, at, _)| at.clone()),
        _ => None,
    };
    at.unwrap_or_else(|| super::places::first_line(&node.at))
}
