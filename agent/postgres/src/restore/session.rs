//! A session that takes part in a restore: runs statements, and streams data of tables.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{PostgresError, SqlError};
use crate::format::reader::Cut;
use crate::format::source::{DumpSource, Text, unreadable};
use crate::host::error::{ModuleError, PathError};
use crate::host::worker;
use crate::restore::fill::{Filler, Targets};
use crate::restore::pool::Claim;
use crate::server::connect::{cancellable, literal};
use crate::task::context::TaskContext;

/// How much data goes to the server at once.
const CHUNK: usize = 256 << 10;
/// From this size on a table is loaded in a transaction that makes its file anew: nothing of it is then
/// written twice (<https://www.postgresql.org/docs/15/populate.html#POPULATE-COPY-FROM>).
const ANEW: u64 = 1 << 20;

/// Data of a table, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The table, as the dump writes it.
    pub table: String,
    /// `COPY … FROM stdin`, without a semicolon and options.
    pub copy: String,
    /// Encoding of the data, where it is not UTF-8.
    pub encoding: Option<String>,
    /// Where it begins.
    pub from: Cut,
    /// Where it ends.
    pub to: Cut,
    /// Whether it is all the data of the table that this COPY brings.
    pub whole: bool,
    /// Whether it is the last part of that.
    pub last: bool,
    /// What NULLs become on the way.
    pub targets: Option<Targets>,
}

/// A statement of the dump, in UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// The statement, with what ends it.
    pub text: String,
    /// Its line in the dump.
    pub line: u64,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Statements, one after the other.
    Sql(Vec<Numbered>),
    /// Data.
    Load(Load),
    /// Statistics of a table for the planner.
    Analyze(String),
}

/// Something that may run beside others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What.
    pub work: Work,
    /// Line of the dump: of the statement, or of the first row.
    pub line: u64,
    /// Which tables it uses.
    pub claim: Claim,
    /// Bytes.
    pub weight: u64,
    /// Statements that bring a session into the state that the dump had there.
    pub settings: Arc<str>,
}

/// What all sessions of a restore share.
pub struct Shared {
    /// The task.
    pub ctx: TaskContext,
    /// The dump.
    pub path: PathBuf,
    /// The same, open.
    pub source: DumpSource,
    /// Bytes of the dump's text that are done.
    pub done: AtomicU64,
    /// Bytes of the dump's text.
    pub total: u64,
    /// Rows that were loaded.
    pub rows: AtomicU64,
    /// Tables whose last part was loaded.
    pub tables: AtomicU64,
    /// Values that were filled in, by table.
    pub filled: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    /// Says that bytes of the dump are done.
    pub fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let what = format!(
            "{} rows of {} tables",
            self.rows.load(Ordering::Relaxed),
            self.tables.load(Ordering::Relaxed)
        );
        let done = done.min(self.total);
        self.ctx.progress.bytes_of(done, Some(self.total), what);
    }

    /// The error of a statement: where in the dump, which statement, what the server said.
    pub fn failed(&self, line: u64, text: &str, error: tokio_postgres::Error) -> PostgresError {
        let row = error
            .as_db_error()
            .and_then(|db| db.where_())
            .and_then(row_of_context);
        let source: Box<SqlError> = error.into();
        // The server names a character of the statement, or a line of the data.
        let in_text = source.position.map_or(0, |position| {
            let before = text.chars().take(position.saturating_sub(1) as usize);
            before.filter(|c| *c == '\n').count() as u64
        });
        PostgresError::Restore {
            path: self.path.clone(),
            line: line + row.map_or(in_text, |row| row - 1),
            statement: shorten(text),
            source,
        }
    }
}

/// Finds N in `COPY study, line N, column pk: …`.
fn row_of_context(context: &str) -> Option<u64> {
    let rest = context.lines().find(|line| line.starts_with("COPY "))?;
    let (_, rest) = rest.split_once(", line ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|row| *row > 0)
}

fn shorten(text: &str) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= 200 {
        return flat;
    }
    flat.chars().take(200).chain(['…']).collect()
}

/// One connection.
pub struct Session {
    /// The connection.
    pub client: Client,
    settings: Arc<str>,
}

