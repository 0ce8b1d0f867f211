//! Playbooks on other hosts: `run -i`, `attach`, `stop`, `status -i`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::args::{FleetArgs, Global, HostsArgs, Output, PlaybookArgs, RunArgs, StatusArgs};
use super::exit::{self, Failure};
use super::vault::vault;
use super::{Done, extra_vars, locate, run, screen};
use crate::engine::{playbook_name, run_id};
use crate::event::{EVENT_VERSION, Event, Stats};
use crate::inventory::Inventory;
use crate::playbook::KnownNames;
use crate::playbook::model::{NodeKind, Play};
use crate::remote::{
    Become, Bundle, Fleet, HostEnd, HostOrder, Order, RemoteError, Said, Target, Visit, Wire, store,
};
use crate::report::fleet::{self as view, figures};
use crate::report::style::Ink;
use crate::source::Problem;
use crate::state::fingerprint::sha256_hex;
use crate::vault::Vault;

/// Variables that say how a host is reached: they are the controller's, and hold what is nobody else's
/// business.
const CONNECTION: [&str; 4] = [
    "ansible_ssh_",
    "ansible_become",
    "ansible_connection",
    "ansible_port",
];

/// Hosts that a command is for.
struct Chosen {
    hosts: Vec<HostOrder>,
    targets: BTreeMap<String, Target>,
    become_anywhere: bool,
}

/// What a host came to.
struct End {
    host: String,
    ink: Ink,
    text: String,
    code: u8,
}

pub(super) fn run(global: &Global, args: &RunArgs) -> Done {
    let vault = vault(global)?;
    let extra = extra_vars::read(&args.playbook.extra_vars, &vault)?;
    let chosen = choose(&args.playbook, &args.hosts, &extra, &vault)?;
    let fleet = Arc::new(fleet(&args.playbook.playbook, &args.hosts)?);
    let operator = locate::operator();
    let order = |host: &HostOrder| Order {
        v: crate::remote::ORDER_VERSION,
        bundle: fleet.bundle.sha256.clone(),
        playbook: fleet.bundle.playbook.clone(),
        host: host.clone(),
        extra_vars: extra.clone(),
        tags: args.playbook.tags.clone(),
        skip_tags: args.playbook.skip_tags.clone(),
        check: args.check,
        diff: args.diff,
        no_checkpoint: args.no_checkpoint,
        yes: args.yes,
        redo: args.redo.clone(),
        reason: args.reason.clone(),
        state_dir: state_dir_of(host),
        operator: format!("{} on {}", operator.user, operator.host),
    };
    let orders: Vec<Order> = chosen.hosts.iter().map(order).collect();
    let job = run_id();
    each(
        global,
        &args.playbook.playbook,
        &args.hosts,
        chosen,
        fleet,
        move |name| {
            let order = orders.iter().find(|order| order.host.name == name).cloned();
            order.map(|order| (order, job.clone()))
        },
    )
}

pub(super) fn attach(global: &Global, args: &FleetArgs) -> Done {
    let playbook = bare(&args.playbook);
    let chosen = choose(
        &playbook,
        &args.hosts,
        &serde_json::Map::new(),
        &vault(global)?,
    )?;
    let fleet = Arc::new(fleet(&args.playbook, &args.hosts)?);
    each(global, &args.playbook, &args.hosts, chosen, fleet, |_| None)
}

pub(super) fn stop(global: &Global, args: &FleetArgs) -> Done {
    asked(
        global,
        &args.playbook,
        &args.hosts,
        async |fleet, wire, _| {
            let was_at_work = fleet.stop(wire).await?;
            let text = if was_at_work {
                "stopped"
            } else {
                "nothing was at work"
            };
            Ok((json!({"was_at_work": was_at_work}), text.to_owned()))
        },
    )
}

