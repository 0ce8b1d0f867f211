//! The query that reads a table whole and returns its rows and checksum.
//!
//! Each row becomes one unambiguous text, `ROW(a, b, …)::text`, with the columns by name: NULL is
//! nothing, an empty text is `""`, and what needs quotes has them. Its md5 is cut into two 64-bit
//! halves, and each half is summed over the table. A sum does not depend on the order of rows and
//! counts duplicates, which an XOR would cancel out. The server keeps the sums in 128 bits.
//!
//! The text is the same on 9.6 and later because the session's settings are pinned and floats are
//! written as their bytes: version 12 changed how they look.

use std::collections::{BTreeMap, BTreeSet};

use super::connect::{ident, literal};
use super::key_ranges::Key;

/// A column, as far as the checksum cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Base type (domains looked through) is `float4`, `float8`, or an array of these.
    pub float: Float,
}

/// How a column is written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// No float in it.
    No,
    /// `float4`.
    Single,
    /// `float8`.
    Double,
    /// An array of either.
    Array,
}

/// `fills`: the value that stands for NULL, by column.
fn row_text<'a>(
    columns: impl Iterator<Item = &'a Column>,
    fills: Option<&BTreeMap<String, String>>,
) -> String {
    // A table has at most 1600 columns, a ROW() takes 1664.
    let mut columns: Vec<&Column> = columns.collect();
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = ident(&column.name);
            match column.float {
                Float::No => match fills.and_then(|fills| fills.get(&column.name)) {
                    Some(value) => format!("coalesce({name}, {})", literal(value)),
                    None => name,
                },
                Float::Single => format!("pg_catalog.float4send({name})"),
                Float::Double => format!("pg_catalog.float8send({name})"),
                Float::Array => format!("pg_catalog.array_send({name})"),
            }
        })
        .collect();
    if values.is_empty() {
        "''".to_owned()
    } else {
        format!("ROW({})::text", values.join(", "))
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

/// What a second sum over the rows is of.
#[derive(Debug, Clone, Copy)]
pub enum Second<'a> {
    /// Nothing.
    No,
    /// The columns that are not in here.
    Without(&'a BTreeSet<String>),
    /// All columns, with these values in the place of NULLs.
    Filled(&'a BTreeMap<String, String>),
}

/// Returns the query. Its rows: count, two sums, two more for the second one (NULL without), and where there
/// is a key the number of the range that the row is for; else there is one row.
#[must_use]
pub fn table_query(
    schema: &str,
    table: &str,
    columns: &[Column],
    key: Option<&Key>,
    second: Second<'_>,
    blocks: Blocks,
) -> String {
    let kept = match second {
        Second::No => None,
        Second::Without(changed) => {
            let kept = columns
                .iter()
                .filter(|column| !changed.contains(&column.name));
            Some(row_text(kept, None))
        }
        Second::Filled(fills) => Some(row_text(columns.iter(), Some(fills))),
    };
    let half = |column: &str, from: u8| {
        format!(
            "coalesce(sum(('x' || pg_catalog.substr({column}, {from}, 16))::bit(64)::bigint), 0)::text"
        )
    };
    let kept_column = kept
        .as_ref()
        .map(|text| format!(", pg_catalog.md5({text}) AS k"));
    let kept_sums = match kept {
        Some(_) => format!("{}, {}", half("k", 1), half("k", 17)),
        None => "NULL::text, NULL::text".to_owned(),
    };
    let range = key.map(|key| format!(", {}::bigint >> {} AS r", ident(&key.column), key.shift));
    let (by_range, group) = match key {
        Some(_) => ("r", " GROUP BY r"),
        None => ("NULL::bigint", ""),
    };
    // OFFSET 0 keeps the planner from pulling the inner query up, which would compute each md5
    // once per half.
    format!(
        "SELECT count(*), {}, {}, {kept_sums}, {by_range} FROM (SELECT pg_catalog.md5({}) AS h{}{} \
         FROM ONLY {}.{}{} OFFSET 0) AS rows_of_table{group}",
        half("h", 1),
        half("h", 17),
        row_text(columns.iter(), None),
        kept_column.unwrap_or_default(),
        range.unwrap_or_default(),
        ident(schema),
        ident(table),
        blocks.condition(),
    )
}

/// Rows and sums of a table, or of a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Number of rows.
    pub rows: u64,
    /// By range of the key: half of the sum, of the second one where there is one.
    pub ranges: BTreeMap<i64, u64>,
    all: [i128; 2],
    second: Option<[i128; 2]>,
}

impl Sums {
    /// The sums of no rows.
    #[must_use]
    pub fn none(second: Second<'_>) -> Self {
        let has_second = !matches!(second, Second::No);
        Self {
            second: has_second.then_some([0, 0]),
            ..Self::default()
        }
    }

    /// Takes a row that [`table_query`] gives.
    #[must_use]
    pub fn read(
        rows: i64,
        all: [&str; 2],
        second: [Option<&str>; 2],
        range: Option<i64>,
    ) -> Option<Self> {
        let pair = |[a, b]: [&str; 2]| Some([a.parse().ok()?, b.parse().ok()?]);
        let second = match second {
            [Some(a), Some(b)] => Some(pair([a, b])?),
            _ => None,
        };
        let all = pair(all)?;
        // Of 128 bits the lower ones: they are a sum themselves.
        let half = second.unwrap_or(all)[0] as u64;
        Some(Self {
            rows: u64::try_from(rows).ok()?,
            ranges: range.map(|range| (range, half)).into_iter().collect(),
            all,
            second,
        })
    }

    /// Adds another part of the same table; the order of parts does not matter.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (range, sum) in other.ranges {
            let into = self.ranges.entry(range).or_default();
            *into = into.wrapping_add(sum);
        }
        let add = |a: [i128; 2], b: [i128; 2]| [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])];
        Self {
            rows: self.rows + other.rows,
            all: add(self.all, other.all),
            second: self.second.zip(other.second).map(|(a, b)| add(a, b)),
            ranges: self.ranges,
        }
    }

    /// Returns the checksum over all columns, 64 hex digits.
    #[must_use]
    pub fn checksum(&self) -> String {
        hex_of(self.all)
    }

    /// Returns the second checksum.
    #[must_use]
    pub fn second(&self) -> Option<String> {
        self.second.map(hex_of)
    }
}

