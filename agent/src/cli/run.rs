//! `run`: what the agent is for.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Global, Output, PlaybookArgs, RunArgs};
use super::confirm::Terminal;
use super::exit::{self, Failure};
use super::{Done, fleet, locate, screen};
use crate::engine::{Engine, RunEnd};
use crate::event::Event;
use crate::report::json::JsonLines;
use crate::report::{diagnostic, plan, terminal, trace};
use crate::source;

pub(super) fn run(global: &Global, args: &RunArgs) -> Done {
    if args.syntax_check {
        return syntax_check(global, args);
    }
    if !args.hosts.inventory.is_empty() {
        return fleet::run(global, args);
    }
    here(global, args, None).map(ExitCode::from)
}

/// Runs a playbook on this host; returns the exit code.
pub(super) fn here(
    global: &Global,
    args: &RunArgs,
    outside: Option<locate::HostInputs>,
) -> Result<u8, Failure> {
    let more = locate::RunChoices {
        outside,
        check: args.check,
        diff: args.diff,
        no_checkpoint: args.no_checkpoint,
        asks: true,
        redo: args.redo.clone(),
        redo_reason: args
            .reason
            .clone()
            .unwrap_or_else(|| "asked for by `run --redo`".into()),
    };
    let Stage {
        engine,
        events,
        cancel,
    } = stage(global, &args.playbook, args.yes, more)?;
    let end = runtime()?.block_on(async {
        tokio::spawn(interrupt(cancel));
        engine.run(&events).await
    })?;
    match global.output {
        Output::Json => {
            if let RunEnd::DecisionNeeded(entries) = &end {
                let line = json!({"v": 1, "event": "decision_needed", "tasks": entries});
                say(&line.to_string());
            }
        }
        Output::Text => {
            match &end {
                RunEnd::DecisionNeeded(entries) => {
                    let text = plan::decisions(entries, screen::stderr_style());
                    let _ = std::io::stderr().write_all(text.as_bytes());
                }
                RunEnd::Failed if !args.check => {
                    say(
                        "Mend the cause and run the same command again: it continues where it stopped.",
                    );
                }
                RunEnd::Interrupted => {
                    say("Run the same command again: it continues where it stopped.");
                }
                _ => {}
            }
            if !args.check {
                say(&format!("State: {}", engine.state_dir().path().display()));
            }
        }
    }
    Ok(exit::of_run(&end))
}

/// Prints a line; that nobody is there to read it any more changes nothing.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What a command that works on a playbook stands on.
pub(super) struct Stage {
    pub engine: Engine,
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
    pub cancel: CancellationToken,
}

/// Loads the playbook and prepares who hears what happens and who answers questions.
pub(super) fn stage(
    global: &Global,
    playbook: &PlaybookArgs,
    yes: bool,
    more: locate::RunChoices,
) -> Result<Stage, Failure> {
    let cancel = CancellationToken::new();
    // How files change is among what tasks print.
    let verbose = global.verbose.max(u8::from(more.diff));
    let shown = Arc::new(terminal::Terminal::new(screen::options(verbose)));
    let operator = locate::operator();
    let ask = Terminal {
        yes,
        user: operator.user.clone(),
        cancel: cancel.clone(),
        screen: (global.output == Output::Text).then(|| Arc::clone(&shown)),
        instead: None,
    };
    let host = match &more.outside {
        Some(outside) => outside.host.name.clone(),
        None => operator.host.clone(),
    };
    let engine = locate::engine(global, playbook, ask, cancel.clone(), more)?;
    let events: Arc<dyn Fn(Event) + Send + Sync> = match global.output {
        Output::Text => Arc::new(move |event| {
            trace::event(&event);
            shown.event(&event);
        }),
        Output::Json => {
            let lines = JsonLines::new(std::io::stdout(), &host);
            Arc::new(move |event| {
                trace::event(&event);
                lines.event(&event);
            })
        }
    };
    Ok(Stage {
        engine,
        events,
        cancel,
    })
}

fn syntax_check(global: &Global, args: &RunArgs) -> Done {
    let (checked, ..) = locate::playbook(global, &args.playbook)?;
    if !checked.warnings.is_empty() {
        let style = screen::stderr_style();
        eprint!(
            "{}",
            diagnostic::problems(&checked.warnings, style, screen::width())
        );
    }
    let plays = checked.playbook.plays.len();
    println!(
        "{}: well-formed, plays: {plays}",
        source::shown(&args.playbook.playbook)
    );
    Ok(ExitCode::SUCCESS)
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::other(
                "agent::runtime",
                format!("failed to start: {error}"),
                "the system refuses threads or timers to this user; see `ulimit -a`",
            )
        })
}

/// How long after the first signal another one belongs to it: timeout(1) sends its own to the process and
/// to the group, and a terminal's Ctrl-C may come beside the one of a parent.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The first signal stops cleanly; one that comes later ends at once, which is as safe as a crash. A terminal
/// that goes away is such a signal, unless whoever started the agent had it ignored (nohup).
pub(super) async fn interrupt(cancel: CancellationToken) {
    let heeds_hangup = !ignores_hangup();
    let next = async || {
        let (Ok(mut int), Ok(mut term), Ok(mut hangup)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            hangups(heeds_hangup),
        ) else {
            return std::future::pending().await;
        };
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hung_up => {}
        }
    };
    next().await;
    // Whoever was to read it may be what went away.
    let _ = writeln!(
        std::io::stderr(),
        "\nstopping: the running task and its containers are being ended cleanly; once more to end at once"
    );
    cancel.cancel();
    tokio::time::sleep(SAME_SIGNAL).await;
    next().await;
    std::process::exit(i32::from(exit::INTERRUPTED));
}

fn hangups(heeded: bool) -> std::io::Result<Option<Signal>> {
    heeded.then(|| signal(SignalKind::hangup())).transpose()
}

/// Tells whether SIGHUP was ignored when this process began (proc(5): the lowest bit is signal 1).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}
