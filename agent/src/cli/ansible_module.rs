//! The agent as an Ansible binary module: Ansible copies the binary to a host as `kaapana_agent`, starts it
//! with the path of a JSON file of arguments, and reads one JSON object from its standard output (Ansible's
//! developer guide, "binary modules"). The playbook must be on the host already, with `copy` for instance.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{Global, Output, PlaybookArgs};
use super::confirm::Terminal;
use super::exit::Failure;
use super::extra_vars::ExtraVars;
use super::{door, locate, run};
use crate::engine::{Host, RunEnd};
use crate::event::{Event, Stats, Status};
use crate::vault::Vault;

/// Ansible's own keys begin so.
const ANSIBLES: &str = "_ansible_";

/// What a task gives to the module.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    playbook: PathBuf,
    #[serde(default)]
    extra_vars: Map<String, Value>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    skip_tags: Vec<String>,
    state_dir: Option<PathBuf>,
    /// Confirms every `pause`. Not `yes`, as the option is called: that key is a boolean to Ansible.
    #[serde(default, deserialize_with = "truth")]
    confirm: bool,
}

/// A yes or no; a text, as templates give it before ansible-core 2.19 and `-e key=value` in all of them.
fn truth<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    match Value::deserialize(value)? {
        Value::Bool(truth) => Ok(truth),
        Value::String(text) => match text.to_lowercase().as_str() {
            "yes" | "true" | "on" | "1" => Ok(true),
            "no" | "false" | "off" | "0" => Ok(false),
            _ => Err(serde::de::Error::custom(format!(
                "`{text}` is neither yes nor no"
            ))),
        },
        other => Err(serde::de::Error::custom(format!(
            "{other} is neither yes nor no"
        ))),
    }
}

/// The file of arguments, where Ansible is who calls: one argument, which names a JSON object with keys of
/// Ansible's own.
pub(super) fn called_by_ansible() -> Option<Map<String, Value>> {
    let mut words = std::env::args_os().skip(1);
    let (path, more) = (words.next()?, words.next());
    if more.is_some() || !Path::new(&path).is_absolute() {
        return None;
    }
    let text = std::fs::read(path).ok()?;
    let arguments: Map<String, Value> = serde_json::from_slice(&text).ok()?;
    let is_ansibles = arguments.keys().any(|key| key.starts_with(ANSIBLES));
    is_ansibles.then_some(arguments)
}

/// Runs the playbook and prints the one object that Ansible reads.
pub(super) fn module(mut arguments: Map<String, Value>) -> ExitCode {
    let asked = |key: &str| arguments.get(key).is_some_and(|value| value == true);
    let (check, diff) = (asked("_ansible_check_mode"), asked("_ansible_diff"));
    arguments.retain(|key, _| !key.starts_with(ANSIBLES));
    let result = match serde_json::from_value::<Arguments>(Value::Object(arguments)) {
        Ok(arguments) => ran(arguments, check, diff),
        Err(error) => json!({
            "failed": true, "changed": false, "code": "arguments::ansible",
            "msg": format!(
                "arguments of kaapana_agent: {error}; it takes playbook, extra_vars, tags, skip_tags, \
                 state_dir and confirm"
            ),
        }),
    };
    println!("{result}");
    ExitCode::from(u8::from(result["failed"] == true))
}

