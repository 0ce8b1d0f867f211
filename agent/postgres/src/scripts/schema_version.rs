//! `postgresql_schema_version`: the schema is the one that the next step is made for.
//!
//! Neither PostgreSQL nor the update scripts know a version. On a schema that is one version too old
//! all scripts run through without an error, and leave dozens of columns missing; so the version is
//! told by marks: tables, columns and indexes that came or went with it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio_postgres::Client;

use crate::error::PostgresError;
use crate::host::error::ModuleError;
use crate::server::connect::{cancellable, with_login};
use crate::snapshot::model::qualified;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// A mark of a version: something that is there, or gone, from that version on.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// Table, `name` or `schema.name`.
    pub table: String,
    /// Column of the table.
    #[serde(default)]
    pub column: Option<String>,
    /// Columns that an index of the table begins with.
    #[serde(default)]
    pub index_on: Vec<String>,
    /// The mark is that it is gone. Default: false.
    #[serde(default)]
    pub absent: bool,
    /// First version that has the mark; before it the opposite must be true. Default: every version.
    #[serde(default, deserialize_with = "version_text", alias = "label")]
    #[schemars(extend("aliases" = ["label"]))]
    #[schemars(with = "Option<String>")]
    pub version: Option<String>,
    /// First version that no longer has the mark.
    #[serde(default, deserialize_with = "version_text")]
    #[schemars(with = "Option<String>")]
    pub until: Option<String>,
}

/// YAML takes `5.30` for the number 5.3, so a number with a point is refused.
fn version_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) if number.is_u64() => Ok(Some(number.to_string())),
        other => Err(serde::de::Error::custom(format!(
            "{other} is no version; write \"5.26\""
        ))),
    }
}

with_login! {
    /// Tells of which version a database's schema is, by marks in its catalogue.
    pub struct PostgresqlSchemaVersion {
        /// Version that the schema must be of, e.g. `"5.26"`. Default: any, as long as the marks fit one
        /// version altogether.
        #[serde(default, deserialize_with = "version_text")]
        #[schemars(with = "Option<String>")]
        pub expected: Option<String>,
        /// Oldest version that will do, where `expected` does not name one. Default: any.
        #[serde(default, deserialize_with = "version_text")]
        #[schemars(with = "Option<String>")]
        pub at_least: Option<String>,
        /// Marks of all versions. The same list serves every step: marks of later versions must not
        /// be there yet.
        pub markers: Vec<Marker>,
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
    }
}

impl TypedModule for PostgresqlSchemaVersion {
    const NAME: &'static str = "postgresql_schema_version";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_schema_version"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Tells by marks in the catalogue of which version a schema is.";
    const EXAMPLE: &'static str = r#"- name: The schema is 5.26
  postgresql_schema_version:
    db: pacsdb
    expected: "5.26"
    markers:
      - {table: mpps, column: accno_entity_id, version: "5.26"}
      - {table: instance_req, version: "5.27"}
      - {table: key_value, version: "5.28", until: "5.29"}
      - {table: patient, column: patient_id_fk, absent: true, version: "5.31"}
      - {table: task, index_on: [exporter_id], version: "5.31.1"}
  register: schema   # schema.version; on failure: schema.problems, schema.looks_like
"#;
}

/// The catalogue, as far as marks need it.
#[derive(Default)]
struct Catalogue {
    tables: BTreeSet<String>,
    columns: BTreeSet<(String, String)>,
    indexes: Vec<(String, Vec<String>)>,
}

async fn read_catalogue(client: &Client) -> Result<Catalogue, PostgresError> {
    let failed = || PostgresError::sql("read the catalogue");
    let mut catalogue = Catalogue::default();
    let columns = client
        .query(
            "SELECT n.nspname || '.' || c.relname, a.attname::text FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'",
            &[],
        )
        .await
        .map_err(failed())?;
    for row in columns {
        let table: String = row.get(0);
        if let Some(column) = row.get::<_, Option<String>>(1) {
            catalogue.columns.insert((table.clone(), column));
        }
        catalogue.tables.insert(table);
    }
    let indexes = client
        .query(
            "SELECT n.nspname || '.' || c.relname, \
             ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false) \
                   FROM generate_series(1, i.indnatts::int) AS k ORDER BY k) \
             FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_'",
            &[],
        )
        .await
        .map_err(failed())?;
    for row in indexes {
        let columns: Vec<String> = row.get(1);
        let plain = columns
            .iter()
            .map(|column| column.trim_matches('"').to_owned())
            .collect();
        catalogue.indexes.push((row.get(0), plain));
    }
    Ok(catalogue)
}

/// Compares dotted numbers number by number.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<u64> {
        text.split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    let (mut a, mut b) = (parts(a), parts(b));
    // 5.31 and 5.31.0 are the same.
    let length = a.len().max(b.len());
    a.resize(length, 0);
    b.resize(length, 0);
    a.cmp(&b)
}

