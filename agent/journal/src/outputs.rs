//! Are the files that tasks made still what was recorded?

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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

/// Reads and hashes every file that a task made and nobody undid, each once: where several tasks wrote
/// it, the last one's content counts.
#[must_use]
pub fn check_outputs(history: &History) -> Vec<CheckedOutput> {
    let mut last: BTreeMap<&Path, u64> = BTreeMap::new();
    let made: Vec<_> = history
        .tasks()
        .filter_map(|(_, task)| match task {
            TaskHistory::Finished(finished) => Some(finished),
            _ => None,
        })
        .flat_map(|finished| finished.outputs.iter().map(|output| (finished.seq, output)))
        .collect();
    for (seq, output) in &made {
        let known = last.entry(&output.path).or_default();
        *known = (*known).max(*seq);
    }
    let mut all = Vec::new();
    for (seq, output) in made {
        if last.get(output.path.as_path()) == Some(&seq) {
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
