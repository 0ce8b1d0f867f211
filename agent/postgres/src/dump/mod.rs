//! `postgresql_dump`: a plain dump, made by the server's own pg_dump.

pub(crate) mod ahead;
pub(crate) mod pipe;
pub(crate) mod sink;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bollard::Docker;
use serde_json::{Value, json};

use super::error::PostgresError;
use crate::dump::ahead::{Growing, RestoreAhead};
use crate::dump::pipe::DumpPipe;
use crate::dump::sink::{Sink, Written};
use crate::format::text;
use crate::host::docker::client;
use crate::host::docker::exec::{ExecRequest, ExecStreams, run};
use crate::host::error::{ModuleError, PathError};
use crate::host::files::durable::{fsync_dir, parent_of};
use crate::host::files::whole::{hash_file, rename_new, write_whole};
use crate::host::output_file::OutputFile;
use crate::host::progress::Progress;
use crate::host::worker;
use crate::server::connect::{Server, with_login};
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::target::target;
use crate::task::undo::{PastAttempt, Undo, files_made};

with_login! {
    /// Dumps a database to plain SQL with the pg_dump of its own container.
    pub struct PostgresqlDump {
        /// Database. Default: the service's.
        #[serde(default, alias = "login_db")]
        #[schemars(extend("aliases" = ["login_db"]))]
        pub db: Option<String>,
        /// File that gets the dump; it must not exist. Where its name ends with `.zst` it is compressed,
        /// so that `zstd -d` and `postgresql_restore` read it. Beside it `<dest>.sha256` says its
        /// checksum, for `sha256sum -c`. Relative paths start at the playbook.
        #[serde(alias = "target")]
        #[schemars(extend("aliases" = ["target"]))]
        pub dest: PathBuf,
        /// Container that has pg_dump and the server. Default: the service's.
        #[serde(default)]
        pub container: Option<String>,
        /// More arguments of pg_dump, word by word.
        #[serde(default, alias = "dump_extra_args")]
        #[schemars(extend("aliases" = ["dump_extra_args"]))]
        pub extra_args: Vec<String>,
        /// Server that the dump is restored into while it is being written: a head start for the
        /// `postgresql_restore` with this dump's `checksum` that comes next and gives the database its
        /// name. Compressed dumps have none.
        #[serde(default)]
        pub restore_ahead: Option<RestoreAhead>,
    }
}

impl TypedModule for PostgresqlDump {
    const NAME: &'static str = "postgresql_dump";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_dump"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "done where a file that it made is there with the SHA-256 noted beside it; otherwise the half file is removed and the dump made again; what was restored ahead of a dump that is not whole is dropped; a file that it has not made: *unknown*";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str =
        "Dumps a database to a plain SQL file that is proved to be whole.";
    const EXAMPLE: &'static str = r#"- name: Dump to plain SQL
  postgresql_dump:
    db: pacsdb
    dest: "{{ backup_dir }}/pacsdb_old.sql"
  register: dump   # dump.dest, .size, .checksum (sha256:<hex>), .sha256, .program, .uncompressed_size, .restored_ahead
"#;

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        // The checksum goes last: it says whose the dump is.
        files_made(efforts, &["dest", "checksum_file"])
    }
}

/// First line of the checksum file; says who made the dump. `sha256sum -c` passes such lines over.
const MADE_BY: &str = "# kaapana-agent attempt ";

impl PostgresqlDump {
    fn dest(&self, ctx: &TaskContext) -> PathBuf {
        ctx.resolve(&self.dest)
    }

    async fn dump(
        &self,
        ctx: &TaskContext,
        dest: &Path,
        partial: &Path,
    ) -> Result<Outcome, ModuleError> {
        let server = self.login().server(ctx)?;
        let db = server.db(self.db.as_deref());
        let container = target(ctx, self.container.as_deref(), self.service.as_deref())?;
        let docker = client::connect(ctx).await?;
        let total = estimate(&server, &db).await?;
        let request = request(&server, &db, &self.extra_args);
        let compress = is_compressed(dest);
        let ahead = self.restore_ahead.as_ref().filter(|_| !compress);
        // The restore is behind it, and says how far that is.
        let progress = match ahead {
            Some(_) => Progress::none(),
            None => ctx.progress.clone(),
        };
        let sink = Sink::create(partial, compress, progress, total)?;
        let writing = self.write(ctx, (&docker, &container), request, (dest, partial), sink);
        let (written, restored) = match ahead {
            Some(ahead) => {
                let growing = Growing {
                    dest,
                    partial,
                    estimate: total,
                };
                ahead.beside(ctx, &growing, writing).await?
            }
            None => (writing.await?, None),
        };
        let outcome = outcome(dest, written.size, &written.sha256, partial)?;
        self.put_in_place(ctx, dest, partial, &written.sha256)?;
        let Some(filled) = restored else {
            return Ok(outcome.with("restored_ahead", Value::Null));
        };
        let said = format!(
            "{}, restored meanwhile",
            outcome.summary.as_deref().unwrap_or_default()
        );
        let ahead = json!({"tables": filled.tables, "rows": filled.rows});
        Ok(outcome.with("restored_ahead", ahead).summary(said))
    }

