//! The one rule of exactly-once: what to do with a task, given what the journal knows about it.

use crate::state::{Attempt, Fingerprint, Finished, TaskHistory, TaskStatus};
use crate::task::module::Kind;

/// What to do with a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision<'h> {
    /// Run it.
    Run(Reason<'h>),
    /// Pass over it: the journal proves that it was done. Its registered result is the journal's.
    Done(&'h Finished),
    /// Ask the module what became of this attempt.
    Recover(&'h Attempt),
    /// The record of a task by another name counts for this one.
    Adopt {
        /// The old identity.
        from: &'h str,
        /// Its good end.
        finished: &'h Finished,
    },
    /// It was fine in an earlier run, and what rests on it has not begun: it is looked at again, by looks
    /// only. [`super::again`] decides so.
    LookAgain {
        /// How it was then.
        finished: &'h Finished,
        /// `id` of the task that rests on it.
        until: String,
    },
    /// An operator has to decide.
    Ask(Question<'h>),
}

/// Why a task runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason<'h> {
    /// The journal does not know it, or knows only that it was skipped.
    New,
    /// It failed before.
    Failed,
    /// It was done with other arguments or input files, and describes a state.
    Changed(&'h Finished),
    /// It looks only, and was interrupted.
    LooksOnly,
    /// An operator said so.
    Redo {
        /// Who.
        user: &'h str,
        /// Why.
        reason: &'h str,
    },
    /// What it did was taken back.
    Undone {
        /// Run that undid it.
        run: &'h str,
    },
}

/// Why an operator has to decide.
#[derive(Debug, Clone, PartialEq)]
pub enum Question<'h> {
    /// A one-way task was done with other arguments.
    ChangedAfterDone(&'h Finished),
    /// A one-way task was interrupted, and its arguments have changed since.
    ChangedAfterInterruption(&'h Attempt),
    /// Taking back what it did was interrupted: half of it may be there.
    UndoInterrupted {
        /// Run that began to undo it.
        run: &'h str,
    },
}

/// A finished task whose identity is no longer in the playbook.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orphan<'h> {
    /// The identity.
    pub identity: &'h str,
    /// Its good end.
    pub finished: &'h Finished,
}

/// Decides. Pure: looks at nothing but its arguments.
///
/// `orphans` are the finished tasks that the playbook no longer has; one with the very same fingerprint
/// is this task under its old name, if it is the only such one.
#[must_use]
pub fn decide<'h>(
    kind: Kind,
    now: &Fingerprint,
    history: Option<&'h TaskHistory>,
    orphans: &[Orphan<'h>],
) -> Decision<'h> {
    match history {
        None | Some(TaskHistory::Skipped { .. }) => {
            let mut same = orphans
                .iter()
                .filter(|orphan| orphan.finished.fingerprint.covers(now));
            match (same.next(), same.next()) {
                (Some(orphan), None) if kind != Kind::ReadOnly => Decision::Adopt {
                    from: orphan.identity,
                    finished: orphan.finished,
                },
                _ => Decision::Run(Reason::New),
            }
        }
        Some(TaskHistory::Failed { .. }) => Decision::Run(Reason::Failed),
        Some(TaskHistory::Redo { user, reason }) => Decision::Run(Reason::Redo { user, reason }),
        Some(TaskHistory::Undone { run, .. }) => Decision::Run(Reason::Undone { run }),
        Some(TaskHistory::Undoing { run, .. }) => Decision::Ask(Question::UndoInterrupted { run }),
        Some(TaskHistory::Finished(finished)) => {
            if finished.fingerprint.covers(now) {
                Decision::Done(finished)
            } else if kind == Kind::OneWay && finished.status != TaskStatus::Ignored {
                Decision::Ask(Question::ChangedAfterDone(finished))
            } else {
                Decision::Run(Reason::Changed(finished))
            }
        }
        Some(TaskHistory::Interrupted(attempt)) => {
            if kind == Kind::ReadOnly {
                Decision::Run(Reason::LooksOnly)
            } else if kind == Kind::OneWay && !attempt.fingerprint.covers(now) {
                Decision::Ask(Question::ChangedAfterInterruption(attempt))
            } else {
                Decision::Recover(attempt)
            }
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "decide_histories.rs"]
mod histories;
