//! `docker_container_copy_from`: files out of an image or a container.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::DownloadFromContainerOptions;
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::error::DockerError;
use super::lifecycle;
use crate::modules::context::TaskContext;
use crate::modules::error::{ModuleError, PathError};
use crate::modules::files::undo_tree::{TreeBefore, undo_of_tree};
use crate::modules::module::{Kind, Module, Outcome, OutputFile, Plan, Recovery, TypedModule};
use crate::modules::undo::{Effort, Undo};
use crate::modules::worker;

/// Label of the containers that are made to look into an image.
const LABEL: &str = "io.kaapana.agent.copy";

/// Copies a file or folder out of an image or a container; only regular files and directories.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerContainerCopyFrom {
    /// Image to copy from. Nothing of it is run. Either this or `container`.
    #[serde(default)]
    pub image: Option<String>,
    /// Container to copy from, running or not. Either this or `image`.
    #[serde(default)]
    pub container: Option<String>,
    /// File or folder in the image.
    pub path: String,
    /// Folder on this host that gets the file, or the folder's content; made where missing.
    /// Relative paths start at the playbook.
    pub dest: PathBuf,
    /// Copy only files whose name matches this regular expression. Default: all.
    #[serde(default)]
    pub pattern: Option<String>,
}

impl TypedModule for DockerContainerCopyFrom {
    const NAME: &'static str = "docker_container_copy_from";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.docker_container_copy_from"];
    const KIND: Kind = Kind::Converging;
    const SUMMARY: &'static str =
        "Copies files out of an image (without running it) or a container.";
    const EXAMPLE: &'static str = r#"- name: Take the update scripts out of the 0.3 image
  docker_container_copy_from:
    image: "{{ new_image }}"
    path: /sql
    pattern: '^update-.*\.sql$'
    dest: "{{ work_dir }}/sql"
  register: scripts   # scripts.files: [{path, size, sha256}]
"#;

    fn undo(efforts: &[Effort<'_>]) -> Undo {
        undo_of_tree(efforts)
    }
}

/// One file that was found in the archive: relative path, size, SHA-256.
pub(in crate::modules) type Found = (PathBuf, u64, String);

impl DockerContainerCopyFrom {
    /// Runs `work` with the container to read from: an existing one, or a made and never started one
    /// that is always removed.
    async fn read(
        &self,
        ctx: &TaskContext,
        dest: Option<PathBuf>,
    ) -> Result<Vec<Found>, ModuleError> {
        let docker = super::client::connect(ctx).await?;
        match (&self.image, &self.container) {
            (Some(image), None) => {
                lifecycle::image_id(&docker, image).await?;
                let body = ContainerCreateBody {
                    image: Some(image.clone()),
                    // Needed where the image has none; it never runs.
                    cmd: Some(vec!["true".into()]),
                    labels: Some([(LABEL.to_owned(), ctx.attempt.clone())].into()),
                    network_disabled: Some(true),
                    ..ContainerCreateBody::default()
                };
                let id = lifecycle::create(&docker, None, body).await?;
                let copied = self.unpack(ctx, &docker, &id, image, dest).await;
                lifecycle::remove(&docker, &id).await?;
                copied
            }
            (None, Some(container)) => self.unpack(ctx, &docker, container, container, dest).await,
            _ => Err(DockerError::Argument {
                argument: "image",
                message: "give either `image` or `container`".into(),
            }
            .into()),
        }
    }

