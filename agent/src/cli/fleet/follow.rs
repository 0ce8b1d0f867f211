//! Runs on hosts, followed to their ends, so many at a time; their states are copied back.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::args::{Global, HostsArgs, Output};
use super::super::exit;
use super::super::{Done, locate, run, screen};
use super::ask::tell_error;
use super::choose::{Choice, Chosen};
use super::wires::Wires;
use super::worst;
use crate::event::{EVENT_VERSION, Event, Stats};
use crate::host::worker::{self, Panicked};
use crate::modules::registry;
use crate::remote::{Fleet, HostEnd, HostEvent, RemoteError, SshConnection, Work, store};
use crate::report::fleet::{self as view, figures};
use crate::report::style::Ink;
use crate::source;
use crate::state::journal::read_for;
use crate::state::{Attempt, History, StateDir, TaskHistory};
use crate::task::module::Kind;

/// Pause until a run that is to end is told so again.
const SAY_AGAIN: Duration = Duration::from_secs(1);

/// What a host came to.
struct End {
    host: String,
    ink: Ink,
    text: String,
    code: u8,
}

/// Follows every host to the end of its run: the one that `work` makes for it, or where there is none the
/// newest that it has.
pub(super) fn every(
    global: &Global,
    playbook: &Path,
    hosts: &HostsArgs,
    choice: &Choice,
    fleet: Fleet,
    work: impl Fn(&Chosen) -> Option<Work>,
) -> Done {
    let chosen = &choice.hosts;
    let wires = Wires::new(hosts, chosen)?;
    let names: Vec<String> = chosen
        .iter()
        .map(|chosen| chosen.host.name.clone())
        .collect();
    let screen = Arc::new(view::Fleet::new(screen::options(global.verbose), &names));
    let fleet = Arc::new(fleet);
    let root = locate::state_dir(global, Some(playbook));
    let cancel = CancellationToken::new();
    let ends = run::runtime()?.block_on(async {
        tokio::spawn(run::interrupt(cancel.clone()));
        let turns = Arc::new(Semaphore::new(usize::from(hosts.forks)));
        let follow = |chosen: &Chosen, fatal: &CancellationToken| {
            let follower = Follower {
                host: chosen.host.name.clone(),
                wire: wires.to(chosen),
                state_dir: chosen.state_dir(),
                root: root.clone(),
                fleet: Arc::clone(&fleet),
                screen: Arc::clone(&screen),
                output: global.output,
                stats: Mutex::new(None),
            };
            let (turns, cancel, work) = (Arc::clone(&turns), cancel.clone(), work(chosen));
            let fatal = choice.batches.any_errors_fatal.then(|| fatal.clone());
            tokio::spawn(worker::watched("follower of a host", async move {
                let _turn = turns.acquire().await;
                tokio::select! {
                    end = follower.visit(work, fatal) => Some(end),
                    () = cancel.cancelled() => None,
                }
            }))
        };
        let mut ends: Vec<Option<End>> = Vec::new();
        let mut enough: Option<String> = None;
        for batch in choice.batches.ranges(chosen.len()) {
            let hosts = &chosen[batch.clone()];
            if let Some(why) = &enough {
                ends.extend(hosts.iter().map(|chosen| Some(End::not_begun(chosen, why))));
                continue;
            }
            let fatal = CancellationToken::new();
            let at_work: Vec<_> = hosts.iter().map(|chosen| follow(chosen, &fatal)).collect();
            for (task, chosen) in at_work.into_iter().zip(hosts) {
                ends.push(match task.await {
                    Ok(Ok(end)) => end,
                    Ok(Err(panicked)) => Some(End::lost(chosen, &panicked)),
                    // A runtime that ends.
                    Err(_) => None,
                });
            }
            let failed = ends[batch].iter().flatten().filter(|end| end.code != 0);
            enough = choice.batches.enough(failed.count(), hosts.len());
            if cancel.is_cancelled() {
                enough = Some("this controller was ended".to_owned());
            }
        }
        ends
    });
    finish(global, playbook, hosts, &screen, ends)
}

fn finish(
    global: &Global,
    playbook: &Path,
    hosts: &HostsArgs,
    screen: &view::Fleet,
    ends: Vec<Option<End>>,
) -> Done {
    let interrupted = ends.iter().any(Option::is_none);
    let ends: Vec<End> = ends.into_iter().flatten().collect();
    let codes: Vec<u8> = ends.iter().map(|end| end.code).collect();
    if global.output == Output::Text {
        let rows: Vec<_> = ends
            .into_iter()
            .map(|end| (end.host, end.ink, end.text))
            .collect();
        screen.recap(&rows);
    }
    if interrupted {
        let inventory: Vec<String> = hosts
            .inventory
            .iter()
            .map(|source| format!("-i {source}"))
            .collect();
        let (playbook, inventory) = (source::shown(playbook), inventory.join(" "));
        eprintln!(
            "The runs on the hosts go on without this controller.\n  to follow them: attach \
             {playbook} {inventory}\n  to end them:    stop {playbook} {inventory}"
        );
        return Ok(ExitCode::from(exit::INTERRUPTED));
    }
    Ok(ExitCode::from(worst(&codes)))
}

