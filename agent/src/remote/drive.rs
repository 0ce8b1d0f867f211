//! On the controller: one host from the first contact to the end of its run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use super::bundle::Bundle;
use super::error::RemoteError;
use super::order::Order;
use super::session::{AgentMessage, SILENCE, Session};
use super::shell::quoted;
use super::ssh::{SshConnection, last_line};

/// Longest pause between two attempts to reach a host again.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long a host that was reached once may stay away.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);
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
pub enum HostEvent {
    /// Something is sent: what, bytes so far, bytes in all.
    Pushing(&'static str, u64, u64),
    /// An event of the run, as the JSON lines have it.
    Event(Value),
    /// The line is dead; the run goes on. Why, and when the next attempt is.
    Lost(String, Duration),
    /// The line is back.
    Back,
}

/// What a visit came to.
#[derive(Debug)]
pub struct HostOutcome {
    /// How the run ended.
    pub end: HostEnd,
    /// The host's state of this playbook, an archive; `None` where it has none, or was not asked for it.
    pub state: Result<Option<Vec<u8>>, RemoteError>,
}

/// How a run ended.
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
struct FollowState {
    /// Bytes of events that were read.
    bytes: u64,
    /// How often something was sent.
    pushes: usize,
    /// Whether the line broke since it was there last.
    lost: bool,
    last_contact: Option<Instant>,
}

/// What a follower asks of a host, whenever it reaches it.
struct Request<'r> {
    /// The words for the agent there, but for the place in the events from which it is to tell.
    words: Vec<&'r str>,
    /// What it reads: a line.
    order: String,
    /// What it may not have yet.
    bundle: Option<&'r Bundle>,
}

impl Fleet {
    /// Shell variables `B`, the agent's folder, and `A`, the agent.
    pub(super) fn prelude(&self, wire: &SshConnection) -> String {
        let base = match &wire.target().dir {
            Some(dir) => format!("B={}", quoted(dir)),
            None => "if [ \"$(id -u)\" = 0 ]; then B=/var/lib/kaapana-agent; \
                     else B=\"$HOME/.local/share/kaapana-agent\"; fi"
                .to_owned(),
        };
        format!("{base}; A=\"$B/bin/{}/kaapana-agent\"", self.agent_sha256)
    }

    /// A script that runs the agent there. Where it is missing it says so, and then does what `otherwise`
    /// says.
    fn script(&self, wire: &SshConnection, otherwise: &str, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        format!(
            "{}; while ! [ -x \"$A\" ]; do \
             printf '{{\"on_host\":\"missing\",\"machine\":\"%s\"}}\\n' \"$(uname -m)\"; {otherwise}; \
             done; exec \"$A\" on-host --base \"$B\" {}",
            self.prelude(wire),
            words.join(" ")
        )
    }

    /// A script that runs the agent there, or says that it is missing.
    pub(super) fn on_host(&self, wire: &SshConnection, words: &[&str]) -> String {
        self.script(wire, "exit", words)
    }

