//! How the state directory refuses.

use std::io;
use std::path::{Path, PathBuf};

use super::format::LineError;

/// The state directory cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// Path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record in the middle, or a whole last line, is not what was written.
    #[error("{}:{line}: the journal is damaged here: {source}", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong with it.
        source: LineError,
    },
    /// The lines are whole, but not in the order in which they were written.
    #[error("{}:{line}: {what}", path.display())]
    BrokenChain {
        /// The journal.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer agent.
    #[error("{}:{line}: this record has format version {version}, this agent reads up to {known}", path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Version of the record.
        version: u64,
        /// Newest that this agent knows.
        known: u32,
    },
    /// The journal of another playbook.
    #[error("{} belongs to the playbook `{found}`, not to `{expected}`", path.display())]
    Foreign {
        /// The journal.
        path: PathBuf,
        /// Playbook in its first record.
        found: String,
        /// Playbook being run.
        expected: String,
    },
    /// Another run is going on.
    #[error("another run holds {}: {holder}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who, as the lock file says.
        holder: String,
    },
    /// An exported archive is not what was exported.
    #[error("{} cannot be trusted: {what}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The journal does not hold the record that somebody noted.
    #[error("no record in {} has the hash {head}", path.display())]
    HeadMissing {
        /// The journal.
        path: PathBuf,
        /// What was noted.
        head: String,
    },
    /// An earlier append failed; nothing more may be written by this process.
    #[error("the journal {} could not be written earlier in this run", path.display())]
    Poisoned {
        /// The journal.
        path: PathBuf,
    },
}

impl StateError {
    /// Returns a closure for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "state::io",
            Self::Damaged { .. } => "state::damaged",
            Self::BrokenChain { .. } => "state::broken_chain",
            Self::Newer { .. } => "state::newer_format",
            Self::Foreign { .. } => "state::foreign_journal",
            Self::Locked { .. } => "state::locked",
            Self::Archive { .. } => "state::archive",
            Self::HeadMissing { .. } => "state::head_missing",
            Self::Poisoned { .. } => "state::poisoned",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free space on the state directory's filesystem and run again; nothing was done that \
                 is not recorded"
                    .into()
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as the user who owns the state directory, usually root".into()
            }
            Self::Io { .. } => return None,
            Self::Damaged { .. } | Self::BrokenChain { .. } => {
                "nothing is run on a journal that was altered: put the untouched file back from a \
                 backup; `state verify` shows the first bad line"
                    .into()
            }
            Self::Newer { .. } => "use the agent's version that wrote it, or a newer one".into(),
            Self::Foreign { .. } => {
                "name another folder with --state-dir, or run the playbook it belongs to".into()
            }
            Self::Locked { .. } => {
                "wait for that run, or end it with SIGTERM; it leaves a state that can be continued"
                    .into()
            }
            Self::Archive { .. } => {
                "do not rely on it: export again from the state directory, or get the archive anew \
                 from where it was kept"
                    .into()
            }
            Self::HeadMissing { .. } => {
                "records were cut off after this head was noted, the journal was written anew, or \
                 it is another one's: ask for the copy that was made when the head was noted"
                    .into()
            }
            Self::Poisoned { .. } => "see the first error of this run".into(),
        })
    }
}