    async fn unpack(
        &self,
        ctx: &TaskContext,
        docker: &Docker,
        container: &str,
        origin: &str,
        dest: Option<PathBuf>,
    ) -> Result<Vec<Found>, ModuleError> {
        let pattern = self
            .pattern
            .as_deref()
            .map(regex::Regex::new)
            .transpose()
            .map_err(|error| DockerError::Argument {
                argument: "pattern",
                message: error.to_string(),
            })?;
        let options = DownloadFromContainerOptions {
            path: self.path.clone(),
        };
        let mut stream = Box::pin(docker.download_from_container(container, Some(options)));
        let (sender, receiver) = mpsc::channel::<io::Result<bytes::Bytes>>(16);
        let (path, origin) = (self.path.clone(), origin.to_owned());
        let (of_path, of_origin) = (path.clone(), origin.clone());
        let unpacking = worker::start("unpacking of an archive", move || {
            unpack_archive(
                ChannelReader::new(receiver),
                &of_origin,
                &of_path,
                pattern.as_ref(),
                dest.as_deref(),
            )
        });
        let mut done = 0;
        loop {
            let item = tokio::select! {
                () = ctx.cancel.cancelled() => {
                    let _ = sender.send(Err(io::Error::other("interrupted"))).await;
                    let _ = unpacking.await;
                    return Err(ModuleError::Cancelled);
                }
                item = stream.next() => item,
            };
            match item {
                None => break,
                Some(Ok(chunk)) => {
                    done += chunk.len() as u64;
                    ctx.progress.bytes(done, None);
                    if sender.send(Ok(chunk)).await.is_err() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    let _ = sender.send(Err(io::Error::other("cut"))).await;
                    let _ = unpacking.await;
                    let action = format!("copy {path} from {origin}");
                    return Err(DockerError::from_api(action, &error).into());
                }
            }
        }
        drop(sender);
        Ok(worker::ended(unpacking).await??)
    }
}

/// Blocking reader over chunks that an async task sends.
pub(in crate::modules) struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<bytes::Bytes>>,
    current: bytes::Bytes,
}

impl ChannelReader {
    pub(in crate::modules) fn new(receiver: mpsc::Receiver<io::Result<bytes::Bytes>>) -> Self {
        Self {
            receiver,
            current: bytes::Bytes::new(),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}

/// Unpacks an archive under `dest`, or only lists and hashes it without one.
///
/// Docker's archive of `/sql` holds `sql/`, `sql/a`, …: the first component is dropped for a folder
/// and kept for a file. Each file is written beside its place, synced, and renamed.
pub(in crate::modules) fn unpack_archive(
    reader: impl Read,
    origin: &str,
    path: &str,
    pattern: Option<&regex::Regex>,
    dest: Option<&Path>,
) -> Result<Vec<Found>, DockerError> {
    let bad = |path: &str, message: String| DockerError::Archive {
        origin: origin.to_owned(),
        path: path.to_owned(),
        message,
    };
    let mut archive = tar::Archive::new(reader);
    let mut found = Vec::new();
    let entries = archive
        .entries()
        .map_err(|error| bad(path, error.to_string()))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| bad(path, error.to_string()))?;
        let name = entry
            .path()
            .map_err(|error| bad(path, error.to_string()))?
            .into_owned();
        let shown = name.display().to_string();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if name
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(bad(&shown, "its path leads out of the folder".into()));
        }
        let mut parts = name
            .components()
            .filter(|part| matches!(part, Component::Normal(_)));
        let rest: PathBuf = if parts.clone().count() > 1 {
            parts.next();
            parts.collect()
        } else {
            parts.collect()
        };
        let file_name = rest
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if pattern.is_some_and(|pattern| !pattern.is_match(&file_name)) {
            continue;
        }
        if !kind.is_file() {
            return Err(bad(
                &shown,
                "it is neither a file nor a directory (a link?)".into(),
            ));
        }
        let (size, sha256) = match dest {
            Some(dest) => write_file(&mut entry, &dest.join(&rest))?,
            None => hash_into(&mut entry, &mut io::sink())
                .map_err(|error| bad(&shown, error.to_string()))?,
        };
        found.push((rest, size, sha256));
    }
    found.sort();
    Ok(found)
}

fn write_file(from: &mut impl Read, place: &Path) -> Result<(u64, String), DockerError> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(PathError::on("create", folder))?;
    let mut file = tempfile::Builder::new()
        .prefix(".copy-")
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(PathError::on("write into", folder))?;
    let written = hash_into(from, file.as_file_mut()).map_err(PathError::on("write", place))?;
    file.as_file()
        .sync_all()
        .map_err(PathError::on("sync", place))?;
    file.persist(place)
        .map_err(|error| PathError::on("rename into place", place)(error.error))?;
    let dir = std::fs::File::open(folder).map_err(PathError::on("open", folder))?;
    dir.sync_all().map_err(PathError::on("sync", folder))?;
    Ok(written)
}

/// Copies everything and returns its size and SHA-256.
pub(in crate::modules) fn hash_into(
    from: &mut impl Read,
    to: &mut impl io::Write,
) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        let size = from.read(&mut buffer)?;
        if size == 0 {
            return Ok((total, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..size]);
        to.write_all(&buffer[..size])?;
        total += size as u64;
    }
}

