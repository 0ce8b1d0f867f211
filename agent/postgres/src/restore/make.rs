//! A new database is made of a dump. What it is called, and when, is said in `restore_target`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokio_postgres::Client;

use crate::error::PostgresError;
use crate::format::anticipate::{Anticipated, Fills};
use crate::format::source::DumpSource;
use crate::format::text::DumpHead;
use crate::host::docker::client;
use crate::host::error::ModuleError;
use crate::restore::fill;
use crate::restore::parallel::Parallel;
use crate::restore::psql::{DumpFeed, Psql};
use crate::restore::staging as databases;
use crate::restore::staging::{Found, Mark};
use crate::server::connect::{FAREWELL, Server, literal};
use crate::task::context::TaskContext;
use crate::task::target::target;

/// By what a database is filled.
pub enum RestoreMethod<'a> {
    /// The agent itself, over so many connections. The source is opened anew for each attempt.
    Parallel {
        connections: usize,
        open: &'a (dyn Fn() -> Result<DumpSource, PostgresError> + Sync),
    },
    /// The psql of a container: named, or the service's.
    Psql {
        container: Option<&'a str>,
        service: Option<&'a str>,
    },
}

/// How many connections a restore has where nobody says it: as many as the host has processors, 8 at most.
#[must_use]
pub fn connections(asked: Option<usize>) -> usize {
    let usual = || std::thread::available_parallelism().map_or(2, |found| found.get().min(8));
    asked.unwrap_or_else(usual).max(1)
}

/// What a database is like before anything is in it.
pub struct DatabaseTemplate {
    owner: Option<String>,
    /// `ENCODING …`, and what else is known of it.
    locale: String,
}

impl DatabaseTemplate {
    /// As the empty one whose place it takes, else as the dump says; with this owner, where one is named.
    #[must_use]
    pub fn of(replaced: Option<&Found>, owner: Option<&str>, head: &DumpHead) -> Self {
        let owner = owner.or(replaced.map(|found| found.owner.as_str()));
        let locale = match (replaced, &head.encoding) {
            (Some(found), _) => found.locale.clone(),
            (None, Some(encoding)) => format!("ENCODING {}", literal(encoding)),
            (None, None) => String::new(),
        };
        Self {
            owner: owner.map(str::to_owned),
            locale,
        }
    }

    /// Tells whether a database that is there is of this kind.
    #[must_use]
    pub fn fits(&self, found: &Found, server: &Server) -> bool {
        let owner = self.owner.as_ref().unwrap_or(&server.user);
        found.owner == *owner && found.locale.starts_with(&self.locale)
    }
}

/// What is made of what.
pub struct DatabaseBuild<'a> {
    pub ctx: &'a TaskContext,
    pub server: &'a Server,
    /// A session beside the database.
    pub admin: &'a Client,
    /// Its name until it is whole.
    pub staging: &'a str,
    pub shape: &'a DatabaseTemplate,
    /// The dump, as messages call it.
    pub src: &'a Path,
    pub head: &'a DumpHead,
    pub how: RestoreMethod<'a>,
    /// Settings of the sessions that fill it.
    pub settings: &'a BTreeMap<String, String>,
    /// Columns whose NULLs are filled on the way.
    pub fills: Fills,
}

/// A database that is filled.
pub struct RestoredDatabase {
    /// Bytes of the dump's text.
    pub bytes: u64,
    /// SHA-256 of the dump, in hex.
    pub sha256: String,
    pub tables: u64,
    /// Rows of all tables, where they were counted.
    pub rows: Option<u64>,
    /// Method, and what else is known of it, as return values.
    pub how: Map<String, Value>,
    pub anticipated: Vec<Anticipated>,
}

impl RestoredDatabase {
    /// The mark of a database that this attempt has filled, and that is proved to be right.
    #[must_use]
    pub fn mark(&self, attempt: &str) -> Mark {
        Mark::Whole {
            attempt: attempt.to_owned(),
            sha256: self.sha256.clone(),
            tables: self.tables,
            rows: self.rows,
            anticipated: self.anticipated.clone(),
        }
    }
}

