//! The same case under the agent.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Case, folder, neutral};
use crate::agent::binary;
use crate::error::LabError;

/// Runs a case in an empty folder; returns a record of each run. `said` is what the agent printed about
/// what failed or was refused, for whoever looks into a disagreement.
///
/// # Errors
/// It cannot be started.
pub fn run(case: &Case, root: &Path) -> Result<(Vec<Value>, String), LabError> {
    let state = super::place()?;
    let mut runs = Vec::new();
    let mut said = String::new();
    for arguments in &case.runs {
        let output = Command::new(binary()?)
            .args(["run", "--output", "json", "--yes"])
            .current_dir(folder().join("cases"))
            .arg(&case.playbook)
            .arg("--state-dir")
            .arg(state.path())
            .args(["-e", &format!("root={}", root.display())])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| LabError::Spawn {
                program: "kaapana-agent".into(),
                purpose: "run a case".into(),
                source,
            })?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let exit = match output.status.code() {
            Some(0) => "ok".to_owned(),
            Some(2) => "failed".to_owned(),
            Some(5) => "refused".to_owned(),
            other => format!("{other:?}"),
        };
        let mut tasks = Vec::new();
        let mut recap = Value::Null;
        for event in printed
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            match event["event"].as_str() {
                Some("task_finished") => {
                    let status = event["status"].as_str().unwrap_or_default();
                    if matches!(status, "failed" | "ignored") {
                        said.push_str(&format!("{}: {}\n", event["task"], event["summary"]));
                    }
                    // Said a second time of a task that failed.
                    if status != "rescued" {
                        let name = event["name"].as_str().unwrap_or_default();
                        tasks.push(json!(format!("{status}: {}", neutral(name, root))));
                    }
                }
                Some("run_finished") => {
                    recap = event["stats"].clone();
                    let done = recap["done"].as_u64().unwrap_or(0);
                    if let (Some(map), 0) = (recap.as_object_mut(), done) {
                        map.remove("done");
                    }
                }
                Some("problem" | "error" | "decision_needed") => {
                    said.push_str(&format!("{event}\n"))
                }
                _ => {}
            }
        }
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        runs.push(json!({"exit": exit, "tasks": tasks, "recap": recap}));
    }
    Ok((runs, said))
}
