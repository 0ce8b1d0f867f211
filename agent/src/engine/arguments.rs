//! From a task's arguments as written to its module, ready to run.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::modules::{Module, ModuleSpec};
use crate::playbook::arguments::coerce;
use crate::playbook::model::{Node, NodeKind};
use crate::playbook::template::{Scope, Templates};
use crate::source::Problem;

/// Renders, coerces and types arguments.
pub(super) fn build(
    templates: &Templates,
    spec: &ModuleSpec,
    args: &Node,
    scope: &Scope,
) -> Result<(Box<dyn Module>, Value), Problem> {
    let rendered = render(templates, spec, args, scope)?;
    let schema = (spec.schema)();
    let coerced = coerce(schema.as_value(), rendered).map_err(|errors| {
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let at = errors.first().map_or(&args.at, |error| place_of(args, &error.path));
        misfit(spec, at, &text.join("; "))
    })?;
    let module = (spec.build)(coerced.clone())
        .map_err(|error| misfit(spec, place_of(args, &error.path), &error.to_string()))?;
    Ok((module, coerced))
}

fn misfit(spec: &ModuleSpec, at: &crate::source::Location, text: &str) -> Problem {
    Problem::new(
        "playbook::wrong_argument",
        at,
        format!("`{}` does not take this: {text}", spec.name),
        "after rendering, this does not fit",
    )
}

fn render(
    templates: &Templates,
    spec: &ModuleSpec,
    args: &Node,
    scope: &Scope,
) -> Result<Value, Problem> {
    let NodeKind::Mapping(entries) = &args.kind else {
        return templates.render(args, scope);
    };
    let (expressions, plain): (Vec<_>, Vec<_>) =
        entries.iter().cloned().partition(|(key, _, _)| spec.expressions.contains(&key.as_str()));
    let plain = Node { kind: NodeKind::Mapping(plain), at: args.at.clone() };
    let mut values = match templates.render(&plain, scope)? {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for (key, _, node) in &expressions {
        values.insert(key.clone(), evaluate(templates, node, scope)?);
    }
    Ok(values.into())
}

/// Turns each expression into its text and its value.
fn evaluate(templates: &Templates, node: &Node, scope: &Scope) -> Result<Value, Problem> {
    match &node.kind {
        NodeKind::Sequence(items) => {
            items.iter().map(|item| evaluate(templates, item, scope)).collect()
        }
        _ => {
            let value = templates.evaluate(node, scope)?;
            Ok(json!({"expression": node.to_value(), "value": value}))
        }
    }
}

/// Finds the node that an argument path such as `env.POSTGRES_DB` or `volumes[0]` means.
fn place_of<'n>(args: &'n Node, path: &str) -> &'n crate::source::Location {
    let mut node = args;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let next = match &node.kind {
            NodeKind::Sequence(items) => {
                part.parse::<usize>().ok().and_then(|index| items.get(index))
            }
            _ => node.get(part),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    &node.at
}

/// Absolute input files of a module, in a stable order.
pub(super) fn input_files(
    module: &dyn Module,
    ctx: &crate::modules::TaskContext,
) -> Vec<PathBuf> {
    let mut files = module.input_files(ctx);
    files.sort();
    files.dedup();
    files
}
