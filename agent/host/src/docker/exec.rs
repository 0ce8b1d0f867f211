//! Runs a command inside a container, without a terminal, and knows for certain how it ended.
//!
//! A cut connection can look like a clean end of the output, so the end of the stream proves
//! nothing: only `inspect_exec` saying "not running, exit code n" does.

use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::DockerError;
use crate::error::{ModuleError, never_arrived};

/// How much of each captured stream is kept; the end is kept, the beginning dropped.
const CAPTURE_LIMIT: usize = 256 * 1024;
/// How long the exit code may be unknown after the output ended.
const EXIT_CODE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a command may take to obey SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// User, `uid` or `uid:gid`; the container's own where `None`.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
}

impl ExecRequest {
    /// A command with arguments and nothing else.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }
}

/// Where a command's bytes come from and go to.
#[derive(Default)]
pub struct ExecStreams<'a> {
    /// Fed to the command, then closed. Without it the command has no input.
    pub stdin: Option<&'a mut (dyn AsyncRead + Unpin + Send)>,
    /// Gets the output; without it the output is captured.
    pub stdout: Option<&'a mut (dyn AsyncWrite + Unpin + Send)>,
    /// Hears each line of the error output.
    pub on_stderr: Option<&'a mut (dyn FnMut(&str) + Send)>,
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecEnd {
    /// Exit code; 128 + n after signal n.
    pub exit_code: i64,
    /// Captured output (its last part when it was long).
    pub stdout: String,
    /// Captured error output (its last part when it was long).
    pub stderr: String,
    /// Whether all of `stdin` was taken.
    pub stdin_taken: bool,
}

/// Keeps the last 256 KiB.
#[derive(Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Takes in what came next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Cut seldom, so that a long output costs one copy a quarter of a megabyte.
        if self.0.len() > 2 * CAPTURE_LIMIT {
            self.0.drain(..self.0.len() - CAPTURE_LIMIT);
        }
    }

    /// What was kept, as text.
    #[must_use]
    pub fn text(mut self) -> String {
        if self.0.len() > CAPTURE_LIMIT {
            self.0.drain(..self.0.len() - CAPTURE_LIMIT);
        }
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// Cuts a stream into lines for a listener.
#[derive(Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes in what came next; `hear` gets each whole line.
    pub fn push(&mut self, bytes: &[u8], hear: &mut (dyn FnMut(&str) + Send)) {
        self.0.extend_from_slice(bytes);
        while let Some(end) = self.0.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            hear(String::from_utf8_lossy(&line).trim_end());
        }
        if self.0.len() > 64 * 1024 {
            self.finish(hear);
        }
    }

    /// Hands out what is left without a line end.
    pub fn finish(&mut self, hear: &mut (dyn FnMut(&str) + Send)) {
        if !self.0.is_empty() {
            hear(String::from_utf8_lossy(&self.0).trim_end());
            self.0.clear();
        }
    }
}

