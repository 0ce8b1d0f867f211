//! `report`: the HTML file.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;

use super::args::{Global, Output, ReportArgs};
use super::exit::Failure;
use super::present::{self, Present};
use super::{Done, locate};
use crate::report::html;
use crate::state::{History, StateDir, journal::read_for};

pub(super) fn report(global: &Global, args: &ReportArgs) -> Done {
    let name = crate::engine::playbook_name(&args.playbook);
    let dir = StateDir::new(&locate::state_dir(global, Some(&args.playbook)), &name);
    let contents = read_for(&dir, &name)?;
    let history = History::of(&contents.records);
    let present = present::of(global, Some(&args.playbook), &args.extra_vars, &history);
    let running = locate::holder(&dir);
    let source = html::Source {
        playbook: &name,
        contents: &contents,
        history: &history,
        dir: &dir,
        running: running.as_deref(),
        plan: match &present {
            Present::Planned(planned) => Ok(&planned.plan),
            Present::Unknown(why) => Err(why),
        },
        now: Timestamp::now(),
    };
    let text = html::render(&source).map_err(|error| {
        Failure::other(
            "report::render",
            error.to_string(),
            "this is a mistake in the agent; `state export` hands the journal on meanwhile",
        )
    })?;
    if args.out == Path::new("-") {
        // A reader that went away has had enough.
        let _ = std::io::stdout().write_all(text.as_bytes());
        return Ok(ExitCode::SUCCESS);
    }
    write(&args.out, text.as_bytes()).map_err(|error| {
        Failure::other(
            "report::write",
            format!("failed to write {}: {error}", args.out.display()),
            "name a file in a folder that is there and can be written",
        )
    })?;
    match global.output {
        Output::Text => println!("{}: open it in any browser", args.out.display()),
        Output::Json => println!(
            "{}",
            json!({"v": 1, "report": args.out, "size": text.len()})
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts the whole file in its place at once: nobody reads half a report.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}
