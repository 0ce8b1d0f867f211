//! How modules for Kubernetes fail.

use std::path::PathBuf;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::docker::error::DockerError;
use crate::error::{ModuleFailure, PathError};

/// A module of this family did not come to a good end.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// An argument makes no sense.
    #[error("argument `{argument}`: {message}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// This agent was built without the client.
    #[error("talk to Kubernetes: this kaapana-agent was built without it")]
    NotBuiltIn,
    /// There are no credentials.
    #[error("find a kubeconfig: none at {}", places(looked_at))]
    NoKubeconfig {
        /// Where one was looked for.
        looked_at: Vec<PathBuf>,
    },
    /// A kubeconfig cannot be used.
    #[error("use the kubeconfig {place}: {message}")]
    Kubeconfig {
        /// Its files.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// The API server does not answer.
    #[error("{action} at {server}: {message}")]
    Unreachable {
        /// What was tried, e.g. `list pods`.
        action: String,
        /// Its address.
        server: String,
        /// What went wrong.
        message: String,
    },
    /// A request that may not be repeated was sent, and nobody heard the answer.
    #[error("{action} at {server}: the request was sent, and no answer came ({message})")]
    AnswerLost {
        /// What was tried.
        action: String,
        /// Its address.
        server: String,
        /// What went wrong.
        message: String,
    },
    /// The API server does not know the user: expired or wrong credentials.
    #[error(
        "{action} at {server}: the server does not accept the credentials of {place} ({message})"
    )]
    Unauthorized {
        /// What was tried.
        action: String,
        /// Its address.
        server: String,
        /// Where the credentials are from.
        place: String,
        /// What the server said.
        message: String,
    },
    /// The user lacks a right.
    #[error(
        "{action}: the right to `{verb}` `{resource}` in namespace `{namespace}` is missing ({message})"
    )]
    Forbidden {
        /// What was tried.
        action: String,
        /// Verb that is missing.
        verb: String,
        /// Resource that it is missing on.
        resource: String,
        /// Namespace.
        namespace: String,
        /// What the server said.
        message: String,
    },
    /// The API server refused, or is broken.
    #[error("{action}: {message}")]
    Api {
        /// What was tried.
        action: String,
        /// HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// No pod fits.
    #[error("find a pod {wanted} in namespace `{namespace}`: {found}")]
    NoPod {
        /// How it was looked for.
        wanted: String,
        /// Where.
        namespace: String,
        /// What there is instead.
        found: String,
    },
    /// More pods fit than one.
    #[error("find one pod {wanted} in namespace `{namespace}`: there are {}: {}", names.len(), names.join(", "))]
    ManyPods {
        /// How it was looked for.
        wanted: String,
        /// Where.
        namespace: String,
        /// Their names.
        names: Vec<String>,
    },
    /// The pod has no such container.
    #[error("find container `{container}` in pod `{pod}`: it has {}", names.join(", "))]
    NoContainer {
        /// The pod.
        pod: String,
        /// What was asked for.
        container: String,
        /// What there is.
        names: Vec<String>,
    },
    /// Something did not get ready in time.
    #[error("wait until {} in namespace `{}` {}: not after {} s: {}", .0.what, .0.namespace, .0.condition, .0.seconds, .0.state())]
    NotReady(Box<Waited>),
    /// A pod cannot be restarted by deleting it.
    #[error(
        "restart pod `{pod}`: nothing would make another one, as it belongs to no ReplicaSet or the like"
    )]
    NoController {
        /// The pod.
        pod: String,
    },
    /// The stream of a command ended before its status.
    #[error(
        "run `{command}` in {target}: the connection was cut before the command's status came ({why})"
    )]
    StreamCut {
        /// Program.
        command: String,
        /// Pod and container.
        target: String,
        /// What is known.
        why: String,
    },
    /// A command was not started.
    #[error("run `{command}` in {target}: {message}")]
    NotStarted {
        /// Program.
        command: String,
        /// Pod and container.
        target: String,
        /// What the server said.
        message: String,
    },
    /// A command ended with another status than 0.
    #[error(
        "run `{command}` in {target}: it ended with {rc}{}",
        last_words(stderr)
    )]
    CommandFailed {
        /// Program.
        command: String,
        /// Pod and container.
        target: String,
        /// Exit status.
        rc: i64,
        /// Its output.
        stdout: String,
        /// Its error output.
        stderr: String,
    },
    /// A copy is not what was copied, or cannot be made.
    #[error("copy {from} to {to}: {message}")]
    Copy {
        /// Source.
        from: String,
        /// Destination.
        to: String,
        /// What is wrong.
        message: String,
    },
    /// A path on this host.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A wait that was in vain.
#[derive(Debug)]
pub struct Waited {
    /// What was waited for.
    pub what: String,
    /// Where.
    pub namespace: String,
    /// Which state was waited for; completes "wait until they …".
    pub condition: String,
    /// How long.
    pub seconds: u64,
    /// What each says of itself, in a line.
    pub states: Vec<String>,
    /// Their events and last words.
    pub said: Vec<String>,
}

impl Waited {
    /// The states, and the last of the last words; all of them are in the result and in the log.
    fn state(&self) -> String {
        let states = if self.states.is_empty() {
            "there is none".to_owned()
        } else {
            self.states.join("; ")
        };
        match self.said.last() {
            Some(last) => format!("{states}; it says: {last}"),
            None => states,
        }
    }
}

