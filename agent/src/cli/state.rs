//! `state verify` and `state export`: proves that a journal is what was written, and hands it on.

use std::process::ExitCode;

use serde_json::json;

use super::args::{AdoptArgs, ExportArgs, Global, Output, StateArgs, StateCommand, VerifyArgs};
use super::exit::{Failure, TASK_FAILED};
use super::{Done, locate};
use crate::engine::{new_state_id, playbook_name, run_id};
use crate::report::units;
use crate::state::adopt::{self, Adoption};
use crate::state::fingerprint::sha256_of_file;
use crate::state::journal::read_for;
use crate::state::{
    CheckedOutput, Contents, History, StateDir, StateError, archive, check_outputs,
};

pub(super) fn state(global: &Global, args: &StateArgs) -> Done {
    match &args.command {
        StateCommand::Verify(VerifyArgs {
            archive: Some(file),
            ..
        }) => verify_archive(global, file),
        StateCommand::Verify(args) => verify(global, args),
        StateCommand::Adopt(args) => adopt(global, args),
        StateCommand::Export(args) => export(global, args),
    }
}

fn adopt(global: &Global, args: &AdoptArgs) -> Done {
    let name = playbook_name(&args.playbook);
    let dir = StateDir::new(&locate::state_dir(global, Some(&args.playbook)), &name);
    // Where a state is lost, one that was never run may be named to go on at its site.
    if !dir.path().is_dir() && args.site.is_none() {
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
        site: args.site.as_deref(),
        new_state_id: &new_state_id(),
    };
    let adopted = adopt::adopt(&dir, &name, by)?;
    let path = dir.journal();
    match global.output {
        Output::Text => {
            if adopted.journal {
                println!(
                    "recorded: {} goes on here; never run another copy of it",
                    path.display()
                );
            }
            for (site, before) in &adopted.sites {
                println!(
                    "recorded: {} goes on with this state; before that, {before}",
                    site.display()
                );
            }
            if adopted.is_empty() {
                println!(
                    "nothing to adopt: {} is the file that its last run wrote to, and no other state goes on \
                     at its sites",
                    path.display()
                );
            }
        }
        Output::Json => println!(
            "{}",
            json!({
                "v": 1, "event": "state_adopted", "playbook": name, "adopted": !adopted.is_empty(),
                "journal": adopted.journal,
                "sites": adopted.sites.iter().map(|(site, before)| json!({
                    "site": site, "before": before.to_string(),
                })).collect::<Vec<_>>(),
            })
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(global: &Global, args: &VerifyArgs) -> Done {
    let mut sound = true;
    for (name, root) in locate::states(global, args.playbook.as_deref())? {
        let dir = StateDir::new(&root, &name);
        let contents = read_for(&dir, &name)?;
        let noted = match &args.head {
            Some(head) => {
                Some(
                    Noted::find(&contents, head).ok_or_else(|| StateError::HeadMissing {
                        path: dir.journal(),
                        head: head.clone(),
                    })?,
                )
            }
            None => None,
        };
        // A copy of another host's state: what that host has is not to be looked for here.
        let elsewhere = archive::is_unpacked(&dir);
        let no_outputs = args.no_outputs || elsewhere;
        let outputs = if no_outputs {
            Vec::new()
        } else {
            check_outputs(&History::of(&contents.records))
        };
        sound &= outputs.iter().all(|checked| checked.problem.is_none());
        match global.output {
            Output::Text => {
                tell(&name, &contents, noted.as_ref(), &outputs, no_outputs);
                if elsewhere {
                    println!("  a copy: the files that it names are on the host it came from");
                }
            }
            Output::Json => println!(
                "{}",
                json!({
                    "v": 1, "playbook": name, "records": contents.records.len(),
                    "head": contents.head, "torn_bytes": contents.torn.len(),
                    "noted_head_at": noted.as_ref().map(|noted| noted.seq),
                    "outputs": outputs.iter().map(|checked| json!({
                        "path": checked.path, "problem": checked.problem,
                    })).collect::<Vec<_>>(),
                })
            ),
        }
    }
    Ok(ExitCode::from(if sound { 0 } else { TASK_FAILED }))
}

fn tell(
    name: &str,
    contents: &Contents,
    noted: Option<&Noted>,
    outputs: &[CheckedOutput],
    no_outputs: bool,
) {
    println!(
        "{name}: {} records, each follows the one before it\n  head {}",
        contents.records.len(),
        contents.head
    );
    if let Some(Noted { seq, after }) = noted {
        println!(
            "  the noted hash is that of record {seq}: nothing up to it was cut off or changed; records since: {after}"
        );
    }
    if !contents.torn.is_empty() {
        println!(
            "  after them {} bytes of a record that was cut short",
            contents.torn.len()
        );
    }
    if no_outputs {
        return;
    }
    let altered = outputs.iter().filter(|checked| checked.problem.is_some());
    println!(
        "  {} of {} recorded files are as they were made",
        outputs.len() - altered.clone().count(),
        outputs.len()
    );
    for checked in altered {
        let what = checked.problem.as_deref().unwrap_or_default();
        println!("  {}: {what}", checked.path.display());
    }
}

/// Where a hash that somebody noted stands in a journal.
struct Noted {
    seq: u64,
    after: usize,
}

impl Noted {
    fn find(contents: &Contents, head: &str) -> Option<Self> {
        let head = head.trim().to_ascii_lowercase();
        let records = &contents.records;
        // A record's hash stands in the next one as `prev`; the last one's is the head.
        let index = if head == contents.head {
            records.len().checked_sub(1)?
        } else {
            records.iter().skip(1).position(|next| next.prev == head)?
        };
        Some(Self {
            seq: records[index].seq,
            after: records.len() - index - 1,
        })
    }
}

fn export(global: &Global, args: &ExportArgs) -> Done {
    let name = playbook_name(&args.playbook);
    let dir = StateDir::new(&locate::state_dir(global, Some(&args.playbook)), &name);
    // A journal of another playbook under this name is not handed on as this one's.
    read_for(&dir, &name)?;
    let manifest = archive::export(&dir, &name, &args.out)?;
    let sha256 = sha256_of_file(&args.out).map_err(StateError::io("read", &args.out))?;
    match global.output {
        Output::Text => {
            let size = std::fs::metadata(&args.out).map_or(0, |meta| meta.len());
            println!(
                "{}: {} records and their logs, {}\n  head   {}\n  sha256 {sha256}",
                args.out.display(),
                manifest.records,
                units::bytes(size),
                manifest.head
            );
        }
        Output::Json => println!(
            "{}",
            json!({"v": 1, "archive": args.out, "sha256": sha256, "manifest": manifest})
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn verify_archive(global: &Global, file: &std::path::Path) -> Done {
    let found = archive::verify(file)?;
    match global.output {
        Output::Text => println!(
            "{}: {} members as they were exported on {}\n  {}: {} records, each follows the one before it\n  head   {}\n  sha256 {}",
            file.display(),
            found.members,
            found.manifest.exported.strftime("%F %T UTC"),
            found.manifest.playbook,
            found.journal.records.len(),
            found.journal.head,
            found.sha256
        ),
        Output::Json => println!(
            "{}",
            json!({
                "v": 1, "archive": file, "sha256": found.sha256, "members": found.members,
                "manifest": found.manifest,
            })
        ),
    }
    Ok(ExitCode::SUCCESS)
}
