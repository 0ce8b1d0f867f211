//! Who starts which server on which directory, as Docker tells it while it happens: whatever the agent says.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::error::{LabError, io_error};
use crate::images::docker;
use crate::migration::must;
use crate::workplace::unique;

/// Where servers have their data, in the images that the lab has.
const DATA: [&str; 3] = [
    "/var/lib/postgresql/data",
    crate::images::SLAPD_DATA,
    crate::images::SLAPD_CONFIG,
];
/// What a server says that was started on another version's directory, or could not read its own.
const SIGNS: [&str; 4] = [
    "database files are incompatible with server",
    "was initialized by PostgreSQL version",
    "could not locate a valid checkpoint record",
    "database system identifier differs",
];

/// How long the daemon may take to tell of what happened.
const PATIENCE: Duration = Duration::from_secs(60);
/// The agent's label of its containers.
const STATE: &str = "io.kaapana.agent.state";

/// A container that was made, and what of the host it has.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Data directory on the host, path in the container, and PG_VERSION in there when it was made.
    pub mounts: Vec<(PathBuf, String, Option<String>)>,
}

#[derive(Debug, Default)]
struct Seen {
    made: BTreeMap<String, Made>,
    unseen: Vec<String>,
    logs: Vec<JoinHandle<Option<String>>>,
}

/// Listens to the Docker daemon for the containers of one state, for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    events: Child,
    volumes: Receiver<String>,
    seen: Arc<Mutex<Seen>>,
}

impl Watch {
    /// Begins to listen. What happened since this call is told, too.
    ///
    /// # Errors
    /// There is no `docker`, or the journal has no id.
    pub fn begin(agent: &Agent) -> Result<Self, LabError> {
        let id = agent.state_id()?;
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or_else(
                |_| "0".into(),
                |now| format!("{}.{:09}", now.as_secs(), now.subsec_nanos()),
            );
        let mut events = Command::new("docker");
        events
            .args(["events", "--since", &since, "--format", "{{json .}}"])
            .args(["--filter", "type=container", "--filter", "type=volume"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let program = Path::new("docker");
        let mut events = events.spawn().map_err(io_error("start", program))?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (tell, volumes) = channel();
        if let Some(stdout) = events.stdout.take() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Ok(event) = serde_json::from_str::<Value>(&line) {
                        note(&seen, &tell, &event, &id);
                    }
                }
            });
        }
        Ok(Self {
            events,
            volumes,
            seen,
        })
    }

    /// Ends the listening, and says which containers were made, and what is wrong with them: started and gone
    /// before anybody could look, or they said that something is wrong with their directory.
    ///
    /// # Errors
    /// The daemon does not tell of what happened.
    pub fn end(self) -> Result<(Vec<Made>, Vec<String>), LabError> {
        // Events are told in their order: with this one all before it have come.
        let last = unique("kaapana-lab-last");
        docker(&["volume", "create", &last])?;
        let told = loop {
            match self.volumes.recv_timeout(PATIENCE) {
                Ok(volume) if volume == last => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        docker(&["volume", "rm", &last])?;
        must(told, || {
            "the Docker daemon does not tell what happens".into()
        })?;
        let mut seen = lock(&self.seen);
        let mut wrong = std::mem::take(&mut seen.unseen);
        for log in std::mem::take(&mut seen.logs) {
            wrong.extend(log.join().ok().flatten());
        }
        Ok((seen.made.values().cloned().collect(), wrong))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(seen: &Mutex<Seen>, tell: &Sender<String>, event: &Value, state: &str) {
    let (actor, action) = (
        &event["Actor"],
        event["Action"].as_str().unwrap_or_default(),
    );
    let id = actor["ID"].as_str().unwrap_or_default().to_owned();
    if event["Type"] == "volume" {
        // Nobody listens any more when the end has come.
        let _ = tell.send(id);
        return;
    }
    if actor["Attributes"][STATE] != state {
        return;
    }
    if action == "create" {
        // What cannot be seen now matters only if it starts.
        if let Some(made) = inspect(&id) {
            lock(seen).made.insert(id, made);
        }
    } else if action == "start" {
        let mut seen = lock(seen);
        match seen.made.get(&id).map(|made| made.name.clone()) {
            Some(name) => seen
                .logs
                .push(std::thread::spawn(move || sign_in(&id, &name))),
            None => {
                let name = actor["Attributes"]["name"].clone();
                seen.unseen
                    .push(format!("{name} started and was gone before anybody looked"));
            }
        }
    }
}

fn inspect(id: &str) -> Option<Made> {
    let text = docker(&["inspect", id]).ok()?;
    let all: Value = serde_json::from_str(&text).ok()?;
    let container = all.get(0)?;
    let mut mounts = Vec::new();
    for mount in container["Mounts"].as_array().into_iter().flatten() {
        let source = PathBuf::from(mount["Source"].as_str().unwrap_or_default());
        let target = mount["Destination"].as_str().unwrap_or_default();
        if DATA.contains(&target) {
            let version = fs::read_to_string(source.join("PG_VERSION")).ok();
            let version = version.map(|version| version.trim().to_owned());
            mounts.push((source, target.to_owned(), version));
        }
    }
    Some(Made {
        name: container["Name"]
            .as_str()?
            .trim_start_matches('/')
            .to_owned(),
        image: container["Config"]["Image"].as_str()?.to_owned(),
        mounts,
    })
}

/// Reads what a container prints to its end, and finds what only a server on a wrong directory says.
fn sign_in(id: &str, name: &str) -> Option<String> {
    let mut logs = Command::new("docker");
    logs.args(["logs", "--follow", id]).stdin(Stdio::null());
    let output = logs.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text
        .lines()
        .find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    Some(format!("{name} says: {line}"))
}
