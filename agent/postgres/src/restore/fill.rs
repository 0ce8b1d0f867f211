//! Fills NULLs in the data of a COPY on its way to the server, and asks the database whether that came to
//! the same as the statement that it anticipates.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Client;

use crate::error::PostgresError;
use crate::format::anticipate::Fills;
use crate::server::connect::{Server, literal};

/// The value that a NULL gets, by the column's place in the COPY.
pub type Targets = Arc<[Option<Vec<u8>>]>;

/// Returns what is to be filled in a COPY with these columns; nothing where a column is not there.
#[must_use]
pub fn targets(columns: &[String], fills: &BTreeMap<String, String>) -> Option<Targets> {
    let value = |column: &String| fills.get(column).map(|value| value.as_bytes().to_vec());
    let targets: Targets = columns.iter().map(value).collect();
    (targets.iter().flatten().count() == fills.len()).then_some(targets)
}

/// Follows the text of a COPY through chunks that are cut anywhere.
pub struct Filler {
    targets: Targets,
    /// Place of the last column that is filled.
    last: usize,
    field: usize,
    at_start: bool,
    escaped: bool,
    /// The beginning of a field that may be NULL.
    carry: Vec<u8>,
    /// How many values were filled in.
    pub filled: u64,
}

impl Filler {
    /// Begins at the beginning of a row.
    #[must_use]
    pub fn new(targets: Targets) -> Self {
        Self {
            last: targets.iter().rposition(Option::is_some).unwrap_or(0),
            targets,
            field: 0,
            at_start: true,
            escaped: false,
            carry: Vec::new(),
            filled: 0,
        }
    }

    /// Takes the next bytes, and returns what goes to the server.
    #[must_use]
    pub fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut joined = std::mem::take(&mut self.carry);
        let bytes = if joined.is_empty() {
            chunk
        } else {
            joined.extend_from_slice(chunk);
            &joined
        };
        let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 16);
        let (mut at, mut copied) = (0, 0);
        if self.escaped && !bytes.is_empty() {
            self.escaped = false;
            at = 1;
        }
        while at <= bytes.len() {
            if self.at_start {
                let value = self.targets.get(self.field).and_then(Option::as_ref);
                match (value, &bytes[at..]) {
                    (Some(value), [b'\\', b'N', b'\t' | b'\n', ..]) => {
                        out.extend_from_slice(&bytes[copied..at]);
                        out.extend_from_slice(value);
                        at += 2;
                        copied = at;
                        self.filled += 1;
                    }
                    // Too short to tell.
                    (Some(_), [] | [b'\\'] | [b'\\', b'N']) => {
                        out.extend_from_slice(&bytes[copied..at]);
                        self.carry = bytes[at..].to_vec();
                        return out;
                    }
                    _ => {}
                }
                self.at_start = false;
            }
            let rest = &bytes[at..];
            let found = if self.field > self.last {
                memchr::memchr2(b'\n', b'\\', rest)
            } else {
                memchr::memchr3(b'\t', b'\n', b'\\', rest)
            };
            let Some(found) = found else { break };
            at += found + 1;
            match bytes[at - 1] {
                b'\\' if at == bytes.len() => self.escaped = true,
                b'\\' => at += 1,
                b'\t' => (self.field, self.at_start) = (self.field + 1, true),
                _ => (self.field, self.at_start) = (0, true),
            }
        }
        out.extend_from_slice(&bytes[copied..]);
        out
    }

    /// Returns what was held back at the end of data that does not end with a row.
    #[must_use]
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }
}

/// Tells whether the columns are texts that take their values as they are.
///
/// # Errors
/// The server refuses.
pub async fn takes(
    client: &Client,
    table: &str,
    fills: &BTreeMap<String, String>,
) -> Result<bool, PostgresError> {
    for (column, value) in fills {
        let row = client
            .query_opt(
                &format!(
                    "SELECT t.typname::pg_catalog.text, a.atttypmod FROM pg_catalog.pg_attribute a \
                     JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                     JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
                     WHERE a.attrelid = {}::pg_catalog.regclass AND a.attname = $1 \
                     AND a.attnum > 0 AND NOT a.attisdropped AND n.nspname = 'pg_catalog'",
                    literal(table)
                ),
                &[column],
            )
            .await
            .map_err(PostgresError::sql(format!("look at {table}.{column}")))?;
        let fits = row.is_some_and(|row| {
            let (kind, limit): (String, i32) = (row.get(0), row.get(1));
            // The modifier of varchar(n) is n and its header's four bytes.
            let short = usize::try_from(limit - 4).map_or(limit == -1, |most| value.len() <= most);
            kind == "text" && limit == -1 || kind == "varchar" && short
        });
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What would make a difference between filling a column while it is loaded and by the scripts afterwards:
/// triggers, rules and views, functions that may look anywhere, foreign keys over the column, tables that
/// inherit, another table that the scripts mean by the name.
const REFUSALS: &str = "
SELECT CASE
  WHEN pg_catalog.to_regclass($1) IS DISTINCT FROM c.oid
    THEN 'another table is meant by its name alone'
  WHEN c.relkind <> 'r' OR EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE c.oid IN (inhrelid, inhparent))
    THEN 'it is partitioned, or inherits'
  WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal)
       OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger)
    THEN 'there are triggers'
  WHEN EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
               WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refobjid = c.oid)
       OR c.relrowsecurity
    THEN 'there are views, rules or policies'
  WHEN EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
    THEN 'there are functions'
  WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
               WHERE k.contype = 'f' AND a.attname = ANY ($3)
               AND (k.conrelid = c.oid AND a.attnum = ANY (k.conkey)
                    OR k.confrelid = c.oid AND a.attnum = ANY (k.confkey)))
    THEN 'a foreign key has the column'
