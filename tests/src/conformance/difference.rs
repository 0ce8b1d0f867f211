//! What differs, and which differences are meant.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::folder;
use crate::error::{LabError, io_error};

/// One thing that differs: where, what ansible-core made of it, what the agent made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disagreement {
    /// `run 1 exit`, `run 1 tasks`, `run 1 recap`, `tree PATH`.
    pub place: String,
    /// ansible-core's.
    pub expected: String,
    /// The agent's.
    pub found: String,
}

/// Compares the records of two sides.
#[must_use]
pub fn disagreements(expected: &Value, runs: &[Value], tree: &Value) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let mut differ = |place: String, expected: &Value, agent: &Value| {
        if expected != agent {
            found.push(Disagreement {
                place,
                expected: format!("{expected:#}"),
                found: format!("{agent:#}"),
            });
        }
    };
    let empty = Vec::new();
    let peers = expected["runs"].as_array().unwrap_or(&empty);
    for (number, (peer, run)) in peers.iter().zip(runs).enumerate() {
        let number = number + 1;
        for part in ["exit", "tasks", "recap"] {
            differ(format!("run {number} {part}"), &peer[part], &run[part]);
        }
    }
    let names: BTreeSet<&String> = [&expected["tree"], tree]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(|map| map.keys())
        .collect();
    for name in names {
        differ(format!("tree {name}"), &expected["tree"][name], &tree[name]);
    }
    found
}

/// The differences that are meant: `differences.txt`, a line each, `case | place | reason`.
#[derive(Debug, Clone, Default)]
pub struct Differences(Vec<(String, String, String)>);

impl Differences {
    /// Reads the list.
    ///
    /// # Errors
    /// It cannot be read, or a line has no reason.
    pub fn read() -> Result<Self, LabError> {
        let path = folder().join("differences.txt");
        let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let mut all = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        {
            let mut parts = line.splitn(3, " | ").map(|part| part.trim().to_owned());
            match (parts.next(), parts.next(), parts.next()) {
                (Some(case), Some(place), Some(reason)) if !reason.is_empty() => {
                    all.push((case, place, reason));
                }
                _ => {
                    let text = format!("read differences.txt: no `case | place | reason`: {line}");
                    return Err(LabError::Unexpected(text));
                }
            }
        }
        Ok(Self(all))
    }

    /// Tells whether a difference is meant.
    #[must_use]
    pub fn has(&self, case: &str, place: &str) -> bool {
        self.0
            .iter()
            .any(|(named, at, _)| named == case && at == place)
    }

    /// Every `case | place`.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(case, place, _)| (case.as_str(), place.as_str()))
    }
}
