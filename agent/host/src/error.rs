//! How a module fails.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// What every module family's own error type says beside its message and source chain.
pub trait ModuleFailure: Error + Send + Sync + 'static {
    /// Stable code, e.g. `postgresql::dump_cut_short`.
    fn code(&self) -> &'static str;

    /// What the admin should do next.
    fn help(&self) -> Option<String> {
        None
    }

    /// Whether its effect may be there all the same, whole or in part: the next run then asks the module
    /// what became of the attempt, as after an interruption.
    fn is_outcome_unknown(&self) -> bool {
        false
    }

    /// Whether a server answered and said no to this user, password or name: asking again changes nothing.
    fn is_refusal(&self) -> bool {
        false
    }

    /// Return values that are known in spite of the failure (`rc`, `stdout`, …).
    fn result(&self) -> Map<String, Value> {
        Map::new()
    }
}

/// A module did not come to a good end.
#[derive(Debug)]
pub enum ModuleError {
    /// The run was interrupted; the module has cleaned up after itself as far as it can.
    Cancelled,
    /// The work failed.
    Failed(Box<dyn ModuleFailure>),
}

impl fmt::Display for ModuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("interrupted"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl Error for ModuleError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Cancelled => None,
            Self::Failed(failure) => failure.source(),
        }
    }
}

impl<F: ModuleFailure> From<F> for ModuleError {
    fn from(failure: F) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl ModuleError {
    /// Whether a server said no ([`ModuleFailure::is_refusal`]).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Cancelled => false,
            Self::Failed(failure) => failure.is_refusal(),
        }
    }

    /// The same failure, of which something may be left: the next run asks the module what became of the
    /// attempt ([`ModuleFailure::is_outcome_unknown`]).
    #[must_use]
    pub fn with_unknown_outcome(self) -> Self {
        match self {
            Self::Cancelled => Self::Cancelled,
            Self::Failed(failure) => Self::Failed(Box::new(OutcomeUnknown(failure))),
        }
    }
}

#[derive(Debug)]
struct OutcomeUnknown(Box<dyn ModuleFailure>);

impl fmt::Display for OutcomeUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for OutcomeUnknown {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl ModuleFailure for OutcomeUnknown {
    fn code(&self) -> &'static str {
        self.0.code()
    }

    fn help(&self) -> Option<String> {
        self.0.help()
    }

    fn is_outcome_unknown(&self) -> bool {
        true
    }

    fn is_refusal(&self) -> bool {
        self.0.is_refusal()
    }

    fn result(&self) -> Map<String, Value> {
        self.0.result()
    }
}

/// Whether a request did not get as far as its receiver: nobody listens at the address.
#[must_use]
pub fn never_arrived(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(
            kind,
            Some(
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable
            )
        ) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The operating system refused an operation on a path. Shared by all families.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action} {}", path.display())]
pub struct PathError {
    /// Verb, e.g. `create`.
    pub action: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl PathError {
    /// Returns a closure for `map_err`.
    pub fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}

impl ModuleFailure for PathError {
    fn code(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "files::disk_full",
            io::ErrorKind::PermissionDenied => "files::permission_denied",
            io::ErrorKind::NotFound => "files::not_found",
            io::ErrorKind::ReadOnlyFilesystem => "files::read_only",
            _ => "files::io",
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free space on that filesystem, then run the playbook again; it continues here"
                    .into()
            }
            io::ErrorKind::PermissionDenied => {
                "run as root, or give this user the right to the path".into()
            }
            _ => return None,
        })
    }
}
