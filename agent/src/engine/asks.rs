//! Whether a task asks an operator anything: an answer that nobody asked for would undo what the journal
//! proves, or hide a failure.

use super::decide::{Decision, Question};
use super::resolve::standing;
use super::run::Engine;
use super::unit::Look;
use crate::modules::registry;
use crate::state::{History, TaskHistory, TaskStatus};
use crate::task::module::Kind;

/// A task was answered for that asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{task}` asks nothing: it is {standing}")]
pub struct AsksNothing {
    /// Its identity.
    pub task: String,
    /// What the journal knows of it.
    pub standing: String,
    /// What there is to do instead.
    pub instead: String,
}

impl AsksNothing {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "resolve::asks_nothing"
    }
}

impl Engine {
    /// Says why an answer about this task would be one to no question.
    pub(super) fn asks_nothing(&self, identity: &str, history: &History) -> Option<AsksNothing> {
        // Until a run begins, an answer may be taken back by another.
        if history.answered.contains(identity) {
            return None;
        }
        let known = history.task(identity)?;
        let again = || {
            let task = super::question::quoted(identity);
            format!("`{} --redo {task}`", self.command("run"))
        };
        let instead = match known {
            TaskHistory::Interrupted(attempt) => match registry::find(&attempt.module) {
                Some(spec) if spec.kind == Kind::ReadOnly => {
                    "it only looks, and the next run has it look again".to_owned()
                }
                _ => return None,
            },
            TaskHistory::Finished(finished) => match self.decision_now(identity, history) {
                Now::Asks => return None,
                // What it rests on is known only when a run comes to it.
                Now::Later(Kind::OneWay) if finished.status != TaskStatus::Ignored => return None,
                Now::Runs => {
                    "the next run does it again, as what it depends on has changed".to_owned()
                }
                _ => format!("to do it again: {}", again()),
            },
            TaskHistory::Failed { .. } => {
                "fix the cause and run the playbook: it is tried again. Where its effect is there, \
                 brought about by hand, say in the playbook by what it is recognised (`done_when`)"
                    .to_owned()
            }
            TaskHistory::Redo { .. } => "the next run does it again".to_owned(),
            TaskHistory::Skipped { .. } => {
                "a run looks at its condition again, and does it once that is true".to_owned()
            }
            TaskHistory::Undone { .. } => "the next run does it again".to_owned(),
            TaskHistory::Undoing { .. } => {
                format!(
                    "take it back to the end first: `{}`",
                    self.command("rollback")
                )
            }
        };
        Some(AsksNothing {
            task: identity.to_owned(),
            standing: standing(known),
            instead,
        })
    }

    /// What a run would decide about a task that is done.
    fn decision_now(&self, identity: &str, history: &History) -> Now {
        let Some(place) = self.place_now(identity, history) else {
            return Now::Done;
        };
        let kind = place.task.module.kind;
        match self.look(&place, &self.unit_scope(&place), history, &[]) {
            Err(_) => Now::Later(kind),
            Ok(Look::Skip { .. }) => Now::Done,
            Ok(Look::Ready(ready)) => match ready.decision {
                Decision::Ask(Question::ChangedAfterDone(_)) => Now::Asks,
                Decision::Run(_) => Now::Runs,
                _ => Now::Done,
            },
        }
    }
}

/// What the next run does with a task that is done.
enum Now {
    Asks,
    Runs,
    /// Nothing.
    Done,
    Later(Kind),
}
