//! The schemas that ansible-lint judges playbooks by.

use std::path::PathBuf;
use std::process::Command;

use crate::apt;
use crate::error::LabError;
use crate::tool;
use crate::workplace::lab_subdir;

/// The version whose schemas are asked.
const VERSION: &str = "26.10.1";
const PYTHON: &str = "/usr/bin/python3";

/// Brings ansible-lint's package from PyPI, where that has not been done yet, and returns the folder of its
/// schemas (`playbook.json`, `tasks.json`). Nothing of it is installed or run.
///
/// # Errors
/// PyPI does not answer, or the package has no schemas.
pub fn schemas() -> Result<PathBuf, LabError> {
    let dir = lab_subdir("ansible-lint")?.join(VERSION);
    let schemas = dir.join("ansiblelint/schemas");
    if schemas.join("playbook.json").is_file() {
        return Ok(schemas);
    }
    apt::ensure_python("pip", "python3-pip")?;
    let packages = dir.join("package");
    tool::run(
        Command::new(PYTHON)
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--dest"])
            .arg(&packages)
            .arg(format!("ansible-lint=={VERSION}")),
        "get the schemas of ansible-lint",
    )?;
    let wheel = packages.join(format!("ansible_lint-{VERSION}-py3-none-any.whl"));
    tool::run(
        Command::new(PYTHON)
            .args(["-m", "zipfile", "-e"])
            .arg(wheel)
            .arg(&dir),
        "unpack the schemas of ansible-lint",
    )?;
    Ok(schemas)
}
