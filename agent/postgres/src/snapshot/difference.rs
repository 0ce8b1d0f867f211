//! `postgresql_difference`: rows of a database whose keys another one lacks, written to a file.

use std::cmp::Ordering;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use crate::error::{PostgresError, SqlError};
use crate::host::error::{ModuleError, PathError};
use crate::host::files::attributes::Attributes;
use crate::host::files::durable::{PendingFile, remove_partial};
use crate::host::files::whole::hash_file;
use crate::host::output_file::OutputFile;
use crate::server::connect::{Login, cancellable, with_login};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo, files_made};

/// Keys that a result names.
const NAMED: usize = 20;
/// How often it is said how far it is, in rows.
const TOLD: u64 = 10_000;

with_login! {
    /// Finds the rows of a database whose keys another one lacks, and writes them to a file.
    pub struct PostgresqlDifference {
        /// A query whose first column is called `key`. It runs in a read-only transaction.
        pub query: String,
        /// Service whose server is compared with; user, password and database are its own.
        pub other_service: String,
        /// The same for that server, where it has to be another query; only its keys count.
        #[serde(default)]
        pub other_query: Option<String>,
        /// File that gets the rows, sorted by key, their columns parted by tabs, in mode 0600. One that is
        /// there is replaced. Its folder must be there. Relative paths start at the playbook.
        pub dest: PathBuf,
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
    }
}

impl TypedModule for PostgresqlDifference {
    const NAME: &'static str = "postgresql_difference";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_difference"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "removes its half file, compares again and writes the whole file";
    const CHECK_MODE: &'static str = "skipped: only comparing tells";
    const SUMMARY: &'static str =
        "Writes the rows of a database whose keys another one lacks to a file.";
    const EXAMPLE: &'static str = r#"- name: The studies that the old database does not know
  postgresql_difference:
    service: pacs_new
    other_service: pacs_old
    db: pacsdb
    query: SELECT study_iuid AS key FROM study
    dest: "{{ backup_dir }}/studies.txt"
  register: studies   # studies.missing (keys), .rows, .dest, .first
"#;

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        files_made(efforts, &["dest"])
    }
}

/// Rows in the order of their keys.
struct Rows<'c> {
    client: &'c Client,
    stream: Pin<Box<SimpleQueryStream>>,
}

impl<'c> Rows<'c> {
    async fn of(client: &'c Client, query: &str, ctx: &TaskContext) -> Result<Self, ModuleError> {
        let query = query.trim().trim_end_matches(';');
        let sorted = format!(
            "SELECT * FROM ({query}) AS of_query ORDER BY of_query.key::text COLLATE \"C\""
        );
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await.map_err(failed())?;
        let asked = async { client.simple_query_raw(&sorted).await.map_err(failed()) };
        let stream = cancellable(client, &ctx.cancel, asked).await?;
        let stream = Box::pin(stream);
        Ok(Self { client, stream })
    }

    async fn next(&mut self, ctx: &TaskContext) -> Result<Option<SimpleQueryRow>, ModuleError> {
        let stream = &mut self.stream;
        let next = async {
            loop {
                match stream.try_next().await.map_err(failed())? {
                    Some(SimpleQueryMessage::Row(row)) => return Ok(Some(row)),
                    Some(_) => {}
                    None => return Ok::<_, PostgresError>(None),
                }
            }
        };
        cancellable(self.client, &ctx.cancel, next).await
    }
}

fn failed() -> impl FnOnce(tokio_postgres::Error) -> PostgresError {
    PostgresError::sql("ask for the rows")
}

fn key_of(row: &SimpleQueryRow) -> Result<&str, PostgresError> {
    let named = row
        .columns()
        .first()
        .is_some_and(|column| column.name() == "key");
    named
        .then(|| row.get(0))
        .flatten()
        .ok_or_else(|| PostgresError::Sql {
            action: "compare rows".into(),
            source: SqlError::said("the first column must be called `key`, and never be NULL"),
        })
}

/// A row as COPY writes it, but for NULL, which is nothing.
fn line_of(row: &SimpleQueryRow) -> String {
    let mut line = String::new();
    for column in 0..row.len() {
        if column > 0 {
            line.push('\t');
        }
        for c in row.get(column).unwrap_or_default().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                c => line.push(c),
            }
        }
    }
    line.push('\n');
    line
}

/// What was found.
#[derive(Default)]
struct Found {
    rows: u64,
    keys: u64,
    first: Vec<String>,
    last: Option<String>,
}

impl PostgresqlDifference {
    /// Goes through both in the order of their keys, side by side.
    async fn write(&self, ctx: &TaskContext, out: &mut impl Write) -> Result<Found, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = server.db(self.login_db.as_deref());
        let other_login = Login {
            service: Some(self.other_service.clone()),
            ..Login::default()
        };
        let other_server = other_login.server(ctx)?;
        let client = server.connect(&db).await?;
        let other_client = other_server.connect(&other_server.db(None)).await?;
        let mut rows = Rows::of(&client, &self.query, ctx).await?;
        let other_query = self.other_query.as_ref().unwrap_or(&self.query);
        let mut others = Rows::of(&other_client, other_query, ctx).await?;
        let dest = ctx.resolve(&self.dest);
        let (mut found, mut looked_at) = (Found::default(), 0);
        let mut other = others.next(ctx).await?;
        while let Some(row) = rows.next(ctx).await? {
            looked_at += 1;
            if looked_at % TOLD == 0 {
                ctx.progress.items(looked_at, None, "rows compared");
            }
            let key = key_of(&row)?;
            let is_known = loop {
                match other.as_ref().map(key_of).transpose()? {
                    None => break false,
                    Some(known) => match known.as_bytes().cmp(key.as_bytes()) {
                        Ordering::Less => other = others.next(ctx).await?,
                        found => break found == Ordering::Equal,
                    },
                }
            };
            if is_known {
                continue;
            }
            out.write_all(line_of(&row).as_bytes())
                .map_err(PathError::on("write", &dest))?;
            found.rows += 1;
            if found.last.as_deref() != Some(key) {
                found.keys += 1;
                found.last = Some(key.to_owned());
                if found.first.len() < NAMED {
                    found.first.push(key.to_owned());
                }
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Module for PostgresqlDifference {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::CannotPredict)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        let pending = PendingFile::create(&dest, &ctx.attempt)?;
        let mut out = BufWriter::new(&pending.file);
        let found = self.write(ctx, &mut out).await?;
        out.flush().map_err(PathError::on("write", &dest))?;
        drop(out);
        pending.commit(&Attributes {
            mode: Some(0o600),
            ..Attributes::default()
        })?;
        let (size, sha256) = hash_file(&dest, |_| {})?;
        let summary = format!(
            "{} that {} lacks, in {}",
            found.keys,
            self.other_service,
            dest.display()
        );
        let mut outcome = Outcome::changed()
            .with("missing", found.keys)
            .with("rows", found.rows)
            .with("first", found.first)
            .with("dest", dest.display().to_string())
            .summary(summary);
        outcome.outputs.push(OutputFile {
            path: dest,
            size,
            sha256,
        });
        Ok(outcome)
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        remove_partial(&dest, ctx.interrupted_attempt.as_deref())?;
        // It is written again, as a whole.
        Ok(Recovery::NotDone)
    }
}
