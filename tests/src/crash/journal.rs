//! What a journal must say at the end, whatever happened on the way. Read as text and hashed here: none
//! of it is shared with the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::agent::is_looked_at_again;
use crate::error::{LabError, io_error};
use crate::hash::sha256;
use crate::migration::must;

/// How every task of a migration ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tasks {
    /// Identity → `ok` or `changed`.
    pub finished: BTreeMap<String, String>,
    /// Identities of tasks whose condition was false in the last run that met them.
    pub skipped: BTreeSet<String>,
}

impl Tasks {
    /// Reads a journal, and fails where a task that was finished was started or finished again. `root`
    /// is the site's folder: identities are kept without it.
    ///
    /// # Errors
    /// Names the task.
    pub fn of(journal: &[Value], root: &Path) -> Result<Self, LabError> {
        let root = root.display().to_string();
        let mut tasks = Self::default();
        let mut known: BTreeMap<&str, &Value> = BTreeMap::new();
        for record in journal {
            let task = record["task"].as_str().unwrap_or_default();
            let event = record["event"].as_str().unwrap_or_default();
            let status = record["status"].as_str().unwrap_or_default();
            match event {
                "task_started" | "task_finished" => {
                    let again = known.get(task) == Some(&&record["fingerprint"]);
                    must(!again || is_looked_at_again(task), || {
                        format!(
                            "record {}: {event} of `{task}`, which was finished",
                            record["seq"]
                        )
                    })?;
                }
                "task_skipped" => drop(tasks.skipped.insert(task.replace(&root, "SITE"))),
                _ => {}
            }
            if event == "task_finished" && status != "failed" {
                known.insert(task, &record["fingerprint"]);
                let task = task.replace(&root, "SITE");
                tasks.skipped.remove(&task);
                tasks.finished.insert(task, status.to_owned());
            }
        }
        Ok(tasks)
    }

    /// Fails unless these are the ends of an undisturbed migration. Where that one skipped a task, this
    /// one may have needed it: the 0.2 database is counted again where a run was interrupted. And a
    /// converging task that was interrupted behind its effect finds nothing to do when it runs again:
    /// then it ends `ok` where it would have ended `changed`.
    ///
    /// # Errors
    /// Names the task.
    pub fn must_be_those_of(&self, undisturbed: &Self) -> Result<(), LabError> {
        for (task, status) in &undisturbed.finished {
            let found = self.finished.get(task);
            must(found == Some(status), || {
                format!("`{task}` ended {found:?} instead of {status}")
            })?;
        }
        let more = self.finished.keys().find(|task| {
            !undisturbed.finished.contains_key(*task) && !undisturbed.skipped.contains(*task)
        });
        must(more.is_none(), || format!("{more:?} ran"))
    }
}

/// Fails unless every line follows the one before it and the last run ended well.
///
/// # Errors
/// Names the line.
pub fn must_be_whole(path: &Path) -> Result<(), LabError> {
    const HASH: &str = ",\"hash\":\"";
    let text = std::fs::read_to_string(path).map_err(io_error("read", path))?;
    let mut before = "0".repeat(64);
    for (index, line) in text.split_terminator('\n').enumerate() {
        let number = index + 1;
        let (content, hash) = line
            .rsplit_once(HASH)
            .ok_or_else(|| LabError::Unexpected(format!("line {number} has no hash")))?;
        let hash = hash.trim_end_matches("\"}");
        must(sha256(format!("{content}}}")) == hash, || {
            format!("line {number} does not fit its hash")
        })?;
        must(
            content.ends_with(&format!(",\"prev\":\"{before}\"")),
            || format!("line {number} does not follow the one before it"),
        )?;
        must(content.contains(&format!("\"seq\":{number},")), || {
            format!("line {number} has another number")
        })?;
        before = hash.to_owned();
    }
    let last = text.lines().last().unwrap_or_default();
    must(
        text.ends_with('\n') && last.contains("\"event\":\"run_finished\",\"outcome\":\"done\""),
        || format!("the journal ends with {last}"),
    )
}

/// Number of failed tasks that the journal tells of.
#[must_use]
pub fn failures(journal: &[Value]) -> Vec<String> {
    journal
        .iter()
        .filter(|record| record["event"] == "task_finished" && record["status"] == "failed")
        .map(|record| format!("{}: {}", record["task"], record["error"]))
        .collect()
}
