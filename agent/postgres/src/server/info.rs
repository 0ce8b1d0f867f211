//! `postgresql_info`: what a server is and holds.

use std::collections::BTreeSet;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::connect::{cancellable, with_login};
use crate::error::PostgresError;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// What can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// `version`: `full`, `raw`, `major`, `minor`.
    Version,
    /// `in_recovery`.
    InRecovery,
    /// `databases`: owner, encoding, collate, ctype, size in bytes, by name.
    Databases,
    /// `roles`: superuser, canlogin, valid_until, member_of, by name.
    Roles,
    /// `settings`: setting, unit, context, source, pending_restart, by name.
    Settings,
    /// `tablespaces`: owner and options, by name.
    Tablespaces,
}

impl Subset {
    const ALL: [Self; 6] = [
        Self::Version,
        Self::InRecovery,
        Self::Databases,
        Self::Roles,
        Self::Settings,
        Self::Tablespaces,
    ];

    /// One row with one JSON value, on 9.6 and newer.
    fn query(self) -> &'static str {
        match self {
            Self::Version => {
                "SELECT json_build_object('full', current_setting('server_version'), \
                 'raw', version(), 'number', current_setting('server_version_num')::int)"
            }
            Self::InRecovery => "SELECT to_json(pg_is_in_recovery())",
            Self::Databases => {
                "SELECT json_object_agg(d.datname, json_build_object('owner', r.rolname, \
                 'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, \
                 'ctype', d.datctype, 'size', CASE WHEN \
                 has_database_privilege(d.datname, 'CONNECT') THEN pg_database_size(d.datname) END) \
                 ORDER BY d.datname) FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
                 WHERE d.datallowconn"
            }
            Self::Roles => {
                "SELECT json_object_agg(r.rolname, json_build_object('superuser', r.rolsuper, \
                 'canlogin', r.rolcanlogin, 'valid_until', coalesce(r.rolvaliduntil::text, ''), \
                 'member_of', ARRAY(SELECT b.rolname FROM pg_auth_members m \
                 JOIN pg_roles b ON b.oid = m.roleid WHERE m.member = r.oid ORDER BY 1)) \
                 ORDER BY r.rolname) FROM pg_roles r"
            }
            Self::Settings => {
                "SELECT json_object_agg(name, json_build_object('setting', setting, \
                 'unit', coalesce(unit, ''), 'context', context, 'vartype', vartype, \
                 'source', source, 'boot_val', coalesce(boot_val, ''), \
                 'pending_restart', pending_restart) ORDER BY name) FROM pg_settings"
            }
            Self::Tablespaces => {
                "SELECT json_object_agg(t.spcname, json_build_object('spcowner', r.rolname, \
                 'spcoptions', coalesce(t.spcoptions, ARRAY[]::text[])) ORDER BY t.spcname) \
                 FROM pg_tablespace t JOIN pg_roles r ON r.oid = t.spcowner"
            }
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::InRecovery => "in_recovery",
            Self::Databases => "databases",
            Self::Roles => "roles",
            Self::Settings => "settings",
            Self::Tablespaces => "tablespaces",
        }
    }
}

with_login! {
    /// Tells what a server is and holds.
    pub struct PostgresqlInfo {
        /// Database to connect to. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
        /// What is told: some of `version`, `in_recovery`, `databases`, `roles`, `settings`, `tablespaces`.
        /// Default: all.
        #[serde(default)]
        pub filter: Vec<Subset>,
    }
}

impl PostgresqlInfo {
    async fn ask(&self, client: &Client) -> Result<Map<String, Value>, PostgresError> {
        let wanted: BTreeSet<Subset> = match self.filter.as_slice() {
            [] => Subset::ALL.into(),
            some => some.iter().copied().collect(),
        };
        let mut result = Map::new();
        for subset in wanted {
            let failed = PostgresError::sql("ask the server about itself");
            let query = format!(
                "SELECT told::text FROM ({}) AS answer(told)",
                subset.query()
            );
            let row = client.query_one(&query, &[]).await.map_err(failed)?;
            let text: Option<String> = row.get(0);
            let mut value: Option<Value> = text.and_then(|text| serde_json::from_str(&text).ok());
            if let (Subset::Version, Some(version)) = (subset, &mut value) {
                let number = version["number"].as_i64().unwrap_or_default();
                let (major, minor) = parts_of(number);
                version["major"] = json!(major);
                version["minor"] = json!(minor);
            }
            result.insert(subset.word().to_owned(), value.unwrap_or_else(|| json!({})));
        }
        Ok(result)
    }
}

/// The parts of `server_version_num`: 150004 is 15.4, 90624 was 9.6.24.
fn parts_of(number: i64) -> (i64, i64) {
    let major = number / 10_000;
    match major {
        ..10 => (major, number / 100 % 100),
        _ => (major, number % 10_000),
    }
}

#[async_trait]
impl Module for PostgresqlInfo {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        let client = server.connect(&server.db(self.login_db.as_deref())).await?;
        let mut outcome = Outcome::ok().summary(format!("the server at {}", server.address));
        outcome.result = cancellable(&client, &ctx.cancel, self.ask(&client)).await?;
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for PostgresqlInfo {
    const NAME: &'static str = "postgresql_info";
    const ALIASES: &'static [&'static str] = &["community.postgresql.postgresql_info"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "asks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Tells what a server is and holds.";
    const EXAMPLE: &'static str = r#"- name: What the new server holds
  postgresql_info: {service: pacs_new, filter: [version, databases]}
  register: server   # server.version.major, server.databases.pacsdb.size
"#;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_their_parts_before_10_and_since() {
        assert_eq!(parts_of(90_624), (9, 6));
        assert_eq!(parts_of(150_004), (15, 4));
    }
}
