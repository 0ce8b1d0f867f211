//! What is shipped and shown is well-formed: every playbook, and every example in the documents.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use lab::agent;
use lab::migration::{Ended, Running};

type Outcome = Result<(), Box<dyn Error>>;

fn syntax_check(playbook: &Path, more: &[&str]) -> Result<Ended, Box<dyn Error>> {
    let mut command = Command::new(agent::binary()?);
    command
        .args(["run", "--syntax-check"])
        .arg(playbook)
        .args(more);
    Ok(Running::start(&mut command)?.end()?)
}

#[test]
fn every_shipped_playbook_is_well_formed() -> Outcome {
    let mut checked = 0;
    for entry in fs::read_dir(agent::workspace().join("playbooks"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let is_yaml = path
            .extension()
            .is_some_and(|end| end == "yaml" || end == "yml");
        if !is_yaml {
            continue;
        }
        match kind(&text) {
            Kind::Playbook => syntax_check(&path, &[])?.must_have(0)?,
            Kind::Tasks => check_tasks(&text)?,
            Kind::Other => continue,
        }
        checked += 1;
    }
    assert!(checked >= 2, "only {checked} files were found to check");
    Ok(())
}

#[test]
fn every_example_in_the_documents_is_well_formed() -> Outcome {
    let mut checked = 0;
    for document in ["README.md", "playbooks/README.md", "agent/README.md"] {
        let path = agent::workspace().join(document);
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (line, example) in examples(&text) {
            let outcome = match kind(&example) {
                Kind::Playbook => check_playbook(&example),
                Kind::Tasks => check_tasks(&example),
                Kind::Other => continue,
            };
            outcome.map_err(|error| format!("{document}:{line}: {error}"))?;
            checked += 1;
        }
    }
    println!("{checked} examples");
    Ok(())
}

enum Kind {
    Playbook,
    Tasks,
    /// Variables, an inventory, a part of a task.
    Other,
}

/// A play has `hosts` or imports a playbook; any other list is one of tasks.
fn kind(text: &str) -> Kind {
    let mut lines = text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    if !lines
        .clone()
        .next()
        .is_some_and(|line| line.starts_with("- "))
    {
        return Kind::Other;
    }
    let is_play = |line: &str| {
        let key = line
            .strip_prefix("- ")
            .or_else(|| line.strip_prefix("  "))
            .unwrap_or_default();
        key.starts_with("hosts:") || key.contains("import_playbook:")
    };
    if lines.any(is_play) {
        Kind::Playbook
    } else {
        Kind::Tasks
    }
}

fn check_playbook(text: &str) -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("example.yaml");
    fs::write(&path, text)?;
    // An example may name the shipped files beside it.
    for entry in fs::read_dir(agent::workspace().join("playbooks"))?.flatten() {
        if entry.path().is_file() {
            fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
        }
    }
    must_be_known(&syntax_check(&path, &[])?)
}

fn check_tasks(text: &str) -> Outcome {
    let indented: String = text.lines().map(|line| format!("    {line}\n")).collect();
    check_playbook(&format!("- hosts: localhost\n  tasks:\n{indented}"))
}

/// An example may leave variables, files and handlers to the reader; anything else must be right.
fn must_be_known(ended: &Ended) -> Outcome {
    const LEFT_TO_THE_READER: [&str; 5] = [
        "playbook::undefined",
        "playbook::file",
        "playbook::unknown_handler",
        // A list of tasks may be undone by a task of the playbook that includes it.
        "playbook::unknown_undone_by",
        // And looked at until another task of it begins.
        "playbook::unknown_again_until",
    ];
    let codes = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with("playbook::"));
    let wrong: Vec<&str> = codes
        .filter(|code| !LEFT_TO_THE_READER.contains(code))
        .collect();
    // Warnings are told too, under codes of their own, and are no mistakes.
    if ended.code == Some(0) || wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{wrong:?}\n{}", ended.stderr).into())
}

/// The blocks marked as YAML, with their lines.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            Some(_) if line.trim_start().starts_with("```") => found.extend(open.take()),
            Some((_, example)) => {
                example.push_str(line);
                example.push('\n');
            }
            None if line.trim() == "```yaml" => open = Some((index + 2, String::new())),
            None => {}
        }
    }
    found
}
