//! A dump is restored while it is still being written: a head start for the `postgresql_restore` that comes
//! next. What is filled here keeps its provisional name and says by which dump it was filled; without it the
//! restore begins from nothing. So the task that dumps has one effect, the file.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::dump::sink::Written;
use crate::error::PostgresError;
use crate::format::anticipate;
use crate::format::growth::Grower;
use crate::format::source::DumpSource;
use crate::format::text;
use crate::host::docker::arguments::env_map;
use crate::host::error::ModuleError;
use crate::host::worker;
use crate::restore::make::{
    DatabaseBuild, DatabaseTemplate, RestoreMethod, RestoredDatabase, abandon, connections,
    drop_now,
};
use crate::restore::parallel::changed;
use crate::restore::staging as databases;
use crate::restore::staging::{Found, Mark};
use crate::server::connect::{Server, with_login};
use crate::server::sessions::{self, Whose};
use crate::task::context::TaskContext;

with_login! {
    /// Where a dump is restored while it is being written, as `postgresql_restore` would.
    pub struct RestoreAhead {
        /// Database that it will become. Default: the service's.
        #[serde(default, alias = "login_db")]
        #[schemars(extend("aliases" = ["login_db"]))]
        pub db: Option<String>,
        /// Connections that load and build side by side. Default: as many as the host has processors, 8 at
        /// most.
        #[serde(default)]
        pub connections: Option<usize>,
        /// Update scripts that will be applied to the database, as in `postgresql_restore`.
        #[serde(default)]
        pub anticipate: Vec<PathBuf>,
        /// Settings of the restoring sessions, e.g. `maintenance_work_mem: 256MB`.
        #[serde(default, deserialize_with = "env_map")]
        #[schemars(with = "BTreeMap<String, String>")]
        pub settings: BTreeMap<String, String>,
    }
}

/// A dump that is being written.
pub struct Growing<'a> {
    /// As messages call it.
    pub dest: &'a Path,
    /// Where it is meanwhile.
    pub partial: &'a Path,
    /// About how much text it will be, in bytes.
    pub estimate: u64,
}

/// Where it is restored.
struct Target {
    server: Server,
    admin: Client,
    /// The database's name meanwhile.
    staging: String,
    /// The empty one whose place it will take.
    there: Option<Found>,
}

impl RestoreAhead {
    /// Looks whether the dump may go there, and returns what recovery needs.
    ///
    /// # Errors
    /// The server is not there, or its database is not empty.
    pub async fn prepare(&self, ctx: &TaskContext) -> Result<Value, PostgresError> {
        let (server, admin) = self.connect(ctx).await?;
        let db = databases::target(&server, self.db.as_deref())?;
        databases::refuse_unfit(&admin, &server, &db).await?;
        // Between its creation and its mark the new database looks like anybody's.
        Ok(json!({"db": db, "staging_was_free": true}))
    }

    async fn connect(&self, ctx: &TaskContext) -> Result<(Server, Client), PostgresError> {
        let server = self.login().server(ctx)?;
        let admin = server.connect_maintenance().await?;
        Ok((server, admin))
    }

