//! `k8s_cp`: files between this host and a container of a pod.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::copy_into;
use crate::host::docker::archive::{
    ChannelReader, Found, hash_of, remove_partials, unpack_archive,
};
use crate::host::error::ModuleError;
use crate::host::kubernetes::client::Cluster;
use crate::host::kubernetes::error::KubernetesError;
use crate::host::kubernetes::exec::{Streams, Target, run_ok};
use crate::host::kubernetes::pods::Wanted;
use crate::host::output_file::OutputFile;
use crate::host::with_cluster;
use crate::host::worker;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_tree::{TreeBefore, undo_of_tree};
use crate::task::undo::{PastAttempt, Undo, unless_unchanged};

/// Where to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From this host into the container.
    #[default]
    ToPod,
    /// Out of the container to this host.
    FromPod,
}

with_cluster! {
    /// Copies a file, or what is in a folder, between this host and a container, which needs `sh`, `tar`,
    /// `find` and `sha256sum`. What was copied is compared by SHA-256; links are refused.
    pub struct K8sCp {
        /// Name of the pod. Either this or `label_selectors`.
        #[serde(default)]
        pub pod: Option<String>,
        /// Labels that exactly one running pod has. Either these or `pod`.
        #[serde(default)]
        pub label_selectors: Vec<String>,
        /// Container. It has no default: which one comes first differs between releases.
        pub container: String,
        /// File or folder in the container.
        pub remote_path: String,
        /// File or folder on this host; from a pod, the folder that gets the file, or the folder's
        /// content. Relative paths start at the playbook.
        pub local_path: PathBuf,
        /// `to_pod` or `from_pod`. Default: `to_pod`.
        #[serde(default)]
        pub state: Direction,
    }
}

impl TypedModule for K8sCp {
    const NAME: &'static str = "k8s_cp";
    const ALIASES: &'static [&'static str] = &["kubernetes.core.k8s_cp"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "removes its half files, compares by SHA-256 and copies what differs";
    const CHECK_MODE: &'static str = "predicts where the pod is there; otherwise skipped";
    const SUMMARY: &'static str = "Copies files into or out of a container of a pod.";
    const EXAMPLE: &'static str = r#"- name: Take the LDIF files out of the LDAP pod
  k8s_cp:
    namespace: services
    label_selectors: [app-name=ldap]
    container: ldap-container
    remote_path: /etc/openldap/data
    local_path: "{{ backup_dir }}/ldif"
    state: from_pod
  register: ldif   # ldif.files: [{path, size, sha256}]
"#;

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        let into_pod = efforts
            .iter()
            .any(|effort| effort.arguments["state"] != "from_pod");
        if into_pod {
            return unless_unchanged(efforts, || {
                Undo::Impossible("what the container held before was not kept".into())
            });
        }
        undo_of_tree(efforts)
    }
}

/// SHA-256 of files, by path below what is copied; a single file has its name.
pub(super) type Sums = BTreeMap<PathBuf, String>;

impl K8sCp {
    fn wanted(&self, namespace: String) -> Result<Wanted, KubernetesError> {
        if self.pod.is_some() != self.label_selectors.is_empty() {
            return Err(KubernetesError::argument(
                "pod",
                "give either `pod` or `label_selectors`",
            ));
        }
        if !self.remote_path.starts_with('/') || self.remote_path.trim_end_matches('/').is_empty() {
            return Err(KubernetesError::argument(
                "remote_path",
                "an absolute path below `/` is expected",
            ));
        }
        Ok(Wanted {
            namespace,
            name: self.pod.clone(),
            labels: self.label_selectors.clone(),
        })
    }

    async fn target(&self, ctx: &TaskContext) -> Result<(Cluster, Target), KubernetesError> {
        self.wanted(String::new())?;
        let (cluster, namespace) = self.cluster(ctx).await?;
        let wanted = self.wanted(namespace)?;
        let target = wanted.container(&cluster, &self.container).await?;
        Ok((cluster, target))
    }

    fn remote(&self) -> &str {
        self.remote_path.trim_end_matches('/')
    }

