//! `postgresql_verify`: two snapshots hold the same content, apart from declared changes.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::differing_rows::Wanted;
use crate::error::PostgresError;
use crate::format::anticipate::{self, Anticipated};
use crate::host::error::{ModuleError, PathError};
use crate::server::connect::{cancellable, with_login};
use crate::snapshot::compare::{DeclaredChanges, Difference, compare};
use crate::snapshot::model::Snapshot;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

with_login! {
    /// Compares two snapshots and names every difference.
    pub struct PostgresqlVerify {
        /// Snapshot before: a registered result of `postgresql_snapshot`, or the path of its `dest`. Both
        /// were taken with the same `changed_columns`.
        pub before: Value,
        /// Snapshot after: likewise.
        pub after: Value,
        /// What may differ. Default: nothing.
        #[serde(default)]
        pub changes: DeclaredChanges,
        /// What a restore between them has anticipated: its result `anticipated`. These tables must be
        /// what they were with their NULLs filled, value for value; `before` was taken with the same
        /// `anticipate`.
        #[serde(default)]
        pub anticipated: Vec<Anticipated>,
        /// The update scripts that come next, as `postgresql_restore` got them: what was anticipated must
        /// be what they do, also when they were changed since.
        #[serde(default)]
        pub anticipate: Vec<PathBuf>,
        /// Dump of the database that `before` is of. With it, and a server that has the one that `after`
        /// is of, the first rows that differ are named by their keys.
        #[serde(default)]
        pub dump: Option<PathBuf>,
    }
}

impl TypedModule for PostgresqlVerify {
    const NAME: &'static str = "postgresql_verify";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_verify"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "compares again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Compares two snapshots of databases and names every difference.";
    const EXAMPLE: &'static str = r#"- name: Nothing was lost on the way
  postgresql_verify:
    before: "{{ before }}"
    after: "{{ after }}"
    dump: "{{ dump.dest }}"
    changes:
      tables_dropped: [key_value]
      columns: {study: [study_deleting]}
  register: verified   # verified.tables, verified.rows, verified.differences (when it fails)
"#;
}

fn read(
    ctx: &TaskContext,
    value: &Value,
    argument: &'static str,
) -> Result<Snapshot, PostgresError> {
    let bad = |error: serde_json::Error| {
        PostgresError::argument(argument, format!("is no snapshot: {error}"))
    };
    match value {
        Value::String(path) => {
            let path = ctx.resolve(Path::new(path));
            let text = std::fs::read(&path).map_err(PathError::on("read", &path))?;
            serde_json::from_slice(&text).map_err(bad)
        }
        // A registered result has more keys than the snapshot; these are passed over.
        other => serde_json::from_value(other.clone()).map_err(bad),
    }
}

/// In so many tables rows are named.
const TABLES: usize = 3;

impl PostgresqlVerify {
    /// Makes sure that what was anticipated is among what the scripts do.
    fn still_anticipated(&self, ctx: &TaskContext) -> Result<(), PostgresError> {
        if self.anticipate.is_empty() {
            return Ok(());
        }
        let scripts = anticipate::of_scripts(ctx, &self.anticipate)?;
        for done in &self.anticipated {
            for (column, value) in &done.columns {
                let now = scripts.get(&done.table).and_then(|fills| fills.get(column));
                if now != Some(value) {
                    return Err(PostgresError::AnticipatedOtherwise {
                        table: done.table.clone(),
                        column: column.clone(),
                        value: value.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Adds the rows that differ, where a dump and a server tell. That they cannot be told is no error of its
    /// own: the difference is one already.
    async fn name_rows(&self, ctx: &TaskContext, after: &Snapshot, differences: &mut [Difference]) {
        let Some(dump) = &self.dump else { return };
        let dump = ctx.resolve(dump);
        let placed = differences.iter_mut().filter(|found| found.place.is_some());
        for found in placed.take(TABLES) {
            match self.rows_of(ctx, after, found, &dump).await {
                Ok(Some(rows)) => found.text = format!("{}; rows that differ: {rows}", found.text),
                Ok(None) => {}
                Err(error) => ctx.progress.line(format!(
                    "which rows of {} differ cannot be told: {error}",
                    found.object
                )),
            }
        }
    }

    async fn rows_of(
        &self,
        ctx: &TaskContext,
        after: &Snapshot,
        found: &Difference,
        dump: &Path,
    ) -> Result<Option<String>, ModuleError> {
        let (Some(place), Some(table)) = (&found.place, after.tables.get(&found.object)) else {
            return Ok(None);
        };
        let filled = self
            .anticipated
            .iter()
            .find(|done| done.table == found.object);
        let kept = table.kept_columns.as_ref();
        let kept = kept.filter(|_| self.changes.declares(&found.object));
        let wanted = Wanted {
            table: found.object.clone(),
            place: place.clone(),
            columns: kept.map_or_else(|| table.columns.keys().cloned().collect(), Clone::clone),
            fills: filled.map(|done| done.columns.clone()).unwrap_or_default(),
        };
        let server = self.login().server(ctx)?;
        let client = server.connect(&after.db).await?;
        cancellable(&client, &ctx.cancel, wanted.name(dump, &client)).await
    }
}

#[async_trait]
impl Module for PostgresqlVerify {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        let scripts = self.anticipate.iter();
        scripts.map(|path| ctx.resolve(path)).collect()
    }

    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let before = read(ctx, &self.before, "before")?;
        let after = read(ctx, &self.after, "after")?;
        if before.tables.is_empty() {
            let message = "holds no table: comparing with nothing proves nothing";
            return Err(PostgresError::argument("before", message).into());
        }
        self.still_anticipated(ctx)?;
        let compared = compare(&before, &after, &self.changes, &self.anticipated);
        let (mut differences, full, kept) = compared;
        if !differences.is_empty() {
            self.name_rows(ctx, &after, &mut differences).await;
            let details = differences
                .iter()
                .map(|d| json!({"object": d.object, "kind": d.kind, "message": d.text}))
                .collect();
            let differences = differences
                .into_iter()
                .map(|difference| difference.text)
                .collect();
            return Err(PostgresError::Differs {
                differences,
                details,
            }
            .into());
        }
        let rows = after.total_rows();
        Ok(Outcome::ok()
            .with("tables", full + kept)
            .with("tables_in_full", full)
            .with("tables_by_kept_columns", kept)
            .with("rows", rows)
            .with("sequences", after.sequences.len())
            .with("digest_before", before.digest)
            .with("digest_after", after.digest)
            .summary(format!(
                "{full} tables equal in full, {kept} in their unchanged columns, {rows} rows"
            )))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
