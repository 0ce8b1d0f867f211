//! The locks of a run, and the journal under them.

use super::run::{Engine, RunError, run_id};
use super::site::Sites;
use crate::state::{Contents, History, HostLock, Lock, StateError, location};

/// A journal that was read under the lock.
pub(super) struct LockedState {
    pub run: String,
    pub contents: Contents,
    pub locks: Locks,
    pub sites: Sites,
}

/// What keeps other runs out as long as it lives.
pub(super) struct Locks {
    /// Of this folder.
    _folder: Lock,
    /// Of this state, wherever on this host a copy of it may be at work; from when it has an id.
    pub on_host: Option<HostLock>,
}

impl Engine {
    /// Takes the locks and reads the journal, which must be no copy, and the one that goes on at its sites.
    /// `command` is what was asked for where it is not `run`.
    pub(super) fn hold(&self, command: Option<&str>) -> Result<LockedState, RunError> {
        let run = run_id();
        self.state.create()?;
        let holder = format!(
            "pid {}, run {run}, {} on {}",
            std::process::id(),
            self.options.operator.user,
            self.options.operator.host
        );
        let folder = Lock::take(&self.state.lock(), &holder)?;
        let contents = self.journal()?;
        self.refuse_copy(&contents)?;
        let history = History::of(&contents.records);
        let sites = self.refuse_other_sites(&contents, &history, command)?;
        let on_host = contents.state_id().map(HostLock::take).transpose()?;
        Ok(LockedState {
            run,
            contents,
            locks: Locks {
                _folder: folder,
                on_host,
            },
            sites,
        })
    }

    /// Refuses a journal that is a copy of the one that its last run wrote to. A run does so by itself; who
    /// only looks may want to know.
    ///
    /// # Errors
    /// [`StateError::Copied`], or `Io` where the journal cannot be inspected.
    pub fn refuse_copy(&self, contents: &Contents) -> Result<(), StateError> {
        let machine = self.options.operator.machine.as_deref();
        location::refuse_copy(&self.state.journal(), contents, machine)
    }

    /// Why a run would not begin on this journal, and what to do about it, for those who only look.
    #[must_use]
    pub fn would_refuse(&self, contents: &Contents) -> Option<String> {
        // Where nothing was run yet there is no file that could be a copy.
        let copied = match contents.records.is_empty() {
            true => Ok(()),
            false => self.refuse_copy(contents),
        };
        let history = History::of(&contents.records);
        let refused = copied.map_err(RunError::from).and_then(|()| {
            self.refuse_other_sites(contents, &history, None)
                .map(|_| ())
        });
        let Err(RunError::State(error)) = refused else {
            return None;
        };
        let help = error.help().unwrap_or_default();
        Some(format!("a run would stop: {error}; {help}"))
    }
}
