//! How PostgreSQL modules fail.

use std::path::PathBuf;

use serde_json::{Map, Value};
use tokio_postgres::error::{DbError, ErrorPosition, SqlState};

use crate::host::docker::error::chain_of;
use crate::host::error::{ModuleError, ModuleFailure, PathError};

/// What a server, or the connection to it, said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SqlError {
    /// SQLSTATE, where the server said one.
    pub sqlstate: Option<String>,
    /// The message.
    pub message: String,
    /// Detail, hint and context, where there are any.
    pub detail: Option<String>,
    /// Character in the statement, from 1.
    pub position: Option<u32>,
    /// The connection ended before the server's word on the statement came.
    pub lost: bool,
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if let Some(state) = &self.sqlstate {
            write!(f, " [SQLSTATE {state}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for SqlError {}

impl From<tokio_postgres::Error> for SqlError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self {
                sqlstate: Some(db.code().code().to_owned()),
                message: db.message().to_owned(),
                detail: detail_of(db),
                position: match db.position() {
                    Some(ErrorPosition::Original(position)) => Some(*position),
                    _ => None,
                },
                // Ended from outside (57P01 to 57P03): in the middle of a commit it may have been made.
                lost: db.code().code().starts_with("57P0"),
            },
            None => Self {
                message: chain_of(&error),
                lost: error.is_closed()
                    || std::error::Error::source(&error)
                        .is_some_and(|cause| cause.is::<std::io::Error>()),
                ..Self::default()
            },
        }
    }
}

fn detail_of(db: &DbError) -> Option<String> {
    let parts: Vec<&str> = [db.detail(), db.hint(), db.where_()]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

impl From<tokio_postgres::Error> for Box<SqlError> {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::new(error.into())
    }
}

impl SqlError {
    /// Our own words, where the server said nothing.
    #[must_use]
    pub fn said(message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            message: message.into(),
            ..Self::default()
        })
    }

    /// Tells whether the server has no room left.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        self.sqlstate.as_deref() == Some(SqlState::DISK_FULL.code())
            || self.message.contains("No space left on device")
    }

    /// Tells whether the database that was asked for does not exist.
    #[must_use]
    pub fn is_no_database(&self) -> bool {
        self.sqlstate.as_deref() == Some(SqlState::UNDEFINED_DATABASE.code())
    }
}

