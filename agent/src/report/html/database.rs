//! The database before and after: snapshots that the journal holds, compared table by table.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Names, text};
use crate::report::attempts::{Task, word};
use crate::report::units;

#[derive(Serialize)]
pub(super) struct Database {
    text: String,
    caption: String,
    verified: Vec<Check>,
    snapshots: Vec<SnapshotRow>,
    pub(super) tables: Vec<TableRow>,
    pub(super) rows_now: String,
    #[serde(skip)]
    sentence: String,
}

#[derive(Serialize)]
struct Check {
    name: String,
    class: &'static str,
    word: &'static str,
    summary: String,
    time: String,
}

#[derive(Serialize)]
struct SnapshotRow {
    name: String,
    digest: String,
    version: String,
    time: String,
    tables: usize,
    rows: String,
}

#[derive(Serialize)]
pub(super) struct TableRow {
    name: String,
    before: String,
    after: String,
    class: &'static str,
    word: &'static str,
    sums: Vec<String>,
}

struct Snapshot<'r> {
    name: String,
    time: String,
    result: &'r Value,
    tables: &'r Map<String, Value>,
}

impl Snapshot<'_> {
    fn rows(&self) -> u64 {
        self.tables.values().map(rows).sum()
    }
}

fn rows(table: &Value) -> u64 {
    table.get("rows").and_then(Value::as_u64).unwrap_or(0)
}

impl Database {
    pub(super) fn sentence(&self) -> String {
        self.sentence.clone()
    }
}

pub(super) fn collect(all: &[Task<'_>], names: &Names<'_>) -> Option<Database> {
    let mut snapshots: Vec<_> = all
        .iter()
        .filter_map(|task| snapshot(task, names))
        .collect();
    snapshots.sort_by_key(|(time, _)| *time);
    let snapshots: Vec<Snapshot<'_>> = snapshots.into_iter().map(|(_, found)| found).collect();
    let (first, last) = (snapshots.first()?, snapshots.last()?);
    let tables = tables(&snapshots);
    let count = |word: &str| tables.iter().filter(|table| table.word == word).count();
    let (full, kept, new) = (count(SAME), count(KEPT), count(NEW));
    let (gone, other) = (count(GONE), count(DIFFERS));
    let verified = checks(all, names);
    let parts = [
        (full, "equal in full"),
        (kept, "equal in all columns that no script changes"),
        (new, "new"),
        (gone, "dropped"),
        (other, "different"),
    ];
    let counted: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    let sentence = if snapshots.len() == 1 {
        format!(
            "{} rows in {} tables were counted so far; nothing has been compared yet.",
            units::count(first.rows()),
            first.tables.len()
        )
    } else {
        format!(
            "From the first count to the last, of {} tables: {}.",
            tables.len(),
            counted.join(", ")
        )
    };
    let text = if snapshots.len() == 1 {
        "Counted once so far.".to_owned()
    } else {
        format!(
            "Before: {} rows on PostgreSQL {}. After: {} rows on PostgreSQL {}.",
            units::count(first.rows()),
            version(first.result),
            units::count(last.rows()),
            version(last.result)
        )
    };
    Some(Database {
        text,
        caption: format!(
            "From “{}” to “{}”. A checksum covers every column of every row, whatever their order.",
            first.name, last.name
        ),
        rows_now: units::count(last.rows()),
        verified,
        snapshots: snapshots.iter().map(row).collect(),
        tables,
        sentence,
    })
}

fn version(result: &Value) -> &str {
    let version = text(result, "server_version");
    version.split(' ').next().unwrap_or(version)
}

fn snapshot<'r>(task: &Task<'r>, names: &Names<'_>) -> Option<(jiff::Timestamp, Snapshot<'r>)> {
    let (_, end) = task.good_end()?;
    let tables = end.result.get("tables")?.as_object()?;
    // What counts tables without reading them is no snapshot.
    end.result.get("digest")?;
    let found = Snapshot {
        name: names.name(task.identity),
        time: units::moment(end.time),
        result: end.result,
        tables,
    };
    Some((end.time, found))
}

fn row(snapshot: &Snapshot<'_>) -> SnapshotRow {
    SnapshotRow {
        name: snapshot.name.clone(),
        digest: text(snapshot.result, "digest").to_owned(),
        version: version(snapshot.result).to_owned(),
        time: snapshot.time.clone(),
        tables: snapshot.tables.len(),
        rows: units::count(snapshot.rows()),
    }
}

