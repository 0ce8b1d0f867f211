//! `vars_prompt`: asks for variables before anything runs.

use std::io::{BufRead, IsTerminal, Write, stdin};

use serde_json::{Map, Value};

use super::exit::Failure;
use super::vault::ask;
use crate::playbook::model::{Play, Prompt};
use crate::source::Problem;

/// Asks for what nothing has answered yet: `-e`, or an earlier play of the same playbook.
pub(super) fn answers(
    plays: &[Play],
    extra: &Map<String, Value>,
) -> Result<Map<String, Value>, Failure> {
    let mut answers = Map::new();
    let mut missing = Vec::new();
    for prompt in plays.iter().flat_map(|play| &play.prompts) {
        if extra.contains_key(&prompt.name) || answers.contains_key(&prompt.name) {
            continue;
        }
        match answer(prompt) {
            Ok(text) => {
                answers.insert(prompt.name.clone(), text.into());
            }
            Err(reason) => missing.push(unanswered(prompt, &reason)),
        }
    }
    match missing.is_empty() {
        true => Ok(answers),
        false => Err(Failure::Problems(missing)),
    }
}

/// What stands for answers where nothing is run: the defaults, or nothing.
pub(super) fn defaults(plays: &[Play]) -> Map<String, Value> {
    let prompts = plays.iter().flat_map(|play| &play.prompts);
    prompts
        .filter_map(|prompt| Some((prompt.name.clone(), prompt.default.clone()?.into())))
        .collect()
}

fn unanswered(prompt: &Prompt, reason: &str) -> Problem {
    Problem::new(
        "playbook::unanswered",
        &prompt.at,
        format!("nobody can be asked for `{}`: {reason}", prompt.name),
        "asked for here",
    )
    .with_help(format!("give it with `-e {}=…`", prompt.name))
}

fn answer(prompt: &Prompt) -> Result<String, String> {
    if !stdin().is_terminal() {
        return prompt
            .default
            .clone()
            .ok_or_else(|| "standard input is no terminal".into());
    }
    loop {
        let first = typed(prompt, &prompt.prompt)?;
        let same =
            !prompt.confirm || typed(prompt, &format!("confirm {}", prompt.prompt))? == first;
        match (same, first.is_empty(), &prompt.default) {
            (false, ..) => eprintln!("the two answers differ"),
            (true, true, Some(default)) => return Ok(default.clone()),
            (true, ..) => return Ok(first),
        }
    }
}

fn typed(prompt: &Prompt, question: &str) -> Result<String, String> {
    let shown = match (&prompt.default, prompt.private) {
        (Some(default), false) => format!("{question} [{default}]: "),
        _ => format!("{question}: "),
    };
    if prompt.private {
        return ask(&shown);
    }
    let mut err = std::io::stderr();
    write!(err, "{shown}")
        .and_then(|()| err.flush())
        .map_err(|error| error.to_string())?;
    let mut line = String::new();
    stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| error.to_string())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
