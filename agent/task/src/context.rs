//! What a module is given beside its arguments.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use crate::host::context::HostContext;
use crate::host::docker::service::ServiceHandle;
use crate::host::files::quarantine::Quarantine;
use crate::redact::Redactor;

/// Answers a `pause` that asks for a confirmation.
pub trait Confirm: Send + Sync {
    /// Asks; returns who confirmed (`alice at the terminal`, `alice with --yes`), or why not.
    ///
    /// # Errors
    /// The text says why nobody confirmed (no terminal and no `--yes`, or the answer was no).
    fn confirm(&self, prompt: &str) -> Result<String, String>;
}

/// What a module is given beside its arguments. Cheap to clone. What concerns the host alone is reached as if it
/// were its own (`ctx.cancel`), and handed down as [`HostContext`].
#[derive(Clone)]
pub struct TaskContext {
    /// For work on the host.
    pub host: HostContext,
    /// Says how files change, line by line.
    pub diff: bool,
    /// Running services of the enclosing blocks, innermost first.
    pub services: Vec<ServiceHandle>,
    /// Cuts secrets out of what the module prints itself.
    pub redactor: Redactor,
    /// Confirmations.
    pub confirm: Arc<dyn Confirm>,
    /// Where things wait that a task takes away.
    pub quarantine: Quarantine,
}

impl Deref for TaskContext {
    type Target = HostContext;

    fn deref(&self) -> &HostContext {
        &self.host
    }
}

impl DerefMut for TaskContext {
    fn deref_mut(&mut self) -> &mut HostContext {
        &mut self.host
    }
}

impl TaskContext {
    /// Returns the named service, or the innermost one where no name is given.
    #[must_use]
    pub fn service(&self, name: Option<&str>) -> Option<&ServiceHandle> {
        match name {
            Some(name) => self.services.iter().find(|service| service.name == name),
            None => self.services.first(),
        }
    }

    /// A context for unit tests: nothing is cancelled, nobody confirms.
    #[must_use]
    pub fn for_tests(base_dir: &Path) -> Self {
        struct Nobody;
        impl Confirm for Nobody {
            fn confirm(&self, _: &str) -> Result<String, String> {
                Err("nobody is there".into())
            }
        }
        Self {
            host: HostContext::for_tests(base_dir),
            diff: false,
            services: Vec::new(),
            redactor: Redactor::default(),
            confirm: Arc::new(Nobody),
            quarantine: Quarantine {
                own: base_dir.join("state/quarantine"),
                state_id: "state-1".into(),
            },
        }
    }
}
