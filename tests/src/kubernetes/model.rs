//! What is in the cluster: workloads, pods, events, users, and every change in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{NAMESPACE, containers};
use crate::workplace::unique;

/// A container of a pod.
#[derive(Debug, Clone, Default)]
pub struct Container {
    /// Name in the pod.
    pub name: String,
    /// Image.
    pub image: String,
    /// Options of `docker run`: mounts, variables.
    pub options: Vec<String>,
    /// Arguments of the image.
    pub command: Vec<String>,
    /// Command that succeeds when it is ready.
    pub probe: Vec<String>,
}

/// A Deployment.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Labels of its pods.
    pub labels: Vec<(String, String)>,
    /// Containers of each pod.
    pub containers: Vec<Container>,
    /// How many pods.
    pub replicas: usize,
}

struct User {
    name: String,
    denied: Vec<(String, String)>,
}

#[derive(Default)]
struct State {
    version: u64,
    workloads: BTreeMap<String, Workload>,
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    /// Version, plural, ADDED or the like, object.
    log: Vec<(u64, String, &'static str, Value)>,
    users: BTreeMap<String, User>,
    connections: Vec<AbortHandle>,
    docker_names: Vec<String>,
    changes: Vec<String>,
}

/// The cluster, as all its connections see it.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub changed: Notify,
    pub broken: AtomicBool,
    pub old_protocol: AtomicBool,
    pub execs: AtomicUsize,
}

/// Who may not do what.
pub(super) enum Right {
    Granted,
    Unknown,
    Denied(String),
}