fn checks(all: &[Task<'_>], names: &Names<'_>) -> Vec<Check> {
    all.iter()
        .filter(|task| task.module == Some("postgresql_verify"))
        .filter_map(|task| {
            let end = task.attempts.last()?.end.as_ref()?;
            let good = end.error.is_none();
            Some(Check {
                name: names.name(task.identity),
                class: if good { "good" } else { "bad" },
                word: if good { "equal" } else { word(end.status) },
                summary: end.summary.or(end.error).unwrap_or_default().to_owned(),
                time: units::moment(end.time),
            })
        })
        .collect()
}

const SAME: &str = "equal";
const KEPT: &str = "equal where unchanged";
const NEW: &str = "new";
const GONE: &str = "dropped";
const DIFFERS: &str = "differs";
const ONCE: &str = "counted";

/// Follows each table through all snapshots: equal only if every step was.
fn tables(snapshots: &[Snapshot<'_>]) -> Vec<TableRow> {
    let names: BTreeSet<&String> = snapshots.iter().flat_map(|s| s.tables.keys()).collect();
    names
        .into_iter()
        .map(|name| table(name, snapshots))
        .collect()
}

fn table(name: &str, snapshots: &[Snapshot<'_>]) -> TableRow {
    let at = |snapshot: &Snapshot<'_>| snapshot.tables.get(name).cloned();
    let seen: Vec<Option<Value>> = snapshots.iter().map(at).collect();
    let (first, last) = (
        seen.first().cloned().flatten(),
        seen.last().cloned().flatten(),
    );
    let shown = |table: &Option<Value>| {
        table
            .as_ref()
            .map_or_else(|| "–".to_owned(), |table| units::count(rows(table)))
    };
    let sum = |table: &Option<Value>| {
        table
            .as_ref()
            .map(|table| text(table, "checksum").to_owned())
    };
    let (mut class, mut word) = match (&first, &last) {
        (None, _) => ("calm", NEW),
        (_, None) => ("calm", GONE),
        _ if snapshots.len() == 1 => ("", ONCE),
        _ => ("good", SAME),
    };
    let mut kept = None;
    if word == SAME {
        for pair in seen.windows(2) {
            let [Some(old), Some(new)] = pair else {
                (class, word) = ("bad", DIFFERS);
                break;
            };
            if rows(old) == rows(new) && text(old, "checksum") == text(new, "checksum") {
                continue;
            }
            if rows(old) == rows(new) && kept_of(old).is_some() && kept_of(old) == kept_of(new) {
                (class, word) = ("good", KEPT);
                kept = kept_of(new);
                continue;
            }
            (class, word) = ("bad", DIFFERS);
            break;
        }
    }
    let mut sums = Vec::new();
    match (sum(&first), sum(&last)) {
        (Some(before), Some(after)) if before == after => sums.push(before),
        (before, after) => {
            sums.extend(before.map(|sum| format!("before {sum}")));
            sums.extend(after.map(|sum| format!("after {sum}")));
        }
    }
    sums.extend(kept.map(|sum| format!("unchanged columns {sum}")));
    TableRow {
        name: name.to_owned(),
        before: shown(&first),
        after: shown(&last),
        class,
        word,
        sums,
    }
}

fn kept_of(table: &Value) -> Option<String> {
    // Of the same columns, or the sums say nothing about each other.
    let columns: Vec<&str> = table
        .get("kept_columns")?
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    (!columns.is_empty()).then(|| text(table, "kept").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_equal_only_if_every_step_was() {
        let kept = |sum: &str, kept: &str| json!({"rows": 2, "checksum": sum, "kept": kept, "kept_columns": ["pk"]});
        let taken = [
            json!({"a": {"rows": 1, "checksum": "x"}, "b": {"rows": 2, "checksum": "s"}, "gone": {"rows": 0, "checksum": "0"}, "c": {"rows": 1, "checksum": "1"}}),
            json!({"a": {"rows": 1, "checksum": "x"}, "b": kept("s", "k"), "gone": {"rows": 0, "checksum": "0"}, "c": {"rows": 1, "checksum": "2"}}),
            json!({"a": {"rows": 1, "checksum": "x"}, "b": kept("t", "k"), "new": {"rows": 0, "checksum": "0"}, "c": {"rows": 1, "checksum": "1"}}),
        ];
        let nothing = Value::Null;
        let snapshots: Vec<Snapshot<'_>> = taken
            .iter()
            .map(|tables| Snapshot {
                name: String::new(),
                time: String::new(),
                result: &nothing,
                tables: tables.as_object().expect("a map"),
            })
            .collect();
        let found: Vec<_> = tables(&snapshots)
            .into_iter()
            .map(|t| (t.name, t.word))
            .collect();
        let expected = [
            ("a", SAME),
            ("b", KEPT),
            ("c", DIFFERS),
            ("gone", GONE),
            ("new", NEW),
        ];
        assert_eq!(found, expected.map(|(name, word)| (name.to_owned(), word)));
    }
}
