//! One question to every host: `stop`, `status -i`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::super::args::{Global, HostsArgs, Output};
use super::super::extra_vars::ExtraVars;
use super::super::rollback::whole_playbook;
use super::super::vault::vault;
use super::super::{Done, run};
use super::choose::{Chosen, choose};
use super::wires::Wires;
use super::{fleet, worst};
use crate::event::EVENT_VERSION;
use crate::remote::{Fleet, RemoteError, SshConnection};

/// Asks them one after the other, and prints a line for each.
pub(super) fn every(
    global: &Global,
    playbook: &Path,
    hosts: &HostsArgs,
    ask: impl AsyncFn(&Fleet, &SshConnection, &Chosen) -> Result<(Value, String), RemoteError>,
) -> Done {
    let chosen = choose(
        &whole_playbook(playbook, &[]),
        hosts,
        &ExtraVars::default(),
        &vault(global)?,
    )?
    .hosts;
    let fleet = fleet(playbook, hosts)?;
    let wires = Wires::new(hosts, &chosen)?;
    let widths = chosen.iter().map(|chosen| chosen.host.name.len());
    let width = widths.max().unwrap_or(0);
    let code = run::runtime()?.block_on(async {
        let mut codes = Vec::new();
        for chosen in &chosen {
            let (wire, name) = (wires.to(chosen), &chosen.host.name);
            let answer = ask(&fleet, &wire, chosen).await;
            match (answer, global.output) {
                (Ok((_, text)), Output::Text) => println!("{name:<width$}  {text}"),
                (Ok((value, _)), Output::Json) => println!(
                    "{}",
                    json!({"v": EVENT_VERSION, "event": "host", "host": name, "answer": value})
                ),
                (Err(error), output) => {
                    codes.push(error.exit());
                    tell_error(output, name, width, &error);
                }
            }
        }
        worst(&codes)
    });
    Ok(ExitCode::from(code))
}

/// Why a host cannot be asked.
pub(super) fn tell_error(output: Output, host: &str, width: usize, error: &RemoteError) {
    match output {
        Output::Text => {
            eprintln!("{host:<width$}  {error} [{}]", error.code());
            if let Some(help) = error.help() {
                eprintln!("{:width$}  help: {help}", "");
            }
        }
        Output::Json => println!(
            "{}",
            json!({
                "v": EVENT_VERSION, "event": "host_failed", "host": host, "code": error.code(),
                "message": error.to_string(), "help": error.help(),
            })
        ),
    }
}

/// One line about a host's state.
pub(super) fn in_short(status: &Value) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in status["tasks"].as_array().into_iter().flatten() {
        *counts
            .entry(task["state"].as_str().unwrap_or("?"))
            .or_default() += 1;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(word, count)| format!("{word}={count}"))
        .collect();
    let last = status["runs"].as_array().and_then(|runs| runs.last());
    let outcome = last.and_then(|run| run["outcome"].as_str());
    let outcome = match (status["running"].as_str(), outcome) {
        (Some(_), _) => "at work",
        (None, Some(outcome)) => outcome,
        (None, None) => "broken off",
    };
    format!("{outcome}: {}", counts.join(" "))
}
