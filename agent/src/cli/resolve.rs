//! `resolve`: an operator's answer, journaled like anything else.

use std::process::ExitCode;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{Global, Output, ResolveArgs};
use super::exit::Failure;
use super::plan::nobody;
use super::{Done, locate};
use crate::state::Answer;

pub(super) fn resolve(global: &Global, args: &ResolveArgs) -> Done {
    let cancel = CancellationToken::new();
    let engine = locate::engine(global, &args.playbook, nobody(), cancel, (false, false))?;
    let answer = if args.done {
        Answer::Done
    } else {
        Answer::Redo
    };
    let known = engine.resolve(&args.task, answer, &args.reason)?;
    let Some(task) = known else {
        return Err(Failure::other(
            "resolve::unknown_task",
            format!("the journal knows no task `{}`", args.task),
            "`status` lists the tasks; the whole line after the times is the name",
        ));
    };
    match global.output {
        Output::Text => {
            let what = if args.done {
                "is passed over"
            } else {
                "is run again"
            };
            println!("recorded: `{task}` {what} by the next run");
        }
        Output::Json => println!(
            "{}",
            json!({"v": 1, "event": "resolved", "task": task, "answer": answer})
        ),
    }
    Ok(ExitCode::SUCCESS)
}
