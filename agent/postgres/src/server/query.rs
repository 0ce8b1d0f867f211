//! `postgresql_query` and `postgresql_select`: a statement, and its rows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde_json::Value;
use tokio_postgres::Client;

use super::connect::{cancellable, with_login};
use super::json::{JsonParameter, row_to_json};
use crate::error::PostgresError;
use crate::format::sql_split::{PieceKind, split};
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Rows that a result may hold: it goes into the journal, and a table does not belong there.
const ROW_LIMIT: usize = 10_000;

with_login! {
    /// Runs one statement in a transaction of its own.
    pub struct PostgresqlQuery {
        /// The statement. `$1`, `$2` take `positional_args`, `%(name)s` take `named_args`.
        pub query: String,
        /// Values of `$1`, `$2`, …
        #[serde(default)]
        pub positional_args: Vec<Value>,
        /// Values of `%(name)s`.
        #[serde(default)]
        pub named_args: BTreeMap<String, Value>,
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
    }
}

with_login! {
    /// Runs one query in a read-only transaction.
    pub struct PostgresqlSelect {
        /// The query. `$1`, `$2` take `positional_args`, `%(name)s` take `named_args`.
        pub query: String,
        /// Values of `$1`, `$2`, …
        #[serde(default)]
        pub positional_args: Vec<Value>,
        /// Values of `%(name)s`.
        #[serde(default)]
        pub named_args: BTreeMap<String, Value>,
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
    }
}

impl TypedModule for PostgresqlQuery {
    const NAME: &'static str = "postgresql_query";
    const ALIASES: &'static [&'static str] = &["community.postgresql.postgresql_query"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "*unknown*: you are asked, unless `done_when` is true";
    const CHECK_MODE: &'static str = "skipped";
    const SUMMARY: &'static str = "Runs one statement in a transaction of its own.";
    const EXAMPLE: &'static str = r#"- name: Forget finished export tasks
  postgresql_query:
    db: pacsdb
    query: DELETE FROM task WHERE task_status = $1
    positional_args: [5]
  register: forgotten   # forgotten.rowcount, forgotten.query_result: [{column: value}]
"#;
}

impl TypedModule for PostgresqlSelect {
    const NAME: &'static str = "postgresql_select";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_select"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "asks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Runs one query in a read-only transaction.";
    const EXAMPLE: &'static str = r#"- name: How many instances are there
  postgresql_select: {db: pacsdb, query: SELECT count(*) AS n FROM instance}
  register: instances   # instances.query_result[0].n
"#;
}

/// Replaces `%(name)s` by `$n` and returns the values in order. `%%` is a percent sign then.
fn named(
    query: &str,
    values: &BTreeMap<String, Value>,
) -> Result<(String, Vec<Value>), PostgresError> {
    let mut text = String::new();
    let mut order: Vec<&str> = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("%%") {
            text.push('%');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix("%(")
            .and_then(|inner| inner.split_once(")s"))
        {
            let index = order
                .iter()
                .position(|known| *known == name)
                .unwrap_or_else(|| {
                    order.push(name);
                    order.len() - 1
                });
            text.push_str(&format!("${}", index + 1));
            rest = after;
        } else {
            text.push('%');
            rest = &rest[1..];
        }
    }
    text.push_str(rest);
    let value = |name: &&str| {
        values.get(*name).cloned().ok_or_else(|| {
            PostgresError::argument("named_args", format!("there is no value for `%({name})s`"))
        })
    };
    let found = order.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    Ok((text, found))
}

/// Runs the statement and returns its outcome; the caller opens and ends the transaction.
async fn run(
    client: &Client,
    query: &str,
    positional: &[Value],
    named_values: &BTreeMap<String, Value>,
) -> Result<Outcome, PostgresError> {
    let (text, values) = match (positional.is_empty(), named_values.is_empty()) {
        (_, true) => (query.to_owned(), positional.to_vec()),
        (true, false) => named(query, named_values)?,
        (false, false) => {
            return Err(PostgresError::argument(
                "named_args",
                "give either `positional_args` or `named_args`",
            ));
        }
    };
    refuse_several(&text)?;
    let failed = |error| PostgresError::Sql {
        action: "run the query".into(),
        source: error,
    };
    let statement = client
        .prepare(&text)
        .await
        .map_err(|error| failed(error.into()))?;
    if statement.params().len() != values.len() {
        return Err(PostgresError::argument(
            "positional_args",
            format!(
                "the query has {} places, {} values are given",
                statement.params().len(),
                values.len()
            ),
        ));
    }
    let parameters: Vec<JsonParameter> = values.into_iter().map(JsonParameter).collect();
    let stream = client
        .query_raw(&statement, &parameters)
        .await
        .map_err(|error| failed(error.into()))?;
    tokio::pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream
        .try_next()
        .await
        .map_err(|error| failed(error.into()))?
    {
        if rows.len() == ROW_LIMIT {
            return Err(PostgresError::argument(
                "query",
                format!(
                    "it returns more than {ROW_LIMIT} rows; add a LIMIT or count on the server"
                ),
            ));
        }
        rows.push(Value::Object(
            row_to_json(&row).map_err(|error| failed(error.into()))?,
        ));
    }
    let count = stream.rows_affected().unwrap_or(rows.len() as u64);
    let summary = format!("{count} rows");
    Ok(Outcome::ok()
        .with("query_result", rows)
        .with("rowcount", count)
        .summary(summary))
}

