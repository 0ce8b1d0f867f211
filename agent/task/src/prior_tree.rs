//! What a folder held before a task put files into it, and what takes exactly these files away again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::error::PathError;
use crate::host::files::durable::parent_of;
use crate::host::files::error::FilesResult;
use crate::prior_state::{PriorState, UNTOLD, folders_made, missing_above};
use crate::undo::{PastAttempt, Step, Undo, unless_unchanged};

/// More than this is not written into a journal; the task then cannot be undone.
const MOST: usize = 10_000;

/// What a folder held before a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeBefore {
    /// The folder.
    pub dest: PathBuf,
    /// Folders that were missing, topmost first, `dest` included.
    missing: Vec<PathBuf>,
    /// Everything in it and below, by relative path; nothing where it was too much.
    there: Option<BTreeMap<PathBuf, PriorState>>,
}

impl TreeBefore {
    /// Looks at a folder, which need not exist.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn of(dest: &Path) -> FilesResult<Self> {
        let mut there = BTreeMap::new();
        let whole = match fs::symlink_metadata(dest) {
            Ok(_) => list(dest, dest, &mut there)?,
            Err(_) => true,
        };
        Ok(Self {
            dest: dest.to_path_buf(),
            missing: missing_above(&dest.join("entry")),
            there: whole.then_some(there),
        })
    }

    fn held(&self, path: &Path) -> Option<&PriorState> {
        let relative = path.strip_prefix(&self.dest).ok()?;
        self.there.as_ref()?.get(relative)
    }
}

/// Returns false where there is too much.
fn list(top: &Path, dir: &Path, there: &mut BTreeMap<PathBuf, PriorState>) -> FilesResult<bool> {
    for entry in fs::read_dir(dir).map_err(PathError::on("list", dir))? {
        let path = entry.map_err(PathError::on("list", dir))?.path();
        let meta = fs::symlink_metadata(&path).map_err(PathError::on("inspect", &path))?;
        let relative = path.strip_prefix(top).unwrap_or(&path);
        there.insert(relative.to_path_buf(), PriorState::of(&meta));
        if there.len() > MOST || (meta.is_dir() && !list(top, &path, there)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What takes back tasks whose result lists `files`, each with its `path`.
pub fn undo_of_tree(efforts: &[PastAttempt<'_>]) -> Undo {
    unless_unchanged(efforts, || {
        let first = efforts.first().map(|effort| &effort.intent["before"]);
        let before =
            first.and_then(|value| serde_json::from_value::<TreeBefore>(value.clone()).ok());
        let Some(before) = before else {
            return Undo::Impossible(UNTOLD.into());
        };
        let Some(there) = &before.there else {
            return Undo::Impossible(format!(
                "too much was in {} to note it",
                before.dest.display()
            ));
        };
        let results = efforts.iter().filter_map(|effort| effort.result);
        let files: Vec<PathBuf> = results
            .filter_map(|result| result["files"].as_array())
            .flatten()
            .filter_map(|file| file["path"].as_str().map(PathBuf::from))
            .collect();
        if !files.is_empty() {
            return Undo::Steps(steps(&before, &files));
        }
        // It failed on the way: what has come since is what it wrote.
        let mut now = BTreeMap::new();
        if before.dest.is_dir() && !matches!(list(&before.dest, &before.dest, &mut now), Ok(true)) {
            let dest = before.dest.display();
            return Undo::Impossible(format!("what is in {dest} cannot be listed"));
        }
        let files: Vec<PathBuf> = now
            .iter()
            .filter(|(path, is)| is.kind == "file" && there.get(*path) != Some(is))
            .map(|(path, _)| before.dest.join(path))
            .collect();
        Undo::Steps(steps(&before, &files))
    })
}

fn steps(before: &TreeBefore, files: &[PathBuf]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut folders: Vec<PathBuf> = Vec::new();
    for path in files {
        steps.push(match before.held(path) {
            Some(was) => Step::PutBack {
                path: path.clone(),
                was: was.clone(),
                kept: Vec::new(),
                now: None,
            },
            None => Step::SetAside {
                path: path.clone(),
                identity: None,
            },
        });
        let mut folder = parent_of(path);
        while folder != before.dest && folder.starts_with(&before.dest) {
            if before.held(folder).is_none() && !folders.iter().any(|known| known == folder) {
                folders.push(folder.to_path_buf());
            }
            folder = parent_of(folder);
        }
    }
    folders.sort();
    steps.extend(folders_made(&folders));
    steps.extend(folders_made(&before.missing));
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_added_is_taken_away() {
        let dir = tempfile::tempdir().expect("temp dir");
        let dest = dir.path().join("a/sql");
        let fresh = TreeBefore::of(&dest).expect("nothing is there");
        assert_eq!(fresh.missing, [dir.path().join("a"), dest.clone()]);
        let files = [dest.join("1.sql"), dest.join("sub/2.sql")];
        let result = json!({"changed": true, "files": [{"path": files[0]}, {"path": files[1]}]});
        let undo = |before: &TreeBefore| {
            undo_of_tree(&[PastAttempt {
                attempt: "r/1",
                intent: &json!({ "before": before }),
                arguments: &json!({}),
                result: Some(&result),
                accepted: false,
            }])
        };
        let gone = |path: &Path| Step::SetAside {
            path: path.into(),
            identity: None,
        };
        let empty = |path: &Path| Step::SetAsideEmpty { path: path.into() };
        assert_eq!(
            undo(&fresh),
            Undo::Steps(vec![
                gone(&files[0]),
                gone(&files[1]),
                empty(&dest.join("sub")),
                empty(&dest),
                empty(&dir.path().join("a")),
            ])
        );

        fs::create_dir_all(&dest).expect("mkdir");
        fs::write(&files[0], "theirs").expect("write");
        let Undo::Steps(steps) = undo(&TreeBefore::of(&dest).expect("one file")) else {
            panic!("it can be undone");
        };
        assert!(matches!(&steps[0], Step::PutBack { path, .. } if *path == files[0]));
        assert_eq!(steps[1..], [gone(&files[1]), empty(&dest.join("sub"))]);
    }
}
