//! What work on the host is given: where it is, when to stop, whom to tell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::docker::watch::Watch;
use super::progress::Progress;
use crate::kubernetes::access::ClusterEnvironment;

/// What work on the host is given. Cheap to clone.
#[derive(Clone)]
pub struct HostContext {
    /// Unique id of this piece of work: names of temporary things are made of it.
    pub attempt: String,
    /// The id of an earlier one that never finished, where its left-overs are looked for.
    pub interrupted_attempt: Option<String>,
    /// Folder of the playbook; relative paths of `src`-like arguments start here.
    pub base_dir: PathBuf,
    /// Fires on SIGINT and SIGTERM.
    pub cancel: CancellationToken,
    /// Figures and lines.
    pub progress: Progress,
    /// Extra environment of processes that are started.
    pub environment: BTreeMap<String, String>,
    /// Where a kubeconfig is looked for.
    pub cluster: Arc<ClusterEnvironment>,
    /// The Docker connection, made by the first who needs it.
    pub docker: Arc<OnceCell<Docker>>,
    /// What a container that must not outlive the agent waits for; none where nothing of a site is at stake.
    pub watch: Option<Arc<Watch>>,
}

impl HostContext {
    /// Resolves a `src`-like path against the playbook's folder.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        if path.is_absolute() {
            path.to_path_buf()
        } else {
            self.base_dir.join(path)
        }
    }

    /// A context for unit tests: nothing is cancelled, nobody listens.
    #[must_use]
    pub fn for_tests(base_dir: &Path) -> Self {
        Self {
            attempt: "run-1/1".into(),
            interrupted_attempt: None,
            base_dir: base_dir.to_path_buf(),
            cancel: CancellationToken::new(),
            progress: Progress::none(),
            environment: BTreeMap::new(),
            cluster: Arc::default(),
            docker: Arc::new(OnceCell::new()),
            watch: None,
        }
    }
}
