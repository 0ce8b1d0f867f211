//! Commands that look back, on a state that a real migration left: what they print, and whether it is
//! true.

use std::fs;
use std::process::Command;

use lab::agent::{holds_tasks, workspace};
use lab::error::LabError;
use lab::fixture::Migrated;
use lab::golden::assert_golden;
use lab::{apt, tool};
use serde_json::Value;

/// Head of the fixture's journal after its last record.
fn head(site: &Migrated) -> Result<String, LabError> {
    let playbook = Migrated::playbook();
    let printed = site.run(&[
        "state",
        "verify",
        "--no-outputs",
        "--output",
        "json",
        &playbook,
    ])?;
    let found: Value = serde_json::from_slice(&printed.stdout).expect("one JSON object");
    Ok(found["head"].as_str().expect("a head").to_owned())
}

#[test]
fn every_command_prints_what_its_golden_text_says() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let playbook = Migrated::playbook();
    let playbook = playbook.as_str();
    let cases: &[(&str, &[&str])] = &[
        ("status.txt", &["status", playbook]),
        ("status-alone.txt", &["status"]),
        ("history.txt", &["history", playbook]),
        ("plan.txt", &["plan", playbook, "-e", "@my-site.yaml"]),
        (
            "plan-changed.txt",
            &[
                "plan",
                playbook,
                "-e",
                "@my-site.yaml",
                "-e",
                "backup_dir=/elsewhere",
            ],
        ),
        ("show-dump.txt", &["show", playbook, "dump-old"]),
        ("show-killed.txt", &["show", playbook, "restore-work"]),
        (
            "show-changed.txt",
            &[
                "show",
                playbook,
                "dump-old",
                "-e",
                "@my-site.yaml",
                "-e",
                "backup_dir=/elsewhere",
            ],
        ),
        ("show-skipped.txt", &["show", playbook, "verify-old-again"]),
        ("show-unknown.txt", &["show", playbook, "dumpold"]),
        ("verify.txt", &["state", "verify", playbook]),
        (
            "verify-wrong-head.txt",
            &[
                "state",
                "verify",
                "--no-outputs",
                playbook,
                "--head",
                "00ff",
            ],
        ),
        (
            "resolve-unknown.txt",
            &[
                "resolve",
                playbook,
                "nothing",
                "--done",
                "--reason",
                "x",
                "-e",
                "@my-site.yaml",
            ],
        ),
        ("modules.txt", &["modules"]),
        (
            "modules-postgresql_script.txt",
            &["modules", "postgresql_script"],
        ),
        ("modules-unknown.txt", &["modules", "comand"]),
        ("help.txt", &["--help"]),
    ];
    for (name, words) in cases {
        assert_golden(name, &site.transcript(words)?);
    }
    Ok(())
}

#[test]
fn json_has_everything_that_the_text_has() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let playbook = Migrated::playbook();
    let one = |words: &[&str]| -> Result<Value, LabError> {
        let output = site.run(&[words, &["--output", "json"]].concat())?;
        Ok(serde_json::from_slice(&output.stdout).expect("one JSON object"))
    };
    let status = one(&["status", &playbook])?;
    assert_eq!(
        status["tasks"].as_array().map(Vec::len),
        Some(69),
        "{status}"
    );
    assert_eq!(status["services"].as_array().map(Vec::len), Some(3));
    assert_eq!(status["next"]["entries"][0]["action"], "done");
    let history = one(&["history", &playbook])?;
    assert_eq!(
        history["runs"][0]["outcome"],
        Value::Null,
        "the first run was killed"
    );
    assert_eq!(history["runs"][1]["outcome"], "done");
    let show = one(&["show", &playbook, "restore-work"])?;
    let attempts = show["attempts"].as_array().expect("attempts");
    assert_eq!(attempts.len(), 2, "one was killed, one came to its end");
    assert_eq!(attempts[0]["end"], Value::Null);
    assert_eq!(attempts[1]["end"]["status"], "changed");
    assert_eq!(show["fingerprint"][0]["same"], true);
    Ok(())
}

