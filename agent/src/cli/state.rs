//! `state verify`: proves that a journal is what was written.

use std::process::ExitCode;

use serde_json::json;

use super::args::{AdoptArgs, Global, Output, StateArgs, StateCommand, VerifyArgs};
use super::exit::{Failure, TASK_FAILED};
use super::{Done, locate};
use crate::engine::{playbook_name, run_id};
use crate::state::fingerprint::sha256_of_file;
use crate::state::seat::{self, Adoption};
use crate::state::{History, StateDir, TaskHistory, journal::read_for};

pub(super) fn state(global: &Global, args: &StateArgs) -> Done {
    match &args.command {
        StateCommand::Verify(args) => verify(global, args),
        StateCommand::Adopt(args) => adopt(global, args),
    }
}

fn adopt(global: &Global, args: &AdoptArgs) -> Done {
    let name = playbook_name(&args.playbook);
    let dir = StateDir::new(&locate::state_dir(global, Some(&args.playbook)), &name);
    if !dir.path().is_dir() {
        return Err(Failure::other(
            "state::not_found",
            format!("there is no state in {}", dir.path().display()),
            "name the state directory with --state-dir",
        ));
    }
    let operator = locate::operator();
    let by = Adoption {
        run: &run_id(),
        user: &operator.user,
        host: &operator.host,
        machine: operator.machine.as_deref(),
        reason: &args.reason,
    };
    let adopted = seat::adopt(&dir, &name, by)?;
    let path = dir.journal();
    match (global.output, adopted) {
        (Output::Text, true) => println!(
            "recorded: {} goes on here; never run another copy of it",
            path.display()
        ),
        (Output::Text, false) => println!(
            "nothing to adopt: {} is the file that its last run wrote to",
            path.display()
        ),
        (Output::Json, adopted) => println!(
            "{}",
            json!({"v": 1, "event": "state_adopted", "playbook": name, "adopted": adopted})
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(global: &Global, args: &VerifyArgs) -> Done {
    let mut sound = true;
    for (name, root) in locate::states(global, args.playbook.as_deref())? {
        let dir = StateDir::new(&root, &name);
        let contents = read_for(&dir, &name)?;
        let outputs = if args.no_outputs {
            Vec::new()
        } else {
            outputs(&History::of(&contents.records))
        };
        let altered: Vec<&Checked> = outputs
            .iter()
            .filter(|checked| checked.problem.is_some())
            .collect();
        sound &= altered.is_empty();
        match global.output {
            Output::Text => {
                println!(
                    "{name}: {} records, each follows the one before it\n  head {}",
                    contents.records.len(),
                    contents.head
                );
                if !contents.torn.is_empty() {
                    println!(
                        "  after them {} bytes of a record that was cut short",
                        contents.torn.len()
                    );
                }
                println!(
                    "  {} of {} recorded files are as they were made",
                    outputs.len() - altered.len(),
                    outputs.len()
                );
                for checked in altered {
                    let what = checked.problem.as_deref().unwrap_or_default();
                    println!("  {}: {what}", checked.path);
                }
            }
            Output::Json => println!(
                "{}",
                json!({
                    "v": 1, "playbook": name, "records": contents.records.len(),
                    "head": contents.head, "torn_bytes": contents.torn.len(),
                    "outputs": outputs.iter().map(|checked| json!({
                        "path": checked.path, "problem": checked.problem,
                    })).collect::<Vec<_>>(),
                })
            ),
        }
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(TASK_FAILED)
    })
}

struct Checked {
    path: String,
    problem: Option<String>,
}

fn outputs(history: &History) -> Vec<Checked> {
    let mut all = Vec::new();
    for (_, task) in history.tasks() {
        let TaskHistory::Finished(finished) = task else {
            continue;
        };
        for output in &finished.outputs {
            let problem = match sha256_of_file(&output.path) {
                Ok(hash) if hash == output.sha256 => None,
                Ok(_) => Some("its content has changed since".to_owned()),
                Err(error) => Some(format!("cannot be read: {error}")),
            };
            all.push(Checked {
                path: output.path.display().to_string(),
                problem,
            });
        }
    }
    all
}
