//! On the controller: what is missing on a host is sent there, once.

use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::bundle::Bundle;
use super::drive::{Fleet, HostEvent, said_no};
use super::error::RemoteError;
use super::ssh::{SshConnection, last_line};

/// Bytes that are sent at a time.
const CHUNK: usize = 256 << 10;

impl Fleet {
    /// Sends the agent, looks that it arrived whole, and that it runs.
    pub(super) async fn push_agent(
        &self,
        wire: &SshConnection,
        machine: &str,
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> Result<(), RemoteError> {
        // It hashes itself: many a host's sha256sum takes as long as the sending. Damage that has it print
        // this very hash would be a wonder; where it does not run at all, sha256sum says whether the bytes or
        // the machine are the reason.
        let script = format!(
            "{}; D=\"$B/bin/{sha}\"; P=\"$D/.partial-$$\"; umask 022; mkdir -p \"$D\" || exit 9; \
             trap 'rm -f \"$P\"' EXIT; cat > \"$P\" || exit 9; \
             if [ \"$(wc -c < \"$P\")\" -ne {size} ]; then exit 9; fi; chmod 755 \"$P\" || exit 9; \
             if ! H=$(\"$P\" on-host --base \"$B\" digest); then \
             H=$(sha256sum \"$P\"); H=\"${{H%% *}}\"; if [ \"$H\" = {sha} ]; then exit 8; fi; fi; \
             if [ \"$H\" != {sha} ]; then echo 'it arrived damaged' >&2; exit 9; fi; \
             sync \"$P\" || exit 9; mv -f \"$P\" \"$A\" || exit 9; trap - EXIT",
            self.prelude(wire),
            sha = self.agent_sha256,
            size = self.agent.len(),
        );
        let (code, stdout, stderr) = self
            .send(wire, &script, "the agent", &self.agent, say)
            .await?;
        match code {
            Some(0) => Ok(()),
            Some(9) => Err(RemoteError::Push {
                what: "the agent",
                said: last_line(&stderr),
            }),
            _ => Err(RemoteError::DoesNotRun {
                machine: machine.to_owned(),
                said: last_line(&format!("{stdout}\n{stderr}")),
            }),
        }
    }

    pub(super) async fn push_bundle(
        &self,
        wire: &SshConnection,
        bundle: &Bundle,
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> Result<(), RemoteError> {
        let script = self.on_host(wire, &["unpack", "--sha256", &bundle.sha256]);
        let bytes = &bundle.tar;
        let (code, stdout, stderr) = self.send(wire, &script, "the playbook", bytes, say).await?;
        match serde_json::from_str::<Value>(stdout.lines().last().unwrap_or_default()) {
            Ok(value) if value["on_host"] == "error" => Err(said_no(&value)),
            Ok(value) if value["on_host"] == "unpacked" && code == Some(0) => Ok(()),
            _ => Err(RemoteError::Push {
                what: "the playbook",
                said: last_line(&format!("{stdout}\n{stderr}")),
            }),
        }
    }

    /// Sends bytes to a script; returns its exit code and what it printed.
    async fn send(
        &self,
        wire: &SshConnection,
        script: &str,
        what: &'static str,
        bytes: &[u8],
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> Result<(Option<i32>, String, String), RemoteError> {
        let mut child = wire.start(script).await?;
        let stdin = child.stdin.take();
        let total = bytes.len() as u64;
        let write = async {
            let Some(mut stdin) = stdin else { return };
            for (number, chunk) in bytes.chunks(CHUNK).enumerate() {
                // Where it stops reading, its end tells why.
                if stdin.write_all(chunk).await.is_err() {
                    return;
                }
                say(HostEvent::Pushing(
                    what,
                    (number * CHUNK + chunk.len()) as u64,
                    total,
                ));
            }
            let _ = stdin.shutdown().await;
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        let output = output.map_err(RemoteError::io("wait for", "ssh"))?;
        wire.judge(output.status.code(), &output.stderr)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }
}
