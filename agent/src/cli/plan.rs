//! `plan`: what a run would do, and why.

use std::process::ExitCode;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{Global, Output, PlaybookArgs};
use super::confirm::Terminal;
use super::{Done, exit, locate, screen};
use crate::report::plan::text;
use crate::state::History;

/// Somebody who is never asked: planning has no effect.
pub(super) fn nobody() -> Terminal {
    Terminal {
        yes: false,
        user: String::new(),
        cancel: CancellationToken::new(),
        screen: None,
        instead: None,
    }
}

pub(super) fn plan(global: &Global, args: &PlaybookArgs) -> Done {
    let cancel = CancellationToken::new();
    let engine = locate::engine(
        global,
        args,
        nobody(),
        cancel,
        locate::RunChoices::default(),
    )?;
    let contents = engine.journal()?;
    if let Some(why) = engine.would_refuse(&contents) {
        eprintln!("warning: {why}");
    }
    engine.require_declared()?;
    let history = History::of(&contents.records);
    let plan = engine.plan(&history)?;
    match global.output {
        Output::Text => print!("{}", text(&plan, screen::stdout_style())),
        Output::Json => println!("{}", json!({"v": 1, "plan": plan})),
    }
    let code = if plan.decisions().is_empty() {
        0
    } else {
        exit::DECISION
    };
    Ok(ExitCode::from(code))
}
