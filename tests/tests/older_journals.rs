//! Journals that an older agent wrote, cut behind every record: the agent and the playbooks of today know
//! what is done, what is open and what is left, and ask nothing. `fixtures/state/v2-…` are whole journals of
//! real migrations, one for each way; `lab journals` made them. No container is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lab::agent::{self, PLAYBOOK};
use lab::way::Way;
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Tasks that the shipped playbooks have got since, by the end of their identity.
const ADDED: [&str; 3] = ["backup-place", "image-versions", "images-fit"];

/// What a journal says of a task at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Open,
    Finished,
}

/// What is known behind a record, told by the records alone.
fn known_by(records: &[Value]) -> BTreeMap<&str, Known> {
    let mut known = BTreeMap::new();
    for record in records {
        let state = match record["event"].as_str() {
            Some("task_started") => Known::Open,
            Some("task_finished") => Known::Finished,
            _ => continue,
        };
        known.insert(record["task"].as_str().unwrap_or_default(), state);
    }
    known
}

/// Where the plan has not come to a loop's items yet, the whole loop stands for them.
fn without_item(task: &str) -> &str {
    task.rsplit_once(" [").map_or(task, |(base, _)| base)
}

/// One journal, and where it is cut.
struct Older {
    dir: PathBuf,
    lines: Vec<String>,
    records: Vec<Value>,
}

impl Older {
    fn read(dir: PathBuf) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let text = fs::read_to_string(dir.join(PLAYBOOK).join("journal.jsonl"))?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let records = lines
            .iter()
            .map(|line| serde_json::from_str(line))
            .collect::<Result<Vec<Value>, _>>()?;
        Ok(Self {
            dir,
            lines,
            records,
        })
    }

    /// Cuts the journal behind so many records and asks the agent of today.
    fn plan(&self, count: usize, binary: &Path) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let state = tempfile::tempdir()?;
        let folder = state.path().join(PLAYBOOK);
        fs::create_dir(&folder)?;
        let mut text = self.lines[..count].join("\n");
        text.push('\n');
        fs::write(folder.join("journal.jsonl"), text)?;
        fs::copy(
            self.dir.join(PLAYBOOK).join("state-id"),
            folder.join("state-id"),
        )?;
        let output = Command::new(binary)
            .args(["plan", "--output", "json"])
            .arg(agent::shipped_playbook())
            .arg("-e")
            .arg(format!("@{}", self.dir.join("site.yaml").display()))
            .arg("--state-dir")
            .arg(state.path())
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(0) || said.contains("damaged") {
            let printed = String::from_utf8_lossy(&output.stdout);
            let asked: Vec<&str> = printed
                .split("},{")
                .filter(|e| e.contains("\"decide\""))
                .collect();
            return Err(format!("{}: {said}\n{asked:#?}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// What is wrong with the plan behind so many records.
    fn wrong(&self, count: usize, plan: &Value) -> Vec<String> {
        let now = known_by(&self.records[..count]);
        let whole = known_by(&self.records);
        let mut wrong = Vec::new();
        let orphans = plan["plan"]["orphans"].as_array();
        if orphans.is_none_or(|orphans| !orphans.is_empty()) {
            wrong.push(format!(
                "no longer in the playbook: {}",
                plan["plan"]["orphans"]
            ));
        }
        let mut planned = BTreeSet::new();
        for entry in plan["plan"]["entries"].as_array().into_iter().flatten() {
            let task = entry["task"].as_str().unwrap_or_default();
            let action = entry["action"].as_str().unwrap_or_default();
            planned.insert(task);
            let is_added = ADDED.iter().any(|end| task.ends_with(end));
            let is_in_order = match (now.get(task), action) {
                (Some(Known::Finished), "done") => true,
                // What may have changed since is looked at again, as long as its effect is still to come.
                (Some(Known::Finished), "run") => {
                    agent::is_looked_at_again(task)
                        && entry["why"]
                            .as_str()
                            .is_some_and(|why| why.starts_with("looked at again"))
                }
                // With what such a look finds now.
                (Some(_), "later") => agent::is_looked_at_again(task),
                // A look is taken again; whatever has effects finds out what became of them.
                (Some(Known::Open), "run" | "recover") => true,
                // What is left is what came after the cut.
                (None, "run") => whole.contains_key(task) || is_added,
                (None, "later" | "skip") => true,
                _ => false,
            };
            // A condition that is false now was false then.
            let is_skipped_rightly = action != "skip"
                || !whole.contains_key(task)
                || entry["why"] == "its tags are not asked for";
            if !is_in_order || !is_skipped_rightly {
                wrong.push(format!(
                    "`{task}` is {:?} and would be `{action}`: {}",
                    now.get(task),
                    entry["why"]
                ));
            }
        }
        for task in whole.keys() {
            if !planned.contains(task) && !planned.contains(without_item(task)) {
                wrong.push(format!("`{task}` is not in the plan"));
            }
        }
        wrong
    }
}

#[test]
fn from_every_record_of_an_older_journal_what_is_left_is_exactly_what_came_after_it() -> Outcome {
    let binary = agent::binary()?;
    let fixtures = agent::workspace().join("tests/fixtures/state");
    let mut cuts = Vec::new();
    for way in Way::ALL {
        let older = Older::read(fixtures.join(format!("v2-{}", way.name())))?;
        assert!(older.records.iter().all(|record| record["v"] == 2));
        assert!(
            older.records.len() > 100,
            "{} is no whole journal",
            way.name()
        );
        let older = std::sync::Arc::new(older);
        cuts.extend((1..=older.records.len()).map(|count| (std::sync::Arc::clone(&older), count)));
    }
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((older, count)) = cuts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = match older.plan(*count, &binary) {
                        Ok(plan) => older.wrong(*count, &plan),
                        Err(error) => vec![error.to_string()],
                    };
                    if !found.is_empty() {
                        let name = older.dir.file_name().unwrap_or_default().to_string_lossy();
                        let text = format!("{name}, behind record {count}: {found:#?}");
                        wrong
                            .lock()
                            .unwrap_or_else(|poisoned| poisoned.into_inner())
                            .push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    assert!(
        wrong.is_empty(),
        "{} of {} cuts, the first of them:\n{}",
        wrong.len(),
        cuts.len(),
        wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n")
    );
    Ok(())
}
