//! Compares two snapshots: what is the same, and what differs where.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use super::key_ranges::{KeyPosition, KeyRanges};
use crate::format::anticipate::Anticipated;
use crate::snapshot::model::{Snapshot, TableSnapshot, qualified};

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

impl DeclaredChanges {
    /// Tells whether columns of a table (`schema.name`) are declared to change.
    #[must_use]
    pub fn declares(&self, table: &str) -> bool {
        self.columns.keys().any(|name| qualified(name) == table)
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Table, sequence.
    pub object: String,
    /// `rows`, `content`, `missing_table` and the like.
    pub kind: &'static str,
    /// All that is said of it.
    pub text: String,
    /// Where in the table's rows it lies, as far as that is known.
    pub place: Option<KeyPosition>,
}

/// What is said of a difference, and where it lies.
struct Content {
    text: String,
    place: Option<KeyPosition>,
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self { text, place: None }
    }
}

impl From<(String, Option<KeyPosition>)> for Content {
    fn from((mut text, place): (String, Option<KeyPosition>)) -> Self {
        if let Some(place) = &place {
            text = format!("{text}: {place}");
        }
        Self { text, place }
    }
}

/// What was found.
#[derive(Default)]
struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, object: &str, kind: &'static str, content: impl Into<Content>) {
        let Content { text, place } = content.into();
        self.0.push(Difference {
            object: object.to_owned(),
            kind,
            text,
            place,
        });
    }
}

fn names(list: &[String]) -> BTreeSet<String> {
    list.iter().map(|name| qualified(name)).collect()
}

/// Compares, and returns what differs and how many tables were compared in full or by `kept`.
pub fn compare(
    before: &Snapshot,
    after: &Snapshot,
    changes: &DeclaredChanges,
    anticipated: &[Anticipated],
) -> (Vec<Difference>, usize, usize) {
    let mut found = Found::default();
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
            found.add(
                name,
                "unexpected_table",
                format!("table {name} was not there before"),
            );
        }
    }
    for name in &added {
        if !after.tables.contains_key(name) {
            found.add(
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
                found.add(
                    name,
                    "missing_table",
                    format!("table {name} with {} rows is gone", old.rows),
                );
            }
            continue;
        };
        if dropped.contains(name) && !added.contains(name) {
            found.add(
                name,
                "unexpected_table",
                format!("table {name} should have been dropped"),
            );
        }
        let declared = columns.get(name);
        let same_rows = old.rows == new.rows;
        if !same_rows && !other_rows.contains(name) {
            let text = format!("table {name} has {} rows instead of {}", new.rows, old.rows);
            let place = first_place(old.kept_ranges.as_ref(), new.kept_ranges.as_ref())
                .or_else(|| first_place(old.ranges.as_ref(), new.ranges.as_ref()));
            found.add(name, "rows", (text, place));
        }
        compare_columns(name, old, new, declared, &mut found);
        if indexes && (old.indexes, old.constraints) != (new.indexes, new.constraints) {
            let text = format!(
                "table {name} has {} indexes and {} constraints instead of {} and {}",
                new.indexes, new.constraints, old.indexes, old.constraints
            );
            found.add(name, "indexes", text);
        }
        if other_rows.contains(name) {
            continue;
        }
        let anticipated = anticipated.iter().find(|done| done.table == *name);
        match (declared, anticipated) {
            (None, Some(done)) => {
                full += 1;
                let differs = compare_filled(done, old, new);
                if let Some(content) = differs.filter(|_| same_rows) {
                    found.add(name, "content", content);
                }
            }
            (None, None) => {
                full += 1;
                let differs = compare_full(name, old, new);
                if let Some(content) = differs.filter(|_| same_rows) {
                    found.add(name, "content", content);
                }
            }
            (Some(_), _) => {
                kept += 1;
                let differs = compare_kept(name, old, new);
                if let Some(content) = differs.filter(|_| same_rows) {
                    found.add(name, "content", content);
                }
            }
        }
    }
    compare_sequences(before, after, changes, &mut found);
    (found.0, full, kept)
}

fn compare_columns(
    name: &str,
    old: &TableSnapshot,
    new: &TableSnapshot,
    declared: Option<&BTreeSet<String>>,
    found: &mut Found,
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
        found.add(name, "columns", text);
    }
}

/// Says where the first difference is, where both snapshots have sums by ranges of keys.
fn first_place(old: Option<&KeyRanges>, new: Option<&KeyRanges>) -> Option<KeyPosition> {
    old?.first_difference(new?)
}

fn compare_full(name: &str, old: &TableSnapshot, new: &TableSnapshot) -> Option<Content> {
    // What the checksum of all columns is made of.
    if old.kept_columns != new.kept_columns {
        let text = format!(
            "table {name} cannot be compared: the two snapshots were taken with different \
             `changed_columns`; give both the same"
        );
        return Some(text.into());
    }
    (old.checksum != new.checksum).then(|| {
        let place = first_place(old.ranges.as_ref(), new.ranges.as_ref());
        (format!("table {name} has other content"), place).into()
    })
}

fn compare_kept(name: &str, old: &TableSnapshot, new: &TableSnapshot) -> Option<Content> {
    if old.kept.is_none() || new.kept.is_none() {
        let text = format!(
            "table {name} has declared changes, but was not read with the same `changed_columns`"
        );
        return Some(text.into());
    }
    if old.kept_columns != new.kept_columns {
        let text = format!("table {name}: the unchanged columns are not the same ones");
        return Some(text.into());
    }
    (old.kept != new.kept).then(|| {
        let text = format!("table {name} has other content in its unchanged columns");
        let place = first_place(old.kept_ranges.as_ref(), new.kept_ranges.as_ref());
        (text, place).into()
    })
}

fn compare_filled(done: &Anticipated, old: &TableSnapshot, new: &TableSnapshot) -> Option<Content> {
    let name = &done.table;
    if old.filled_columns.as_ref() != Some(&done.columns) || old.kept_columns != new.kept_columns {
        let text = format!(
            "table {name} was filled on the way, but was not read before with the same `anticipate` \
             and `changed_columns`"
        );
        return Some(text.into());
    }
    (old.filled.as_ref() != Some(&new.checksum)).then(|| {
        let text = format!("table {name} has other content than before with its NULLs filled");
        let place = first_place(old.filled_ranges.as_ref(), new.ranges.as_ref());
        (text, place).into()
    })
}

fn compare_sequences(
    before: &Snapshot,
    after: &Snapshot,
    changes: &DeclaredChanges,
    found: &mut Found,
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
        found.add(name, "sequence", text);
    }
    for name in added
        .iter()
        .filter(|name| !after.sequences.contains_key(*name))
    {
        found.add(
            name,
            "sequence",
            format!("sequence {name} should have been added"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        let nothing = DeclaredChanges::default();
        assert!(kinds(&before, &before, &nothing).is_empty());
        let same_sum = snapshot(&[("public.a", 3, "x", None)]);
        assert_eq!(
            kinds(&before, &same_sum, &nothing),
            [("public.a".to_owned(), "content")],
            "sums that are made otherwise say nothing"
        );
    }
}