    /// Does a host's run and follows it to its end, whatever happens to the line meanwhile.
    pub async fn run(
        &self,
        wire: &SshConnection,
        work: &Work,
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> HostOutcome {
        let order = match serde_json::to_string(&work.order) {
            Ok(order) => order,
            Err(error) => {
                return HostOutcome::failed(RemoteError::io("describe", "an order")(error.into()));
            }
        };
        let mut words = vec!["start", "--name", &self.name, "--job", &work.job];
        words.extend(of_state(work.order.state_dir.as_deref()));
        let request = Request {
            words,
            order,
            bundle: Some(&work.bundle),
        };
        self.follow(wire, &request, say).await
    }

    /// Follows the newest run of a host from its beginning. `state_dir` is where its state is, if not in the
    /// agent's folder.
    pub async fn attach(
        &self,
        wire: &SshConnection,
        state_dir: Option<&str>,
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> HostOutcome {
        let mut words = vec!["follow", "--name", &self.name];
        words.extend(of_state(state_dir));
        let request = Request {
            words,
            order: String::new(),
            bundle: None,
        };
        self.follow(wire, &request, say).await
    }

    async fn follow(
        &self,
        wire: &SshConnection,
        request: &Request<'_>,
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> HostOutcome {
        let (mut heard, mut pause) = (FollowState::default(), Duration::from_secs(1));
        loop {
            let error = match self.one_connection(wire, request, &mut heard, say).await {
                Ok(visit) => return visit,
                Err(error) => error,
            };
            // A host that was never reached is not waited for.
            let away = heard.last_contact.map_or(GIVE_UP, |then| then.elapsed());
            if !error.is_of_the_line() || away >= GIVE_UP {
                return HostOutcome::failed(error);
            }
            heard.lost = true;
            say(HostEvent::Lost(error.to_string(), pause));
            sleep(pause).await;
            pause = if away < SILENCE {
                Duration::from_secs(1)
            } else {
                LONGEST_PAUSE.min(pause * 2)
            };
        }
    }

    /// Talks to the host until the run ends. The connection stays the same while what is missing there is
    /// sent beside it, and brings the state at the end.
    async fn one_connection(
        &self,
        wire: &SshConnection,
        request: &Request<'_>,
        heard: &mut FollowState,
        say: &(dyn Fn(HostEvent) + Send + Sync),
    ) -> Result<HostOutcome, RemoteError> {
        let from = heard.bytes.to_string();
        let words = [&request.words[..], &["--from", &from]].concat();
        // Without the agent: the order, which waits already, and the line that says that it has arrived.
        let script = self.script(wire, "read -r L; read -r L || exit", &words);
        let mut session = Session::open(wire, &script).await?;
        let order = format!("{}\n", request.order);
        session.tell(&order).await;
        let mut end = None;
        loop {
            let word = session.next().await?;
            heard.last_contact = Some(Instant::now());
            let (control, value) = match word {
                AgentMessage::Life => continue,
                AgentMessage::Event(value, bytes) => {
                    heard.bytes += bytes;
                    say(HostEvent::Event(value));
                    continue;
                }
                AgentMessage::Control(control, value) => (control, value),
            };
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let state = match (control.as_str(), request.bundle) {
                ("job", _) => {
                    if std::mem::take(&mut heard.lost) {
                        say(HostEvent::Back);
                    }
                    continue;
                }
                ("missing" | "bundle", _) if heard.pushes == MOST_PUSHES => {
                    return Err(RemoteError::Push {
                        what: "the agent and the playbook",
                        said: "what was put there is gone again".into(),
                    });
                }
                ("missing", _) => {
                    heard.pushes += 1;
                    let machine = text("machine").unwrap_or_default();
                    self.push_agent(wire, &machine, say).await?;
                    session.tell(&format!("\n{order}")).await;
                    continue;
                }
                ("bundle", Some(bundle)) => {
                    heard.pushes += 1;
                    self.push_bundle(wire, bundle, say).await?;
                    session.tell(&order).await;
                    continue;
                }
                ("end", _) => {
                    let exit = value["exit"].as_u64().and_then(|exit| exit.try_into().ok());
                    end = Some(exit.map_or_else(|| HostEnd::Vanished(text("said")), HostEnd::Exit));
                    continue;
                }
                ("error", _) if end.is_none() => {
                    end = Some(HostEnd::Failed(said_no(&value)));
                    continue;
                }
                ("error", _) => Err(said_no(&value)),
                ("state", _) => {
                    let bytes = value["bytes"].as_u64().unwrap_or_default();
                    Ok(Some(session.bytes(bytes).await?))
                }
                ("no_state", _) => Ok(None),
                _ => {
                    return Err(RemoteError::Answer {
                        said: value.to_string(),
                    });
                }
            };
            let Some(end) = end.take() else {
                return Err(RemoteError::Answer {
                    said: value.to_string(),
                });
            };
            session.leave().await;
            return Ok(HostOutcome { end, state });
        }
    }

    /// Asks the newest run of a host to end cleanly, at once or behind the task that it is at, and waits for
    /// it. Returns whether there was one at work.
    ///
    /// # Errors
    /// The host cannot be reached, or the agent there says no.
    pub async fn stop(&self, wire: &SshConnection, after_task: bool) -> Result<bool, RemoteError> {
        let how: &[&str] = if after_task { &["--after-task"] } else { &[] };
        let value = answer(&self.ask(wire, "stop", how).await?)?;
        Ok(value["was_at_work"] == true)
    }

    /// Where tasks stand on a host: what `status --output json` prints there; `None` where nothing was
    /// ever run.
    ///
    /// # Errors
    /// The host cannot be reached, or the agent there says no.
    pub async fn status(
        &self,
        wire: &SshConnection,
        state_dir: Option<&str>,
    ) -> Result<Option<Value>, RemoteError> {
        let value = answer(&self.ask(wire, "status", &of_state(state_dir)).await?)?;
        Ok(Some(value["status"].clone()).filter(|status| !status.is_null()))
    }

    /// Asks the agent there a question about this playbook; returns what it prints. Only this very agent
    /// is asked, so it is put there first where it is missing: another version may have run before.
    async fn ask(
        &self,
        wire: &SshConnection,
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

impl HostOutcome {
    fn failed(error: RemoteError) -> Self {
        Self {
            end: HostEnd::Failed(error),
            state: Ok(None),
        }
    }
}

/// The words that name another place of the state.
fn of_state(dir: Option<&str>) -> Vec<&str> {
    dir.map_or_else(Vec::new, |dir| vec!["--state", dir])
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

pub(super) fn said_no(value: &Value) -> RemoteError {
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
