//! How making a data directory fails.

use std::path::PathBuf;

use crate::host::error::{ModuleFailure, PathError};

/// `postgresql_initdb` did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum InitdbError {
    /// The server would let nobody in.
    #[error("argument `env`: POSTGRES_PASSWORD is missing or empty")]
    NoPassword,
    /// The path is taken.
    #[error("{} {found}; a data directory is made where nothing is, or in an empty directory", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The empty directory is used.
    #[error("the empty directory {} is in use: {}", path.display(), holders.join("; "))]
    Held {
        /// The path.
        path: PathBuf,
        /// Who, one line each.
        holders: Vec<String>,
    },
    /// The folder that would hold it is not there.
    #[error("the folder {} that would hold the data directory does not exist", path.display())]
    NoParent {
        /// The folder.
        path: PathBuf,
    },
    /// Something has the name of the directory under construction, and no task of ours made it.
    #[error("{} stands in the way and was not made by this agent", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// A living process is at the same work.
    #[error("another run is making {} at this moment", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// The container ended before its server answered.
    #[error(
        "the container of {image} ended with exit code {code} before its server answered: {log}"
    )]
    Died {
        /// Image.
        image: String,
        /// Exit code; -1 when the container is gone.
        code: i64,
        /// Last lines of its log.
        log: String,
    },
    /// The server does not answer in time.
    #[error(
        "the server of {image} did not answer within {seconds} s ({last}); its last words: {log}"
    )]
    NotReady {
        /// Image.
        image: String,
        /// How long it was given.
        seconds: u64,
        /// What the last try to log in said.
        last: String,
        /// Last lines of its log.
        log: String,
    },
    /// The server answers, and what it made is not what was asked for.
    #[error("the data directory that {image} made cannot be used: {why}")]
    Unusable {
        /// Image.
        image: String,
        /// What is wrong.
        why: String,
    },
    /// A path on this host.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl ModuleFailure for InitdbError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoPassword => "postgresql::initdb_no_password",
            Self::Taken { .. } => "postgresql::initdb_path_taken",
            Self::Held { .. } => "postgresql::initdb_path_in_use",
            Self::NoParent { .. } => "postgresql::initdb_no_parent",
            Self::Foreign { .. } => "postgresql::initdb_foreign",
            Self::Busy { .. } => "postgresql::initdb_busy",
            Self::Died { log, .. } | Self::NotReady { log, .. }
                if log.contains("No space left on device") =>
            {
                "postgresql::disk_full"
            }
            Self::Died { .. } => "postgresql::initdb_died",
            Self::NotReady { .. } => "postgresql::initdb_timeout",
            Self::Unusable { .. } => "postgresql::initdb_unusable",
            Self::Path(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        if self.code() == "postgresql::disk_full" {
            return Some(
                "free space on the disk of the data directory (`df -h`), then run the playbook \
                 again; nothing of this task was kept"
                    .into(),
            );
        }
        Some(match self {
            Self::NoPassword => "give it in `env` (POSTGRES_PASSWORD_FILE names a file in the \
                 container, which cannot be read here), or set POSTGRES_HOST_AUTH_METHOD to `trust`"
                .into(),
            Self::Taken { path, .. } => format!(
                "look what it is (`ls -la {0}`); move it away (`mv -n {0} {0}.old`) or choose \
                 another `path`. It is never overwritten",
                path.display()
            ),
            Self::Held { .. } => {
                "stop who uses it, leave the directory in open shells, then run again".into()
            }
            Self::NoParent { path } => format!(
                "check the path; if it is right, make the folder first (a `file` task with `state: \
                 directory`, or `mkdir -p {}`)",
                path.display()
            ),
            Self::Foreign { path } => format!(
                "look what it is (`ls -la {0}`); if nobody needs it, remove or rename it and run \
                 again",
                path.display()
            ),
            Self::Busy { .. } => "wait until the other run has ended, then run again".into(),
            Self::Died { .. } => "nothing was kept. Mend what its words say (`env` needs \
                 POSTGRES_PASSWORD; `image` must be one of PostgreSQL), then run again"
                .into(),
            Self::NotReady { .. } => "nothing was kept. On a slow disk raise `timeout`; otherwise \
                 check `image`, `env` and `command`, then run again"
                .into(),
            Self::Unusable { .. } => "nothing was kept. Check that `image` is one of PostgreSQL \
                 and keeps its data at `data_mount`"
                .into(),
            Self::Path(error) => return error.help(),
        })
    }
}
