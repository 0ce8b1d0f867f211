//! `postgresql_restore`: a plain dump becomes a database, whole or not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::anticipate::{self, Anticipated, Fills};
use super::connect::{FAREWELL, Server, literal, with_login};
use super::dump_text::{self, DumpHead};
use super::error::PostgresError;
use super::files::sha256_of_argument;
use super::restore_fill;
use super::restore_parallel::{Parallel, changed};
use super::restore_psql::{DumpFeed, Psql};
use super::restore_target::{self as databases, Mark};
use super::sessions::{self, Whose};
use crate::modules::context::TaskContext;
use crate::modules::docker::arguments::env_map;
use crate::modules::docker::{client, target};
use crate::modules::error::{ModuleError, PathError};
use crate::modules::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// How a dump is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By the agent itself, over several connections.
    #[default]
    Parallel,
    /// By the container's own psql, in one transaction.
    Psql,
}

with_login! {
    /// Restores a plain dump into a database that does not exist or is empty.
    pub struct PostgresqlRestore {
        /// The dump, on this host, as it is or as `postgresql_dump` compresses it. Relative paths start at
        /// the playbook.
        pub src: PathBuf,
        /// Database that it becomes. Default: the service's.
        #[serde(default, alias = "login_db")]
        #[schemars(extend("aliases" = ["login_db"]))]
        pub db: Option<String>,
        /// SHA-256 that the dump must have, `sha256:<hex>` or plain hex; checked before the database
        /// gets its name.
        #[serde(default)]
        pub checksum: Option<String>,
        /// Owner of the database. Default: the owner of the empty one, else the user.
        #[serde(default)]
        pub owner: Option<String>,
        /// How: `parallel` (default) reads the dump itself and loads tables and builds indexes over
        /// several connections; `psql` gives it to the container's psql in one transaction. What is in the
        /// database afterwards is the same.
        #[serde(default)]
        pub method: Method,
        /// Connections that load and build side by side (`parallel`). Default: as many as the host has
        /// processors, 8 at most.
        #[serde(default)]
        pub connections: Option<usize>,
        /// Container that has psql and the server (`psql`). Default: the service's.
        #[serde(default)]
        pub container: Option<String>,
        /// Update scripts that will be applied to the database next, all of them in their order
        /// (`parallel`). What they do by `UPDATE t SET c = 'v' WHERE c IS NULL` is done to the rows on
        /// their way in, where that comes to the same, and the scripts find nothing left to rewrite.
        /// `anticipated` in the result names what was done; `postgresql_verify` takes it, and the scripts.
        #[serde(default)]
        pub anticipate: Vec<PathBuf>,
        /// Settings of the restoring sessions, e.g. `maintenance_work_mem: 256MB`.
        #[serde(default, deserialize_with = "env_map")]
        #[schemars(with = "BTreeMap<String, String>")]
        pub settings: BTreeMap<String, String>,
    }
}

impl TypedModule for PostgresqlRestore {
    const NAME: &'static str = "postgresql_restore";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_restore"];
    const KIND: Kind = Kind::OneWay;
    const SUMMARY: &'static str =
        "Restores a plain dump into an empty or new database, whole or not at all.";
    const EXAMPLE: &'static str = r#"- name: Restore into the work server
  postgresql_restore:
    db: pacsdb
    src: "{{ dump.dest }}"
    checksum: "{{ dump.checksum }}"
  register: restored   # restored.db, .tables, .bytes, .sha256, .method, .rows, .anticipated
"#;
}

impl PostgresqlRestore {
    fn target_db(&self, server: &Server) -> Result<String, PostgresError> {
        let db = server.db(self.db.as_deref());
        if ["postgres", "template0", "template1"].contains(&db.as_str()) {
            return Err(PostgresError::argument(
                "db",
                format!("`{db}` is the server's own"),
            ));
        }
        if db.len() > 50 {
            return Err(PostgresError::argument("db", "is longer than 50 bytes"));
        }
        Ok(db)
    }

    fn expected(&self) -> Result<Option<String>, PostgresError> {
        let read = |text: &String| {
            sha256_of_argument(text).ok_or_else(|| {
                PostgresError::argument("checksum", "is no SHA-256: 64 hex digits are expected")
            })
        };
        self.checksum.as_ref().map(read).transpose()
    }

