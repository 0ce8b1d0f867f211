//! `postgresql_snapshot`: row counts and content checksums of every table, in one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_postgres::{Client, Row};

use super::anticipate::{self, Fills};
use super::checksum::{Blocks, Column, Float, Second, Sums, table_query};
use super::connect::{Server, cancellable, ident, literal, with_login};
use super::error::{PostgresError, SqlError};
use super::files::write_whole;
use super::key_ranges::{Key, KeyRanges};
use super::snapshot_model::{SequenceSnapshot, Snapshot, TableSnapshot, qualified};
use crate::modules::context::TaskContext;
use crate::modules::error::ModuleError;
use crate::modules::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_login! {
    /// Reads every table of a database in one moment: rows, content checksum, columns, sequences.
    /// The agent's own schema `kaapana_agent` is left out.
    pub struct PostgresqlSnapshot {
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
        /// Columns that later scripts change, add or drop, by table (`study` or `public.study`). The
        /// other columns of these tables get a checksum of their own, `kept`. Give the same to the
        /// snapshots before and after; a column that is not there is passed over.
        #[serde(default)]
        pub changed_columns: BTreeMap<String, Vec<String>>,
        /// Update scripts that a restore will anticipate: the tables concerned get a checksum more,
        /// `filled`, of their rows as the restore has to leave them.
        #[serde(default)]
        pub anticipate: Vec<PathBuf>,
        /// File that gets the snapshot as JSON. Relative paths start at the playbook.
        #[serde(default)]
        pub dest: Option<PathBuf>,
        /// Connections that read side by side; large tables are read in parts. Default: 2.
        #[serde(default = "two")]
        pub connections: usize,
    }
}

fn two() -> usize {
    2
}

impl TypedModule for PostgresqlSnapshot {
    const NAME: &'static str = "postgresql_snapshot";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_snapshot"];
    const KIND: Kind = Kind::ReadOnly;
    const SUMMARY: &'static str =
        "Takes row counts and content checksums of every table in one moment.";
    const EXAMPLE: &'static str = r#"- name: Count and fingerprint every table
  postgresql_snapshot:
    db: pacsdb
    changed_columns: {study: [study_deleting], patient: [patient_id_fk]}
    dest: "{{ backup_dir }}/before.json"
  register: before   # before.tables["public.study"].rows, before.total_rows, before.digest
"#;
}

/// A table to be read.
#[derive(Debug)]
struct Table {
    schema: String,
    name: String,
    columns: Vec<Column>,
    bytes: u64,
    blocks: u32,
    /// The primary key, where it is one integer and there is enough to be cut.
    key: Option<Key>,
    shell: TableSnapshot,
}

/// A table, or a part of one, to be read at once.
#[derive(Debug)]
struct Work {
    table: Arc<Table>,
    blocks: Blocks,
    bytes: u64,
}

/// Tables with fewer blocks have no ranges of keys.
const WORTH_RANGES: u32 = 8;
/// Tables below this size are read by one connection.
const SMALLEST_PART: u64 = 16 << 20;

/// Cuts large tables, so that no connection is left with a long one at the end.
fn cut(tables: Vec<Table>, connections: usize, server: u32) -> Vec<Work> {
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
            blocks,
            bytes,
        }));
    }
    queue
}

/// User relations, the agent's own schema left out.
const USER_SCHEMAS: &str =
    "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND n.nspname <> 'kaapana_agent'";

