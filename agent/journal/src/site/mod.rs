//! One site, one state: a marker in the site's folder says which state goes on there, so that another
//! state folder, a copy, another installation or another playbook does not begin the work anew.
//!
//! Whoever may write in the site's folder can take the marker away or put something in its place. What
//! stands in its place and is not the agent's own is refused and never followed; that a marker was taken
//! away is told by the journal that wrote it.

mod error;
mod folder;
mod marker;

use std::path::{Path, PathBuf};

use super::error::StateError;
use super::format::{NO_HASH, Record};
use super::reader::Contents;

pub use error::SiteError;
use folder::Folder;
pub use marker::Marker;

/// Name of the marker in the site's folder.
pub const MARKER: &str = ".kaapana-agent-site.json";

/// What a site says to a state that may go on there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is no such folder.
    NoFolder,
    /// Nobody has marked it.
    Free,
    /// This state has.
    Own(Box<Marker>),
}

/// A state that looks at a site.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// Its id; `None` where nothing was recorded yet.
    pub state_id: Option<&'a str>,
    /// Its folder.
    pub state: &'a Path,
    /// Its journal's records.
    pub records: &'a [Record],
    /// Hash of the last one.
    pub head: &'a str,
}

impl<'a> Claimant<'a> {
    /// The state in this folder, as its journal tells it.
    #[must_use]
    pub fn of(contents: &'a Contents, state: &'a Path) -> Self {
        Self {
            state_id: contents.state_id(),
            state,
            records: &contents.records,
            head: &contents.head,
        }
    }
}

impl Claimant<'_> {
    /// Whether the journal holds the record with this hash.
    fn knows(&self, head: &str) -> bool {
        // An outline of a journal has no `prev`: then it cannot be told, and is told by who reads the whole.
        head == self.head
            || (head != NO_HASH
                && self
                    .records
                    .iter()
                    .any(|record| record.prev == head || record.prev.is_empty()))
    }
}

/// Reads a site's marker, whosever it is.
///
/// # Errors
/// [`SiteError`] where something stands in its place that cannot be trusted.
pub fn read(site: &Path) -> Result<Option<Marker>, StateError> {
    match Folder::open(site)? {
        Some(folder) => folder.read(),
        None => Ok(None),
    }
}

/// Looks whether a state may go on at a site.
///
/// # Errors
/// [`SiteError::Taken`] where another one goes on, [`SiteError::Older`] where this one did and its journal
/// has lost what it did last, and as [`read`].
pub fn look(site: &Path, by: &Claimant<'_>) -> Result<Standing, StateError> {
    let Some(folder) = Folder::open(site)? else {
        return Ok(Standing::NoFolder);
    };
    let Some(marker) = folder.read()? else {
        return Ok(Standing::Free);
    };
    if by.state_id != Some(marker.state_id.as_str()) {
        return Err(SiteError::taken(site, by.state, marker).into());
    }
    if !by.knows(&marker.head) {
        return Err(SiteError::older(site, by.state, marker).into());
    }
    Ok(Standing::Own(Box::new(marker)))
}

/// Marks a site that is free, or brings the own marker to what the journal is at now. Returns whether it
/// was free. Of two states that do this at the same moment one alone succeeds.
///
/// # Errors
/// [`SiteError::Taken`] where another state was faster, [`SiteError::Missing`], or what the system says.
pub fn mark(site: &Path, marker: &Marker) -> Result<bool, StateError> {
    let folder = Folder::open(site)?.ok_or_else(|| SiteError::missing(site))?;
    for _ in 0..2 {
        match folder.read()? {
            None if folder.create(marker)? => return Ok(true),
            // Somebody was faster: whoever it is, its marker is read.
            None => {}
            Some(there) if there.state_id == marker.state_id => {
                folder.replace(marker)?;
                return Ok(false);
            }
            Some(there) => return Err(SiteError::taken(site, &marker.state, there).into()),
        }
    }
    Err(SiteError::unsettled(site).into())
}

/// Puts a marker into the place of whatever marker is there: an operator said that this state goes on.
///
/// # Errors
/// [`SiteError`] where what is there is no marker of the agent's, or a newer agent's.
pub fn take_over(site: &Path, marker: &Marker) -> Result<(), StateError> {
    let folder = Folder::open(site)?.ok_or_else(|| SiteError::missing(site))?;
    match folder.read() {
        Ok(None) if folder.create(marker)? => Ok(()),
        Ok(None) => Err(SiteError::unsettled(site).into()),
        Ok(Some(_)) => folder.replace(marker),
        Err(StateError::Site(error)) if error.is_replaceable() => folder.replace(marker),
        Err(error) => Err(error),
    }
}

/// Takes the own marker away: the site is free. Returns whether there was one.
///
/// # Errors
/// As [`read`], and what the system says.
pub fn free(site: &Path, state_id: &str) -> Result<bool, StateError> {
    let Some(folder) = Folder::open(site)? else {
        return Ok(false);
    };
    match folder.read()? {
        Some(marker) if marker.state_id == state_id => folder.remove().map(|()| true),
        _ => Ok(false),
    }
}

/// A site's folder by its real path, so that one that is reached by several names is one.
#[must_use]
pub fn real(site: &Path) -> PathBuf {
    site.canonicalize().unwrap_or_else(|_| site.to_path_buf())
}

#[cfg(test)]
mod tests;
