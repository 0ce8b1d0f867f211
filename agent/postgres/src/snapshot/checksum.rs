//! Reads a table whole and makes its checksum.
//!
//! The server sends each row in COPY's binary form, the columns in an order of their names, and the agent
//! hashes it: what the server would take for making and hashing a text it does not spend. A row's SHA-256 is
//! cut into two halves of 128 bits, and each half is summed over the table. A sum does not depend on the order
//! of rows and counts duplicates, which an XOR would cancel out.
//!
//! The bytes are the same from 9.6 on: of the types in [`BINARY`] they have not changed, and every other one is
//! sent as its text, which the session's settings pin.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::key_ranges::Key;
use crate::format::copy_binary::Row;
use crate::server::connect::{ident, literal};

/// Base types that are sent in their binary form: those whose form holds no OID and was the same in every
/// version from 9.6 on. Of floats the text was not: 12 changed it.
const BINARY: &[&str] = &[
    "bool",
    "bpchar",
    "bytea",
    "char",
    "date",
    "float4",
    "float8",
    "int2",
    "int4",
    "int8",
    "interval",
    "name",
    "numeric",
    "text",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "uuid",
    "varchar",
];

/// A value of more bytes is sent as its length and md5 only, so that memory is bounded. None of this size can
/// lie in the table itself: compressed 255 times at best, it is more than a block.
const LARGE: u32 = 4 << 20;

/// A column, as far as the checksum cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Name of its type, domains looked through, e.g. `varchar` or `_float8`.
    pub base: String,
}

impl Column {
    /// The value as it is sent. `outside`: values of this table may lie outside of it, and be large.
    fn expression(&self, outside: bool) -> String {
        let name = ident(&self.name);
        let (expression, as_text) = match self.base.as_str() {
            "_float4" | "_float8" => return format!("pg_catalog.array_send({name})"),
            "text" | "varchar" => (name, true),
            "bytea" => (name, false),
            base if BINARY.contains(&base) => return name,
            _ => (format!("{name}::text"), true),
        };
        if !outside {
            return expression;
        }
        let mark = literal("more than is read here: ");
        let told = format!(
            "{mark} || pg_catalog.octet_length({expression}) || ' ' || pg_catalog.md5({expression})"
        );
        let (told, expression) = match as_text {
            true => (told, format!("{expression}::text")),
            false => (format!("pg_catalog.convert_to({told}, 'UTF8')"), expression),
        };
        format!(
            "CASE WHEN pg_catalog.octet_length({expression}) > {LARGE} THEN {told} ELSE {expression} END"
        )
    }

    /// Returns whether a text may stand in the place of its NULLs.
    #[must_use]
    pub fn takes_text(&self) -> bool {
        ["text", "varchar"].contains(&self.base.as_str())
    }
}

/// Which blocks of a table are read: from one, up to another or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// The first.
    pub from: u32,
    /// The first that is not read any more.
    pub to: Option<u32>,
}

impl Blocks {
    /// Cuts a table into as many parts, which together are all of it, whatever is added behind.
    #[must_use]
    pub fn parts(blocks: u32, parts: u32) -> Vec<Self> {
        let parts = parts.clamp(1, blocks.max(1));
        let at = |part: u32| (u64::from(blocks) * u64::from(part) / u64::from(parts)) as u32;
        (0..parts)
            .map(|part| Self {
                from: at(part),
                to: (part + 1 < parts).then(|| at(part + 1)),
            })
            .collect()
    }

    fn condition(self) -> String {
        let from = (self.from > 0).then(|| format!("ctid >= '({},0)'::tid", self.from));
        let to = self.to.map(|to| format!("ctid < '({to},0)'::tid"));
        let both: Vec<String> = from.into_iter().chain(to).collect();
        if both.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", both.join(" AND "))
        }
    }
}

/// What further sums over the rows are of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Further<'a> {
    /// Columns that change later: those that are left get a sum of their own.
    pub changed: Option<&'a BTreeSet<String>>,
    /// Values in the place of NULLs, by column: the rows with these get a sum of their own.
    pub fills: Option<&'a BTreeMap<String, String>>,
}

