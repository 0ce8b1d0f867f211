//! A restart: what it is of, how it begins, and how one sees that it is over.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::kubernetes::client::Cluster;
use crate::host::kubernetes::error::{KubernetesError, Waited};
use crate::host::kubernetes::kind::ObjectKind;
use crate::host::kubernetes::pods::{self, Wanted, controller_of, is_leaving, name_of, uid_of};
use crate::task::context::TaskContext;

/// What `kubectl rollout restart` writes into a pod template.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// How long, how often, and how gently.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Seconds until all must be ready.
    pub seconds: u64,
    /// Seconds between looks.
    pub sleep: u64,
    /// Seconds that a deleted pod gets to end.
    pub grace_period: Option<u32>,
}

/// A pod, as it is told again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodId {
    /// Its name.
    pub name: String,
    /// Which one it is.
    pub uid: String,
}

impl PodId {
    fn of(pod: &Value) -> Self {
        Self {
            name: name_of(pod).to_owned(),
            uid: uid_of(pod).to_owned(),
        }
    }
}

/// What a restart is of, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// `Pod`, `Deployment`, ….
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// The owner's name; of pods, the one that was named.
    #[serde(default)]
    pub named: Option<String>,
    /// Labels by which the pods and their replacements are found.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The pods of before.
    #[serde(default)]
    pub pods: Vec<PodId>,
    /// Who made them and makes the others, where they have no labels to go by.
    #[serde(default)]
    pub controllers: Vec<String>,
    /// What is written into the owner's template.
    #[serde(default)]
    pub restarted_at: Option<String>,
}

/// How far a restart is that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everything is as before.
    Untouched,
    /// Something was deleted or marked.
    Begun,
}

impl Restart {
    /// Notes which pods there are.
    ///
    /// # Errors
    /// There is none, or nothing would replace one.
    pub async fn of_pods(cluster: &Cluster, wanted: &Wanted) -> Result<Self, KubernetesError> {
        let found = wanted.find(cluster).await?;
        if found.is_empty() {
            return Err(KubernetesError::NoPod {
                wanted: wanted.words(),
                namespace: wanted.namespace.clone(),
                found: "there is none".into(),
            });
        }
        let mut controllers = Vec::new();
        for pod in &found {
            let owner = controller_of(pod).ok_or_else(|| KubernetesError::NoController {
                pod: name_of(pod).to_owned(),
            })?;
            let uid = owner["uid"].as_str().unwrap_or_default().to_owned();
            if !controllers.contains(&uid) {
                controllers.push(uid);
            }
        }
        Ok(Self {
            kind: "Pod".into(),
            namespace: wanted.namespace.clone(),
            named: wanted.name.clone(),
            labels: wanted.labels.clone(),
            pods: found.iter().map(PodId::of).collect(),
            controllers,
            restarted_at: None,
        })
    }

    /// Notes what a Deployment or the like is to be marked with.
    ///
    /// # Errors
    /// There is none of this name.
    pub async fn of_owner(
        cluster: &Cluster,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Self, KubernetesError> {
        let restart = Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            named: Some(name.to_owned()),
            labels: Vec::new(),
            pods: Vec::new(),
            controllers: Vec::new(),
            restarted_at: Some(jiff::Timestamp::now().to_string()),
        };
        restart.owner(cluster).await?;
        Ok(restart)
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> String {
        if self.kind == "Pod" {
            let names: Vec<&str> = self.pods.iter().map(|pod| pod.name.as_str()).collect();
            return format!("pods {}", names.join(", "));
        }
        format!(
            "{} {}",
            self.kind,
            self.named.as_deref().unwrap_or_default()
        )
    }

    async fn owner(&self, cluster: &Cluster) -> Result<Value, KubernetesError> {
        let name = self.named.as_deref().unwrap_or_default();
        let kind = ObjectKind::new(None, &self.kind);
        let found = cluster.get(&kind, Some(&self.namespace), name).await?;
        found.ok_or_else(|| KubernetesError::Api {
            action: format!(
                "get {} `{name}` in namespace `{}`",
                kind.plural, self.namespace
            ),
            status: 404,
            message: "there is none of this name".into(),
        })
    }

    /// All pods that may be the ones of before or their replacements.
    async fn candidates(&self, cluster: &Cluster) -> Result<Vec<Value>, KubernetesError> {
        let kind = ObjectKind::pod();
        let labels = self.labels.join(",");
        let found = cluster
            .list(&kind, Some(&self.namespace), &labels, "")
            .await?;
        if !self.labels.is_empty() {
            return Ok(found);
        }
        let made_by = |pod: &Value| {
            controller_of(pod)
                .and_then(|owner| owner["uid"].as_str())
                .is_some_and(|uid| self.controllers.iter().any(|known| known == uid))
        };
        Ok(found.into_iter().filter(made_by).collect())
    }

    fn is_old(&self, pod: &Value) -> bool {
        self.pods.iter().any(|old| old.uid == uid_of(pod))
    }

    /// Tells how far an interrupted restart is.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn stage(&self, cluster: &Cluster) -> Result<Stage, KubernetesError> {
        let untouched = if self.kind == "Pod" {
            let found = self.candidates(cluster).await?;
            let still = found
                .iter()
                .filter(|pod| self.is_old(pod) && !is_leaving(pod));
            still.count() == self.pods.len()
        } else {
            let owner = self.owner(cluster).await?;
            let mark = &owner["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT];
            mark.as_str() != self.restarted_at.as_deref()
        };
        Ok(if untouched {
            Stage::Untouched
        } else {
            Stage::Begun
        })
    }

    /// Deletes the pods of before that are still there, or marks the owner.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn begin(
        &self,
        cluster: &Cluster,
        patience: Patience,
    ) -> Result<(), KubernetesError> {
        if self.kind == "Pod" {
            let kind = ObjectKind::pod();
            for pod in &self.pods {
                let (name, grace) = (pod.name.as_str(), patience.grace_period);
                cluster
                    .delete(&kind, &self.namespace, name, &pod.uid, grace)
                    .await?;
            }
            return Ok(());
        }
        let kind = ObjectKind::new(None, &self.kind);
        let name = self.named.as_deref().unwrap_or_default();
        let change = json!({"spec": {"template": {"metadata": {"annotations": {
            RESTARTED_AT: self.restarted_at}}}}});
        cluster.merge(&kind, &self.namespace, name, &change).await?;
        Ok(())
    }