/// Runs the command to its end and returns how it ended; an exit code other than 0 is no error here.
///
/// # Errors
/// The command could not be started, its streams broke, or `cancel` fired (the command is then
/// terminated first).
pub async fn run(
    docker: &Docker,
    container: &str,
    request: &ExecRequest,
    streams: ExecStreams<'_>,
    cancel: &CancellationToken,
) -> Result<ExecEnd, ModuleError> {
    let command = request.command.first().cloned().unwrap_or_default();
    let refused =
        |action: &str| DockerError::api(format!("{action} `{command}` in container `{container}`"));
    let created = docker
        .create_exec(
            container,
            CreateExecOptions {
                attach_stdin: Some(streams.stdin.is_some()),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                tty: Some(false),
                env: (!request.env.is_empty()).then(|| request.env.clone()),
                cmd: Some(request.command.clone()),
                user: request.user.clone(),
                working_dir: request.working_dir.clone(),
                ..CreateExecOptions::default()
            },
        )
        .await
        .map_err(refused("prepare"))?;
    let options = StartExecOptions {
        detach: false,
        tty: false,
        output_capacity: Some(64 * 1024),
    };
    let started = docker
        .start_exec(&created.id, Some(options))
        .await
        .map_err(|error| {
            let arrived = !never_arrived(&error);
            match refused("start")(error) {
                // No answer: the command may be at work.
                DockerError::Api {
                    status: None,
                    message,
                    ..
                } if arrived => cut(&command, container, &message),
                error => error,
            }
        })?;
    let StartExecResults::Attached { output, input } = started else {
        return Err(cut(&command, container, "Docker did not attach to it").into());
    };
    let id = created.id;
    let pumped = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ModuleError::Cancelled),
        pumped = pump(&command, container, output, input, streams) => pumped.map_err(Into::into),
    };
    match pumped {
        Ok(mut end) => {
            end.exit_code = exit_code(docker, &id, &command, container).await?;
            Ok(end)
        }
        Err(error) => {
            terminate(docker, &id, container).await;
            Err(error)
        }
    }
}

/// Like [`run`], and an exit code other than 0 is an error.
///
/// # Errors
/// As [`run`], or the command failed.
pub async fn run_ok(
    docker: &Docker,
    container: &str,
    request: &ExecRequest,
    cancel: &CancellationToken,
) -> Result<ExecEnd, ModuleError> {
    let end = run(docker, container, request, ExecStreams::default(), cancel).await?;
    if end.exit_code != 0 {
        return Err(DockerError::CommandFailed {
            command: request.command.first().cloned().unwrap_or_default(),
            container: container.to_owned(),
            rc: end.exit_code,
            stdout: end.stdout,
            stderr: end.stderr,
        }
        .into());
    }
    Ok(end)
}

type Output = std::pin::Pin<
    Box<dyn futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>,
>;
type Input = std::pin::Pin<Box<dyn AsyncWrite + Send>>;

/// Moves bytes both ways until the output ends.
async fn pump(
    command: &str,
    container: &str,
    mut output: Output,
    mut input: Input,
    streams: ExecStreams<'_>,
) -> Result<ExecEnd, DockerError> {
    let ExecStreams {
        stdin,
        mut stdout,
        mut on_stderr,
    } = streams;
    let pipe = |action: &'static str| {
        move |source| DockerError::Pipe {
            action,
            command: command.to_owned(),
            container: container.to_owned(),
            source,
        }
    };
    let feed = async {
        let Some(reader) = stdin else {
            // Never closed here: closing would end the output too early on some daemons.
            return Ok::<bool, DockerError>(true);
        };
        let mut chunk = vec![0; 256 * 1024];
        loop {
            let size = reader
                .read(&mut chunk)
                .await
                .map_err(pipe("read the input"))?;
            if size == 0 {
                break;
            }
            // A command that ended takes no more; its exit code and messages say why.
            if input.write_all(&chunk[..size]).await.is_err() {
                return Ok(false);
            }
        }
        Ok(input.shutdown().await.is_ok())
    };
    tokio::pin!(feed);
    let mut fed: Option<bool> = None;
    let (mut out, mut err, mut lines) = (Tail::default(), Tail::default(), Lines::default());
    loop {
        let item = tokio::select! {
            result = &mut feed, if fed.is_none() => {
                fed = Some(result?);
                continue;
            }
            item = output.next() => item,
        };
        match item {
            None => break,
            Some(Ok(LogOutput::StdOut { message })) => match stdout.as_mut() {
                Some(sink) => sink
                    .write_all(&message)
                    .await
                    .map_err(pipe("write the output"))?,
                None => out.push(&message),
            },
            Some(Ok(LogOutput::StdErr { message })) => {
                err.push(&message);
                if let Some(hear) = on_stderr.as_mut() {
                    lines.push(&message, hear);
                }
            }
            Some(Ok(LogOutput::StdIn { .. })) => {}
            // Without a terminal every frame has a header; bytes without one are a torn frame.
            Some(Ok(LogOutput::Console { message })) => {
                let why = format!("the stream ended inside a frame ({} bytes)", message.len());
                return Err(cut(command, container, &why));
            }
            Some(Err(error)) => {
                return Err(cut(command, container, &super::error::chain_of(&error)));
            }
        }
    }
    if let Some(sink) = stdout.as_mut() {
        sink.flush().await.map_err(pipe("write the output"))?;
    }
    if let Some(hear) = on_stderr.as_mut() {
        lines.finish(hear);
    }
    let end = ExecEnd {
        exit_code: -1,
        stdout: out.text(),
        stderr: err.text(),
        stdin_taken: fed.unwrap_or(false),
    };
    Ok(end)
}

