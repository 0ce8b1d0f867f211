//! One connection to the agent on a host: the lines that it says, and what it is told.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::error::RemoteError;
use super::job::SIGN_OF_LIFE;
use super::ssh::{SshConnection, last_line};

/// Silence after which a line counts as dead.
pub(super) const SILENCE: Duration = SIGN_OF_LIFE.saturating_mul(4);
/// How long the end of a connection is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection.
#[derive(Debug)]
pub(super) struct Session<'w> {
    wire: &'w SshConnection,
    child: Child,
    /// Its end tells the host that nobody follows any more.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// What a host says.
#[derive(Debug)]
pub(super) enum AgentMessage {
    /// It is still there.
    Life,
    /// An event of the run, and how many bytes it is of those that are followed.
    Event(Value, u64),
    /// A line for the controller: its key `on_host`, and all of it.
    Control(String, Value),
}

impl<'w> Session<'w> {
    /// Starts a script on the host.
    ///
    /// # Errors
    /// OpenSSH's client cannot be started.
    pub(super) async fn open(wire: &'w SshConnection, script: &str) -> Result<Self, RemoteError> {
        let mut child = wire.start(script).await?;
        let stdin = child.stdin.take();
        let Some(stdout) = child.stdout.take() else {
            return Err(RemoteError::Answer {
                said: "no output".into(),
            });
        };
        Ok(Self {
            wire,
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// Tells the host something. Where nobody reads, what it says next tells more than this write.
    pub(super) async fn tell(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(text.as_bytes()).await;
            let _ = stdin.flush().await;
        }
    }

    /// The next thing that it says.
    ///
    /// # Errors
    /// The connection ended or was never made, nothing was heard for too long, or it speaks otherwise than
    /// an agent does.
    pub(super) async fn next(&mut self) -> Result<AgentMessage, RemoteError> {
        let mut line = Vec::new();
        let read = timeout(SILENCE, self.stdout.read_until(b'\n', &mut line)).await;
        match read {
            Err(_) => return Err(silent()),
            // Where the line was cut within: it comes again, whole.
            Ok(Ok(_)) if line.last() != Some(&b'\n') => return Err(self.closed().await),
            Ok(Err(_)) => return Err(self.closed().await),
            Ok(Ok(_)) => {}
        }
        if line == b"\n" {
            return Ok(AgentMessage::Life);
        }
        let Ok(value) = serde_json::from_slice::<Value>(&line) else {
            return Err(RemoteError::Answer {
                said: String::from_utf8_lossy(&line).trim().to_owned(),
            });
        };
        Ok(match value["on_host"].as_str() {
            Some(control) => AgentMessage::Control(control.to_owned(), value),
            None => AgentMessage::Event(value, line.len() as u64),
        })
    }

    /// The bytes that follow a line which said how many they are.
    ///
    /// # Errors
    /// As for [`Session::next`].
    pub(super) async fn bytes(&mut self, count: u64) -> Result<Vec<u8>, RemoteError> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < count {
            let rest = count - bytes.len() as u64;
            let mut part = (&mut self.stdout).take(rest.min(1 << 20));
            match timeout(SILENCE, part.read_to_end(&mut bytes)).await {
                Err(_) => return Err(silent()),
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return Err(self.closed().await),
            }
        }
        Ok(bytes)
    }

    /// Ends the connection, when everything was said.
    pub(super) async fn leave(mut self) {
        drop(self.stdin.take());
        // Where it hangs, it is killed.
        let _ = timeout(FAREWELL, self.child.wait()).await;
    }

    /// Why the connection was closed.
    async fn closed(&mut self) -> RemoteError {
        let mut stderr = Vec::new();
        if let Some(mut stream) = self.child.stderr.take() {
            let _ = timeout(FAREWELL, stream.read_to_end(&mut stderr)).await;
        }
        let status = timeout(FAREWELL, self.child.wait()).await;
        let code = status
            .ok()
            .and_then(Result::ok)
            .and_then(|status| status.code());
        if let Err(error) = self.wire.judge(code, &stderr) {
            return error;
        }
        let said = last_line(&String::from_utf8_lossy(&stderr));
        RemoteError::Unreachable {
            said: format!("the connection ended ({said})"),
        }
    }
}

fn silent() -> RemoteError {
    RemoteError::Unreachable {
        said: format!("nothing was heard for {} s", SILENCE.as_secs()),
    }
}
