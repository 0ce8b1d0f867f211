//! Runs a command in a container of a pod, without a terminal, and knows for certain how it ended: only
//! the status channel tells, never the end of a stream.

use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::client::Cluster;
use super::error::KubernetesError;
use crate::docker::exec::{Lines, Tail};
use crate::error::ModuleError;

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Which pod it is, whatever its name.
    pub uid: String,
    /// The container.
    pub container: String,
}

impl Target {
    /// For messages.
    #[must_use]
    pub fn name(&self) -> String {
        format!("container `{}` of pod `{}`", self.container, self.pod)
    }
}

/// How a command ended, as the status channel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEnd {
    /// With this exit status.
    Exited(i64),
    /// It was never started, or the runtime lost it.
    NotStarted(String),
    /// The connection ended before the status came.
    Cut(String),
}

/// A command that runs in a container.
pub struct Process {
    /// Its input. Until the command has ended it must not be closed: protocols before Kubernetes 1.30
    /// cannot say that it is, and end the whole connection instead.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Its output. A connection that is cut does not end it: `end` tells.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its error output, in the same way.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// How it ended. Dropped before, the connection is closed.
    pub end: Pin<Box<dyn Future<Output = ProcessEnd> + Send>>,
}

/// Where a command's bytes come from and go to.
#[derive(Default)]
pub struct Streams<'a> {
    /// Fed to the command, as many bytes as are said.
    pub stdin: Option<(&'a mut (dyn AsyncRead + Unpin + Send), u64)>,
    /// Gets the output; without it the output is captured.
    pub stdout: Option<&'a mut (dyn AsyncWrite + Unpin + Send)>,
    /// Hears each line of the error output.
    pub on_stderr: Option<&'a mut (dyn FnMut(&str) + Send)>,
}

/// How a command ended, and what it printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// Exit status.
    pub rc: i64,
    /// Captured output (its last part when it was long).
    pub stdout: String,
    /// Captured error output (its last part when it was long).
    pub stderr: String,
}

/// Runs a command to its end; an exit status other than 0 is no error here.
///
/// # Errors
/// The command could not be started, the connection broke, or `cancel` fired: the connection is then
/// closed, which ends the command's input and nothing else.
pub async fn run(
    cluster: &Cluster,
    target: &Target,
    command: &[String],
    streams: Streams<'_>,
    cancel: &CancellationToken,
) -> Result<End, ModuleError> {
    let size = streams.stdin.as_ref().map(|(_, size)| *size);
    let words = size.map_or_else(|| command.to_vec(), |size| with_input_of(size, command));
    let work = async {
        let Target {
            namespace,
            pod,
            container,
            ..
        } = target;
        let process = cluster
            .exec(namespace, pod, container, &words, size.is_some())
            .await?;
        pump(target, command, process, streams).await
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(ModuleError::Cancelled),
        end = work => end.map_err(Into::into),
    }
}

/// As [`run`], and an exit status other than 0 is an error.
///
/// # Errors
/// As [`run`], or the command failed.
pub async fn run_ok(
    cluster: &Cluster,
    target: &Target,
    command: &[String],
    streams: Streams<'_>,
    cancel: &CancellationToken,
) -> Result<End, ModuleError> {
    let end = run(cluster, target, command, streams, cancel).await?;
    if end.rc != 0 {
        return Err(failed(target, command, end).into());
    }
    Ok(end)
}

/// The error of a command that ended with another status than 0.
pub fn failed(target: &Target, command: &[String], end: End) -> KubernetesError {
    KubernetesError::CommandFailed {
        command: command.first().cloned().unwrap_or_default(),
        target: target.name(),
        rc: end.rc,
        stdout: end.stdout.trim_end_matches('\n').to_owned(),
        stderr: end.stderr.trim_end_matches('\n').to_owned(),
    }
}

