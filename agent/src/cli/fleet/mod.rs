//! Playbooks on other hosts: `run -i`, `attach`, `stop`, `status -i`.

mod ask;
mod choose;
mod follow;
mod wires;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::args::{FleetArgs, Global, HostsArgs, PlaybookArgs, RunArgs, StatusArgs};
use super::exit::{self, Failure};
use super::vault::vault;
use super::{Done, extra_vars, locate};
use crate::engine::{playbook_name, run_id};
use crate::remote::{Bundle, Fleet, ORDER_VERSION, Order, RemoteError, Work};
use crate::state::fingerprint::sha256_hex;
use ask::in_short;
use choose::{Chosen, choose};

pub(super) fn run(global: &Global, args: &RunArgs) -> Done {
    let vault = vault(global)?;
    let extra = extra_vars::read(&args.playbook.extra_vars, &vault)?;
    let chosen = choose(&args.playbook, &args.hosts, &extra, &vault)?;
    let playbook = &args.playbook.playbook;
    let bundle = Arc::new(Bundle::of(playbook).map_err(|error| failure(&error))?);
    let operator = locate::operator();
    let job = run_id();
    let work = |chosen: &Chosen| {
        let order = Order {
            v: ORDER_VERSION,
            bundle: bundle.sha256.clone(),
            playbook: bundle.playbook.clone(),
            host: chosen.host.clone(),
            extra_vars: extra.clone(),
            tags: args.playbook.tags.clone(),
            skip_tags: args.playbook.skip_tags.clone(),
            check: args.check,
            diff: args.diff,
            no_checkpoint: args.no_checkpoint,
            yes: args.yes,
            redo: args.redo.clone(),
            reason: args.reason.clone(),
            state_dir: chosen.state_dir(),
            operator: format!("{} on {}", operator.user, operator.host),
        };
        Some(Work {
            order,
            bundle: Arc::clone(&bundle),
            job: job.clone(),
        })
    };
    let fleet = fleet(playbook, &args.hosts)?;
    follow::every(global, playbook, &args.hosts, &chosen, fleet, work)
}

pub(super) fn attach(global: &Global, args: &FleetArgs) -> Done {
    let (playbook, hosts) = (&args.playbook, &args.hosts);
    let chosen = choose(&bare(playbook), hosts, &Map::new(), &vault(global)?)?;
    let fleet = fleet(playbook, hosts)?;
    follow::every(global, playbook, hosts, &chosen, fleet, |_| None)
}

pub(super) fn stop(global: &Global, args: &FleetArgs) -> Done {
    ask::every(
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
    ask::every(
        global,
        playbook,
        &args.hosts,
        async |fleet, wire, chosen| {
            let status = fleet.status(wire, chosen.state_dir().as_deref()).await?;
            let text = status
                .as_ref()
                .map_or("nothing was ever run".to_owned(), in_short);
            Ok((status.unwrap_or(Value::Null), text))
        },
    )
}

fn bare(playbook: &Path) -> PlaybookArgs {
    PlaybookArgs {
        playbook: playbook.to_path_buf(),
        extra_vars: Vec::new(),
        tags: Vec::new(),
        skip_tags: Vec::new(),
    }
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
    Ok(Fleet {
        agent_sha256: sha256_hex(&agent),
        agent: Arc::new(agent),
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
