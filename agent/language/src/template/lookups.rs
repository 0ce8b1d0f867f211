//! `lookup` and `query`: values from files, the environment and variables, while a template is rendered.

use std::path::{Path, PathBuf};

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, State, Value};

use super::error::say;
use crate::host::glob::all_matches;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_function(
        "lookup",
        |state: &State<'_, '_>, name: String, terms: Rest<Value>, options: Kwargs| {
            let wants_list = options.get::<Option<bool>>("wantlist")?.unwrap_or(false);
            let found = find(state, &name, &terms, &options)?;
            if wants_list {
                return Ok(Value::from(found));
            }
            // As Ansible: one value is itself, several texts are joined.
            match found.as_slice() {
                [one] => Ok::<_, Error>(one.clone()),
                several => Ok(Value::from(
                    several
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(","),
                )),
            }
        },
    );
    for name in ["query", "q"] {
        environment.add_function(
            name,
            |state: &State<'_, '_>, name: String, terms: Rest<Value>, options: Kwargs| {
                find(state, &name, &terms, &options).map(Value::from)
            },
        );
    }
}

fn find(
    state: &State<'_, '_>,
    name: &str,
    terms: &[Value],
    options: &Kwargs,
) -> Result<Vec<Value>, Error> {
    let short = name.strip_prefix("ansible.builtin.").unwrap_or(name);
    let folder = state.lookup("playbook_dir");
    let folder = folder
        .as_ref()
        .and_then(|dir| dir.as_str())
        .unwrap_or(".")
        .to_owned();
    let folder = Path::new(&folder);
    let default = options.get::<Option<Value>>("default")?;
    match short {
        "file" => {
            let strip = options.get::<Option<bool>>("rstrip")?.unwrap_or(true);
            options.assert_all_used()?;
            let each = |term: &Value| {
                let path = place(folder, "files", &term.to_string());
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    say(format!(
                        "`lookup('file', …)` cannot read {}: {error}",
                        path.display()
                    ))
                })?;
                let text = if strip {
                    text.trim_end()
                } else {
                    text.as_str()
                };
                Ok(Value::from(text))
            };
            flat(terms)?.iter().map(each).collect()
        }
        "env" => {
            options.assert_all_used()?;
            let each = |term: Value| match std::env::var(term.to_string()) {
                Ok(value) => Value::from(value),
                Err(_) => default.clone().unwrap_or_else(|| Value::from("")),
            };
            Ok(flat(terms)?.into_iter().map(each).collect())
        }
        "vars" => {
            options.assert_all_used()?;
            let each = |term: Value| {
                let name = term.to_string();
                match state.lookup(&name).filter(|value| !value.is_undefined()) {
                    Some(value) => Ok(value),
                    None => default
                        .clone()
                        .ok_or_else(|| say(format!("`lookup('vars', …)`: `{name}` is undefined"))),
                }
            };
            flat(terms)?.into_iter().map(each).collect()
        }
        "first_found" => {
            let skip = options.get::<Option<bool>>("skip")?.unwrap_or(false);
            options.assert_all_used()?;
            let names = flat(terms)?;
            let found = names
                .iter()
                .map(|name| place(folder, "files", &name.to_string()))
                .find(|path| path.exists());
            match (found, default) {
                (Some(path), _) => Ok(vec![Value::from(path.display().to_string())]),
                (None, Some(default)) => Ok(vec![default]),
                (None, None) if skip => Ok(Vec::new()),
                (None, None) => Err(say("`lookup('first_found', …)` finds none of the files")),
            }
        }
        "fileglob" => {
            options.assert_all_used()?;
            let mut files = Vec::new();
            for term in flat(terms)? {
                let term = term.to_string();
                let found = [folder.join("files").join(&term), folder.join(&term)]
                    .iter()
                    .map(|pattern| all_matches(pattern))
                    .find(|found| !found.is_empty())
                    .unwrap_or_default();
                let plain = found.into_iter().filter(|path| path.is_file());
                files.extend(plain.map(|path| Value::from(path.display().to_string())));
            }
            Ok(files)
        }
        "dict" => {
            options.assert_all_used()?;
            let mut entries = Vec::new();
            for map in terms {
                for key in map.try_iter()? {
                    let value = map.get_item(&key)?;
                    entries.push(Value::from_pairs([("key", key), ("value", value)]));
                }
            }
            Ok(entries)
        }
        "items" => {
            options.assert_all_used()?;
            flat(terms)
        }
        "flattened" => {
            options.assert_all_used()?;
            let mut all = flat(terms)?;
            while all.iter().any(|item| item.kind() == ValueKind::Seq) {
                all = flat(&all)?;
            }
            Ok(all)
        }
        "list" => {
            options.assert_all_used()?;
            Ok(terms.to_vec())
        }
        _ => Err(say(format!(
            "there is no lookup `{short}` here: file, env, vars, first_found, fileglob, dict, items, \
             flattened and list are known; what a program prints is a `command` with `register`"
        ))),
    }
}

/// Lists among the terms are taken apart, one level.
fn flat(terms: &[Value]) -> Result<Vec<Value>, Error> {
    let mut flat = Vec::new();
    for term in terms {
        match term.kind() {
            ValueKind::Seq | ValueKind::Iterable => flat.extend(term.try_iter()?),
            _ => flat.push(term.clone()),
        }
    }
    Ok(flat)
}

/// A relative path is looked for in a folder beside the playbook, then beside the playbook.
fn place(playbook: &Path, folder: &str, path: &str) -> PathBuf {
    let inside = playbook.join(folder).join(path);
    match inside.exists() {
        true => inside,
        false => playbook.join(path),
    }
}