#[test]
fn a_noted_head_proves_that_nothing_was_cut_off() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let playbook = Migrated::playbook();
    let noted = head(&site)?;
    let verify = || {
        site.run(&[
            "state",
            "verify",
            "--no-outputs",
            &playbook,
            "--head",
            &noted,
        ])
    };
    assert!(verify()?.status.success());
    let journal = fs::read_to_string(site.journal()).expect("the journal");
    let cut = journal.trim_end().rfind('\n').expect("several lines");
    fs::write(site.journal(), &journal[..=cut]).expect("write");
    // Without the noted head the shorter journal is as good as any.
    assert!(
        site.run(&["state", "verify", "--no-outputs", &playbook])?
            .status
            .success()
    );
    let refused = verify()?;
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("state::head_missing"));
    Ok(())
}

#[test]
fn a_changed_byte_anywhere_in_the_journal_is_found() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let playbook = Migrated::playbook();
    let good = fs::read(site.journal()).expect("the journal");
    // Every byte is a matter of unit tests; here places all over the real thing, ends of lines too.
    let line_end = good.iter().position(|byte| *byte == b'\n').expect("lines");
    let places = (0..good.len())
        .step_by(good.len() / 60)
        .chain([line_end, good.len() - 1]);
    for place in places {
        let mut altered = good.clone();
        altered[place] ^= 4;
        fs::write(site.journal(), &altered).expect("write");
        let output = site.run(&["state", "verify", "--no-outputs", &playbook])?;
        let told = String::from_utf8_lossy(&output.stdout).contains("cut short");
        // The last line's end is the one byte whose loss looks like a crash, and is told as one.
        let found = output.status.code() == Some(5) || (place + 1 == good.len() && told);
        assert!(found, "byte {place} was changed unnoticed");
    }
    Ok(())
}

#[test]
fn an_exported_archive_verifies_with_the_agent_and_with_plain_tools() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let playbook = Migrated::playbook();
    assert!(
        site.run(&["state", "export", &playbook, "-o", "site.tar"])?
            .status
            .success()
    );
    let verify = site.run(&["state", "verify", "--archive", "site.tar"])?;
    let told = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert!(
        verify.status.success() && told.contains(&head(&site)?),
        "{told}"
    );
    let by_hand = "mkdir x && tar -C x -xf site.tar && cd x/* && sha256sum --strict -c SHA256SUMS";
    let mut plain = Command::new("sh");
    plain.args(["-c", by_hand]).current_dir(site.path());
    let told = tool::run(&mut plain, "verify by hand")?;
    assert!(
        told.contains("journal.jsonl: OK") && told.contains("MANIFEST.json: OK"),
        "{told}"
    );
    // Somebody changes a log and packs the archive again.
    let forge = "cd x && echo more >> $(ls -d */runs/*/* | head -n 1) && tar -cf ../forged.tar $(find * -type f)";
    let mut forged = Command::new("sh");
    forged.args(["-c", forge]).current_dir(site.path());
    tool::run(&mut forged, "change the archive")?;
    let refused = site.run(&["state", "verify", "--archive", "forged.tar"])?;
    assert_eq!(refused.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not what was exported"));
    Ok(())
}

/// Reads a schema and playbooks; prints the names of those that do not fit.
const VALIDATE: &str = r"
import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
for name in sys.argv[2:]:
    errors = list(validator.iter_errors(yaml.safe_load(open(name))))
    if errors:
        print(name, '|', jsonschema.exceptions.best_match(errors).message[:200].replace('\n', ' '))
";

