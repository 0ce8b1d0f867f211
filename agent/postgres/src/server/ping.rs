//! `postgresql_ping`: a real server answers.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::connect::with_login;
use crate::error::PostgresError;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// One attempt must be quick: whoever waits for the server tries again.
const PATIENCE: Duration = Duration::from_secs(3);

with_login! {
    /// Asks a server once, over TCP, with its password, whether it answers queries.
    pub struct PostgresqlPing {
        /// Database. Default: the service's POSTGRES_DB, or one named like the user.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
    }
}

impl TypedModule for PostgresqlPing {
    const NAME: &'static str = "postgresql_ping";
    const ALIASES: &'static [&'static str] = &["community.postgresql.postgresql_ping"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "asks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Tells whether a server lets us in and answers a query.";
    const EXAMPLE: &'static str = r#"- name: The server answers
  postgresql_ping: {service: pacs_old, login_db: pacsdb}
  register: ping   # ping.is_available, ping.server_version.full, ping.in_recovery
"#;
}

#[async_trait]
impl Module for PostgresqlPing {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = server.db(self.login_db.as_deref());
        let client = server.connect_within(&db, PATIENCE).await?;
        let row = client
            .query_one(
                "SELECT current_setting('server_version'), \
                 current_setting('server_version_num')::int4, pg_is_in_recovery()",
                &[],
            )
            .await
            .map_err(PostgresError::sql("ask the server for its version"))?;
        let (full, number, in_recovery): (String, i32, bool) = (row.get(0), row.get(1), row.get(2));
        Ok(Outcome::ok()
            .with("is_available", true)
            .with("in_recovery", in_recovery)
            .with(
                "server_version",
                serde_json::json!({"full": full, "number": number}),
            )
            .summary(format!("PostgreSQL {full} at {}", server.address)))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
