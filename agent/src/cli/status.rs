//! `status`: where each task stands, and what a later run would do.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Global, Output, StatusArgs};
use super::present::{self, Present};
use super::{Done, fleet, locate, run, screen};
use crate::engine::site_views;
use crate::host::docker::service;
use crate::report::status::{self, Next, Server, Up};
use crate::state::journal::{read_for, read_outline_for};
use crate::state::{History, StateDir};

pub(super) fn status(global: &Global, args: &StatusArgs) -> Done {
    if !args.hosts.inventory.is_empty() {
        return fleet::status(global, args);
    }
    for (name, root) in locate::states(global, args.playbook.as_deref())? {
        let dir = StateDir::new(&root, &name);
        // Without a playbook nothing is planned, and planning alone needs results.
        let contents = match &args.playbook {
            Some(_) => read_for(&dir, &name)?,
            None => read_outline_for(&dir, &name)?,
        };
        let history = History::of(&contents.records);
        let running = locate::holder(&dir);
        let servers = servers(&history, contents.state_id());
        let present = present::of(global, args.playbook.as_deref(), &args.extra_vars, &history);
        let next = match &present {
            Present::Planned(planned) => Next::Planned {
                plan: &planned.plan,
                assumed: &planned.assumed,
            },
            Present::Unknown(why) => Next::Unknown(why),
        };
        let sites = match &present {
            Present::Planned(planned) => planned.engine.site_views(&contents, &history),
            Present::Unknown(_) => site_views(&contents, &history, dir.path()),
        };
        let view = status::Status {
            playbook: &name,
            state: dir.path(),
            history: &history,
            sites: &sites,
            running: running.as_deref(),
            servers: &servers,
            next,
        };
        match global.output {
            Output::Text => print!("{}", status::text(&view, screen::view())),
            Output::Json => println!("{}", status::json(&view)),
        }
        // Giving the memory of a long journal back, piece by piece, would take as long as reading some of
        // it; the process ends here.
        std::mem::forget((history, contents));
    }
    Ok(ExitCode::SUCCESS)
}

/// How long Docker may take to say what runs.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Servers of a state's services that are up, or may be. Docker is asked where services were ever started.
pub(super) fn servers(history: &History, state_id: Option<&str>) -> Vec<Server> {
    if history.services.is_empty() {
        return Vec::new();
    }
    let asked = run::runtime().ok().zip(state_id).and_then(|(runtime, id)| {
        let answer = async { tokio::time::timeout(AT_ONCE, service::up(id)).await };
        let said = runtime.block_on(answer).ok().and_then(Result::ok);
        runtime.shutdown_background();
        said
    });
    let up: Option<Vec<Up>> = asked.map(|up| {
        up.into_iter()
            .map(|up| Up {
                service: up.service,
                container: up.container,
                sources: up.sources,
            })
            .collect()
    });
    Server::all(history, up.as_deref())
}
