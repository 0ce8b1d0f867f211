//! Restores a plain dump by our own reader, over several connections. The statements before and between
//! run on one of them in the dump's order; data, keys, indexes and foreign keys run side by side as far as
//! their tables allow. What is in the database afterwards is what psql makes of the same file.
//!
//! Here the file is read and the connections are made; what goes where is said in `restore_dispatch`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::PostgresError;
use crate::format::anticipate::{Anticipated, Fills};
use crate::format::reader::{DumpReader, Item, ReadError};
use crate::format::source::{DumpSource, Whole};
use crate::host::error::{ModuleError, PathError};
use crate::host::worker;
use crate::restore::dispatch::{Dispatcher, unreadable};
use crate::restore::pool::Pool;
use crate::restore::session::{Session, Shared};
use crate::server::connect::Server;
use crate::task::context::TaskContext;

/// Items that are read ahead; each is a statement or a place in the file.
const READ_AHEAD: usize = 64;

/// How a dump is restored.
pub struct Parallel<'a> {
    /// Where.
    pub server: &'a Server,
    /// Settings of the sessions.
    pub settings: &'a BTreeMap<String, String>,
    /// How many connections load and build.
    pub connections: usize,
    /// Columns whose NULLs are filled on the way.
    pub fills: &'a Fills,
}

/// What was restored.
pub struct Restored {
    /// Bytes of the text that were read.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Rows of all tables.
    pub rows: u64,
    /// Tables in which NULLs were filled.
    pub anticipated: Vec<Anticipated>,
}

/// What the reading thread sends.
enum Read {
    Item(Item),
    End { bytes: u64, sha256: String },
}

fn read_all(text: Whole, send: &mpsc::Sender<Result<Read, ReadError>>) {
    let mut reader = DumpReader::new(text);
    loop {
        let next = match reader.next() {
            Ok(Some(item)) => Ok(Read::Item(item)),
            Ok(None) => break,
            Err(error) => Err(error),
        };
        let over = next.is_err();
        // Nobody listens any more when the restore has failed.
        if send.blocking_send(next).is_err() || over {
            return;
        }
    }
    let (bytes, text) = reader.finish();
    let end = text.sha256().map(|sha256| Read::End { bytes, sha256 });
    let _ = send.blocking_send(end.map_err(ReadError::Io));
}

impl Parallel<'_> {
    /// Restores all of `source` into `db`, which nobody else uses. It is read twice: once to know what is in
    /// it, once for the data of each table. `src` is what messages call it.
    ///
    /// # Errors
    /// The dump cannot be read or changed meanwhile, the server refuses something, or the run was
    /// interrupted. What is in the database then is of no use.
    pub async fn restore(
        &self,
        ctx: &TaskContext,
        src: &Path,
        source: DumpSource,
        db: &str,
    ) -> Result<Restored, ModuleError> {
        let stamp = |source: &DumpSource| source.stamp().map_err(PathError::on("inspect", src));
        // While it grows it changes all the time; from its end on it must not.
        let opened = (!source.grows()).then(|| stamp(&source)).transpose()?;
        let text = source.whole().map_err(PathError::on("read", src))?;
        let shared = Arc::new(Shared {
            ctx: ctx.clone(),
            path: src.to_path_buf(),
            total: source.size(),
            source,
            done: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            tables: AtomicU64::new(0),
            filled: Mutex::default(),
        });
        let pool = Arc::new(Pool::default());
        let main = self.session(db, false).await?;
        let mut workers = JoinSet::new();
        for _ in 0..self.connections {
            let session = self.session(db, self.connections > 1).await?;
            workers.spawn(work(Arc::clone(&pool), Arc::clone(&shared), session));
        }
        let (send, mut receive) = mpsc::channel(READ_AHEAD);
        let reading = worker::start("reader of the dump", move || read_all(text, &send));
        let mut dispatcher = Dispatcher::new(
            &shared,
            &pool,
            main,
            self.connections as u64,
            self.fills.clone(),
        );
        let feeding = async {
            let (bytes, sha256, before) = loop {
                match receive.recv().await {
                    Some(Ok(Read::Item(item))) => dispatcher.item(item).await?,
                    Some(Ok(Read::End { bytes, sha256 })) => {
                        let before = opened.map_or_else(|| stamp(&shared.source), Ok)?;
                        break (bytes, sha256, before);
                    }
                    Some(Err(error)) => return Err(unreadable(src, error)),
                    None => {
                        worker::ended(reading).await?;
                        return Err(ModuleError::Cancelled);
                    }
                }
            };
            dispatcher.end().await?;
            Ok((bytes, sha256, before))
        };
        // A worker that fails ends it whatever the reader, or the session that keeps the order, waits for.
        let (bytes, sha256, before) = tokio::select! {
            biased;
            error = pool.failure() => return Err(error),
            fed = feeding => fed?,
        };
        if stamp(&shared.source)? != before {
            return Err(changed(src).into());
        }
        pool.close();
        while workers.join_next().await.is_some() {}
        let filled = shared.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let anticipated = filled.iter().map(|(table, values)| Anticipated {
            table: table.clone(),
            columns: self.fills.get(table).cloned().unwrap_or_default(),
            values: *values,
        });
        Ok(Restored {
            anticipated: anticipated.collect(),
            bytes,
            sha256,
            rows: shared.rows.load(Ordering::Relaxed),
        })
    }

    async fn session(&self, db: &str, beside_others: bool) -> Result<Session, PostgresError> {
        let client = self.server.connect(db).await?;
        let failed = || PostgresError::sql("set up a session for the restore");
        // The database counts for nothing until its last record is on disk, which the CHECKPOINT before it
        // gets its name sees to: no commit has to wait for the disk.
        client
            .batch_execute("SET synchronous_commit = off")
            .await
            .map_err(failed())?;
        if beside_others {
            // Workers of one index would take the cores of another. Unknown before 11.
            client
                .query(
                    "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
                     WHERE name = 'max_parallel_maintenance_workers'",
                    &[],
                )
                .await
                .map_err(failed())?;
        }
        for (name, value) in self.settings {
            client
                .query(
                    "SELECT pg_catalog.set_config($1, $2, false)",
                    &[name, value],
                )
                .await
                .map_err(PostgresError::sql(format!("set {name} for the restore")))?;
        }
        Ok(Session::new(client))
    }
}

/// The error for a dump that was written to during its restore.
pub fn changed(src: &Path) -> PostgresError {
    PostgresError::BadDump {
        path: src.to_path_buf(),
        message: "it changed while it was read".into(),
        help: "leave the file alone during a restore, then run the playbook again".into(),
    }
}

async fn work(pool: Arc<Pool>, shared: Arc<Shared>, mut session: Session) {
    while let Some(job) = pool.take().await {
        let run = worker::watched("restoring connection", session.run(&shared, &job));
        let result = run.await.unwrap_or_else(|panicked| Err(panicked.into()));
        pool.done(&job.claim, result);
    }
}
