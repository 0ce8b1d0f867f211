//! `k8s_info`: objects of a cluster, and waiting until they are ready.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::error::ModuleError;
use crate::host::kubernetes::client::Cluster;
use crate::host::kubernetes::error::{KubernetesError, Waited};
use crate::host::kubernetes::kind::ObjectKind;
use crate::host::kubernetes::pods;
use crate::host::with_cluster;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// A condition that objects are to have.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitCondition {
    /// Its type, e.g. `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its status: `True`, `False` or `Unknown`. Default: `True`.
    #[serde(default = "yes")]
    pub status: String,
    /// Its reason, where it matters.
    #[serde(default)]
    pub reason: Option<String>,
}

fn yes() -> String {
    "True".into()
}

fn five() -> u64 {
    5
}

fn two_minutes() -> u64 {
    120
}

with_cluster! {
    /// Returns objects of a cluster. With `wait`, waits until there is one at least and all of them are
    /// ready, or have a condition.
    pub struct K8sInfo {
        /// Kind, e.g. `Pod`.
        pub kind: String,
        /// API version. Default: `v1`, and `apps/v1` for the kinds of that group.
        #[serde(default)]
        pub api_version: Option<String>,
        /// Name of one object.
        #[serde(default)]
        pub name: Option<String>,
        /// Labels that objects must have, e.g. `app-name=ldap`.
        #[serde(default)]
        pub label_selectors: Vec<String>,
        /// Fields that objects must have, e.g. `status.phase=Running`.
        #[serde(default)]
        pub field_selectors: Vec<String>,
        /// Wait. Default: false.
        #[serde(default)]
        pub wait: bool,
        /// Condition that is waited for. Default: being ready, as the kind goes by.
        #[serde(default)]
        pub wait_condition: Option<WaitCondition>,
        /// Seconds until waiting fails. Default: 120.
        #[serde(default = "two_minutes")]
        pub wait_timeout: u64,
        /// Seconds between looks. Default: 5.
        #[serde(default = "five")]
        pub wait_sleep: u64,
    }
}

impl TypedModule for K8sInfo {
    const NAME: &'static str = "k8s_info";
    const ALIASES: &'static [&'static str] = &["kubernetes.core.k8s_info"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks, and waits, again";
    const CHECK_MODE: &'static str = "really looks";
    const TUNING: &'static [&'static str] = &["wait_timeout", "wait_sleep"];
    const SUMMARY: &'static str = "Returns objects of a Kubernetes cluster, and waits for them.";
    const EXAMPLE: &'static str = r#"- name: The LDAP pod is ready
  k8s_info:
    kind: Pod
    namespace: services
    label_selectors: [app-name=ldap]
    wait: true
    wait_timeout: 300
  register: ldap   # ldap.resources: the objects
"#;
}

impl K8sInfo {
    async fn look(
        &self,
        cluster: &Cluster,
        kind: &ObjectKind,
        namespace: &str,
    ) -> Result<Vec<Value>, KubernetesError> {
        if let Some(name) = &self.name {
            let found = cluster.get(kind, Some(namespace), name).await?;
            return Ok(found.into_iter().collect());
        }
        // As in Ansible: without a namespace the whole cluster is meant.
        let namespace = self.namespace.as_ref().map(|_| namespace);
        let (labels, fields) = (
            self.label_selectors.join(","),
            self.field_selectors.join(","),
        );
        cluster.list(kind, namespace, &labels, &fields).await
    }

    fn is_wanted(&self, object: &Value) -> bool {
        match &self.wait_condition {
            Some(wanted) => pods::has_condition(
                object,
                &wanted.kind,
                &wanted.status,
                wanted.reason.as_deref(),
            ),
            None => pods::is_ready(object),
        }
    }

    fn condition(&self) -> String {
        match &self.wait_condition {
            Some(wanted) => format!("have {}={}", wanted.kind, wanted.status),
            None => "are ready".into(),
        }
    }

    async fn find(&self, ctx: &TaskContext) -> Result<Vec<Value>, KubernetesError> {
        let (cluster, namespace) = self.cluster(ctx).await?;
        let kind = ObjectKind::new(self.api_version.as_deref(), &self.kind);
        let deadline = Instant::now() + Duration::from_secs(self.wait_timeout);
        loop {
            let found = self.look(&cluster, &kind, &namespace).await?;
            let (ready, others): (Vec<&Value>, Vec<&Value>) =
                found.iter().partition(|object| self.is_wanted(object));
            if !self.wait || (others.is_empty() && !ready.is_empty()) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let what = match (&self.name, self.label_selectors.is_empty()) {
                    (Some(name), _) => format!("{} `{name}`", kind.plural),
                    (None, false) => {
                        format!(
                            "{} with label {}",
                            kind.plural,
                            self.label_selectors.join(",")
                        )
                    }
                    (None, true) => format!("all {}", kind.plural),
                };
                let states: Vec<String> = others
                    .iter()
                    .map(|object| {
                        format!("`{}`: {}", pods::name_of(object), pods::state_of(object))
                    })
                    .collect();
                let mut said = Vec::new();
                for pod in others.iter().filter(|object| object["kind"] == "Pod") {
                    said.extend(pods::said_by(&cluster, pod).await);
                }
                return Err(KubernetesError::NotReady(Box::new(Waited {
                    what,
                    namespace,
                    condition: self.condition(),
                    seconds: self.wait_timeout,
                    states,
                    said,
                })));
            }
            let what = format!("{} of {}", ready.len(), found.len());
            ctx.progress
                .items(ready.len() as u64, Some(found.len() as u64), what);
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(Duration::from_secs(self.wait_sleep.max(1)).min(left)).await;
        }
    }
}

#[async_trait]
impl Module for K8sInfo {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let found = tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
            found = self.find(ctx) => found,
        };
        if let Err(KubernetesError::NotReady(waited)) = &found {
            for line in &waited.said {
                ctx.progress.line(ctx.redactor.text(line));
            }
        }
        let resources = found?;
        let summary = format!("{} objects", resources.len());
        Ok(Outcome::ok()
            .with("api_found", true)
            .with("resources", resources)
            .summary(summary))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