impl Marker {
    fn object(&self) -> String {
        match (&self.column, self.index_on.is_empty()) {
            (_, false) => format!("index on {}({})", self.table, self.index_on.join(", ")),
            (Some(column), true) => format!("column {}.{column}", self.table),
            (None, true) => format!("table {}", self.table),
        }
    }

    fn is_there(&self, catalogue: &Catalogue) -> bool {
        let table = qualified(&self.table);
        match (&self.column, self.index_on.is_empty()) {
            (_, false) => catalogue
                .indexes
                .iter()
                .any(|(of, columns)| *of == table && columns.starts_with(&self.index_on)),
            (Some(column), true) => catalogue.columns.contains(&(table, column.clone())),
            (None, true) => catalogue.tables.contains(&table),
        }
    }

    /// Says what is wrong for a schema of `version`, or nothing.
    fn problem(&self, catalogue: &Catalogue, version: &str) -> Option<Misfit> {
        let from = self.version.as_deref();
        let started = from.is_none_or(|from| compare_versions(version, from) != Ordering::Less);
        let ended = self
            .until
            .as_deref()
            .is_some_and(|until| compare_versions(version, until) != Ordering::Less);
        let wanted = (started && !ended) != self.absent;
        if self.is_there(catalogue) == wanted {
            return None;
        }
        let object = self.object();
        let since = |how: &str| from.map_or_else(String::new, |from| format!(" ({how} {from})"));
        let text = match (wanted, self.absent) {
            (true, false) => format!("{object} is missing{}", since("it came with")),
            (true, true) => format!("{object} is missing{}", since("it goes only with")),
            (false, false) if ended => format!(
                "{object} is still there (it went with {})",
                self.until.as_deref().unwrap_or_default()
            ),
            (false, false) => format!("{object} is there already{}", since("it comes with")),
            (false, true) => format!("{object} is still there{}", since("it went with")),
        };
        Some(Misfit {
            text,
            early: wanted == self.absent && !ended,
        })
    }
}

/// A mark that does not fit a version.
struct Misfit {
    /// For people.
    text: String,
    /// The mark belongs to a later version; otherwise that of this or an earlier one is not there.
    early: bool,
}

fn texts(misfits: Vec<Misfit>) -> Vec<String> {
    misfits.into_iter().map(|misfit| misfit.text).collect()
}

impl PostgresqlSchemaVersion {
    fn problems(&self, catalogue: &Catalogue, version: &str) -> Vec<Misfit> {
        self.markers
            .iter()
            .filter_map(|marker| marker.problem(catalogue, version))
            .collect()
    }

    /// The versions that the marks name, the oldest first.
    fn versions(&self) -> Vec<&String> {
        let mut versions: Vec<&String> = self
            .markers
            .iter()
            .flat_map(|marker| marker.version.iter().chain(&marker.until))
            .collect();
        versions.sort_by(|a, b| compare_versions(a, b));
        versions.dedup();
        versions
    }

    /// Returns the newest version whose marks all fit.
    fn looks_like(&self, catalogue: &Catalogue) -> Option<String> {
        let fits = |version: &&String| self.problems(catalogue, version).is_empty();
        self.versions().into_iter().rev().find(fits).cloned()
    }

    /// Where no version fits: the one whose step was begun and not ended, or was left out, and what tells so.
    fn half_done(&self, catalogue: &Catalogue) -> (String, Vec<String>) {
        let versions = self.versions();
        // The fewest marks speak against the version that the step began from, or was to lead to.
        let nearest = versions
            .iter()
            .enumerate()
            .min_by_key(|(_, version)| self.problems(catalogue, version).len());
        let Some((index, nearest)) = nearest else {
            return (String::new(), Vec::new());
        };
        let misfits = self.problems(catalogue, nearest);
        match versions.get(index + 1) {
            Some(next) if misfits.iter().any(|misfit| misfit.early) => {
                ((*next).clone(), texts(self.problems(catalogue, next)))
            }
            _ => ((*nearest).clone(), texts(misfits)),
        }
    }

    /// Tells the version, or why there is none that would do.
    fn judge(&self, catalogue: &Catalogue, db: &str) -> Result<String, PostgresError> {
        let other = |expected: &str, problems: Vec<Misfit>| PostgresError::SchemaVersion {
            db: db.to_owned(),
            expected: expected.to_owned(),
            problems: texts(problems),
            looks_like: self.looks_like(catalogue),
        };
        if let Some(expected) = &self.expected {
            let problems = self.problems(catalogue, expected);
            return if problems.is_empty() {
                Ok(expected.clone())
            } else {
                Err(other(expected, problems))
            };
        }
        let Some(version) = self.looks_like(catalogue) else {
            let (version, problems) = self.half_done(catalogue);
            return Err(PostgresError::SchemaHalfDone {
                db: db.to_owned(),
                version,
                problems,
            });
        };
        match &self.at_least {
            Some(least) if compare_versions(&version, least) == Ordering::Less => {
                Err(other(least, self.problems(catalogue, least)))
            }
            _ => Ok(version),
        }
    }
}

