//! Playbooks that must end alike under ansible-core and under the agent.
//!
//! A case is a playbook in `tests/conformance/cases`. Its first lines may say how it is run: each
//! `# run: ARGUMENTS` is one run, in the same place, one after the other; without any, it is run once.
//! What ansible-core made of it is kept in `tests/conformance/expected`, with a hash of all that goes
//! into the case, so that a case without fresh expectations is noticed.

mod agent;
mod ansible;
mod difference;
mod lint;
pub mod ranks;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use self::agent::run as run_agent;
pub use self::ansible::{Ansible, VERSION};
pub use self::difference::{Differences, disagreements};
pub use self::lint::schemas as ansible_lint_schemas;

use crate::agent::workspace;
use crate::error::{LabError, io_error};
use crate::hash::ContentHash;

/// Stands for the folder that a case works in.
const ROOT: &str = "ROOT";
/// Stands for the folder of the playbooks.
const CASES: &str = "CASES";

/// A playbook and how it is run.
#[derive(Debug, Clone)]
pub struct Case {
    /// File name without ending.
    pub name: String,
    /// The playbook.
    pub playbook: PathBuf,
    /// Arguments of each run.
    pub runs: Vec<Vec<String>>,
    /// Of everything that goes in.
    pub hash: String,
}

/// The folder of the suite.
#[must_use]
pub fn folder() -> PathBuf {
    workspace().join("tests/conformance")
}

/// Reads all cases, by name.
///
/// # Errors
/// They cannot be read.
pub fn cases() -> Result<Vec<Case>, LabError> {
    let dir = folder().join("cases");
    let shared = shared_files(&dir)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).map_err(io_error("read", &dir))? {
        let path = entry.map_err(io_error("read", &dir))?.path();
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let mut runs: Vec<Vec<String>> = text
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .filter_map(|line| line.trim().strip_prefix("run:"))
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        if runs.is_empty() {
            runs.push(Vec::new());
        }
        // Files beside the playbooks belong to the cases that name them.
        let used = shared
            .iter()
            .filter(|(name, _)| text.contains(name.as_str()));
        let hash = used.fold(
            ContentHash::default().with("playbook", &text),
            |hash, (name, content)| hash.with(name, content),
        );
        found.push(Case {
            name: path
                .file_stem()
                .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
            playbook: path,
            runs,
            hash: hash.short(),
        });
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn shared_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, LabError> {
    let mut files = Vec::new();
    for folder in ["files", "tasks", "templates", "vars"] {
        let folder = dir.join(folder);
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.map_err(io_error("read", &folder))?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let content = fs::read(&path).map_err(io_error("read", &path))?;
                files.push((name.into_owned(), content));
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Case {
    fn expectation(&self) -> PathBuf {
        folder()
            .join("expected")
            .join(format!("{}.json", self.name))
    }

    /// What ansible-core made of it, where that is known and still of this case.
    #[must_use]
    pub fn expected(&self) -> Option<Value> {
        let text = fs::read_to_string(self.expectation()).ok()?;
        let kept: Value = serde_json::from_str(&text).ok()?;
        (kept["case"] == self.hash.as_str()).then_some(kept)
    }

    /// Keeps what ansible-core made of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, runs: &[Value], tree: &Value) -> Result<(), LabError> {
        let path = self.expectation();
        let kept = json!({"case": self.hash, "ansible_core": VERSION, "runs": runs, "tree": tree});
        fs::write(&path, format!("{kept:#}\n")).map_err(io_error("write", &path))
    }
}

/// A folder that a case works in, gone with its value.
///
/// # Errors
/// It cannot be made.
pub fn place() -> Result<tempfile::TempDir, LabError> {
    tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir()
        .map_err(io_error("create", &std::env::temp_dir()))
}

/// What is in the folder that a case worked in.
///
/// # Errors
/// It cannot be read.
pub fn left_behind(root: &Path) -> Result<Value, LabError> {
    tree::of(root, &|text| neutral(text, root))
}

/// Puts names in place of the folders, which differ from run to run.
fn neutral(text: &str, root: &Path) -> String {
    let cases = folder().join("cases");
    text.replace(&root.display().to_string(), ROOT)
        .replace(&cases.display().to_string(), CASES)
}