impl Session {
    /// Takes a fresh connection.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            settings: "".into(),
        }
    }

    /// Runs a statement of the dump.
    ///
    /// # Errors
    /// The server refuses it, or the run was interrupted.
    pub async fn statement(
        &self,
        shared: &Shared,
        text: &str,
        line: u64,
    ) -> Result<(), ModuleError> {
        let run = async {
            self.client
                .batch_execute(text)
                .await
                .map_err(|error| shared.failed(line, text, error))
        };
        cancellable(&self.client, &shared.ctx.cancel, run).await
    }

    /// Runs statements of the dump in one message, which is one transaction. Where one is refused they run
    /// one by one, so that it is told which; and where all that is wrong is the transaction, nothing is.
    ///
    /// # Errors
    /// As [`Session::statement`].
    pub async fn statements(
        &self,
        shared: &Shared,
        statements: &[Numbered],
    ) -> Result<(), ModuleError> {
        let Some(first) = statements.first() else {
            return Ok(());
        };
        if statements.len() > 1 {
            // A comment at the end of one must not swallow what ends it.
            let all: String = statements
                .iter()
                .flat_map(|statement| [&statement.text, "\n;\n"])
                .collect();
            let run = async {
                let ran = self.client.batch_execute(&all).await;
                Ok::<_, ModuleError>(ran.err())
            };
            match cancellable(&self.client, &shared.ctx.cancel, run).await? {
                None => {}
                Some(error) if blames_a_statement(&error) => {
                    for Numbered { text, line } in statements {
                        self.statement(shared, text, *line).await?;
                    }
                }
                Some(error) => return Err(shared.failed(first.line, &first.text, error).into()),
            }
        } else {
            self.statement(shared, &first.text, first.line).await?;
        }
        let bytes: usize = statements
            .iter()
            .map(|statement| statement.text.len())
            .sum();
        shared.advance(bytes as u64);
        Ok(())
    }

    /// Does a job.
    ///
    /// # Errors
    /// As [`Session::statement`], or the dump cannot be read.
    pub async fn run(&mut self, shared: &Shared, job: &Job) -> Result<(), ModuleError> {
        if !Arc::ptr_eq(&self.settings, &job.settings) {
            self.statement(shared, &job.settings, job.line).await?;
            self.settings = Arc::clone(&job.settings);
        }
        match &job.work {
            Work::Sql(statements) => self.statements(shared, statements).await,
            Work::Analyze(table) => {
                let analyze = async {
                    let ran = self.client.batch_execute(&format!("ANALYZE {table}")).await;
                    ran.map_err(PostgresError::sql(format!("analyze table {table}")))
                };
                cancellable(&self.client, &shared.ctx.cancel, analyze).await
            }
            Work::Load(load) => {
                let rows = cancellable(
                    &self.client,
                    &shared.ctx.cancel,
                    self.load(shared, load, job.line),
                )
                .await?;
                shared.rows.fetch_add(rows, Ordering::Relaxed);
                let tables = u64::from(load.last);
                shared.tables.fetch_add(tables, Ordering::Relaxed);
                let part = if load.whole { "" } else { " (a part)" };
                let line = format!("{}{part}: {rows} rows", load.table);
                shared.ctx.progress.line(line);
                Ok(())
            }
        }
    }

    /// Loads data; a large table whole in one transaction, in which its file is made anew.
    async fn load(&self, shared: &Shared, load: &Load, line: u64) -> Result<u64, ModuleError> {
        let anew = load.whole && load.to.offset - load.from.offset >= ANEW;
        if !anew {
            return self.copy(shared, load, line, false).await;
        }
        self.statement_of_load(shared, "BEGIN", line).await?;
        let fresh = self.make_anew(shared, load, line).await?;
        let rows = self.copy(shared, load, line, fresh).await?;
        self.statement_of_load(shared, "COMMIT", line).await?;
        Ok(rows)
    }

    async fn statement_of_load(
        &self,
        shared: &Shared,
        text: &str,
        line: u64,
    ) -> Result<(), PostgresError> {
        let run = self.client.batch_execute(text).await;
        run.map_err(|error| shared.failed(line, text, error))
    }

    /// Truncates the table, if it is one, and provably holds nothing: then what is loaded in the same
    /// transaction need not go through the log, and its rows need no second look.
    async fn make_anew(
        &self,
        shared: &Shared,
        load: &Load,
        line: u64,
    ) -> Result<bool, PostgresError> {
        let lock = format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", load.table);
        self.statement_of_load(shared, &lock, line).await?;
        let look = format!(
            "SELECT c.relkind = 'r' AND c.relpersistence <> 't' AND NOT c.relhastriggers \
             AND pg_catalog.pg_relation_size(c.oid) = 0 \
             FROM pg_catalog.pg_class c WHERE c.oid = {}::pg_catalog.regclass",
            literal(&load.table)
        );
        let row = self.client.query_one(&look, &[]).await;
        let fresh: bool = row
            .map_err(|error| shared.failed(line, &look, error))?
            .get(0);
        if fresh {
            let truncate = format!("TRUNCATE ONLY {}", load.table);
            self.statement_of_load(shared, &truncate, line).await?;
        }
        Ok(fresh)
    }

    async fn copy(
        &self,
        shared: &Shared,
        load: &Load,
        line: u64,
        freeze: bool,
    ) -> Result<u64, ModuleError> {
        let mut options: Vec<String> = Vec::new();
        if freeze {
            options.push("FREEZE".into());
        }
        if let Some(encoding) = &load.encoding {
            options.push(format!("ENCODING {}", literal(encoding)));
        }
        let text = if options.is_empty() {
            load.copy.clone()
        } else {
            format!("{} WITH ({})", load.copy, options.join(", "))
        };
        // An error of the COPY itself is one of the line before the data.
        let begun = self.client.copy_in::<_, Bytes>(&text).await;
        let sink = begun.map_err(|error| shared.failed(line - 1, &text, error))?;
        tokio::pin!(sink);
        let mut filler = load.targets.clone().map(Filler::new);
        let (mut offset, end) = (load.from.offset, load.to.offset);
        let data = shared.source.part(offset, end);
        let mut data = Some(data.map_err(PathError::on("read", &shared.path))?);
        while offset < end && !shared.ctx.cancel.is_cancelled() {
            let chunk = read_chunk(shared, &mut data, end - offset).await?;
            let read = chunk.len() as u64;
            offset += read;
            let chunk = match &mut filler {
                Some(filler) => {
                    let mut filled = filler.push(&chunk);
                    if offset == end {
                        filled.extend(filler.finish());
                    }
                    filled.into()
                }
                None => chunk,
            };
            // What the server has against it is said at the end.
            if sink.send(chunk).await.is_err() {
                break;
            }
            shared.advance(read);
        }
        let rows = sink.finish().await;
        let rows = rows.map_err(|error| shared.failed(line, &text, error))?;
        let expected = load.to.rows - load.from.rows;
        if rows != expected {
            return Err(PostgresError::Restore {
                path: shared.path.clone(),
                line,
                statement: text,
                source: SqlError::said(format!(
                    "the server took {rows} rows instead of {expected}"
                )),
            }
            .into());
        }
        if let Some(filler) = filler {
            let mut filled = shared.filled.lock().unwrap_or_else(PoisonError::into_inner);
            *filled.entry(load.table.clone()).or_default() += filler.filled;
        }
        Ok(rows)
    }
}

