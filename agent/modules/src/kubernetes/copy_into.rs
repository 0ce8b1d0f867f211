//! Files into a container: an archive of known size through its input, unpacked beside its place.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use super::copy::Sums;
use crate::host::docker::archive::hash_of;
use crate::host::error::{ModuleError, PathError};
use crate::host::kubernetes::client::Cluster;
use crate::host::kubernetes::error::KubernetesError;
use crate::host::kubernetes::exec::{Streams, Target, run_ok};
use crate::host::worker;
use crate::task::context::TaskContext;

/// The last part of a path in a container.
pub(super) fn file_name(path: &str) -> PathBuf {
    Path::new(path)
        .file_name()
        .map(PathBuf::from)
        .unwrap_or_default()
}

/// Returns the SHA-256 of a file, or of all files in a folder.
///
/// # Errors
/// It is not there, or something in it is neither file nor folder.
pub(super) fn local_sums(local: &Path) -> Result<Sums, KubernetesError> {
    let mut sums = Sums::new();
    let meta = fs::metadata(local).map_err(PathError::on("read", local))?;
    if meta.is_file() {
        let name = local.file_name().map(PathBuf::from).unwrap_or_default();
        sums.insert(name, sum(local)?);
        return Ok(sums);
    }
    add(local, Path::new(""), &mut sums)?;
    Ok(sums)
}

fn add(top: &Path, below: &Path, sums: &mut Sums) -> Result<(), KubernetesError> {
    let dir = top.join(below);
    for entry in fs::read_dir(&dir).map_err(PathError::on("list", &dir))? {
        let entry = entry.map_err(PathError::on("list", &dir))?;
        let (path, relative) = (entry.path(), below.join(entry.file_name()));
        let kind = entry.file_type().map_err(PathError::on("inspect", &path))?;
        if kind.is_dir() {
            add(top, &relative, sums)?;
        } else if kind.is_file() {
            sums.insert(relative, sum(&path)?);
        } else {
            return Err(KubernetesError::Copy {
                from: path.display().to_string(),
                to: "a container".into(),
                message: "it is neither a file nor a folder (a link?)".into(),
            });
        }
    }
    Ok(())
}

fn sum(path: &Path) -> Result<String, KubernetesError> {
    hash_of(path).ok_or_else(|| {
        PathError {
            action: "read",
            path: path.to_path_buf(),
            source: io::Error::other("it cannot be read to its end"),
        }
        .into()
    })
}

/// Sends a file or folder. A file appears in the container by rename, a folder file by file.
///
/// # Errors
/// The archive cannot be made, the connection broke, or the container cannot unpack it.
pub(super) async fn send(
    ctx: &TaskContext,
    cluster: &Cluster,
    target: &Target,
    local: &Path,
    remote: &str,
) -> Result<(), ModuleError> {
    let source = local.to_path_buf();
    let (file, size) = worker::blocking("packing of files", move || pack(&source)).await??;
    let mut input = tokio::fs::File::from_std(file);
    let partial = format!("{remote}.partial-{}", std::process::id());
    let script = if local.is_file() {
        r#"set -e; folder=$(dirname -- "$1"); mkdir -p -- "$folder"; mkdir -- "$2"
trap 'rm -rf -- "$2"' EXIT
tar -xof - -C "$2"; mv -f -- "$2/content" "$1""#
    } else {
        r#"set -e; mkdir -p -- "$1"; tar -xof - -C "$1""#
    };
    let command = ["sh", "-c", script, "sh", remote, &partial].map(str::to_owned);
    let streams = Streams {
        stdin: Some((&mut input, size)),
        ..Streams::default()
    };
    run_ok(cluster, target, &command, streams, &ctx.cancel).await?;
    Ok(())
}

/// Makes an archive of a file (as `content`) or of what is in a folder, in a file without a name.
fn pack(local: &Path) -> Result<(File, u64), KubernetesError> {
    let failed = |source| {
        KubernetesError::from(PathError {
            action: "pack",
            path: local.to_path_buf(),
            source,
        })
    };
    let mut builder = tar::Builder::new(tempfile::tempfile().map_err(failed)?);
    if local.is_file() {
        builder
            .append_path_with_name(local, "content")
            .map_err(failed)?;
    } else {
        builder.append_dir_all(".", local).map_err(failed)?;
    }
    let mut file = builder.into_inner().map_err(failed)?;
    let size = file.stream_position().map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok((file, size))
}