/// How a table is read.
///
/// Where some columns change, they come first, and a row's hash is made of that of the others. The sum of all
/// columns is then comparable among readings with the same unchanged columns only.
#[derive(Debug)]
pub struct Reading {
    /// What the server sends, in order.
    expressions: Vec<String>,
    /// How many of them change, where that is asked.
    changed: Option<usize>,
    /// What stands for NULL, by place; where that is asked.
    fills: Option<BTreeMap<usize, Vec<u8>>>,
    /// Place of the key, and its shift.
    key: Option<(usize, u32)>,
}

impl Reading {
    /// Says how. `outside`: values of the table may lie outside of it.
    #[must_use]
    pub fn new(columns: &[Column], outside: bool, key: Option<&Key>, further: Further<'_>) -> Self {
        let changes = |column: &Column| {
            let changed = further.changed;
            changed.is_some_and(|changed| changed.contains(&column.name))
        };
        let mut columns: Vec<&Column> = columns.iter().collect();
        columns.sort_by(|a, b| (!changes(a), &a.name).cmp(&(!changes(b), &b.name)));
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        let filled = |fills: &BTreeMap<String, String>| {
            let value = |(name, value): (&String, &String)| {
                Some((place(name)?, value.clone().into_bytes()))
            };
            fills.iter().filter_map(value).collect()
        };
        Self {
            changed: further
                .changed
                .map(|_| columns.iter().filter(|column| changes(column)).count()),
            fills: further.fills.map(filled),
            key: key.and_then(|key| Some((place(&key.column)?, key.shift))),
            expressions: columns
                .iter()
                .map(|column| column.expression(outside))
                .collect(),
        }
    }

    /// Returns the COPY that sends the rows in these blocks.
    #[must_use]
    pub fn copy(&self, schema: &str, table: &str, blocks: Blocks) -> String {
        format!(
            "COPY (SELECT {} FROM ONLY {}.{}{}) TO STDOUT (FORMAT binary)",
            self.expressions.join(", "),
            ident(schema),
            ident(table),
            blocks.condition(),
        )
    }

    /// The sums of no rows.
    #[must_use]
    pub fn none(&self) -> Sums {
        Sums {
            kept: self.changed.map(|_| Sum::default()),
            filled: self.fills.as_ref().map(|_| Sum::default()),
            ..Sums::default()
        }
    }

    /// Adds a row; nothing where it is not what was asked for.
    pub fn add(&self, row: &Row<'_>, sums: &mut Sums) -> Option<()> {
        if row.values.len() != self.expressions.len() {
            return None;
        }
        let range = match self.key {
            Some((place, shift)) => Some(integer(row.value(place)?)? >> shift),
            None => None,
        };
        sums.rows += 1;
        let changed = self.changed.map(|changed| row.behind(changed));
        let (hash, kept) = match changed {
            None => (Sha256::digest(row.bytes).into(), None),
            Some(end) => {
                let (rest, kept) = row.bytes.split_at(end);
                let kept: Hash = Sha256::digest(kept).into();
                (chained(kept, rest), Some(kept))
            }
        };
        sums.all.add(hash, range);
        if let (Some(sum), Some(kept)) = (&mut sums.kept, kept) {
            sum.add(kept, range);
        }
        if let (Some(sum), Some(fills)) = (&mut sums.filled, &self.fills) {
            let fresh = |place: &usize| row.values.get(*place) == Some(&None);
            let hash = match fills.keys().any(fresh) {
                true => self.filled(row, fills, kept),
                false => hash,
            };
            sum.add(hash, range);
        }
        Some(())
    }

    /// The hash of a row with its NULLs filled.
    fn filled(&self, row: &Row<'_>, fills: &BTreeMap<usize, Vec<u8>>, kept: Option<Hash>) -> Hash {
        let part = |from: usize, to: usize| {
            let mut bytes = Vec::with_capacity(row.bytes.len());
            for place in from..to {
                let value = row.value(place);
                let value = value.or_else(|| fills.get(&place).map(Vec::as_slice));
                // What a row of the server's own holds fits into its four bytes.
                let length = value.map_or(-1, |value| value.len() as i32);
                bytes.extend(length.to_be_bytes());
                bytes.extend(value.unwrap_or_default());
            }
            bytes
        };
        let all = row.values.len();
        let Some((changed, kept)) = self.changed.zip(kept) else {
            return Sha256::digest(part(0, all)).into();
        };
        let untouched = !fills.keys().any(|place| *place >= changed);
        let kept = match untouched {
            true => kept,
            false => Sha256::digest(part(changed, all)).into(),
        };
        chained(kept, &part(0, changed))
    }
}