/// A PostgreSQL module did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// Nobody said which server.
    #[error("no server to connect to: {0}")]
    NoServer(String),
    /// The server does not let us in.
    #[error("failed to connect to database `{db}` at {address} as `{user}`: {source}")]
    Connect {
        /// Host and port, or socket.
        address: String,
        /// Database.
        db: String,
        /// User.
        user: String,
        /// What was said.
        source: Box<SqlError>,
    },
    /// A statement failed.
    #[error("failed to {action}: {source}")]
    Sql {
        /// What was tried.
        action: String,
        /// What was said.
        source: Box<SqlError>,
    },
    /// A statement of a script failed; nothing was changed.
    #[error("{}:{line}: {source}", script.display())]
    Script {
        /// The file.
        script: PathBuf,
        /// Line of the statement, or of the place in it that the server named.
        line: usize,
        /// The statement, cut short.
        statement: String,
        /// Whether earlier statements stay in effect (`transaction: false`).
        partly: bool,
        /// What was said.
        source: Box<SqlError>,
    },
    /// A script holds something that cannot be run here.
    #[error("{}:{line}: {message}", script.display())]
    ScriptContent {
        /// The file.
        script: PathBuf,
        /// Line.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file is not the one that was pinned.
    #[error("{} has the SHA-256 {found}, expected {expected}", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Pinned.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// A script of this name was applied with another content.
    #[error("script `{script}` was applied to `{db}` on {applied_at} with another content")]
    ScriptDiffers {
        /// Its name.
        script: String,
        /// The database.
        db: String,
        /// When.
        applied_at: String,
    },
    /// What was done in the place of a script is not what the script does any more.
    #[error(
        "NULLs of {table}.{column} came in as '{value}' when the dump was restored, which the update scripts no longer do"
    )]
    AnticipatedOtherwise {
        /// `schema.name`.
        table: String,
        /// The column.
        column: String,
        /// What its NULLs became.
        value: String,
    },
    /// An argument is not understood.
    #[error("argument `{argument}`: {message}")]
    Argument {
        /// Its name.
        argument: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The dump is not whole, or was not made for this.
    #[error("the dump {} cannot be used: {message}", path.display())]
    BadDump {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// A file that would be written is there already.
    #[error("{} exists already and was not made by this task", path.display())]
    DestExists {
        /// The file.
        path: PathBuf,
    },
    /// pg_dump or psql failed.
    #[error("{program} ended with exit code {rc}{}{}", place.as_ref().map(|p| format!(" at {p}")).unwrap_or_default(), said(stderr))]
    Program {
        /// `pg_dump` or `psql`.
        program: &'static str,
        /// Exit code.
        rc: i64,
        /// Line of the dump, where psql named one.
        place: Option<String>,
        /// What it said.
        stderr: String,
    },
    /// A statement of a dump, or a row of it, was refused.
    #[error("{}:{line}: {source}", path.display())]
    Restore {
        /// The dump.
        path: PathBuf,
        /// Line of the statement, of the place in it that the server named, or of the row.
        line: u64,
        /// The statement, cut short.
        statement: String,
        /// What was said.
        source: Box<SqlError>,
    },
    /// The dump is of a newer server than the one that it should go into.
    #[error("the dump {} is of PostgreSQL {dumped}, the server is {server}", path.display())]
    NewerDump {
        /// The dump.
        path: PathBuf,
        /// Version that was dumped.
        dumped: String,
        /// Version of the server.
        server: String,
    },
    /// The target of a restore holds something.
    #[error("database `{db}` is not empty: it holds {objects}")]
    TargetNotEmpty {
        /// Its name.
        db: String,
        /// What was found.
        objects: String,
    },
    /// A database stands in the way that is not provably ours.
    #[error("database `{db}` stands in the way and was not made by this task")]
    ForeignDatabase {
        /// Its name.
        db: String,
    },
    /// The schema is not the one that was expected.
    #[error("the schema of `{db}` is not {expected}: {}", problems.join("; "))]
    SchemaVersion {
        /// Database.
        db: String,
        /// Expected version.
        expected: String,
        /// Each marker that does not fit.
        problems: Vec<String>,
        /// What it looks like instead.
        looks_like: Option<String>,
    },
    /// The schema is of no version: a step from one to the next was begun and not ended, or left out.
    #[error(
        "the schema of `{db}` is of no version: the update to {version} was left half done, or was left \
         out: {}",
        problems.join("; ")
    )]
    SchemaHalfDone {
        /// Database.
        db: String,
        /// The step's version.
        version: String,
        /// Each marker that does not fit this version.
        problems: Vec<String>,
    },
    /// Two snapshots differ.
    #[error("{} differences: {}", differences.len(), shown(differences))]
    Differs {
        /// Each difference, for people.
        differences: Vec<String>,
        /// The same for programs.
        details: Vec<Value>,
    },
    /// Files that a database names are not as it says.
    #[error("of {looked_up} files in {} {missing} are missing and {wrong_size} have another size: {}", dir.display(), shown(files))]
    Files {
        /// The folder.
        dir: PathBuf,
        /// How many were looked up.
        looked_up: u64,
        /// How many are not there.
        missing: u64,
        /// How many are longer or shorter than the database says.
        wrong_size: u64,
        /// The first of them, each with what is wrong.
        files: Vec<String>,
    },
    /// A data directory is not as it should be.
    #[error("the data directory {} {message}", path.display())]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
        /// Stable code.
        code: &'static str,
        /// What to do.
        help: String,
    },
    /// A path on this host.
    #[error(transparent)]
    Path(#[from] PathError),
}

fn said(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    format!(": {}", lines[lines.len().saturating_sub(4)..].join(" | "))
}

fn shown(lines: &[String]) -> String {
    let mut text = lines
        .iter()
        .take(5)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if lines.len() > 5 {
        text.push_str(&format!("; and {} more", lines.len() - 5));
    }
    text
}