impl End {
    /// A host that is left alone. What it is left alone for has its own exit code.
    /// What the host does is not known: nobody follows it any more.
    fn lost(chosen: &Chosen, panicked: &Panicked) -> Self {
        Self {
            host: chosen.host.name.clone(),
            ink: Ink::Bad,
            text: format!("not followed any more, `attach` follows it again: {panicked}"),
            code: exit::TASK_FAILED,
        }
    }

    fn not_begun(chosen: &Chosen, why: &str) -> Self {
        Self {
            host: chosen.host.name.clone(),
            ink: Ink::Change,
            text: format!("not begun: {why}"),
            code: 0,
        }
    }
}

/// Follows one host.
struct Follower {
    host: String,
    wire: SshConnection,
    state_dir: Option<String>,
    root: PathBuf,
    fleet: Arc<Fleet>,
    screen: Arc<view::Fleet>,
    output: Output,
    stats: Mutex<Option<(String, Stats)>>,
}

impl Follower {
    /// Follows it to the end. `fatal` fires when another host failed and errors are fatal, and is fired when
    /// this one does: a run that has begun then ends behind the task that it is at.
    async fn visit(&self, work: Option<Work>, fatal: Option<CancellationToken>) -> End {
        let Some(fatal) = fatal else {
            return self.to_the_end(work).await;
        };
        if fatal.is_cancelled() {
            return self.end(Ink::Change, "not begun: another host failed".to_owned(), 0);
        }
        let drain = async {
            fatal.cancelled().await;
            self.tell(
                Ink::Change,
                "another host failed (`any_errors_fatal`): this run ends behind its task",
            );
            // Its run may have yet to begin, and the line may be down: until the run has ended.
            loop {
                let _ = self.fleet.stop(&self.wire, true).await;
                sleep(SAY_AGAIN).await;
            }
        };
        let end = tokio::select! {
            end = self.to_the_end(work) => end,
            end = drain => end,
        };
        if end.code != 0 {
            fatal.cancel();
        }
        end
    }

    fn end(&self, ink: Ink, text: String, code: u8) -> End {
        End {
            host: self.host.clone(),
            ink,
            text,
            code,
        }
    }

    async fn to_the_end(&self, work: Option<Work>) -> End {
        self.screen.at(&self.host, "connecting");
        let say = |said: HostEvent| self.say(said);
        let visit = match &work {
            Some(work) => self.fleet.run(&self.wire, work, &say).await,
            None => {
                let state_dir = self.state_dir.as_deref();
                self.fleet.attach(&self.wire, state_dir, &say).await
            }
        };
        let mut ended = self.ended(&visit.end);
        match visit.state.and_then(|archive| self.keep_state(archive)) {
            Ok(Some(dir)) if matches!(visit.end, HostEnd::Vanished(_)) => {
                if let Some(task) = asks(&dir, &self.fleet.name) {
                    ended.code = exit::DECISION;
                    ended.text.push_str(&format!(
                        ". Nobody saw how `{task}` ended: the next run asks, unless `done_when` tells"
                    ));
                }
            }
            Ok(_) => {}
            Err(error) => {
                self.tell(
                    Ink::Change,
                    &format!("its state was not copied here: {error}"),
                );
                if ended.code == 0 {
                    ended.code = error.exit();
                }
            }
        }
        self.screen.leave(&self.host);
        ended
    }

    /// Keeps the copy of a host's state, and returns where it is.
    fn keep_state(&self, archive: Option<Vec<u8>>) -> Result<Option<PathBuf>, RemoteError> {
        let Some(archive) = archive else {
            return Ok(None);
        };
        let copied = store(&self.root, &self.host, &self.fleet.name, &archive)?;
        if self.output == Output::Json {
            let line = json!({
                "v": EVENT_VERSION, "event": "state_copied", "host": self.host,
                "dir": copied.dir, "records": copied.records, "head": copied.head,
            });
            println!("{line}");
        }
        Ok(Some(copied.dir))
    }

    fn tell(&self, ink: Ink, text: &str) {
        match self.output {
            Output::Text => self.screen.note(&self.host, ink, text),
            Output::Json => println!(
                "{}",
                json!({
                    "v": EVENT_VERSION, "event": "host_note", "host": self.host, "message": text,
                })
            ),
        }
    }