pub(super) fn status(global: &Global, args: &StatusArgs) -> Done {
    let Some(playbook) = &args.playbook else {
        return Err(Failure::other(
            "arguments::playbook",
            "`status -i` was not told which playbook",
            "name it: `status PLAYBOOK -i INVENTORY`",
        ));
    };
    asked(global, playbook, &args.hosts, async |fleet, wire, host| {
        let state = state_dir_of(host);
        let status = fleet.status(wire, state.as_deref()).await?;
        let text = status
            .as_ref()
            .map_or("nothing was ever run".to_owned(), in_short);
        Ok((status.unwrap_or(Value::Null), text))
    })
}

/// One line about a host's state.
fn in_short(status: &Value) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in status["tasks"].as_array().into_iter().flatten() {
        *counts
            .entry(task["status"].as_str().unwrap_or("?"))
            .or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{word}={count}"))
        .collect();
    let last = status["runs"].as_array().and_then(|runs| runs.last());
    let outcome = last.and_then(|run| run["outcome"].as_str());
    let outcome = match (status["running"].as_str(), outcome) {
        (Some(_), _) => "at work",
        (None, Some(outcome)) => outcome,
        (None, None) => "broken off",
    };
    format!("{outcome}: {}", counts.join(" "))
}

fn bare(playbook: &Path) -> PlaybookArgs {
    PlaybookArgs {
        playbook: playbook.to_path_buf(),
        extra_vars: Vec::new(),
        tags: Vec::new(),
        skip_tags: Vec::new(),
    }
}

/// `kaapana_agent_state`: where a host keeps its state instead.
fn state_dir_of(host: &HostOrder) -> Option<String> {
    host.vars
        .get("kaapana_agent_state")?
        .as_str()
        .map(str::to_owned)
}