fn places(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if names.is_empty() {
        return "any of the usual places".into();
    }
    names.join(", ")
}

fn last_words(stderr: &str) -> String {
    match stderr.trim_end().lines().next_back() {
        Some(line) => format!(": {line}"),
        None => String::new(),
    }
}

impl KubernetesError {
    /// An argument makes no sense.
    pub fn argument(argument: &'static str, message: impl Into<String>) -> Self {
        Self::Argument {
            argument,
            message: message.into(),
        }
    }
}

impl ModuleFailure for KubernetesError {
    fn code(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "kubernetes::argument",
            Self::NotBuiltIn => "kubernetes::not_built_in",
            Self::NoKubeconfig { .. } => "kubernetes::no_kubeconfig",
            Self::Kubeconfig { .. } => "kubernetes::kubeconfig",
            Self::Unreachable { .. } => "kubernetes::unreachable",
            Self::AnswerLost { .. } => "kubernetes::answer_lost",
            Self::Unauthorized { .. } => "kubernetes::unauthorized",
            Self::Forbidden { .. } => "kubernetes::forbidden",
            Self::Api { .. } => "kubernetes::api",
            Self::NoPod { .. } => "kubernetes::no_pod",
            Self::ManyPods { .. } => "kubernetes::many_pods",
            Self::NoContainer { .. } => "kubernetes::no_container",
            Self::NotReady(_) => "kubernetes::not_ready",
            Self::NoController { .. } => "kubernetes::no_controller",
            Self::StreamCut { .. } => "kubernetes::stream_cut",
            Self::NotStarted { .. } => "kubernetes::not_started",
            Self::CommandFailed { .. } => "kubernetes::command_failed",
            Self::Copy { .. } => "kubernetes::copy",
            Self::Path(error) => error.code(),
        }
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotBuiltIn => {
                "use a build with the cargo feature `kubernetes`, which is on by default, or do this \
                 part by hand (`ldap_update: confirm`)"
                    .into()
            }
            Self::NoKubeconfig { .. } => {
                "give `kubeconfig`, or make one: `microk8s.kubectl config view --raw > ~/.kube/config` \
                 (of root, as the agent runs as root)"
                    .into()
            }
            Self::Kubeconfig { .. } => "`kubectl config view` says what is in it".into(),
            Self::Unreachable { .. } => {
                "is the cluster up (`microk8s status`), and the address in the kubeconfig right? \
                 Nothing is lost: the same command goes on where it stopped"
                    .into()
            }
            Self::Unauthorized { .. } => {
                "the token or certificate has expired or was replaced. Write the kubeconfig again: \
                 `microk8s.kubectl config view --raw > ~/.kube/config`"
                    .into()
            }
            Self::Forbidden {
                verb,
                resource,
                namespace,
                ..
            } => format!(
                "use the administrator's kubeconfig, or have the right given: `kubectl auth can-i \
                 {verb} {resource} -n {namespace}` must say yes"
            ),
            Self::NoPod { namespace, .. } => format!(
                "is Kaapana deployed? `kubectl get pods -n {namespace} --show-labels` lists what is \
                 there; releases label their pods `app-name` (up to 0.4) or \
                 `app.kubernetes.io/name` (from 0.5)"
            ),
            Self::ManyPods { .. } => {
                "name one with `pod`, narrow `label_selectors`, or wait until the old one is gone".into()
            }
            Self::NotReady(waited) => format!(
                "`kubectl describe pod -n {}` says more; nothing is done twice: the same \
                 command waits on",
                waited.namespace
            ),
            Self::StreamCut { .. } | Self::AnswerLost { .. } => {
                "whether the command came to its end is not known: look at what it changes. Is the \
                 cluster up?"
                    .into()
            }
            Self::Path(error) => return error.help(),
            _ => return None,
        })
    }

    fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::StreamCut { .. } | Self::AnswerLost { .. })
    }

    fn result(&self) -> Map<String, Value> {
        let mut map = Map::new();
        match self {
            Self::CommandFailed {
                rc, stdout, stderr, ..
            } => {
                map.insert("rc".into(), (*rc).into());
                map.insert("stdout".into(), stdout.as_str().into());
                map.insert("stderr".into(), stderr.as_str().into());
            }
            Self::NotReady(waited) => {
                map.insert("said".into(), waited.said.clone().into());
            }
            Self::ManyPods { names, .. } => {
                map.insert("pods".into(), names.clone().into());
            }
            Self::Forbidden { verb, resource, .. } => {
                map.insert("verb".into(), verb.as_str().into());
                map.insert("resource".into(), resource.as_str().into());
            }
            Self::Api { status, .. } => {
                map.insert("status".into(), (*status).into());
            }
            _ => {}
        }
        map
    }
}

impl KubernetesError {
    /// What unpacking an archive says, as a failed copy.
    pub fn of_archive(error: DockerError, from: &str, to: &str) -> Self {
        match error {
            DockerError::Path(error) => Self::Path(error),
            error => Self::Copy {
                from: from.to_owned(),
                to: to.to_owned(),
                message: error.to_string(),
            },
        }
    }

    /// Tells whether it only says that what is looked for is not there yet: in check mode, where nothing
    /// was deployed.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NoKubeconfig { .. } | Self::Unreachable { .. } | Self::NoPod { .. }
        )
    }
}