/// A statement that ends the transaction would take the read-only promise, or the one commit, away.
fn refuse_several(query: &str) -> Result<(), PostgresError> {
    let pieces = split(query).map_err(|error| {
        PostgresError::argument("query", format!("line {}: {}", error.line, error.message))
    })?;
    let mut statements = pieces.iter().filter(|piece| piece.kind != PieceKind::Blank);
    match (statements.next().map(|piece| piece.kind), statements.next()) {
        (None, _) => Err(PostgresError::argument("query", "is empty")),
        (_, Some(_)) => Err(PostgresError::argument(
            "query",
            "holds several statements; use postgresql_script for these",
        )),
        (Some(PieceKind::Statement), None) => Ok(()),
        (Some(kind), None) => Err(PostgresError::argument(
            "query",
            format!("{} cannot be run here", kind.describe()),
        )),
    }
}

#[async_trait]
impl Module for PostgresqlQuery {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        refuse_several(&self.query)?;
        Ok(Plan::CannotPredict)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        let client = server.connect(&server.db(self.login_db.as_deref())).await?;
        let failed = |action: &'static str| PostgresError::sql(action);
        let work = async {
            client
                .batch_execute("BEGIN")
                .await
                .map_err(failed("begin"))?;
            let outcome = run(
                &client,
                &self.query,
                &self.positional_args,
                &self.named_args,
            )
            .await
            .map_err(PostgresError::of_a_statement)?;
            client
                .batch_execute("COMMIT")
                .await
                .map_err(failed("commit"))
                .map_err(PostgresError::of_a_statement)?;
            Ok::<_, ModuleError>(outcome)
        };
        let mut outcome = cancellable(&client, &ctx.cancel, work).await?;
        let first = self.query.trim_start().to_ascii_uppercase();
        outcome.changed = !(first.starts_with("SELECT") || first.starts_with("SHOW"));
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::Unknown {
            doing: format!("running `{}`", first_words(&self.query)),
            found: "whether it was committed cannot be told".into(),
        })
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, _ctx: &TaskContext) -> Advice {
        Advice {
            look: "at the rows that it changes, by psql: it is in effect as a whole or not at all"
                .into(),
            done: "the rows are as they should be afterwards".into(),
            redo: "they are as they were before: it runs again".into(),
        }
    }
}

#[async_trait]
impl Module for PostgresqlSelect {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        refuse_several(&self.query)?;
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        let client = server.connect(&server.db(self.login_db.as_deref())).await?;
        let work = async {
            client
                .batch_execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                .await
                .map_err(PostgresError::sql("begin"))?;
            run(
                &client,
                &self.query,
                &self.positional_args,
                &self.named_args,
            )
            .await
        };
        // The transaction ends with the connection.
        cancellable(&client, &ctx.cancel, work).await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

/// Returns the start of a statement on one line.
#[must_use]
pub fn first_words(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_arguments_become_numbered_ones() {
        let values = [
            ("a".to_owned(), Value::from(1)),
            ("b".to_owned(), Value::from("x")),
        ]
        .into();
        let (text, order) =
            named("SELECT %(b)s, %(a)s, %(b)s, '100%%' LIKE '%x'", &values).expect("valid");
        assert_eq!(text, "SELECT $1, $2, $1, '100%' LIKE '%x'");
        assert_eq!(order, [Value::from("x"), Value::from(1)]);
        assert!(named("%(c)s", &values).is_err());
    }

    #[test]
    fn one_plain_statement_only() {
        assert!(refuse_several("SELECT ';' -- x;\n;").is_ok());
        for wrong in ["", " -- x", "SELECT 1; SELECT 2", "COMMIT", "\\dt"] {
            assert!(refuse_several(wrong).is_err(), "{wrong}");
        }
    }
}
