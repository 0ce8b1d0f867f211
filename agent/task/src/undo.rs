//! How a module says what takes back its effects. It says so from the journal's words alone, so that a
//! variable which was changed since cannot lead it astray; one set of steps serves all modules.

use std::path::PathBuf;

use serde_json::Value;

use super::module::Kind;
use crate::host::files::durable::Identity;
use crate::prior_state::PriorState;

/// What the journal has of one started attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PastAttempt<'j> {
    /// Its id.
    pub attempt: &'j str,
    /// What the module noted before the effect.
    pub intent: &'j Value,
    /// Rendered arguments, secrets hidden.
    pub arguments: &'j Value,
    /// Return values, where it came to a good end by itself.
    pub result: Option<&'j Value>,
    /// An operator, or a probe, said that its effect is there; what it made is not recorded.
    pub accepted: bool,
}

impl PastAttempt<'_> {
    /// Tells whether it came to a good end without changing anything.
    #[must_use]
    pub fn changed_nothing(&self) -> bool {
        self.result
            .is_some_and(|result| result["changed"] == Value::Bool(false))
    }

    /// Returns a path that the result names.
    #[must_use]
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.result?[key].as_str().map(PathBuf::from)
    }

    /// Returns device and inode of what the result is about.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        let result = self.result?;
        Some(Identity {
            dev: result["device"].as_u64()?,
            ino: result["inode"].as_u64()?,
        })
    }
}

/// What takes back the effects of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    /// Nothing has to be taken back; why, in words.
    Nothing(String),
    /// These steps, in this order.
    Steps(Vec<Step>),
    /// The agent cannot; why, in words.
    Impossible(String),
}

/// One step of an undo, as a module asks for it. What is not there any more needs no step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Gives a moved thing its old name back, if it is the very thing.
    MoveBack {
        /// Where it was moved to.
        from: PathBuf,
        /// Its old name.
        to: PathBuf,
        /// Which thing it is.
        identity: Identity,
    },
    /// Takes a thing that the task made away, into quarantine, with all that is in it.
    SetAside {
        /// Where it was made.
        path: PathBuf,
        /// Which thing it is, where the journal knows.
        identity: Option<Identity>,
    },
    /// Takes a directory that the task made away, where nothing is in it any more.
    SetAsideEmpty {
        /// Where it was made.
        path: PathBuf,
    },
    /// Makes a path again what it was.
    PutBack {
        /// The path.
        path: PathBuf,
        /// What it was.
        was: PriorState,
        /// Where the old content may have been kept.
        kept: Vec<PathBuf>,
        /// Which thing the task put there, where the journal knows.
        now: Option<Identity>,
    },
    /// Stops and removes a container that the task made.
    RemoveContainer {
        /// Docker's id.
        id: String,
        /// Its name, for people.
        name: String,
    },
    /// Asks a person to confirm that what only a person can take back was taken back.
    Confirm {
        /// The question.
        prompt: String,
    },
}

impl Step {
    /// Tells whether the step takes something away together with everything inside; a person who confirms
    /// answers for all of it.
    #[must_use]
    pub fn takes_a_whole(&self) -> bool {
        matches!(
            self,
            Self::SetAside { .. } | Self::RemoveContainer { .. } | Self::Confirm { .. }
        )
    }
}

/// What holds for a module that has no undo of its own.
#[must_use]
pub fn of_kind(kind: Kind, efforts: &[PastAttempt<'_>]) -> Undo {
    if kind == Kind::ReadOnly {
        return Undo::Nothing("it only looked".into());
    }
    unless_unchanged(efforts, || {
        Undo::Impossible("the agent does not know how to take it back".into())
    })
}

/// Why an effect that the agent did not see for itself cannot be taken back.
pub const ACCEPTED: &str =
    "it was accepted as done, and the journal does not tell what is there because of it";

/// Takes away the files that the results name under these keys, in their order; for modules whose failed
/// attempts remove their half files.
#[must_use]
pub fn files_made(efforts: &[PastAttempt<'_>], keys: &[&str]) -> Undo {
    if efforts.iter().any(|effort| effort.accepted) {
        return Undo::Impossible(ACCEPTED.into());
    }
    let paths = efforts
        .iter()
        .rev()
        .flat_map(|effort| keys.iter().filter_map(|key| effort.path(key)));
    let set_aside = |path| Step::SetAside {
        path,
        identity: None,
    };
    Undo::Steps(paths.map(set_aside).collect())
}

/// Nothing where no attempt changed anything, else what `undo` says.
pub fn unless_unchanged(efforts: &[PastAttempt<'_>], undo: impl FnOnce() -> Undo) -> Undo {
    if efforts.iter().all(PastAttempt::changed_nothing) {
        return Undo::Nothing("it changed nothing".into());
    }
    undo()
}
