//! A small API server: no Kubernetes can run on a machine like the lab's, so this is its double. Its pods are
//! containers of the local Docker, its `exec` really runs in them, and the real kubectl is used against it
//! in the tests, so that it is checked by somebody else's client.

mod api;
mod containers;
mod exec;
mod http;
mod kubectl;
mod model;
mod tls;
mod workloads;

pub use kubectl::{Kubectl, image};
pub use model::{Container, Workload};
pub use workloads::{archive, ldap};

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::error::{LabError, io_error};
use crate::workplace::{lab_subdir, unique};
use model::Shared;

/// Namespace of everything.
pub const NAMESPACE: &str = "services";
/// Token of who may do everything.
pub const ADMIN: &str = "admin-token";

/// A running API server with its workloads; all of it ends with this value.
pub struct Cluster {
    /// Kubeconfigs and certificates.
    pub dir: PathBuf,
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.address)
    }
}

impl Cluster {
    /// Starts it, without workloads.
    ///
    /// # Errors
    /// No certificate can be made, or no port be opened.
    pub fn start() -> Result<Self, LabError> {
        let dir = lab_subdir("kubernetes")?.join(unique("cluster"));
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        let acceptor = TlsAcceptor::from(tls::config(&dir)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(io_error("start threads for", &dir))?;
        let listen = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listen.map_err(io_error("listen for", &dir))?;
        let address = listener
            .local_addr()
            .map_err(io_error("listen for", &dir))?;
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&served));
                let work = async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        api::serve(stream, shared).await;
                    }
                };
                let task = tokio::spawn(work);
                served.keep_connection(task.abort_handle());
            }
        });
        shared.allow(ADMIN, "admin", &[]);
        let cluster = Self {
            dir,
            address,
            shared,
            runtime: Some(runtime),
        };
        cluster.kubeconfig("admin.conf", ADMIN)?;
        Ok(cluster)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.dir.join("admin.conf")
    }

    /// Writes a kubeconfig with this token, which need not be valid, and returns its path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf, LabError> {
        let path = self.dir.join(name);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority": "server.crt",
            }}],
            "users": [{"name": "lab", "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {
                "cluster": "lab", "user": "lab", "namespace": NAMESPACE,
            }}],
            "current-context": "lab",
        });
        fs::write(&path, format!("{config:#}\n")).map_err(io_error("write", &path))?;
        Ok(path)
    }

    /// Lets a user in who may do everything but these: verb and resource, such as `delete`, `pods`.
    pub fn allow(&self, token: &str, user: &str, denied: &[(&str, &str)]) {
        self.shared.allow(token, user, denied);
    }

    /// Deploys a workload: its pods start.
    pub fn deploy(&self, workload: Workload) {
        if let Some(runtime) = &self.runtime {
            let shared = Arc::clone(&self.shared);
            let _inside = runtime.enter();
            shared.deploy(workload);
        }
    }

    /// Lets pods that start from now on be never ready: their command ends at once.
    pub fn break_starts(&self, broken: bool) {
        self.shared.broken.store(broken, Ordering::SeqCst);
    }

    /// Speaks the protocol of servers before Kubernetes 1.30: nothing tells that an input has ended.
    pub fn speak_old_protocol(&self, old: bool) {
        self.shared.old_protocol.store(old, Ordering::SeqCst);
    }

    /// Cuts all connections that are open, in the middle of whatever they do.
    pub fn cut_connections(&self) {
        self.shared.cut_connections();
    }

    /// How many commands were begun.
    #[must_use]
    pub fn execs(&self) -> usize {
        self.shared.execs.load(Ordering::SeqCst)
    }

    /// The pods of a workload that are there now, as the API shows them.
    #[must_use]
    pub fn pods(&self, workload: &str) -> Vec<Value> {
        self.shared.pods_of(workload)
    }

    /// Name of the Docker container behind a container of the workload's only pod.
    ///
    /// # Errors
    /// There is not exactly one pod.
    pub fn container(&self, workload: &str, container: &str) -> Result<String, LabError> {
        let pods = self.pods(workload);
        match pods.as_slice() {
            [pod] => Ok(model::docker_name(pod, container)),
            _ => Err(LabError::Unexpected(format!(
                "find one pod of {workload}: there are {}",
                pods.len()
            ))),
        }
    }

    /// What was changed from outside, as `VERB resource name`.
    #[must_use]
    pub fn changes(&self) -> Vec<String> {
        self.shared.changes()
    }

    /// How many pods of a workload were deleted from outside.
    #[must_use]
    pub fn deletions(&self, workload: &str) -> usize {
        let prefix = format!("delete pods {workload}-");
        let changes = self.changes();
        let deleted = changes.iter().filter(|change| change.starts_with(&prefix));
        deleted.count()
    }

    /// Where the certificates and kubeconfigs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // First the tasks, so that none starts another container.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(20));
        }
        containers::remove_all(&self.shared.docker_names());
        let _ = fs::remove_dir_all(&self.dir);
    }
}