/// Reads the inventory and finds out which plays are for which host.
fn choose(
    args: &PlaybookArgs,
    hosts: &HostsArgs,
    extra: &serde_json::Map<String, Value>,
    vault: &Vault,
) -> Result<Chosen, Failure> {
    let inventory = Inventory::read(&hosts.inventory).map_err(Failure::Problems)?;
    let mut known = KnownNames::of(extra);
    for name in inventory.hosts() {
        let vars = inventory
            .host(name)
            .map(|host| host.vars)
            .unwrap_or_default();
        known.names.extend(vars.into_iter().map(|(name, _)| name));
    }
    let checked = locate::playbook_with(args, extra, &known, vault)?;
    let limit = match &hosts.limit {
        None => None,
        Some(limit) => Some(inventory.select(limit).map_err(|error| {
            Failure::other(
                "inventory::limit",
                format!("--limit: {error}"),
                &error.help(),
            )
        })?),
    };
    let groups = inventory.groups();
    let mut plays: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (number, play) in checked.playbook.plays.iter().enumerate() {
        match hosts_of(play, &inventory) {
            Ok(names) => {
                for name in names {
                    plays.entry(name).or_default().push(number);
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::Problems(problems));
    }
    if let Some(limit) = &limit {
        plays.retain(|name, _| limit.contains(name));
    }
    if plays.is_empty() {
        return Err(Failure::other(
            "inventory::no_hosts",
            "no play is for any of the hosts that are left",
            "compare `hosts:` of the plays, the inventory and --limit",
        ));
    }
    let asks = |play: &Play| {
        let node = play.r#become.as_ref();
        node.is_some_and(|node| matches!(node.kind, NodeKind::Bool(true)))
    };
    let mut chosen = Chosen {
        hosts: Vec::new(),
        targets: BTreeMap::new(),
        become_anywhere: false,
    };
    // In the inventory's order; `localhost` may be in none.
    let mut names: Vec<String> = inventory.hosts().to_vec();
    names.extend(
        plays
            .keys()
            .filter(|name| !inventory.hosts().contains(name))
            .cloned(),
    );
    for name in names {
        let Some(plays) = plays.remove(&name) else {
            continue;
        };
        let host = inventory.host(&name);
        let (mut vars, group_names) =
            host.map_or_else(Default::default, |host| (host.vars, host.group_names));
        let mut target = Target::of(&name, &vars).map_err(|(variable, why)| {
            Failure::other(
                "inventory::connection",
                format!("host {name}: `{variable}`: {why}"),
                "change it in the inventory, or in group_vars and host_vars beside it",
            )
        })?;
        target.local |= name == "localhost" && !vars.contains_key("ansible_connection");
        target.r#become |= hosts.r#become
            || plays
                .iter()
                .filter_map(|number| checked.playbook.plays.get(*number))
                .any(asks);
        chosen.become_anywhere |= target.r#become;
        vars.retain(|key, _| !CONNECTION.iter().any(|prefix| key.starts_with(prefix)));
        chosen.hosts.push(HostOrder {
            address: target.address.clone(),
            name: name.clone(),
            group_names,
            groups: groups.clone(),
            vars,
            plays,
        });
        chosen.targets.insert(name, target);
    }
    Ok(chosen)
}

fn hosts_of(play: &Play, inventory: &Inventory) -> Result<Vec<String>, Problem> {
    let pattern = match &play.hosts.kind {
        NodeKind::String(text) => text.clone(),
        NodeKind::Sequence(items) => {
            let texts = items.iter().filter_map(|item| match &item.kind {
                NodeKind::String(text) => Some(text.as_str()),
                _ => None,
            });
            texts.collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    if pattern.contains("{{") {
        return Err(Problem::new(
            "inventory::pattern",
            &play.hosts.at,
            "templates in `hosts` are not supported",
            "a template",
        )
        .with_help("name a group, and choose with --limit"));
    }
    inventory.select(&pattern).map_err(|error| {
        Problem::new(
            "inventory::pattern",
            &play.hosts.at,
            error.to_string(),
            "this pattern",
        )
        .with_help(error.help())
    })
}

/// Reads what all hosts get.
fn fleet(playbook: &Path, hosts: &HostsArgs) -> Result<Fleet, Failure> {
    let program = match &hosts.agent_binary {
        Some(path) => path.clone(),
        None => std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe")),
    };
    let agent = std::fs::read(&program).map_err(|error| {
        Failure::other(
            "remote::agent_binary",
            format!("failed to read the agent {}: {error}", program.display()),
            "name it by --agent-binary",
        )
    })?;
    let bundle = Bundle::of(playbook).map_err(|error| failure(&error))?;
    Ok(Fleet {
        agent_sha256: sha256_hex(&agent),
        agent: Arc::new(agent),
        bundle: Arc::new(bundle),
        name: playbook_name(playbook),
    })
}

fn failure(error: &RemoteError) -> Failure {
    let help = error.help().unwrap_or_default();
    let code = match error {
        RemoteError::Bundle { .. } => "remote::bundle",
        _ => "remote::io",
    };
    Failure::other(code, error.to_string(), &help)
}

fn password(hosts: &HostsArgs, chosen: &Chosen) -> Result<Become, Failure> {
    if !hosts.ask_become_pass || !chosen.become_anywhere {
        return Ok(Become::Sudo);
    }
    let terminal = console::Term::stderr();
    let asked = terminal
        .write_str("Password for sudo on the hosts: ")
        .and_then(|()| terminal.read_secure_line());
    asked.map(Become::SudoWithPassword).map_err(|error| {
        Failure::other(
            "arguments::ask_become_pass",
            format!("the password could not be asked for: {error}"),
            "run it at a terminal, or allow sudo without a password",
        )
    })
}

/// A private folder for the sockets of shared connections; it goes with this value.
fn sockets() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("ka-")
        .tempdir()
        .map_err(|error| {
            Failure::other(
                "remote::sockets",
                format!("failed to make a folder for ssh's sockets: {error}"),
                "look at TMPDIR",
            )
        })
}

/// Asks every host one question.
fn asked(
    global: &Global,
    playbook: &Path,
    hosts: &HostsArgs,
    ask: impl AsyncFn(&Fleet, &Wire, &HostOrder) -> Result<(Value, String), RemoteError>,
) -> Done {
    let chosen = choose(
        &bare(playbook),
        hosts,
        &serde_json::Map::new(),
        &vault(global)?,
    )?;
    let fleet = fleet(playbook, hosts)?;
    let r#become = password(hosts, &chosen)?;
    let sockets = sockets()?;
    let width = chosen
        .hosts
        .iter()
        .map(|host| host.name.len())
        .max()
        .unwrap_or(0);
    let code = run::runtime()?.block_on(async {
        let mut codes = Vec::new();
        for host in &chosen.hosts {
            let wire = wire(&chosen, &host.name, sockets.path(), &r#become);
            let answer = ask(&fleet, &wire, host).await;
            wire.close().await;
            match (answer, global.output) {
                (Ok((_, text)), Output::Text) => println!("{:<width$}  {text}", host.name),
                (Ok((value, _)), Output::Json) => println!(
                    "{}",
                    json!({"v": EVENT_VERSION, "event": "host", "host": host.name, "answer": value})
                ),
                (Err(error), output) => {
                    codes.push(error.exit());
                    tell_error(output, &host.name, width, &error);
                }
            }
        }
        worst(&codes)
    });
    Ok(ExitCode::from(code))
}

fn tell_error(output: Output, host: &str, width: usize, error: &RemoteError) {
    match output {
        Output::Text => {
            eprintln!("{host:<width$}  {error} [{}]", error.code());
            if let Some(help) = error.help() {
                eprintln!("{:width$}  help: {help}", "");
            }
        }
        Output::Json => println!(
            "{}",
            json!({
                "v": EVENT_VERSION, "event": "host_failed", "host": host, "code": error.code(),
                "message": error.to_string(), "help": error.help(),
            })
        ),
    }
}

fn wire(chosen: &Chosen, name: &str, sockets: &Path, r#become: &Become) -> Wire {
    let target = chosen.targets.get(name).cloned().unwrap_or_default();
    let how = if target.r#become {
        r#become.clone()
    } else {
        Become::No
    };
    Wire::new(target, sockets, how)
}

/// The worst of the hosts' exit codes: a failed task before a decision that is wanted, that before a refusal,
/// and a host that was not reached last.
fn worst(codes: &[u8]) -> u8 {
    let order = [
        exit::TASK_FAILED,
        exit::DECISION,
        exit::LOCKED,
        exit::INVALID_CODE,
    ];
    let order = order
        .into_iter()
        .chain([exit::INTERRUPTED, exit::UNREACHABLE]);
    let mut met = order.filter(|code| codes.contains(code));
    met.next()
        .or(codes.iter().copied().find(|code| *code != 0))
        .unwrap_or(0)
}

/// Follows every host's run to its end, so many at a time, and copies the states back.
fn each(
    global: &Global,
    playbook: &Path,
    hosts: &HostsArgs,
    chosen: Chosen,
    fleet: Arc<Fleet>,
    order: impl Fn(&str) -> Option<(Order, String)> + Send + Sync + 'static,
) -> Done {
    let r#become = password(hosts, &chosen)?;
    let sockets = sockets()?;
    let names: Vec<String> = chosen.hosts.iter().map(|host| host.name.clone()).collect();
    let screen = Arc::new(view::Fleet::new(screen::options(global.verbose), &names));
    let root = locate::state_dir(global, Some(playbook));
    let (output, forks) = (global.output, usize::from(hosts.forks));
    let cancel = CancellationToken::new();
    let ends = run::runtime()?.block_on(async {
        tokio::spawn(run::interrupt(cancel.clone()));
        let turns = Arc::new(Semaphore::new(forks));
        let order = Arc::new(order);
        let mut at_work = Vec::new();
        for host in &chosen.hosts {
            let wire = wire(&chosen, &host.name, sockets.path(), &r#become);
            let follower = Follower {
                host: host.name.clone(),
                state_dir: state_dir_of(host),
                root: root.clone(),
                fleet: Arc::clone(&fleet),
                screen: Arc::clone(&screen),
                output,
                stats: Mutex::new(None),
            };
            let (turns, cancel, order) = (Arc::clone(&turns), cancel.clone(), Arc::clone(&order));
            at_work.push(tokio::spawn(async move {
                let _turn = turns.acquire().await;
                tokio::select! {
                    end = follower.to_the_end(wire, order(&follower.host)) => Some(end),
                    () = cancel.cancelled() => None,
                }
            }));
        }
        let mut ends = Vec::new();
        for task in at_work {
            ends.push(task.await.ok().flatten());
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
        let (playbook, inventory) = (playbook.display(), inventory.join(" "));
        eprintln!(
            "The runs on the hosts go on without this controller.\n  to follow them: attach \
             {playbook} {inventory}\n  to end them:    stop {playbook} {inventory}"
        );
        return Ok(ExitCode::from(exit::INTERRUPTED));
    }
    Ok(ExitCode::from(worst(&codes)))
}

/// Follows one host.
struct Follower {
    host: String,
    state_dir: Option<String>,
    root: PathBuf,
    fleet: Arc<Fleet>,
    screen: Arc<view::Fleet>,
    output: Output,
    stats: Mutex<Option<(String, Stats)>>,
}

impl Follower {
    async fn to_the_end(&self, wire: Wire, order: Option<(Order, String)>) -> End {
        self.screen.at(&self.host, "connecting");
        let say = |said: Said| self.say(said);
        let (wire, end) = match order {
            Some((order, job)) => {
                let visit = Visit { wire, order, job };
                let end = self.fleet.run(&visit, &say).await;
                (visit.wire, end)
            }
            None => {
                let end = self.fleet.attach(&wire, &say).await;
                (wire, end)
            }
        };
        let mut ended = self.ended(&end);
        if !matches!(&end, HostEnd::Failed(error) if error.exit() == exit::UNREACHABLE)
            && let Err(error) = self.copy_state(&wire).await
        {
            self.tell(
                Ink::Change,
                &format!("its state was not copied here: {error}"),
            );
            if ended.code == 0 {
                ended.code = error.exit();
            }
        }
        wire.close().await;
        self.screen.leave(&self.host);
        ended
    }

    async fn copy_state(&self, wire: &Wire) -> Result<(), RemoteError> {
        let archive = self.fleet.fetch(wire, self.state_dir.as_deref()).await?;
        let Some(archive) = archive else {
            return Ok(());
        };
        let copied = store(&self.root, &self.host, &self.fleet.name, &archive)?;
        if self.output == Output::Json {
            let line = json!({
                "v": EVENT_VERSION, "event": "state_copied", "host": self.host,
                "dir": copied.dir, "records": copied.records, "head": copied.head,
            });
            println!("{line}");
        }
        Ok(())
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

    fn say(&self, said: Said) {
        match said {
            Said::Pushing(what, done, total) => {
                self.screen.at(
                    &self.host,
                    &format!("sending {what}: {} of {} KiB", done >> 10, total >> 10),
                );
            }
            Said::Job(_) => {}
            Said::Lost(why, pause) => self.tell(
                Ink::Change,
                &format!(
                    "{why}; the run there goes on; next attempt in {} s",
                    pause.as_secs()
                ),
            ),
            Said::Back => self.tell(Ink::Good, "connected again"),
            Said::Event(value) => self.heard(value),
        }
    }

    fn heard(&self, mut value: Value) {
        if self.output == Output::Json {
            value["host"] = self.host.clone().into();
            println!("{value}");
        }
        match serde_json::from_value::<Event>(value.clone()) {
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
            Some("decision_needed") => {
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
        End {
            host: self.host.clone(),
            ink,
            text,
            code,
        }
    }
}