    /// Lets `writing` write the dump and restores it meanwhile. Returns what was written, and what was
    /// restored, where nothing went wrong with that: a dump is none the worse for a server that does not
    /// take it, and the restore that comes next says what is wrong.
    ///
    /// # Errors
    /// As `writing`; or what was filled cannot be dropped again.
    pub async fn beside(
        &self,
        ctx: &TaskContext,
        dump: &Growing<'_>,
        writing: impl Future<Output = Result<Written, ModuleError>>,
    ) -> Result<(Written, Option<RestoredDatabase>), ModuleError> {
        let (server, admin) = self.connect(ctx).await?;
        let db = databases::target(&server, self.db.as_deref())?;
        let staging = databases::staging_of(&db);
        let there = databases::refuse_filled(&admin, &server, &db).await?;
        databases::clear(&admin, &staging).await?;
        let target = Target {
            server,
            admin,
            staging,
            there,
        };
        let grower = Grower::begin();
        let stop = ctx.cancel.child_token();
        let writing = async {
            let written = writing.await;
            grower.end(written.is_ok());
            if written.is_err() {
                stop.cancel();
            }
            written
        };
        let restoring = self.restore(ctx, &stop, dump, &grower, &target);
        let (written, restored) = tokio::join!(writing, restoring);
        let (admin, staging) = (&target.admin, &target.staging);
        let written = match written {
            Ok(written) => written,
            Err(error) => return Err(abandon(ctx, admin, staging, error).await),
        };
        let proved = async {
            let filled = restored?;
            if (filled.bytes, &filled.sha256) != (written.text, &written.sha256) {
                return Err(changed(dump.dest).into());
            }
            databases::mark(admin, staging, &filled.mark(&ctx.attempt)).await?;
            Ok::<_, ModuleError>(filled)
        };
        let error = match proved.await {
            Ok(filled) => return Ok((written, Some(filled))),
            Err(error) => error,
        };
        if !drop_now(ctx, admin, staging).await {
            return Err(error.with_unknown_outcome());
        }
        if matches!(error, ModuleError::Cancelled) {
            return Err(error);
        }
        let reason = ctx.redactor.text(&error.to_string());
        let line = format!("not restored while it was written: {reason}");
        ctx.progress.line(line);
        Ok((written, None))
    }

    async fn restore(
        &self,
        ctx: &TaskContext,
        stop: &CancellationToken,
        dump: &Growing<'_>,
        grower: &Grower,
        target: &Target,
    ) -> Result<RestoredDatabase, ModuleError> {
        let mut ctx = ctx.clone();
        ctx.cancel = stop.clone();
        let fills = anticipate::of_scripts(&ctx, &self.anticipate)?;
        let open = || DumpSource::growing(dump.partial, dump.estimate, grower.growth());
        let source = open()?;
        let dest = dump.dest.to_path_buf();
        let head = worker::blocking("reader of the dump's head", move || {
            text::inspect_growing(&dest, &source)
        });
        let head = head.await??;
        databases::refuse_newer(&target.admin, dump.dest, &head).await?;
        let making = DatabaseBuild {
            ctx: &ctx,
            server: &target.server,
            admin: &target.admin,
            staging: &target.staging,
            shape: &DatabaseTemplate::of(target.there.as_ref(), None, &head),
            src: dump.dest,
            head: &head,
            how: RestoreMethod::Parallel {
                connections: connections(self.connections),
                open: &open,
            },
            settings: &self.settings,
            fills,
        };
        making.make().await
    }

    /// Cleans up after an attempt that never finished. Where its dump is there, what was restored of it may
    /// stay, if it is whole.
    ///
    /// # Errors
    /// The server is not there, or does not drop it.
    pub async fn recover(
        &self,
        ctx: &TaskContext,
        intent: &Value,
        dumped: bool,
    ) -> Result<(), PostgresError> {
        let (Some(db), Some(attempt)) = (intent["db"].as_str(), &ctx.interrupted_attempt) else {
            return Ok(());
        };
        let (_, admin) = self.connect(ctx).await?;
        sessions::end(&admin, Whose::Attempt(attempt)).await?;
        let staging = databases::staging_of(db);
        let Some(found) = databases::find(&admin, &staging).await? else {
            return Ok(());
        };
        let ours = match &found.mark {
            Mark::Whole { attempt: by, .. } if dumped && by == attempt => false,
            Mark::Whole { attempt: by, .. } | Mark::Begun { attempt: by } => by == attempt,
            Mark::None => intent["staging_was_free"] == true,
            Mark::Replaced => false,
        };
        if ours {
            databases::drop_ours(&admin, &staging).await?;
        }
        Ok(())
    }
}
