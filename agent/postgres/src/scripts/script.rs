//! `postgresql_script`: a SQL file, applied whole and once.

use std::path::{Path, PathBuf};
use std::time::Instant;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::history::{self, Applied};
use crate::error::{PostgresError, SqlError};
use crate::format::sql_split::{Piece, PieceKind, split, strip_comments};
use crate::host::error::{ModuleError, PathError};
use crate::host::files::whole::sha256_of_argument;
use crate::host::time::millis;
use crate::server::connect::{FAREWELL, cancellable, with_login};
use crate::server::query::first_words;
use crate::server::sessions::{self, Whose};
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_login! {
    /// Applies a SQL file: all of it in one transaction, together with a row in
    /// `kaapana_agent.schema_history` that keeps it from being applied again.
    pub struct PostgresqlScript {
        /// The file, on this host. Relative paths start at the playbook.
        pub path: PathBuf,
        /// Database. Default: the service's.
        #[serde(default, alias = "login_db")]
        #[schemars(extend("aliases" = ["login_db"]))]
        pub db: Option<String>,
        /// Name in the history. Default: the file's name.
        #[serde(default)]
        pub name: Option<String>,
        /// SHA-256 that the file must have, `sha256:<hex>` or plain hex.
        #[serde(default)]
        pub checksum: Option<String>,
        /// Run everything in one transaction. With false every statement is committed by itself, and
        /// an interrupted script needs an operator's decision. Default: true.
        #[serde(default = "yes")]
        pub transaction: bool,
    }
}

fn yes() -> bool {
    true
}

impl TypedModule for PostgresqlScript {
    const NAME: &'static str = "postgresql_script";
    const ALIASES: &'static [&'static str] = &["community.postgresql.postgresql_script"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "ends sessions that it left; the row in `kaapana_agent.schema_history` tells: done, or rolled back and run again; with `transaction: false` and no row: *unknown*";
    const CHECK_MODE: &'static str =
        "predicts where the file and the database are reached; otherwise skipped";
    const SUMMARY: &'static str = "Applies a SQL file whole and once, in one transaction.";
    const EXAMPLE: &'static str = r#"- name: Update the schema to 5.27
  postgresql_script:
    db: pacsdb
    path: "{{ work_dir }}/sql/update-5.27-psql.sql"
    checksum: "sha256:{{ checksums['update-5.27-psql.sql'] }}"
  register: update   # update.script, .statements, .sha256, .duration_ms, .already_applied
"#;
}

/// A script, read and checked.
struct Script {
    path: PathBuf,
    name: String,
    text: String,
    sha256: String,
    sha256_sql: String,
}

impl PostgresqlScript {
    fn script_name(&self) -> String {
        let of_file = || {
            self.path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        self.name
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(of_file)
    }

    fn read(&self, ctx: &TaskContext) -> Result<Script, PostgresError> {
        let path = ctx.resolve(&self.path);
        let bytes = std::fs::read(&path).map_err(PathError::on("read", &path))?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        if let Some(pinned) = &self.checksum {
            let expected = sha256_of_argument(pinned).ok_or_else(|| {
                PostgresError::argument("checksum", "is no SHA-256: 64 hex digits are expected")
            })?;
            if expected != sha256 {
                return Err(PostgresError::Checksum {
                    path,
                    expected,
                    found: sha256,
                });
            }
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = error
                .as_bytes()
                .iter()
                .take(valid)
                .filter(|&&byte| byte == b'\n')
                .count();
            PostgresError::ScriptContent {
                script: path.clone(),
                line: before + 1,
                message: "is not UTF-8".into(),
            }
        })?;
        // Some editors put a mark at the start, which the server would not understand.
        let text = text
            .strip_prefix('\u{feff}')
            .map(str::to_owned)
            .unwrap_or(text);
        let sha256_sql = hex::encode(Sha256::digest(strip_comments(&text)));
        Ok(Script {
            path,
            name: self.script_name(),
            text,
            sha256,
            sha256_sql,
        })
    }

