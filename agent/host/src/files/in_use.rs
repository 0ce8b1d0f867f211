//! Who uses files below a directory. Processes are compared by device and inode, not by name: one in a
//! container sees other paths for the same files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::durable::Identity;
use super::error::{FilesError, FilesResult};
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::error::PathError;

/// How many users an error names.
const NAMED: usize = 5;

/// Refuses when a process has its working directory, root, program or an open file at or below `path`.
///
/// # Errors
/// [`FilesError::InUse`] naming the processes; [`FilesError::Refused`] when not every process could be
/// looked into.
pub fn refuse_in_use(path: &Path, ctx: &HostContext) -> FilesResult<()> {
    let (held, hidden) = held_files()?;
    if hidden > 0 {
        return Err(FilesError::Refused {
            path: path.to_path_buf(),
            why: format!(
                "cannot tell whether it is in use: {hidden} processes do not show their open files \
                 to this user"
            ),
        }
        .into());
    }
    let mut users = Vec::new();
    find_held(path, path, &held, ctx, &mut users)?;
    if users.is_empty() {
        return Ok(());
    }
    let more = users.len().saturating_sub(NAMED);
    users.truncate(NAMED);
    let mut text = users.join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    Err(FilesError::InUse {
        path: path.to_path_buf(),
        users: text,
    }
    .into())
}

/// Returns what all processes hold, and how many would not tell. A few thousand entries, while the tree
/// may have millions: the tree is compared with these, not the other way round.
fn held_files() -> FilesResult<(HashMap<Identity, String>, usize)> {
    let proc = Path::new("/proc");
    let mut held = HashMap::new();
    let mut hidden = 0;
    for entry in fs::read_dir(proc).map_err(PathError::on("list", proc))? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let dir = entry.path();
        let mut links: Vec<(&str, PathBuf)> = ["cwd", "root", "exe"]
            .iter()
            .map(|name| (*name, dir.join(name)))
            .collect();
        match fs::read_dir(dir.join("fd")) {
            Ok(fds) => links.extend(fds.flatten().map(|fd| ("an open file", fd.path()))),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                hidden += 1;
                continue;
            }
            // It ended meanwhile.
            Err(_) => continue,
        }
        for (what, link) in links {
            // Follows the kernel's own link, which works across mount namespaces.
            let Ok(meta) = fs::metadata(&link) else {
                continue;
            };
            held.entry(Identity::of(&meta)).or_insert_with(|| {
                let program = fs::read_to_string(dir.join("comm")).unwrap_or_default();
                let what = match what {
                    "cwd" => "its working directory",
                    "root" => "its root",
                    "exe" => "its program",
                    other => other,
                };
                format!("process {pid} ({}) has {what}", program.trim())
            });
        }
    }
    Ok((held, hidden))
}

fn find_held(
    top: &Path,
    path: &Path,
    held: &HashMap<Identity, String>,
    ctx: &HostContext,
    users: &mut Vec<String>,
) -> FilesResult<()> {
    if ctx.cancel.is_cancelled() {
        return Err(ModuleError::Cancelled);
    }
    let meta = fs::symlink_metadata(path).map_err(PathError::on("inspect", path))?;
    if let Some(user) = held.get(&Identity::of(&meta)) {
        let place = path.strip_prefix(top).unwrap_or(path);
        users.push(if place.as_os_str().is_empty() {
            format!("{user} there")
        } else {
            format!("{user} in {}", place.display())
        });
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(PathError::on("list", path))? {
            let entry = entry.map_err(PathError::on("list", path))?;
            find_held(top, &entry.path(), held, ctx, users)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_working_directory_and_an_open_file_are_found() {
        let dir = tempfile::tempdir().expect("temp dir");
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("base")).expect("mkdir");
        let ctx = HostContext::for_tests(dir.path());
        refuse_in_use(&data, &ctx).expect("idle");

        let mut child = Command::new("cat")
            .current_dir(&data)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(data.join("base/out")).expect("create"))
            .spawn()
            .expect("cat");
        let error = refuse_in_use(&data, &ctx).expect_err("in use").to_string();
        drop(child.stdin.take());
        child.wait().expect("ended");
        let pid = child.id();
        assert!(
            error.contains(&format!(
                "process {pid} (cat) has its working directory there"
            )),
            "{error}"
        );
        assert!(error.contains("has an open file in base/out"), "{error}");
        refuse_in_use(&data, &ctx).expect("idle again");
    }
}