    /// Waits until the replacements are ready and the pods of before are gone; returns the replacements.
    ///
    /// # Errors
    /// Not in time: with what the pods say.
    pub async fn wait(
        &self,
        ctx: &TaskContext,
        cluster: &Cluster,
        patience: Patience,
    ) -> Result<Vec<PodId>, KubernetesError> {
        let deadline = Instant::now() + Duration::from_secs(patience.seconds);
        loop {
            let (ready, of_interest) = if self.kind == "Pod" {
                let found = self.candidates(cluster).await?;
                let (old, new): (Vec<Value>, Vec<Value>) =
                    found.into_iter().partition(|pod| self.is_old(pod));
                let ready: Vec<PodId> = new
                    .iter()
                    .filter(|pod| pods::is_ready(pod))
                    .map(PodId::of)
                    .collect();
                if old.is_empty() && ready.len() >= self.pods.len() {
                    return Ok(ready);
                }
                let unready = new.into_iter().filter(|pod| !pods::is_ready(pod));
                (
                    ready.len(),
                    old.into_iter().chain(unready).collect::<Vec<_>>(),
                )
            } else {
                let owner = self.owner(cluster).await?;
                if pods::is_ready(&owner) {
                    return Ok(Vec::new());
                }
                let mut of_interest = self.pods_of_owner(cluster, &owner).await?;
                of_interest.retain(|pod| !pods::is_ready(pod));
                of_interest.insert(0, owner);
                (0, of_interest)
            };
            if Instant::now() >= deadline {
                return Err(self.in_vain(cluster, patience, &of_interest).await);
            }
            let states: Vec<String> = of_interest.iter().map(described).collect();
            ctx.progress.items(ready as u64, None, states.join("; "));
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(Duration::from_secs(patience.sleep).min(left)).await;
        }
    }

    /// The pods that an owner's selector names.
    async fn pods_of_owner(
        &self,
        cluster: &Cluster,
        owner: &Value,
    ) -> Result<Vec<Value>, KubernetesError> {
        let labels = owner["spec"]["selector"]["matchLabels"].as_object();
        let labels: Vec<String> = labels
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        cluster
            .list(
                &ObjectKind::pod(),
                Some(&self.namespace),
                &labels.join(","),
                "",
            )
            .await
    }

    async fn in_vain(
        &self,
        cluster: &Cluster,
        patience: Patience,
        of_interest: &[Value],
    ) -> KubernetesError {
        let states: Vec<String> = of_interest.iter().map(described).collect();
        let mut said = Vec::new();
        for pod in of_interest.iter().filter(|object| object["kind"] == "Pod") {
            said.extend(pods::said_by(cluster, pod).await);
        }
        KubernetesError::NotReady(Box::new(Waited {
            what: format!("the replacements of {}", self.name()),
            namespace: self.namespace.clone(),
            condition: "are ready".into(),
            seconds: patience.seconds,
            states,
            said,
        }))
    }
}

fn described(object: &Value) -> String {
    format!("`{}`: {}", name_of(object), pods::state_of(object))
}
