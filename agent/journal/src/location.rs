//! Tells a journal's own file from a copy of it: a copy knows nothing of what is done with the original
//! from then on, so nothing is run on one before an operator has said that it is the only one.
//!
//! The device's number is left out on purpose: it changes when disks are found in another order after a
//! reboot. A snapshot of a whole filesystem or virtual machine cannot be told from its original.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use super::error::StateError;
use super::fingerprint::sha256_hex;
use super::format::{Body, JournalLocation};
use super::reader::Contents;

impl JournalLocation {
    /// Looks where a journal lies. `machine` is the machine's id; only a hash of it is kept, as systemd
    /// asks (machine-id(5)).
    ///
    /// # Errors
    /// When the file cannot be inspected.
    pub fn of(path: &Path, machine: Option<&str>) -> Result<Self, StateError> {
        let meta = fs::metadata(path).map_err(StateError::io("inspect", path))?;
        Ok(Self {
            machine: machine.map(|id| sha256_hex(id.trim().as_bytes())[..16].to_owned()),
            inode: meta.ino(),
            // Where a filesystem does not keep it, the inode has to do.
            made: meta
                .created()
                .ok()
                .and_then(|time| Timestamp::try_from(time).ok()),
        })
    }

    /// Says what tells this place from where a journal lay before; `None` where it is the same.
    fn differs(&self, before: &Self) -> Option<&'static str> {
        if let (Some(now), Some(then)) = (&self.machine, &before.machine)
            && now != then
        {
            return Some("it was written on another machine");
        }
        if self.inode != before.inode {
            return Some("it is another file (inode)");
        }
        match (self.made, before.made) {
            (Some(now), Some(then)) if now != then => Some("it was made at another time"),
            _ => None,
        }
    }
}

/// The last place that a journal notes, and the run that noted it.
fn noted(contents: &Contents) -> Option<(&JournalLocation, &str)> {
    contents
        .records
        .iter()
        .rev()
        .find_map(|record| match &record.body {
            Body::RunStarted {
                seat: Some(seat), ..
            }
            | Body::StateAdopted { seat, .. } => Some((seat, record.run.as_str())),
            _ => None,
        })
}

/// Refuses a journal that is not the file which its last run wrote to.
///
/// # Errors
/// [`StateError::Copied`], or `Io` where the file cannot be inspected.
pub fn refuse_copy(
    path: &Path,
    contents: &Contents,
    machine: Option<&str>,
) -> Result<(), StateError> {
    // Journals of format 1 note no place.
    let Some((before, run)) = noted(contents) else {
        return Ok(());
    };
    match JournalLocation::of(path, machine)?.differs(before) {
        None => Ok(()),
        Some(what) => Err(StateError::Copied {
            path: path.to_path_buf(),
            what: format!("{what} than the one that run {run} noted"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adopt::{Adoption, adopt};
    use crate::journal::{Journal, StateDir};
    use crate::reader;

    fn run_started(path: &Path) -> Body {
        Body::RunStarted {
            playbook: "p.yaml".into(),
            playbook_sha256: String::new(),
            user: "u".into(),
            host: "h".into(),
            pid: 1,
            agent_version: "0".into(),
            arguments: Vec::new(),
            seat: Some(JournalLocation::of(path, Some("machine a\n")).expect("seat")),
            command: None,
        }
    }

    #[test]
    fn a_copy_is_refused_until_it_is_adopted_and_then_the_original_stays_its_own() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (own, copy) = (
            StateDir::new(dir.path(), "own"),
            StateDir::new(dir.path(), "copy"),
        );
        own.create().expect("mkdir");
        copy.create().expect("mkdir");
        let path = own.journal();
        let empty = reader::read(&path).expect("empty");
        let (mut journal, _) = Journal::open(&path, &empty, "r1").expect("open");
        journal
            .append(Body::JournalCreated {
                state_id: format!("seat-{}", std::process::id()),
                playbook: "p".into(),
                host: "h".into(),
                rehearsal: false,
            })
            .expect("append");
        journal.append(run_started(&path)).expect("append");

        let contents = reader::read(&path).expect("read");
        let machine = Some("machine a");
        refuse_copy(&path, &contents, machine).expect("where it was");
        refuse_copy(&path, &contents, None).expect("no id is no other id");
        let other = refuse_copy(&path, &contents, Some("machine b"));
        assert!(
            other
                .expect_err("elsewhere")
                .to_string()
                .contains("another machine")
        );

        fs::copy(&path, copy.journal()).expect("copy");
        let by = Adoption {
            run: "r2",
            user: "u",
            host: "h",
            machine,
            reason: "the disk was exchanged",
            site: None,
            new_state_id: "unused",
        };
        assert!(matches!(
            refuse_copy(&copy.journal(), &contents, machine),
            Err(StateError::Copied { .. })
        ));
        let adopted = adopt(&copy, "p", by).expect("adopted");
        assert!(adopted.journal && adopted.sites.is_empty());
        let again = adopt(&copy, "p", by).expect("looked at");
        assert!(again.is_empty(), "nothing left to adopt");
        let contents = reader::read(&copy.journal()).expect("read");
        assert_eq!(contents.records.len(), 3);
        refuse_copy(&copy.journal(), &contents, machine).expect("adopted");
    }
}