    /// Lets pg_dump write, and looks whether what it wrote is whole.
    async fn write(
        &self,
        ctx: &TaskContext,
        (docker, container): (&Docker, &str),
        request: ExecRequest,
        (dest, partial): (&Path, &Path),
        mut sink: Sink,
    ) -> Result<Written, ModuleError> {
        let mut hear = |line: &str| ctx.progress.line(ctx.redactor.text(line));
        let pipe = DumpPipe::beside(docker, container, partial).await?;
        let ended = match &pipe {
            Some(pipe) => {
                let streams = ExecStreams {
                    on_stderr: Some(&mut hear),
                    ..ExecStreams::default()
                };
                let request = pipe.request(request);
                let dumping = run(docker, container, &request, streams, &ctx.cancel);
                pipe.pump(dumping, &mut sink).await
            }
            None => {
                let streams = ExecStreams {
                    stdin: None,
                    stdout: Some(&mut sink),
                    on_stderr: Some(&mut hear),
                };
                run(docker, container, &request, streams, &ctx.cancel).await
            }
        };
        drop(pipe);
        let end = match ended {
            Ok(end) => end,
            // A full disk is said with the file that did not fit.
            Err(error) => match sink.take_failure() {
                Some(source) => {
                    let path = partial.to_path_buf();
                    return Err(PathError {
                        action: "write",
                        path,
                        source,
                    }
                    .into());
                }
                None => return Err(error),
            },
        };
        if end.exit_code != 0 {
            return Err(PostgresError::Program {
                program: "pg_dump",
                rc: end.exit_code,
                place: None,
                stderr: ctx.redactor.text(&end.stderr),
            }
            .into());
        }
        if !sink.is_complete() {
            return Err(PostgresError::BadDump {
                path: dest.to_path_buf(),
                message: "pg_dump ended without its completion line".into(),
                help: "check that the container has room and memory, then run the playbook again"
                    .into(),
            }
            .into());
        }
        Ok(sink.finish(partial).await?)
    }

    /// Tells what became of the file.
    async fn recover_file(
        &self,
        ctx: &TaskContext,
        intent: &Value,
    ) -> Result<Recovery, ModuleError> {
        let dest = intent["dest"]
            .as_str()
            .map_or_else(|| self.dest(ctx), PathBuf::from);
        remove_if_there(&partial_of(&dest))?;
        let sums = sums_of(&dest);
        let made_by_us = read_sums(&sums)
            .filter(|(attempt, _)| Some(attempt) == ctx.interrupted_attempt.as_ref());
        match (dest.exists(), made_by_us) {
            (false, Some(_)) => {
                remove_if_there(&sums)?;
                Ok(Recovery::NotDone)
            }
            (false, None) => Ok(Recovery::NotDone),
            (true, Some((_, expected))) => {
                let hashed = {
                    let (dest, progress) = (dest.clone(), ctx.progress.clone());
                    worker::blocking("hash of the dump", move || {
                        hash_file(&dest, |done| progress.bytes(done, None))
                    })
                    .await
                };
                let (size, sha256) = hashed??;
                if sha256 == expected {
                    fsync_dir(parent_of(&dest))?;
                    return Ok(Recovery::Done(outcome(&dest, size, &sha256, &dest)?));
                }
                Ok(Recovery::Unknown {
                    doing: format!("writing a dump to {}", dest.display()),
                    found: "a file is there whose content was changed since".into(),
                })
            }
            (true, None) => Ok(Recovery::Unknown {
                doing: format!("writing a dump to {}", dest.display()),
                found: "a file is there that this task has not made".into(),
            }),
        }
    }

    /// The checksum file first: with it, a finished dump proves by whom it was made, whenever the
    /// agent is killed.
    fn put_in_place(
        &self,
        ctx: &TaskContext,
        dest: &Path,
        partial: &Path,
        sha256: &str,
    ) -> Result<(), ModuleError> {
        let name = dest.file_name().unwrap_or_default().to_string_lossy();
        let text = format!("{MADE_BY}{}\n{sha256}  {name}\n", ctx.attempt);
        write_whole(&sums_of(dest), text.as_bytes())?;
        rename_new(partial, dest).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ModuleError::from(PostgresError::DestExists {
                path: dest.to_path_buf(),
            }),
            _ => PathError {
                action: "rename into place",
                path: dest.to_path_buf(),
                source,
            }
            .into(),
        })?;
        fsync_dir(parent_of(dest))?;
        Ok(())
    }
}

