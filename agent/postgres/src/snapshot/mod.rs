//! `postgresql_snapshot`: row counts and content checksums of every table, in one moment.

pub(crate) mod catalog;
pub(crate) mod checksum;
pub(crate) mod compare;
pub(crate) mod difference;
pub(crate) mod differing_rows;
pub(crate) mod key_ranges;
#[cfg(test)]
mod live_content_tests;
pub(crate) mod model;
pub(crate) mod read;
pub(crate) mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::error::PostgresError;
use crate::format::anticipate::{self, Fills};
use crate::host::error::ModuleError;
use crate::host::files::whole::write_whole;
use crate::host::worker;
use crate::server::connect::{Server, cancellable, literal, with_login};
use crate::snapshot::catalog::{Table, list_tables, read_sequences};
use crate::snapshot::checksum::{Column, Further, Sums};
use crate::snapshot::model::{Snapshot, qualified};
use crate::snapshot::read::{Work, cut, finished, read_part};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_login! {
    /// Reads every table of a database in one moment: rows, content checksum, columns, sequences.
    /// The agent's own schema `kaapana_agent` is left out.
    pub struct PostgresqlSnapshot {
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
        /// Columns that later scripts change, add or drop, by table (`study` or `public.study`). The
        /// other columns of these tables get a checksum of their own, `kept`. Give the same to all
        /// snapshots that are compared; a column that is not there is passed over.
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
    const AFTER_INTERRUPTION: &'static str = "reads again";
    const CHECK_MODE: &'static str = "really looks";
    const TUNING: &'static [&'static str] = &["connections"];
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
                       current_setting('server_version_num')::int4, \
                       current_setting('server_encoding')";
        let version = lead.query_one(version, &[]).await.map_err(failed())?;
        let server_version: String = version.get(0);
        let tables = cancellable(&lead, &ctx.cancel, list_tables(&lead)).await?;
        let wanted = self.connections.clamp(1, 16).min(tables.len().max(1));
        let number = u32::try_from(version.get::<_, i32>(1)).unwrap_or(0);
        let all_tables = tables.len();
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
        // What is in a database without an encoding cannot be turned into another one.
        if version.get::<_, &str>(2) == "SQL_ASCII" {
            for client in &clients {
                let raw = client
                    .batch_execute("SET client_encoding = 'SQL_ASCII'")
                    .await;
                raw.map_err(failed())?;
            }
        }
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            changed: self.changed(),
            fills: anticipate::of_scripts(ctx, &self.anticipate)?,
            done: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            tables: AtomicU64::new(0),
            total,
            all_tables,
            ctx: ctx.clone(),
        });
        let mut workers = tokio::task::JoinSet::new();
        for client in clients {
            let reading = drain(Arc::clone(&shared), client);
            workers.spawn(worker::watched("reader of tables", reading));
        }
        let mut parts: BTreeMap<String, (Arc<Table>, Sums)> = BTreeMap::new();
        while let Some(ended) = workers.join_next().await {
            // The set aborts the other workers when it is dropped; their connections close.
            for (work, sums) in ended.map_err(|_| ModuleError::Cancelled)??? {
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
                let table = finished(&table, &sums, shared.further(&table));
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
    /// Bytes, rows and tables so far.
    done: AtomicU64,
    rows: AtomicU64,
    tables: AtomicU64,
    /// All bytes and tables.
    total: u64,
    all_tables: usize,
    ctx: TaskContext,
}

impl Shared {
    /// Says that so much more was read.
    fn advance(&self, rows: u64, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let rows = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        let (tables, all) = (self.tables.load(Ordering::Relaxed), self.all_tables);
        let what = format!("{rows} rows, {tables} of {all} tables");
        self.ctx.progress.bytes_of(done, Some(self.total), what);
    }

    /// Says which further checksums a table gets.
    fn further(&self, table: &Table) -> Further<'_> {
        let name = format!("{}.{}", table.schema, table.name);
        let there = |column: &String| {
            let same = |own: &Column| own.name == *column && own.takes_text();
            table.columns.iter().any(same)
        };
        Further {
            changed: self.changed.get(&name),
            fills: self
                .fills
                .get(&name)
                .filter(|fills| fills.keys().all(there)),
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
        let further = shared.further(&work.table);
        // What comes is about as much as lies there.
        let mut left = work.bytes;
        let seen = |rows, bytes| {
            let done = left.min(bytes);
            left -= done;
            shared.advance(rows, done);
        };
        let reading = read_part(&client, &work, further, seen);
        let sums = cancellable(&client, &shared.ctx.cancel, reading).await?;
        shared
            .tables
            .fetch_add(u64::from(work.last), Ordering::Relaxed);
        shared.advance(0, left);
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
