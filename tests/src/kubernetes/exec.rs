//! Commands in containers, over a WebSocket: channels 0 to 3 for the streams and the status, and, in
//! version 5 of the protocol, 255 for the end of the input.

use std::process::Stdio;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Command;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;

/// Runs a command in a Docker container until it or the connection ends.
pub(super) async fn run<S>(stream: S, docker_name: &str, command: &[String], stdin: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let mut exec = Command::new("docker");
    exec.arg("exec");
    if stdin {
        exec.arg("--interactive");
    }
    exec.arg(docker_name).args(command);
    let spawned = exec
        .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        let _ = socket.close(None).await;
        return;
    };
    let mut input = child.stdin.take();
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return;
    };
    let (mut out, mut err) = (vec![0; 32 * 1024], vec![0; 32 * 1024]);
    let (mut out_open, mut err_open, mut complaints) = (true, true, Vec::new());
    while out_open || err_open {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => match bytes.first() {
                    Some(&STDIN) => {
                        if let Some(pipe) = input.as_mut()
                            && pipe.write_all(&bytes[1..]).await.is_err()
                        {
                            input = None;
                        }
                    }
                    Some(&CLOSE) if bytes.get(1) == Some(&STDIN) => input = None,
                    _ => {}
                },
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    // As a runtime does: the command's input ends, and nobody waits for it any more.
                    drop(input);
                    let _ = child.wait().await;
                    return;
                }
                Some(Ok(_)) => {}
            },
            read = stdout.read(&mut out), if out_open => {
                let size = read.unwrap_or(0);
                out_open = size > 0;
                if size > 0 && send(&mut socket, STDOUT, &out[..size]).await.is_err() {
                    return;
                }
            }
            read = stderr.read(&mut err), if err_open => {
                let size = read.unwrap_or(0);
                err_open = size > 0;
                complaints.extend_from_slice(&err[..size]);
                if size > 0 && send(&mut socket, STDERR, &err[..size]).await.is_err() {
                    return;
                }
            }
        }
    }
    let code = child
        .wait()
        .await
        .ok()
        .and_then(|status| status.code())
        .unwrap_or(-1);
    let status = status(code, &String::from_utf8_lossy(&complaints)).to_string();
    let _ = send(&mut socket, STATUS, status.as_bytes()).await;
    // kubectl takes a close without a code for a cut.
    let normal = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    let _ = socket.close(Some(normal)).await;
    while let Some(Ok(_)) = socket.next().await {}
}

async fn send<S>(socket: &mut WebSocketStream<S>, channel: u8, bytes: &[u8]) -> Result<(), ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    socket.send(Message::binary(message)).await.map_err(drop)
}

fn status(code: i32, complaints: &str) -> Value {
    match code {
        0 => json!({"metadata": {}, "status": "Success"}),
        126 | 127 if complaints.contains("OCI runtime exec failed") => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("error executing command in container: {}", complaints.trim()),
        }),
        code => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
    }
}