/// Tells whether the server has something against a statement, and not a trouble of its own: no resources
/// (class 53), an operator's doing (57), the system's fault (58).
/// <https://www.postgresql.org/docs/15/errcodes-appendix.html>
fn blames_a_statement(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map(SqlState::code);
    code.is_some_and(|code| {
        !["53", "57", "58"]
            .iter()
            .any(|class| code.starts_with(class))
    })
}

/// Reads on; `data` is nothing after an error.
async fn read_chunk(
    shared: &Shared,
    data: &mut Option<Text>,
    left: u64,
) -> Result<Bytes, ModuleError> {
    let mut reader = data.take().ok_or(ModuleError::Cancelled)?;
    let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    let read = worker::blocking("reader of a table's data", move || {
        let mut chunk = vec![0; length];
        let read = reader.read_exact(&mut chunk);
        read.map(|()| (Bytes::from(chunk), reader))
    });
    let (chunk, reader) = read
        .await?
        .map_err(|error| unreadable(&shared.path, error))?;
    *data = Some(reader);
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_is_found_in_what_the_server_says() {
        let row = |text| row_of_context(text);
        assert_eq!(row("COPY study, line 17, column pk: \"x\""), Some(17));
        assert_eq!(row("PL/pgSQL function f()\nCOPY a, line 3"), Some(3));
        assert_eq!(row("while inserting index tuple"), None);
    }

    #[test]
    fn statements_are_cut_short() {
        assert_eq!(shorten("a\n  b"), "a b");
        assert_eq!(shorten(&"x".repeat(300)).chars().count(), 201);
    }
}