/// Playbooks that an editor must complain about, each with what is wrong.
const WRONG: &[(&str, &str)] = &[
    (
        "unknown module",
        "- hosts: localhost\n  tasks:\n    - comand: ls\n",
    ),
    (
        "two modules",
        "- hosts: localhost\n  tasks:\n    - command: ls\n      stat: {path: /x}\n",
    ),
    (
        "no module",
        "- hosts: localhost\n  tasks:\n    - name: nothing\n",
    ),
    (
        "unknown argument",
        "- hosts: localhost\n  tasks:\n    - stat: {pth: /x}\n",
    ),
    (
        "missing argument",
        "- hosts: localhost\n  tasks:\n    - postgresql_script: {db: x}\n",
    ),
    (
        "wrong type",
        "- hosts: localhost\n  tasks:\n    - postgresql_snapshot: {connections: many}\n",
    ),
    (
        "wrong word",
        "- hosts: localhost\n  tasks:\n    - file: {path: /x, state: there}\n",
    ),
    (
        "unknown keyword of a play",
        "- hosts: localhost\n  taks: []\n  tasks: []\n",
    ),
    (
        "unknown keyword of a task",
        "- hosts: localhost\n  tasks:\n    - stat: {path: /x}\n      wen: true\n",
    ),
    (
        "id with a template",
        "- hosts: localhost\n  tasks:\n    - stat: {path: /x}\n      id: \"{{ x }}\"\n",
    ),
    ("no list", "hosts: localhost\n"),
    (
        "loop without a list",
        "- hosts: localhost\n  tasks:\n    - stat: {path: /x}\n      loop: things\n",
    ),
    (
        "service without a container",
        "- hosts: localhost\n  tasks:\n    - services: [{name: x}]\n      block: []\n",
    ),
];

#[test]
fn the_schema_takes_every_shipped_playbook_and_no_wrong_one() -> Result<(), LabError> {
    apt::ensure_python("jsonschema", "python3-jsonschema")?;
    apt::ensure_python("yaml", "python3-yaml")?;
    let site = Migrated::new()?;
    let schema = site.run(&["schema"])?;
    fs::write(site.path().join("schema.json"), schema.stdout).expect("write");
    let mut names: Vec<String> = fs::read_dir(workspace().join("playbooks"))
        .expect("playbooks")
        .map(|entry| entry.expect("entry").path().display().to_string())
        .filter(|name| holds_tasks(name))
        .collect();
    assert!(names.len() >= 2, "{names:?}");
    // Every module's example is a task that an editor must take.
    let modules = site.run(&["modules", "--output", "json"])?;
    for line in String::from_utf8_lossy(&modules.stdout).lines() {
        let module: Value = serde_json::from_str(line).expect("a JSON object a line");
        let name = format!(
            "example-{}.yaml",
            module["module"].as_str().expect("a name")
        );
        let example = module["example"].as_str().expect("an example");
        fs::write(site.path().join(&name), example).expect("write");
        names.push(name);
    }
    for (what, text) in WRONG {
        let name = format!("wrong-{}.yaml", what.replace(' ', "-"));
        fs::write(site.path().join(&name), text).expect("write");
        names.push(name);
    }
    let mut python = Command::new("/usr/bin/python3");
    python
        .args(["-c", VALIDATE, "schema.json"])
        .args(&names)
        .current_dir(site.path());
    let found = tool::run(&mut python, "validate playbooks")?;
    let refused: Vec<&str> = found.lines().collect();
    let good: Vec<_> = refused
        .iter()
        .filter(|line| !line.starts_with("wrong-"))
        .collect();
    assert!(
        good.is_empty(),
        "the schema refuses what is right: {good:#?}"
    );
    assert_eq!(
        refused.len(),
        WRONG.len(),
        "the schema takes what is wrong: {refused:#?}"
    );
    // The agent itself refuses them too: the schema is no stricter than it.
    for (what, _) in WRONG {
        let name = format!("wrong-{}.yaml", what.replace(' ', "-"));
        let judged = site.run(&["run", "--syntax-check", &name])?;
        assert_eq!(judged.status.code(), Some(5), "{what}");
    }
    Ok(())
}

#[test]
fn completions_and_the_manual_page_are_understood_by_those_who_read_them() -> Result<(), LabError> {
    let site = Migrated::new()?;
    let script = site.run(&["completions", "bash"])?;
    fs::write(site.path().join("complete.bash"), &script.stdout).expect("write");
    let ask = "source complete.bash; COMP_WORDS=(kaapana-agent hi); COMP_CWORD=1; \
               _kaapana__agent kaapana-agent hi kaapana-agent; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    bash.args(["-c", ask]).current_dir(site.path());
    assert_eq!(tool::run(&mut bash, "complete a word")?.trim(), "history");
    let page = site.run(&["man"])?;
    let text = String::from_utf8_lossy(&page.stdout).into_owned();
    for part in [".SH NAME", ".SH SYNOPSIS", "\\-\\-state\\-dir", "report"] {
        assert!(text.contains(part), "{part} is missing");
    }
    Ok(())
}

