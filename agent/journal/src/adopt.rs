//! An operator says that a state is the one that goes on: a journal that is a copy of the one that its last
//! run wrote to, or a state at a site that another one has marked.

use std::path::{Path, PathBuf};

use super::error::StateError;
use super::format::{Body, JournalLocation, Outcome};
use super::history::History;
use super::host_lock::HostLock;
use super::journal::{Journal, StateDir, read_for};
use super::location::refuse_copy;
use super::lock::Lock;
use super::reader::Contents;
use super::site::{self, Claimant, Marker, SiteError, Standing};

/// Who adopts a state, and why.
#[derive(Debug, Clone, Copy)]
pub struct Adoption<'a> {
    /// Id for the records.
    pub run: &'a str,
    /// Who.
    pub user: &'a str,
    /// Name of the host.
    pub host: &'a str,
    /// Id of the machine.
    pub machine: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
    /// A site at which it goes on, beside those that its journal names.
    pub site: Option<&'a Path>,
    /// Id for a state that has none yet.
    pub new_state_id: &'a str,
}

/// What was adopted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adopted {
    /// The journal was a copy.
    pub journal: bool,
    /// The last run ended with a question: what services find in the place of their directories goes on.
    pub directories: bool,
    /// Sites that went on with another state, or with a journal that knew more, and what stood in the way
    /// there.
    pub sites: Vec<(PathBuf, SiteError)>,
}

impl Adopted {
    /// Whether there was nothing to adopt.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.journal && !self.directories && self.sites.is_empty()
    }
}

/// Records that this is the state that goes on, and marks its sites anew. Where nothing stood in its way,
/// nothing is written.
///
/// # Errors
/// When the state, or the one that goes on at a site, is in use, damaged, or cannot be written; when what
/// stands in a marker's place is no agent's.
pub fn adopt(dir: &StateDir, playbook: &str, by: Adoption<'_>) -> Result<Adopted, StateError> {
    dir.create()?;
    let path = dir.journal();
    let holder = format!("pid {}, adopting the state", std::process::id());
    let _lock = Lock::take(&dir.lock(), &holder)?;
    let contents = read_for(dir, playbook)?;
    let is_copy = match refuse_copy(&path, &contents, by.machine) {
        // Without a run there is no file that could be a copy.
        Ok(()) => false,
        Err(StateError::Copied { .. }) => true,
        Err(error) => return Err(error),
    };
    let own = std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_path_buf());
    let mut locks = Vec::new();
    locks.extend(contents.state_id().map(HostLock::take).transpose()?);
    let mut adopted = Adopted {
        journal: is_copy,
        directories: asked_last(&contents),
        sites: Vec::new(),
    };
    // The original of an adopted copy is told by the marker that it is no longer the one.
    let mut again = Vec::new();
    for site in sites(&contents, by.site) {
        match site::look(&site, &Claimant::of(&contents, &own)) {
            Ok(Standing::Own(_)) => again.push(site),
            Ok(Standing::Free | Standing::NoFolder) => {}
            Err(StateError::Site(error)) if error.is_replaceable() => {
                if let SiteError::Taken { marker, .. } = &*error {
                    // Nobody takes a site from under a run.
                    locks.push(HostLock::take(&marker.state_id)?);
                }
                adopted.sites.push((site, *error));
            }
            Err(error) => return Err(error),
        }
    }
    if adopted.is_empty() {
        return Ok(adopted);
    }
    let (mut journal, _) = Journal::open(&path, &contents, by.run)?;
    let state_id = match contents.state_id() {
        Some(id) => id.to_owned(),
        None => {
            journal.append(Body::JournalCreated {
                state_id: by.new_state_id.to_owned(),
                playbook: playbook.to_owned(),
                host: by.host.to_owned(),
                rehearsal: false,
            })?;
            by.new_state_id.to_owned()
        }
    };
    dir.keep_id(&state_id)?;
    journal.append(Body::StateAdopted {
        seat: JournalLocation::of(&path, by.machine)?,
        reason: by.reason.to_owned(),
        user: by.user.to_owned(),
        host: by.host.to_owned(),
    })?;
    let taken = adopted.sites.iter().map(|(site, _)| site);
    for site in taken.chain(is_copy.then_some(&again).into_iter().flatten()) {
        let marker = Marker::now(&state_id, own.clone(), playbook, journal.head(), by.run);
        site::take_over(site, &marker)?;
        journal.append(site_marked(site, &marker)?)?;
    }
    Ok(adopted)
}

/// Whether the last run ended with a question.
fn asked_last(contents: &Contents) -> bool {
    let mut records = contents.records.iter().rev();
    let end = records.find_map(|record| match &record.body {
        Body::RunFinished { outcome, .. } => Some(*outcome),
        _ => None,
    });
    end == Some(Outcome::DecisionNeeded)
}

/// The sites that are meant: those that the journal holds, and the one that was named.
fn sites(contents: &Contents, named: Option<&Path>) -> Vec<PathBuf> {
    let history = History::of(&contents.records);
    let mut sites: Vec<PathBuf> = history.held_sites().cloned().collect();
    if let Some(named) = named.map(site::real)
        && !sites.contains(&named)
    {
        sites.push(named);
    }
    sites
}

/// The record of a marked site.
///
/// # Errors
/// Never, as a marker is plain data.
pub fn site_marked(site: &Path, marker: &Marker) -> Result<Body, StateError> {
    let value = serde_json::to_value(marker)
        .map_err(|error| StateError::io("encode the marker of", site)(error.into()))?;
    Ok(Body::SiteMarked {
        site: site.to_path_buf(),
        marker: value,
    })
}
