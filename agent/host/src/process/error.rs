//! How the modules of this family fail.

use std::io;

use serde_json::{Map, Value};

use crate::error::ModuleFailure;

/// A control module did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Arguments contradict each other or the host.
    #[error("{message}")]
    Argument {
        /// What is wrong.
        message: String,
    },
    /// A program could not be started.
    #[error("failed to start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// Talking to a running program failed.
    #[error("failed to {action} `{program}`")]
    Process {
        /// Verb.
        action: &'static str,
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with another code than zero.
    #[error("{message}")]
    NonZero {
        /// How it ended, and its last words.
        message: String,
        /// `cmd`, `rc`, `stdout` and so on.
        result: Map<String, Value>,
    },
    /// An assertion is false.
    #[error("{message}")]
    Assertion {
        /// The user's message, or the expressions.
        message: String,
        /// `assertion`, `evaluated_to`.
        result: Map<String, Value>,
    },
    /// The playbook says that this is an error.
    #[error("{message}")]
    Fail {
        /// The user's message.
        message: String,
    },
    /// Nobody confirmed.
    #[error("not confirmed: {reason}; the question is:\n{prompt}")]
    NotConfirmed {
        /// What a person is asked, and told to do.
        prompt: String,
        /// Why.
        reason: String,
    },
    /// A condition did not come true in time.
    #[error("{message}")]
    Timeout {
        /// What was waited for.
        message: String,
        /// `elapsed`.
        result: Map<String, Value>,
    },
    /// A web service did not answer, or not as it should.
    #[error("{message}")]
    Http {
        /// What it answered.
        message: String,
        /// `status`, `url` and so on.
        result: Map<String, Value>,
        /// The request may be in effect although no answer came.
        sent: bool,
    },
    /// The agent lacks a right.
    #[error("{message}")]
    Privileges {
        /// What is missing, and what for.
        message: String,
        /// `uid`, `user`.
        result: Map<String, Value>,
    },
}

impl ControlError {
    /// Makes an argument error.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::Argument {
            message: message.into(),
        }
    }
}

impl ModuleFailure for ControlError {
    fn code(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "control::argument",
            Self::Start { .. } => "command::start",
            Self::Process { .. } => "command::io",
            Self::NonZero { .. } => "command::non_zero",
            Self::Assertion { .. } => "assert::false",
            Self::Fail { .. } => "fail::msg",
            Self::NotConfirmed { .. } => "pause::not_confirmed",
            Self::Timeout { .. } => "wait_for::timeout",
            Self::Http { .. } => "uri::status",
            Self::Privileges { .. } => "privileges::missing",
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self {
                Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    "install the program, or give its full path; pipes and redirections need `shell`"
                }
                Self::NotConfirmed { .. } => {
                    "run at a terminal and answer, or pass --yes to confirm beforehand"
                }
                Self::Privileges { .. } => "run the agent as root, e.g. with sudo",
                _ => return None,
            }
            .into(),
        )
    }

    fn is_outcome_unknown(&self) -> bool {
        // A program that was started, and cannot be heard any more, goes on.
        matches!(self, Self::Process { .. } | Self::Http { sent: true, .. })
    }

    fn result(&self) -> Map<String, Value> {
        match self {
            Self::NonZero { result, .. }
            | Self::Assertion { result, .. }
            | Self::Timeout { result, .. }
            | Self::Http { result, .. }
            | Self::Privileges { result, .. } => result.clone(),
            Self::Start { program, source } => {
                let rc = source.raw_os_error().unwrap_or(2);
                let result = serde_json::json!({
                    "rc": rc, "cmd": program, "stdout": "", "stderr": "",
                    "stdout_lines": [], "stderr_lines": [],
                });
                result.as_object().cloned().unwrap_or_default()
            }
            _ => Map::new(),
        }
    }
}
