//! `postgresql_paths`: the files that rows of a database name are on this host, with the right size.

use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use futures_util::{TryStreamExt, pin_mut};
use serde_json::Value;
use tokio_postgres::types::ToSql;

use super::connect::{cancellable, with_login};
use crate::error::{PostgresError, SqlError};
use crate::host::error::{ModuleError, PathError};
use crate::host::worker;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Files that are looked up at once.
const BATCH: usize = 1000;
/// Files that a message and a result name.
const NAMED: usize = 20;

with_login! {
    /// Looks up every file that a query names.
    pub struct PostgresqlPaths {
        /// A query with the columns `path` (text) and, where sizes are to be compared, `size` (bigint,
        /// bytes; NULL is not compared). It runs in a read-only transaction.
        pub query: String,
        /// Folder in which the paths start.
        pub dir: PathBuf,
        /// Database. Default: the service's.
        #[serde(default, alias = "db")]
        #[schemars(extend("aliases" = ["db"]))]
        pub login_db: Option<String>,
        /// Look up so many files only, taken at equal distances of rows. Default: all.
        #[serde(default)]
        pub sample: Option<u64>,
    }
}

impl TypedModule for PostgresqlPaths {
    const NAME: &'static str = "postgresql_paths";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_paths"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str =
        "Looks up the files that a query names: they are there, and of the right size.";
    const EXAMPLE: &'static str = r#"- name: Every file that the archive knows is there
  postgresql_paths:
    db: pacsdb
    query: SELECT storage_path AS path, object_size AS size FROM location
    dir: "{{ slow_data_dir }}/dcm4che/dicom_data"
  register: files   # files.rows, .looked_up; on failure: files.missing, .wrong_size, .files
"#;
}

/// What a row names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    path: String,
    size: Option<i64>,
}

/// What was found so far.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    looked_up: u64,
    missing: u64,
    wrong_size: u64,
    /// The first of those, each with what is wrong.
    files: Vec<String>,
}

impl Tally {
    fn note(&mut self, text: String) {
        if self.files.len() < NAMED {
            self.files.push(text);
        }
    }
}

/// A path of a database leads nowhere but into the folder.
fn inside(dir: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    path.components().all(plain).then(|| dir.join(path))
}

fn look_up(dir: &Path, batch: &[Named], tally: &mut Tally) -> Result<(), PathError> {
    for named in batch {
        tally.looked_up += 1;
        let Some(path) = inside(dir, &named.path) else {
            tally.missing += 1;
            tally.note(format!("{}: leads out of the folder", named.path));
            continue;
        };
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => {
                let size = i64::try_from(found.len()).unwrap_or(i64::MAX);
                if let Some(expected) = named.size.filter(|expected| *expected != size) {
                    tally.wrong_size += 1;
                    tally.note(format!(
                        "{}: {size} bytes instead of {expected}",
                        named.path
                    ));
                }
            }
            Ok(_) => {
                tally.missing += 1;
                tally.note(format!("{}: is no file", named.path));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                tally.missing += 1;
                tally.note(format!("{}: is not there", named.path));
            }
            Err(error) => return Err(PathError::on("inspect", &path)(error)),
        }
    }
    Ok(())
}

impl PostgresqlPaths {
    async fn look(&self, ctx: &TaskContext) -> Result<(u64, Tally), ModuleError> {
        let server = self.login().server(ctx)?;
        let db = server.db(self.login_db.as_deref());
        let client = server.connect(&db).await?;
        let failed = || PostgresError::sql("ask for the paths");
        let query = self.query.trim().trim_end_matches(';');
        let begin = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        client.batch_execute(begin).await.map_err(failed())?;
        let count = format!("SELECT count(*) FROM ({query}) AS rows_of_query");
        let counted = async { client.query_one(&count, &[]).await.map_err(failed()) };
        let counted = cancellable(&client, &ctx.cancel, counted).await?;
        let rows = u64::try_from(counted.get::<_, i64>(0)).unwrap_or(0);
        let wanted = self.sample.unwrap_or(rows).min(rows);
        let nothing: [&(dyn ToSql + Sync); 0] = [];
        let stream = async { client.query_raw(query, nothing).await.map_err(failed()) };
        let stream = cancellable(&client, &ctx.cancel, stream).await?;
        pin_mut!(stream);
        let (mut tally, mut batch, mut at) = (Tally::default(), Vec::new(), 0_u64);
        loop {
            let next = async { stream.try_next().await.map_err(failed()) };
            let row = cancellable(&client, &ctx.cancel, next).await?;
            if let Some(row) = &row {
                let before = at;
                at += 1;
                // Row n is one of the sample when a step of rows / wanted ends with it.
                let step = |n: u64| u128::from(n) * u128::from(wanted) / u128::from(rows.max(1));
                if step(at) == step(before) {
                    continue;
                }
                batch.push(named_by(row)?);
            }
            if batch.len() >= BATCH || row.is_none() {
                let (dir, full) = (ctx.resolve(&self.dir), std::mem::take(&mut batch));
                let looked = worker::blocking("look for files", move || {
                    look_up(&dir, &full, &mut tally).map(|()| tally)
                });
                tally = looked.await??;
                ctx.progress.items(tally.looked_up, Some(wanted), "files");
            }
            if row.is_none() {
                return Ok((rows, tally));
            }
        }
    }
}

fn named_by(row: &tokio_postgres::Row) -> Result<Named, PostgresError> {
    let of = |error| PostgresError::sql("read a path (column `path` must be text)")(error);
    let has_size = row.columns().iter().any(|column| column.name() == "size");
    let path: Option<String> = row.try_get("path").map_err(of)?;
    Ok(Named {
        path: path.ok_or_else(|| PostgresError::Sql {
            action: "read a path".into(),
            source: SqlError::said("a row has none (NULL)"),
        })?,
        size: if has_size {
            row.try_get("size").map_err(PostgresError::sql(
                "read a size (column `size` must be bigint)",
            ))?
        } else {
            None
        },
    })
}

#[async_trait]
impl Module for PostgresqlPaths {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let (rows, tally) = self.look(ctx).await?;
        if tally.missing + tally.wrong_size > 0 {
            return Err(PostgresError::Files {
                dir: ctx.resolve(&self.dir),
                looked_up: tally.looked_up,
                missing: tally.missing,
                wrong_size: tally.wrong_size,
                files: tally.files,
            }
            .into());
        }
        Ok(Outcome::ok()
            .with("rows", rows)
            .with("looked_up", tally.looked_up)
            .summary(format!("{} of {rows} files looked up", tally.looked_up)))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_short_and_outside_files_are_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::create_dir(dir.path().join("a")).expect("mkdir");
        std::fs::write(dir.path().join("a/b"), "1234").expect("write");
        let named = |path: &str, size| Named {
            path: path.into(),
            size,
        };
        let batch = [
            named("a/b", Some(4)),
            named("a/b", None),
            named("a/b", Some(5)),
            named("a/c", Some(4)),
            named("a", None),
            named("a/b/c", None),
            named("../b", None),
            named("/etc/passwd", None),
        ];
        let mut tally = Tally::default();
        look_up(dir.path(), &batch, &mut tally).expect("readable");
        assert_eq!(
            (tally.looked_up, tally.missing, tally.wrong_size),
            (8, 5, 1)
        );
        assert_eq!(tally.files[0], "a/b: 4 bytes instead of 5");
        assert_eq!(tally.files[4], "../b: leads out of the folder");
    }
}
