//! `resolve`: an operator's answer, journaled like anything else.

use std::process::ExitCode;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{Global, Output, ResolveArgs};
use super::exit::Failure;
use super::plan::nobody;
use super::{Done, fleet, locate};
use crate::state::Answer;

pub(super) fn resolve(global: &Global, args: &ResolveArgs) -> Done {
    if !args.hosts.inventory.is_empty() {
        return fleet::resolve(global, args);
    }
    here(global, args, None).map(ExitCode::from)
}

/// Notes an answer on this host; returns the exit code.
pub(super) fn here(
    global: &Global,
    args: &ResolveArgs,
    outside: Option<locate::HostInputs>,
) -> Result<u8, Failure> {
    let cancel = CancellationToken::new();
    let more = locate::RunChoices {
        outside,
        ..locate::RunChoices::default()
    };
    let engine = locate::engine(global, &args.playbook, nobody(), cancel, more)?;
    let answer = if args.done {
        Answer::Done
    } else {
        Answer::Redo
    };
    let resolved = engine.resolve(&args.task, answer, &args.reason)?;
    let what = if args.done {
        "is passed over"
    } else {
        "is run again"
    };
    match global.output {
        Output::Text => {
            println!("recorded: `{}` {what} by the next run", resolved.task);
            println!("  it was {}", resolved.was);
            if let Some(when) = &resolved.right_when {
                println!("  that is right when {when}; the last answer before a run counts");
            }
        }
        Output::Json => println!(
            "{}",
            json!({
                "v": 1, "event": "resolved", "task": resolved.task, "answer": answer,
                "was": resolved.was, "right_when": resolved.right_when,
            })
        ),
    }
    Ok(0)
}
