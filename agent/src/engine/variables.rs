//! Files of variables that a task names: `include_vars`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::arguments::place_of;
use crate::playbook::model::Node;
use crate::source::{Location, Problem, SourceFile};
use crate::vault::Vault;

/// Reads the `file`, or the files of the `dir`, that rendered arguments name.
pub(super) fn read(
    arguments: &Map<String, Value>,
    args: &Node,
    base_dir: &Path,
    vault: &Vault,
) -> Result<Value, Problem> {
    let word = |key: &str| arguments.get(key).and_then(Value::as_str);
    let (key, named) = match (word("file"), word("dir")) {
        (Some(file), None) => ("file", file),
        (None, Some(dir)) => ("dir", dir),
        _ => {
            return Err(Problem::new(
                "playbook::arguments",
                &args.at,
                "`include_vars` takes either `file` or `dir`",
                "neither or both",
            ));
        }
    };
    let at = place_of(args, key);
    let in_vars = base_dir.join("vars").join(named);
    let path = match in_vars.exists() {
        true => in_vars,
        false => base_dir.join(named),
    };
    let mut files = Vec::new();
    if key == "file" {
        files.push(path);
    } else {
        let ends: Vec<String> = match arguments.get("extensions") {
            Some(Value::Array(ends)) => ends.iter().map(super::unit::text_of_value).collect(),
            _ => ["json", "yaml", "yml"].map(str::to_owned).to_vec(),
        };
        let depth = arguments.get("depth").and_then(Value::as_u64).unwrap_or(0);
        let ignores = arguments.get("ignore_unknown_extensions") == Some(&Value::Bool(true));
        list(&path, at, depth, &mut files)?;
        let fits = |path: &PathBuf| {
            let end = path
                .extension()
                .map(|end| end.to_string_lossy().into_owned());
            end.is_some_and(|end| ends.contains(&end))
        };
        if let (Some(other), false) = (files.iter().find(|path| !fits(path)), ignores) {
            let message = format!("{} ends in none of {}", other.display(), ends.join(", "));
            return Err(
                Problem::new("playbook::file", at, message, "this directory")
                    .with_help("say `ignore_unknown_extensions: true` to pass over such files"),
            );
        }
        files.retain(fits);
    }
    let mut variables = Map::new();
    for file in &files {
        variables.extend(variables_of(file, at, vault)?);
    }
    Ok(json!({"files": files, "variables": variables}))
}

/// Files by name, those of a directory before those of the ones in it.
fn list(dir: &Path, at: &Location, depth: u64, files: &mut Vec<PathBuf>) -> Result<(), Problem> {
    let listed = std::fs::read_dir(dir).map_err(|error| unreadable(dir, at, &error.to_string()))?;
    let entries: BTreeMap<_, _> = listed
        .filter_map(Result::ok)
        .map(|entry| (entry.file_name(), entry.path()))
        .collect();
    let (folders, plain): (Vec<PathBuf>, Vec<PathBuf>) =
        entries.into_values().partition(|path| path.is_dir());
    files.extend(plain);
    if depth == 1 {
        return Ok(());
    }
    for folder in folders {
        list(&folder, at, depth.saturating_sub(1), files)?;
    }
    Ok(())
}

fn variables_of(path: &Path, at: &Location, vault: &Vault) -> Result<Map<String, Value>, Problem> {
    let text =
        std::fs::read_to_string(path).map_err(|error| unreadable(path, at, &error.to_string()))?;
    let file = Arc::new(SourceFile {
        path: path.to_owned(),
        text,
    });
    let node =
        crate::playbook::parse_with(&file, vault).map_err(|mut problems| problems.remove(0))?;
    match node.to_value() {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(Problem::new(
            "playbook::wrong_type",
            &node.at,
            "a variables file must be a mapping of variables",
            "not a mapping",
        )),
    }
}

fn unreadable(path: &Path, at: &Location, reason: &str) -> Problem {
    Problem::new(
        "playbook::file",
        at,
        format!("cannot read the variables of {}: {reason}", path.display()),
        "this one",
    )
    .with_help("it is looked for in `vars/` beside the playbook, and beside it")
}
