//! Are the files that tasks made still what was recorded?

use std::path::PathBuf;

use super::fingerprint::sha256_of_file;
use super::history::{History, TaskHistory};

/// A recorded file, looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOutput {
    /// Its path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Reads and hashes every file that a task made and nobody undid.
#[must_use]
pub fn check_outputs(history: &History) -> Vec<CheckedOutput> {
    let mut all = Vec::new();
    for (_, task) in history.tasks() {
        let TaskHistory::Finished(finished) = task else {
            continue;
        };
        for output in &finished.outputs {
            let problem = match sha256_of_file(&output.path) {
                Ok(hash) if hash == output.sha256 => None,
                Ok(_) => Some("its content has changed since".to_owned()),
                Err(error) => Some(format!("cannot be read: {error}")),
            };
            all.push(CheckedOutput {
                path: output.path.clone(),
                problem,
            });
        }
    }
    all
}
