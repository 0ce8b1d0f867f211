//! `postgresql_db`: a database of a server, there or not.

use std::fmt::Write;

use async_trait::async_trait;
use serde_json::Value;
use tokio_postgres::Client;

use super::connect::{cancellable, ident, literal, with_login};
use super::sessions::{self, Whose};
use crate::error::PostgresError;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::presence::Presence;

with_login! {
    /// Makes sure that a database is there as described, or is not there.
    pub struct PostgresqlDb {
        /// The database.
        #[serde(alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub name: String,
        /// `present` (default) or `absent`: what is in it is lost. For Ansible's `dump` and `restore` there are `postgresql_dump`
        /// and `postgresql_restore`.
        #[serde(default)]
        pub state: Presence,
        /// Owner. Default: for a new database the user that connects.
        #[serde(default)]
        pub owner: Option<String>,
        /// Template of a new one. Default: the server's.
        #[serde(default)]
        pub template: Option<String>,
        /// Encoding: `UTF8`. It cannot be changed later.
        #[serde(default)]
        pub encoding: Option<String>,
        /// Order of texts: `C.UTF-8`. It cannot be changed later.
        #[serde(default)]
        pub lc_collate: Option<String>,
        /// Classes of characters. They cannot be changed later.
        #[serde(default)]
        pub lc_ctype: Option<String>,
        /// Tablespace.
        #[serde(default)]
        pub tablespace: Option<String>,
        /// Most connections at a time; -1 for any number.
        #[serde(default)]
        pub conn_limit: Option<i32>,
        /// Ends the connections of others to a database that shall go (version 13 and newer). Default: false.
        #[serde(default)]
        pub force: bool,
        /// Database to connect to for it. Default: `postgres`.
        #[serde(default = "maintenance")]
        pub maintenance_db: String,
    }
}

fn maintenance() -> String {
    "postgres".into()
}

/// A database as it is.
struct Found {
    owner: String,
    encoding: String,
    collate: String,
    ctype: String,
    tablespace: String,
    limit: i32,
}

impl PostgresqlDb {
    async fn found(&self, client: &Client) -> Result<Option<Found>, PostgresError> {
        // Columns that 9.6 and 18 both have.
        let row = client
            .query_opt(
                "SELECT r.rolname::text, pg_encoding_to_char(d.encoding)::text, \
                 d.datcollate::text, d.datctype::text, t.spcname::text, d.datconnlimit \
                 FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba \
                 JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = $1",
                &[&self.name],
            )
            .await
            .map_err(PostgresError::sql("look at the database"))?;
        Ok(row.map(|row| Found {
            owner: row.get(0),
            encoding: row.get(1),
            collate: row.get(2),
            ctype: row.get(3),
            tablespace: row.get(4),
            limit: row.get(5),
        }))
    }

    /// Statements that are left to be run, one each.
    fn statements(&self, found: Option<&Found>) -> Result<Vec<String>, PostgresError> {
        let name = ident(&self.name);
        match (self.state, found) {
            (Presence::Absent, None) => Ok(Vec::new()),
            (Presence::Absent, Some(_)) => {
                let force = if self.force { " WITH (FORCE)" } else { "" };
                Ok(vec![format!("DROP DATABASE {name}{force}")])
            }
            (Presence::Present, None) => Ok(vec![self.creation()]),
            (Presence::Present, Some(found)) => self.changes(found),
        }
    }

    fn creation(&self) -> String {
        let mut text = format!("CREATE DATABASE {}", ident(&self.name));
        let names = [
            ("OWNER", &self.owner),
            ("TEMPLATE", &self.template),
            ("TABLESPACE", &self.tablespace),
        ];
        let texts = [
            ("ENCODING", &self.encoding),
            ("LC_COLLATE", &self.lc_collate),
            ("LC_CTYPE", &self.lc_ctype),
        ];
        // Writing to a text cannot fail.
        for (word, value) in names {
            if let Some(value) = value {
                let _ = write!(text, " {word} {}", ident(value));
            }
        }
        for (word, value) in texts {
            if let Some(value) = value {
                let _ = write!(text, " {word} {}", literal(value));
            }
        }
        if let Some(limit) = self.conn_limit {
            let _ = write!(text, " CONNECTION LIMIT {limit}");
        }
        text
    }

