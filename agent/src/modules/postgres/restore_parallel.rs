//! Restores a plain dump by our own reader, over several connections. The statements before and between
//! run on one of them in the dump's order; data, keys, indexes and foreign keys run side by side as far as
//! their tables allow. What is in the database afterwards is what psql makes of the same file.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::anticipate::{Anticipated, Fills};
use super::connect::{Server, cancellable};
use super::dump_reader::{CopyBlock, DumpReader, Item, ReadError, Statement};
use super::dump_statement::{Kind, copy_columns, kind};
use super::error::PostgresError;
use super::restore_fill::{self, Targets};
use super::restore_pool::{Claim, Pool};
use super::restore_session::{Job, Load, Numbered, Session, Shared, Work};
use super::restore_target as databases;
use crate::modules::context::TaskContext;
use crate::modules::error::{ModuleError, PathError};

/// Items that are read ahead; each is a statement or a place in the file.
const READ_AHEAD: usize = 64;
/// Data of a table is cut only into parts of at least this size.
const SMALLEST_PART: u64 = 8 << 20;
/// What a server needs for a table in parts, over what it needs for the whole one, which goes past the log.
/// Measured: 134 MB, two connections, 663 ms of their time instead of 383.
const PRICE_OF_PARTS: f64 = 1.75;
/// Below this size of a table's data everything that is to be done about it is one job.
const SMALL_TABLE: u64 = 1 << 20;
/// How much is run at once.
const BATCH: (usize, usize) = (100, 256 << 10);

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
    /// Bytes that were read.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
    /// Rows of all tables.
    pub rows: u64,
    /// Tables in which NULLs were filled.
    pub anticipated: Vec<Anticipated>,
}

/// What tells whether a file was written to.
type Stamp = (u64, i64, i64);

fn stamp(file: &File, path: &Path) -> Result<Stamp, PathError> {
    let found = file.metadata().map_err(PathError::on("inspect", path))?;
    Ok((found.size(), found.ctime(), found.ctime_nsec()))
}

/// What the reading thread sends.
enum Read {
    Item(Item),
    End { bytes: u64, sha256: String },
}

fn read_all(file: Arc<File>, send: &mpsc::Sender<Result<Read, ReadError>>) {
    let mut reader = DumpReader::new(file);
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
    let (bytes, sha256) = reader.finish();
    let _ = send.blocking_send(Ok(Read::End { bytes, sha256 }));
}

