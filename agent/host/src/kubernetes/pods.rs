//! Pods: finding the one that is meant, telling whether one is ready, and what it says when it is not.

use serde_json::Value;

use super::client::Cluster;
use super::error::KubernetesError;
use super::exec::Target;
use super::kind::ObjectKind;

/// Lines of a container's log, and events of a pod, that are shown.
const LAST_LINES: i64 = 20;
const LAST_EVENTS: usize = 8;

/// Which pods are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Namespace.
    pub namespace: String,
    /// Name; otherwise labels.
    pub name: Option<String>,
    /// Label selectors, all of which must hold.
    pub labels: Vec<String>,
}

impl Wanted {
    /// For messages.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.name {
            Some(name) => format!("`{name}`"),
            None => format!("with label {}", self.labels.join(",")),
        }
    }

    /// Returns the pods that are there and not on their way out.
    ///
    /// # Errors
    /// Neither name nor labels are given, or the server refuses.
    pub async fn find(&self, cluster: &Cluster) -> Result<Vec<Value>, KubernetesError> {
        let pods = self.all(cluster).await?;
        Ok(pods.into_iter().filter(|pod| !is_leaving(pod)).collect())
    }

    /// Returns the pods, those that are ending included.
    ///
    /// # Errors
    /// As [`Wanted::find`].
    pub async fn all(&self, cluster: &Cluster) -> Result<Vec<Value>, KubernetesError> {
        let (kind, namespace) = (ObjectKind::pod(), Some(self.namespace.as_str()));
        match &self.name {
            Some(name) => Ok(cluster
                .get(&kind, namespace, name)
                .await?
                .into_iter()
                .collect()),
            None if self.labels.is_empty() => Err(KubernetesError::argument(
                "label_selectors",
                "say which pod: by its name or by labels",
            )),
            None => {
                cluster
                    .list(&kind, namespace, &self.labels.join(","), "")
                    .await
            }
        }
    }

    /// Returns the one pod that runs.
    ///
    /// # Errors
    /// There is none, or there are more.
    pub async fn one(&self, cluster: &Cluster) -> Result<Value, KubernetesError> {
        let found = self.find(cluster).await?;
        let (running, others): (Vec<Value>, Vec<Value>) = found
            .into_iter()
            .partition(|pod| pod["status"]["phase"] == "Running");
        let mut running = running.into_iter();
        match (running.next(), running.as_slice()) {
            (Some(pod), []) => Ok(pod),
            (None, _) => Err(KubernetesError::NoPod {
                wanted: self.words(),
                namespace: self.namespace.clone(),
                found: if others.is_empty() {
                    "there is none".into()
                } else {
                    let states: Vec<String> = others
                        .iter()
                        .map(|pod| format!("`{}` does not run: {}", name_of(pod), state_of(pod)))
                        .collect();
                    states.join("; ")
                },
            }),
            (Some(first), more) => Err(KubernetesError::ManyPods {
                wanted: self.words(),
                namespace: self.namespace.clone(),
                names: std::iter::once(&first)
                    .chain(more)
                    .map(|pod| name_of(pod).to_owned())
                    .collect(),
            }),
        }
    }

    /// Returns a container of the one pod that runs.
    ///
    /// # Errors
    /// As [`Wanted::one`], or the pod has no such container.
    pub async fn container(
        &self,
        cluster: &Cluster,
        container: &str,
    ) -> Result<Target, KubernetesError> {
        let pod = self.one(cluster).await?;
        let names = containers(&pod);
        if !names.contains(&container) {
            return Err(KubernetesError::NoContainer {
                pod: name_of(&pod).to_owned(),
                container: container.to_owned(),
                names: names.into_iter().map(str::to_owned).collect(),
            });
        }
        Ok(Target {
            namespace: self.namespace.clone(),
            pod: name_of(&pod).to_owned(),
            uid: uid_of(&pod).to_owned(),
            container: container.to_owned(),
        })
    }
}

/// An object's name.
#[must_use]
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Which object it is, whatever its name.
#[must_use]
pub fn uid_of(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Tells whether it was deleted and only ends its work.
#[must_use]
pub fn is_leaving(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// What made it and would make another one: its kind, name and uid.
#[must_use]
pub fn controller_of(pod: &Value) -> Option<&Value> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Tells whether a condition of an object has a status (and a reason, where one is given).
#[must_use]
pub fn has_condition(object: &Value, kind: &str, status: &str, reason: Option<&str>) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == kind
            && condition["status"] == status
            && reason.is_none_or(|reason| condition["reason"] == reason)
    })
}

/// Tells whether an object is ready, by what its kind goes by; kinds without a readiness always are.
#[must_use]
pub fn is_ready(object: &Value) -> bool {
    let status = &object["status"];
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let seen = number(&status["observedGeneration"]) >= number(&object["metadata"]["generation"]);
    match object["kind"].as_str() {
        Some("Pod") => !is_leaving(object) && has_condition(object, "Ready", "True", None),
        Some("Deployment" | "StatefulSet") => {
            let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
            seen && number(&status["replicas"]) == wanted
                && number(&status["updatedReplicas"]) == wanted
                && number(&status["readyReplicas"]) == wanted
        }
        Some("DaemonSet") => {
            let wanted = number(&status["desiredNumberScheduled"]);
            seen && number(&status["updatedNumberScheduled"]) == wanted
                && number(&status["numberReady"]) == wanted
        }
        _ => true,
    }
}

