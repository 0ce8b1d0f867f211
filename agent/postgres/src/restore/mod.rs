//! `postgresql_restore`: a plain dump becomes a database, whole or not at all.

pub(crate) mod dispatch;
pub(crate) mod fill;
#[cfg(test)]
mod live_ahead_tests;
#[cfg(test)]
mod live_cut_tests;
#[cfg(test)]
mod live_damage_tests;
#[cfg(test)]
mod live_kill_tests;
#[cfg(test)]
pub(crate) mod live_restore_tests;
pub(crate) mod make;
pub(crate) mod parallel;
pub(crate) mod parts;
pub(crate) mod pool;
pub(crate) mod psql;
pub(crate) mod session;
pub(crate) mod staging;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::error::PostgresError;
use crate::format::anticipate::{self, Anticipated, Fills};
use crate::format::source::DumpSource;
use crate::format::text::{self, DumpHead};
use crate::host::docker::arguments::env_map;
use crate::host::error::ModuleError;
use crate::host::files::whole::sha256_of_argument;
use crate::restore::make::{
    DatabaseBuild, DatabaseTemplate, RestoreMethod, RestoredDatabase, abandon, connections,
};
use crate::restore::parallel::changed;
use crate::restore::staging as databases;
use crate::restore::staging::Mark;
use crate::server::connect::{Server, with_login};
use crate::server::sessions::{self, Whose};
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

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
        /// gets its name. With it, what `postgresql_dump` with `restore_ahead` made of this very dump is
        /// taken as it is (`ahead` in the result).
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
    const AFTER_INTERRUPTION: &'static str = "ends sessions that it left; done where the database carries its mark; otherwise its half database is dropped and the restore runs again; a filled database without its mark: *unknown*";
    const CHECK_MODE: &'static str = "predicts where the database is reached; otherwise skipped";
    const TUNING: &'static [&'static str] = &["connections"];
    const SUMMARY: &'static str =
        "Restores a plain dump into an empty or new database, whole or not at all.";
    const EXAMPLE: &'static str = r#"- name: Restore into the work server
  postgresql_restore:
    db: pacsdb
    src: "{{ dump.dest }}"
    checksum: "{{ dump.checksum }}"
  register: restored   # restored.db, .tables, .rows, .bytes, .sha256, .anticipated
"#;
}

impl PostgresqlRestore {
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

    /// Proves what was filled against the dump as it was and should be, and says so in the database.
    async fn prove(
        &self,
        ctx: &TaskContext,
        admin: &Client,
        staging: &str,
        head: &DumpHead,
        filled: &RestoredDatabase,
    ) -> Result<(), ModuleError> {
        let src = ctx.resolve(&self.src);
        if filled.bytes != head.size {
            return Err(changed(&src).into());
        }
        if let Some(expected) = self.expected()?.filter(|sha256| *sha256 != filled.sha256) {
            return Err(PostgresError::Checksum {
                path: src,
                expected,
                found: filled.sha256.clone(),
            }
            .into());
        }
        databases::mark(admin, staging, &filled.mark(&ctx.attempt)).await?;
        Ok(())
    }

    /// Takes over the database that `postgresql_dump` filled while it wrote this very dump, where it is what
    /// this task would make.
    async fn take_over(
        &self,
        ctx: &TaskContext,
        admin: &Client,
        server: &Server,
        staging: &str,
        (shape, head, fills): (&DatabaseTemplate, &DumpHead, &Fills),
    ) -> Result<Option<RestoredDatabase>, ModuleError> {
        let (Some(expected), Method::Parallel) = (self.expected()?, self.method) else {
            return Ok(None);
        };
        let Some(found) = databases::find(admin, staging).await? else {
            return Ok(None);
        };
        let fits = shape.fits(&found, server);
        let Mark::Whole {
            sha256,
            tables,
            rows,
            anticipated,
            ..
        } = found.mark
        else {
            return Ok(None);
        };
        // Less than the scripts would let us do is no harm: they do it themselves.
        let may = |done: &Anticipated| fills.get(&done.table) == Some(&done.columns);
        if sha256 != expected || !fits || !anticipated.iter().all(may) {
            return Ok(None);
        }
        let how = [
            ("method".to_owned(), "parallel".into()),
            ("ahead".to_owned(), true.into()),
        ];
        let filled = RestoredDatabase {
            bytes: head.size,
            sha256,
            tables,
            rows,
            how: how.into_iter().collect(),
            anticipated,
        };
        databases::mark(admin, staging, &filled.mark(&ctx.attempt)).await?;
        Ok(Some(filled))
    }
}

