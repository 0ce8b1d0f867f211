//! What a later run would do, for commands that look back: the present playbook against the journal.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::args::{Global, PlaybookArgs};
use super::exit::Failure;
use super::locate;
use super::plan::nobody;
use crate::engine::{Engine, Plan};
use crate::redact::HIDDEN;
use crate::source;
use crate::state::History;

/// The present playbook, planned, or why it could not be.
pub(super) enum Present {
    Planned(Box<Planned>),
    /// A reason that a person can act on.
    Unknown(String),
}

pub(super) struct Planned {
    pub engine: Engine,
    pub plan: Plan,
    /// Variables that were taken from the last run's command line.
    pub assumed: Vec<String>,
}

/// Plans with the variables given, else with those of the last run's command line, so that nobody has
/// to remember them. Has no effect, and is never a reason to fail: the journal can be read without.
pub(super) fn of(
    global: &Global,
    playbook: Option<&Path>,
    extra_vars: &[String],
    history: &History,
) -> Present {
    let Some(playbook) = playbook else {
        return Present::Unknown("name the playbook to see what a later run would do".into());
    };
    if !playbook.is_file() {
        return Present::Unknown(format!("there is no playbook {}", source::shown(playbook)));
    }
    let assumed = if extra_vars.is_empty() {
        history
            .runs
            .last()
            .map(|run| given_variables(&run.arguments))
            .unwrap_or_default()
    } else {
        Vec::new()
    };
    let told = |why: &str| {
        let words: Vec<String> = assumed.iter().map(|word| format!("-e {word}")).collect();
        Present::Unknown(format!(
            "the last run was given `{}`: {why}",
            words.join(" ")
        ))
    };
    if assumed.iter().any(|word| word.contains(HIDDEN)) {
        return told("give the same here, as secrets are not kept");
    }
    let missing = assumed
        .iter()
        .filter_map(|word| word.strip_prefix('@'))
        .find(|path| !Path::new(path).is_file());
    if let Some(path) = missing {
        return told(&format!(
            "`{path}` is not found from here, give the right path"
        ));
    }
    let args = PlaybookArgs {
        playbook: playbook.to_path_buf(),
        extra_vars: if assumed.is_empty() {
            extra_vars.to_vec()
        } else {
            assumed.clone()
        },
        tags: Vec::new(),
        skip_tags: Vec::new(),
    };
    let planned = locate::engine(
        global,
        &args,
        nobody(),
        CancellationToken::new(),
        locate::RunChoices::default(),
    )
    .and_then(|engine| {
        let plan = engine.plan(history)?;
        Ok((engine, plan))
    });
    match planned {
        Ok((engine, plan)) => Present::Planned(Box::new(Planned {
            engine,
            plan,
            assumed,
        })),
        Err(Failure::Problems(problems)) => {
            let first = problems.first().map_or_else(String::new, |problem| {
                format!(": {}: {}", problem.at, problem.message)
            });
            Present::Unknown(format!("the playbook cannot be run as it is{first}"))
        }
        Err(failure) => Present::Unknown(failure.message()),
    }
}

/// The `-e` arguments of a command line.
fn given_variables(words: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "-e" || word == "--extra-vars" {
            found.extend(words.next().cloned());
        } else if let Some(value) = word
            .strip_prefix("--extra-vars=")
            .or_else(|| word.strip_prefix("-e").filter(|_| !word.starts_with("--")))
        {
            found.push(value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_command_line_are_found_in_every_spelling() {
        let words = [
            "x",
            "run",
            "p.yaml",
            "-e",
            "@a",
            "-eb=1",
            "--extra-vars",
            "c=2",
            "--extra-vars=d=3",
            "--yes",
        ];
        let found = given_variables(&words.map(str::to_owned));
        assert_eq!(found, ["@a", "b=1", "c=2", "d=3"]);
    }
}
