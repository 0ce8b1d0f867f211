//! Reads tables, or parts of them, and makes what a snapshot says of them.

use std::sync::Arc;

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::Client;

use super::checksum::{Blocks, Further, Reading, Sum, Sums};
use super::key_ranges::KeyRanges;
use crate::error::{PostgresError, SqlError};
use crate::format::copy_binary::CopyBinary;
use crate::snapshot::catalog::Table;
use crate::snapshot::model::TableSnapshot;

/// A table, or a part of one, to be read at once.
#[derive(Debug)]
pub struct Work {
    /// The table.
    pub table: Arc<Table>,
    /// Which blocks of it.
    pub blocks: Blocks,
    /// Their size.
    pub bytes: u64,
    /// Whether the table ends with them.
    pub last: bool,
}

/// Tables below this size are read by one connection.
const SMALLEST_PART: u64 = 16 << 20;

/// Cuts large tables, so that no connection is left with a long one at the end.
pub fn cut(tables: Vec<Table>, connections: usize, server: u32) -> Vec<Work> {
    let total: u64 = tables.iter().map(|table| table.bytes).sum();
    let connections = connections as u64;
    // Before 14 a server reads a table from its beginning for each part.
    let most = if server >= 140_000 {
        u64::MAX
    } else {
        connections
    };
    let part = (total / (4 * connections)).max(SMALLEST_PART);
    let mut queue = Vec::new();
    for table in tables {
        let parts = if connections > 1 {
            table.bytes.div_ceil(part).clamp(1, most)
        } else {
            1
        };
        let blocks = Blocks::parts(table.blocks, u32::try_from(parts).unwrap_or(u32::MAX));
        let bytes = table.bytes / blocks.len() as u64;
        let table = Arc::new(table);
        queue.extend(blocks.into_iter().map(|blocks| Work {
            table: Arc::clone(&table),
            last: blocks.to.is_none(),
            blocks,
            bytes,
        }));
    }
    queue
}

/// After so many rows it is said how far the reading is.
const STEP: u64 = 4096;

/// Reads a part of a table. `seen` hears now and then how many rows and bytes have come since.
///
/// # Errors
/// The server refuses, or does not send rows of this table.
pub async fn read_part(
    client: &Client,
    work: &Work,
    further: Further<'_>,
    mut seen: impl FnMut(u64, u64),
) -> Result<Sums, PostgresError> {
    let table = &work.table;
    let action = || format!("read table {}.{}", table.schema, table.name);
    let strange = || PostgresError::Sql {
        action: action(),
        source: SqlError::said("what the server sent are no rows of this table"),
    };
    let reading = Reading::new(&table.columns, table.outside, table.key.as_ref(), further);
    let copy = reading.copy(&table.schema, &table.name, work.blocks);
    let begun = client.copy_out(&copy).await;
    let rows = begun.map_err(PostgresError::sql(action()))?;
    pin_mut!(rows);
    let (mut messages, mut values, mut sums) = (CopyBinary::default(), Vec::new(), reading.none());
    let (mut fresh, mut bytes) = (0, 0);
    while let Some(message) = rows.next().await {
        let message = message.map_err(PostgresError::sql(action()))?;
        let row = messages.row(&message, &mut values).ok_or_else(strange)?;
        if let Some(row) = row {
            reading.add(&row, &mut sums).ok_or_else(strange)?;
            fresh += 1;
        }
        bytes += message.len() as u64;
        if fresh == STEP {
            seen(fresh, bytes);
            (fresh, bytes) = (0, 0);
        }
    }
    seen(fresh, bytes);
    messages.is_whole().then_some(sums).ok_or_else(strange)
}

/// What a snapshot says of a table that was read.
#[must_use]
pub fn finished(table: &Table, sums: &Sums, further: Further<'_>) -> TableSnapshot {
    let ranges = |sum: &Sum| {
        let key = table.key.as_ref();
        key.map(|key| KeyRanges::new(key, &sum.ranges))
    };
    let kept_columns = further.changed.map(|changed| {
        let names = table.columns.iter().map(|column| column.name.clone());
        let mut kept: Vec<String> = names.filter(|name| !changed.contains(name)).collect();
        kept.sort();
        kept
    });
    TableSnapshot {
        rows: sums.rows,
        checksum: sums.all.hex(),
        ranges: ranges(&sums.all),
        kept: sums.kept.as_ref().map(Sum::hex),
        kept_columns,
        kept_ranges: sums.kept.as_ref().and_then(ranges),
        filled: sums.filled.as_ref().map(Sum::hex),
        filled_columns: further.fills.cloned(),
        filled_ranges: sums.filled.as_ref().and_then(ranges),
        ..table.shell.clone()
    }
}
