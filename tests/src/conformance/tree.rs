//! What a run left in its folder: kinds, modes, contents.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{LabError, io_error};
use crate::hash::sha256;

/// A longer content stands by its hash.
const LONG: usize = 4096;

/// Describes everything below a folder, by relative path.
pub(super) fn of(root: &Path, neutral: &dyn Fn(&str) -> String) -> Result<Value, LabError> {
    let mut found = Map::new();
    below(root, root, neutral, &mut found)?;
    found.sort_keys();
    Ok(found.into())
}

fn below(
    root: &Path,
    dir: &Path,
    neutral: &dyn Fn(&str) -> String,
    found: &mut Map<String, Value>,
) -> Result<(), LabError> {
    for entry in fs::read_dir(dir).map_err(io_error("read", dir))? {
        let path = entry.map_err(io_error("read", dir))?.path();
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        let meta = fs::symlink_metadata(&path).map_err(io_error("inspect", &path))?;
        let mode = meta.permissions().mode() & 0o7777;
        let what = if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(io_error("read", &path))?;
            format!("link to {}", neutral(&target.display().to_string()))
        } else if meta.is_dir() {
            below(root, &path, neutral, found)?;
            format!("directory {mode:04o}")
        } else {
            let content = fs::read(&path).map_err(io_error("read", &path))?;
            let shown = match String::from_utf8(content) {
                Ok(text) if text.len() <= LONG => neutral(&text),
                Ok(text) => format!("sha256 {}", sha256(text)),
                Err(other) => format!("sha256 {}", sha256(other.into_bytes())),
            };
            format!("file {mode:04o} {shown}")
        };
        found.insert(name, what.into());
    }
    Ok(())
}
