//! On the controller: one host from the first contact to the end of its run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::bundle::Bundle;
use super::error::RemoteError;
use super::job::SIGN_OF_LIFE;
use super::order::Order;
use super::shell::quoted;
use super::ssh::{Wire, last_line};

/// Silence after which a line counts as dead.
const SILENCE: Duration = SIGN_OF_LIFE.saturating_mul(4);
/// Longest pause between two attempts to reach a host again.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a host that was reached once may stay away.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);
/// Bytes that are sent at a time.
const CHUNK: usize = 256 << 10;
/// Whatever is missing on the host is sent once; an agent that asks again does not keep it.
const MOST_PUSHES: usize = 4;

/// What all hosts get.
#[derive(Debug)]
pub struct Fleet {
    /// The agent that is pushed.
    pub agent: Arc<Vec<u8>>,
    /// Its SHA-256, hexadecimal.
    pub agent_sha256: String,
    /// The playbook's name.
    pub name: String,
}

/// What a host is to do.
#[derive(Debug, Clone)]
pub struct Work {
    /// The run.
    pub order: Order,
    /// The playbook that the order names, with its files.
    pub bundle: Arc<Bundle>,
    /// The job's name: the same order under the same name is the same job, however often it arrives.
    pub job: String,
}

/// What is heard of a host.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Something is sent: what, bytes so far, bytes in all.
    Pushing(&'static str, u64, u64),
    /// An event of the run, as the JSON lines have it.
    Event(Value),
    /// The line is dead; the run goes on. Why, and when the next attempt is.
    Lost(String, Duration),
    /// The line is back.
    Back,
}

/// How a visit ended.
#[derive(Debug)]
pub enum HostEnd {
    /// The run ended with this exit code.
    Exit(u8),
    /// The run ended without a word: killed, or the host went down. What it complained last.
    Vanished(Option<String>),
    /// The host could not be worked on.
    Failed(RemoteError),
}

/// Where a follower stands.
#[derive(Debug, Default)]
struct Heard {
    /// Bytes of events that were read.
    bytes: u64,
    /// Whether the host was ever reached.
    reached: bool,
    /// Whether the line broke since.
    lost: bool,
    last_contact: Option<Instant>,
}

/// How one connection ended.
enum Ended {
    Run(HostEnd),
    MissingAgent { machine: String },
    MissingBundle,
    Lost(RemoteError),
}

impl Fleet {
    /// Shell variables `B`, the agent's folder, and `A`, the agent.
    fn prelude(&self, wire: &Wire) -> String {
        let base = match &wire.target().dir {
            Some(dir) => format!("B={}", quoted(dir)),
            None => "if [ \"$(id -u)\" = 0 ]; then B=/var/lib/kaapana-agent; \
                     else B=\"$HOME/.local/share/kaapana-agent\"; fi"
                .to_owned(),
        };
        format!("{base}; A=\"$B/bin/{}/kaapana-agent\"", self.agent_sha256)
    }

    /// A script that runs the agent there, or says that it is missing.
    fn on_host(&self, wire: &Wire, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        format!(
            "{}; if [ -x \"$A\" ]; then exec \"$A\" on-host --base \"$B\" {}; fi; \
             printf '{{\"on_host\":\"missing\",\"machine\":\"%s\"}}\\n' \"$(uname -m)\"",
            self.prelude(wire),
            words.join(" ")
        )
    }

    /// Does a host's run and follows it to its end, whatever happens to the line meanwhile.
    pub async fn run(
        &self,
        wire: &Wire,
        work: &Work,
        say: &(dyn Fn(Said) + Send + Sync),
    ) -> HostEnd {
        let order = match serde_json::to_string(&work.order) {
            Ok(order) => format!("{order}\n"),
            Err(error) => {
                return HostEnd::Failed(RemoteError::io("describe", "an order")(error.into()));
            }
        };
        let words = |from: &str| {
            let words = [
                "start", "--name", &self.name, "--job", &work.job, "--from", from,
            ];
            self.on_host(wire, &words)
        };
        self.follow(wire, &order, Some(&work.bundle), &words, say)
            .await
    }

    /// Follows the newest run of a host from its beginning.
    pub async fn attach(&self, wire: &Wire, say: &(dyn Fn(Said) + Send + Sync)) -> HostEnd {
        let words =
            |from: &str| self.on_host(wire, &["follow", "--name", &self.name, "--from", from]);
        self.follow(wire, "", None, &words, say).await
    }

