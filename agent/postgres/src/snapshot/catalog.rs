//! What a snapshot finds in a database before it reads any table: tables, their columns and keys, sequences.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Row};

use super::checksum::Column;
use super::key_ranges::Key;
use crate::error::PostgresError;
use crate::server::connect::{ident, literal};
use crate::snapshot::model::{SequenceSnapshot, TableSnapshot};

/// A table to be read.
#[derive(Debug)]
pub struct Table {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Columns.
    pub columns: Vec<Column>,
    /// Size, with what lies outside of it.
    pub bytes: u64,
    /// Blocks of the table itself.
    pub blocks: u32,
    /// Whether values lie outside of it (TOAST).
    pub outside: bool,
    /// The primary key, where it is one integer and there is enough to be cut.
    pub key: Option<Key>,
    /// What is known of it without reading it.
    pub shell: TableSnapshot,
}

/// Tables with fewer blocks have no ranges of keys.
const WORTH_RANGES: u32 = 8;
/// User relations, the agent's own schema left out.
const USER_SCHEMAS: &str =
    "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname <> 'kaapana_agent'";

/// Lists the tables of users.
///
/// # Errors
/// The server refuses.
pub async fn list_tables(client: &Client) -> Result<Vec<Table>, PostgresError> {
    let failed = || PostgresError::sql("list the tables");
    let tables = client
        .query(
            &format!(
                "SELECT c.oid, n.nspname::text, c.relname::text, pg_total_relation_size(c.oid), \
                 pg_table_size(c.oid), \
                 (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid), \
                 (SELECT count(*) FROM pg_constraint k WHERE k.conrelid = c.oid \
                  AND k.contype IN ('c', 'f', 'p', 'u', 'x')), \
                 pg_relation_size(c.oid) / current_setting('block_size')::bigint, \
                 (SELECT a.attname::text FROM pg_index i JOIN pg_attribute a \
                  ON a.attrelid = c.oid AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid \
                  AND i.indisprimary AND i.indnatts = 1 \
                  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)), \
                 c.reltoastrelid <> 0 AND pg_relation_size(c.reltoastrelid) > 0 \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {USER_SCHEMAS}"
            ),
            &[],
        )
        .await
        .map_err(failed())?;
    let columns = client
        .query(
            &format!(
                "WITH RECURSIVE base (oid, base) AS ( \
                   SELECT t.oid, t.oid FROM pg_type t WHERE t.typtype <> 'd' \
                   UNION ALL \
                   SELECT t.oid, b.base FROM pg_type t JOIN base b ON t.typbasetype = b.oid \
                   WHERE t.typtype = 'd') \
                 SELECT a.attrelid, a.attname::text, format_type(a.atttypid, a.atttypmod), \
                 a.attnotnull, t.typname::text \
                 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 JOIN base b ON b.oid = a.atttypid JOIN pg_type t ON t.oid = b.base \
                 WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND {USER_SCHEMAS}"
            ),
            &[],
        )
        .await
        .map_err(failed())?;
    let mut by_table: BTreeMap<u32, (Vec<Column>, BTreeMap<String, String>)> = BTreeMap::new();
    for row in columns {
        let (table, name): (u32, String) = (row.get(0), row.get(1));
        let (mut kind, not_null, base): (String, bool, String) =
            (row.get(2), row.get(3), row.get(4));
        if not_null {
            kind.push_str(" not null");
        }
        let entry = by_table.entry(table).or_default();
        entry.0.push(Column {
            name: name.clone(),
            base,
        });
        entry.1.insert(name, kind);
    }
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let mut keys = read_keys(client, &tables).await?;
    Ok(tables
        .into_iter()
        .map(|row| {
            let (columns, types) = by_table.remove(&row.get::<_, u32>(0)).unwrap_or_default();
            Table {
                schema: row.get(1),
                name: row.get(2),
                columns,
                bytes: unsigned(row.get(4)),
                blocks: blocks_of(&row),
                outside: row.get(9),
                key: keys.remove(&row.get::<_, u32>(0)),
                shell: TableSnapshot {
                    columns: types,
                    size_bytes: unsigned(row.get(3)),
                    indexes: unsigned(row.get(5)),
                    constraints: unsigned(row.get(6)),
                    ..TableSnapshot::default()
                },
            }
        })
        .collect())
}

fn blocks_of(row: &Row) -> u32 {
    u32::try_from(row.get::<_, i64>(7)).unwrap_or(u32::MAX)
}

/// Cuts the keys of the larger tables into ranges; by the tables' oids.
async fn read_keys(client: &Client, tables: &[Row]) -> Result<BTreeMap<u32, Key>, PostgresError> {
    let mut columns = BTreeMap::new();
    let mut extremes = Vec::new();
    for row in tables.iter().filter(|row| blocks_of(row) >= WORTH_RANGES) {
        let Some(column) = row.get::<_, Option<String>>(8) else {
            continue;
        };
        let (oid, schema, table): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        extremes.push(format!(
            "SELECT {oid}::oid, min({column})::bigint, max({column})::bigint FROM ONLY {}.{}",
            ident(&schema),
            ident(&table),
            column = ident(&column),
        ));
        columns.insert(oid, column);
    }
    let mut keys = BTreeMap::new();
    for part in extremes.chunks(200) {
        let rows = client.query(&part.join(" UNION ALL "), &[]).await;
        for row in rows.map_err(PostgresError::sql("find the first and the last keys"))? {
            let oid: u32 = row.get(0);
            if let (Some(first), Some(last)) = (row.get(1), row.get(2))
                && let Some(column) = columns.remove(&oid)
            {
                keys.insert(oid, Key::between(column, first, last));
            }
        }
    }
    Ok(keys)
}

/// Reads the sequences.
///
/// # Errors
/// The server refuses.
pub async fn read_sequences(
    client: &Client,
) -> Result<BTreeMap<String, SequenceSnapshot>, PostgresError> {
    let failed = || PostgresError::sql("read the sequences");
    let names = client
        .query(
            &format!(
                "SELECT n.nspname::text, c.relname::text FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND {USER_SCHEMAS} ORDER BY 1, 2"
            ),
            &[],
        )
        .await
        .map_err(failed())?;
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    // One statement for all: the view pg_sequences is not known to 9.6.
    let parts: Vec<String> = names
        .iter()
        .map(|row| {
            let (schema, name): (String, String) = (row.get(0), row.get(1));
            format!(
                "SELECT {}::text, last_value, is_called FROM {}.{}",
                literal(&format!("{schema}.{name}")),
                ident(&schema),
                ident(&name)
            )
        })
        .collect();
    let mut sequences = BTreeMap::new();
    for part in parts.chunks(200) {
        for row in client
            .query(&part.join(" UNION ALL "), &[])
            .await
            .map_err(failed())?
        {
            let value = SequenceSnapshot {
                last_value: row.get(1),
                is_called: row.get(2),
            };
            sequences.insert(row.get(0), value);
        }
    }
    Ok(sequences)
}