/// A playbook that shows most kinds of events.
const EVENTS: &str = r#"
- name: Events
  hosts: localhost
  handlers:
    - name: Told
      command: echo told
  tasks:
    - name: Print something
      command: echo hello
      notify: Told
    - name: Not needed
      command: echo never
      when: false
    - name: Once for each
      debug: {msg: "{{ item }}"}
      loop: [a, b]
    - name: Does not matter
      command: sh -c 'exit 4'
      ignore_errors: true
    - block:
        - name: Goes wrong
          fail: {msg: on purpose}
      rescue:
        - name: Saved
          debug: {msg: saved}
"#;

/// Members whose value differs from run to run.
const VARYING: &[&str] = &[
    "time",
    "run",
    "host",
    "duration_ms",
    "left_ms",
    "start",
    "end",
    "delta",
];

fn without_what_varies(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| {
                let varies = VARYING.contains(&key.as_str()) && !value.is_null();
                let value = if varies {
                    "…".into()
                } else {
                    without_what_varies(value)
                };
                (key, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(without_what_varies).collect(),
        other => other,
    }
}

#[test]
fn the_stream_of_events_is_a_public_format() -> Result<(), LabError> {
    let site = Migrated::new()?;
    fs::write(site.path().join("playbooks/events.yaml"), EVENTS).expect("write");
    let words = ["run", "playbooks/events.yaml", "--output", "json"];
    let mut text = String::new();
    let mut ids = Vec::new();
    for run in ["the first run", "the second run"] {
        let output = site.run(&words)?;
        text.push_str(&format!(
            "--- {run}, exit status {:?}\n",
            output.status.code()
        ));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let event: Value = serde_json::from_str(line).expect("a JSON object a line");
            assert_eq!(event["v"], 1, "{line}");
            ids.extend(event["run"].as_str().map(str::to_owned));
            text.push_str(&format!("{}\n", without_what_varies(event)));
        }
    }
    for id in ids {
        text = text.replace(&id, "RUN");
    }
    assert_golden("events.jsonl", &text);
    Ok(())
}

#[test]
fn the_log_file_has_in_detail_what_the_terminal_leaves_out() -> Result<(), LabError> {
    let site = Migrated::new()?;
    fs::write(site.path().join("playbooks/events.yaml"), EVENTS).expect("write");
    let output = site.run(&["run", "playbooks/events.yaml", "--log-file", "agent.log"])?;
    let log = fs::read_to_string(site.path().join("agent.log")).expect("the log");
    assert!(
        log.contains("run{playbook=events}"),
        "the span of the run: {log}"
    );
    assert!(
        log.contains("task{task=Events / Print something}"),
        "the span of a task: {log}"
    );
    assert!(
        log.contains("hello") && log.contains("run finished"),
        "{log}"
    );
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !told.contains("hello") && !told.contains('\u{1b}'),
        "{told}"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn colour_and_width_are_the_terminals_business() -> Result<(), LabError> {
    // `script` gives the agent a terminal of its own.
    let site = Migrated::new()?;
    let seen = |columns: u32, setting: &str| -> Result<String, LabError> {
        let command = site.command(&["status", &Migrated::playbook()]);
        let line = format!(
            "stty rows 24 cols {columns}; {setting} {:?} status {}",
            command.get_program(),
            Migrated::playbook()
        );
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env_remove("NO_COLOR");
        tool::run(
            terminal.current_dir(site.path()),
            "give the agent a terminal",
        )
    };
    let coloured = seen(80, "")?;
    assert!(coloured.contains("\u{1b}[32mok"), "{coloured}");
    let plain = seen(80, "NO_COLOR=1")?;
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let widest = |text: &str| {
        text.lines()
            .map(|line| line.trim_end().chars().count())
            .max()
    };
    let list = |text: &str| -> String {
        let lines = text
            .lines()
            .filter(|line| line.contains(" run 1 ") || line.contains(" run 2 "));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(widest(&list(&plain)) <= Some(80), "{plain}");
    assert!(widest(&list(&seen(200, "NO_COLOR=1")?)) > Some(120));
    Ok(())
}
