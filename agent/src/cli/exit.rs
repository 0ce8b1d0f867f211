//! Exit codes, and how a command that could not be carried out says so.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Global, Output};
use super::screen;
use crate::engine::{RunEnd, RunError, describe};
use crate::report::diagnostic;
use crate::source::Problem;
use crate::state::StateError;

/// A host could not be reached, and nothing worse happened.
pub const UNREACHABLE: u8 = 4;
/// A task failed.
pub const TASK_FAILED: u8 = 2;
/// Playbook, arguments or state cannot be used; nothing ran.
pub const INVALID_CODE: u8 = 5;
/// As [`INVALID_CODE`].
pub const INVALID: Code = Code(INVALID_CODE);
/// An operator has to decide.
pub const DECISION: u8 = 6;
/// Another run holds the state.
pub const LOCKED: u8 = 7;
/// SIGINT or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub(super) enum Failure {
    Problems(Vec<Problem>),
    State(StateError),
    Other {
        code: &'static str,
        message: String,
        help: Option<String>,
    },
}

impl Failure {
    pub(super) fn other(code: &'static str, message: impl Into<String>, help: &str) -> Self {
        Self::Other {
            code,
            message: message.into(),
            help: Some(help.to_owned()),
        }
    }

    /// What went wrong, in one line.
    pub(super) fn message(&self) -> String {
        self.parts().1
    }

    /// Prints itself and returns the exit code.
    pub(super) fn report(&self, global: &Global) -> ExitCode {
        ExitCode::from(self.reported(global))
    }

    /// As [`Failure::report`], with the code as a number.
    pub(super) fn reported(&self, global: &Global) -> u8 {
        let style = screen::stderr_style();
        match (self, global.output) {
            (Self::Problems(problems), Output::Text) => {
                let text = diagnostic::problems(problems, style, screen::width());
                eprint!("{text}");
                eprintln!("{} found; nothing was run", count(problems.len()));
            }
            (Self::Problems(problems), Output::Json) => {
                for problem in problems {
                    let (line, column) = problem.at.line_column();
                    println!(
                        "{}",
                        json!({
                            "v": crate::event::EVENT_VERSION, "event": "problem",
                            "code": problem.code, "message": problem.message,
                            "file": problem.at.file.path, "line": line, "column": column,
                            "help": problem.help,
                        })
                    );
                }
            }
            (other, output) => {
                let (code, message, help) = other.parts();
                match output {
                    Output::Text => {
                        eprintln!(
                            "{}",
                            diagnostic::error(code, &message, help.as_deref(), style)
                        );
                    }
                    Output::Json => println!(
                        "{}",
                        json!({
                            "v": crate::event::EVENT_VERSION, "event": "error",
                            "code": code, "message": message, "help": help,
                        })
                    ),
                }
            }
        }
        self.exit_code()
    }

    fn parts(&self) -> (&'static str, String, Option<String>) {
        match self {
            Self::Problems(_) => (
                "playbook::invalid",
                "the playbook is not well-formed".into(),
                None,
            ),
            Self::State(error) => (error.code(), describe(error), error.help()),
            Self::Other {
                code,
                message,
                help,
            } => (code, message.clone(), help.clone()),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::State(StateError::Locked { .. } | StateError::HeldByCopy { .. }) => LOCKED,
            // Which state goes on, only an operator knows.
            Self::State(StateError::Copied { .. }) => DECISION,
            Self::State(StateError::Site(error)) if error.asks() => DECISION,
            // Known at the first effect only: looks have run.
            Self::State(StateError::Site(error)) if error.is_missing() => TASK_FAILED,
            // The journal could not be written in the middle of a run: the run failed.
            Self::State(
                StateError::Io {
                    action: "append to" | "mark",
                    ..
                }
                | StateError::Poisoned { .. },
            ) => TASK_FAILED,
            _ => INVALID_CODE,
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::State(error) => Self::State(error),
            RunError::Invalid(problems) => Self::Problems(problems),
            RunError::AsksNothing(nothing) => {
                Self::other(nothing.code(), nothing.to_string(), &nothing.instead)
            }
            RunError::UnknownTask(unknown) => {
                Self::other(unknown.code(), unknown.to_string(), &unknown.help())
            }
        }
    }
}

/// The exit code of a run that ended.
pub(super) fn of_run(end: &RunEnd) -> u8 {
    match end {
        RunEnd::Done => 0,
        RunEnd::Failed => TASK_FAILED,
        RunEnd::Interrupted => INTERRUPTED,
        RunEnd::DecisionNeeded(_) => DECISION,
    }
}

fn count(number: usize) -> String {
    if number == 1 {
        "1 problem".into()
    } else {
        format!("{number} problems")
    }
}
