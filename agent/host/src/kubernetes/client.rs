//! The connection to an API server. The only file that knows the `kube` crate; objects are JSON.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, ApiResource, AttachParams, AttachedProcess, DeleteParams, DynamicObject, ListParams,
    LogParams, Patch, PatchParams, Preconditions,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::io::AsyncWrite;

use super::access::Source;
use super::error::KubernetesError;
use super::exec::{Process, ProcessEnd};
use super::kind::ObjectKind;
use crate::docker::error::chain_of;
use crate::error::never_arrived;

/// How long the server may take to accept a connection, and to answer one request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What may wait on its way to and from a command.
const STREAM_BUFFER: usize = 256 * 1024;

/// A connection with credentials.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    server: String,
    place: String,
    namespace: String,
}

/// Waits for the status channel, then until the connection is closed.
async fn end_of(mut attached: AttachedProcess) -> ProcessEnd {
    let status = match attached.take_status() {
        Some(status) => status.await,
        None => None,
    };
    // Given up before, what is on its way to the outputs would be lost.
    let closed = attached.join().await;
    let Some(status) = status else {
        return ProcessEnd::Cut(match closed {
            Err(error) => chain_of(&error),
            Ok(()) => "the server closed it".into(),
        });
    };
    if status.status.as_deref() == Some("Success") {
        return ProcessEnd::Exited(0);
    }
    let causes = status
        .details
        .and_then(|details| details.causes)
        .unwrap_or_default();
    let code = causes
        .iter()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok());
    match code {
        Some(code) => ProcessEnd::Exited(code),
        None => ProcessEnd::NotStarted(status.message.unwrap_or_default()),
    }
}

/// What is asked of the server, for messages.
struct Request<'a> {
    verb: &'static str,
    resource: &'a str,
    namespace: &'a str,
}

impl Cluster {
    /// Reads the credentials. Nothing is asked of the server yet.
    ///
    /// # Errors
    /// The files cannot be used.
    pub async fn open(source: &Source, context: Option<&str>) -> Result<Self, KubernetesError> {
        let place = match source {
            Source::Files(files) => {
                let names: Vec<_> = files
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect();
                names.join(":")
            }
            Source::ServiceAccount => "the pod's service account".into(),
        };
        let wrong = |message: String| KubernetesError::Kubeconfig {
            place: place.clone(),
            message,
        };
        let mut config = match source {
            Source::Files(files) => {
                let mut merged = Kubeconfig::default();
                for file in files {
                    let read = Kubeconfig::read_from(file);
                    let next = read.and_then(|next| merged.merge(next));
                    merged = next.map_err(|error| wrong(chain_of(&error)))?;
                }
                let options = KubeConfigOptions {
                    context: context.map(str::to_owned),
                    ..KubeConfigOptions::default()
                };
                let made = Config::from_custom_kubeconfig(merged, &options).await;
                made.map_err(|error| wrong(chain_of(&error)))?
            }
            Source::ServiceAccount => {
                Config::incluster().map_err(|error| wrong(chain_of(&error)))?
            }
        };
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // A task that waits says for how long; the client's own tries would come on top.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| wrong(chain_of(&error)))?;
        Ok(Self {
            client,
            server: server.trim_end_matches('/').to_owned(),
            place,
            namespace,
        })
    }