/// Returns the SHA-256 of a file that is there, or nothing.
pub(in crate::modules) fn hash_of(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    hash_into(&mut file, &mut io::sink())
        .ok()
        .map(|(_, sha256)| sha256)
}

#[async_trait]
impl Module for DockerContainerCopyFrom {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let found = match self.read(ctx, None).await {
            Ok(found) => found,
            // An earlier task may be the one that brings the image.
            Err(ModuleError::Failed(failure)) if failure.code() == "docker::no_image" => {
                return Ok(Plan::CannotPredict);
            }
            Err(error) => return Err(error),
        };
        let dest = ctx.resolve(&self.dest);
        let lines: Vec<String> = found
            .iter()
            .filter(|(path, _, sha256)| hash_of(&dest.join(path)).as_ref() != Some(sha256))
            .map(|(path, ..)| format!("write {}", dest.join(path).display()))
            .collect();
        Ok(Plan::from(lines))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        let before = worker::blocking("look at a folder", move || TreeBefore::of(&dest)).await??;
        Ok(json!({ "before": before }))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        let listed = self.read(ctx, None).await?;
        if listed.is_empty() {
            return Err(DockerError::Archive {
                origin: self
                    .image
                    .clone()
                    .or_else(|| self.container.clone())
                    .unwrap_or_default(),
                path: self.path.clone(),
                message: "no file there is wanted".into(),
            }
            .into());
        }
        let here = listed
            .iter()
            .all(|(path, _, sha256)| hash_of(&dest.join(path)).as_ref() == Some(sha256));
        let found = if here {
            listed
        } else {
            self.read(ctx, Some(dest.clone())).await?
        };
        let mut outcome = Outcome {
            changed: !here,
            ..Outcome::default()
        };
        let mut files = Vec::new();
        for (path, size, sha256) in found {
            let path = dest.join(path);
            files.push(json!({"path": path, "size": size, "sha256": sha256}));
            outcome = outcome.output(OutputFile { path, size, sha256 });
        }
        let summary = format!("{} files in {}", files.len(), dest.display());
        Ok(outcome
            .with("dest", dest.display().to_string())
            .with("files", files)
            .summary(summary))
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        let attempt = ctx.interrupted_attempt.clone().unwrap_or_default();
        let docker = super::client::connect(ctx).await?;
        let label = format!("{LABEL}={attempt}");
        for id in super::service::list_by_labels(&docker, &[label]).await? {
            lifecycle::remove(&docker, &id).await?;
        }
        remove_partials(&ctx.resolve(&self.dest))?;
        Ok(Recovery::NotDone)
    }
}

/// Removes what a killed attempt left in the folder and below.
pub(in crate::modules) fn remove_partials(dest: &Path) -> Result<(), DockerError> {
    let Ok(entries) = std::fs::read_dir(dest) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let (path, name) = (
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        );
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_partials(&path)?;
        } else if name.starts_with(".copy-") && name.ends_with(".partial") {
            std::fs::remove_file(&path).map_err(PathError::on("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            // Written by hand, because the builder itself refuses names such as `../x`.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).expect("append");
        }
        builder.into_inner().expect("archive")
    }

    #[test]
    fn files_land_under_dest_and_nothing_leads_out_of_it() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let dir = tempfile::tempdir().expect("temp dir");
        let good = archive(&[
            ("sql/", Directory, ""),
            ("sql/update-1.sql", Regular, "select 1;"),
            ("sql/readme", Regular, "x"),
        ]);
        let pattern = regex::Regex::new(r"\.sql$").expect("regex");
        let found = unpack_archive(&good[..], "image", "/sql", Some(&pattern), Some(dir.path()));
        assert_eq!(found.expect("unpacked").len(), 1);
        assert_eq!(
            std::fs::read_to_string(dir.path().join("update-1.sql")).expect("file"),
            "select 1;"
        );
        for bad in [("sql/../../x.sql", Regular), ("sql/link.sql", Symlink)] {
            let bytes = archive(&[(bad.0, bad.1, "")]);
            let result = unpack_archive(&bytes[..], "image", "/sql", None, Some(dir.path()));
            assert!(result.is_err(), "{bad:?}");
        }
        let cut = &good[..good.len() - 1400];
        assert!(unpack_archive(cut, "image", "/sql", None, None).is_err());
    }
}
