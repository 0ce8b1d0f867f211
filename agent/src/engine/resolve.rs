//! An operator's answer about a task, put into the journal.

use super::run::{Engine, RunError, run_id};
use crate::state::{Answer, Body, History, Journal, Lock};

impl Engine {
    /// Records an answer about a task, named by its identity or the unique end of one. Returns the
    /// identity, or `None` where the journal knows no such task.
    ///
    /// # Errors
    /// When the state is in use, damaged, or cannot be written.
    pub fn resolve(
        &self,
        task: &str,
        answer: Answer,
        reason: &str,
    ) -> Result<Option<String>, RunError> {
        let run = run_id();
        let dir = self.state_dir();
        if !dir.path().is_dir() {
            return Ok(None);
        }
        let holder = format!("pid {}, resolving {task}", std::process::id());
        let _lock = Lock::take(&dir.lock(), &holder)?;
        let contents = self.journal()?;
        let history = History::of(&contents.records);
        let Some(identity) = find_task(&history, task) else {
            return Ok(None);
        };
        let now = self.task_now(&identity, &history);
        let fingerprint = now.and_then(|now| now.ready).map(|ready| ready.fingerprint);
        let (mut journal, _) = Journal::open(&dir.journal(), &contents, &run)?;
        journal.append(Body::TaskResolved {
            task: identity.clone(),
            answer,
            reason: reason.to_owned(),
            user: self.options.operator.user.clone(),
            fingerprint,
        })?;
        Ok(Some(identity))
    }
}

/// Finds a task by its identity, or by the end of one if that is unique.
#[must_use]
pub fn find_task(history: &History, task: &str) -> Option<String> {
    if history.task(task).is_some() {
        return Some(task.to_owned());
    }
    let end = format!(" / {task}");
    let mut found = history
        .tasks()
        .map(|(identity, _)| identity)
        .filter(|name| name.ends_with(&end));
    match (found.next(), found.next()) {
        (Some(identity), None) => Some(identity.to_owned()),
        _ => None,
    }
}
