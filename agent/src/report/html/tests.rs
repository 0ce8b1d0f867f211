//! A report shows whatever a journal holds, and lets none of it become markup.

use super::*;
use crate::state::{Fingerprint, How, Journal, read};
use serde_json::json;

const HOSTILE: &str =
    "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 1234567*7654321 }}";

fn print() -> Fingerprint {
    Fingerprint::new("m", &Value::Null, &[])
}

fn started(task: &str, module: &str) -> Body {
    Body::TaskStarted {
        task: task.into(),
        attempt: format!("r/{task}"),
        module: module.into(),
        fingerprint: print(),
        arguments: json!({"path": HOSTILE, "prompt": HOSTILE}),
        intent: Value::Null,
        needs_change: None,
        reason: Some(HOSTILE.into()),
    }
}

fn finished(task: &str, result: Value, error: Option<&str>) -> Body {
    Body::TaskFinished {
        task: task.into(),
        attempt: Some(format!("r/{task}")),
        status: if error.is_some() {
            TaskStatus::Failed
        } else {
            TaskStatus::Changed
        },
        how: How::Ran,
        fingerprint: print(),
        arguments: Value::Null,
        result,
        hidden: Vec::new(),
        outputs: vec![crate::state::Output {
            path: HOSTILE.into(),
            size: 1,
            sha256: HOSTILE.into(),
        }],
        summary: Some(HOSTILE.into()),
        error: error.map(str::to_owned),
        duration_ms: 5,
    }
}

/// A journal with these records after its beginning, and the report of it.
fn report_of(bodies: Vec<Body>, running: Option<&str>) -> String {
    let root = tempfile::tempdir().expect("temp dir");
    let dir = StateDir::new(root.path(), "p");
    dir.create().expect("create");
    let contents = read(&dir.journal()).expect("empty");
    let (mut journal, _) = Journal::open(&dir.journal(), &contents, "r").expect("open");
    let begin = [
        Body::JournalCreated {
            state_id: "s".into(),
            playbook: "p".into(),
            host: HOSTILE.into(),
            rehearsal: false,
        },
        Body::RunStarted {
            playbook: HOSTILE.into(),
            playbook_sha256: "0".repeat(64),
            user: HOSTILE.into(),
            host: HOSTILE.into(),
            pid: 1,
            agent_version: HOSTILE.into(),
            arguments: vec![HOSTILE.into()],
            seat: None,
            command: None,
        },
    ];
    for body in begin.into_iter().chain(bodies) {
        journal.append(body).expect("append");
    }
    std::fs::create_dir_all(dir.run_logs("r")).expect("logs");
    std::fs::write(dir.run_logs("r").join("001-x.log"), HOSTILE).expect("log");
    let contents = read(&dir.journal()).expect("whole");
    let source = Source {
        playbook: HOSTILE,
        history: &History::of(&contents.records),
        contents: &contents,
        dir: &dir,
        running,
        plan: Err(HOSTILE),
        now: Timestamp::now(),
    };
    render(&source).expect("renders")
}

#[test]
fn nothing_that_a_journal_or_a_log_holds_becomes_markup() {
    let table = json!({"rows": 1, "checksum": HOSTILE});
    let snapshot = json!({
        "digest": HOSTILE, "server_version": HOSTILE, "tables": {HOSTILE: table},
    });
    let task = |module: &str| format!("{HOSTILE} / {HOSTILE} / {module} {HOSTILE}");
    let mut bodies = Vec::new();
    let results = [
        ("postgresql_snapshot", snapshot),
        ("postgresql_verify", json!({})),
        (
            "postgresql_script",
            json!({"script": HOSTILE, "sha256": HOSTILE}),
        ),
        (
            "postgresql_data_directory",
            json!({"path": HOSTILE, "version": HOSTILE}),
        ),
        ("move", json!({"src": HOSTILE, "dest": HOSTILE})),
        ("pause", json!({"confirmed_by": HOSTILE})),
    ];
    for (module, result) in results {
        bodies.push(started(&task(module), module));
        bodies.push(finished(&task(module), result, None));
    }
    bodies.extend([
        Body::ServiceStarted {
            service: HOSTILE.into(),
            container: HOSTILE.into(),
            directories: Vec::new(),
        },
        Body::TaskSkipped {
            task: HOSTILE.into(),
            condition: HOSTILE.into(),
        },
        Body::TaskResolved {
            task: HOSTILE.into(),
            answer: crate::state::Answer::Redo,
            reason: HOSTILE.into(),
            user: HOSTILE.into(),
            fingerprint: None,
        },
        started(&task("broken"), "command"),
        finished(&task("broken"), json!({"help": HOSTILE}), Some(HOSTILE)),
        Body::RunFinished {
            outcome: Outcome::Failed,
            stats: BTreeMap::from([(HOSTILE.to_owned(), 1)]),
            duration_ms: 1,
        },
    ]);
    let html = report_of(bodies, None);
    assert!(html.contains("Stopped: a task failed"));
    for wrong in ["<script", "<img", "</pre><script", "onerror=alert(1)>"] {
        let found: Vec<&str> = html.lines().filter(|line| line.contains(wrong)).collect();
        assert!(found.is_empty(), "{wrong}: {found:#?}");
    }
    // A number that no hash on the page holds by chance.
    assert!(
        !html.contains("9449772114007"),
        "a template inside a value was rendered"
    );
    // No attribute is left by a quote: what follows one is a known name, or the tag's end.
    let head = html.split("<body").nth(1).expect("a body");
    assert!(!head.contains("\"'"), "a quote came through");
}

#[test]
fn a_run_that_goes_on_and_one_that_was_killed_are_told_apart() {
    let bodies = || vec![started("play / block / slow", "command")];
    let going_on = report_of(bodies(), Some("pid 1"));
    assert!(going_on.contains("Going on") && going_on.contains("“slow” is at work"));
    let killed = report_of(bodies(), None);
    assert!(killed.contains("it can be continued") && killed.contains("“slow” was at work"));
    assert!(killed.contains("cut off"));
}
