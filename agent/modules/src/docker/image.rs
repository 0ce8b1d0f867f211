//! `docker_image`: an image is on this host.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptions, ImportImageOptions};
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::host::docker::error::DockerError;
use crate::host::error::{ModuleError, PathError};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo};

/// Where an image may come from when it is not here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// From the archive where `archive_path` is given and there, else from its registry.
    #[default]
    Any,
    /// It must be here already.
    Local,
    /// From its registry.
    Pull,
    /// From the archive `archive_path`.
    Load,
}

/// Brings an image to this host.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerImage {
    /// Name with tag, name with digest, or id.
    pub name: String,
    /// Tag, where `name` has none. Default: `latest`.
    #[serde(default)]
    pub tag: Option<String>,
    /// `any` (default), `local`, `pull` or `load`.
    #[serde(default)]
    pub source: ImageSource,
    /// Archive made by `docker save`. Relative paths start at the playbook.
    #[serde(default, alias = "load_path")]
    #[schemars(extend("aliases" = ["load_path"]))]
    pub archive_path: Option<PathBuf>,
}

impl TypedModule for DockerImage {
    const NAME: &'static str = "docker_image";
    const ALIASES: &'static [&'static str] = &["community.docker.docker_image"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "looks, and loads or pulls again: Docker shows whole images only";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str =
        "Brings an image to this host: it is here, loaded from an archive, or pulled.";
    const EXAMPLE: &'static str = r#"- name: Image of the old database is here
  docker_image:
    name: docker.io/dcm4che/postgres-dcm4chee:9.6.24-26
    archive_path: images/postgres-dcm4chee-9.6.24-26.tar
  register: old_image   # old_image.id, old_image.digest
"#;

    fn undo(_efforts: &[PastAttempt<'_>]) -> Undo {
        Undo::Nothing("the image stays: others may use it by now".into())
    }
}

impl DockerImage {
    fn reference(&self) -> String {
        match &self.tag {
            Some(tag) if !has_tag(&self.name) => format!("{}:{tag}", self.name),
            _ => self.name.clone(),
        }
    }

    fn archive(&self, ctx: &TaskContext) -> Option<PathBuf> {
        self.archive_path.as_deref().map(|path| ctx.resolve(path))
    }
}

/// Tells whether a reference names a tag, a digest or an id.
fn has_tag(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.contains([':', '@']) || name.starts_with("sha256:")
}

/// What Docker knows of an image, where it is here.
pub(super) async fn find(
    docker: &Docker,
    image: &str,
) -> Result<Option<ImageInspect>, DockerError> {
    let answer = docker.inspect_image(image).await;
    DockerError::or_absent(answer, format!("inspect image {image}"))
}

fn outcome(changed: bool, found: &ImageInspect, how: &str) -> Outcome {
    let digest = found
        .repo_digests
        .as_ref()
        .and_then(|digests| digests.first().cloned());
    let config = found.config.as_ref();
    Outcome {
        changed,
        ..Outcome::default()
    }
    .with("id", found.id.clone().unwrap_or_default())
    .with("digest", digest.map_or(Value::Null, Value::from))
    .with("tags", found.repo_tags.clone().unwrap_or_default())
    .with("size_bytes", found.size.unwrap_or_default())
    .with(
        "user",
        config
            .and_then(|config| config.user.clone())
            .unwrap_or_default(),
    )
    .summary(how)
}

/// Feeds an archive to Docker and returns the names of what it held.
async fn load(
    ctx: &TaskContext,
    docker: &Docker,
    archive: &Path,
) -> Result<Vec<String>, ModuleError> {
    let file = tokio::fs::File::open(archive)
        .await
        .map_err(PathError::on("open", archive))?;
    let total = file
        .metadata()
        .await
        .map_err(PathError::on("inspect", archive))?
        .len();
    let progress = ctx.progress.clone();
    let mut done = 0;
    let bytes = ReaderStream::with_capacity(file, 256 * 1024).inspect(move |chunk| {
        done += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        progress.bytes(done, Some(total));
    });
    let options = ImportImageOptions {
        quiet: true,
        platform: None,
    };
    let mut answers = Box::pin(docker.import_image_stream(options, bytes, None));
    let mut held = Vec::new();
    loop {
        let answer = tokio::select! {
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
            answer = answers.next() => answer,
        };
        let Some(answer) = answer else {
            return Ok(held);
        };
        let answer = answer.map_err(DockerError::api(format!("load {}", archive.display())))?;
        for line in answer.stream.unwrap_or_default().lines() {
            ctx.progress.line(line);
            if let Some((_, name)) = line.split_once("Loaded image: ") {
                held.push(name.trim().to_owned());
            } else if let Some((_, id)) = line.split_once("Loaded image ID: ") {
                held.push(id.trim().to_owned());
            }
        }
    }
}

/// Pulls an image from its registry.
async fn pull(ctx: &TaskContext, docker: &Docker, image: &str) -> Result<(), ModuleError> {
    let options = CreateImageOptions {
        from_image: Some(image.to_owned()),
        // Without a tag Docker would pull every tag there is.
        tag: (!has_tag(image)).then(|| "latest".to_owned()),
        ..CreateImageOptions::default()
    };
    let mut answers = Box::pin(docker.create_image(Some(options), None, None));
    let mut layers = std::collections::BTreeMap::new();
    loop {
        let answer = tokio::select! {
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
            answer = answers.next() => answer,
        };
        let Some(answer) = answer else { return Ok(()) };
        let answer = answer.map_err(DockerError::api(format!("pull {image}")))?;
        if let (Some(layer), Some(detail)) = (answer.id, answer.progress_detail)
            && answer.status.as_deref() == Some("Downloading")
        {
            let figures = (detail.current.unwrap_or(0), detail.total.unwrap_or(0));
            layers.insert(layer, figures);
            let sum = |part: fn(&(i64, i64)) -> i64| -> u64 {
                layers
                    .values()
                    .map(|figures| u64::try_from(part(figures)).unwrap_or(0))
                    .sum()
            };
            ctx.progress.bytes(sum(|f| f.0), Some(sum(|f| f.1)));
        }
    }
}

#[async_trait]
impl Module for DockerImage {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let image = self.reference();
        if find(&docker, &image).await?.is_some() {
            return Ok(Plan::InSync);
        }
        let archive = self.archive(ctx).filter(|path| path.exists());
        match (self.source, archive) {
            (ImageSource::Any | ImageSource::Load, Some(path)) => {
                Ok(Plan::NeedsChange(vec![format!(
                    "load {image} from {}",
                    path.display()
                )]))
            }
            (ImageSource::Any | ImageSource::Pull, None) | (ImageSource::Pull, _) => {
                Ok(Plan::NeedsChange(vec![format!("pull {image}")]))
            }
            (ImageSource::Local, _) | (ImageSource::Load, None) => Err(DockerError::NoImage {
                image,
                tried: String::new(),
            }
            .into()),
        }
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let docker = crate::host::docker::client::connect(ctx).await?;
        let image = self.reference();
        if let Some(found) = find(&docker, &image).await? {
            return Ok(outcome(false, &found, "already on this host"));
        }
        let mut tried = String::new();
        if matches!(self.source, ImageSource::Any | ImageSource::Load) {
            match self.archive(ctx) {
                Some(path) if path.exists() => {
                    let held = load(ctx, &docker, &path).await?;
                    let Some(found) = find(&docker, &image).await? else {
                        return Err(DockerError::NotInArchive {
                            image,
                            archive: path,
                            held,
                        }
                        .into());
                    };
                    let how = format!("loaded from {}", path.display());
                    return Ok(outcome(true, &found, &how));
                }
                Some(path) => tried = format!(", there is no archive {}", path.display()),
                None if self.source == ImageSource::Load => {
                    tried = ", and no `archive_path` is given".into();
                }
                None => {}
            }
        }
        if matches!(self.source, ImageSource::Any | ImageSource::Pull) {
            match pull(ctx, &docker, &image).await {
                Ok(()) => {
                    let found = find(&docker, &image).await?;
                    if let Some(found) = found {
                        return Ok(outcome(true, &found, "pulled"));
                    }
                }
                Err(ModuleError::Cancelled) => return Err(ModuleError::Cancelled),
                Err(error) => tried = format!("{tried}, and it cannot be pulled ({error})"),
            }
        }
        Err(DockerError::NoImage { image, tried }.into())
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        // Docker makes an image visible when it is whole.
        Ok(Recovery::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_the_registry_is_no_tag() {
        assert!(!has_tag("registry:5000/postgres"));
        assert!(has_tag("registry:5000/postgres:15"));
        assert!(has_tag("postgres@sha256:aa"));
    }
}
