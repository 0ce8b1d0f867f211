//! From a task's arguments as written to its module, ready to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::run::Engine;
use crate::playbook::arguments::{coerce, schema_of};
use crate::playbook::model::{Node, NodeKind};
use crate::playbook::template::{Scope, Syntax, Templates};
use crate::source::{Problem, SourceFile};
use crate::task::module::{Module, ModuleSpec};
use crate::task::rendered;

/// Renders, coerces and types arguments.
pub(super) fn build(
    engine: &Engine,
    spec: &ModuleSpec,
    args: &Node,
    scope: &Scope,
) -> Result<(Box<dyn Module>, Value), Problem> {
    let (templates, base_dir) = (&engine.templates, engine.base_dir.as_path());
    let (plain, expressions) = split(spec, args);
    let mut rendered = templates.render(&plain, scope)?;
    if let Value::Object(map) = &mut rendered {
        // Their texts stand in for their values until the rest has been fitted to the schema.
        map.extend(
            expressions
                .iter()
                .map(|(key, node)| ((*key).to_owned(), node.to_value())),
        );
    }
    let mut coerced = coerce(&schema_of(spec), rendered).map_err(|errors| {
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let at = errors
            .first()
            .map_or(&args.at, |error| place_of(args, &error.path));
        misfit(spec, at, &text.join("; "))
    })?;
    if let Value::Object(map) = &mut coerced {
        for (key, node) in expressions {
            map.insert(key.to_owned(), evaluate(templates, node, scope)?);
        }
        if let Some(key) = spec.template_file
            && let Some(Value::String(named)) = map.get(key)
        {
            let at = place_of(args, key);
            let (path, content) = template_file(templates, named, at, map, scope, base_dir)?;
            map.insert(key.to_owned(), rendered::rendered(&path, &content));
        }
        if spec.reads_variables {
            let found = super::variables::read(map, args, base_dir, &engine.options.vault)?;
            engine.learn_revealed();
            map.insert("found".to_owned(), found);
        }
    }
    let module = (spec.build)(coerced.clone())
        .map_err(|error| misfit(spec, place_of(args, &error.path), &error.to_string()))?;
    Ok((module, coerced))
}

/// Reads and renders a template file, with the syntax that the other arguments choose.
fn template_file(
    templates: &Templates,
    named: &str,
    at: &crate::source::Location,
    arguments: &Map<String, Value>,
    scope: &Scope,
    base_dir: &Path,
) -> Result<(PathBuf, String), Problem> {
    let beside = [base_dir.join("templates").join(named), base_dir.join(named)];
    let [in_templates, in_folder] = beside;
    let path = if in_templates.is_file() {
        in_templates
    } else {
        in_folder
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Problem::new(
            "playbook::file",
            at,
            format!("cannot read the template {}: {error}", path.display()),
            "this file",
        )
        .with_help("it is looked for in `templates/` beside the playbook, and beside it")
    })?;
    let word = |key: &str| {
        arguments
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let flag = |key: &str| arguments.get(key).and_then(Value::as_bool);
    let syntax = Syntax {
        trim_blocks: flag("trim_blocks"),
        lstrip_blocks: flag("lstrip_blocks"),
        block: (word("block_start_string"), word("block_end_string")),
        variable: (word("variable_start_string"), word("variable_end_string")),
        comment: (word("comment_start_string"), word("comment_end_string")),
    };
    let file = Arc::new(SourceFile {
        path: path.clone(),
        text,
    });
    let content = templates.render_file(&file, scope, &syntax)?;
    Ok((path, content))
}

fn misfit(spec: &ModuleSpec, at: &crate::source::Location, text: &str) -> Problem {
    Problem::new(
        "playbook::wrong_argument",
        at,
        format!("`{}` does not take this: {text}", spec.name),
        "after rendering, this does not fit",
    )
}

/// Takes the arguments that are expressions apart from those that are values.
fn split<'n>(spec: &ModuleSpec, args: &'n Node) -> (Node, Vec<(&'n str, &'n Node)>) {
    let NodeKind::Mapping(entries) = &args.kind else {
        return (args.clone(), Vec::new());
    };
    let is_expression = |key: &str| spec.expressions.contains(&key);
    let plain = entries
        .iter()
        .filter(|(key, _, _)| !is_expression(key))
        .cloned()
        .collect();
    let expressions = entries
        .iter()
        .filter(|(key, _, _)| is_expression(key))
        .map(|(key, _, node)| (key.as_str(), node))
        .collect();
    (
        Node {
            kind: NodeKind::Mapping(plain),
            at: args.at.clone(),
        },
        expressions,
    )
}

/// Turns each expression into its text and its value.
fn evaluate(templates: &Templates, node: &Node, scope: &Scope) -> Result<Value, Problem> {
    match &node.kind {
        NodeKind::Sequence(items) => items
            .iter()
            .map(|item| evaluate(templates, item, scope))
            .collect(),
        _ => {
            let value = templates.evaluate(node, scope)?;
            // `true` and `false` are expressions as well.
            let text = match node.to_value() {
                Value::String(text) => text,
                other => other.to_string(),
            };
            Ok(json!({"expression": text, "value": value}))
        }
    }
}

/// Finds the node that an argument path such as `env.POSTGRES_DB` or `volumes[0]` means.
pub(super) fn place_of<'n>(args: &'n Node, path: &str) -> &'n crate::source::Location {
    let mut node = args;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        let next = match &node.kind {
            NodeKind::Sequence(items) => part
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index)),
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
    ctx: &crate::task::context::TaskContext,
) -> Vec<PathBuf> {
    let mut files = module.input_files(ctx);
    files.sort();
    files.dedup();
    files
}