    /// What is to be written, and where to: paths below the destination.
    async fn differing(
        &self,
        ctx: &TaskContext,
        cluster: &Cluster,
        target: &Target,
    ) -> Result<(Sums, Vec<PathBuf>), ModuleError> {
        let local = ctx.resolve(&self.local_path);
        let there = remote_sums(cluster, target, self.remote(), ctx).await?;
        let (source, differs): (Sums, Vec<PathBuf>) = match self.state {
            Direction::FromPod => {
                let source = there.ok_or_else(|| KubernetesError::Copy {
                    from: format!("{} of {}", self.remote(), target.name()),
                    to: local.display().to_string(),
                    message: "it is not there".into(),
                })?;
                let differs = source
                    .iter()
                    .filter(|(path, sum)| hash_of(&local.join(path)).as_ref() != Some(*sum))
                    .map(|(path, _)| path.clone())
                    .collect();
                (source, differs)
            }
            Direction::ToPod => {
                let source = copy_into::local_sums(&local)?;
                let there = there.unwrap_or_default();
                // A single file may get another name in the container.
                let single = local.is_file().then(|| copy_into::file_name(self.remote()));
                let differs = source
                    .iter()
                    .filter(|(path, sum)| there.get(single.as_ref().unwrap_or(path)) != Some(*sum))
                    .map(|(path, _)| path.clone())
                    .collect();
                (source, differs)
            }
        };
        Ok((source, differs))
    }

    async fn copy_from(
        &self,
        ctx: &TaskContext,
        cluster: &Cluster,
        target: &Target,
    ) -> Result<Vec<Found>, ModuleError> {
        let remote = Path::new(self.remote());
        let dest = ctx.resolve(&self.local_path);
        let (parent, name) = (
            remote.parent().unwrap_or(remote),
            copy_into::file_name(self.remote()),
        );
        let command = [
            "tar".to_owned(),
            "-cf".to_owned(),
            "-".to_owned(),
            "-C".to_owned(),
            parent.display().to_string(),
            "--".to_owned(),
            name.display().to_string(),
        ];
        let (sender, receiver) = mpsc::channel::<io::Result<bytes::Bytes>>(16);
        let (path, origin) = (self.remote().to_owned(), target.name());
        let unpacking = worker::start("unpacking of an archive", move || {
            unpack_archive(
                ChannelReader::new(receiver),
                &origin,
                &path,
                None,
                Some(&dest),
            )
        });
        let (mut read, mut write) = tokio::io::duplex(256 * 1024);
        let forward = async {
            let (mut chunk, mut done) = (vec![0; 64 * 1024], 0);
            while let Ok(size @ 1..) = read.read(&mut chunk).await {
                done += size as u64;
                ctx.progress.bytes(done, None);
                let piece = bytes::Bytes::copy_from_slice(&chunk[..size]);
                if sender.send(Ok(piece)).await.is_err() {
                    break;
                }
            }
            // What tar pads its archive with is still to be taken.
            while let Ok(1..) = read.read(&mut chunk).await {}
        };
        let stream = async {
            let streams = Streams {
                stdout: Some(&mut write),
                ..Streams::default()
            };
            let end = run_ok(cluster, target, &command, streams, &ctx.cancel).await;
            drop(write);
            end
        };
        let (end, ()) = tokio::join!(stream, forward);
        if end.is_err() {
            let _ = sender.send(Err(io::Error::other("cut"))).await;
        }
        drop(sender);
        let unpacked = worker::ended(unpacking).await;
        end?;
        let (from, to) = (self.remote(), self.local_path.display().to_string());
        Ok(unpacked?.map_err(|error| KubernetesError::of_archive(error, from, &to))?)
    }
}