fn containers(pod: &Value) -> Vec<&str> {
    let listed = pod["spec"]["containers"].as_array();
    listed
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect()
}

/// Says in one line what keeps an object from being ready.
#[must_use]
pub fn state_of(object: &Value) -> String {
    let status = &object["status"];
    if object["kind"] != "Pod" {
        let number = |name: &str| status[name].as_i64().unwrap_or(0);
        return format!(
            "{} of {} ready, {} updated",
            number("readyReplicas"),
            object["spec"]["replicas"].as_i64().unwrap_or(1),
            number("updatedReplicas")
        );
    }
    let mut words = vec![status["phase"].as_str().unwrap_or("of no phase").to_owned()];
    if is_leaving(object) {
        words.push("it is ending".into());
    }
    for key in ["initContainerStatuses", "containerStatuses"] {
        for container in status[key].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            let restarts = container["restartCount"].as_i64().unwrap_or(0);
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (waiting, ended) = (
                &container["state"]["waiting"],
                &container["state"]["terminated"],
            );
            let state = if waiting.is_object() {
                let (reason, message) = (text(&waiting["reason"]), text(&waiting["message"]));
                format!("waits: {reason} {message}").trim_end().to_owned()
            } else if ended.is_object() && (key == "containerStatuses" || ended["exitCode"] != 0) {
                format!(
                    "ended with {}: {}",
                    ended["exitCode"],
                    text(&ended["reason"])
                )
            } else if container["ready"] != true && key == "containerStatuses" {
                "runs and is not ready".to_owned()
            } else {
                continue;
            };
            words.push(format!("container `{name}` {state}, {restarts} restarts"));
        }
    }
    let scheduled = status["conditions"].as_array().into_iter().flatten();
    for condition in scheduled {
        if condition["type"] == "PodScheduled" && condition["status"] == "False" {
            words.push(
                condition["message"]
                    .as_str()
                    .unwrap_or("not scheduled")
                    .to_owned(),
            );
        }
    }
    words.join("; ")
}

/// What a pod says of itself: its last events, and the last words of containers that are not ready. What
/// cannot be asked is left out.
pub async fn said_by(cluster: &Cluster, pod: &Value) -> Vec<String> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let (name, mut said) = (name_of(pod), Vec::new());
    let about = format!("involvedObject.uid={}", uid_of(pod));
    let kind = ObjectKind::new(None, "Event");
    if let Ok(mut events) = cluster.list(&kind, Some(namespace), "", &about).await {
        let when = |event: &Value| {
            let times = ["lastTimestamp", "eventTime", "firstTimestamp"];
            let time = times.iter().find_map(|key| event[*key].as_str());
            time.unwrap_or_default().to_owned()
        };
        events.sort_by_key(when);
        let first = events.len().saturating_sub(LAST_EVENTS);
        said.extend(events[first..].iter().map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{name}: {}: {}", text("reason"), text("message"))
        }));
    }
    let statuses = pod["status"]["containerStatuses"].as_array();
    for container in statuses
        .into_iter()
        .flatten()
        .filter(|status| status["ready"] != true)
    {
        let container = container["name"].as_str().unwrap_or_default();
        if let Ok(text) = cluster.logs(namespace, name, container, LAST_LINES).await {
            said.extend(
                text.lines()
                    .map(|line| format!("{name} {container}: {line}")),
            );
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_is_what_each_kind_goes_by() {
        let pod = |ready: &str, leaving: bool| {
            let mut pod = json!({"kind": "Pod", "metadata": {}, "status": {
                "conditions": [{"type": "Ready", "status": ready}]}});
            if leaving {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            pod
        };
        assert!(is_ready(&pod("True", false)));
        assert!(!is_ready(&pod("False", false)));
        assert!(!is_ready(&pod("True", true)));
        let deployment = |observed: i64, updated: i64| {
            json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 1},
                "status": {"observedGeneration": observed, "replicas": 1, "updatedReplicas": updated,
                    "readyReplicas": 1}})
        };
        assert!(is_ready(&deployment(2, 1)));
        assert!(!is_ready(&deployment(1, 1)), "the change was not seen yet");
        assert!(!is_ready(&deployment(2, 0)), "the ready one is the old one");
        assert!(is_ready(&json!({"kind": "ConfigMap"})));
    }

    #[test]
    fn what_keeps_a_pod_from_being_ready_is_told() {
        let pod = json!({"kind": "Pod", "metadata": {}, "status": {"phase": "Running",
            "initContainerStatuses": [
                {"name": "prepare", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}],
            "containerStatuses": [
                {"name": "good", "ready": true, "state": {"running": {}}},
                {"name": "bad", "ready": false, "restartCount": 4, "state": {"waiting":
                    {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}}]}});
        assert_eq!(
            state_of(&pod),
            "Running; container `bad` waits: CrashLoopBackOff back-off 40s, 4 restarts"
        );
    }
}