    async fn follow(
        &self,
        wire: &Wire,
        order: &str,
        bundle: Option<&Bundle>,
        script: &(dyn Fn(&str) -> String + Send + Sync),
        say: &(dyn Fn(Said) + Send + Sync),
    ) -> HostEnd {
        let (mut heard, mut pushes, mut pause) = (Heard::default(), 0, Duration::from_secs(1));
        loop {
            let script = script(&heard.bytes.to_string());
            let ended = self
                .one_connection(wire, &script, order, &mut heard, say)
                .await;
            let lost = match ended {
                Ok(Ended::Run(end)) => return end,
                Ok(Ended::MissingAgent { machine }) if pushes < MOST_PUSHES => {
                    pushes += 1;
                    self.push_agent(wire, &machine, say).await.err()
                }
                Ok(Ended::MissingBundle) if pushes < MOST_PUSHES => {
                    pushes += 1;
                    match bundle {
                        Some(bundle) => self.push_bundle(wire, bundle, say).await.err(),
                        None => None,
                    }
                }
                Ok(Ended::MissingAgent { .. } | Ended::MissingBundle) => Some(RemoteError::Push {
                    what: "the agent and the playbook",
                    said: "what was put there is gone again".into(),
                }),
                Ok(Ended::Lost(error)) | Err(error) => Some(error),
            };
            let Some(error) = lost else { continue };
            let away = heard.last_contact.map_or(GIVE_UP, |then| then.elapsed());
            if !error.is_of_the_line() || !heard.reached || away >= GIVE_UP {
                return HostEnd::Failed(error);
            }
            heard.lost = true;
            say(Said::Lost(error.to_string(), pause));
            // The shared connection may hang as the line does.
            let _ = timeout(Duration::from_secs(2), wire.close()).await;
            sleep(pause).await;
            pause = if heard
                .last_contact
                .is_some_and(|then| then.elapsed() < SILENCE)
            {
                Duration::from_secs(1)
            } else {
                LONGEST_PAUSE.min(pause * 2)
            };
        }
    }

    /// Talks to the host until the run, or the connection, ends.
    async fn one_connection(
        &self,
        wire: &Wire,
        script: &str,
        order: &str,
        heard: &mut Heard,
        say: &(dyn Fn(Said) + Send + Sync),
    ) -> Result<Ended, RemoteError> {
        let mut child = wire.start(script).await?;
        // Its end tells the host that nobody follows any more: it stays open until ours.
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            // Where nobody reads, the command's end tells more than this write.
            let _ = stdin.write_all(order.as_bytes()).await;
            let _ = stdin.flush().await;
        }
        let Some(stdout) = child.stdout.take() else {
            return Err(RemoteError::Answer {
                said: "no output".into(),
            });
        };
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = timeout(SILENCE, lines.read_until(b'\n', &mut line)).await;
            match read {
                Err(_) => {
                    return Ok(Ended::Lost(RemoteError::Unreachable {
                        said: format!("nothing was heard for {} s", SILENCE.as_secs()),
                    }));
                }
                Ok(Ok(0)) | Ok(Err(_)) => return closed(wire, child).await,
                // The line was cut within: it comes again, whole.
                Ok(Ok(_)) if line.last() != Some(&b'\n') => return closed(wire, child).await,
                Ok(Ok(_)) => {}
            }
            heard.last_contact = Some(Instant::now());
            if line == b"\n" {
                continue;
            }
            let Ok(value) = serde_json::from_slice::<Value>(&line) else {
                return Err(RemoteError::Answer {
                    said: String::from_utf8_lossy(&line).trim().to_owned(),
                });
            };
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let Some(control) = value["on_host"].as_str() else {
                heard.bytes += line.len() as u64;
                say(Said::Event(value));
                continue;
            };
            heard.reached = true;
            match control {
                "job" if std::mem::take(&mut heard.lost) => say(Said::Back),
                "job" => {}
                "missing" => {
                    return Ok(Ended::MissingAgent {
                        machine: text("machine").unwrap_or_default(),
                    });
                }
                "bundle" => return Ok(Ended::MissingBundle),
                "end" => {
                    let exit = value["exit"].as_u64().and_then(|exit| exit.try_into().ok());
                    return Ok(Ended::Run(match exit {
                        Some(exit) => HostEnd::Exit(exit),
                        None => HostEnd::Vanished(text("said")),
                    }));
                }
                "error" => return Ok(Ended::Run(HostEnd::Failed(said_no(&value)))),
                _ => {
                    return Err(RemoteError::Answer {
                        said: value.to_string(),
                    });
                }
            }
        }
    }

    /// Sends the agent, looks that it arrived whole, and that it runs.
    async fn push_agent(
        &self,
        wire: &Wire,
        machine: &str,
        say: &(dyn Fn(Said) + Send + Sync),
    ) -> Result<(), RemoteError> {
        let script = format!(
            "{}; D=\"$B/bin/{sha}\"; P=\"$D/.partial-$$\"; umask 022; mkdir -p \"$D\" || exit 9; \
             trap 'rm -f \"$P\"' EXIT; H=$(tee \"$P\" | sha256sum); \
             if [ \"$(wc -c < \"$P\")\" -ne {size} ]; then exit 9; fi; \
             if [ \"${{H%% *}}\" != {sha} ]; then echo 'it arrived damaged' >&2; exit 9; fi; \
             chmod 755 \"$P\" || exit 9; \"$P\" --version || exit 8; sync \"$P\" || exit 9; mv -f \"$P\" \"$A\" || exit 9; \
             trap - EXIT",
            self.prelude(wire),
            sha = self.agent_sha256,
            size = self.agent.len(),
        );
        let (code, stdout, stderr) = self
            .send(wire, &script, "the agent", &self.agent, say)
            .await?;
        match code {
            Some(0) if stdout.starts_with("kaapana-agent ") => Ok(()),
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

    async fn push_bundle(
        &self,
        wire: &Wire,
        bundle: &Bundle,
        say: &(dyn Fn(Said) + Send + Sync),
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
        wire: &Wire,
        script: &str,
        what: &'static str,
        bytes: &[u8],
        say: &(dyn Fn(Said) + Send + Sync),
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
                say(Said::Pushing(
                    what,
                    (number * CHUNK + chunk.len()) as u64,
                    total,
                ));
            }
            let _ = stdin.shutdown().await;
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        let output = output.map_err(RemoteError::io("wait for", PathBuf::from("ssh")))?;
        wire.judge(output.status.code(), &output.stderr)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }

    /// Asks the newest run of a host to end cleanly, at once or behind the task that it is at, and waits for
    /// it. Returns whether there was one at work.
    ///
    /// # Errors
    /// The host cannot be reached, or the agent there says no.
    pub async fn stop(&self, wire: &Wire, after_task: bool) -> Result<bool, RemoteError> {
        let how: &[&str] = if after_task { &["--after-task"] } else { &[] };
        let value = answer(&self.ask(wire, "stop", how).await?)?;
        Ok(value["was_at_work"] == true)
    }

    /// Fetches the state of this playbook as an archive; `None` where the host has none.
    ///
    /// # Errors
    /// The host cannot be reached, or the agent there says no.
    pub async fn fetch(
        &self,
        wire: &Wire,
        state_dir: Option<&str>,
    ) -> Result<Option<Vec<u8>>, RemoteError> {
        let archive = self.ask(wire, "fetch", &of_state(state_dir)).await?;
        if archive.first() == Some(&b'{') {
            return answer(&archive).map(|_| None);
        }
        Ok(Some(archive).filter(|archive| !archive.is_empty()))
    }

    /// Where tasks stand on a host: what `status --output json` prints there; `None` where nothing was
    /// ever run.
    ///
    /// # Errors
    /// The host cannot be reached, or the agent there says no.
    pub async fn status(
        &self,
        wire: &Wire,
        state_dir: Option<&str>,
    ) -> Result<Option<Value>, RemoteError> {
        let value = answer(&self.ask(wire, "status", &of_state(state_dir)).await?)?;
        Ok(Some(value["status"].clone()).filter(|status| !status.is_null()))
    }

    /// Asks the agent there a question about this playbook; returns what it prints. Only this very agent
    /// is asked, so it is put there first where it is missing: another version may have run before.
    async fn ask(
        &self,
        wire: &Wire,
        question: &str,
        more: &[&str],
    ) -> Result<Vec<u8>, RemoteError> {
        let words = [&[question, "--name", &self.name], more].concat();
        let script = self.on_host(wire, &words);
        let said = wire.run(&script, b"").await?.stdout;
        match serde_json::from_slice::<Value>(&said) {
            Ok(value) if value["on_host"] == "missing" => {
                let machine = value["machine"].as_str().unwrap_or_default();
                self.push_agent(wire, machine, &|_| {}).await?;
                Ok(wire.run(&script, b"").await?.stdout)
            }
            _ => Ok(said),
        }
    }
}