    /// The namespace of the context.
    #[must_use]
    pub fn default_namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the objects of a kind that fit.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn list(
        &self,
        kind: &ObjectKind,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Vec<Value>, KubernetesError> {
        let mut parameters = ListParams::default();
        if !labels.is_empty() {
            parameters = parameters.labels(labels);
        }
        if !fields.is_empty() {
            parameters = parameters.fields(fields);
        }
        let request = self.request("list", &kind.plural, namespace);
        let found = self
            .ask(&request, self.api(kind, namespace).list(&parameters))
            .await?;
        found
            .items
            .into_iter()
            .map(|object| self.json(kind, object))
            .collect()
    }

    /// Returns an object, where there is one of this name.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn get(
        &self,
        kind: &ObjectKind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, KubernetesError> {
        let request = self.request("get", &kind.plural, namespace);
        let found = self
            .ask(&request, self.api(kind, namespace).get_opt(name))
            .await?;
        found.map(|object| self.json(kind, object)).transpose()
    }

    /// Deletes an object if it is the very one. What is not there any more needs no deleting.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn delete(
        &self,
        kind: &ObjectKind,
        namespace: &str,
        name: &str,
        uid: &str,
        grace_period: Option<u32>,
    ) -> Result<(), KubernetesError> {
        let parameters = DeleteParams {
            grace_period_seconds: grace_period,
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                ..Preconditions::default()
            }),
            ..DeleteParams::default()
        };
        let request = self.request("delete", &kind.plural, Some(namespace));
        let deleted = self
            .ask(
                &request,
                self.api(kind, Some(namespace)).delete(name, &parameters),
            )
            .await;
        match deleted {
            // Gone, or another one has its name.
            Err(KubernetesError::Api {
                status: 404 | 409, ..
            }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Merges a change into an object and returns what came out.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn merge(
        &self,
        kind: &ObjectKind,
        namespace: &str,
        name: &str,
        change: &Value,
    ) -> Result<Value, KubernetesError> {
        let request = self.request("patch", &kind.plural, Some(namespace));
        let api = self.api(kind, Some(namespace));
        let parameters = PatchParams::default();
        let patched = self
            .ask(
                &request,
                api.patch(name, &parameters, &Patch::Merge(change)),
            )
            .await?;
        self.json(kind, patched)
    }

    /// Returns the last lines that a container printed.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: i64,
    ) -> Result<String, KubernetesError> {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            tail_lines: Some(lines),
            ..LogParams::default()
        };
        let request = self.request("get", "pods/log", Some(namespace));
        let api = self.pods(namespace);
        self.ask(&request, api.logs(pod, &parameters)).await
    }

    /// Starts a command in a container.
    ///
    /// # Errors
    /// As [`Cluster::list`].
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: &[String],
        stdin: bool,
    ) -> Result<Process, KubernetesError> {
        let parameters = AttachParams::default()
            .container(container)
            .stdin(stdin)
            .stdout(true)
            .stderr(true)
            .max_stdin_buf_size(STREAM_BUFFER)
            .max_stdout_buf_size(STREAM_BUFFER)
            .max_stderr_buf_size(STREAM_BUFFER);
        let request = self.request("create", "pods/exec", Some(namespace));
        let api = self.pods(namespace);
        // Once the server has it, the command may be at work, whatever becomes of the answer.
        let mut refused = false;
        let work = async {
            let attached = api.exec(pod, command, &parameters).await;
            refused = attached.as_ref().is_err_and(never_started);
            attached
        };
        let mut attached = self
            .ask(&request, work)
            .await
            .map_err(|error| match error {
                KubernetesError::Unreachable {
                    action,
                    server,
                    message,
                } if !refused => KubernetesError::AnswerLost {
                    action,
                    server,
                    message,
                },
                error => error,
            })?;
        let (Some(stdout), Some(stderr)) = (attached.stdout(), attached.stderr()) else {
            return Err(KubernetesError::Unreachable {
                action: "run a command".into(),
                server: self.server.clone(),
                message: "the client opened no outputs".into(),
            });
        };
        let stdin = attached
            .stdin()
            .map(|stdin| Box::new(stdin) as Box<dyn AsyncWrite + Send + Unpin>);
        Ok(Process {
            stdin,
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            end: Box::pin(end_of(attached)),
        })
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn api(&self, kind: &ObjectKind, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: kind.group.clone(),
            version: kind.version.clone(),
            api_version: kind.api_version(),
            kind: kind.kind.clone(),
            plural: kind.plural.clone(),
        };
        match namespace {
            Some(namespace) if kind.namespaced => {
                Api::namespaced_with(self.client.clone(), namespace, &resource)
            }
            _ => Api::all_with(self.client.clone(), &resource),
        }
    }

    fn request<'a>(
        &self,
        verb: &'static str,
        resource: &'a str,
        namespace: Option<&'a str>,
    ) -> Request<'a> {
        Request {
            verb,
            resource,
            namespace: namespace.unwrap_or("*"),
        }
    }

    async fn ask<T>(
        &self,
        request: &Request<'_>,
        work: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, KubernetesError> {
        let action = format!("{} {}", request.verb, request.resource);
        let unreachable = |message: String| KubernetesError::Unreachable {
            action: action.clone(),
            server: self.server.clone(),
            message,
        };
        let error = match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                return Err(unreachable(format!("no answer within {seconds} s")));
            }
        };
        let kube::Error::Api(status) = error else {
            return Err(match error {
                kube::Error::Auth(error) => KubernetesError::Unauthorized {
                    action: action.clone(),
                    server: self.server.clone(),
                    place: self.place.clone(),
                    message: chain_of(&error),
                },
                error => unreachable(chain_of(&error)),
            });
        };
        let message = if status.message.is_empty() {
            status.reason.clone()
        } else {
            status.message.clone()
        };
        Err(match status.code {
            401 => KubernetesError::Unauthorized {
                action,
                server: self.server.clone(),
                place: self.place.clone(),
                message,
            },
            403 => KubernetesError::Forbidden {
                action,
                verb: verb_in(&message).unwrap_or(request.verb).to_owned(),
                resource: request.resource.to_owned(),
                namespace: request.namespace.to_owned(),
                message,
            },
            status => KubernetesError::Api {
                action,
                status,
                message,
            },
        })
    }

    fn json(&self, kind: &ObjectKind, object: DynamicObject) -> Result<Value, KubernetesError> {
        let mut value =
            serde_json::to_value(object).map_err(|error| KubernetesError::Unreachable {
                action: format!("read {}", kind.plural),
                server: self.server.clone(),
                message: error.to_string(),
            })?;
        // Lists do not repeat them for each object.
        value["apiVersion"] = kind.api_version().into();
        value["kind"] = kind.kind.as_str().into();
        Ok(value)
    }
}

/// Whether a command cannot have been started: nobody has got the request, or the answer is a refusal.
fn never_started(error: &kube::Error) -> bool {
    use kube::client::UpgradeConnectionError;
    match error {
        kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(_)) => true,
        error => never_arrived(error),
    }
}

/// The verb that the server misses: a command over a WebSocket needs `get` or `create`, by its version.
fn verb_in(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once(" cannot ")?;
    rest.split(' ').next()
}