END
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($2)";

/// Names tables in which the filling may not have come to the same, each with the reason. Asked when the
/// whole dump is in the database, in a session like those of the scripts.
///
/// # Errors
/// The server refuses.
pub async fn refused(
    server: &Server,
    db: &str,
    fills: &Fills,
    tables: &BTreeSet<String>,
) -> Result<BTreeMap<String, String>, PostgresError> {
    let mut refused = BTreeMap::new();
    if tables.is_empty() {
        return Ok(refused);
    }
    let client = server.connect(db).await?;
    for (table, columns) in fills.iter().filter(|(table, _)| tables.contains(*table)) {
        let alone = table.rsplit('.').next().unwrap_or(table);
        let columns: Vec<&str> = columns.keys().map(String::as_str).collect();
        let row = client
            .query_opt(REFUSALS, &[&alone, table, &columns])
            .await
            .map_err(PostgresError::sql(format!("look at table {table}")))?;
        let reason = row.map_or_else(|| Some("it is gone".to_owned()), |row| row.get(0));
        if let Some(reason) = reason {
            refused.insert(table.clone(), reason);
        }
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn targets_of(places: &[(usize, &str)]) -> Targets {
        let mut all = vec![None; 4];
        for (place, value) in places {
            all[*place] = Some(value.as_bytes().to_vec());
        }
        all.into()
    }

    fn filled(text: &str, targets: &Targets, size: usize) -> String {
        let mut filler = Filler::new(Arc::clone(targets));
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            out.extend(filler.push(chunk));
        }
        out.extend(filler.finish());
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn nulls_of_the_column_and_nothing_else_are_filled() {
        let targets = targets_of(&[(1, "*")]);
        let text =
            "a\t\\N\t\\N\t\\N\n\\N\tx\\N\tb\t\\N\nc\t\\\\N\t\t\nd\t\t\t\ne\\\t\\N\t\\N\tf\t\n";
        let wanted = "a\t*\t\\N\t\\N\n\\N\tx\\N\tb\t\\N\nc\t\\\\N\t\t\nd\t\t\t\ne\\\t\\N\t*\tf\t\n";
        for size in 1..40 {
            assert_eq!(filled(text, &targets, size), wanted, "{size}");
        }
        let ends = targets_of(&[(0, "first"), (3, "")]);
        assert_eq!(filled("\\N\t\\N\t\t\\N\n", &ends, 3), "first\t\\N\t\t\n");
    }

    #[test]
    fn a_column_that_is_not_there_fills_nothing() {
        let columns = ["pk".to_owned(), "aet".to_owned()];
        let fill = |column: &str| [(column.to_owned(), "*".to_owned())].into();
        assert_eq!(
            targets(&columns, &fill("aet")).expect("there")[1],
            Some(b"*".to_vec())
        );
        assert_eq!(targets(&columns, &fill("other")), None);
    }

    proptest! {
        #[test]
        fn fields_are_told_apart_whatever_the_chunks(
            rows in prop::collection::vec(prop::collection::vec("(\\\\\\\\N|[a-c\\\\\\\\]{0,3})", 3), 0..6),
            size in 1..9usize,
        ) {
            // Backslashes as COPY writes them.
            let text = |field: &String| if field == "\\N" { field.clone() } else { field.replace('\\', "\\\\") };
            let join = |rows: &Vec<Vec<String>>| -> String {
                rows.iter().map(|row| row.join("\t") + "\n").collect()
            };
            let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
            let mut wanted = rows.clone();
            for row in &mut wanted {
                if row[2] == "\\N" {
                    row[2] = "*".into();
                }
            }
            prop_assert_eq!(filled(&join(&rows), &targets_of(&[(2, "*")]), size), join(&wanted));
        }
    }
}