/// Puts `head` before a command, so that it sees the end of its input: the protocol of servers before
/// Kubernetes 1.30 cannot tell one. The exit status stays the command's own.
fn with_input_of(size: u64, command: &[String]) -> Vec<String> {
    let script = r#"size=$1; shift; head -c "$size" | "$@""#;
    let mut words: Vec<String> = ["sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    words.push(size.to_string());
    words.extend(command.iter().cloned());
    words
}

async fn pump(
    target: &Target,
    command: &[String],
    mut process: Process,
    streams: Streams<'_>,
) -> Result<End, KubernetesError> {
    let program = command.first().cloned().unwrap_or_default();
    let cut = |why: String| KubernetesError::StreamCut {
        command: program.clone(),
        target: target.name(),
        why,
    };
    let Streams {
        stdin,
        mut stdout,
        mut on_stderr,
    } = streams;
    let mut input = process.stdin.take();
    let feed = async {
        if let (Some((source, _)), Some(input)) = (stdin, input.as_mut()) {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let size = source
                    .read(&mut chunk)
                    .await
                    .map_err(|error| cut(format!("the input cannot be read: {error}")))?;
                // A command that ended takes no more; its status says why.
                if size == 0 || input.write_all(&chunk[..size]).await.is_err() {
                    break;
                }
            }
            let _ = input.flush().await;
        }
        Ok::<(), KubernetesError>(())
    };
    tokio::pin!(feed);
    let (mut out, mut err, mut lines) = (Tail::default(), Tail::default(), Lines::default());
    let mut out_chunk = vec![0; 64 * 1024];
    let mut err_chunk = vec![0; 16 * 1024];
    let (mut fed, mut out_open, mut err_open) = (false, true, true);
    let mut ended = None;
    while out_open || err_open || ended.is_none() {
        tokio::select! {
            end = &mut process.end, if ended.is_none() => {
                if let ProcessEnd::Cut(why) = end {
                    return Err(cut(why));
                }
                ended = Some(end);
            }
            result = &mut feed, if !fed => {
                result?;
                fed = true;
            }
            read = process.stdout.read(&mut out_chunk), if out_open => {
                let size = read.map_err(|error| cut(error.to_string()))?;
                out_open = size > 0;
                match stdout.as_mut() {
                    Some(sink) => sink
                        .write_all(&out_chunk[..size])
                        .await
                        .map_err(|error| cut(format!("the output cannot be kept: {error}")))?,
                    None => out.push(&out_chunk[..size]),
                }
            }
            read = process.stderr.read(&mut err_chunk), if err_open => {
                let size = read.map_err(|error| cut(error.to_string()))?;
                err_open = size > 0;
                err.push(&err_chunk[..size]);
                if let Some(hear) = on_stderr.as_mut() {
                    lines.push(&err_chunk[..size], hear);
                }
            }
        }
    }
    if let Some(sink) = stdout.as_mut() {
        sink.flush()
            .await
            .map_err(|error| cut(format!("the output cannot be kept: {error}")))?;
    }
    if let Some(hear) = on_stderr.as_mut() {
        lines.finish(hear);
    }
    match ended {
        Some(ProcessEnd::Exited(rc)) => Ok(End {
            rc,
            stdout: out.text(),
            stderr: err.text(),
        }),
        Some(ProcessEnd::NotStarted(message)) => Err(KubernetesError::NotStarted {
            command: program.clone(),
            target: target.name(),
            message,
        }),
        Some(ProcessEnd::Cut(why)) => Err(cut(why)),
        None => Err(cut("no status came".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sees_the_end_of_its_input_and_keeps_its_status() {
        let command = ["sh", "-c", "cat; exit 7"].map(str::to_owned);
        let words = with_input_of(5, &command);
        let mut child = std::process::Command::new(&words[0])
            .args(&words[1..])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        // The pipe stays open: only the count ends the input.
        let mut stdin = child.stdin.take().expect("stdin");
        std::io::Write::write_all(&mut stdin, b"hello").expect("write");
        let output = child.wait_with_output().expect("ended");
        assert_eq!(
            (output.status.code(), output.stdout),
            (Some(7), b"hello".to_vec())
        );
        drop(stdin);
    }
}
