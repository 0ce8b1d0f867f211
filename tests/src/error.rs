//! What can go wrong in the lab.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of the lab; messages complete "failed to …".
#[derive(Debug, Error)]
pub enum LabError {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, such as `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program could not be started or talked to.
    #[error("start `{program}` to {purpose}")]
    Spawn {
        /// The program's name.
        program: String,
        /// What it was for.
        purpose: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{purpose}: `{program}` ended with {status}\n{stderr}")]
    Tool {
        /// The program's name.
        program: String,
        /// What it was for.
        purpose: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        stderr: String,
    },
    /// The lab makes files of other owners and root file systems: it needs root.
    #[error(
        "{0}: the lab needs root here (files owned by uid 70, 999 and 1021, chroot, mount); run it as root"
    )]
    NotRoot(&'static str),
    /// A line of `schema.txt` says something that the renderer does not know.
    #[error("read schema.txt:{line}: {problem}")]
    Schema {
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A directory for a new site has something in it.
    #[error("create a site in {}: the directory is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A directory is not one that the lab made.
    #[error("use {}: not a lab site (no {marker})", path.display())]
    NotASite {
        /// The directory.
        path: PathBuf,
        /// The file that marks a site.
        marker: &'static str,
    },
    /// Something answered in a way that the lab does not understand.
    #[error("{0}")]
    Unexpected(String),
}

/// Builds the closure that turns an [`io::Error`] into a [`LabError`] that knows the path.
pub fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LabError {
    let path = path.to_path_buf();
    move |source| LabError::Io {
        action,
        path,
        source,
    }
}