    fn changes(&self, found: &Found) -> Result<Vec<String>, PostgresError> {
        let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
        for (argument, has, wanted) in [
            ("encoding", &found.encoding, &self.encoding),
            ("lc_collate", &found.collate, &self.lc_collate),
            ("lc_ctype", &found.ctype, &self.lc_ctype),
        ] {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| plain(wanted) != plain(has)) {
                let message = format!(
                    "the database {} is there with `{has}`, and that cannot be changed to \
                     `{wanted}`: make another one and restore a dump into it",
                    self.name
                );
                return Err(PostgresError::argument(argument, message));
            }
        }
        let name = ident(&self.name);
        let mut statements = Vec::new();
        if let Some(owner) = self.owner.as_ref().filter(|owner| **owner != found.owner) {
            statements.push(format!("ALTER DATABASE {name} OWNER TO {}", ident(owner)));
        }
        if let Some(limit) = self.conn_limit.filter(|limit| *limit != found.limit) {
            statements.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}"));
        }
        let space = self.tablespace.as_ref();
        if let Some(space) = space.filter(|space| **space != found.tablespace) {
            let space = ident(space);
            statements.push(format!("ALTER DATABASE {name} SET TABLESPACE {space}"));
        }
        Ok(statements)
    }

    async fn client(&self, ctx: &TaskContext) -> Result<Client, ModuleError> {
        let server = self.login().server(ctx)?;
        Ok(server.connect(&self.maintenance_db).await?)
    }
}

#[async_trait]
impl Module for PostgresqlDb {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        // In check mode services are not running.
        if !self.login().is_known(ctx) {
            return Ok(Plan::CannotPredict);
        }
        let client = self.client(ctx).await?;
        let found = self.found(&client).await?;
        Ok(Plan::from(self.statements(found.as_ref())?))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let client = self.client(ctx).await?;
        let found = self.found(&client).await?;
        let statements = self.statements(found.as_ref())?;
        for statement in &statements {
            let work = async {
                let run = client.batch_execute(statement).await;
                run.map_err(|error| PostgresError::Sql {
                    action: format!("run `{statement}`"),
                    source: error.into(),
                })
            };
            cancellable(&client, &ctx.cancel, work).await?;
        }
        Ok(Outcome::of_steps(&statements)
            .with("db", self.name.clone())
            .with("executed_commands", statements))
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        // Each statement is in effect as a whole or not at all, and what is left to do is looked up; but a
        // server goes on with what a killed client had asked for.
        if let Some(attempt) = &ctx.interrupted_attempt {
            sessions::end(&self.client(ctx).await?, Whose::Attempt(attempt)).await?;
        }
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for PostgresqlDb {
    const NAME: &'static str = "postgresql_db";
    const ALIASES: &'static [&'static str] = &["community.postgresql.postgresql_db"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "ends sessions that it left, looks what is there, and does the rest";
    const CHECK_MODE: &'static str = "predicts where the server can be reached; otherwise skipped";
    const SUMMARY: &'static str = "Makes sure that a database is there, or is not.";
    const EXAMPLE: &'static str = r#"- name: An empty database to restore into
  postgresql_db:
    name: pacsdb
    owner: pacs
    template: template0
    encoding: UTF8
"#;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn statements(arguments: Value, found: Option<&Found>) -> Result<Vec<String>, String> {
        let module: PostgresqlDb = serde_json::from_value(arguments).expect("arguments");
        module.statements(found).map_err(|error| error.to_string())
    }

    #[test]
    fn names_are_quoted_and_only_what_differs_is_changed() {
        let arguments =
            json!({"name": "a\"b", "owner": "pacs", "encoding": "UTF8", "conn_limit": 5});
        assert_eq!(
            statements(arguments.clone(), None).expect("statements"),
            [r#"CREATE DATABASE "a""b" OWNER "pacs" ENCODING 'UTF8' CONNECTION LIMIT 5"#]
        );
        let mut found = Found {
            owner: "pacs".into(),
            encoding: "UTF8".into(),
            collate: "C".into(),
            ctype: "C".into(),
            tablespace: "pg_default".into(),
            limit: 5,
        };
        assert!(
            statements(arguments.clone(), Some(&found))
                .expect("none")
                .is_empty()
        );
        found.owner = "other".into();
        assert_eq!(
            statements(arguments.clone(), Some(&found)).expect("statements"),
            [r#"ALTER DATABASE "a""b" OWNER TO "pacs""#]
        );
        found.encoding = "LATIN1".into();
        let error = statements(arguments, Some(&found)).expect_err("encoding");
        assert!(error.contains("LATIN1"), "{error}");
        let gone = json!({"db": "x", "state": "absent", "force": true});
        assert!(statements(gone.clone(), None).expect("none").is_empty());
        assert_eq!(
            statements(gone, Some(&found)).expect("statements"),
            [r#"DROP DATABASE "x" WITH (FORCE)"#]
        );
    }
}