/// Two's complement: a negative sum has its own 128 bits.
fn hex_of([first, second]: [i128; 2]) -> String {
    format!("{:032x}{:032x}", first as u128, second as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_by_name_and_floats_by_bytes() {
        let column = |name: &str, float| Column {
            name: name.into(),
            float,
        };
        let columns = [column("b", Float::No), column("a\"", Float::Double)];
        let query = table_query(
            "public",
            "t",
            &columns,
            None,
            Second::Without(&["b".to_owned()].into()),
            Blocks { from: 0, to: None },
        );
        assert!(
            query.contains(r#"md5(ROW(pg_catalog.float8send("a"""), "b")::text) AS h"#),
            "{query}"
        );
        assert!(
            query.contains(r#"md5(ROW(pg_catalog.float8send("a"""))::text) AS k"#),
            "{query}"
        );
        let fills = [("b".to_owned(), "it's".to_owned())].into();
        let all = Blocks { from: 0, to: None };
        let key = Key::between("b".into(), 0, 4000);
        let query = table_query(
            "public",
            "t",
            &columns,
            Some(&key),
            Second::Filled(&fills),
            all,
        );
        assert!(
            query.contains(r#", coalesce("b", 'it''s'))::text) AS k, "b"::bigint >> 7 AS r"#),
            "{query}"
        );
    }

    #[test]
    fn sums_have_a_fixed_width_and_parts_add_up() {
        let read =
            |rows, a, b| Sums::read(rows, [a, b], [None, None], Some(rows % 2)).expect("numbers");
        assert_eq!(
            read(1, "0", "-1").checksum(),
            "00000000000000000000000000000000ffffffffffffffffffffffffffffffff"
        );
        assert_eq!(Sums::read(1, ["x", "1"], [None, None], None), None);
        let whole = read(5, "-7", "12");
        let parts = read(2, "-10", "2").plus(read(3, "3", "10"));
        assert_eq!(parts.checksum(), whole.checksum());
        assert_eq!(parts.rows, 5);
        assert_eq!(parts.ranges, [(0, 10u64.wrapping_neg()), (1, 3)].into());
        assert_eq!(whole.second(), None);
        let kept = |a, b| Sums::read(1, ["0", "0"], [Some(a), Some(b)], None).expect("numbers");
        assert_eq!(
            kept("1", "2").plus(kept("3", "4")).second(),
            kept("4", "6").second()
        );
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
