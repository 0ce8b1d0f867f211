//! `history`: all runs of a playbook.

use std::process::ExitCode;

use super::args::{Global, HistoryArgs, Output};
use super::{Done, locate, screen};
use crate::report::history;
use crate::state::{History, StateDir, journal::read_for};

pub(super) fn history(global: &Global, args: &HistoryArgs) -> Done {
    for (name, root) in locate::states(global, args.playbook.as_deref())? {
        let dir = StateDir::new(&root, &name);
        let known = History::of(&read_for(&dir, &name)?.records);
        let running = locate::holder(&dir);
        match global.output {
            Output::Text => print!(
                "{}",
                history::text(&name, &known, running.as_deref(), screen::view())
            ),
            Output::Json => println!("{}", history::json(&name, &known, running.as_deref())),
        }
    }
    Ok(ExitCode::SUCCESS)
}
