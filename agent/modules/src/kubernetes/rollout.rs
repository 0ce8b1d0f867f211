//! `k8s_rollout`: restarts pods, and waits until their replacements are ready.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::restart::{Patience, Restart, Stage};
use crate::host::error::ModuleError;
use crate::host::kubernetes::client::Cluster;
use crate::host::kubernetes::error::KubernetesError;
use crate::host::kubernetes::pods::Wanted;
use crate::host::with_cluster;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::undo::{PastAttempt, Undo};

/// What is restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum RestartedKind {
    /// Pods: each is deleted, and what made it makes another one.
    #[default]
    Pod,
    /// A Deployment: its template is marked, and it replaces its pods as it is set to.
    Deployment,
    /// A StatefulSet, in the same way.
    StatefulSet,
    /// A DaemonSet, in the same way.
    DaemonSet,
}

impl RestartedKind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

fn five_minutes() -> u64 {
    300
}

fn two() -> u64 {
    2
}

with_cluster! {
    /// Restarts pods and waits until their replacements are ready. Which pods there were is noted before,
    /// so a restart that was interrupted is neither lost nor done twice.
    pub struct K8sRollout {
        /// What is restarted: `Pod` (deleted), `Deployment`, `StatefulSet` or `DaemonSet` (as `kubectl
        /// rollout restart`). Default: `Pod`.
        #[serde(default)]
        pub kind: RestartedKind,
        /// Its name. With `Pod`, either this or `label_selectors`.
        #[serde(default)]
        pub name: Option<String>,
        /// Labels of the pods.
        #[serde(default)]
        pub label_selectors: Vec<String>,
        /// Seconds until all must be ready. Default: 300.
        #[serde(default = "five_minutes")]
        pub wait_timeout: u64,
        /// Seconds between looks. Default: 2.
        #[serde(default = "two")]
        pub wait_sleep: u64,
        /// Seconds that a deleted pod gets to end. Default: its own.
        #[serde(default)]
        pub grace_period: Option<u32>,
    }
}

impl TypedModule for K8sRollout {
    const NAME: &'static str = "k8s_rollout";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.k8s_rollout"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "by the uids of the pods that were there before: all of them still there: *not done*; otherwise what was begun is ended, and waited for";
    const CHECK_MODE: &'static str = "predicts where the pods are there; otherwise skipped";
    const TUNING: &'static [&'static str] = &["wait_timeout", "wait_sleep"];
    const SUMMARY: &'static str = "Restarts pods, and waits until their replacements are ready.";
    const EXAMPLE: &'static str = r#"- name: Restart the archive
  k8s_rollout:
    namespace: services
    label_selectors: [app-name=dcm4chee]
    wait_timeout: 600
  register: restarted   # restarted.pods: [{name, uid}], .replaced: the same of those before
"#;

    fn undo(_efforts: &[PastAttempt<'_>]) -> Undo {
        Undo::Nothing("a restart needs no way back".into())
    }
}

impl K8sRollout {
    /// Looks what there is to restart.
    async fn look(&self, ctx: &TaskContext) -> Result<(Cluster, Restart), KubernetesError> {
        let (cluster, namespace) = self.cluster(ctx).await?;
        let restart = if self.kind == RestartedKind::Pod {
            if self.name.is_some() != self.label_selectors.is_empty() {
                return Err(KubernetesError::argument(
                    "name",
                    "give either `name` or `label_selectors`",
                ));
            }
            let wanted = Wanted {
                namespace,
                name: self.name.clone(),
                labels: self.label_selectors.clone(),
            };
            Restart::of_pods(&cluster, &wanted).await?
        } else {
            let (Some(name), true) = (&self.name, self.label_selectors.is_empty()) else {
                return Err(KubernetesError::argument(
                    "name",
                    format!("a {} is restarted by its name", self.kind.word()),
                ));
            };
            Restart::of_owner(&cluster, self.kind.word(), &namespace, name).await?
        };
        Ok((cluster, restart))
    }

    fn patience(&self) -> Patience {
        Patience {
            seconds: self.wait_timeout,
            sleep: self.wait_sleep.max(1),
            grace_period: self.grace_period,
        }
    }

    async fn finish(
        &self,
        ctx: &TaskContext,
        cluster: &Cluster,
        restart: &Restart,
    ) -> Result<Outcome, ModuleError> {
        let waited = tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
            waited = restart.wait(ctx, cluster, self.patience()) => waited,
        };
        if let Err(KubernetesError::NotReady(waited)) = &waited {
            for line in &waited.said {
                ctx.progress.line(ctx.redactor.text(line));
            }
        }
        let pods = waited?;
        let summary = format!("{} ready", restart.name());
        Ok(Outcome::changed()
            .with("pods", serde_json::to_value(pods).unwrap_or_default())
            .with(
                "replaced",
                serde_json::to_value(&restart.pods).unwrap_or_default(),
            )
            .summary(summary))
    }
}

/// An intent that this agent wrote reads again.
fn noted(intent: &Value) -> Result<Restart, KubernetesError> {
    serde_json::from_value(intent.clone())
        .map_err(|error| KubernetesError::argument("intent", error.to_string()))
}

#[async_trait]
impl Module for K8sRollout {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        match self.look(ctx).await {
            Ok((_, restart)) => Ok(Plan::NeedsChange(vec![format!(
                "restart {}",
                restart.name()
            )])),
            Err(error) if error.is_absence() => Ok(Plan::CannotPredict),
            Err(error) => Err(error.into()),
        }
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        let (_, restart) = self.look(ctx).await?;
        serde_json::to_value(restart)
            .map_err(|error| KubernetesError::argument("intent", error.to_string()).into())
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let restart = noted(intent)?;
        let (cluster, _) = self.cluster(ctx).await?;
        // From here on the next run waits on, and replaces nothing that was replaced.
        restart
            .begin(&cluster, self.patience())
            .await
            .map_err(|error| match error {
                error @ (KubernetesError::Forbidden { .. }
                | KubernetesError::Unauthorized { .. }) => ModuleError::from(error),
                error => ModuleError::from(error).with_unknown_outcome(),
            })?;
        let finished = self.finish(ctx, &cluster, &restart).await;
        finished.map_err(ModuleError::with_unknown_outcome)
    }

    /// The pods of before tell: all of them there, nothing was done; otherwise what was begun is ended.
    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        let restart = noted(intent)?;
        let (cluster, _) = self.cluster(ctx).await?;
        match restart.stage(&cluster).await? {
            Stage::Untouched => Ok(Recovery::NotDone),
            Stage::Begun => {
                restart.begin(&cluster, self.patience()).await?;
                Ok(Recovery::Done(self.finish(ctx, &cluster, &restart).await?))
            }
        }
    }
}