type Hash = [u8; 32];

fn chained(kept: Hash, rest: &[u8]) -> Hash {
    let hasher = Sha256::new().chain_update(kept).chain_update(rest);
    hasher.finalize().into()
}

/// Reads `int2`, `int4` or `int8`.
fn integer(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
        4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
        8 => i64::from_be_bytes(bytes.try_into().ok()?),
        _ => return None,
    })
}

/// One sum over the rows of a table, or of a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    all: [u128; 2],
    /// By range of the key, a quarter of the sum.
    pub ranges: BTreeMap<i64, u64>,
}

impl Sum {
    fn add(&mut self, hash: Hash, range: Option<i64>) {
        let (first, second) = hash.split_at(16);
        for (sum, half) in self.all.iter_mut().zip([first, second]) {
            let half = half.try_into().map_or(0, u128::from_be_bytes);
            *sum = sum.wrapping_add(half);
        }
        if let Some(range) = range {
            // The lower bits of a sum are a sum themselves.
            let low = second[8..].try_into().map_or(0, u64::from_be_bytes);
            let into = self.ranges.entry(range).or_default();
            *into = into.wrapping_add(low);
        }
    }

    fn plus(mut self, other: Self) -> Self {
        for (range, sum) in other.ranges {
            let into = self.ranges.entry(range).or_default();
            *into = into.wrapping_add(sum);
        }
        for (sum, other) in self.all.iter_mut().zip(other.all) {
            *sum = sum.wrapping_add(other);
        }
        self
    }

    /// Returns the checksum, 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        let [first, second] = self.all;
        format!("{first:032x}{second:032x}")
    }
}

/// Rows and sums of a table, or of a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Number of rows.
    pub rows: u64,
    /// Of all columns.
    pub all: Sum,
    /// Of the unchanged columns, where it was asked for.
    pub kept: Option<Sum>,
    /// Of the filled rows, where it was asked for.
    pub filled: Option<Sum>,
}