    fn say(&self, said: HostEvent) {
        match said {
            HostEvent::Pushing(what, done, total) => {
                self.screen.at(
                    &self.host,
                    &format!("sending {what}: {} of {} KiB", done >> 10, total >> 10),
                );
            }
            HostEvent::Lost(why, pause) => self.tell(
                Ink::Change,
                &format!(
                    "{why}; the run there goes on; next attempt in {} s",
                    pause.as_secs()
                ),
            ),
            HostEvent::Back => self.tell(Ink::Good, "connected again"),
            HostEvent::Event(value) => self.heard(value),
        }
    }

    fn heard(&self, mut value: Value) {
        if self.output == Output::Json {
            value["host"] = self.host.clone().into();
            println!("{value}");
        }
        match Event::deserialize(&value) {
            Ok(event) => {
                if let Event::RunFinished { outcome, stats, .. } = &event {
                    let mut known = self.stats.lock().unwrap_or_else(|e| e.into_inner());
                    *known = Some((outcome.clone(), *stats));
                }
                if self.output == Output::Text {
                    self.screen.event(&self.host, &event);
                }
            }
            Err(_) if self.output == Output::Text => self.said_no(&value),
            Err(_) => {}
        }
    }

    /// What the agent there prints when nothing can run.
    fn said_no(&self, value: &Value) {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        match value["event"].as_str() {
            Some("problem") => self.tell(
                Ink::Bad,
                &format!(
                    "{}:{}:{}: {} [{}]\n  help: {}",
                    text("file"),
                    value["line"],
                    value["column"],
                    text("message"),
                    text("code"),
                    text("help")
                ),
            ),
            Some("error") => self.tell(
                Ink::Bad,
                &format!(
                    "{} [{}]\n  help: {}",
                    text("message"),
                    text("code"),
                    text("help")
                ),
            ),
            Some("resolved") => self.tell(
                Ink::Good,
                &format!("recorded: {} is `{}`", text("task"), text("answer")),
            ),
            Some("decision_needed" | "rollback_refused") => {
                for task in value["tasks"].as_array().into_iter().flatten() {
                    let words =
                        [&task["task"], &task["why"]].map(|word| word.as_str().unwrap_or(""));
                    self.tell(
                        Ink::Bad,
                        &format!("a decision is needed: {}: {}", words[0], words[1]),
                    );
                    for line in task["details"].as_array().into_iter().flatten() {
                        self.tell(Ink::Faint, line.as_str().unwrap_or_default());
                    }
                }
            }
            _ => {}
        }
    }

    fn ended(&self, end: &HostEnd) -> End {
        let known = self.stats.lock().unwrap_or_else(|e| e.into_inner()).take();
        let figures = known.map_or_else(String::new, |(outcome, stats)| {
            format!("{outcome}: {}", figures(&stats))
        });
        let (ink, text, code) = match end {
            HostEnd::Exit(0) if figures.is_empty() => (Ink::Good, "done".to_owned(), 0),
            HostEnd::Exit(0) => (Ink::Good, figures, 0),
            HostEnd::Exit(code) if figures.is_empty() => {
                (Ink::Bad, format!("ended with exit code {code}"), *code)
            }
            HostEnd::Exit(code) => (Ink::Bad, figures, *code),
            HostEnd::Vanished(said) => {
                let said = said
                    .as_ref()
                    .map_or_else(String::new, |said| format!(" ({said})"));
                let text = format!(
                    "the agent there was killed, or the host went down{said}; run the same command \
                     again: it continues where it stopped"
                );
                (Ink::Bad, text, exit::TASK_FAILED)
            }
            HostEnd::Failed(error) => {
                if self.output == Output::Json {
                    tell_error(self.output, &self.host, 0, error);
                }
                let help = error
                    .help()
                    .map_or_else(String::new, |help| format!("\n  help: {help}"));
                (
                    Ink::Bad,
                    format!("{error} [{}]{help}", error.code()),
                    error.exit(),
                )
            }
        };
        self.end(ink, text, code)
    }
}

/// The task of a host's state that was at work when its process died, if nothing on the host can tell what
/// became of it.
fn asks(state: &Path, playbook: &str) -> Option<String> {
    let dir = StateDir::new(state.parent()?, playbook);
    let history = History::of(&read_for(&dir, playbook).ok()?.records);
    let open = history.tasks().find(|(_, known)| match known {
        TaskHistory::Interrupted(attempt) => is_asked_about(attempt),
        _ => false,
    });
    open.map(|(task, _)| task.to_owned())
}

fn is_asked_about(attempt: &Attempt) -> bool {
    let Some(spec) = registry::find(&attempt.module) else {
        return false;
    };
    let tells = ["creates", "removes"].map(|key| attempt.arguments.get(key));
    let built = (spec.build)(attempt.arguments.clone());
    spec.kind == Kind::OneWay
        && tells.iter().all(Option::is_none)
        && built.is_ok_and(|module| module.recovers_by_a_look() && !module.may_repeat())
}