/// Returns the SHA-256 of a file, or of all files in a folder, in a container; nothing where it is not there.
pub(super) async fn remote_sums(
    cluster: &Cluster,
    target: &Target,
    path: &str,
    ctx: &TaskContext,
) -> Result<Option<Sums>, ModuleError> {
    let script = r#"if [ -d "$1" ]; then cd "$1" && find . -type f -exec sha256sum -- {} +
elif [ -f "$1" ]; then cd "$(dirname -- "$1")" && sha256sum -- "$(basename -- "$1")"
elif [ -e "$1" ]; then echo 'it is neither a file nor a folder' >&2; exit 2
else echo absent; fi"#;
    let command = ["sh", "-c", script, "sh", path].map(str::to_owned);
    let mut output: Vec<u8> = Vec::new();
    let mut sink = io::Cursor::new(&mut output);
    let streams = Streams {
        stdout: Some(&mut sink),
        ..Streams::default()
    };
    run_ok(cluster, target, &command, streams, &ctx.cancel).await?;
    let text = String::from_utf8_lossy(&output).into_owned();
    if text.trim() == "absent" {
        return Ok(None);
    }
    let sums: Option<Sums> = text.lines().map(sum_of_line).collect();
    let sums = sums.ok_or_else(|| KubernetesError::Copy {
        from: format!("{path} of {}", target.name()),
        to: "this host".into(),
        message: "a file's name cannot be read (a line end or a backslash in it?)".into(),
    })?;
    Ok(Some(sums))
}

fn sum_of_line(line: &str) -> Option<(PathBuf, String)> {
    // With a backslash in front the name is written otherwise than it is.
    let (sum, name) = line.split_once("  ")?;
    let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_sum.then(|| {
        (
            Path::new(name.strip_prefix("./").unwrap_or(name)).into(),
            sum.to_owned(),
        )
    })
}

#[async_trait]
impl Module for K8sCp {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let (cluster, target) = match self.target(ctx).await {
            Ok(found) => found,
            Err(error) if error.is_absence() => return Ok(Plan::CannotPredict),
            Err(error) => return Err(error.into()),
        };
        let (_, differs) = self.differing(ctx, &cluster, &target).await?;
        let lines: Vec<String> = differs
            .iter()
            .map(|path| format!("copy {}", path.display()))
            .collect();
        Ok(Plan::from(lines))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        if self.state == Direction::ToPod {
            return Ok(Value::Null);
        }
        let dest = ctx.resolve(&self.local_path);
        let before = worker::blocking("look at a folder", move || TreeBefore::of(&dest)).await??;
        Ok(json!({ "before": before }))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let (cluster, target) = self.target(ctx).await?;
        let (source, differs) = self.differing(ctx, &cluster, &target).await?;
        let local = ctx.resolve(&self.local_path);
        let changed = !differs.is_empty();
        if changed {
            match self.state {
                Direction::FromPod => {
                    self.copy_from(ctx, &cluster, &target).await?;
                }
                Direction::ToPod => {
                    copy_into::send(ctx, &cluster, &target, &local, self.remote()).await?;
                }
            }
            // What counts is what is there afterwards.
            let (_, still) = self.differing(ctx, &cluster, &target).await?;
            if let Some(path) = still.first() {
                return Err(KubernetesError::Copy {
                    from: format!("{}", self.local_path.display()),
                    to: format!("{} of {}", self.remote(), target.name()),
                    message: format!("`{}` is not equal afterwards", path.display()),
                }
                .into());
            }
        }
        let mut outcome = Outcome {
            changed,
            ..Outcome::default()
        };
        let mut files = Vec::new();
        for (path, sha256) in source {
            let path = if local.is_file() {
                local.clone()
            } else {
                local.join(path)
            };
            let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            files.push(json!({"path": path, "size": size, "sha256": sha256}));
            if self.state == Direction::FromPod {
                outcome = outcome.output(OutputFile { path, size, sha256 });
            }
        }
        let summary = format!("{} files", files.len());
        Ok(outcome
            .with("remote_path", self.remote())
            .with("local_path", local.display().to_string())
            .with("pod", target.pod)
            .with("files", files)
            .summary(summary))
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        if self.state == Direction::FromPod {
            let dest = ctx.resolve(&self.local_path);
            let removed = remove_partials(&dest);
            removed.map_err(|error| {
                KubernetesError::of_archive(error, self.remote(), &dest.display().to_string())
            })?;
        }
        Ok(Recovery::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_sha256sum_are_read_and_escaped_names_refused() {
        let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let line = format!("{sum}  ./a folder/with  blanks.ldif");
        let expected = (PathBuf::from("a folder/with  blanks.ldif"), sum.to_owned());
        assert_eq!(sum_of_line(&line), Some(expected));
        assert_eq!(sum_of_line(&format!("\\{sum}  ./a\\nb")), None);
    }
}