impl Parallel<'_> {
    /// Restores all of `src` into `db`, which nobody else uses. `src` is open and read twice: once to know
    /// what is in it, once for the data of each table.
    ///
    /// # Errors
    /// The dump cannot be read or changed meanwhile, the server refuses something, or the run was
    /// interrupted. What is in the database then is of no use.
    pub async fn restore(
        &self,
        ctx: &TaskContext,
        src: &Path,
        db: &str,
    ) -> Result<Restored, ModuleError> {
        let file = File::open(src).map_err(PathError::on("open", src))?;
        let before = stamp(&file, src)?;
        let shared = Arc::new(Shared {
            ctx: ctx.clone(),
            path: src.to_path_buf(),
            file: Arc::new(file),
            done: AtomicU64::new(0),
            total: before.0,
            rows: AtomicU64::new(0),
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
        let file = Arc::clone(&shared.file);
        tokio::task::spawn_blocking(move || read_all(file, &send));
        let mut dispatcher = Dispatcher {
            shared: Arc::clone(&shared),
            pool: Arc::clone(&pool),
            main,
            settings: Vec::new(),
            current: "".into(),
            encoding: None,
            in_transaction: None,
            wave: Wave::None,
            held: Vec::new(),
            pending: Vec::new(),
            small: BTreeMap::new(),
            connections: self.connections.max(1) as u64,
            fills: self.fills.clone(),
        };
        let (bytes, sha256) = loop {
            pool.check()?;
            match receive.recv().await {
                Some(Ok(Read::Item(item))) => dispatcher.item(item).await?,
                Some(Ok(Read::End { bytes, sha256 })) => break (bytes, sha256),
                Some(Err(error)) => return Err(unreadable(src, error)),
                None => return Err(ModuleError::Cancelled),
            }
        };
        dispatcher.end().await?;
        if stamp(&shared.file, src)? != before {
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

fn unreadable(src: &Path, error: ReadError) -> ModuleError {
    match error {
        ReadError::Io(source) => PathError::on("read", src)(source).into(),
        ReadError::Content { line, message } => PostgresError::BadDump {
            path: src.to_path_buf(),
            message: format!("line {line}: {message}"),
            help:
                "make the dump again, of one database, with `pg_dump` (not `pg_dumpall`), without \
                   -C and without a terminal"
                    .into(),
        }
        .into(),
    }
}

async fn work(pool: Arc<Pool>, shared: Arc<Shared>, mut session: Session) {
    while let Some(job) = pool.take().await {
        let result = session.run(&shared, &job).await;
        pool.done(&job.claim, result);
    }
}

/// Which jobs are being collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wave {
    None,
    Indexes,
    ForeignKeys,
}

/// Gives every item its place.
struct Dispatcher {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    main: Session,
    /// What the dump has set so far, by name.
    settings: Vec<(String, String)>,
    current: Arc<str>,
    /// Encoding of the dump, where it is not UTF-8.
    encoding: Option<String>,
    /// Line of the BEGIN that is open.
    in_transaction: Option<u64>,
    wave: Wave,
    /// Run when the wave is over.
    held: Vec<Numbered>,
    /// Run on `main` before anything that may need them.
    pending: Vec<Numbered>,
    /// Keys and indexes of small tables, with the settings they are made under.
    small: BTreeMap<(String, Arc<str>), Vec<Numbered>>,
    connections: u64,
    fills: Fills,
}

impl Dispatcher {
    async fn item(&mut self, item: Item) -> Result<(), ModuleError> {
        match item {
            Item::Copy(block) => self.copy(block).await,
            Item::Statement(statement) => {
                let text = self.decode(&statement).await?;
                self.statement(text, statement.line).await
            }
        }
    }

    async fn statement(&mut self, text: String, line: u64) -> Result<(), ModuleError> {
        let kind = kind(&text);
        if let Kind::Setting { name, value } = &kind {
            if name == "client_encoding" {
                self.encoding = value.clone().filter(|name| !is_utf8(name));
                return Ok(());
            }
            // The server reads a batch with the settings from before it.
            self.flush().await?;
            self.alone(&text, line).await?;
            self.remember(name, text);
            return Ok(());
        }
        if self.in_transaction.is_some() {
            self.alone(&text, line).await?;
            if kind == Kind::End {
                self.in_transaction = None;
            }
            return Ok(());
        }
        match kind {
            Kind::Free => self.run(text, line).await,
            Kind::Begin => {
                self.flush().await?;
                self.alone(&text, line).await?;
                self.in_transaction = Some(line);
                Ok(())
            }
            Kind::Key { table } => {
                let claim = Claim::Alone(table);
                self.push(Wave::Indexes, text, line, claim).await
            }
            Kind::Index { table } => {
                let claim = Claim::Shared(table);
                self.push(Wave::Indexes, text, line, claim).await
            }
            Kind::ForeignKey { table, other } => {
                let claim = Claim::Both(table, other);
                self.push(Wave::ForeignKeys, text, line, claim).await
            }
            Kind::Follower if self.wave != Wave::None => {
                self.held.push(Numbered { text, line });
                Ok(())
            }
            Kind::Follower => self.run(text, line).await,
            Kind::Setting { .. } | Kind::Copy { .. } | Kind::End | Kind::Other => {
                self.barrier().await?;
                self.run(text, line).await
            }
        }
    }

    async fn alone(&self, text: &str, line: u64) -> Result<(), ModuleError> {
        self.main.statement(&self.shared, text, line).await?;
        self.shared.advance(text.len() as u64);
        Ok(())
    }

    /// Runs a statement on `main`, together with others that follow.
    async fn run(&mut self, text: String, line: u64) -> Result<(), ModuleError> {
        self.pending.push(Numbered { text, line });
        let bytes: usize = self.pending.iter().map(|one| one.text.len()).sum();
        if self.pending.len() >= BATCH.0 || bytes >= BATCH.1 {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ModuleError> {
        let pending = std::mem::take(&mut self.pending);
        self.main.statements(&self.shared, &pending).await
    }

    fn remember(&mut self, name: &str, text: String) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), text));
        let all: String = self
            .settings
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        self.current = all.into();
    }

    async fn push(
        &mut self,
        wave: Wave,
        text: String,
        line: u64,
        claim: Claim,
    ) -> Result<(), ModuleError> {
        // Indexes may begin while data is loaded; foreign keys need everything before them.
        if self.wave != wave && (self.wave != Wave::None || wave == Wave::ForeignKeys) {
            self.barrier().await?;
        }
        self.wave = wave;
        self.flush().await?;
        let statement = Numbered { text, line };
        if let Claim::Alone(table) | Claim::Shared(table) = &claim
            && self
                .pool
                .bytes_of(table)
                .is_some_and(|bytes| bytes < SMALL_TABLE)
        {
            let place = (table.clone(), Arc::clone(&self.current));
            self.small.entry(place).or_default().push(statement);
            return Ok(());
        }
        self.pool.push(Job {
            line,
            work: Work::Sql(vec![statement]),
            claim,
            weight: 0,
            settings: Arc::clone(&self.current),
        });
        Ok(())
    }

    /// Waits for everything that was given away, then runs what was held back.
    async fn barrier(&mut self) -> Result<(), ModuleError> {
        if self.wave == Wave::None && self.pool.is_idle() {
            return Ok(());
        }
        self.flush().await?;
        for ((table, settings), statements) in std::mem::take(&mut self.small) {
            self.pool.push(Job {
                line: statements.first().map_or(0, |first| first.line),
                work: Work::Sql(statements),
                claim: Claim::Small(table),
                weight: 0,
                settings,
            });
        }
        self.pool.idle().await?;
        self.wave = Wave::None;
        for Numbered { text, line } in std::mem::take(&mut self.held) {
            self.run(text, line).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, block: CopyBlock) -> Result<(), ModuleError> {
        let line = block.statement.line;
        let text = self.decode(&block.statement).await?;
        let Kind::Copy { table, plain: true } = kind(&text) else {
            // The reader knows it as one in the dump's own encoding.
            return Err(unreadable(
                &self.shared.path,
                ReadError::Content {
                    line,
                    message: "a COPY that cannot be read".into(),
                },
            ));
        };
        if self.wave != Wave::None {
            self.barrier().await?;
        }
        self.flush().await?;
        self.shared.advance(text.len() as u64);
        let targets = self.targets(&table, &text).await?;
        let copy = text.trim_end_matches(';').to_owned();
        // The COPY may reach over several lines; its data begins after the last of them.
        let first_row = line + text.matches('\n').count() as u64 + 1;
        let inline = self.in_transaction.is_some();
        let bounds = bounds(
            &block,
            if inline { 1 } else { self.connections },
            self.shared.total,
        );
        let whole = !inline && bounds.len() == 2;
        for pair in bounds.windows(2) {
            let job = Job {
                work: Work::Load(Load {
                    table: table.clone(),
                    copy: copy.clone(),
                    encoding: self.encoding.clone(),
                    from: block.cuts[pair[0]],
                    to: block.cuts[pair[1]],
                    whole,
                    targets: targets.clone(),
                }),
                line: first_row + block.cuts[pair[0]].rows,
                claim: Claim::Load(table.clone()),
                weight: block.cuts[pair[1]].offset - block.cuts[pair[0]].offset,
                settings: Arc::clone(&self.current),
            };
            if inline {
                self.main.run(&self.shared, &job).await?;
            } else {
                self.pool.push(job);
            }
        }
        Ok(())
    }

    /// Says what NULLs become in the data of a COPY.
    async fn targets(&self, table: &str, copy: &str) -> Result<Option<Targets>, ModuleError> {
        let Some(fills) = self.fills.get(table) else {
            return Ok(None);
        };
        // Where a byte may be a part of another character, the fields cannot be told apart.
        if self.encoding.is_some() || !restore_fill::takes(&self.main.client, table, fills).await? {
            return Ok(None);
        }
        Ok(copy_columns(copy).and_then(|columns| restore_fill::targets(&columns, fills)))
    }

    /// Returns a statement as UTF-8, which is what sessions of ours speak; the server knows how.
    async fn decode(&self, statement: &Statement) -> Result<String, ModuleError> {
        let (text, line) = (&statement.text, statement.line);
        let Some(encoding) = self.encoding.as_ref().filter(|_| !text.is_ascii()) else {
            return String::from_utf8(text.clone()).map_err(|_| {
                let message = "it is not UTF-8, as it says it is".into();
                unreadable(&self.shared.path, ReadError::Content { line, message })
            });
        };
        let convert = "SELECT pg_catalog.convert_from($1, $2)";
        let client = &self.main.client;
        let run = async {
            let row = client.query_one(convert, &[text, encoding]).await;
            row.and_then(|row| row.try_get(0))
                .map_err(|error| self.shared.failed(line, convert, error))
        };
        cancellable(client, &self.shared.ctx.cancel, run).await
    }

    /// The end of the dump: everything is waited for, then the planner gets its statistics.
    async fn end(&mut self) -> Result<(), ModuleError> {
        self.barrier().await?;
        self.flush().await?;
        if let Some(line) = self.in_transaction {
            let message = "the transaction that begins here is not ended".into();
            return Err(unreadable(
                &self.shared.path,
                ReadError::Content { line, message },
            ));
        }
        let tables = self
            .main
            .client
            .query(
                "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), \
                 pg_catalog.pg_relation_size(c.oid) FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname !~ '^pg_' \
                 AND n.nspname <> 'information_schema'",
                &[],
            )
            .await
            .map_err(PostgresError::sql("list the tables"))?;
        for row in tables {
            self.pool.push(Job {
                work: Work::Analyze(row.get(0)),
                line: 0,
                claim: Claim::Nothing,
                weight: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
                settings: Arc::clone(&self.current),
            });
        }
        // What has to be on disk in the end gets there meanwhile.
        let checkpoint = databases::checkpoint(&self.main.client);
        let written = cancellable(&self.main.client, &self.shared.ctx.cancel, checkpoint);
        let (analyzed, written) = tokio::join!(self.pool.idle(), written);
        analyzed?;
        written
    }
}

/// Says where data is cut, as places in `cuts`: a table is loaded in parts only where the other connections
/// would otherwise have nothing to do for so long that the price of parts is worth it.
fn bounds(block: &CopyBlock, connections: u64, total: u64) -> Vec<usize> {
    let last = block.cuts.len() - 1;
    let (begin, end) = (block.cuts[0].offset, block.cuts[last].offset);
    let bytes = end - begin;
    let parts = connections.min(bytes / SMALLEST_PART).max(1);
    let rest = total.saturating_sub(bytes) as f64;
    let in_parts = (bytes as f64 * PRICE_OF_PARTS + rest) / connections as f64;
    if parts == 1 || bytes as f64 <= in_parts {
        return vec![0, last];
    }
    let mut bounds: Vec<usize> = (0..parts)
        .map(|part| {
            let wanted = begin + bytes * part / parts;
            block.cuts.partition_point(|cut| cut.offset < wanted)
        })
        .collect();
    bounds.push(last);
    bounds.dedup();
    bounds
}

fn is_utf8(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ["utf8", "unicode"].contains(&plain.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::postgres::dump_reader::Cut;

    #[test]
    fn a_table_that_the_others_would_wait_for_is_cut_evenly() {
        let cut = |mib: u64| Cut {
            offset: mib << 20,
            rows: mib,
        };
        let block = CopyBlock {
            statement: Statement {
                text: Vec::new(),
                line: 1,
            },
            cuts: (1..=41).map(cut).collect(),
        };
        assert_eq!(bounds(&block, 2, 41 << 20), [0, 20, 40]);
        assert_eq!(bounds(&block, 4, 60 << 20), [0, 10, 20, 30, 40]);
        for (connections, total) in [(2, 60), (2, 100), (4, 150)] {
            let bounds = bounds(&block, connections, total << 20);
            assert_eq!(bounds, [0, 40], "the others have enough to do");
        }
        assert_eq!(bounds(&block, 1, 41 << 20), [0, 40]);
        let one_row = CopyBlock {
            cuts: vec![cut(1), cut(41)],
            ..block
        };
        assert_eq!(bounds(&one_row, 2, 41 << 20), [0, 1], "a row is never cut");
    }

    #[test]
    fn encodings_have_several_spellings() {
        assert!(is_utf8("UTF8") && is_utf8("utf-8") && is_utf8("UNICODE"));
        assert!(!is_utf8("LATIN1") && !is_utf8("SQL_ASCII"));
    }
}