impl DatabaseBuild<'_> {
    /// Makes the database and fills it; once more without what turns out not to come to the same.
    ///
    /// # Errors
    /// The dump cannot be read or is none, the server refuses something, or the run was interrupted. What is
    /// there then is of no use: see [`abandon`].
    pub async fn make(mut self) -> Result<RestoredDatabase, ModuleError> {
        loop {
            let (owner, locale) = (self.shape.owner.as_deref(), &self.shape.locale);
            let attempt = &self.ctx.attempt;
            databases::create(self.admin, self.staging, owner, locale, attempt).await?;
            let mut filled = match &self.how {
                RestoreMethod::Parallel { connections, open } => {
                    self.by_ourselves(*connections, open()?).await?
                }
                RestoreMethod::Psql { container, service } => {
                    self.by_psql(*container, *service).await?
                }
            };
            let touched = filled.anticipated.iter().map(|done| done.table.clone());
            let touched = touched.collect();
            let refused = fill::refused(self.server, self.staging, &self.fills, &touched).await?;
            if refused.is_empty() {
                filled.tables = count_tables(self.server, self.staging).await?;
                return Ok(filled);
            }
            for (table, reason) in refused {
                self.ctx.progress.line(format!(
                    "again, without anticipating updates of {table}: {reason}"
                ));
                self.fills.remove(&table);
            }
            databases::drop_ours(self.admin, self.staging).await?;
        }
    }

    async fn by_ourselves(
        &self,
        connections: usize,
        source: DumpSource,
    ) -> Result<RestoredDatabase, ModuleError> {
        let progress = &self.ctx.progress;
        progress.line(format!("restoring over {connections} connections"));
        let parallel = Parallel {
            server: self.server,
            settings: self.settings,
            connections,
            fills: &self.fills,
        };
        let restored = parallel
            .restore(self.ctx, self.src, source, self.staging)
            .await?;
        for done in &restored.anticipated {
            progress.line(format!(
                "{}: {} NULLs filled, as the update scripts do",
                done.table, done.values
            ));
        }
        let how = [
            ("method".to_owned(), "parallel".into()),
            ("connections".to_owned(), connections.into()),
        ];
        Ok(RestoredDatabase {
            bytes: restored.bytes,
            sha256: restored.sha256,
            tables: 0,
            rows: Some(restored.rows),
            how: how.into_iter().collect(),
            anticipated: restored.anticipated,
        })
    }

    async fn by_psql(
        &self,
        container: Option<&str>,
        service: Option<&str>,
    ) -> Result<RestoredDatabase, ModuleError> {
        let docker = client::connect(self.ctx).await?;
        let container = target(self.ctx, container, service)?;
        let psql = Psql {
            docker: &docker,
            container: &container,
            server: self.server,
            settings: self.settings,
        };
        let version = psql.version(self.ctx, self.src, self.head).await?;
        let mut feed = DumpFeed::open(self.src, self.ctx.progress.clone())?;
        psql.restore(self.ctx, self.src, self.staging, &mut feed)
            .await?;
        let (bytes, sha256) = feed.finish(self.src).await?;
        let how = [
            ("method".to_owned(), "psql".into()),
            ("psql".to_owned(), version.into()),
        ];
        Ok(RestoredDatabase {
            bytes,
            sha256,
            tables: 0,
            rows: None,
            how: how.into_iter().collect(),
            anticipated: Vec::new(),
        })
    }
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

/// Drops what a failed attempt has filled. What cannot be dropped now the next run looks at, as the error
/// says then: a connection that was cut while the database was made has left one without a mark.
pub async fn abandon(
    ctx: &TaskContext,
    admin: &Client,
    staging: &str,
    error: ModuleError,
) -> ModuleError {
    if drop_now(ctx, admin, staging).await {
        error
    } else {
        error.with_unknown_outcome()
    }
}

/// Drops what was filled; where that cannot be done now, false, and a line says why.
pub async fn drop_now(ctx: &TaskContext, admin: &Client, staging: &str) -> bool {
    // A server that stands still never answers.
    let dropping = databases::drop_ours(admin, staging);
    let why = match tokio::time::timeout(FAREWELL, dropping).await {
        Ok(Ok(())) => return true,
        Ok(Err(second)) => second.to_string(),
        Err(_) => "the server does not answer".to_owned(),
    };
    ctx.progress
        .line(format!("left database {staging} behind: {why}"));
    false
}
