//! The query that reads a table whole and returns its rows and checksum.
//!
//! Each row becomes one unambiguous text, `ROW(a, b, …)::text`, with the columns by name: NULL is
//! nothing, an empty text is `""`, and what needs quotes has them. Its md5 is cut into two 64-bit
//! halves, and each half is summed over the table. A sum does not depend on the order of rows and
//! counts duplicates, which an XOR would cancel out. The server keeps the sums in 128 bits.
//!
//! The text is the same on 9.6 and later because the session's settings are pinned and floats are
//! written as their bytes: version 12 changed how they look.

use std::collections::BTreeSet;

use super::connect::ident;

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

fn row_text<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    // A table has at most 1600 columns, a ROW() takes 1664.
    let mut columns: Vec<&Column> = columns.collect();
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = ident(&column.name);
            match column.float {
                Float::No => name,
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

/// Returns the query. Its row: count, two sums, and two more for the kept columns (NULL without).
#[must_use]
pub fn table_query(
    schema: &str,
    table: &str,
    columns: &[Column],
    changed: Option<&BTreeSet<String>>,
) -> String {
    let kept = changed.map(|changed| {
        row_text(
            columns
                .iter()
                .filter(|column| !changed.contains(&column.name)),
        )
    });
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
    // OFFSET 0 keeps the planner from pulling the inner query up, which would compute each md5
    // once per half.
    format!(
        "SELECT count(*), {}, {}, {kept_sums} FROM (SELECT pg_catalog.md5({}) AS h{} FROM ONLY {}.{} \
         OFFSET 0) AS rows_of_table",
        half("h", 1),
        half("h", 17),
        row_text(columns.iter()),
        kept_column.unwrap_or_default(),
        ident(schema),
        ident(table),
    )
}

/// Joins the two sums to one checksum of 64 hex digits.
#[must_use]
pub fn join_sums(first: &str, second: &str) -> Option<String> {
    // Two's complement: a negative sum has its own 128 bits.
    let number = |text: &str| text.parse::<i128>().ok().map(|sum| sum as u128);
    Some(format!("{:032x}{:032x}", number(first)?, number(second)?))
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
        let query = table_query("public", "t", &columns, Some(&["b".to_owned()].into()));
        assert!(
            query.contains(r#"md5(ROW(pg_catalog.float8send("a"""), "b")::text) AS h"#),
            "{query}"
        );
        assert!(
            query.contains(r#"md5(ROW(pg_catalog.float8send("a"""))::text) AS k"#),
            "{query}"
        );
    }

    #[test]
    fn sums_join_to_fixed_width() {
        assert_eq!(
            join_sums("0", "-1").as_deref(),
            Some("00000000000000000000000000000000ffffffffffffffffffffffffffffffff")
        );
        assert_eq!(join_sums("x", "1"), None);
    }
}