#[async_trait]
impl Module for PostgresqlSchemaVersion {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if self.markers.is_empty() {
            return Err(
                PostgresError::argument("markers", "is empty: nothing would be checked").into(),
            );
        }
        let server = self.login().server(ctx)?;
        let db = server.db(self.login_db.as_deref());
        let client = server.connect(&db).await?;
        let catalogue = cancellable(&client, &ctx.cancel, read_catalogue(&client)).await?;
        let version = self.judge(&catalogue, &db)?;
        Ok(Outcome::ok()
            .with("version", version.as_str())
            .with("markers", self.markers.len())
            .with("tables", catalogue.tables.len())
            .summary(format!("{version} ({} marks fit)", self.markers.len())))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(expected: &str) -> PostgresqlSchemaVersion {
        let mut module: PostgresqlSchemaVersion = serde_yaml::from_str(
            "{expected: '5.26', markers: [\
             {table: mpps, column: accno, version: '5.26'},\
             {table: instance_req, version: '5.27'},\
             {table: key_value, version: '5.28', until: '5.29'},\
             {table: patient, column: patient_id_fk, absent: true, version: '5.31'},\
             {table: task, index_on: [exporter_id], version: 5.31.1}]}",
        )
        .expect("valid");
        module.expected = Some(expected.into());
        module
    }

    fn catalogue(tables: &[&str], columns: &[(&str, &str)]) -> Catalogue {
        let full = |name: &&str| format!("public.{name}");
        Catalogue {
            tables: tables.iter().map(full).collect(),
            columns: columns
                .iter()
                .map(|(t, c)| (full(t), (*c).to_owned()))
                .collect(),
            indexes: Vec::new(),
        }
    }

    #[test]
    fn a_schema_that_is_too_old_or_too_new_is_named() {
        let v26 = catalogue(
            &["mpps", "patient"],
            &[("mpps", "accno"), ("patient", "patient_id_fk")],
        );
        assert!(module("5.26").problems(&v26, "5.26").is_empty());
        let v25 = catalogue(&["mpps", "patient"], &[("patient", "patient_id_fk")]);
        let said = texts(module("5.26").problems(&v25, "5.26"));
        assert_eq!(said, ["column mpps.accno is missing (it came with 5.26)"]);
        assert_eq!(module("5.26").looks_like(&v25), None);
        let v28 = catalogue(
            &["mpps", "patient", "instance_req", "key_value"],
            &[("mpps", "accno"), ("patient", "patient_id_fk")],
        );
        assert_eq!(module("5.26").problems(&v28, "5.26").len(), 2);
        assert_eq!(module("5.26").looks_like(&v28).as_deref(), Some("5.28"));
        let mut any = module("5.26");
        any.expected = None;
        assert_eq!(any.judge(&v28, "d").expect("fits"), "5.28");
        any.at_least = Some("5.29".into());
        let old = any.judge(&v28, "d").expect_err("too old").to_string();
        assert!(
            old.contains("is not 5.29") && old.contains("key_value is still there"),
            "{old}"
        );
        assert_eq!(compare_versions("5.31", "5.31.1"), Ordering::Less);
        assert_eq!(compare_versions("5.9", "5.31"), Ordering::Less);
    }

    #[test]
    fn a_step_that_was_begun_or_left_out_is_named_by_its_version() {
        let mut any: PostgresqlSchemaVersion = serde_yaml::from_str(
            "{markers: [\
             {table: mwl_item, column: worklist_label, version: '5.30'},\
             {table: patient_id, column: patient_fk, version: '5.31'},\
             {table: patient, column: patient_id_fk, absent: true, version: '5.31'},\
             {table: task, index_on: [exporter_id], version: 5.31.1},\
             {table: study, column: study_deleting, version: '5.32'}]}",
        )
        .expect("valid");
        any.at_least = Some("5.30".into());
        let tables = ["mwl_item", "patient_id", "patient", "task", "study"];
        let v30 = ("mwl_item", "worklist_label");
        let (new, old) = (("patient_id", "patient_fk"), ("patient", "patient_id_fk"));
        let said = |columns: &[(&str, &str)]| match any.judge(&catalogue(&tables, columns), "d") {
            Err(PostgresError::SchemaHalfDone { version, .. }) => version,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(&[v30, new, old]), "5.31", "added, nothing dropped yet");
        assert_eq!(said(&[v30]), "5.31", "dropped, nothing added");
        assert_eq!(
            said(&[v30, old, ("study", "study_deleting")]),
            "5.31",
            "left out"
        );
    }
}
