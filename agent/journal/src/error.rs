//! How the state directory refuses.

use std::io;
use std::path::{Path, PathBuf};

use super::format::LineError;
use super::site::SiteError;

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
    /// The lines are whole, but not those that were written, in the order in which they were.
    #[error("{}:{line}: {what}", path.display())]
    BrokenChain {
        /// The journal.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What was done to the lines.
        what: ChainBreak,
    },
    /// Something else than a file has the journal's name.
    #[error("{} should be the journal, and is {found}", path.display())]
    NotAFile {
        /// The journal.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// Runs were recorded here, and their record is gone.
    #[error("the journal {} is {how}, although runs were recorded in it (state {state_id})", path.display())]
    Lost {
        /// The journal.
        path: PathBuf,
        /// `gone` or `empty`.
        how: &'static str,
        /// The state's id.
        state_id: String,
    },
    /// The journal of another state in this one's place.
    #[error("{} is the journal of the state {found}, and this folder is that of {expected}", path.display())]
    ForeignState {
        /// The journal.
        path: PathBuf,
        /// The journal's id.
        found: String,
        /// The folder's id.
        expected: String,
    },
    /// Not the file that the last run wrote to.
    #[error("{} is a copy, or was restored from one: {what}", path.display())]
    Copied {
        /// The journal.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A run goes on with another copy of this state.
    #[error("another run holds this state ({state_id}) with another copy of it: {holder}")]
    HeldByCopy {
        /// The state's id.
        state_id: String,
        /// Who.
        holder: String,
    },
    /// A site does not go on with this state.
    #[error(transparent)]
    Site(Box<SiteError>),
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

/// What was done to the lines of a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainBreak {
    /// Lines are missing.
    #[error("{}: lines were removed here", missing(*.from, *.to))]
    Removed {
        /// Number of the first record that is missing.
        from: u64,
        /// Number of the last one.
        to: u64,
    },
    /// Lines stand in another order.
    #[error("record {expected} belongs here and stands in line {stands}: lines were swapped")]
    Swapped {
        /// Number of the record that belongs here.
        expected: u64,
        /// Line in which it stands.
        stands: usize,
    },
    /// A line was put in.
    #[error("a line with number {number} was put in here: record {expected} belongs here")]
    Inserted {
        /// Number that the line claims.
        number: u64,
        /// Number of the record that belongs here.
        expected: u64,
    },
    /// A line of another journal stands in a line's place.
    #[error(
        "record {number} does not follow the one before it: this line, or the one before, was \
         replaced by one of another journal"
    )]
    Replaced {
        /// Number of the record.
        number: u64,
    },
}

fn missing(from: u64, to: u64) -> String {
    if from == to {
        format!("record {from} is missing")
    } else {
        format!("records {from} to {to} are missing")
    }
}

impl From<SiteError> for StateError {
    fn from(error: SiteError) -> Self {
        Self::Site(Box::new(error))
    }
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
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "state::disk_full",
                io::ErrorKind::ReadOnlyFilesystem => "state::read_only",
                io::ErrorKind::PermissionDenied => "state::permission_denied",
                _ => "state::io",
            },
            Self::Damaged { .. } => "state::damaged",
            Self::BrokenChain { what, .. } => match what {
                ChainBreak::Removed { .. } => "state::line_removed",
                ChainBreak::Swapped { .. } => "state::lines_swapped",
                ChainBreak::Inserted { .. } => "state::line_inserted",
                ChainBreak::Replaced { .. } => "state::line_replaced",
            },
            Self::Newer { .. } => "state::newer_format",
            Self::Foreign { .. } | Self::ForeignState { .. } => "state::foreign_journal",
            Self::NotAFile { .. } => "state::not_a_file",
            Self::Lost { .. } => "state::journal_lost",
            Self::Copied { .. } => "state::copied",
            Self::Site(error) => error.code(),
            Self::HeldByCopy { .. } => "state::held_by_copy",
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
            Self::Io { action: "mark", .. } => {
                "a state marks its site before it does anything there, so the agent must be able to write \
                 in that folder; nothing was done there"
                    .into()
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space on the state directory's filesystem and run again; nothing was done \
                     that is not recorded"
                        .into()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "make the state directory's filesystem writable and run again; the kernel makes \
                     one read-only after errors of the disk (`dmesg`)"
                        .into()
                }
                io::ErrorKind::PermissionDenied => {
                    "run as the user who owns the state directory, usually root".into()
                }
                _ => return None,
            },
            Self::Damaged { .. } | Self::BrokenChain { .. } => {
                "nothing is run on a journal that was altered: put the untouched file back from a \
                 backup; `state verify` shows the first bad line"
                    .into()
            }
            Self::NotAFile { .. } => {
                "find out who put it there, and put the journal back in its place".into()
            }
            Self::Lost { .. } => {
                "put the journal back from a backup; to begin anew all the same, move the whole folder \
                 away, and what earlier runs made with it"
                    .into()
            }
            Self::ForeignState { .. } => {
                "put this folder's own journal back, or the folder back that the journal belongs to"
                    .into()
            }
            Self::Copied { .. } => {
                "what the other one did meanwhile is not recorded here: go on with the original where \
                 there is one; where there is none any more, and this record is complete, say so with \
                 `state adopt PLAYBOOK --reason TEXT`"
                    .into()
            }
            Self::Site(error) => error.help(),
            Self::HeldByCopy { .. } => {
                "two copies of one state would do the same work twice: end that run, and keep one copy"
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