/// The words that name another place of the state.
fn of_state(dir: Option<&str>) -> Vec<&str> {
    dir.map_or_else(Vec::new, |dir| vec!["--state", dir])
}

/// The connection was closed: by the line's end, or by a script that had nothing more to say.
async fn closed(wire: &Wire, mut child: Child) -> Result<Ended, RemoteError> {
    let mut stderr = Vec::new();
    if let Some(mut stream) = child.stderr.take() {
        // The shared connection's master may keep it open.
        let _ = timeout(Duration::from_secs(1), stream.read_to_end(&mut stderr)).await;
    }
    let status = timeout(Duration::from_secs(5), child.wait()).await;
    let code = status
        .ok()
        .and_then(Result::ok)
        .and_then(|status| status.code());
    wire.judge(code, &stderr)?;
    let said = last_line(&String::from_utf8_lossy(&stderr));
    Ok(Ended::Lost(RemoteError::Unreachable {
        said: format!("the connection ended ({said})"),
    }))
}

fn answer(stdout: &[u8]) -> Result<Value, RemoteError> {
    let text = String::from_utf8_lossy(stdout);
    match serde_json::from_str::<Value>(text.lines().last().unwrap_or_default()) {
        Ok(value) if value["on_host"] == "error" => Err(said_no(&value)),
        Ok(value) if value["on_host"].is_string() => Ok(value),
        _ => Err(RemoteError::Answer {
            said: last_line(&text),
        }),
    }
}

fn said_no(value: &Value) -> RemoteError {
    let text = |key: &str| value[key].as_str().map(str::to_owned);
    RemoteError::Agent {
        code: text("code").unwrap_or_else(|| "remote::answer".to_owned()),
        message: text("message").unwrap_or_else(|| value.to_string()),
        help: text("help"),
        exit: value["exit"]
            .as_u64()
            .and_then(|exit| exit.try_into().ok())
            .unwrap_or(2),
    }
}