    /// Returns the statements, or what cannot be run.
    fn statements<'a>(&self, script: &'a Script) -> Result<Vec<Piece<'a>>, PostgresError> {
        let content = |line, message: String| PostgresError::ScriptContent {
            script: script.path.clone(),
            line,
            message,
        };
        let pieces =
            split(&script.text).map_err(|error| content(error.line, error.message.to_owned()))?;
        let mut statements = Vec::new();
        for piece in pieces {
            match piece.kind {
                PieceKind::Blank => {}
                PieceKind::Statement => statements.push(piece),
                PieceKind::TransactionControl if !self.transaction => statements.push(piece),
                PieceKind::TransactionControl => {
                    let what = first_words(&piece.text[piece.start..]);
                    let message = format!(
                        "`{what}` would end the transaction that the script runs in; take it out, or \
                         say `transaction: false`"
                    );
                    return Err(content(piece.line, message));
                }
                kind => {
                    return Err(content(
                        piece.line,
                        format!("{} cannot be run here", kind.describe()),
                    ));
                }
            }
        }
        if statements.is_empty() {
            let looks = script.text.trim_start().starts_with('<');
            let what = if looks {
                "it is an HTML page"
            } else {
                "it holds no statement"
            };
            return Err(content(1, what.into()));
        }
        Ok(statements)
    }

    async fn run(
        &self,
        ctx: &TaskContext,
        client: &Client,
        db: &str,
        script: &Script,
        statements: &[Piece<'_>],
    ) -> Result<Outcome, ModuleError> {
        let started = Instant::now();
        let sql = |text: &'static str| async move {
            client
                .batch_execute(text)
                .await
                .map_err(PostgresError::sql(text.to_lowercase()))
                .map_err(PostgresError::of_a_statement)
        };
        cancellable(client, &ctx.cancel, sql("BEGIN")).await?;
        cancellable(client, &ctx.cancel, history::lock(client)).await?;
        cancellable(client, &ctx.cancel, history::ensure(client)).await?;
        let found = history::find(client, &script.name);
        if let Some(applied) = cancellable(client, &ctx.cancel, found).await? {
            sql("ROLLBACK").await?;
            return known(script, &applied, db, statements.len());
        }
        if !self.transaction {
            sql("COMMIT").await?;
        }
        let total = statements.len() as u64;
        for (piece, done) in statements.iter().zip(0u64..) {
            let body = &piece.text[piece.start..];
            let words = first_words(body);
            ctx.progress.items(done, Some(total), &words);
            let rows = cancellable(client, &ctx.cancel, run_one(client, body))
                .await
                .map_err(|error| self.explain(script, piece, error))?;
            ctx.progress.line(format!(
                "{}:{}: {words}: {rows} rows",
                script.name, piece.line
            ));
        }
        ctx.progress.items(total, Some(total), "commit");
        let applied = Applied {
            sha256: script.sha256.clone(),
            sha256_sql: script.sha256_sql.clone(),
            attempt: ctx.attempt.clone(),
            applied_at: String::new(),
            duration_ms: i64::try_from(millis(started.elapsed())).unwrap_or(i64::MAX),
        };
        cancellable(client, &ctx.cancel, async {
            history::record(client, &script.name, &applied)
                .await
                .map_err(PostgresError::of_a_statement)
        })
        .await?;
        if self.transaction {
            // Deferred constraints are checked here, so this can fail like a statement.
            cancellable(client, &ctx.cancel, sql("COMMIT")).await?;
        }
        let mut outcome = outcome(script, &applied, statements.len());
        outcome.changed = true;
        Ok(outcome)
    }

    fn explain(&self, script: &Script, piece: &Piece<'_>, error: ModuleError) -> ModuleError {
        // `run_one` fails with a `StatementFailed` that carries the server's own words.
        let ModuleError::Failed(failure) = error else {
            return error;
        };
        let failure: &dyn std::error::Error = &*failure;
        let Some(StatementFailed(source)) = failure.downcast_ref() else {
            return PostgresError::Sql {
                action: format!("run {}", script.path.display()),
                source: SqlError::said(failure.to_string()),
            }
            .into();
        };
        let body = &piece.text[piece.start..];
        // The server counts characters of the statement from 1.
        let position = source
            .position
            .and_then(|position| usize::try_from(position).ok());
        let lines_in = position.map_or(0, |position| {
            body.chars()
                .take(position.saturating_sub(1))
                .filter(|&c| c == '\n')
                .count()
        });
        PostgresError::Script {
            script: script.path.clone(),
            line: piece.line + lines_in,
            statement: first_words(body),
            partly: !self.transaction,
            source: source.clone(),
        }
        .of_a_statement()
    }
}

/// A statement failed; where it stands is added by the caller.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct StatementFailed(Box<SqlError>);

impl crate::host::error::ModuleFailure for StatementFailed {
    fn code(&self) -> &'static str {
        "postgresql::script_failed"
    }
}

/// Runs one statement and returns how many rows it touched.
async fn run_one(client: &Client, statement: &str) -> Result<u64, StatementFailed> {
    let failed = |error: tokio_postgres::Error| StatementFailed(error.into());
    let stream = client.simple_query_raw(statement).await.map_err(failed)?;
    tokio::pin!(stream);
    let mut rows = 0;
    while let Some(message) = stream.try_next().await.map_err(failed)? {
        if let SimpleQueryMessage::CommandComplete(count) = message {
            rows += count;
        }
    }
    Ok(rows)
}