fn cut(command: &str, container: &str, why: &str) -> DockerError {
    DockerError::StreamCut {
        command: command.to_owned(),
        container: container.to_owned(),
        why: why.to_owned(),
    }
}

/// Waits until Docker says that the command ended, and with which code.
async fn exit_code(
    docker: &Docker,
    id: &str,
    command: &str,
    container: &str,
) -> Result<i64, DockerError> {
    let deadline = Instant::now() + EXIT_CODE_DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        let state = docker.inspect_exec(id).await.map_err(|error| {
            cut(
                command,
                container,
                &format!("exit code unknown: {}", super::error::chain_of(&error)),
            )
        })?;
        if let (Some(false), Some(code)) = (state.running, state.exit_code) {
            return Ok(code);
        }
        if Instant::now() >= deadline {
            terminate(docker, id, container).await;
            return Err(cut(
                command,
                container,
                "its output ended but it still runs",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Ends a command that nobody waits for any more: SIGTERM, then SIGKILL. Best effort.
async fn terminate(docker: &Docker, id: &str, container: &str) {
    for (signal, grace) in [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, TERM_GRACE)] {
        let deadline = Instant::now() + grace;
        let mut sent = false;
        loop {
            let Ok(state) = docker.inspect_exec(id).await else {
                return;
            };
            if state.running != Some(true) {
                return;
            }
            if let (false, Some(pid)) = (sent, state.pid.filter(|&pid| pid > 1)) {
                let container_id = state.container_id.as_deref().unwrap_or(container);
                signal_in(pid, container_id, signal);
                sent = true;
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Signals a process that Docker names by its pid in the daemon's namespace. Where that is not ours
/// (a daemon elsewhere), the pid would hit a stranger: its cgroup must name the container.
fn signal_in(pid: i64, container_id: &str, signal: Signal) {
    let Ok(pid) = i32::try_from(pid) else { return };
    let cgroup = Path::new("/proc").join(pid.to_string()).join("cgroup");
    let belongs = std::fs::read_to_string(cgroup).is_ok_and(|text| text.contains(container_id));
    if belongs {
        // An error means that it is gone already, which is what we want.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captured_output_keeps_its_end() {
        let mut tail = Tail::default();
        for _ in 0..40 {
            tail.push(&[b'x'; 32 * 1024]);
        }
        tail.push(b"last words");
        let text = tail.text();
        assert_eq!(text.len(), CAPTURE_LIMIT);
        assert!(text.ends_with("xlast words"));
    }

    #[test]
    fn lines_are_whole_whatever_the_chunks() {
        let mut heard = Vec::new();
        let mut lines = Lines::default();
        for chunk in ["ERR", "OR: a\nHINT", ": b\r\nrest"] {
            lines.push(chunk.as_bytes(), &mut |line: &str| {
                heard.push(line.to_owned())
            });
        }
        lines.finish(&mut |line: &str| heard.push(line.to_owned()));
        assert_eq!(heard, ["ERROR: a", "HINT: b", "rest"]);
    }
}