/// `path`: where the dump is now.
fn outcome(dest: &Path, size: u64, sha256: &str, path: &Path) -> Result<Outcome, PostgresError> {
    let (program, text) = text::made_by(path)?;
    let file = OutputFile {
        path: dest.to_path_buf(),
        size,
        sha256: sha256.to_owned(),
    };
    Ok(Outcome::changed()
        .with("dest", dest.display().to_string())
        .with("size", size)
        .with("checksum", format!("sha256:{sha256}"))
        .with("sha256", sha256)
        .with("checksum_file", sums_of(dest).display().to_string())
        .with("program", program)
        .with("uncompressed_size", text)
        .output(file)
        .summary(format!("{} ({} MiB)", dest.display(), size >> 20)))
}

fn is_compressed(dest: &Path) -> bool {
    dest.extension().is_some_and(|extension| extension == "zst")
}

fn beside(dest: &Path, suffix: &str) -> PathBuf {
    let mut name = dest.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sums_of(dest: &Path) -> PathBuf {
    beside(dest, ".sha256")
}

fn partial_of(dest: &Path) -> PathBuf {
    beside(dest, ".partial")
}

/// The password goes through the environment, where no process list shows it, and so does the name
/// of the database, which pg_dump would otherwise take for a connection string.
fn request(server: &Server, db: &str, extra: &[String]) -> ExecRequest {
    let mut command = vec![
        "pg_dump".to_owned(),
        "--exclude-schema=kaapana_agent".to_owned(),
    ];
    command.extend(extra.iter().cloned());
    let request = ExecRequest::new(command)
        .env("PGUSER", &server.user)
        .env("PGDATABASE", db)
        .env("LC_MESSAGES", "C");
    match &server.password {
        Some(password) => request.env("PGPASSWORD", password),
        None => request,
    }
}

/// Size of all tables: about what a dump has, since text is larger and free space is not dumped.
async fn estimate(server: &Server, db: &str) -> Result<u64, PostgresError> {
    let client = server.connect(db).await?;
    let row = client
        .query_one(
            "SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
            &[],
        )
        .await
        .map_err(PostgresError::sql("estimate the size of the dump"))?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

/// Says whose dump a checksum file belongs to, and its checksum.
fn read_sums(path: &Path) -> Option<(String, String)> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    let attempt = lines.next()?.strip_prefix(MADE_BY)?.to_owned();
    let sha256 = lines.next()?.split_whitespace().next()?.to_owned();
    Some((attempt, sha256))
}

fn remove_if_there(path: &Path) -> Result<(), PathError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PathError::on("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Module for PostgresqlDump {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let dest = self.dest(ctx);
        if dest.exists() {
            return Err(PostgresError::DestExists { path: dest }.into());
        }
        Ok(Plan::NeedsChange(vec![format!(
            "write a dump to {}",
            dest.display()
        )]))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let dest = self.dest(ctx);
        if dest.exists() {
            return Err(PostgresError::DestExists { path: dest }.into());
        }
        let sums = sums_of(&dest);
        if sums.exists() && read_sums(&sums).is_none() {
            return Err(PostgresError::DestExists { path: sums }.into());
        }
        let ahead = match &self.restore_ahead {
            Some(ahead) if !is_compressed(&dest) => ahead.prepare(ctx).await?,
            _ => Value::Null,
        };
        Ok(json!({"dest": dest, "partial": partial_of(&dest), "ahead": ahead}))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let dest = self.dest(ctx);
        if dest.exists() {
            return Err(PostgresError::DestExists { path: dest }.into());
        }
        let partial = partial_of(&dest);
        let dumped = self.dump(ctx, &dest, &partial).await;
        if dumped.is_err() {
            remove_if_there(&partial)?;
        }
        dumped
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let recovery = self.recover_file(ctx, intent).await?;
        if let Some(ahead) = &self.restore_ahead {
            let dumped = matches!(recovery, Recovery::Done(_));
            ahead.recover(ctx, &intent["ahead"], dumped).await?;
        }
        Ok(recovery)
    }

    fn advice(&self, ctx: &TaskContext) -> Advice {
        let dest = ctx.resolve(&self.dest);
        let dest = dest.display();
        Advice {
            look: format!(
                "who made {dest} (`stat {dest}`), and whether it ends with `PostgreSQL database dump \
                 complete` (`tail -n 3 {dest}`)"
            ),
            done: "no later task needs its checksum, which only a run notes: almost never".into(),
            redo: format!(
                "{dest} has been moved away: the dump is made anew, and changes nothing in the \
                 database"
            ),
        }
    }
}
