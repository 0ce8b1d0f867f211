//! Gives everything that a dump says its place in a restore: on the session that keeps to the dump's order, or
//! among the jobs that run side by side.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::PostgresError;
use crate::format::anticipate::Fills;
use crate::format::reader::{CopyBlock, Item, ReadError, Statement};
use crate::format::source;
use crate::format::statement::{Kind, copy_columns, kind};
use crate::host::error::ModuleError;
use crate::restore::fill::{self, Targets};
use crate::restore::parts::parts;
use crate::restore::pool::{Claim, Pool};
use crate::restore::session::{Job, Load, Numbered, Session, Shared, Work};
use crate::restore::staging as databases;
use crate::server::connect::cancellable;

/// Below this size of a table's data everything that is to be done about it is one job.
const SMALL_TABLE: u64 = 1 << 20;
/// How much is run at once.
const BATCH: (usize, usize) = (100, 256 << 10);

/// The error for a dump that is none.
pub fn unreadable(src: &Path, error: ReadError) -> ModuleError {
    match error {
        ReadError::Io(source) => source::unreadable(src, source).into(),
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

/// Which jobs are being collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wave {
    None,
    Indexes,
    ForeignKeys,
}

/// Gives every item its place.
pub struct Dispatcher {
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
    /// Begins at the top of a dump. `main` runs what has its place in the order, workers of `pool` the rest;
    /// `connections` is how many they are.
    pub fn new(
        shared: &Arc<Shared>,
        pool: &Arc<Pool>,
        main: Session,
        connections: u64,
        fills: Fills,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            pool: Arc::clone(pool),
            main,
            settings: Vec::new(),
            current: "".into(),
            encoding: None,
            in_transaction: None,
            wave: Wave::None,
            held: Vec::new(),
            pending: Vec::new(),
            small: BTreeMap::new(),
            connections: connections.max(1),
            fills,
        }
    }

    /// Takes the next thing that the dump says.
    ///
    /// # Errors
    /// It cannot be read, the server refuses it or something before it, or the run was interrupted.
    pub async fn item(&mut self, item: Item) -> Result<(), ModuleError> {
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
            Kind::End => {
                // In a batch it would end the batch's own transaction.
                self.barrier().await?;
                self.flush().await?;
                self.alone(&text, line).await
            }
            Kind::Setting { .. } | Kind::Copy { .. } | Kind::Other => {
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
        let bounds = parts(
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
                    last: bounds.last() == Some(&pair[1]),
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
        if self.encoding.is_some() || !fill::takes(&self.main.client, table, fills).await? {
            return Ok(None);
        }
        Ok(copy_columns(copy).and_then(|columns| fill::targets(&columns, fills)))
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
    ///
    /// # Errors
    /// A transaction is open, the server refuses something, or the run was interrupted.
    pub async fn end(&mut self) -> Result<(), ModuleError> {
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

fn is_utf8(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    ["utf8", "unicode"].contains(&plain.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_have_several_spellings() {
        assert!(is_utf8("UTF8") && is_utf8("utf-8") && is_utf8("UNICODE"));
        assert!(!is_utf8("LATIN1") && !is_utf8("SQL_ASCII"));
    }
}
