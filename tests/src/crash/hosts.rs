//! Random faults between a controller and its hosts, and on either of them.

use std::collections::BTreeMap;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::random::Random;
use super::report::{Case, Seen};
use crate::controller::{Controller, times};
use crate::error::LabError;
use crate::hosts::{Host, Network};
use crate::images::docker;
use crate::migration::{Ended, must};

/// Steps of the playbook, each of which leaves a line in a file.
const STEPS: usize = 6;
/// Milliseconds within which faults begin: an undisturbed run takes about as long.
const WITHIN: u64 = 8_000;
/// Most faults in a case.
const MOST: u64 = 3;
/// Commands that a person would give until all hosts are done.
const MOST_COMMANDS: usize = 12;
/// Exit codes of the agent.
const FAILED: i32 = 2;
const DECISION: i32 = 6;
const UNREACHABLE: i32 = 4;
const NOTHING_RAN: i32 = 5;
const LOCKED: i32 = 7;
const INTERRUPTED: i32 = 130;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The host is off the network.
    Cut,
    /// A third of all packets is lost.
    Lossy,
    /// No more than 16 kbit/s.
    Slow,
    /// SIGKILL to the sshd of every session.
    Sessions,
    /// SIGKILL to the controller.
    Controller,
    /// SIGKILL to the agent on the host.
    Agent,
    /// The host goes down at once, and comes up.
    Restart,
    /// `stop`, from somewhere else.
    Stop,
}

const FAULTS: [Fault; 8] = [
    Fault::Cut,
    Fault::Lossy,
    Fault::Slow,
    Fault::Sessions,
    Fault::Controller,
    Fault::Agent,
    Fault::Restart,
    Fault::Stop,
];

/// A fault, on which of the hosts, when after the controller's start, and how long where it lasts.
#[derive(Debug, Clone, Copy)]
struct Blow {
    fault: Fault,
    host: usize,
    after: Duration,
    lasts: Duration,
}

/// Cases `from` to `to` (not included) of a seed.
#[must_use]
pub fn faults_between_hosts(seed: u64, from: u64, to: u64) -> Vec<Case> {
    (from..to)
        .map(|case| Case {
            kind: "faults between controller and hosts",
            name: format!("case {case} of seed {seed}"),
            replay: format!("--hosts 1 --seed {seed} --case {case}"),
            work: Box::new(move || under_fire(seed, case)),
        })
        .collect()
}

/// Each step writes its line after a moment, and stays for another: a fault may come on either side.
fn playbook() -> String {
    (0..STEPS)
        .map(|step| {
            format!(
                "    - {{id: step{step}, shell: sleep 0.3; echo {step} >> /srv/effects; sleep 0.3}}\n    \
                 - {{id: look{step}, wait_for: {{timeout: 1}}}}\n"
            )
        })
        .collect()
}

fn under_fire(seed: u64, case: u64) -> Result<Seen, LabError> {
    let mut network = Network::new()?;
    network.add("old", "bookworm", &[])?;
    network.add("new", "trixie", &[])?;
    let mut random = Random::new(seed, case);
    let mut blows: Vec<Blow> = (0..=random.below(MOST))
        .map(|_| Blow {
            fault: FAULTS[random.below(FAULTS.len() as u64) as usize],
            host: random.below(2) as usize,
            after: Duration::from_millis(random.below(WITHIN)),
            lasts: Duration::from_millis(500 + random.below(25_000)),
        })
        .collect();
    blows.sort_by_key(|blow| blow.after);
    let controller = Controller::new(&network, &playbook(), "")?;
    let said: Vec<String> = blows
        .iter()
        .map(|blow| {
            let host = &network.hosts()[blow.host].name;
            let at = blow.after.as_secs_f64();
            format!("{:?} of {host} after {at:.1} s", blow.fault)
        })
        .collect();
    let kills = blows.iter().filter(|blow| blow.fault == Fault::Agent);
    let kills = kills.count();
    fire(&network, &controller, &blows)?;
    let commands = to_the_end(&network, &controller)?;
    for host in network.hosts() {
        must_have_ended_right(&controller, host)?;
    }
    Ok(Seen {
        said: format!("{}; {commands} commands to the end", said.join(", ")),
        kills,
    })
}

