//! A failed task, in a form that events and the journal can carry.

use std::error::Error;

use serde_json::{Map, Value};

use crate::host::error::ModuleError;
use crate::source::Problem;

/// Why a task failed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    /// Stable code.
    pub code: String,
    /// The whole chain in one line.
    pub message: String,
    /// What to do next.
    pub help: Option<String>,
    /// Return values that are known in spite of it.
    pub result: Map<String, Value>,
    /// Whether the effect may be there all the same.
    pub unknown: bool,
}

impl Failure {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            help: None,
            result: Map::new(),
            unknown: false,
        }
    }

    /// Failures of the module, told from an interruption.
    pub(super) fn of_module(error: &ModuleError) -> Option<Self> {
        match error {
            ModuleError::Cancelled => None,
            ModuleError::Failed(failure) => Some(Self {
                code: failure.code().to_owned(),
                message: describe(error),
                help: failure.help(),
                result: failure.result(),
                unknown: failure.is_outcome_unknown(),
            }),
        }
    }

    /// A template that could not be rendered once its variables were known.
    pub(super) fn of_problem(problem: &Problem) -> Self {
        Self {
            code: problem.code.to_owned(),
            message: format!("{}: {}", problem.at, problem.message),
            help: problem.help.clone(),
            result: Map::new(),
            unknown: false,
        }
    }

    /// The task's return values, as `register` and events have them.
    pub(super) fn to_result(&self) -> Map<String, Value> {
        let mut result = self.result.clone();
        result.insert("failed".into(), true.into());
        result.entry("changed").or_insert(false.into());
        result.insert("msg".into(), self.message.clone().into());
        result.insert("code".into(), self.code.clone().into());
        if let Some(help) = &self.help {
            result.insert("help".into(), help.clone().into());
        }
        result
    }
}

/// Joins an error and its causes into one line: `failed to open x: permission denied`.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let next = source.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = source.source();
    }
    text
}
