//! `docker_container_copy_from`: files out of an image or a container.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::DownloadFromContainerOptions;
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::host::docker::archive::{
    ChannelReader, Found, hash_of, remove_partials, unpack_archive,
};
use crate::host::docker::error::DockerError;
use crate::host::docker::lifecycle;
use crate::host::error::ModuleError;
use crate::host::output_file::OutputFile;
use crate::host::worker;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_tree::{TreeBefore, undo_of_tree};
use crate::task::undo::{PastAttempt, Undo};

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
    const AFTER_INTERRUPTION: &'static str =
        "removes its helper container and half files, copies again";
    const CHECK_MODE: &'static str = "predicts where the image is there; otherwise skipped";
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

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        undo_of_tree(efforts)
    }
}

impl DockerContainerCopyFrom {
    /// Runs `work` with the container to read from: an existing one, or a made and never started one
    /// that is always removed.
    async fn read(
        &self,
        ctx: &TaskContext,
        dest: Option<PathBuf>,
    ) -> Result<Vec<Found>, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
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
        let docker = crate::host::docker::client::connect(ctx).await?;
        let label = format!("{LABEL}={attempt}");
        for id in crate::host::docker::service::list_by_labels(&docker, &[label]).await? {
            lifecycle::remove(&docker, &id).await?;
        }
        remove_partials(&ctx.resolve(&self.dest))?;
        Ok(Recovery::NotDone)
    }
}