/// Runs the playbook while all of it happens; in the end everything is mended.
fn fire(network: &Network, controller: &Controller<'_>, blows: &[Blow]) -> Result<(), LabError> {
    let since = Instant::now();
    let mut running = Some(controller.start(&["run"], &[])?);
    scope(|scope| {
        let mut lasting = Vec::new();
        for blow in blows {
            sleep(blow.after.saturating_sub(since.elapsed()));
            let host = &network.hosts()[blow.host];
            match blow.fault {
                Fault::Controller => {
                    if let Some(running) = running.take() {
                        running.kill()?;
                    }
                }
                Fault::Sessions => {
                    let _ = host.sh("pkill -KILL -f '[s]shd.*(kaapana|session)'; true");
                }
                Fault::Agent => {
                    let _ = host.sh("pkill -KILL -f '[w]ork --job'; true");
                }
                Fault::Stop => {
                    let _ = controller.run(&["stop"], &["--limit", &host.name])?;
                }
                Fault::Restart => {
                    docker(&["restart", "--time", "0", &host.container])?;
                    network.note_key(host)?;
                }
                // These last, while the next ones come.
                Fault::Cut | Fault::Lossy | Fault::Slow => lasting.push(scope.spawn(move || {
                    let begun = match blow.fault {
                        Fault::Cut => network.cut(host),
                        Fault::Lossy => host.lose(0.33),
                        _ => host.throttle("16kbit"),
                    };
                    // It may be cut off, or down, already.
                    if begun.is_ok() {
                        sleep(blow.lasts);
                        let _ = match blow.fault {
                            Fault::Cut => network.mend(host),
                            _ => host.heal(),
                        };
                    }
                })),
            }
        }
        for thread in lasting {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Ok::<(), LabError>(())
    })?;
    match running {
        Some(running) => running.end().map(drop),
        None => Ok(()),
    }
}

/// Does what a person does who reads the exit codes. Returns how many commands it took.
fn to_the_end(network: &Network, controller: &Controller<'_>) -> Result<usize, LabError> {
    let mut words = "run";
    for command in 1..=MOST_COMMANDS {
        let ended = controller.run(&[words], &[])?;
        words = match ended.code {
            Some(0) if words == "run" => return Ok(command),
            Some(DECISION) => {
                for host in network.hosts() {
                    decide(controller, host)?;
                }
                "run"
            }
            Some(LOCKED) => "attach",
            Some(0 | FAILED | UNREACHABLE | NOTHING_RAN | INTERRUPTED) => "run",
            _ => return Err(unexpected(&ended)),
        };
    }
    Err(LabError::Unexpected(format!(
        "not at the end after {MOST_COMMANDS} commands"
    )))
}

fn unexpected(ended: &Ended) -> LabError {
    LabError::Unexpected(format!(
        "exit code {:?}\n{}{}",
        ended.code, ended.stdout, ended.stderr
    ))
}

/// Answers for every step that was interrupted, by what is seen on the host: its line is there, or not.
fn decide(controller: &Controller<'_>, host: &Host) -> Result<(), LabError> {
    let limit = ["--limit", &host.name];
    let status = controller.run(&["status"], &[&limit[..], &["--output", "json"]].concat())?;
    let status: Value = serde_json::from_str(status.stdout.trim())
        .map_err(|error| LabError::Unexpected(format!("status: {error}\n{}", status.stdout)))?;
    let tasks = status["answer"]["tasks"].as_array().into_iter().flatten();
    for task in tasks.filter(|task| task["state"] == "open") {
        let name = task["task"].as_str().unwrap_or_default();
        let Some((_, step)) = name.rsplit_once("step") else {
            continue;
        };
        let answer = if effects(host)?.contains_key(step) {
            "--done"
        } else {
            "--redo"
        };
        let task = format!("step{step}");
        let words = [&task, answer, "--reason", "its line was looked for"];
        let resolved = controller.run(&["resolve"], &[&words[..], &limit].concat())?;
        // Another host wanted the decision; this one is still at work, and says so.
        if resolved.code != Some(LOCKED) {
            resolved.must_have(0)?;
        }
    }
    Ok(())
}

/// The lines that the steps left, and how often.
fn effects(host: &Host) -> Result<BTreeMap<String, usize>, LabError> {
    let mut lines = BTreeMap::new();
    for line in host.sh("cat /srv/effects 2>/dev/null; true")?.lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    Ok(lines)
}

fn must_have_ended_right(controller: &Controller<'_>, host: &Host) -> Result<(), LabError> {
    let lines = effects(host)?;
    let wanted: BTreeMap<String, usize> = (0..STEPS).map(|step| (step.to_string(), 1)).collect();
    must(lines == wanted, || format!("on {}: {lines:?}", host.name))?;
    controller.copy_must_verify(host)?;
    let journal = controller.journal(host)?;
    for step in 0..STEPS {
        let finished = times(&journal, "task_finished", &format!("step{step}"));
        let resolved = times(&journal, "task_resolved", &format!("step{step}"));
        must(finished <= 1 && finished + resolved >= 1, || {
            format!("step {step} of {} ended {finished} times", host.name)
        })?;
    }
    let own = host.sh("cat /var/lib/kaapana-agent/state/own/journal.jsonl")?;
    let copied = controller.journal_copy(host);
    let copied = std::fs::read_to_string(&copied).unwrap_or_default();
    must(own == copied, || {
        format!("the copy of {}'s journal is another one", host.name)
    })?;
    must_leave_nobody(host)
}

/// Fails if anything of the agent still runs there after a while.
fn must_leave_nobody(host: &Host) -> Result<(), LabError> {
    let mut left = String::new();
    for _ in 0..100 {
        left = host.sh("pgrep -a 'kaapana|sleep'; true")?;
        if left.is_empty() {
            return Ok(());
        }
        sleep(Duration::from_millis(100));
    }
    must(left.is_empty(), || format!("left on {}: {left}", host.name))
}