fn outcome(db: &str, filled: RestoredDatabase) -> Outcome {
    let (tables, sha256) = (filled.tables, &filled.sha256);
    let mut outcome = Outcome::changed()
        .with("anticipated", json!(filled.anticipated))
        .with("db", db)
        .with("tables", tables)
        .with("rows", filled.rows)
        .with("bytes", filled.bytes)
        .with("sha256", sha256.as_str())
        .with("checksum", format!("sha256:{sha256}"))
        .summary(if filled.how.contains_key("ahead") {
            format!("{tables} tables in {db}, restored while they were dumped")
        } else {
            format!("{tables} tables in {db}")
        });
    outcome.result.extend(filled.how);
    outcome
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
        text::inspect(&src)?;
        let server = self.login().server(ctx)?;
        let db = databases::target(&server, self.db.as_deref())?;
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
        let head = text::inspect(&ctx.resolve(&self.src))?;
        let server = self.login().server(ctx)?;
        let db = databases::target(&server, self.db.as_deref())?;
        let staging = databases::staging_of(&db);
        let admin = server.connect_maintenance().await?;
        databases::refuse_unfit(&admin, &server, &db).await?;
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
        let head = text::inspect(&src)?;
        let server = self.login().server(ctx)?;
        let db = databases::target(&server, self.db.as_deref())?;
        let staging = databases::staging_of(&db);
        let admin = server.connect_maintenance().await?;
        databases::refuse_newer(&admin, &src, &head).await?;
        let there = databases::refuse_filled(&admin, &server, &db).await?;
        let shape = DatabaseTemplate::of(there.as_ref(), self.owner.as_deref(), &head);
        let fills = anticipate::of_scripts(ctx, &self.anticipate)?;
        let ahead = self.take_over(ctx, &admin, &server, &staging, (&shape, &head, &fills));
        let filled = match ahead.await? {
            Some(filled) => filled,
            None => {
                databases::clear(&admin, &staging).await?;
                let open = || DumpSource::open(&src);
                let how = match self.method {
                    Method::Parallel => RestoreMethod::Parallel {
                        connections: connections(self.connections),
                        open: &open,
                    },
                    Method::Psql => RestoreMethod::Psql {
                        container: self.container.as_deref(),
                        service: self.service.as_deref(),
                    },
                };
                let making = DatabaseBuild {
                    ctx,
                    server: &server,
                    admin: &admin,
                    staging: &staging,
                    shape: &shape,
                    src: &src,
                    head: &head,
                    how,
                    settings: &self.settings,
                    fills,
                };
                let made = async {
                    let filled = making.make().await?;
                    self.prove(ctx, &admin, &staging, &head, &filled).await?;
                    Ok(filled)
                };
                match made.await {
                    Ok(filled) => filled,
                    Err(error) => return Err(abandon(ctx, &admin, &staging, error).await),
                }
            }
        };
        // The server may have given it its name, whatever became of the answer.
        let placed = databases::put_in_place(&admin, &server, &staging, &db).await;
        placed.map_err(|error| ModuleError::from(error).with_unknown_outcome())?;
        Ok(outcome(&db, filled).with("dump_of_server", head.server_version.clone()))
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = intent["db"].as_str().map_or_else(
            || databases::target(&server, self.db.as_deref()),
            |db| Ok(db.to_owned()),
        )?;
        let staging = databases::staging_of(&db);
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
                rows,
                anticipated,
            } if Some(attempt) == ctx.interrupted_attempt.as_ref() => {
                let filled = RestoredDatabase {
                    bytes: intent["bytes"].as_u64().unwrap_or(0),
                    sha256: sha256.clone(),
                    tables: *tables,
                    rows: *rows,
                    how: Map::new(),
                    anticipated: anticipated.clone(),
                };
                Some(outcome(&db, filled))
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
