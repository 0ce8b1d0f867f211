//! What a module is, as the engine and the validator see it.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::context::TaskContext;
use super::undo::{self, PastAttempt, Undo};
use crate::host::error::ModuleError;
use crate::host::output_file::OutputFile;

/// What running a module twice means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Looks only; nothing on the host changes, so running it again is always right.
    ReadOnly,
    /// Describes a state and brings the host there; runs again when its arguments change.
    Converging,
    /// Does something that must not happen twice; changed arguments after success stop the run.
    OneWay,
}

/// What `check` found.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The effect is already there.
    InSync,
    /// What would change, one line each.
    NeedsChange(Vec<String>),
    /// The module cannot tell without doing it; check mode skips it.
    CannotPredict,
}

impl From<Vec<String>> for Plan {
    /// What would change, one line each; no line, and the effect is there.
    fn from(lines: Vec<String>) -> Self {
        if lines.is_empty() {
            Self::InSync
        } else {
            Self::NeedsChange(lines)
        }
    }
}

/// A task's good end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Whether the host changed.
    pub changed: bool,
    /// Return values, as `register` sees them; `changed` and `failed` are added by the engine.
    pub result: Map<String, Value>,
    /// Files made.
    pub outputs: Vec<OutputFile>,
    /// One line for people, e.g. `65 tables, 335,120 rows`.
    pub summary: Option<String>,
}

impl Outcome {
    /// The host is as described; nothing was changed.
    #[must_use]
    pub fn ok() -> Self {
        Self::default()
    }

    /// The host was changed.
    #[must_use]
    pub fn changed() -> Self {
        Self {
            changed: true,
            ..Self::default()
        }
    }

    /// What was done, one line each; no line, and the host was as described.
    #[must_use]
    pub fn of_steps(lines: &[String]) -> Self {
        if lines.is_empty() {
            return Self::ok();
        }
        Self::changed().summary(lines.join("; "))
    }

    /// Adds a return value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.result.insert(key.to_owned(), value.into());
        self
    }

    /// Adds what a command printed, whole and in lines.
    #[must_use]
    pub fn printed(self, stdout: &str, stderr: &str) -> Self {
        let lines = |text: &str| text.lines().map(Value::from).collect::<Vec<_>>();
        self.with("stdout", stdout)
            .with("stderr", stderr)
            .with("stdout_lines", lines(stdout))
            .with("stderr_lines", lines(stderr))
    }

    /// Adds the line for people.
    #[must_use]
    pub fn summary(mut self, text: impl Into<String>) -> Self {
        self.summary = Some(text.into());
        self
    }

    /// Adds a file that was made.
    #[must_use]
    pub fn output(mut self, file: OutputFile) -> Self {
        self.outputs.push(file);
        self
    }
}

/// What became of an attempt that was started and never finished.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovery {
    /// The effect is there, whole; this is the result it would have had.
    Done(Outcome),
    /// The effect is not there; the attempt's own left-overs have been cleaned up, it can run again.
    NotDone,
    /// Cannot be told; the operator decides.
    Unknown {
        /// What the task was doing, e.g. `running the command …`.
        doing: String,
        /// What is on the host now.
        found: String,
    },
}

/// What helps an operator to answer for a task whose effect the agent cannot judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What to look at, with the command to look with where there is one.
    pub look: String,
    /// When "it is done" is the right answer; completes "right when …".
    pub done: String,
    /// When "run it again" is the right answer, and what it then does; completes "right when …".
    pub redo: String,
}

/// One task's work, its arguments already rendered and typed.
#[async_trait]
pub trait Module: Send + Sync {
    /// Files on this host whose content belongs to the task's fingerprint (absolute paths).
    fn input_files(&self, _ctx: &TaskContext) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Looks whether the effect is there, and changes nothing.
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError>;

    /// Returns what `recover` will need after a crash (the source's inode, a marker's name). The
    /// engine writes it to the journal, synced, before `apply` begins. Changes nothing on the host.
    async fn prepare(&self, _ctx: &TaskContext) -> Result<Value, ModuleError> {
        Ok(Value::Null)
    }

    /// Brings the effect about. When this returns `Ok`, the effect is durable (fsynced).
    ///
    /// When `ctx.cancel` fires, stops its work, cleans up what it left (but for what a later attempt
    /// completes), and returns
    /// [`ModuleError::Cancelled`].
    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError>;

    /// Tells what became of an attempt that never finished (SIGKILL, power loss), given the intent
    /// that was journaled for it and the attempt's id in `ctx.interrupted_attempt`.
    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError>;

    /// Whether an attempt whose end nobody saw may be made again unasked: it only looks, or waits, whatever the
    /// module can do otherwise (`uri` with GET).
    fn may_repeat(&self) -> bool {
        false
    }

    /// Whether `recover` takes no time and changes nothing. Then it is asked at once about an outcome that
    /// nobody saw, and not only by the next run.
    fn recovers_by_a_look(&self) -> bool {
        false
    }

    /// Says where an operator should look who has to answer for this task, and which answer is right
    /// when. Looks at nothing itself.
    fn advice(&self, _ctx: &TaskContext) -> Advice {
        Advice {
            look: "whether the effect of this task is on the host, whole".into(),
            done: "all of it is there".into(),
            redo: "nothing of it is there, or having it twice does no harm".into(),
        }
    }
}

