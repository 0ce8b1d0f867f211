//! Runs other programs: their output is read, their errors become [`LabError`]s that say what they were for.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::error::LabError;

/// Runs a program to its end and returns what it printed on stdout.
///
/// # Errors
/// It cannot be started, or ends with a status other than 0; the error carries the end of its stderr.
pub fn run(command: &mut Command, purpose: &str) -> Result<String, LabError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| spawn_error(command, purpose, source))?;
    finish(command, purpose, output)
}

/// Like [`run`], with `input` on its stdin.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(
    command: &mut Command,
    purpose: &str,
    input: &[u8],
) -> Result<String, LabError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| spawn_error(command, purpose, source))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // Written from a thread of its own: a program that prints before it has read all would block us.
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A program that stops reading has ended; its exit status tells why.
                let _ = stdin.write_all(input);
            }
        });
        child.wait_with_output()
    })
    .map_err(|source| spawn_error(command, purpose, source))?;
    finish(command, purpose, output)
}

fn finish(command: &Command, purpose: &str, output: Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.trim().is_empty() {
        text = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    Err(LabError::Tool {
        program: program(command),
        purpose: purpose.to_owned(),
        status: output.status.to_string(),
        stderr: last_lines(&text, 20),
    })
}

fn spawn_error(command: &Command, purpose: &str, source: std::io::Error) -> LabError {
    LabError::Spawn {
        program: program(command),
        purpose: purpose.to_owned(),
        source,
    }
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