/// Name of the Docker container behind a pod's.
pub(super) fn docker_name(pod: &Value, container: &str) -> String {
    format!("kaapana-lab-{}-{container}", text(&pod["metadata"]["uid"]))
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The present time, as the API writes it.
fn now() -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    output.map_or_else(
        |_| "1970-01-01T00:00:00Z".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn uid() -> String {
    unique("uid")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn allow(&self, token: &str, user: &str, denied: &[(&str, &str)]) {
        let denied = denied
            .iter()
            .map(|(verb, on)| ((*verb).to_owned(), (*on).to_owned()));
        let user = User {
            name: user.to_owned(),
            denied: denied.collect(),
        };
        self.state().users.insert(token.to_owned(), user);
    }

    pub fn right(&self, token: &str, verb: &str, resource: &str) -> Right {
        let state = self.state();
        let Some(user) = state.users.get(token) else {
            return Right::Unknown;
        };
        if user
            .denied
            .iter()
            .any(|(no, on)| no == verb && on == resource)
        {
            return Right::Denied(user.name.clone());
        }
        Right::Granted
    }

    pub fn keep_connection(&self, connection: AbortHandle) {
        let mut state = self.state();
        state.connections.retain(|known| !known.is_finished());
        state.connections.push(connection);
    }

    pub fn cut_connections(&self) {
        for connection in std::mem::take(&mut self.state().connections) {
            connection.abort();
        }
    }

    pub fn note(&self, change: String) {
        self.state().changes.push(change);
    }

    pub fn changes(&self) -> Vec<String> {
        self.state().changes.clone()
    }

    pub fn docker_names(&self) -> Vec<String> {
        self.state().docker_names.clone()
    }

    /// Returns the version and the objects of a resource.
    pub fn list(&self, plural: &str) -> (u64, Vec<Value>) {
        let state = self.state();
        let found = state.objects.iter().filter(|((of, _), _)| of == plural);
        (
            state.version,
            found.map(|(_, object)| object.clone()).collect(),
        )
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.state()
            .objects
            .get(&(plural.to_owned(), name.to_owned()))
            .cloned()
    }

    /// Changes of a resource after a version.
    pub fn changes_after(&self, plural: &str, version: u64) -> Vec<(u64, &'static str, Value)> {
        let state = self.state();
        let later = state
            .log
            .iter()
            .filter(|(at, of, ..)| *at > version && of == plural);
        later
            .map(|(at, _, kind, object)| (*at, *kind, object.clone()))
            .collect()
    }

    fn put(&self, plural: &str, mut object: Value) {
        let mut state = self.state();
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let key = (
            plural.to_owned(),
            text(&object["metadata"]["name"]).to_owned(),
        );
        let kind = if state.objects.contains_key(&key) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let version = state.version;
        state.objects.insert(key, object.clone());
        state.log.push((version, plural.to_owned(), kind, object));
        drop(state);
        self.changed.notify_waiters();
    }

    /// Changes an object that is there.
    fn update(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) {
        if let Some(mut object) = self.get(plural, name) {
            change(&mut object);
            self.put(plural, object);
        }
    }

    fn take(&self, plural: &str, name: &str) {
        let mut state = self.state();
        if let Some(object) = state.objects.remove(&(plural.to_owned(), name.to_owned())) {
            state.version += 1;
            let version = state.version;
            state
                .log
                .push((version, plural.to_owned(), "DELETED", object));
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The pods of a workload.
    pub fn pods_of(&self, workload: &str) -> Vec<Value> {
        let (_, pods) = self.list("pods");
        let owner = format!("{workload}-");
        let made_by =
            |pod: &Value| text(&pod["metadata"]["ownerReferences"][0]["name"]).starts_with(&owner);
        pods.into_iter().filter(made_by).collect()
    }

    /// Makes a Deployment and its pods.
    pub fn deploy(self: &Arc<Self>, workload: Workload) {
        let labels: Value = workload
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let shown: Vec<Value> = workload.containers.iter().map(shown_container).collect();
        self.put(
            "deployments",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": workload.name, "namespace": NAMESPACE, "uid": uid(),
                    "generation": 1, "creationTimestamp": now(), "labels": labels},
                "spec": {"replicas": workload.replicas, "selector": {"matchLabels": labels},
                    "strategy": {"type": "RollingUpdate"},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": shown}}},
                "status": {"observedGeneration": 1, "replicas": workload.replicas},
            }),
        );
        let (name, replicas) = (workload.name.clone(), workload.replicas);
        self.state().workloads.insert(name.clone(), workload);
        let owner = uid();
        for _ in 0..replicas {
            self.start_pod(&name, &owner, None);
        }
    }

    /// Makes a pod, which starts when `after` has ended.
    fn start_pod(
        self: &Arc<Self>,
        workload: &str,
        owner: &str,
        after: Option<tokio::task::JoinHandle<()>>,
    ) {
        let Some(of) = self.state().workloads.get(workload).cloned() else {
            return;
        };
        let deployment = self.get("deployments", workload).unwrap_or_default();
        let id = uid();
        let tail: String = id
            .chars()
            .rev()
            .take(5)
            .collect::<String>()
            .replace('-', "x");
        let name = format!("{workload}-7d9f8b6c5-{tail}");
        let containers: Vec<Value> = of.containers.iter().map(shown_container).collect();
        let waiting: Vec<Value> = of
            .containers
            .iter()
            .map(|container| {
                json!({"name": container.name, "ready": false, "restartCount": 0, "image": container.image,
                    "imageID": "", "state": {"waiting": {"reason": "ContainerCreating"}}})
            })
            .collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": id, "creationTimestamp": now(),
                "labels": deployment["spec"]["template"]["metadata"]["labels"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                    "blockOwnerDeletion": true, "name": format!("{workload}-7d9f8b6c5"), "uid": owner}]},
            "spec": {"nodeName": "lab", "containers": containers, "restartPolicy": "Always"},
            "status": {"phase": "Pending", "conditions": conditions(false), "containerStatuses": waiting},
        });
        self.put("pods", pod.clone());
        let broken = self.broken.load(Ordering::SeqCst);
        let names = of
            .containers
            .iter()
            .map(|container| docker_name(&pod, &container.name));
        self.state().docker_names.extend(names);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(after) = after {
                let _ = after.await;
            }
            shared.run_pod(of, pod, broken).await;
        });
    }

    /// Starts the containers of a pod and tells when they are ready.
    async fn run_pod(self: Arc<Self>, of: Workload, pod: Value, broken: bool) {
        let name = text(&pod["metadata"]["name"]).to_owned();
        let workload = of.clone();
        let of_pod = pod.clone();
        let started = tokio::task::spawn_blocking(move || {
            for container in &of_pod_containers(&workload) {
                containers::start(&docker_name(&of_pod, &container.name), container, broken)?;
            }
            Ok::<(), crate::error::LabError>(())
        });
        if let Ok(Err(error)) = started.await {
            self.tell(&pod, "Failed", &error.to_string());
            return;
        }
        self.tell(&pod, "Started", "Started container");
        if broken {
            self.tell(&pod, "BackOff", "Back-off restarting failed container");
            self.update("pods", &name, |pod| {
                pod["status"]["phase"] = "Running".into();
                for status in pod["status"]["containerStatuses"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                {
                    status["restartCount"] = 2.into();
                    status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff",
                        "message": "back-off 10s restarting failed container"}});
                }
            });
            if !self.restart_pod(&of, &pod).await {
                return;
            }
        }
        self.update("pods", &name, |pod| {
            pod["status"]["phase"] = "Running".into();
            for status in pod["status"]["containerStatuses"]
                .as_array_mut()
                .into_iter()
                .flatten()
            {
                status["state"] = json!({"running": {"startedAt": now()}});
            }
        });
        loop {
            let (workload, of_pod) = (of.clone(), pod.clone());
            let ready = tokio::task::spawn_blocking(move || {
                let mut containers = workload.containers.iter();
                containers.all(|c| containers::is_ready(&docker_name(&of_pod, &c.name), &c.probe))
            });
            match self.get("pods", &name) {
                None => return,
                Some(pod) if pod["metadata"]["deletionTimestamp"].is_string() => return,
                Some(_) => {}
            }
            if ready.await.unwrap_or(false) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.update("pods", &name, |pod| {
            pod["status"]["conditions"] = conditions(true);
            for status in pod["status"]["containerStatuses"]
                .as_array_mut()
                .into_iter()
                .flatten()
            {
                status["ready"] = true.into();
            }
        });
        self.count(&of.name);
    }

    /// Starts a pod's containers again once they may run, as a kubelet does when its back-off is over. Returns
    /// whether they run; a pod that is deleted meanwhile is left alone.
    async fn restart_pod(&self, of: &Workload, pod: &Value) -> bool {
        let name = text(&pod["metadata"]["name"]);
        while self.broken.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let is_there = self
            .get("pods", name)
            .is_some_and(|pod| !pod["metadata"]["deletionTimestamp"].is_string());
        if !is_there {
            return false;
        }
        let (workload, of_pod) = (of.clone(), pod.clone());
        let restarted = tokio::task::spawn_blocking(move || {
            let own = |name: &str| docker_name(&of_pod, name);
            let names = workload.containers.iter().map(|c| own(&c.name));
            containers::stop(&names.collect::<Vec<_>>());
            for container in &of_pod_containers(&workload) {
                containers::start(&own(&container.name), container, false)?;
            }
            Ok::<(), crate::error::LabError>(())
        });
        matches!(restarted.await, Ok(Ok(())))
    }

    /// Brings a Deployment's figures up to date.
    fn count(&self, workload: &str) {
        let pods = self.pods_of(workload);
        let is_ready = |pod: &&Value| {
            pod["status"]["conditions"] == conditions(true)
                && !pod["metadata"]["deletionTimestamp"].is_string()
        };
        let ready = pods.iter().filter(is_ready).count();
        self.update("deployments", workload, |deployment| {
            let generation = deployment["metadata"]["generation"].clone();
            let status = &mut deployment["status"];
            status["observedGeneration"] = generation;
            status["replicas"] = pods.len().into();
            for key in ["readyReplicas", "availableReplicas", "updatedReplicas"] {
                status[key] = ready.into();
            }
            status["conditions"] = json!([
                {"type": "Available", "status": if ready > 0 { "True" } else { "False" }, "reason": "lab"},
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
            ]);
        });
    }

    /// Deletes a pod: it ends gracefully, and another one takes its place.
    pub fn delete_pod(self: &Arc<Self>, pod: &Value) -> Value {
        self.replace_pod(pod, None)
    }

    fn replace_pod(self: &Arc<Self>, pod: &Value, owner: Option<&str>) -> Value {
        let name = text(&pod["metadata"]["name"]).to_owned();
        if pod["metadata"]["deletionTimestamp"].is_string() {
            return pod.clone();
        }
        self.update("pods", &name, |pod| {
            pod["metadata"]["deletionTimestamp"] = now().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
        });
        self.tell(pod, "Killing", "Stopping container");
        let replica_set = &pod["metadata"]["ownerReferences"][0];
        let workload = text(&replica_set["name"])
            .trim_end_matches("-7d9f8b6c5")
            .to_owned();
        let names = pod["spec"]["containers"].as_array().into_iter().flatten();
        let names: Vec<String> = names
            .map(|container| docker_name(pod, text(&container["name"])))
            .collect();
        let (shared, of, gone) = (Arc::clone(self), workload.clone(), name.clone());
        let ended = tokio::spawn(async move {
            let _ = tokio::task::spawn_blocking(move || containers::stop(&names)).await;
            shared.take("pods", &gone);
            shared.count(&of);
        });
        let owner = owner.map_or_else(|| text(&replica_set["uid"]).to_owned(), str::to_owned);
        self.start_pod(&workload, &owner, Some(ended));
        self.count(&workload);
        self.get("pods", &name).unwrap_or_else(|| pod.clone())
    }

    /// Merges a change into a Deployment; another template replaces its pods.
    pub fn patch_deployment(self: &Arc<Self>, name: &str, change: &Value) -> Option<Value> {
        let before = self.get("deployments", name)?;
        let mut after = before.clone();
        merge(&mut after, change);
        let template_changed = before["spec"]["template"] != after["spec"]["template"];
        if template_changed {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
            after["metadata"]["generation"] = (generation + 1).into();
        }
        self.put("deployments", after);
        if template_changed {
            let owner = uid();
            for pod in self.pods_of(name) {
                self.replace_pod(&pod, Some(&owner));
            }
        }
        self.get("deployments", name)
    }

    fn tell(&self, pod: &Value, reason: &str, message: &str) {
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": uid(), "namespace": NAMESPACE, "uid": uid(), "creationTimestamp": now()},
            "involvedObject": {"kind": "Pod", "namespace": NAMESPACE, "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"]},
            "reason": reason, "message": message, "type": "Normal", "count": 1,
            "firstTimestamp": now(), "lastTimestamp": now(), "source": {"component": "lab"},
        });
        self.put("events", event);
    }
}

fn of_pod_containers(workload: &Workload) -> Vec<Container> {
    workload.containers.clone()
}

fn shown_container(container: &Container) -> Value {
    json!({"name": container.name, "image": container.image, "resources": {}})
}

fn conditions(ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    json!([
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": status},
        {"type": "ContainersReady", "status": status},
    ])
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, change: &Value) {
    let Some(changes) = change.as_object() else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in changes {
        if value.is_null() {
            if let Some(map) = target.as_object_mut() {
                map.remove(name);
            }
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}
