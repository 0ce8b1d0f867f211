//! `purge`: deletes for good what lies in quarantine.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Global, Output, PurgeArgs};
use super::exit::Failure;
use super::rollback::whole_playbook;
use super::run::{Stage, interrupt, runtime, stage};
use super::{Done, exit, fleet, locate};
use crate::engine::{PurgeEnd, PurgePlan};
use crate::host::files::error::human_bytes;

pub(super) fn purge(global: &Global, args: &PurgeArgs) -> Done {
    if !args.hosts.inventory.is_empty() {
        return fleet::purge(global, args);
    }
    here(global, args, None).map(ExitCode::from)
}

/// Deletes what lies in quarantine on this host; returns the exit code.
pub(super) fn here(
    global: &Global,
    args: &PurgeArgs,
    outside: Option<locate::HostInputs>,
) -> Result<u8, Failure> {
    let playbook = whole_playbook(&args.playbook, &args.extra_vars);
    let Stage {
        engine,
        events,
        cancel,
    } = stage(
        global,
        &playbook,
        args.yes,
        locate::RunChoices {
            outside,
            ..locate::RunChoices::checking(args.check)
        },
    )?;
    if args.check {
        let plan = engine.plan_purge()?;
        show(global, &plan);
        return match plan.refusals.is_empty() {
            true => Ok(0),
            false => Err(not_verified(&plan.refusals)),
        };
    }
    let end = runtime()?.block_on(async {
        tokio::spawn(interrupt(cancel));
        engine.purge(&events).await
    })?;
    let code = match end {
        PurgeEnd::Done(plan) => {
            if global.output == Output::Text {
                println!("{} were freed.", human_bytes(plan.bytes()));
            }
            0
        }
        PurgeEnd::Nothing => {
            if global.output == Output::Text {
                println!("nothing lies in quarantine");
            }
            0
        }
        PurgeEnd::Refused(why) => return Err(not_verified(&why)),
        PurgeEnd::Failed => exit::TASK_FAILED,
        PurgeEnd::Interrupted => exit::INTERRUPTED,
    };
    Ok(code)
}

fn show(global: &Global, plan: &PurgePlan) {
    match global.output {
        Output::Json => println!("{}", json!({"v": 1, "purge": plan.entries})),
        Output::Text => {
            for entry in &plan.entries {
                println!(
                    "delete  {} ({})",
                    entry.path.display(),
                    human_bytes(entry.bytes)
                );
            }
            let all = human_bytes(plan.bytes());
            println!("\n{} in quarantine, {all} in all", plan.entries.len());
        }
    }
}

fn not_verified(why: &[String]) -> Failure {
    Failure::other(
        "purge::not_verified",
        format!(
            "nothing is deleted yet, as the playbook has neither come to a verified end nor been taken back: {}",
            why.join("; ")
        ),
        "run the playbook to its end, or take it back with `rollback`, first; what lies in quarantine stays until then",
    )
}
