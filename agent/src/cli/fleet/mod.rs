//! Playbooks on other hosts: `run`, `resolve`, `rollback`, `purge` and `status` with `-i`, `attach`, `stop`.

mod ask;
mod batches;
mod choose;
mod follow;
mod wires;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::args::{
    FleetArgs, Global, HostsArgs, PlaybookArgs, PurgeArgs, ResolveArgs, RollbackArgs, RunArgs,
    StatusArgs, StopArgs,
};
use super::exit::{self, Failure};
use super::extra_vars::ExtraVars;
use super::rollback::whole_playbook;
use super::vault::vault;
use super::{Done, extra_vars, locate};
use crate::engine::{playbook_name, run_id};
use crate::remote::{Bundle, Fleet, ORDER_VERSION, Order, RemoteCommand, RemoteError, Work};
use crate::state::fingerprint::sha256_hex;
use ask::in_short;
use batches::Batches;
use choose::{Choice, Chosen, choose};

pub(super) fn run(global: &Global, args: &RunArgs) -> Done {
    let told = RunRequest {
        deed: RemoteCommand::Run,
        check: args.check,
        diff: args.diff,
        no_checkpoint: args.no_checkpoint,
        yes: args.yes,
        redo: &args.redo,
        reason: args.reason.as_deref(),
    };
    order(global, &args.playbook, &args.hosts, &told)
}

pub(super) fn resolve(global: &Global, args: &ResolveArgs) -> Done {
    let told = RunRequest {
        reason: Some(&args.reason),
        ..RunRequest::of(RemoteCommand::Resolve {
            task: args.task.clone(),
            done: args.done,
        })
    };
    order(global, &args.playbook, &args.hosts, &told)
}

pub(super) fn rollback(global: &Global, args: &RollbackArgs) -> Done {
    let told = RunRequest {
        check: args.check,
        yes: args.yes,
        reason: args.reason.as_deref(),
        ..RunRequest::of(RemoteCommand::Rollback {
            accept: args.accept.clone(),
        })
    };
    let playbook = whole_playbook(&args.playbook, &args.extra_vars);
    order(global, &playbook, &args.hosts, &told)
}

pub(super) fn purge(global: &Global, args: &PurgeArgs) -> Done {
    let told = RunRequest {
        check: args.check,
        yes: args.yes,
        ..RunRequest::of(RemoteCommand::Purge)
    };
    let playbook = whole_playbook(&args.playbook, &args.extra_vars);
    order(global, &playbook, &args.hosts, &told)
}

/// What all hosts are told alike.
struct RunRequest<'a> {
    deed: RemoteCommand,
    check: bool,
    diff: bool,
    no_checkpoint: bool,
    yes: bool,
    redo: &'a [String],
    reason: Option<&'a str>,
}

impl RunRequest<'_> {
    fn of(deed: RemoteCommand) -> Self {
        Self {
            deed,
            check: false,
            diff: false,
            no_checkpoint: false,
            yes: false,
            redo: &[],
            reason: None,
        }
    }
}

/// Has every host do it, and follows it there.
fn order(
    global: &Global,
    playbook: &PlaybookArgs,
    hosts: &HostsArgs,
    told: &RunRequest<'_>,
) -> Done {
    let vault = vault(global)?;
    let extra = extra_vars::read(&playbook.extra_vars, &vault)?;
    let choice = choose(playbook, hosts, &extra, &vault)?;
    let path = &playbook.playbook;
    let bundle = Arc::new(Bundle::of(path).map_err(|error| failure(&error))?);
    let operator = locate::operator();
    let job = run_id();
    let work = |chosen: &Chosen| {
        let order = Order {
            v: ORDER_VERSION,
            bundle: bundle.sha256.clone(),
            playbook: bundle.playbook.clone(),
            deed: told.deed.clone(),
            host: chosen.host.clone(),
            extra_vars: extra.values.clone(),
            tags: playbook.tags.clone(),
            skip_tags: playbook.skip_tags.clone(),
            check: told.check,
            diff: told.diff,
            no_checkpoint: told.no_checkpoint,
            yes: told.yes,
            redo: told.redo.to_vec(),
            reason: told.reason.map(str::to_owned),
            state_dir: chosen.state_dir(),
            vault_passwords: vault.passwords(),
            revealed: vault.revealed(),
            operator: format!("{} on {}", operator.user, operator.host),
        };
        Some(Work {
            order,
            bundle: Arc::clone(&bundle),
            job: job.clone(),
        })
    };
    let fleet = fleet(path, hosts)?;
    follow::every(global, path, hosts, &choice, fleet, work)
}

pub(super) fn attach(global: &Global, args: &FleetArgs) -> Done {
    let (playbook, hosts) = (&args.playbook, &args.hosts);
    let choice = Choice {
        // Whatever the plays say: the runs have begun.
        batches: Batches::default(),
        ..choose(
            &whole_playbook(playbook, &[]),
            hosts,
            &ExtraVars::default(),
            &vault(global)?,
        )?
    };
    let fleet = fleet(playbook, hosts)?;
    follow::every(global, playbook, hosts, &choice, fleet, |_| None)
}

pub(super) fn stop(global: &Global, args: &StopArgs) -> Done {
    ask::every(
        global,
        &args.fleet.playbook,
        &args.fleet.hosts,
        async |fleet, wire, _| {
            let was_at_work = fleet.stop(wire, args.after_task).await?;
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
