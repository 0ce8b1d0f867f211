//! How far something is, for whoever wants to hear it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Unit of a progress figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things that are counted: tables, statements, files.
    Items,
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