    fn check_method(&self) -> Result<(), PostgresError> {
        if self.method == Method::Psql && !self.anticipate.is_empty() {
            let message = "needs `method: parallel`: psql takes the dump as it is";
            return Err(PostgresError::argument("anticipate", message));
        }
        Ok(())
    }

    /// Makes way: drops what an earlier attempt of ours left, refuses anything else.
    async fn clear_staging(&self, admin: &Client, staging: &str) -> Result<(), PostgresError> {
        match databases::find(admin, staging)
            .await?
            .map(|found| found.mark)
        {
            None => Ok(()),
            Some(Mark::Begun { .. } | Mark::Whole { .. }) => {
                databases::drop_ours(admin, staging).await
            }
            Some(Mark::None | Mark::Replaced) => Err(PostgresError::ForeignDatabase {
                db: staging.to_owned(),
            }),
        }
    }

    async fn fill(
        &self,
        ctx: &TaskContext,
        server: &Server,
        admin: &Client,
        staging: &str,
        head: &DumpHead,
        fills: &Fills,
    ) -> Result<Filled, ModuleError> {
        let src = ctx.resolve(&self.src);
        let (bytes, sha256, how, anticipated) = match self.method {
            Method::Parallel => {
                self.fill_parallel(ctx, server, staging, &src, fills)
                    .await?
            }
            Method::Psql => {
                let (bytes, sha256, how) =
                    self.fill_by_psql(ctx, server, staging, &src, head).await?;
                (bytes, sha256, how, Vec::new())
            }
        };
        if bytes != head.size {
            return Err(changed(&src).into());
        }
        if let Some(expected) = self.expected()?.filter(|expected| *expected != sha256) {
            return Err(PostgresError::Checksum {
                path: src,
                expected,
                found: sha256,
            }
            .into());
        }
        let touched = anticipated.iter().map(|done| done.table.clone()).collect();
        let refused = restore_fill::refused(server, staging, fills, &touched).await?;
        let tables = count_tables(server, staging).await?;
        let mark = Mark::Whole {
            attempt: ctx.attempt.clone(),
            sha256: sha256.clone(),
            tables,
            anticipated: anticipated.clone(),
        };
        if refused.is_empty() {
            databases::mark(admin, staging, &mark).await?;
        }
        Ok(Filled {
            bytes,
            sha256,
            tables,
            how,
            anticipated,
            refused,
        })
    }

    /// Makes the database and fills it; once more without what turns out not to come to the same.
    async fn make(
        &self,
        ctx: &TaskContext,
        server: &Server,
        admin: &Client,
        place: &Place<'_>,
    ) -> Result<Filled, ModuleError> {
        let mut fills = anticipate::of_scripts(ctx, &self.anticipate)?;
        loop {
            let (staging, owner) = (place.staging, place.owner.as_deref());
            databases::create(admin, staging, owner, &place.locale, &ctx.attempt).await?;
            let filled = self
                .fill(ctx, server, admin, staging, place.head, &fills)
                .await?;
            if filled.refused.is_empty() {
                return Ok(filled);
            }
            for (table, reason) in filled.refused {
                ctx.progress.line(format!(
                    "again, without anticipating updates of {table}: {reason}"
                ));
                fills.remove(&table);
            }
            databases::drop_ours(admin, staging).await?;
        }
    }

    async fn fill_parallel(
        &self,
        ctx: &TaskContext,
        server: &Server,
        staging: &str,
        src: &Path,
        fills: &Fills,
    ) -> Result<(u64, String, Map<String, Value>, Vec<Anticipated>), ModuleError> {
        let connections = self.connections.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(2, |processors| processors.get().min(8))
        });
        ctx.progress
            .line(format!("restoring over {connections} connections"));
        let parallel = Parallel {
            server,
            settings: &self.settings,
            connections: connections.max(1),
            fills,
        };
        let restored = parallel.restore(ctx, src, staging).await?;
        let how = [
            ("method".to_owned(), "parallel".into()),
            ("connections".to_owned(), connections.into()),
            ("rows".to_owned(), restored.rows.into()),
        ];
        for done in &restored.anticipated {
            ctx.progress.line(format!(
                "{}: {} NULLs filled, as the update scripts do",
                done.table, done.values
            ));
        }
        let how = how.into_iter().collect();
        Ok((restored.bytes, restored.sha256, how, restored.anticipated))
    }

    async fn fill_by_psql(
        &self,
        ctx: &TaskContext,
        server: &Server,
        staging: &str,
        src: &Path,
        head: &DumpHead,
    ) -> Result<(u64, String, Map<String, Value>), ModuleError> {
        let docker = client::connect(ctx).await?;
        let container = target(ctx, self.container.as_deref(), self.service.as_deref())?;
        let psql = Psql {
            docker: &docker,
            container: &container,
            server,
            settings: &self.settings,
        };
        let version = psql.version(ctx, src, head).await?;
        let mut feed = DumpFeed::open(src, ctx.progress.clone())?;
        psql.restore(ctx, src, staging, &mut feed).await?;
        let finished = feed.finish().await;
        let (bytes, sha256) = finished.map_err(PathError::on("read", src))?;
        let how = [
            ("method".to_owned(), "psql".into()),
            ("psql".to_owned(), version.into()),
        ];
        Ok((bytes, sha256, how.into_iter().collect()))
    }
}

