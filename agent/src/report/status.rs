//! What a journal knows, as text and as JSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::attempts;
use super::style::{Ink, View};
use super::units;
use crate::engine::{Plan, PlanAction, SiteView};
use crate::state::{History, ServedDirectory, TaskHistory, TaskStatus};

struct Row<'t> {
    word: &'static str,
    ink: Ink,
    time: Option<Timestamp>,
    run: Option<&'t str>,
    duration_ms: Option<u64>,
    note: Option<Cow<'t, str>>,
}

fn row(task: &TaskHistory) -> Row<'_> {
    let empty = Row {
        word: "",
        ink: Ink::Faint,
        time: None,
        run: None,
        duration_ms: None,
        note: None,
    };
    match task {
        TaskHistory::Finished(finished) => {
            let ink = match finished.status {
                TaskStatus::Ok => Ink::Good,
                TaskStatus::Changed => Ink::Change,
                TaskStatus::Ignored | TaskStatus::Rescued => Ink::Calm,
                TaskStatus::Failed => Ink::Bad,
            };
            Row {
                word: attempts::word(finished.status),
                ink,
                time: Some(finished.time),
                run: Some(&finished.run),
                duration_ms: Some(finished.duration_ms),
                note: finished.summary.as_deref().map(Cow::from),
            }
        }
        TaskHistory::Failed {
            run,
            time,
            error,
            duration_ms,
        } => Row {
            word: "failed",
            ink: Ink::Bad,
            time: Some(*time),
            run: Some(run),
            duration_ms: Some(*duration_ms),
            note: error.as_deref().map(Cow::from),
        },
        TaskHistory::Interrupted(attempt) => Row {
            word: "open",
            ink: Ink::Bad,
            time: Some(attempt.time),
            run: Some(&attempt.run),
            note: Some(match &attempt.unseen {
                Some(seen) => format!("nobody saw how it ended: {seen}").into(),
                None => "started and never finished: running now, or interrupted".into(),
            }),
            ..empty
        },
        TaskHistory::Redo { user, reason } => Row {
            word: "redo",
            ink: Ink::Change,
            note: Some(format!("{user} asked for it again: {reason}").into()),
            ..empty
        },
        TaskHistory::Undone { run, time, summary } => Row {
            word: "undone",
            ink: Ink::Change,
            time: Some(*time),
            run: Some(run),
            note: summary.as_deref().map(Cow::from),
            ..empty
        },
        TaskHistory::Undoing { run, time } => Row {
            word: "undoing",
            ink: Ink::Bad,
            time: Some(*time),
            run: Some(run),
            note: Some("begun and not finished: going on, or run `rollback` again".into()),
            ..empty
        },
        TaskHistory::Skipped { condition } => Row {
            word: "skipped",
            note: Some(format!("`{condition}` was false").into()),
            ..empty
        },
    }
}

/// A server that is up, or may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Name of the service.
    pub service: String,
    /// Its container.
    pub container: String,
    /// The data directories that it works on, or, where the journal does not tell, what it has mounted.
    pub directories: Vec<ServerDirectory>,
    /// Whether its container runs, as Docker says; nothing where Docker did not answer.
    pub running: Option<bool>,
}

/// A container that runs, as Docker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// Name of the service.
    pub service: String,
    /// Its name.
    pub container: String,
    /// What of the host it has mounted to write to.
    pub sources: Vec<PathBuf>,
}

/// What a server works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerDirectory {
    /// Where.
    pub path: PathBuf,
    /// What it is, in words.
    pub what: Option<String>,
}

impl Server {
    /// What the journal says is up, and what Docker says of it: `up`, where it answered.
    #[must_use]
    pub fn all(history: &History, up: Option<&[Up]>) -> Vec<Self> {
        let mut servers: Vec<Self> = history
            .services
            .iter()
            .filter(|service| service.up)
            .map(|service| Self {
                service: service.name.clone(),
                container: service.container.clone(),
                directories: service.directories.iter().map(directory).collect(),
                running: up.map(|up| up.iter().any(|up| up.container == service.container)),
            })
            .collect();
        for up in up.unwrap_or_default() {
            let mounted = || {
                let sources = up.sources.iter();
                sources.map(|path| ServerDirectory {
                    path: path.clone(),
                    what: None,
                })
            };
            match servers
                .iter_mut()
                .find(|server| server.container == up.container)
            {
                // Journals of older agents do not tell.
                Some(known) if known.directories.is_empty() => known.directories.extend(mounted()),
                Some(_) => {}
                None => servers.push(Self {
                    service: up.service.clone(),
                    container: up.container.clone(),
                    directories: mounted().collect(),
                    running: Some(true),
                }),
            }
        }
        servers
    }
}

