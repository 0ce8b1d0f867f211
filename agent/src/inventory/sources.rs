//! Where inventories come from: files, folders and lists.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Map;

use super::mistake::Mistake;
use super::model::Draft;
use super::vars_files::VarsFiles;
use super::{Inventory, UNGROUPED, ini, names, yaml};
use crate::source::{Location, Problem, SourceFile};

pub(super) const MAKE_STATIC: &str = "dynamic inventories are not run: \
    `ansible-inventory -i SOURCE --list --yaml --output inventory.yaml` makes a static one";

/// What Ansible passes over in a folder, by the end of the name.
const PASSED_OVER: [&str; 12] = [
    ".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry",
];
const YAML_ENDINGS: [&str; 3] = ["yml", "yaml", "json"];

/// Reads all sources, in their order.
pub(super) fn read(sources: &[String]) -> Result<Inventory, Vec<Problem>> {
    let mut draft = Draft::new();
    let mut files = VarsFiles::default();
    let mut problems = Vec::new();
    for source in sources {
        let path = Path::new(source);
        match fs::metadata(path) {
            Err(_) if source.contains(',') => problems.extend(list(source, &mut draft)),
            Err(error) => problems.push(missing(source, &error)),
            Ok(meta) if meta.is_dir() => {
                problems.extend(folder(path, &mut draft));
                files.folder(path);
            }
            Ok(_) => {
                problems.extend(file(path, &mut draft));
                let beside = path
                    .parent()
                    .filter(|beside| !beside.as_os_str().is_empty());
                files.folder(beside.unwrap_or(Path::new(".")));
            }
        }
    }
    if problems.is_empty() {
        draft.finish(files)
    } else {
        Err(problems)
    }
}

/// A place that stands for a whole file or argument.
fn whole(path: &Path, text: &str) -> Location {
    Location {
        file: Arc::new(SourceFile {
            path: path.to_path_buf(),
            text: text.to_owned(),
        }),
        start: 0,
        end: text.len(),
    }
}

fn missing(source: &str, error: &std::io::Error) -> Problem {
    let (what, help) = if error.kind() == std::io::ErrorKind::NotFound {
        (
            "it is not there".to_owned(),
            "look at the path; a list of hosts needs a comma: `-i host1,`",
        )
    } else {
        (
            error.to_string(),
            "look at the path, its mode and its owner",
        )
    };
    Problem::new(
        "inventory::unreadable",
        &whole(Path::new("-i"), source),
        format!("the inventory `{source}` cannot be read: {what}"),
        "this source",
    )
    .with_help(help)
}

/// Reads `host1,host2,`.
fn list(source: &str, draft: &mut Draft) -> Vec<Problem> {
    let at = whole(Path::new("-i"), source);
    let ungrouped = draft.group(UNGROUPED);
    let mut problems = Vec::new();
    let mut start = 0;
    for entry in source.split(',') {
        let name = entry.trim();
        let begin = start + (entry.len() - entry.trim_start().len());
        start += entry.len() + 1;
        if name.is_empty() {
            continue;
        }
        match names::expand(name) {
            Ok((names, port)) => {
                let vars: Map<_, _> = port
                    .map(|port| ("ansible_port".to_owned(), port.into()))
                    .into_iter()
                    .collect();
                for name in names {
                    draft.host(ungrouped, &name, &vars);
                }
            }
            Err(wrong) => {
                let at = Location {
                    start: begin,
                    end: begin + name.len(),
                    ..at.clone()
                };
                problems.push(Mistake::HostName.of(&at, wrong));
            }
        }
    }
    if problems.is_empty() && draft.host_count() == 0 {
        problems.push(
            Problem::new(
                "inventory::no_hosts",
                &at,
                "this list has no host",
                "nothing",
            )
            .with_help("write `-i host1,host2,`"),
        );
    }
    problems
}

/// Reads all inventories of a folder and those below it, by name.
fn folder(path: &Path, draft: &mut Draft) -> Vec<Problem> {
    let entries = match entries(path) {
        Ok(entries) => entries,
        Err(problem) => return vec![problem],
    };
    let mut problems = Vec::new();
    for (name, path) in entries {
        let skipped = name.starts_with('.')
            || ["group_vars", "host_vars", "vars_plugins"].contains(&name.as_str())
            || PASSED_OVER.iter().any(|ending| name.ends_with(ending));
        if skipped {
            continue;
        }
        problems.extend(if path.is_dir() {
            folder(&path, draft)
        } else {
            file(&path, draft)
        });
    }
    problems
}

/// Names and paths in a folder, sorted by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, Problem> {
    let read = || -> std::io::Result<Vec<_>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push((name, entry.path()));
        }
        Ok(entries)
    };
    let mut entries = read().map_err(|error| unreadable(folder, &error.to_string()))?;
    entries.sort_unstable();
    Ok(entries)
}

fn unreadable(path: &Path, what: &str) -> Problem {
    Problem::new(
        "inventory::unreadable",
        &whole(path, ""),
        format!("`{}` cannot be read: {what}", path.display()),
        "this file",
    )
    .with_help("look at its mode and owner")
}

/// Reads a text of an inventory or of variables.
pub(super) fn text(path: &Path) -> Result<Arc<SourceFile>, Problem> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
        if is_executable(path) {
            return program(path);
        }
        let mut at = whole(path, &text);
        at.start = good;
        Problem::new(
            "inventory::not_text",
            &at,
            "this is not UTF-8 text",
            "from here on",
        )
        .with_help("save it as UTF-8")
    })?;
    if text.starts_with("$ANSIBLE_VAULT;") {
        let first = text.lines().next().unwrap_or_default();
        return Err(Problem::new(
            "inventory::vault",
            &whole(path, first),
            "this file is encrypted with ansible-vault, and inventories are read unencrypted",
            "encrypted",
        )
        .with_help("`ansible-vault decrypt FILE`, or keep its secrets out of the inventory"));
    }
    Ok(Arc::new(SourceFile {
        path: path.to_path_buf(),
        text,
    }))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

fn program(path: &Path) -> Problem {
    Problem::new(
        "inventory::dynamic",
        &whole(path, ""),
        format!(
            "`{}` is a program, and programs are not run",
            path.display()
        ),
        "a program",
    )
    .with_help(MAKE_STATIC)
}

fn file(path: &Path, draft: &mut Draft) -> Vec<Problem> {
    let file = match text(path) {
        Ok(file) => file,
        Err(problem) => return vec![problem],
    };
    if file.text.starts_with("#!") {
        return vec![program(path)];
    }
    let ending = path.extension().map(|ending| ending.to_string_lossy());
    match ending.as_deref() {
        Some("toml") => vec![
            Problem::new(
                "inventory::format",
                &whole(path, ""),
                "inventories in TOML are not read",
                "TOML",
            )
            .with_help(MAKE_STATIC),
        ],
        Some(ending) if YAML_ENDINGS.contains(&ending) => yaml::read(&file, draft),
        None if looks_like_yaml(&file.text) => yaml::read(&file, draft),
        _ => ini::read(&file, draft),
    }
}

/// A file without an ending is YAML where its first line is a key or begins a document.
fn looks_like_yaml(text: &str) -> bool {
    let first = text
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with(['#', ';']))
        .unwrap_or_default();
    let key = first.split(" #").next().unwrap_or_default().trim_end();
    first == "---" || first.starts_with('{') || key.ends_with(':') || key.contains(": ")
}
