//! What a module is given beside its arguments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard::Docker;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::docker::watch::Watch;
use super::files::quarantine::Quarantine;
use super::kubernetes::ClusterEnvironment;
use crate::event::Unit;
use crate::redact::Redactor;

/// A running service of the task's block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceHandle {
    /// Name in the playbook.
    pub name: String,
    /// Docker's id of the container.
    pub container_id: String,
    /// The container's name.
    pub container_name: String,
    /// Published port of the container (`5432/tcp`) -> where it is reached.
    pub ports: BTreeMap<String, SocketAddr>,
    /// Environment of the container, for default credentials.
    pub env: BTreeMap<String, String>,
}

/// Hears how far a task is: so far, in all, unit of both, what is being worked on.
type Advance = dyn Fn(u64, Option<u64>, Unit, Option<String>) + Send + Sync;

/// Where a module says how far it is and what it prints. Cheap to call; never blocks.
#[derive(Clone)]
pub struct Progress {
    advance: Arc<Advance>,
    line: Arc<dyn Fn(String) + Send + Sync>,
}

impl Progress {
    /// Makes a sink from two functions: one for figures, one for lines.
    pub fn new(
        advance: impl Fn(u64, Option<u64>, Unit, Option<String>) + Send + Sync + 'static,
        line: impl Fn(String) + Send + Sync + 'static,
    ) -> Self {
        Self {
            advance: Arc::new(advance),
            line: Arc::new(line),
        }
    }

    /// A sink that forgets everything.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_, _, _, _| {}, |_| {})
    }

    /// Bytes moved so far; `total` where it is known.
    pub fn bytes(&self, done: u64, total: Option<u64>) {
        (self.advance)(done, total, Unit::Bytes, None);
    }

    /// Bytes moved so far, and how much of what they hold that is.
    pub fn bytes_of(&self, done: u64, total: Option<u64>, what: impl Into<String>) {
        (self.advance)(done, total, Unit::Bytes, Some(what.into()));
    }

    /// Things done so far, and which one is next.
    pub fn items(&self, done: u64, total: Option<u64>, what: impl Into<String>) {
        (self.advance)(done, total, Unit::Items, Some(what.into()));
    }

    /// A line for the task's log; secrets are cut out on the way.
    pub fn line(&self, line: impl Into<String>) {
        (self.line)(line.into());
    }
}

/// Answers a `pause` that asks for a confirmation.
pub trait Confirm: Send + Sync {
    /// Asks; returns who confirmed (`alice at the terminal`, `alice with --yes`), or why not.
    ///
    /// # Errors
    /// The text says why nobody confirmed (no terminal and no `--yes`, or the answer was no).
    fn confirm(&self, prompt: &str) -> Result<String, String>;
}

/// What a module is given beside its arguments. Cheap to clone.
#[derive(Clone)]
pub struct TaskContext {
    /// Unique id of this attempt (goes into markers that `recover` looks for).
    pub attempt: String,
    /// In `recover`: the id of the attempt that never finished.
    pub interrupted_attempt: Option<String>,
    /// Folder of the playbook; relative paths of `src`-like arguments start here.
    pub base_dir: PathBuf,
    /// Fires on SIGINT and SIGTERM.
    pub cancel: CancellationToken,
    /// Figures and lines.
    pub progress: Progress,
    /// Says how files change, line by line.
    pub diff: bool,
    /// Extra environment of processes that the task starts.
    pub environment: BTreeMap<String, String>,
    /// Running services of the enclosing blocks, innermost first.
    pub services: Vec<ServiceHandle>,
    /// Cuts secrets out of what the module prints itself.
    pub redactor: Redactor,
    /// Confirmations.
    pub confirm: Arc<dyn Confirm>,
    /// Where things wait that a task takes away.
    pub quarantine: Quarantine,
    /// Where a kubeconfig is looked for.
    pub cluster: Arc<ClusterEnvironment>,
    /// The Docker connection, made by the first who needs it.
    pub docker: Arc<OnceCell<Docker>>,
    /// What a container that must not outlive the agent waits for; none where nothing of a site is at stake.
    pub watch: Option<Arc<Watch>>,
}

impl TaskContext {
    /// Resolves a `src`-like path against the playbook's folder.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        if path.is_absolute() {
            path.to_path_buf()
        } else {
            self.base_dir.join(path)
        }
    }

    /// Returns the named service, or the innermost one where no name is given.
    #[must_use]
    pub fn service(&self, name: Option<&str>) -> Option<&ServiceHandle> {
        match name {
            Some(name) => self.services.iter().find(|service| service.name == name),
            None => self.services.first(),
        }
    }

    /// A context for unit tests: nothing is cancelled, nobody confirms.
    #[cfg(test)]
    pub(crate) fn for_tests(base_dir: &Path) -> Self {
        struct Nobody;
        impl Confirm for Nobody {
            fn confirm(&self, _: &str) -> Result<String, String> {
                Err("nobody is there".into())
            }
        }
        Self {
            attempt: "run-1/1".into(),
            interrupted_attempt: None,
            base_dir: base_dir.to_path_buf(),
            cancel: CancellationToken::new(),
            progress: Progress::none(),
            diff: false,
            environment: BTreeMap::new(),
            services: Vec::new(),
            redactor: Redactor::default(),
            confirm: Arc::new(Nobody),
            quarantine: Quarantine {
                own: base_dir.join("state/quarantine"),
                state_id: "state-1".into(),
            },
            cluster: Arc::default(),
            docker: Arc::new(OnceCell::new()),
            watch: None,
        }
    }
}
