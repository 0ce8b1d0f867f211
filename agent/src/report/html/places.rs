//! What was done to the host: scripts, directories, files, services.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{split, text};
use crate::report::attempts::{Attempt, End, Task};
use crate::report::units;
use crate::state::{Body, Record};

#[derive(Serialize)]
pub(super) struct Script {
    name: String,
    sha256: String,
    class: &'static str,
    word: &'static str,
    statements: String,
    time: String,
}

pub(super) fn scripts(all: &[Task<'_>]) -> Vec<Script> {
    all.iter()
        .filter(|task| task.module == Some("postgresql_script"))
        .filter_map(|task| {
            let last = task.attempts.last()?;
            let (class, word, time) = match &last.end {
                Some(end) if end.error.is_none() => {
                    let again = end.result.get("already_applied") == Some(&Value::Bool(true));
                    let word = if again {
                        "was applied already"
                    } else {
                        "applied"
                    };
                    ("good", word, end.time)
                }
                Some(end) => ("bad", "failed, rolled back", end.time),
                None => ("bad", "cut off", last.started?),
            };
            let result = last.end.as_ref().map_or(&Value::Null, |end| end.result);
            let name = text(result, "script");
            Some(Script {
                name: if name.is_empty() {
                    split(task.identity).1
                } else {
                    name.to_owned()
                },
                sha256: text(result, "sha256").to_owned(),
                class,
                word,
                statements: result
                    .get("statements")
                    .and_then(Value::as_u64)
                    .map_or_else(|| "–".to_owned(), units::count),
                time: units::moment(time),
            })
        })
        .collect()
}

#[derive(Serialize)]
pub(super) struct Directory {
    path: String,
    before: String,
    after: String,
}

const NOT_THERE: &str = "not there";

/// Follows each database directory through the tasks that looked at it, made it, moved it or removed it.
pub(super) fn directories(all: &[Task<'_>]) -> Vec<Directory> {
    let mut ends: Vec<(&Task<'_>, &Attempt<'_>, &End<'_>)> = all
        .iter()
        .filter_map(|task| task.good_end().map(|(attempt, end)| (task, attempt, end)))
        .collect();
    ends.sort_by_key(|(_, _, end)| end.time);
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    let mut after: BTreeMap<String, String> = BTreeMap::new();
    for (task, attempt, end) in ends {
        let path = text(end.result, "path").to_owned();
        let found = database_of(end.result);
        match task.module {
            Some("postgresql_data_directory") => {
                before.entry(path.clone()).or_insert_with(|| found.clone());
                after.insert(path, found);
            }
            Some("postgresql_initdb") => {
                before
                    .entry(path.clone())
                    .or_insert_with(|| NOT_THERE.into());
                after.insert(path, found);
            }
            Some("move") => {
                let (src, dest) = (text(end.result, "src"), text(end.result, "dest"));
                let moved = after.insert(src.to_owned(), NOT_THERE.into());
                let moved = moved.unwrap_or_else(|| "a directory".into());
                before
                    .entry(src.to_owned())
                    .or_insert_with(|| moved.clone());
                before
                    .entry(dest.to_owned())
                    .or_insert_with(|| NOT_THERE.into());
                let moved = moved.split(" (from ").next().unwrap_or_default();
                after.insert(dest.to_owned(), format!("{moved} (from {src})"));
            }
            Some("file") if text(end.result, "state") == "absent" && after.contains_key(&path) => {
                after.insert(path, "removed".into());
            }
            Some("stat") => {
                let looked = text(attempt.arguments, "path").to_owned();
                let exists = end.result.pointer("/stat/exists");
                if exists == Some(&Value::Bool(false)) {
                    before.entry(looked).or_insert_with(|| NOT_THERE.into());
                }
            }
            _ => {}
        }
    }
    after
        .into_iter()
        .map(|(path, after)| Directory {
            before: before.get(&path).cloned().unwrap_or_default(),
            path,
            after,
        })
        .collect()
}

fn database_of(result: &Value) -> String {
    let size = result
        .get("size_bytes")
        .and_then(Value::as_u64)
        .map_or_else(String::new, |size| format!(", {}", units::bytes(size)));
    format!("PostgreSQL {}{size}", text(result, "version"))
}

#[derive(Serialize)]
pub(super) struct MadeFile {
    path: String,
    size: String,
    sha256: String,
}

pub(super) fn files(all: &[Task<'_>]) -> Vec<MadeFile> {
    all.iter()
        .filter_map(Task::good_end)
        .flat_map(|(_, end)| end.outputs)
        .map(|output| MadeFile {
            path: output.path.display().to_string(),
            size: units::bytes(output.size),
            sha256: output.sha256.clone(),
        })
        .collect()
}

#[derive(Serialize)]
pub(super) struct ServiceRow {
    name: String,
    container: String,
    started: String,
    stopped: String,
}

pub(super) fn services(records: &[Record], running: bool) -> Vec<ServiceRow> {
    let mut rows: Vec<(ServiceRow, bool)> = Vec::new();
    for record in records {
        match &record.body {
            Body::ServiceStarted {
                service, container, ..
            } => rows.push((
                ServiceRow {
                    name: service.clone(),
                    container: container.clone(),
                    started: units::moment(record.time),
                    stopped: String::new(),
                },
                true,
            )),
            Body::ServiceStopped { service, .. } => {
                let open = rows
                    .iter_mut()
                    .rev()
                    .find(|(row, open)| *open && row.name == *service);
                if let Some((row, open)) = open {
                    row.stopped = units::moment(record.time);
                    *open = false;
                }
            }
            _ => {}
        }
    }
    rows.into_iter()
        .map(|(mut row, open)| {
            if open {
                row.stopped = if running {
                    "still up".into()
                } else {
                    "left over: the next run removes it".into()
                };
            }
            row
        })
        .collect()
}
