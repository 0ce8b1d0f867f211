//! `postgresql_verify`: two snapshots hold the same content, apart from declared changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::anticipate::Anticipated;
use super::error::PostgresError;
use super::snapshot_model::{Snapshot, TableSnapshot, qualified};
use crate::modules::context::TaskContext;
use crate::modules::error::{ModuleError, PathError};
use crate::modules::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// What may differ between the two snapshots.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredChanges {
    /// Tables that are there afterwards only.
    #[serde(default)]
    pub tables_added: Vec<String>,
    /// Tables that were there before only.
    #[serde(default)]
    pub tables_dropped: Vec<String>,
    /// Columns that change, come or go, by table. The snapshots must have been taken with the same
    /// as `changed_columns`: the other columns are compared by their `kept` checksum.
    #[serde(default)]
    pub columns: BTreeMap<String, Vec<String>>,
    /// Tables whose number of rows changes; their content is then not compared.
    #[serde(default)]
    pub rows: Vec<String>,
    /// Sequences that are there afterwards only.
    #[serde(default)]
    pub sequences_added: Vec<String>,
    /// Sequences that were there before only.
    #[serde(default)]
    pub sequences_dropped: Vec<String>,
    /// Sequences that are not compared.
    #[serde(default)]
    pub sequences_ignored: Vec<String>,
    /// Compare the number of indexes and constraints too. Default: true where nothing else is
    /// declared, false otherwise.
    #[serde(default)]
    pub indexes: Option<bool>,
}

/// Compares two snapshots and names every difference.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresqlVerify {
    /// Snapshot before: a registered result of `postgresql_snapshot`, or the path of its `dest`.
    pub before: Value,
    /// Snapshot after: likewise.
    pub after: Value,
    /// What may differ. Default: nothing.
    #[serde(default)]
    pub changes: DeclaredChanges,
    /// What a restore between them has anticipated: its result `anticipated`. These tables must be what
    /// they were with their NULLs filled, value for value; `before` was taken with the same `anticipate`.
    #[serde(default)]
    pub anticipated: Vec<Anticipated>,
}

impl TypedModule for PostgresqlVerify {
    const NAME: &'static str = "postgresql_verify";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_verify"];
    const KIND: Kind = Kind::ReadOnly;
    const SUMMARY: &'static str = "Compares two snapshots of databases and names every difference.";
    const EXAMPLE: &'static str = r#"- name: Nothing was lost on the way
  postgresql_verify:
    before: "{{ before }}"
    after: "{{ after }}"
    changes:
      tables_dropped: [key_value]
      columns: {study: [study_deleting]}
  register: verified   # verified.tables, verified.rows, verified.differences (when it fails)
"#;
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Difference {
    object: String,
    kind: &'static str,
    text: String,
}

fn read(
    ctx: &TaskContext,
    value: &Value,
    argument: &'static str,
) -> Result<Snapshot, PostgresError> {
    let bad = |error: serde_json::Error| {
        PostgresError::argument(argument, format!("is no snapshot: {error}"))
    };
    match value {
        Value::String(path) => {
            let path = ctx.resolve(Path::new(path));
            let text = std::fs::read(&path).map_err(PathError::on("read", &path))?;
            serde_json::from_slice(&text).map_err(bad)
        }
        // A registered result has more keys than the snapshot; these are passed over.
        other => serde_json::from_value(other.clone()).map_err(bad),
    }
}

fn names(list: &[String]) -> BTreeSet<String> {
    list.iter().map(|name| qualified(name)).collect()
}

/// Compares, and returns what differs and how many tables were compared in full or by `kept`.
fn compare(
    before: &Snapshot,
    after: &Snapshot,
    changes: &DeclaredChanges,
    anticipated: &[Anticipated],
) -> (Vec<Difference>, usize, usize) {
    let mut found = Vec::new();
    let mut differs = |object: &str, kind: &'static str, text: String| {
        found.push(Difference {
            object: object.to_owned(),
            kind,
            text,
        });
    };
    let (added, dropped) = (names(&changes.tables_added), names(&changes.tables_dropped));
    let columns: BTreeMap<String, BTreeSet<String>> = changes
        .columns
        .iter()
        .map(|(table, columns)| (qualified(table), columns.iter().cloned().collect()))
        .collect();
    let other_rows = names(&changes.rows);
    let nothing_declared = added.is_empty() && dropped.is_empty() && columns.is_empty();
    let indexes = changes.indexes.unwrap_or(nothing_declared);
    for name in after.tables.keys() {
        if !before.tables.contains_key(name) && !added.contains(name) {
            differs(
                name,
                "unexpected_table",
                format!("table {name} was not there before"),
            );
        }
    }
    for name in &added {
        if !after.tables.contains_key(name) {
            differs(
                name,
                "missing_table",
                format!("table {name} should have been added"),
            );
        }
    }
    let (mut full, mut kept) = (0, 0);
    for (name, old) in &before.tables {
        let Some(new) = after.tables.get(name) else {
            if !dropped.contains(name) {
                differs(
                    name,
                    "missing_table",
                    format!("table {name} with {} rows is gone", old.rows),
                );
            }
            continue;
        };
        if dropped.contains(name) && !added.contains(name) {
            differs(
                name,
                "unexpected_table",
                format!("table {name} should have been dropped"),
            );
        }
        let declared = columns.get(name);
        let same_rows = old.rows == new.rows;
        if !same_rows && !other_rows.contains(name) {
            differs(
                name,
                "rows",
                format!(
                    "table {name} has {} rows instead of {}{}",
                    new.rows,
                    old.rows,
                    first_keys(old, new)
                ),
            );
        }
        compare_columns(name, old, new, declared, &mut differs);
        if indexes && (old.indexes, old.constraints) != (new.indexes, new.constraints) {
            let text = format!(
                "table {name} has {} indexes and {} constraints instead of {} and {}",
                new.indexes, new.constraints, old.indexes, old.constraints
            );
            differs(name, "indexes", text);
        }
        if other_rows.contains(name) {
            continue;
        }
        let anticipated = anticipated.iter().find(|done| done.table == *name);
        match (declared, anticipated) {
            (None, Some(done)) => {
                full += 1;
                let text = compare_filled(done, old, new);
                if let Some(text) = text.filter(|_| same_rows) {
                    differs(name, "content", text);
                }
            }
            (None, None) => {
                full += 1;
                if old.checksum != new.checksum && same_rows {
                    let text = format!("table {name} has other content{}", first_keys(old, new));
                    differs(name, "content", text);
                }
            }
            (Some(_), _) => {
                kept += 1;
                let text = compare_kept(name, old, new);
                if let Some(text) = text.filter(|_| same_rows) {
                    differs(name, "content", text);
                }
            }
        }
    }
    compare_sequences(before, after, changes, &mut differs);
    (found, full, kept)
}

