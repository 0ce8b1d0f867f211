//! A connection to a port inside a pod, through a command that runs in it: for servers that listen for
//! nobody but the pod itself.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::client::Cluster;
use super::connect;
use super::error::KubernetesError;
use super::exec::{Process, ProcessEnd, Streams, Target, run_ok};
use super::pods::Wanted;
use crate::context::HostContext;
use crate::error::ModuleError;

/// A container of the one running pod that fits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InPod {
    /// Namespace. Default: that of the context.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name of the pod. Either this or `label_selectors`.
    #[serde(default)]
    pub pod: Option<String>,
    /// Labels that exactly one running pod has. Either these or `pod`.
    #[serde(default)]
    pub label_selectors: Vec<String>,
    /// Container; it needs `bash`.
    pub container: String,
    /// The kubeconfig, as in `k8s_exec`.
    #[serde(default)]
    pub kubeconfig: Option<PathBuf>,
    /// Context in it. Default: its current one.
    #[serde(default)]
    pub context: Option<String>,
}

/// Bytes both ways. Whichever side ends first, all of it ends, and nothing is left in the container.
const SCRIPT: &str = r#"exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 111
cat <&3 & down=$!
cat <&0 >&3 & up=$!
wait -n
kill "$down" "$up" 2>/dev/null
exit 0"#;

/// The container's end of a bridge.
pub struct Bridge {
    /// Our end.
    pub stream: StdUnixStream,
    /// Why it ended, once it has.
    pub why: Why,
}

/// Why a bridge ended, known when it has.
#[derive(Debug, Clone, Default)]
pub struct Why(Arc<Mutex<Option<String>>>);

impl Why {
    /// Says it, where it is known.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.0.lock().ok().and_then(|why| why.clone())
    }

    fn set(&self, text: String) {
        if let Ok(mut why) = self.0.lock() {
            *why = Some(text);
        }
    }
}

impl InPod {
    /// Finds the container.
    ///
    /// # Errors
    /// No cluster, no pod, more than one, no such container.
    pub async fn find(&self, ctx: &HostContext) -> Result<(Cluster, Target), KubernetesError> {
        let cluster = connect::open(ctx, self.kubeconfig.clone(), self.context.clone()).await?;
        let own = || cluster.default_namespace().to_owned();
        if self.pod.is_some() != self.label_selectors.is_empty() {
            return Err(KubernetesError::argument(
                "pod",
                "give either `pod` or `label_selectors`",
            ));
        }
        let wanted = Wanted {
            namespace: self.namespace.clone().unwrap_or_else(own),
            name: self.pod.clone(),
            labels: self.label_selectors.clone(),
        };
        let target = wanted.container(&cluster, &self.container).await?;
        Ok((cluster, target))
    }
}

/// Returns the container's environment, variables that begin with `prefix`.
///
/// # Errors
/// The command fails, or the connection breaks.
pub async fn environment(
    cluster: &Cluster,
    target: &Target,
    prefix: &str,
    ctx: &HostContext,
) -> Result<BTreeMap<String, String>, ModuleError> {
    let command = ["env".to_owned()];
    let end = run_ok(cluster, target, &command, Streams::default(), &ctx.cancel).await?;
    let pairs = end.stdout.lines().filter_map(|line| line.split_once('='));
    Ok(pairs
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Opens a connection to a port of the pod.
///
/// # Errors
/// The command cannot be started. What is wrong behind it is told by [`Bridge::why`].
pub async fn open(
    cluster: &Cluster,
    target: &Target,
    port: u16,
) -> Result<Bridge, KubernetesError> {
    let command = ["bash", "-c", SCRIPT, "bash", &port.to_string()].map(str::to_owned);
    let Target {
        namespace,
        pod,
        container,
        ..
    } = target;
    let process = cluster
        .exec(namespace, pod, container, &command, true)
        .await?;
    let broken = |error: std::io::Error| KubernetesError::StreamCut {
        command: "bash".into(),
        target: target.name(),
        why: error.to_string(),
    };
    let (ours, theirs) = StdUnixStream::pair().map_err(broken)?;
    theirs.set_nonblocking(true).map_err(broken)?;
    let (mut from_us, mut to_us) = UnixStream::from_std(theirs).map_err(broken)?.into_split();
    let why = Why::default();
    let told = why.clone();
    tokio::spawn(async move {
        let Process {
            stdin: mut input,
            mut stdout,
            mut stderr,
            mut end,
        } = process;
        let up = async {
            if let Some(input) = input.as_mut() {
                let _ = tokio::io::copy(&mut from_us, input).await;
            }
        };
        let down = async {
            let mut complaints = Vec::new();
            let output = tokio::io::copy(&mut stdout, &mut to_us);
            let _ = tokio::join!(output, stderr.read_to_end(&mut complaints));
            complaints
        };
        tokio::pin!(down);
        let (ended, complaints) = tokio::select! {
            // We are done with it: dropping the process closes the connection.
            () = up => return,
            ended = &mut end => match ended {
                // What is cut has no end of its outputs.
                ProcessEnd::Cut(_) => (ended, Vec::new()),
                ended => (ended, down.await),
            },
            complaints = &mut down => (end.await, complaints),
        };
        let complaints = String::from_utf8_lossy(&complaints);
        let last = complaints
            .trim_end()
            .lines()
            .next_back()
            .unwrap_or_default();
        told.set(match ended {
            ProcessEnd::Exited(0) => "the server closed the connection".into(),
            ProcessEnd::Exited(127) => "the container has no bash".into(),
            ProcessEnd::Exited(_) => last.to_owned(),
            ProcessEnd::NotStarted(message) => message,
            ProcessEnd::Cut(why) => format!("the connection to the pod was cut ({why})"),
        });
        // Our end learns of it when the other one goes, after the reason is known.
    });
    Ok(Bridge { stream: ours, why })
}
