//! `postgresql_schema_history`: the agent's own schema leaves a database that is handed over.

use async_trait::async_trait;
use serde_json::Value;
use tokio_postgres::Client;

use super::history;
use crate::error::{PostgresError, SqlError};
use crate::host::error::ModuleError;
use crate::server::connect::{cancellable, with_login};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_login! {
    /// Takes the schema `kaapana_agent`, in which `postgresql_script` notes what it has applied, out of a
    /// database. Everything that is noted there goes into the result first.
    pub struct PostgresqlSchemaHistory {
        /// Database. Default: the service's.
        #[serde(default, alias = "login_db")]
        #[schemars(extend("aliases" = ["login_db"]))]
        pub db: Option<String>,
        /// `absent`.
        pub state: State,
    }
}

/// What is wanted of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is not there.
    Absent,
}

impl TypedModule for PostgresqlSchemaHistory {
    const NAME: &'static str = "postgresql_schema_history";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_schema_history"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "looks, and drops the schema where it is still there";
    const CHECK_MODE: &'static str = "predicts where the database is reached; otherwise skipped";
    const SUMMARY: &'static str =
        "Takes the agent's own notes of applied scripts out of a database.";
    const EXAMPLE: &'static str = r#"- name: Leave nothing of the agent in the new database
  postgresql_schema_history: {db: pacsdb, state: absent}
  register: history   # history.scripts
"#;
}

/// Returns the scripts that are noted, or nothing where the schema is not there.
async fn noted(client: &Client) -> Result<Option<Vec<String>>, PostgresError> {
    let failed = || PostgresError::sql("look into schema kaapana_agent");
    let others = client
        .query_opt(
            "SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid \
             AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> 'schema_history') \
             + (SELECT count(*) FROM pg_proc p WHERE p.pronamespace = n.oid) \
             FROM pg_namespace n WHERE n.nspname = 'kaapana_agent'",
            &[],
        )
        .await
        .map_err(failed())?;
    let Some(others) = others else {
        return Ok(None);
    };
    if others.get::<_, i64>(0) > 0 {
        return Err(PostgresError::Sql {
            action: "take schema kaapana_agent away".into(),
            source: SqlError::said("it holds more than the agent's own schema_history"),
        });
    }
    history::scripts(client).await.map(Some)
}

#[async_trait]
impl Module for PostgresqlSchemaHistory {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let State::Absent = self.state;
        if !self.login().is_known(ctx) {
            return Ok(Plan::CannotPredict);
        }
        let server = self.login().server(ctx)?;
        let client = server.connect(&server.db(self.db.as_deref())).await?;
        Ok(match noted(&client).await? {
            None => Plan::InSync,
            Some(scripts) => Plan::NeedsChange(vec![format!(
                "drop schema kaapana_agent, with its notes of {} scripts",
                scripts.len()
            )]),
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = server.db(self.db.as_deref());
        let client = server.connect(&db).await?;
        let Some(scripts) = noted(&client).await? else {
            return Ok(Outcome::ok()
                .with("scripts", Vec::<String>::new())
                .summary("no notes are there"));
        };
        let drop = async {
            let dropped = client.batch_execute("DROP SCHEMA kaapana_agent CASCADE");
            let action = format!("drop schema kaapana_agent in {db}");
            dropped.await.map_err(PostgresError::sql(action))
        };
        cancellable(&client, &ctx.cancel, drop).await?;
        let summary = format!("notes of {} scripts", scripts.len());
        Ok(Outcome::changed().with("scripts", scripts).summary(summary))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