fn ran(arguments: Arguments, check: bool, diff: bool) -> Value {
    let global = Global {
        state_dir: arguments.state_dir.as_deref().map(door::absolute),
        output: Output::Json,
        verbose: 0,
        log_file: None,
        vault_password_file: Vec::new(),
        ask_vault_pass: false,
    };
    let args = PlaybookArgs {
        playbook: door::absolute(&arguments.playbook),
        extra_vars: Vec::new(),
        tags: arguments.tags,
        skip_tags: arguments.skip_tags,
    };
    let cancel = CancellationToken::new();
    let ask = Terminal {
        yes: arguments.confirm,
        user: "ansible".into(),
        cancel: cancel.clone(),
        screen: None,
        // Ansible gives it a terminal where sudo may ask; whoever reads it is Ansible.
        instead: Some("`confirm: true`"),
    };
    let more = locate::RunChoices {
        outside: Some(locate::HostInputs {
            host: Host::default(),
            extra_vars: ExtraVars::of(arguments.extra_vars),
            operator: "ansible".into(),
            vault: Vault::default(),
            drain: None,
        }),
        ..locate::RunChoices::checking(check)
    };
    let told = Arc::new(Mutex::new(RunAnswer::default()));
    let hear = Arc::clone(&told);
    let events: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(move |event| {
        hear.lock().unwrap_or_else(|e| e.into_inner()).event(event);
    });
    let ended = locate::engine(&global, &args, ask, cancel.clone(), more).and_then(|engine| {
        let end = run::runtime()?.block_on(async {
            tokio::spawn(run::interrupt(cancel));
            engine.run(&events).await
        })?;
        Ok((end, engine.state_dir().path().to_path_buf()))
    });
    let told = told.lock().unwrap_or_else(|e| e.into_inner());
    let mut result = match ended {
        Ok((end, state_dir)) => {
            let failed = !matches!(end, RunEnd::Done);
            let msg = told.in_words(&end);
            json!({
                "failed": failed, "changed": told.stats.changed > 0, "msg": msg,
                "stats": told.stats, "tasks": told.tasks, "state_dir": state_dir,
            })
        }
        Err(failure) => json!({
            "failed": true, "changed": told.stats.changed > 0, "msg": failure.in_words(),
            "tasks": told.tasks,
        }),
    };
    if diff {
        let changes: String = told
            .changes
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        result["diff"] = json!([{"prepared": changes}]);
    }
    result
}

/// What the run said.
#[derive(Default)]
struct RunAnswer {
    tasks: Vec<Value>,
    changes: Vec<String>,
    failures: Vec<String>,
    stats: Stats,
}

impl RunAnswer {
    fn event(&mut self, event: Event) {
        match event {
            Event::TaskFinished {
                task,
                status,
                summary,
                duration_ms,
                ..
            } => {
                let line = match &summary {
                    Some(summary) => format!("{task}: {summary}"),
                    None => task.clone(),
                };
                match status {
                    Status::Changed => self.changes.push(line),
                    Status::Failed => self.failures.push(line),
                    _ => {}
                }
                self.tasks.push(json!({
                    "task": task, "status": status, "summary": summary, "duration_ms": duration_ms,
                }));
            }
            Event::RunFinished { stats, .. } => self.stats = stats,
            _ => {}
        }
    }

    fn in_words(&self, end: &RunEnd) -> String {
        match end {
            RunEnd::Done => format!(
                "{} changed, {} done before",
                self.stats.changed, self.stats.done
            ),
            RunEnd::Interrupted => "interrupted; the next run continues".into(),
            RunEnd::DecisionNeeded(entries) => {
                let tasks: Vec<String> = entries
                    .iter()
                    .map(|entry| format!("{}: {}", entry.task, entry.why))
                    .collect();
                format!(
                    "an operator has to decide first (`kaapana-agent plan` on the host says more): {}",
                    tasks.join("; ")
                )
            }
            RunEnd::Failed => self.failures.join("; "),
        }
    }
}

impl Failure {
    /// All of it in one text, places included.
    fn in_words(&self) -> String {
        match self {
            Self::Problems(problems) => {
                let lines: Vec<String> = problems
                    .iter()
                    .map(|problem| {
                        let (line, column) = problem.at.line_column();
                        let help = problem.help.as_ref();
                        let help = help.map_or_else(String::new, |help| format!(" ({help})"));
                        let file = problem.at.file.path.display();
                        format!("{file}:{line}:{column}: {}{help}", problem.message)
                    })
                    .collect();
                lines.join("; ")
            }
            other => other.message(),
        }
    }
}