async fn list_tables(client: &Client) -> Result<Vec<Table>, PostgresError> {
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
                  AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)) \
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
        let float = match base.as_str() {
            "float4" => Float::Single,
            "float8" => Float::Double,
            "_float4" | "_float8" => Float::Array,
            _ => Float::No,
        };
        let entry = by_table.entry(table).or_default();
        entry.0.push(Column {
            name: name.clone(),
            float,
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

async fn read_sequences(
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

async fn read_part(
    client: &Client,
    work: &Work,
    second: Second<'_>,
) -> Result<Sums, PostgresError> {
    let table = &work.table;
    let action = || format!("read table {}.{}", table.schema, table.name);
    let query = table_query(
        &table.schema,
        &table.name,
        &table.columns,
        table.key.as_ref(),
        second,
        work.blocks,
    );
    let rows = client
        .query(&query, &[])
        .await
        .map_err(PostgresError::sql(action()))?;
    let mut sums = Sums::none(second);
    for row in rows {
        let part = Sums::read(
            row.get(0),
            [row.get(1), row.get(2)],
            [row.get(3), row.get(4)],
            row.get(5),
        );
        sums = sums.plus(part.ok_or_else(|| PostgresError::Sql {
            action: action(),
            source: SqlError::said("the server's sums are no numbers"),
        })?);
    }
    Ok(sums)
}

fn finished(table: &Table, sums: &Sums, second: Second<'_>) -> TableSnapshot {
    let mut finished = TableSnapshot {
        rows: sums.rows,
        checksum: sums.checksum(),
        ranges: table
            .key
            .as_ref()
            .map(|key| KeyRanges::new(key, &sums.ranges)),
        ..table.shell.clone()
    };
    match second {
        Second::No => {}
        Second::Without(changed) => {
            let kept = table.columns.iter().map(|column| column.name.clone());
            let mut kept: Vec<String> = kept.filter(|name| !changed.contains(name)).collect();
            kept.sort();
            finished.kept = sums.second();
            finished.kept_columns = Some(kept);
        }
        Second::Filled(fills) => {
            finished.filled = sums.second();
            finished.filled_columns = Some(fills.clone());
        }
    }
    finished
}

impl PostgresqlSnapshot {
    fn changed(&self) -> BTreeMap<String, BTreeSet<String>> {
        let own = |columns: &Vec<String>| columns.iter().cloned().collect();
        self.changed_columns
            .iter()
            .map(|(table, columns)| (qualified(table), own(columns)))
            .collect()
    }

    async fn take(
        &self,
        ctx: &TaskContext,
        server: &Server,
        db: &str,
    ) -> Result<Snapshot, ModuleError> {
        let lead = server.connect(db).await?;
        begin(&lead).await?;
        let failed = || PostgresError::sql("share the snapshot");
        let version = "SELECT current_setting('server_version'), \
                       current_setting('server_version_num')::int4";
        let version = lead.query_one(version, &[]).await.map_err(failed())?;
        let server_version: String = version.get(0);
        let tables = cancellable(&lead, &ctx.cancel, list_tables(&lead)).await?;
        let wanted = self.connections.clamp(1, 16).min(tables.len().max(1));
        let number = u32::try_from(version.get::<_, i32>(1)).unwrap_or(0);
        let mut queue = cut(tables, wanted, number);
        // The largest first. `pop` takes the last.
        queue.sort_by_key(|work| work.bytes);
        let total: u64 = queue.iter().map(|work| work.bytes).sum();
        let mut clients = Vec::new();
        if wanted > 1 {
            let exported = lead.query_one("SELECT pg_export_snapshot()", &[]).await;
            let id: String = exported.map_err(failed())?.get(0);
            for _ in 1..wanted {
                let client = server.connect(db).await?;
                begin(&client).await?;
                let set = format!("SET TRANSACTION SNAPSHOT {}", literal(&id));
                client.batch_execute(&set).await.map_err(failed())?;
                clients.push(client);
            }
        }
        let sequences = cancellable(&lead, &ctx.cancel, read_sequences(&lead)).await?;
        clients.push(lead);
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            changed: self.changed(),
            fills: anticipate::of_scripts(ctx, &self.anticipate)?,
            done: AtomicU64::new(0),
            total,
            ctx: ctx.clone(),
        });
        let mut workers = tokio::task::JoinSet::new();
        for client in clients {
            workers.spawn(drain(Arc::clone(&shared), client));
        }
        let mut parts: BTreeMap<String, (Arc<Table>, Sums)> = BTreeMap::new();
        while let Some(ended) = workers.join_next().await {
            // The set aborts the other workers when it is dropped; their connections close.
            for (work, sums) in ended.unwrap_or(Err(ModuleError::Cancelled))? {
                let name = format!("{}.{}", work.table.schema, work.table.name);
                let so_far = parts.remove(&name).map(|(_, so_far)| so_far);
                let sums = match so_far {
                    Some(so_far) => so_far.plus(sums),
                    None => sums,
                };
                parts.insert(name, (work.table, sums));
            }
        }
        let tables = parts
            .into_iter()
            .map(|(name, (table, sums))| {
                let table = finished(&table, &sums, shared.second(&table));
                (name, table)
            })
            .collect();
        let mut snapshot = Snapshot {
            db: db.to_owned(),
            server_version,
            tables,
            sequences,
            digest: String::new(),
        };
        snapshot.digest = snapshot.compute_digest();
        Ok(snapshot)
    }
}

struct Shared {
    queue: Mutex<Vec<Work>>,
    changed: BTreeMap<String, BTreeSet<String>>,
    fills: Fills,
    done: AtomicU64,
    total: u64,
    ctx: TaskContext,
}

impl Shared {
    /// Says which second checksum a table gets.
    fn second(&self, table: &Table) -> Second<'_> {
        let name = format!("{}.{}", table.schema, table.name);
        if let Some(changed) = self.changed.get(&name) {
            return Second::Without(changed);
        }
        let there = |column: &String| {
            let same = |own: &Column| own.name == *column && own.float == Float::No;
            table.columns.iter().any(same)
        };
        match self.fills.get(&name) {
            Some(fills) if fills.keys().all(there) => Second::Filled(fills),
            _ => Second::No,
        }
    }
}

