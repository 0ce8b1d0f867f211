//! `show`: everything about one task.

use std::process::ExitCode;

use super::args::{Global, Output, ShowArgs};
use super::exit::Failure;
use super::present::{self, Present};
use super::{Done, locate, screen};
use crate::engine::find_task;
use crate::engine::inspect::compare;
use crate::report::{attempts, show};
use crate::source::closest;
use crate::state::{History, StateDir, journal::read_for};

pub(super) fn show(global: &Global, args: &ShowArgs) -> Done {
    let name = crate::engine::playbook_name(&args.playbook);
    let dir = StateDir::new(&locate::state_dir(global, Some(&args.playbook)), &name);
    let contents = read_for(&dir, &name)?;
    let history = History::of(&contents.records);
    let present = present::of(global, Some(&args.playbook), &args.extra_vars, &history);
    let identity = find_task(&history, &args.task).or_else(|| planned(&present, &args.task));
    let Some(identity) = identity else {
        return Err(unknown(&history, &args.task));
    };
    let all = attempts::tasks(&contents.records);
    let task = all.iter().find(|task| task.identity == identity);
    let mut view = show::Show {
        identity: &identity,
        task,
        known: history.task(&identity),
        decisions: history
            .decisions
            .iter()
            .filter(|decision| decision.task == identity)
            .collect(),
        runs: attempts::run_numbers(&contents.records),
        logs: dir
            .logs()
            .into_iter()
            .filter(|log| log.task().as_deref() == Some(identity.as_str()))
            .map(|log| log.path)
            .collect(),
        module: None,
        parts: Vec::new(),
        next: None,
    };
    match &present {
        Present::Planned(planned) => {
            view.next = planned
                .plan
                .entries
                .iter()
                .find(|entry| entry.task == identity)
                .map_or_else(
                    || {
                        Some(Ok((
                            "gone",
                            "the playbook has no such task any more".into(),
                        )))
                    },
                    |entry| Some(Ok((entry.action.word(), entry.why.clone()))),
                );
            if let Some(now) = planned.engine.task_now(&identity, &history) {
                view.module = Some((now.module, now.kind));
                let then = task.and_then(|task| task.attempts.last());
                if let (Some(then), Some(ready)) = (then, &now.ready) {
                    view.parts = compare(then.fingerprint, then.arguments, ready);
                }
            }
        }
        Present::Unknown(why) => view.next = Some(Err(why.clone())),
    }
    match global.output {
        Output::Text => print!("{}", show::text(&view, screen::view())),
        Output::Json => println!("{}", show::json(&view)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A task that the journal does not know yet.
fn planned(present: &Present, task: &str) -> Option<String> {
    let Present::Planned(planned) = present else {
        return None;
    };
    let end = format!(" / {task}");
    let mut found = planned
        .plan
        .entries
        .iter()
        .map(|entry| &entry.task)
        .filter(|identity| *identity == task || identity.ends_with(&end));
    match (found.next(), found.next()) {
        (Some(identity), None) => Some(identity.clone()),
        _ => None,
    }
}

fn unknown(history: &History, task: &str) -> Failure {
    let last = |identity: &str| identity.rsplit(" / ").next().unwrap_or_default().to_owned();
    let names: Vec<String> = history
        .tasks()
        .map(|(identity, _)| last(identity))
        .collect();
    let several = names.iter().filter(|name| name.as_str() == task).count() > 1;
    let help = match closest(task, names.iter().map(String::as_str)) {
        _ if several => "several tasks end so: give more of the name, as `status` shows it".into(),
        Some(near) => format!("did you mean `{near}`?"),
        None => "`status` lists the tasks; the end of a name is enough".into(),
    };
    Failure::other(
        "show::unknown_task",
        format!("neither the journal nor the playbook has one task `{task}`"),
        &help,
    )
}