/// A module's static side: what the registry, the validator and the reference pages need.
pub trait TypedModule: Module + DeserializeOwned + JsonSchema + Sized + 'static {
    /// Ansible's short name, where Ansible has the module.
    const NAME: &'static str;
    /// Fully-qualified names that are accepted too.
    const ALIASES: &'static [&'static str];
    /// What running it twice means.
    const KIND: Kind;
    /// What the next run does with a task that was started and never finished.
    const AFTER_INTERRUPTION: &'static str;
    /// What check mode does with it. Who only looks, looks.
    const CHECK_MODE: &'static str;
    /// One sentence.
    const SUMMARY: &'static str;
    /// A YAML task that uses it.
    const EXAMPLE: &'static str;
    /// Argument that a bare text value fills (`command: ls`), where the module has one.
    const FREE_FORM: Option<&'static str> = None;
    /// Arguments that hold Jinja expressions without braces (`assert: that:`). The engine evaluates
    /// them: each expression text becomes `{"expression": text, "value": value}`.
    const EXPRESSIONS: &'static [&'static str] = &[];
    /// Argument that names a template file. The engine renders the file, with the module's arguments about
    /// syntax, and puts `{"path": …, "content": …}` in the path's place.
    const TEMPLATE_FILE: Option<&'static str> = None;
    /// Arguments that say how patiently or with how much help it works, and not what comes out: other values
    /// do not make done work undone.
    const TUNING: &'static [&'static str] = &[];
    /// Its `file` or `dir` holds variables: the engine reads them as it reads a playbook, and hands them over
    /// as `found`, `{"files": […], "variables": {…}}`.
    const READS_VARIABLES: bool = false;
    /// Variables that are there after it beside what `register` names: facts.
    const SETS_FACTS: &'static [&'static str] = &[];

    /// Says what takes back the effects of these attempts, oldest first, given nothing but what the
    /// journal has of them. Default: nothing where it only looks or changed nothing, else impossible.
    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        undo::of_kind(Self::KIND, efforts)
    }
}

/// A module as the registry lists it.
#[derive(Clone, Copy)]
pub struct ModuleSpec {
    /// See [`TypedModule::NAME`].
    pub name: &'static str,
    /// See [`TypedModule::ALIASES`].
    pub aliases: &'static [&'static str],
    /// See [`TypedModule::KIND`].
    pub kind: Kind,
    /// See [`TypedModule::AFTER_INTERRUPTION`].
    pub after_interruption: &'static str,
    /// See [`TypedModule::CHECK_MODE`].
    pub check_mode: &'static str,
    /// See [`TypedModule::SUMMARY`].
    pub summary: &'static str,
    /// See [`TypedModule::EXAMPLE`].
    pub example: &'static str,
    /// See [`TypedModule::FREE_FORM`].
    pub free_form: Option<&'static str>,
    /// See [`TypedModule::EXPRESSIONS`].
    pub expressions: &'static [&'static str],
    /// See [`TypedModule::TEMPLATE_FILE`].
    pub template_file: Option<&'static str>,
    /// See [`TypedModule::TUNING`].
    pub tuning: &'static [&'static str],
    /// See [`TypedModule::READS_VARIABLES`].
    pub reads_variables: bool,
    /// See [`TypedModule::SETS_FACTS`].
    pub sets_facts: &'static [&'static str],
    /// JSON Schema of the arguments.
    pub schema: fn() -> schemars::Schema,
    /// Reads rendered, coerced arguments. The error names the argument's path and what is wrong.
    pub build: fn(Value) -> Result<Box<dyn Module>, ArgumentError>,
    /// See [`TypedModule::undo`].
    pub undo: fn(&[PastAttempt<'_>]) -> Undo,
}

impl std::fmt::Debug for ModuleSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleSpec")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Rendered arguments do not fit the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("argument `{path}`: {message}")]
pub struct ArgumentError {
    /// Path inside the arguments, e.g. `env.POSTGRES_DB`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// Makes the registry's entry for a typed module.
#[must_use]
pub fn spec_of<T: TypedModule>() -> ModuleSpec {
    ModuleSpec {
        name: T::NAME,
        aliases: T::ALIASES,
        kind: T::KIND,
        after_interruption: T::AFTER_INTERRUPTION,
        check_mode: T::CHECK_MODE,
        summary: T::SUMMARY,
        example: T::EXAMPLE,
        free_form: T::FREE_FORM,
        expressions: T::EXPRESSIONS,
        template_file: T::TEMPLATE_FILE,
        tuning: T::TUNING,
        reads_variables: T::READS_VARIABLES,
        sets_facts: T::SETS_FACTS,
        undo: T::undo,
        schema: || schemars::schema_for!(T),
        build: |arguments| {
            serde_path_to_error::deserialize::<_, T>(arguments)
                .map(|module| Box::new(module) as Box<dyn Module>)
                .map_err(|error| ArgumentError {
                    path: error.path().to_string(),
                    message: error.into_inner().to_string(),
                })
        },
    }
}