fn outcome(script: &Script, applied: &Applied, statements: usize) -> Outcome {
    Outcome::ok()
        .with("script", script.name.as_str())
        .with("path", script.path.display().to_string())
        .with("sha256", script.sha256.as_str())
        .with("sha256_sql", script.sha256_sql.as_str())
        .with("statements", statements)
        .with("duration_ms", applied.duration_ms)
        .with("already_applied", false)
        .summary(format!("{statements} statements"))
}

/// What to say of a script that the history knows.
fn known(
    script: &Script,
    applied: &Applied,
    db: &str,
    statements: usize,
) -> Result<Outcome, ModuleError> {
    // A changed remark is no other script.
    if applied.sha256_sql != script.sha256_sql {
        return Err(PostgresError::ScriptDiffers {
            script: script.name.clone(),
            db: db.to_owned(),
            applied_at: applied.applied_at.clone(),
        }
        .into());
    }
    Ok(outcome(script, applied, statements)
        .with("already_applied", true)
        .with("applied_at", applied.applied_at.as_str())
        .summary(format!("applied already on {}", applied.applied_at)))
}

#[async_trait]
impl Module for PostgresqlScript {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        vec![ctx.resolve(&self.path)]
    }

    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        // An earlier task may bring the file, and services do not run in check mode.
        if !Path::exists(&ctx.resolve(&self.path)) {
            return Ok(Plan::CannotPredict);
        }
        let script = self.read(ctx)?;
        let statements = self.statements(&script)?;
        if !self.login().is_known(ctx) {
            return Ok(Plan::CannotPredict);
        }
        let server = self.login().server(ctx)?;
        let db = server.db(self.db.as_deref());
        let client = server.connect(&db).await?;
        match history::find(&client, &script.name).await? {
            Some(applied) => known(&script, &applied, &db, statements.len()).map(|_| Plan::InSync),
            None => Ok(Plan::NeedsChange(vec![format!(
                "apply {} to {db}: {} statements",
                script.name,
                statements.len()
            )])),
        }
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let script = self.read(ctx)?;
        self.statements(&script)?;
        Ok(json!({
            "script": script.name,
            "sha256": script.sha256,
            "sha256_sql": script.sha256_sql,
            "transaction": self.transaction,
        }))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let script = self.read(ctx)?;
        let statements = self.statements(&script)?;
        let server = self.login().server(ctx)?;
        let db = server.db(self.db.as_deref());
        let client = server.connect(&db).await?;
        let result = self.run(ctx, &client, &db, &script, &statements).await;
        if result.is_err() {
            // Closing the connection does the same; this also waits until it is done. A server that stands
            // still (a paused container) never answers.
            let rollback = client.batch_execute("ROLLBACK");
            let _ = tokio::time::timeout(FAREWELL, rollback).await;
        }
        result
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = server.db(self.db.as_deref());
        let client = server.connect(&db).await?;
        if let Some(attempt) = &ctx.interrupted_attempt {
            sessions::end(&client, Whose::Attempt(attempt)).await?;
        }
        let name = intent["script"]
            .as_str()
            .map_or_else(|| self.script_name(), str::to_owned);
        if let Some(applied) = history::find(&client, &name).await? {
            let ours = Some(&applied.attempt) == ctx.interrupted_attempt.as_ref()
                || intent["sha256_sql"] == applied.sha256_sql.as_str();
            if ours {
                let script = self.read(ctx)?;
                let statements = self.statements(&script)?.len();
                let mut outcome = outcome(&script, &applied, statements);
                outcome.changed = true;
                return Ok(Recovery::Done(outcome));
            }
        }
        if !self.transaction {
            return Ok(Recovery::Unknown {
                doing: format!("applying {name} statement by statement, without a transaction"),
                found: "the history does not have it as finished; some statements may be in effect"
                    .into(),
            });
        }
        Ok(Recovery::NotDone)
    }

    fn advice(&self, ctx: &TaskContext) -> Advice {
        let path = ctx.resolve(&self.path);
        let path = path.display();
        let look = "in the database, by psql: `SELECT * FROM kaapana_agent.schema_history` has the \
                    scripts that the agent has finished";
        if self.transaction {
            return Advice {
                look: look.into(),
                done: format!("the database is as {path} leaves it"),
                redo: format!(
                    "nothing of {path} is in effect: it is applied as a whole, unless the history \
                     has it by the same name"
                ),
            };
        }
        Advice {
            look: format!(
                "{look}; which statements of {path} are in effect, from the first on, only their \
                 tables tell"
            ),
            done: "the last statement is in effect, or you have run the rest by hand".into(),
            redo: "none is in effect, or each of them may run twice: all run again, from the first"
                .into(),
        }
    }
}