fn directory(served: &ServedDirectory) -> ServerDirectory {
    let format = match served.format.as_str() {
        "postgresql" => "PostgreSQL",
        other => other,
    };
    let version = served.version.as_deref().filter(|_| format == "PostgreSQL");
    ServerDirectory {
        path: served.path.clone(),
        what: Some(match version {
            Some(version) => format!("{format} {version}"),
            None => format.to_owned(),
        }),
    }
}

/// Says which servers are up, and that nobody may deploy Kaapana beside them.
fn servers(status: &Status<'_>, view: View) -> String {
    let mut out = String::new();
    let up: Vec<&Server> = status
        .servers
        .iter()
        .filter(|server| server.running != Some(false))
        .collect();
    for server in &up {
        let directories: Vec<String> = server
            .directories
            .iter()
            .map(|directory| match &directory.what {
                Some(what) => format!("{} ({what})", directory.path.display()),
                None => directory.path.display().to_string(),
            })
            .collect();
        let on = match directories.as_slice() {
            [] => String::new(),
            list => format!(" on {}", list.join(", ")),
        };
        let is = match server.running {
            Some(_) => "is up",
            None => "may be up, as Docker does not answer",
        };
        let line = format!(
            "server of service {} {is}{on} (container {})",
            server.service, server.container
        );
        // Never cut short: it is the path that counts.
        let _ = writeln!(out, "{}", view.paint(Ink::Bad, &line));
    }
    if !up.is_empty() {
        let then = match status.running {
            Some(_) => "wait for the run to end",
            None => "the next run stops it",
        };
        let line =
            format!("do not deploy Kaapana now: two servers on one directory destroy it; {then}");
        let _ = writeln!(out, "{}", view.paint(Ink::Strong, &line));
    }
    out
}

/// What a status is made from.
pub struct Status<'a> {
    /// Name of the playbook.
    pub playbook: &'a str,
    /// Folder of its state.
    pub state: &'a Path,
    /// What its journal knows.
    pub history: &'a History,
    /// The sites that it works on, as they are now.
    pub sites: &'a [SiteView],
    /// Who works on it just now.
    pub running: Option<&'a str>,
    /// Servers that are up, or may be.
    pub servers: &'a [Server],
    /// What a later run would do.
    pub next: Next<'a>,
}

/// What a later run would do.
pub enum Next<'a> {
    /// The present playbook, planned.
    Planned {
        /// The plan.
        plan: &'a Plan,
        /// Variables that were taken from the last run's command line.
        assumed: &'a [String],
    },
    /// Why it cannot be told.
    Unknown(&'a str),
}