impl PostgresError {
    /// Returns a closure for `map_err`; `action` completes "failed to …".
    pub fn sql(action: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let action = action.into();
        move |error| Self::Sql {
            action,
            source: error.into(),
        }
    }

    /// Makes an error about an argument.
    pub fn argument(argument: &'static str, message: impl Into<String>) -> Self {
        Self::Argument {
            argument,
            message: message.into(),
        }
    }

    /// The same, of unknown outcome where the connection ended before the server's word on a statement that
    /// had been sent.
    pub fn of_a_statement(self) -> ModuleError {
        let lost = match &self {
            Self::Sql { source, .. } | Self::Script { source, .. } => source.lost,
            _ => false,
        };
        let error = ModuleError::from(self);
        if lost {
            error.with_unknown_outcome()
        } else {
            error
        }
    }

    fn is_full_disk(&self) -> bool {
        match self {
            Self::Sql { source, .. }
            | Self::Connect { source, .. }
            | Self::Script { source, .. }
            | Self::Restore { source, .. } => source.is_full_disk(),
            Self::Program { stderr, .. } => stderr.contains("No space left on device"),
            _ => false,
        }
    }
}

impl ModuleFailure for PostgresError {
    fn code(&self) -> &'static str {
        if self.is_full_disk() {
            return "postgresql::disk_full";
        }
        match self {
            Self::NoServer(_) => "postgresql::no_server",
            Self::Connect { .. } => "postgresql::connect",
            Self::Sql { .. } => "postgresql::sql",
            Self::Script { .. } => "postgresql::script_failed",
            Self::ScriptContent { .. } => "postgresql::script_content",
            Self::Checksum { .. } => "postgresql::checksum",
            Self::ScriptDiffers { .. } => "postgresql::script_differs",
            Self::AnticipatedOtherwise { .. } => "postgresql::anticipated_otherwise",
            Self::Argument { .. } => "postgresql::argument",
            Self::BadDump { .. } => "postgresql::bad_dump",
            Self::DestExists { .. } => "postgresql::dest_exists",
            Self::Program {
                program: "psql", ..
            } => "postgresql::psql_failed",
            Self::Program { .. } => "postgresql::pg_dump_failed",
            Self::Restore { .. } => "postgresql::restore_failed",
            Self::NewerDump { .. } => "postgresql::newer_dump",
            Self::TargetNotEmpty { .. } => "postgresql::target_not_empty",
            Self::ForeignDatabase { .. } => "postgresql::foreign_database",
            Self::SchemaVersion { .. } => "postgresql::schema_version",
            Self::SchemaHalfDone { .. } => "postgresql::schema_half_done",
            Self::Differs { .. } => "postgresql::differs",
            Self::Files { .. } => "postgresql::files",
            Self::DataDirectory { code, .. } => code,
            Self::Path(error) => error.code(),
        }
    }

    /// Invalid password or authorization, and a database that does not exist (PostgreSQL's manual, appendix
    /// *PostgreSQL Error Codes*).
    fn is_refusal(&self) -> bool {
        match self {
            Self::Connect { source, .. } => matches!(
                source.sqlstate.as_deref(),
                Some("28P01" | "28000" | "3D000")
            ),
            _ => false,
        }
    }

    fn help(&self) -> Option<String> {
        if self.is_full_disk() {
            return Some(
                "free space on the disk of the server's data directory (`df -h`), then run the \
                 playbook again; nothing of this task was kept"
                    .into(),
            );
        }
        Some(match self {
            Self::NoServer(_) => "put the task into a block with `services`, name one with \
                 `service`, or give `login_host`"
                .into(),
            Self::Connect { source, .. } => match source.sqlstate.as_deref() {
                Some("28P01" | "28000") => {
                    "check `login_user` and `login_password`; a data directory \
                     keeps the password it was made with"
                        .into()
                }
                Some("3D000") => "check `login_db`; list what is there with `psql -l`".into(),
                Some(_) => return None,
                None => "check that the server is up and that the address is right".into(),
            },
            Self::Script { partly: true, .. } => "earlier statements of the script stay in effect \
                 (`transaction: false`): look at the database before you go on"
                .into(),
            Self::Script { .. } => "nothing was changed: the whole script was rolled back; remove \
                 the cause and run the playbook again"
                .into(),
            Self::ScriptContent { .. } => "the script must be plain SQL; psql's own commands and \
                 data belong into a restore"
                .into(),
            Self::Checksum { .. } => "get the file again; if the new content is right, change the \
                 pinned checksum"
                .into(),
            Self::ScriptDiffers { .. } => {
                "a script that was applied must not change: bring the old \
                 file back, or give the new content a new name"
                    .into()
            }
            Self::AnticipatedOtherwise { .. } => "bring the old scripts back, or take back what \
                was restored (`rollback PLAYBOOK`) and run the playbook again"
                .into(),
            Self::BadDump { help, .. } | Self::DataDirectory { help, .. } => help.clone(),
            Self::DestExists { path } => format!(
                "move it away (`mv -n {0} {0}.old`) or choose another `dest`; it is never \
                 overwritten",
                path.display()
            ),
            Self::NewerDump { .. } => {
                "restore it into a server of the same or a newer version: an older \
                 one does not know all that may be in it"
                    .into()
            }
            Self::Restore { .. }
            | Self::Program {
                program: "psql", ..
            } => "the database was not changed: the dump goes \
                 into a database of its own that is only renamed when it is whole"
                .into(),
            Self::TargetNotEmpty { db, .. } => format!(
                "restoring over existing tables loses rows without an error; restore into a fresh \
                 database: mount an empty directory over /docker-entrypoint-initdb.d so that the \
                 image creates nothing, or drop `{db}` yourself if it can go"
            ),
            Self::ForeignDatabase { db } => {
                format!("look into it; if it can go: DROP DATABASE \"{db}\"")
            }
            Self::SchemaVersion { looks_like, .. } => match looks_like {
                Some(version) => format!(
                    "it looks like {version}; update it to the expected version first, the scripts \
                     would run through without an error and leave columns missing"
                ),
                None => "do not run the update scripts on it: they would run through without an \
                     error and leave columns missing"
                    .into(),
            },
            Self::SchemaHalfDone { version, .. } => format!(
                "nothing was run on it, and no script may be: start again from a dump of the 0.2 database \
                 (a half {version} can have lost links that only the dump still has)"
            ),
            Self::Differs { .. } => "do not go on with this database; the original is untouched. \
                 Look at the named tables on both sides"
                .into(),
            Self::Files { dir, .. } => format!(
                "is {} the right folder? The database was only read; what is missing was missing before",
                dir.display()
            ),
            Self::Path(error) => return error.help(),
            _ => return None,
        })
    }

    fn result(&self) -> Map<String, Value> {
        let mut map = Map::new();
        match self {
            Self::Differs { details, .. } => {
                map.insert("differences".into(), details.clone().into());
            }
            Self::SchemaVersion {
                problems,
                looks_like,
                ..
            } => {
                map.insert("problems".into(), problems.clone().into());
                map.insert("looks_like".into(), looks_like.clone().into());
            }
            Self::SchemaHalfDone {
                version, problems, ..
            } => {
                map.insert("half_done".into(), version.as_str().into());
                map.insert("problems".into(), problems.clone().into());
            }
            Self::Program { rc, stderr, .. } => {
                map.insert("rc".into(), (*rc).into());
                map.insert("stderr".into(), stderr.as_str().into());
            }
            Self::Files {
                looked_up,
                missing,
                wrong_size,
                files,
                ..
            } => {
                map.insert("looked_up".into(), (*looked_up).into());
                map.insert("missing".into(), (*missing).into());
                map.insert("wrong_size".into(), (*wrong_size).into());
                map.insert("files".into(), files.clone().into());
            }
            Self::Restore { line, .. } => {
                map.insert("line".into(), (*line).into());
            }
            _ => {}
        }
        match self {
            Self::Script {
                statement, source, ..
            }
            | Self::Restore {
                statement, source, ..
            } => {
                map.insert("statement".into(), statement.as_str().into());
                map.insert("sqlstate".into(), source.sqlstate.clone().into());
            }
            Self::Sql { source, .. } | Self::Connect { source, .. } => {
                map.insert("sqlstate".into(), source.sqlstate.clone().into());
            }
            _ => {}
        }
        map
    }
}