fn compare_columns(
    name: &str,
    old: &TableSnapshot,
    new: &TableSnapshot,
    declared: Option<&BTreeSet<String>>,
    differs: &mut impl FnMut(&str, &'static str, String),
) {
    let all: BTreeSet<&String> = old.columns.keys().chain(new.columns.keys()).collect();
    for column in all {
        if declared.is_some_and(|declared| declared.contains(column)) {
            continue;
        }
        let text = match (old.columns.get(column), new.columns.get(column)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => format!("column {name}.{column} is {b} instead of {a}"),
            (Some(_), None) => format!("column {name}.{column} is gone"),
            _ => format!("column {name}.{column} was not there before"),
        };
        differs(name, "columns", text);
    }
}

/// Says where the first difference is, where both snapshots have sums by ranges of keys.
fn first_keys(old: &TableSnapshot, new: &TableSnapshot) -> String {
    let ranges = old.ranges.as_ref().zip(new.ranges.as_ref());
    ranges
        .and_then(|(old, new)| old.first_difference(new))
        .map_or_else(String::new, |text| format!(": {text}"))
}

fn compare_kept(name: &str, old: &TableSnapshot, new: &TableSnapshot) -> Option<String> {
    if old.kept.is_none() || new.kept.is_none() {
        return Some(format!(
            "table {name} has declared changes, but was not read with the same `changed_columns`"
        ));
    }
    if old.kept_columns != new.kept_columns {
        return Some(format!(
            "table {name}: the unchanged columns are not the same ones"
        ));
    }
    (old.kept != new.kept).then(|| {
        let keys = first_keys(old, new);
        format!("table {name} has other content in its unchanged columns{keys}")
    })
}

fn compare_filled(done: &Anticipated, old: &TableSnapshot, new: &TableSnapshot) -> Option<String> {
    let name = &done.table;
    if old.filled_columns.as_ref() != Some(&done.columns) {
        return Some(format!(
            "table {name} was filled on the way, but was not read before with the same `anticipate`"
        ));
    }
    (old.filled.as_ref() != Some(&new.checksum)).then(|| {
        let keys = first_keys(old, new);
        format!("table {name} has other content than before with its NULLs filled{keys}")
    })
}

fn compare_sequences(
    before: &Snapshot,
    after: &Snapshot,
    changes: &DeclaredChanges,
    differs: &mut impl FnMut(&str, &'static str, String),
) {
    let (added, dropped) = (
        names(&changes.sequences_added),
        names(&changes.sequences_dropped),
    );
    let ignored = names(&changes.sequences_ignored);
    let all: BTreeSet<&String> = before
        .sequences
        .keys()
        .chain(after.sequences.keys())
        .collect();
    for name in all.into_iter().filter(|name| !ignored.contains(*name)) {
        let text = match (before.sequences.get(name), after.sequences.get(name)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => {
                format!(
                    "sequence {name} is at {} instead of {}",
                    b.last_value, a.last_value
                )
            }
            (Some(_), None) if dropped.contains(name) => continue,
            (None, Some(_)) if added.contains(name) => continue,
            (Some(_), None) => format!("sequence {name} is gone"),
            _ => format!("sequence {name} was not there before"),
        };
        differs(name, "sequence", text);
    }
    for name in added
        .iter()
        .filter(|name| !after.sequences.contains_key(*name))
    {
        differs(
            name,
            "sequence",
            format!("sequence {name} should have been added"),
        );
    }
}

#[async_trait]
impl Module for PostgresqlVerify {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let before = read(ctx, &self.before, "before")?;
        let after = read(ctx, &self.after, "after")?;
        if before.tables.is_empty() {
            let message = "holds no table: comparing with nothing proves nothing";
            return Err(PostgresError::argument("before", message).into());
        }
        let (differences, full, kept) = compare(&before, &after, &self.changes, &self.anticipated);
        if !differences.is_empty() {
            let details = differences
                .iter()
                .map(|d| json!({"object": d.object, "kind": d.kind, "message": d.text}))
                .collect();
            let differences = differences
                .into_iter()
                .map(|difference| difference.text)
                .collect();
            return Err(PostgresError::Differs {
                differences,
                details,
            }
            .into());
        }
        let rows = after.total_rows();
        Ok(Outcome::ok()
            .with("tables", full + kept)
            .with("tables_in_full", full)
            .with("tables_by_kept_columns", kept)
            .with("rows", rows)
            .with("sequences", after.sequences.len())
            .with("digest_before", before.digest)
            .with("digest_after", after.digest)
            .summary(format!(
                "{full} tables equal in full, {kept} in their unchanged columns, {rows} rows"
            )))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(tables: &[(&str, u64, &str, Option<&str>)]) -> Snapshot {
        let table = |rows, checksum: &str, kept: Option<&str>| TableSnapshot {
            rows,
            checksum: checksum.into(),
            kept: kept.map(Into::into),
            kept_columns: kept.map(|_| vec!["pk".into()]),
            columns: [("pk".to_owned(), "bigint not null".to_owned())].into(),
            ..TableSnapshot::default()
        };
        Snapshot {
            tables: tables
                .iter()
                .map(|(name, rows, sum, kept)| ((*name).to_owned(), table(*rows, sum, *kept)))
                .collect(),
            ..Snapshot::default()
        }
    }

    fn kinds(
        before: &Snapshot,
        after: &Snapshot,
        changes: &DeclaredChanges,
    ) -> Vec<(String, &'static str)> {
        compare(before, after, changes, &[])
            .0
            .into_iter()
            .map(|d| (d.object, d.kind))
            .collect()
    }

    #[test]
    fn every_kind_of_loss_is_named() {
        let before = snapshot(&[
            ("public.a", 3, "x", None),
            ("public.b", 3, "x", None),
            ("public.c", 3, "x", None),
        ]);
        let after = snapshot(&[
            ("public.a", 2, "y", None),
            ("public.b", 3, "y", None),
            ("public.d", 0, "", None),
        ]);
        let found = kinds(&before, &after, &DeclaredChanges::default());
        let expected = [
            ("public.d", "unexpected_table"),
            ("public.a", "rows"),
            ("public.b", "content"),
            ("public.c", "missing_table"),
        ];
        assert_eq!(found, expected.map(|(name, kind)| (name.to_owned(), kind)));
        assert!(kinds(&before, &before, &DeclaredChanges::default()).is_empty());
    }

    #[test]
    fn what_was_anticipated_is_checked_value_by_value() {
        let fills: BTreeMap<String, String> = [("aet".to_owned(), "*".to_owned())].into();
        let done = [Anticipated {
            table: "public.a".into(),
            columns: fills.clone(),
            values: 2,
        }];
        let mut before = snapshot(&[("public.a", 3, "x", None), ("public.b", 3, "x", None)]);
        let after = |a, b| snapshot(&[("public.a", 3, a, None), ("public.b", 3, b, None)]);
        let differ = |before: &Snapshot, after: &Snapshot| {
            compare(before, after, &DeclaredChanges::default(), &done)
                .0
                .len()
        };
        assert_eq!(
            differ(&before, &after("filled", "x")),
            1,
            "not read so before"
        );
        let a = before.tables.get_mut("public.a").expect("a");
        (a.filled, a.filled_columns) = (Some("filled".into()), Some(fills));
        assert_eq!(differ(&before, &after("filled", "x")), 0);
        assert_eq!(differ(&before, &after("x", "x")), 1, "not filled after all");
        assert_eq!(
            differ(&before, &after("filled", "filled")),
            1,
            "another table"
        );
    }

    #[test]
    fn declared_changes_are_checked_by_what_is_kept() {
        let changes: DeclaredChanges =
            serde_json::from_value(json!({"columns": {"a": ["new"]}, "tables_added": ["n"]}))
                .expect("valid");
        let before = snapshot(&[("public.a", 3, "x", Some("k"))]);
        let good = snapshot(&[("public.a", 3, "y", Some("k")), ("public.n", 0, "", None)]);
        assert!(kinds(&before, &good, &changes).is_empty());
        let bad = snapshot(&[
            ("public.a", 3, "x", Some("other")),
            ("public.n", 0, "", None),
        ]);
        assert_eq!(
            kinds(&before, &bad, &changes),
            [("public.a".to_owned(), "content")]
        );
        let unread = snapshot(&[("public.a", 3, "x", None)]);
        assert_eq!(kinds(&before, &unread, &changes).len(), 2);
    }
}