/// Renders one playbook's state: its tasks, services, runs, who works on it, and what comes next.
#[must_use]
pub fn text(status: &Status<'_>, view: View) -> String {
    let history = status.history;
    let mut out = servers(status, view);
    let _ = writeln!(out, "{}", view.paint(Ink::Strong, status.playbook));
    if history.runs.is_empty() {
        let _ = writeln!(
            out,
            "  nothing has been run yet (state: {})",
            status.state.display()
        );
    }
    let numbers: HashMap<&str, String> = history
        .runs
        .iter()
        .enumerate()
        .map(|(index, run)| (run.id.as_str(), format!("run {}", index + 1)))
        .collect();
    let mut line = String::new();
    // Tasks that ended within one second need its text made once.
    let mut second: Option<(i64, String)> = None;
    for (identity, task) in history.tasks() {
        let Row {
            word,
            ink,
            time,
            run,
            duration_ms,
            note,
        } = row(task);
        let time = match time {
            None => "",
            Some(time) => {
                let now = time.as_second();
                if second.as_ref().is_none_or(|(known, _)| *known != now) {
                    second = Some((now, units::moment(time)));
                }
                second.as_ref().map_or("", |(_, text)| text)
            }
        };
        let took =
            duration_ms.map_or_else(String::new, |ms| units::duration(Duration::from_millis(ms)));
        let run = run
            .and_then(|run| numbers.get(run))
            .map_or("", String::as_str);
        line.clear();
        let _ = write!(
            line,
            "  {} {} {:<6} {:>12}  {identity}",
            view.paint(ink, &format!("{word:<8}")),
            view.paint(Ink::Faint, &format!("{time:<19}")),
            run,
            took,
        );
        if let Some(note) = note {
            let note = units::one_line(&note);
            let note = view.paint(Ink::Faint, &format!("({note})"));
            let _ = write!(line, "  {note}");
        }
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    for service in &history.services {
        let ended = status
            .servers
            .iter()
            .any(|server| server.container == service.container && server.running == Some(false));
        let (word, ink) = match (service.up, status.running) {
            (false, _) => ("stopped", Ink::Faint),
            (true, Some(_)) => ("up", Ink::Good),
            (true, None) if ended => ("ended, as its agent is gone", Ink::Change),
            (true, None) => ("left over, the next run removes it", Ink::Change),
        };
        let line = format!(
            "  service {}: {} since {} (container {})",
            service.name,
            view.paint(ink, word),
            units::moment(service.time),
            service.container
        );
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    for site in status.sites {
        let (word, ink) = site_word(site);
        let line = format!("  site {}: {}", site.site.display(), view.paint(ink, &word));
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    let last = history.runs.len();
    for (index, run) in history.runs.iter().enumerate() {
        let (word, ink) = super::history::outcome(run, index + 1 == last, status.running);
        let took = run
            .duration_ms
            .map_or_else(String::new, |ms| units::duration(Duration::from_millis(ms)));
        let line = format!(
            "  run {:<3} {} {} {took:>12}  {} by {}",
            index + 1,
            view.paint(ink, &format!("{word:<15}")),
            view.paint(Ink::Faint, &units::moment(run.started)),
            run.id,
            run.user,
        );
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    if let Some(holder) = status.running {
        let _ = writeln!(out, "  going on: {holder}");
    } else if history.runs.last().is_some_and(|run| run.outcome.is_none()) {
        out.push_str("  the last run was killed, or the host went down: run again to continue\n");
    }
    out.push_str(&next(status, view));
    out
}

/// What a site's marker says, in a few words.
fn site_word(site: &SiteView) -> (Cow<'static, str>, Ink) {
    match (&site.refusal, &site.marker) {
        (Some(refusal), _) => (format!("a run would stop: {refusal}").into(), Ink::Bad),
        (None, Some(marker)) => {
            let head = marker.head.get(..12).unwrap_or(&marker.head);
            let text = format!(
                "marked as this state's in run {} (head {head}…)",
                marker.run
            );
            (text.into(), Ink::Faint)
        }
        (None, None) if site.held => ("its marker is gone".into(), Ink::Change),
        (None, None) => ("not marked yet".into(), Ink::Faint),
    }
}

fn next(status: &Status<'_>, view: View) -> String {
    let (plan, assumed) = match &status.next {
        Next::Planned { plan, assumed } => (plan, assumed),
        Next::Unknown(why) => {
            return format!("  what a later run would do is not known here: {why}\n");
        }
    };
    let with = match assumed {
        [] => String::new(),
        words => format!(" (with `-e {}`, as the last one)", words.join(" -e ")),
    };
    let open: Vec<_> = plan
        .entries
        .iter()
        .filter(|entry| !matches!(entry.action, PlanAction::Done | PlanAction::Skip))
        .collect();
    let done = plan
        .entries
        .iter()
        .filter(|entry| entry.action == PlanAction::Done)
        .count();
    if open.is_empty() {
        return format!("  a later run{with} would pass over everything: {done} done\n");
    }
    let mut out = format!("  a later run{with} would pass over {done} tasks that are done, and\n");
    for entry in open {
        let line = format!(
            "    {} {}  {}",
            view.paint(
                super::plan::ink(entry.action),
                &format!("{:<7}", entry.action.word())
            ),
            entry.task,
            view.paint(Ink::Faint, &format!("({})", entry.why)),
        );
        let _ = writeln!(out, "{}", view.fit(&line));
    }
    out
}

/// The same for programs.
#[must_use]
pub fn json(status: &Status<'_>) -> Value {
    let history = status.history;
    let tasks: Vec<Value> = history
        .tasks()
        .map(|(identity, task)| {
            let Row {
                word,
                time,
                run,
                duration_ms,
                note,
                ..
            } = row(task);
            json!({
                "task": identity, "state": word, "time": time, "run": run,
                "duration_ms": duration_ms, "note": note,
            })
        })
        .collect();
    let services: Vec<Value> = history
        .services
        .iter()
        .map(|service| {
            json!({
                "service": service.name, "container": service.container, "run": service.run,
                "since": service.time, "up": service.up,
            })
        })
        .collect();
    let sites: Vec<Value> = status
        .sites
        .iter()
        .map(|site| {
            json!({
                "site": site.site, "held": site.held, "marker": site.marker, "refusal": site.refusal,
            })
        })
        .collect();
    let (next, unknown) = match &status.next {
        Next::Planned { plan, .. } => (Some(plan), None),
        Next::Unknown(why) => (None, Some(why)),
    };
    json!({
        "v": 1, "playbook": status.playbook, "servers": status.servers, "running": status.running,
        "tasks": tasks,
        "services": services, "sites": sites, "runs": super::history::runs(history),
        "next": next, "next_unknown": unknown,
    })
}