/// Where a dump goes.
struct Place<'a> {
    staging: &'a str,
    owner: Option<String>,
    locale: String,
    head: &'a DumpHead,
}

/// What was restored.
struct Filled {
    bytes: u64,
    sha256: String,
    tables: u64,
    /// Method and what else is known of it.
    how: Map<String, Value>,
    anticipated: Vec<Anticipated>,
    /// Tables in which what was anticipated does not come to the same, each with the reason: then the
    /// database is of no use.
    refused: BTreeMap<String, String>,
}

async fn count_tables(server: &Server, db: &str) -> Result<u64, PostgresError> {
    let client = server.connect(db).await?;
    let row = client
        .query_one(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
            &[],
        )
        .await
        .map_err(PostgresError::sql(format!("count the tables of {db}")))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// Drops what a failed attempt has filled, and returns its error. What cannot be dropped now the next run
/// looks at: a connection that was cut while the database was made has left one without a mark.
async fn abandon(
    ctx: &TaskContext,
    admin: &Client,
    staging: &str,
    error: ModuleError,
) -> ModuleError {
    // A server that stands still never answers.
    let dropping = databases::drop_ours(admin, staging);
    let why = match tokio::time::timeout(FAREWELL, dropping).await {
        Ok(Ok(())) => return error,
        Ok(Err(second)) => second.to_string(),
        Err(_) => "the server does not answer".to_owned(),
    };
    ctx.progress
        .line(format!("left database {staging} behind: {why}"));
    error.with_unknown_outcome()
}

fn staging_of(db: &str) -> String {
    format!("{db}_restoring")
}

fn outcome(
    db: &str,
    sha256: &str,
    tables: u64,
    bytes: u64,
    anticipated: &[Anticipated],
) -> Outcome {
    Outcome::changed()
        .with("anticipated", json!(anticipated))
        .with("db", db)
        .with("tables", tables)
        .with("bytes", bytes)
        .with("sha256", sha256)
        .with("checksum", format!("sha256:{sha256}"))
        .summary(format!("{tables} tables in {db}"))
}

#[async_trait]
impl Module for PostgresqlRestore {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        // With a checksum the content is in the arguments already, and a large file is read once. Scripts
        // that are mended later do not undo a restore: `postgresql_verify` looks whether it still fits them.
        let dump = self.checksum.is_none().then(|| ctx.resolve(&self.src));
        dump.into_iter().collect()
    }

    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.expected()?;
        self.check_method()?;
        // An earlier task makes the dump, and services do not run in check mode.
        let src = ctx.resolve(&self.src);
        if !src.exists() || !self.login().is_known(ctx) {
            return Ok(Plan::CannotPredict);
        }
        dump_text::inspect(&src)?;
        let server = self.login().server(ctx)?;
        let db = self.target_db(&server)?;
        let admin = server.connect_maintenance().await?;
        databases::refuse_filled(&admin, &server, &db).await?;
        Ok(Plan::NeedsChange(vec![format!(
            "restore {} into {db}",
            src.display()
        )]))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        self.expected()?;
        self.check_method()?;
        let head = dump_text::inspect(&ctx.resolve(&self.src))?;
        let server = self.login().server(ctx)?;
        let db = self.target_db(&server)?;
        let staging = staging_of(&db);
        let admin = server.connect_maintenance().await?;
        databases::refuse_filled(&admin, &server, &db).await?;
        let there = databases::find(&admin, &staging).await?;
        if there.as_ref().is_some_and(|found| found.mark == Mark::None) {
            return Err(PostgresError::ForeignDatabase { db: staging }.into());
        }
        Ok(json!({
            "db": db,
            "staging": staging,
            // Between its creation and its mark the new database looks like anybody's.
            "staging_was_free": true,
            "bytes": head.size,
        }))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let src = ctx.resolve(&self.src);
        let head = dump_text::inspect(&src)?;
        let server = self.login().server(ctx)?;
        let db = self.target_db(&server)?;
        let staging = staging_of(&db);
        let admin = server.connect_maintenance().await?;
        databases::refuse_newer(&admin, &src, &head).await?;
        let there = databases::refuse_filled(&admin, &server, &db).await?;
        self.clear_staging(&admin, &staging).await?;
        let owner = self
            .owner
            .clone()
            .or_else(|| there.as_ref().map(|found| found.owner.clone()));
        let locale = match (&there, &head.encoding) {
            (Some(found), _) => found.locale.clone(),
            (None, Some(encoding)) => format!("ENCODING {}", literal(encoding)),
            (None, None) => String::new(),
        };
        let place = Place {
            staging: &staging,
            owner,
            locale,
            head: &head,
        };
        let filled = match self.make(ctx, &server, &admin, &place).await {
            Ok(filled) => filled,
            Err(error) => return Err(abandon(ctx, &admin, &staging, error).await),
        };
        // The server may have given it its name, whatever became of the answer.
        let placed = databases::put_in_place(&admin, &server, &staging, &db).await;
        placed.map_err(|error| ModuleError::from(error).with_unknown_outcome())?;
        let mut outcome = outcome(
            &db,
            &filled.sha256,
            filled.tables,
            filled.bytes,
            &filled.anticipated,
        )
        .with("dump_of_server", head.server_version.clone());
        outcome.result.extend(filled.how);
        Ok(outcome)
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = intent["db"]
            .as_str()
            .map_or_else(|| self.target_db(&server), |db| Ok(db.to_owned()))?;
        let staging = staging_of(&db);
        let admin = server.connect_maintenance().await?;
        // Their client was killed, they may still be at work. A psql sees the end of its input, and commits.
        if let Some(attempt) = &ctx.interrupted_attempt {
            sessions::end(&admin, Whose::Attempt(attempt)).await?;
        }
        let ours = |mark: &Mark| match mark {
            Mark::Whole {
                attempt,
                sha256,
                tables,
                anticipated,
            } if Some(attempt) == ctx.interrupted_attempt.as_ref() => {
                let bytes = intent["bytes"].as_u64().unwrap_or(0);
                Some(outcome(&db, sha256, *tables, bytes, anticipated))
            }
            _ => None,
        };
        let there = databases::find(&admin, &db).await?;
        if let Some(done) = there.as_ref().and_then(|found| ours(&found.mark)) {
            databases::checkpoint(&admin).await?;
            databases::drop_replaced(&admin, &db).await?;
            return Ok(Recovery::Done(done));
        }
        let filled = match &there {
            Some(_) => databases::content(&server, &db).await?,
            None => None,
        };
        if let Some(objects) = filled {
            return Ok(Recovery::Unknown {
                doing: format!("restoring into {db}, which was empty before"),
                found: format!("{db} holds {objects}, and no mark of this task"),
            });
        }
        if let Some(found) = databases::find(&admin, &staging).await? {
            if let Some(done) = ours(&found.mark) {
                databases::put_in_place(&admin, &server, &staging, &db).await?;
                return Ok(Recovery::Done(done));
            }
            let mine = found.mark != Mark::None || intent["staging_was_free"] == true;
            if !mine {
                return Err(PostgresError::ForeignDatabase { db: staging }.into());
            }
            databases::drop_ours(&admin, &staging).await?;
        }
        Ok(Recovery::NotDone)
    }

    fn advice(&self, ctx: &TaskContext) -> Advice {
        let src = ctx.resolve(&self.src);
        let src = src.display();
        Advice {
            look: format!("at what the database holds, by psql, beside {src}"),
            done: format!("it holds everything that {src} holds, and nothing else"),
            redo: format!(
                "it is empty, or was renamed (`ALTER DATABASE … RENAME TO …`): {src} is restored \
                 into an empty database; one that is filled is refused, not overwritten"
            ),
        }
    }
}