impl Sums {
    /// Adds another part of the same table; the order of parts does not matter.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let both = |a: Option<Sum>, b: Option<Sum>| a.zip(b).map(|(a, b)| a.plus(b));
        Self {
            rows: self.rows + other.rows,
            all: self.all.plus(other.all),
            kept: both(self.kept, other.kept),
            filled: both(self.filled, other.filled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::copy_binary::CopyBinary;
    use crate::format::copy_binary::tests::message;

    fn column(name: &str, base: &str) -> Column {
        Column {
            name: name.into(),
            base: base.into(),
        }
    }

    const ALL: Blocks = Blocks { from: 0, to: None };

    #[test]
    fn columns_go_by_name_in_a_form_that_every_version_has() {
        let columns = [
            column("d", "varchar"),
            column("b", "_float8"),
            column("a\"", "jsonb"),
            column("c", "int8"),
        ];
        let reading = Reading::new(&columns, false, None, Further::default());
        assert_eq!(
            reading.copy("public", "t", ALL),
            r#"COPY (SELECT "a"""::text, pg_catalog.array_send("b"), "c", "d" FROM ONLY "public"."t") TO STDOUT (FORMAT binary)"#
        );
        let changed = ["c".to_owned(), "not there".to_owned()].into();
        let further = Further {
            changed: Some(&changed),
            fills: None,
        };
        let reading = Reading::new(&columns, true, None, further);
        assert_eq!(reading.changed, Some(1));
        let copy = reading.copy("public", "t", ALL);
        assert!(copy.starts_with(r#"COPY (SELECT "c", CASE WHEN"#), "{copy}");
        assert!(
            copy.contains(r#"octet_length("d"::text) > 4194304 THEN"#),
            "{copy}"
        );
    }

    fn row<'a>(a: Option<&'a str>, b: Option<&'a str>, pk: &'a [u8]) -> [Option<&'a [u8]>; 3] {
        [a.map(str::as_bytes), b.map(str::as_bytes), Some(pk)]
    }

    fn summed(reading: &Reading, rows: &[[Option<&[u8]>; 3]]) -> Sums {
        let mut sums = reading.none();
        for row in rows {
            let (mut copy, mut values) = (CopyBinary::begun(), Vec::new());
            let message = message(row);
            let row = copy.row(&message, &mut values).flatten().expect("a row");
            reading.add(&row, &mut sums).expect("of this table");
        }
        sums
    }

    #[test]
    fn a_sum_is_of_rows_in_any_order_each_as_often_as_it_is_there() {
        let columns = [
            column("a", "text"),
            column("b", "text"),
            column("pk", "int8"),
        ];
        let key = Key {
            column: "pk".into(),
            shift: 1,
        };
        let reading = Reading::new(&columns, false, Some(&key), Further::default());
        let (one, two) = (1_i64.to_be_bytes(), 2_i64.to_be_bytes());
        let first = row(Some("x"), None, &one);
        let second = row(Some("y"), Some(""), &two);
        let both = summed(&reading, &[first, second]);
        assert_eq!(both, summed(&reading, &[second, first]));
        let parts = summed(&reading, &[first]).plus(summed(&reading, &[second]));
        assert_eq!(both, parts);
        assert_eq!(both.all.ranges.keys().collect::<Vec<_>>(), [&0, &1]);
        assert_eq!(both.all.hex().len(), 64);
        for other in [
            vec![first],
            vec![first, first],
            vec![first, second, second],
            // Nothing is not an empty text, and values do not run into each other or change places.
            vec![row(Some("x"), Some(""), &one), second],
            vec![row(Some(""), Some("x"), &one), second],
            vec![row(Some("y"), None, &one), row(Some("x"), Some(""), &two)],
        ] {
            assert_ne!(summed(&reading, &other).all, both.all);
        }
        let ranges = |rows: &[_]| summed(&reading, rows).all.ranges;
        let changed = ranges(&[first, row(Some("z"), Some(""), &two)]);
        assert_eq!(changed[&0], both.all.ranges[&0]);
        assert_ne!(changed[&1], both.all.ranges[&1]);
    }

    #[test]
    fn what_changes_is_left_out_of_what_is_kept_and_what_is_filled_equals_the_filled_row() {
        let columns = [
            column("a", "text"),
            column("b", "text"),
            column("pk", "int8"),
        ];
        let changed = ["b".to_owned()].into();
        let pk = 7_i64.to_be_bytes();
        for filled_column in ["b", "a"] {
            let fills = [(filled_column.to_owned(), "*".to_owned())].into();
            for changed in [None, Some(&changed)] {
                let further = Further {
                    changed,
                    fills: Some(&fills),
                };
                let reading = Reading::new(&columns, false, None, further);
                // In the order in which they are sent: `b` first where it changes.
                let sent = |a, b| match changed {
                    Some(_) => row(b, a, &pk),
                    None => row(a, b, &pk),
                };
                let (before, after) = match filled_column {
                    "b" => (sent(Some("x"), None), sent(Some("x"), Some("*"))),
                    _ => (sent(None, Some("x")), sent(Some("*"), Some("x"))),
                };
                let (before, after) = (summed(&reading, &[before]), summed(&reading, &[after]));
                assert_ne!(before.all, after.all);
                assert_eq!(before.filled.as_ref(), Some(&after.all));
                assert_eq!(after.filled.as_ref(), Some(&after.all));
                let same = before.kept == after.kept;
                assert_eq!(same, changed.is_none() || filled_column == "b");
            }
        }
    }

    #[test]
    fn parts_are_the_whole_table() {
        for (blocks, wanted) in [(0, 4), (1, 4), (7, 3), (1000, 8), (u32::MAX, 2)] {
            let parts = Blocks::parts(blocks, wanted);
            assert_eq!(parts[0].from, 0);
            assert_eq!(
                parts[parts.len() - 1].to,
                None,
                "rows behind the last block too"
            );
            for pair in parts.windows(2) {
                assert_eq!(pair[0].to, Some(pair[1].from));
                assert!(pair[0].from < pair[1].from);
            }
        }
        assert_eq!(Blocks::parts(7, 1)[0].condition(), "");
        assert_eq!(
            Blocks::parts(9, 3)[1].condition(),
            " WHERE ctid >= '(3,0)'::tid AND ctid < '(6,0)'::tid"
        );
    }
}
