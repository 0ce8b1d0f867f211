//! One unit of work: a task, or one item of its loop, looked at without any effect.

use std::collections::BTreeMap;

use serde_json::Value;

use super::arguments;
use super::decide::{Decision, Orphan, decide};
use super::frame::Frame;
use super::rounds::Around;
use super::run::Engine;
use crate::host::context::HostContext;
use crate::host::files::quarantine::Quarantine;
use crate::playbook::model::{Node, NodeKind, Task};
use crate::playbook::template::Scope;
use crate::source::Problem;
use crate::state::fingerprint::sha256_hex;
use crate::state::{Fingerprint, History};
use crate::task::context::TaskContext;
use crate::task::module::Module;

/// What a look at a unit gives.
pub(super) enum Look<'h> {
    /// A condition is false.
    Skip {
        /// Its text.
        condition: String,
    },
    /// It can be decided.
    Ready(Box<Ready<'h>>),
}

/// A unit whose arguments are known.
pub(super) struct Ready<'h> {
    pub module: Box<dyn Module>,
    /// Rendered arguments, secrets hidden.
    pub shown: Value,
    pub fingerprint: Fingerprint,
    pub decision: Decision<'h>,
    pub environment: Vec<(String, String)>,
    pub holds_secret: bool,
}

/// Where a unit stands: its task, everything around it, and its identity.
#[derive(Clone)]
pub(super) struct TaskInstance<'p> {
    pub task: &'p Task,
    /// Includes the task's own keywords.
    pub frame: Frame<'p>,
    pub identity: String,
    pub item: Option<Item>,
}

/// One item of a loop.
#[derive(Clone)]
pub(super) struct Item {
    pub key: String,
    pub value: Value,
    pub index: usize,
    /// Where the loop is to know it.
    pub around: Option<Around>,
    /// The task of whose result it was made without secrets.
    pub lost: Option<String>,
}

impl Engine {
    /// Looks at a unit: conditions, arguments, fingerprint, decision. Changes nothing.
    pub(super) fn look<'h>(
        &self,
        place: &TaskInstance<'_>,
        scope: &Scope,
        history: &'h History,
        orphans: &[Orphan<'h>],
    ) -> Result<Look<'h>, Problem> {
        for condition in &place.frame.when {
            if !self.templates.condition(condition, scope)? {
                return Ok(Look::Skip {
                    condition: text_of(condition),
                });
            }
        }
        let (module, rendered) =
            arguments::build(self, place.task.module, &place.task.args, scope)?;
        let shown = if place.frame.no_log {
            Value::String(crate::redact::HIDDEN.into())
        } else {
            abbreviated(self.redactor.value(&rendered))
        };
        // Secrets stay out of the fingerprint: a new password does not make done work undone.
        let hashed = self.redactor.value(&rendered);
        let files = arguments::input_files(module.as_ref(), &self.looking_context());
        let fingerprint = Fingerprint::new(place.task.module.name, &hashed, &files)
            .without(place.task.module.name, &hashed, place.task.module.tuning)
            .with_services(self.services_run_on(place, scope)?);
        let decision = decide(
            place.task.module.kind,
            &fingerprint,
            history.task(&place.identity),
            orphans,
        );
        let environment = self.environment(place, scope)?;
        let holds_secret = hashed != rendered;
        Ok(Look::Ready(Box::new(Ready {
            module,
            shown,
            fingerprint,
            decision,
            environment,
            holds_secret,
        })))
    }

    /// What the services around a task run on. Another image or directory is another database, so that
    /// what was read there or done to it does not count here. How a server is tuned is left out.
    fn services_run_on(
        &self,
        place: &TaskInstance<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, Problem> {
        let mut all = BTreeMap::new();
        for service in &place.frame.services {
            let mut runs_on = serde_json::Map::new();
            for key in ["image", "volumes", "mounts"] {
                if let Some(node) = service.container.get(key) {
                    let value = self.templates.render(node, scope)?;
                    runs_on.insert(key.to_owned(), self.redactor.value(&value));
                }
            }
            all.insert(service.name.clone(), Value::Object(runs_on));
        }
        Ok(all)
    }

    fn environment(
        &self,
        place: &TaskInstance<'_>,
        scope: &Scope,
    ) -> Result<Vec<(String, String)>, Problem> {
        let mut environment = Vec::new();
        for node in &place.frame.environment {
            if let Value::Object(map) = self.templates.render(node, scope)? {
                for (key, value) in map {
                    environment.push((key, text_of_value(&value)));
                }
            }
        }
        Ok(environment)
    }

    /// Where this playbook's state keeps what was taken away.
    pub(super) fn quarantine(&self, state_id: &str) -> Quarantine {
        Quarantine {
            own: std::path::absolute(self.state.quarantine())
                .unwrap_or_else(|_| self.state.quarantine()),
            state_id: state_id.to_owned(),
        }
    }

    /// A context good for looking: no services, no log.
    pub(super) fn looking_context(&self) -> TaskContext {
        TaskContext {
            host: HostContext {
                attempt: String::new(),
                interrupted_attempt: None,
                base_dir: self.base_dir.clone(),
                cancel: self.options.cancel.clone(),
                progress: crate::host::progress::Progress::none(),
                environment: BTreeMap::new(),
                cluster: self.options.cluster.clone(),
                docker: self.docker.clone(),
                watch: None,
            },
            diff: false,
            services: Vec::new(),
            redactor: self.redactor.clone(),
            confirm: self.options.confirm.clone(),
            // Until a run says which journal it is that vouches for what lies there.
            quarantine: self.quarantine(""),
        }
    }
}

/// An argument longer than this stands in the journal by its size and hash.
const LONG_ARGUMENT: usize = 4096;

fn abbreviated(arguments: Value) -> Value {
    let Value::Object(map) = arguments else {
        return arguments;
    };
    map.into_iter()
        .map(|(key, value)| {
            let text = value.to_string();
            if text.len() <= LONG_ARGUMENT {
                return (key, value);
            }
            let hash = sha256_hex(text.as_bytes());
            (key, format!("[{} bytes, sha256 {hash}]", text.len()).into())
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Text of a condition for people.
pub(super) fn text_of(node: &Node) -> String {
    match &node.kind {
        NodeKind::String(text) => text.clone(),
        _ => text_of_value(&node.to_value()),
    }
}

/// A value as text, without quotes around a plain text.
pub(super) fn text_of_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