/// Reads tables, or parts of them, until none is left.
async fn drain(shared: Arc<Shared>, client: Client) -> Result<Vec<(Work, Sums)>, ModuleError> {
    let mut read = Vec::new();
    loop {
        let Some(work) = shared.queue.lock().await.pop() else {
            return Ok(read);
        };
        let name = format!("{}.{}", work.table.schema, work.table.name);
        let second = shared.second(&work.table);
        let sums = cancellable(
            &client,
            &shared.ctx.cancel,
            read_part(&client, &work, second),
        )
        .await?;
        let done = shared.done.fetch_add(work.bytes, Ordering::Relaxed) + work.bytes;
        shared.ctx.progress.bytes(done, Some(shared.total));
        shared
            .ctx
            .progress
            .line(format!("{name}: {} rows", sums.rows));
        read.push((work, sums));
    }
}

async fn begin(client: &Client) -> Result<(), PostgresError> {
    // The server's own parallel workers would fight with ours for the same cores.
    client
        .batch_execute(
            "SET max_parallel_workers_per_gather = 0; \
             BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        )
        .await
        .map_err(PostgresError::sql("begin a read-only transaction"))
}

#[async_trait]
impl Module for PostgresqlSnapshot {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        self.anticipate
            .iter()
            .map(|path| ctx.resolve(path))
            .collect()
    }

    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        if !self.anticipate.is_empty() && !self.changed_columns.is_empty() {
            let message = "not together with `changed_columns`: a table gets one more checksum";
            return Err(PostgresError::argument("anticipate", message).into());
        }
        let db = server.db(self.login_db.as_deref());
        let snapshot = self.take(ctx, &server, &db).await?;
        let as_json = |error: serde_json::Error| PostgresError::argument("dest", error.to_string());
        let rows = snapshot.total_rows();
        let mut outcome = Outcome::ok();
        if let Some(dest) = &self.dest {
            let text = serde_json::to_vec_pretty(&snapshot).map_err(as_json)?;
            outcome = outcome.output(write_whole(&ctx.resolve(dest), &text)?);
        }
        if let Value::Object(map) = serde_json::to_value(&snapshot).map_err(as_json)? {
            outcome.result.extend(map);
        }
        Ok(outcome
            .with("total_tables", snapshot.tables.len())
            .with("total_rows", rows)
            .summary(format!("{} tables, {rows} rows", snapshot.tables.len())))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
