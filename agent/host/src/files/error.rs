//! How file modules fail, beyond a refusal of the operating system (`PathError`).

use std::path::PathBuf;

use crate::error::{ModuleError, ModuleFailure};

/// A file module did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Arguments contradict each other or the host.
    #[error("{message}")]
    Argument {
        /// What is wrong.
        message: String,
        /// What to do instead.
        help: Option<String>,
    },
    /// A path that must be there is not.
    #[error("{what} {} does not exist", path.display())]
    Missing {
        /// What it is for, e.g. `source`.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A path that must be free is taken.
    #[error("{} already exists ({found})", path.display())]
    TargetExists {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// A path is of another kind than the task needs.
    #[error("{} is a {found}, not a {wanted}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Removing or moving this would break the host.
    #[error("refused to touch {}: {why}", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The filesystem has no rename that refuses to overwrite.
    #[error(
        "the filesystem of {} cannot rename without overwriting (renameat2 RENAME_NOREPLACE)",
        path.display()
    )]
    NoSafeRename {
        /// Where to.
        path: PathBuf,
    },
    /// Source and target are on different filesystems.
    #[error(
        "{} is on {source_mount}, {} is on {target_mount}: a rename cannot cross filesystems",
        source_path.display(),
        target_path.display()
    )]
    OtherFilesystem {
        /// Where from.
        source_path: PathBuf,
        /// Mount of the source.
        source_mount: String,
        /// Where to.
        target_path: PathBuf,
        /// Mount of the target.
        target_mount: String,
    },
    /// Somebody uses files below the path.
    #[error("{} is in use: {users}", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
        /// Processes and what they hold.
        users: String,
    },
    /// The path is not what it was when the attempt was journaled, or changed while it was copied.
    #[error("{} changed meanwhile: {what}", path.display())]
    ChangedMeanwhile {
        /// The path.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A copy differs from its source.
    #[error("the copy {} differs from its source: {what}", path.display())]
    CopyDiffers {
        /// The copy.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// Too little free space.
    #[error(
        "{} has {} free, {} are needed: {} missing",
        path.display(),
        human_bytes(*free),
        human_bytes(*required),
        human_bytes(required.saturating_sub(*free))
    )]
    NotEnoughSpace {
        /// The path.
        path: PathBuf,
        /// Mount that it is on.
        mount: String,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        required: u64,
    },
    /// A checksum is not the expected one.
    #[error("{what} has the SHA-256 {found}, expected {expected}")]
    ChecksumDiffers {
        /// What was hashed.
        what: String,
        /// Its hash.
        found: String,
        /// The wanted hash.
        expected: String,
    },
    /// The validation command refused the new content.
    #[error("`{command}` refused the new content of {}: {output}", path.display())]
    Invalid {
        /// Target.
        path: PathBuf,
        /// The command.
        command: String,
        /// What it said.
        output: String,
    },
    /// A download failed.
    #[error("failed to download {url}: {message}")]
    Download {
        /// From where.
        url: String,
        /// What happened.
        message: String,
        /// What to do next.
        help: Option<String>,
    },
}

impl FilesError {
    /// Makes an argument error.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::Argument {
            message: message.into(),
            help: None,
        }
    }

    /// Makes an argument error with a hint.
    pub fn argument_with_help(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Argument {
            message: message.into(),
            help: Some(help.into()),
        }
    }
}

impl ModuleFailure for FilesError {
    fn code(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "files::argument",
            Self::Missing { .. } => "files::missing",
            Self::TargetExists { .. } => "files::target_exists",
            Self::WrongKind { .. } => "files::wrong_kind",
            Self::Refused { .. } => "files::refused",
            Self::NoSafeRename { .. } => "files::no_safe_rename",
            Self::OtherFilesystem { .. } => "files::other_filesystem",
            Self::InUse { .. } => "files::in_use",
            Self::ChangedMeanwhile { .. } => "files::changed_meanwhile",
            Self::CopyDiffers { .. } => "files::copy_differs",
            Self::NotEnoughSpace { .. } => "files::not_enough_space",
            Self::ChecksumDiffers { .. } => "files::checksum_differs",
            Self::Invalid { .. } => "files::invalid_content",
            Self::Download { .. } => "files::download",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Argument { help, .. } | Self::Download { help, .. } => help.clone(),
            Self::TargetExists { path, .. } => Some(format!(
                "look at what is in {}, and move it away if it is not needed; nothing was overwritten",
                path.display()
            )),
            Self::NoSafeRename { .. } => Some(
                "move it by hand after making sure that the target does not exist, then \
                 `resolve … --done`"
                    .into(),
            ),
            Self::OtherFilesystem { .. } => Some(
                "choose a target on the same filesystem, or say `cross_filesystem: true` to copy, \
                 verify and then remove the source"
                    .into(),
            ),
            Self::InUse { .. } => Some("stop these processes first, then run again".into()),
            Self::ChangedMeanwhile { .. } => {
                Some("find out who writes there and stop it, then run again".into())
            }
            Self::NotEnoughSpace { mount, .. } => {
                Some(format!("free space on {mount}, or choose another place"))
            }
            Self::ChecksumDiffers { .. } => Some(
                "the content is not what the playbook was written for; nothing was replaced".into(),
            ),
            _ => None,
        }
    }
}

/// What file helpers return: cancelled or failed.
pub type FilesResult<T> = Result<T, ModuleError>;

/// Returns bytes for people, e.g. `1.5 GiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "one decimal is shown, 53 bits are plenty"
    )]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_one_decimal() {
        assert_eq!(human_bytes(1023), "1023 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(20 << 30), "20.0 GiB");
    }
}
