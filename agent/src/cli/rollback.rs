//! `rollback`: takes back what a playbook did.

use std::process::ExitCode;

use serde_json::json;

use super::args::{Global, Output, PlaybookArgs, RollbackArgs};
use super::exit::Failure;
use super::run::{Stage, interrupt, runtime, stage};
use super::{Done, exit, fleet, locate, screen};
use crate::engine::{Accepted, RollbackEnd};
use crate::report::rollback;
use crate::source;

pub(super) fn rollback(global: &Global, args: &RollbackArgs) -> Done {
    if !args.hosts.inventory.is_empty() {
        return fleet::rollback(global, args);
    }
    here(global, args, None).map(ExitCode::from)
}

/// Takes a playbook back on this host; returns the exit code.
pub(super) fn here(
    global: &Global,
    args: &RollbackArgs,
    outside: Option<locate::HostInputs>,
) -> Result<u8, Failure> {
    let Stage {
        engine,
        events,
        cancel,
    } = stage(
        global,
        &whole_playbook(&args.playbook, &args.extra_vars),
        args.yes,
        locate::RunChoices {
            outside,
            ..locate::RunChoices::checking(args.check)
        },
    )?;
    let accepted = Accepted {
        tasks: args.accept.clone(),
        reason: args.reason.clone().unwrap_or_default(),
    };
    let playbook = source::shown(&args.playbook).to_string();
    if args.check {
        let plan = engine.look_back(&accepted)?;
        match global.output {
            Output::Text => print!(
                "{}",
                rollback::text(&plan, &playbook, screen::stdout_style())
            ),
            Output::Json => println!("{}", json!({"v": 1, "rollback": plan})),
        }
        let possible = plan.refusals().is_empty();
        return Ok(if possible { 0 } else { exit::DECISION });
    }
    let end = runtime()?.block_on(async {
        tokio::spawn(interrupt(cancel));
        engine.rollback(&events, &accepted).await
    })?;
    match (global.output, &end) {
        (Output::Json, RollbackEnd::Refused(entries)) => println!(
            "{}",
            json!({"v": 1, "event": "rollback_refused", "tasks": entries})
        ),
        (Output::Json, _) => {}
        (Output::Text, RollbackEnd::Refused(entries)) => eprint!(
            "{}",
            rollback::refusals(entries, &playbook, screen::stderr_style())
        ),
        (Output::Text, RollbackEnd::Nothing) => println!("nothing has been done: nothing to undo"),
        (Output::Text, RollbackEnd::Failed) => println!(
            "Mend the cause and run the same command again: it continues where it stopped."
        ),
        (Output::Text, RollbackEnd::Interrupted) => {
            println!("Run the same command again: it continues where it stopped.");
        }
        (Output::Text, RollbackEnd::Done) => {
            println!(
                "Everything was taken back. What was made lies in quarantine and takes its space \
                 there, until `purge` deletes it for good."
            );
        }
    }
    Ok(match end {
        RollbackEnd::Done | RollbackEnd::Nothing => 0,
        RollbackEnd::Refused(_) => exit::DECISION,
        RollbackEnd::Failed => exit::TASK_FAILED,
        RollbackEnd::Interrupted => exit::INTERRUPTED,
    })
}

/// A playbook with all its tasks.
pub(super) fn whole_playbook(playbook: &std::path::Path, extra_vars: &[String]) -> PlaybookArgs {
    PlaybookArgs {
        playbook: playbook.to_path_buf(),
        extra_vars: extra_vars.to_vec(),
        tags: Vec::new(),
        skip_tags: Vec::new(),
    }
}
