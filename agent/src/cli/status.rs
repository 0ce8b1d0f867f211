//! `status`: where each task stands.

use std::process::ExitCode;

use super::args::{Global, Output, StatusArgs};
use super::{Done, locate, screen};
use crate::report::status;
use crate::state::{History, Lock, StateDir, StateError, journal::read_for};

pub(super) fn status(global: &Global, args: &StatusArgs) -> Done {
    for (name, root) in locate::states(global, args.playbook.as_deref())? {
        let dir = StateDir::new(&root, &name);
        let history = History::of(&read_for(&dir, &name)?.records);
        let running = holder(&dir);
        match global.output {
            Output::Text => {
                print!(
                    "{}",
                    status::text(&name, &history, running.as_deref(), screen::stdout_style())
                );
                if history.runs.is_empty() {
                    println!(
                        "  nothing has been run yet (state: {})",
                        dir.path().display()
                    );
                }
            }
            Output::Json => println!("{}", status::json(&name, &history, running.as_deref())),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Who runs just now, if anybody.
fn holder(dir: &StateDir) -> Option<String> {
    if !dir.lock().is_file() {
        return None;
    }
    match Lock::look(&dir.lock()) {
        Err(StateError::Locked { holder, .. }) => Some(holder),
        _ => None,
    }
}
