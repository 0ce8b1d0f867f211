//! How a site refuses.

use std::path::{Path, PathBuf};

use super::MARKER;
use super::marker::{MARKER_VERSION, Marker};

/// A site cannot be worked on by this state, or its marker cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// Another state goes on at this site.
    #[error("{} is the site of another state: {}; this one is {}", site.display(), marker.whose(), state.display())]
    Taken {
        /// The site.
        site: PathBuf,
        /// What its marker says.
        marker: Box<Marker>,
        /// The state that was refused.
        state: PathBuf,
    },
    /// The journal has lost what was done at the site last.
    #[error("the journal in {} is older than what was done at {}: it does not hold all of run {}", state.display(), site.display(), marker.run)]
    Older {
        /// The site.
        site: PathBuf,
        /// What its marker says.
        marker: Box<Marker>,
        /// The state that was refused.
        state: PathBuf,
    },
    /// Something that no agent made has the marker's name.
    #[error("{} is not a marker of this agent's: {what}", marker.display())]
    Forged {
        /// The marker.
        marker: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// The marker cannot be read as one.
    #[error("the marker {} is damaged: {why}", marker.display())]
    Damaged {
        /// The marker.
        marker: PathBuf,
        /// Why.
        why: String,
    },
    /// A newer agent wrote the marker.
    #[error("the marker {} has version {version}, this agent reads up to {MARKER_VERSION}", marker.display())]
    Newer {
        /// The marker.
        marker: PathBuf,
        /// Its version.
        version: u64,
    },
    /// There is no such folder to be marked.
    #[error("the site's folder {} is not there", site.display())]
    Missing {
        /// The site.
        site: PathBuf,
    },
    /// The marker comes and goes while it is looked at.
    #[error("the marker of {} changes while it is written", site.display())]
    Unsettled {
        /// The site.
        site: PathBuf,
    },
}

impl SiteError {
    pub(super) fn taken(site: &Path, state: &Path, marker: Marker) -> Self {
        Self::Taken {
            site: site.to_path_buf(),
            marker: Box::new(marker),
            state: state.to_path_buf(),
        }
    }

    pub(super) fn older(site: &Path, state: &Path, marker: Marker) -> Self {
        Self::Older {
            site: site.to_path_buf(),
            marker: Box::new(marker),
            state: state.to_path_buf(),
        }
    }

    pub(super) fn forged(marker: &Path, what: impl Into<String>) -> Self {
        Self::Forged {
            marker: marker.to_path_buf(),
            what: what.into(),
        }
    }

    pub(super) fn missing(site: &Path) -> Self {
        Self::Missing {
            site: site.to_path_buf(),
        }
    }

    pub(super) fn unsettled(site: &Path) -> Self {
        Self::Unsettled {
            site: site.to_path_buf(),
        }
    }

    /// Whether an operator may say that the marker does not count. One that no agent wrote is no statement
    /// to be overruled: somebody else can write there, and has to be found.
    pub(crate) fn is_replaceable(&self) -> bool {
        matches!(
            self,
            Self::Taken { .. } | Self::Older { .. } | Self::Damaged { .. }
        )
    }

    /// Whether an operator has to decide how to go on.
    #[must_use]
    pub fn asks(&self) -> bool {
        !matches!(self, Self::Missing { .. } | Self::Newer { .. })
    }

    /// Whether there is no such folder.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "site::taken",
            Self::Older { .. } => "site::older_state",
            Self::Forged { .. } => "site::forged_marker",
            Self::Damaged { .. } => "site::damaged_marker",
            Self::Newer { .. } => "site::newer_marker",
            Self::Missing { .. } => "site::missing",
            Self::Unsettled { .. } => "site::unsettled",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Taken { site, marker, .. } => {
                let root = marker.state.parent().unwrap_or(&marker.state);
                format!(
                    "go on with that state: `--state-dir {}`; only where it is lost: `state adopt PLAYBOOK \
                     --site {} --reason TEXT`",
                    root.display(),
                    site.display()
                )
            }
            Self::Older { site, .. } => format!(
                "it was restored from a backup, or records were cut off: put the newest journal back; only \
                 where there is none, find out what was done since and say so: `state adopt PLAYBOOK --site \
                 {} --reason TEXT`",
                site.display()
            ),
            Self::Forged { .. } => {
                "it is not followed and not removed: find out who put it there (`ls -l`), move it away, and \
                 run again"
                    .into()
            }
            Self::Damaged { marker, .. } => format!(
                "find out which state goes on at this site, and let that one say so: `state adopt PLAYBOOK \
                 --site {} --reason TEXT`",
                marker.parent().unwrap_or(marker).display()
            ),
            Self::Newer { .. } => "use the agent's version that wrote it, or a newer one".into(),
            Self::Missing { .. } => {
                "nothing was done there: check the path, and whether its filesystem is mounted".into()
            }
            Self::Unsettled { .. } => {
                format!("two runs begin at once, or somebody else writes `{MARKER}`: run again")
            }
        }
    }
}
