//! Attempts that are killed with SIGKILL, and what `recover` makes of what they left.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::docker::service::ServiceHandle;
use crate::host::progress::Progress;
use crate::live_rig::{Rig, Server, fill, module, run, sql};
use crate::task::context::TaskContext;
use crate::task::module::Recovery;

/// Holds the task of a process that is to be killed: the test below, started once more by itself.
const VICTIM: &str = "KAAPANA_AGENT_TEST_CHILD";

/// Runs a task until the kill comes.
async fn be_killed(text: &str) {
    let task: Value = serde_json::from_str(text).expect("json");
    let mut ctx = TaskContext::for_tests(Path::new("/"));
    ctx.attempt = task["attempt"].as_str().expect("attempt").into();
    ctx.progress = Progress::new(|done, _, _, _| println!("PROGRESS {done}"), |_| {});
    let services = task["services"].as_array().expect("services");
    ctx.services = services.iter().map(handle_of).collect();
    let module = module(
        task["module"].as_str().expect("name"),
        task["arguments"].clone(),
    );
    let intent = module.prepare(&ctx).await.expect("prepare");
    println!("INTENT {intent}");
    module.apply(&ctx, &intent).await.expect("apply");
    println!("FINISHED");
    // The journal is never written: the kill comes first.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

fn handle_of(value: &Value) -> ServiceHandle {
    let text = |name: &str| value[name].as_str().expect("text").to_owned();
    ServiceHandle {
        name: text("name"),
        container_id: text("id"),
        container_name: text("id"),
        ports: [(
            "5432/tcp".to_owned(),
            text("address").parse().expect("address"),
        )]
        .into(),
        env: serde_json::from_value(value["env"].clone()).expect("env"),
    }
}

/// Runs a task in a process that has these services, kills it when `until` says so, and returns its intent.
async fn kill_in(
    services: &[ServiceHandle],
    attempt: &str,
    name: &str,
    arguments: &Value,
    until: impl Fn(&str) -> bool + Send + 'static,
) -> Value {
    let services = services.iter().map(|handle| {
        json!({"name": handle.name, "id": handle.container_id,
            "address": handle.ports["5432/tcp"].to_string(), "env": handle.env})
    });
    let services: Vec<Value> = services.collect();
    let task = json!({
        "attempt": attempt, "module": name, "arguments": arguments, "services": services,
    });
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args([
            "--exact",
            "restore::live_kill_tests::a_killed_attempt_is_found_done_or_undone",
            "--nocapture",
        ])
        .env(VICTIM, task.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("spawn");
    let stdout = child.stdout.take().expect("stdout");
    let intent = Arc::new(Mutex::new(Value::Null));
    let seen = Arc::clone(&intent);
    tokio::task::spawn_blocking(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
            let line = line.expect("line");
            if let Some((_, text)) = line.split_once("INTENT ") {
                *seen.lock().expect("lock") = serde_json::from_str(text).expect("json");
            }
            if until(&line) {
                break;
            }
        }
        child.kill().expect("kill");
        child.wait().expect("wait");
    })
    .await
    .expect("child");
    let intent = intent.lock().expect("lock").clone();
    assert_ne!(intent, Value::Null, "the child never got so far");
    intent
}

async fn recovered(
    ctx: &TaskContext,
    attempt: &str,
    name: &str,
    arguments: &Value,
    intent: &Value,
) -> Recovery {
    let mut ctx = ctx.clone();
    ctx.interrupted_attempt = Some(attempt.into());
    ctx.attempt = format!("{attempt}-next");
    module(name, arguments.clone())
        .recover(&ctx, intent)
        .await
        .expect("recover")
}

/// Databases that only a restore makes.
async fn beside(server: &Server) -> Value {
    let query = "SELECT datname::text FROM pg_database WHERE datname LIKE 'pacsdb_%'";
    sql(server, query).await
}

fn progress_over(limit: u64) -> impl Fn(&str) -> bool + Send + 'static {
    move |line| {
        let figure = line
            .rsplit_once("PROGRESS ")
            .and_then(|(_, figure)| figure.parse::<u64>().ok());
        figure.is_some_and(|figure| figure >= limit)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_attempt_is_found_done_or_undone() {
    if let Ok(task) = std::env::var(VICTIM) {
        return be_killed(&task).await;
    }
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, false).await;
    fill(&old, 60_000).await;
    let before = run(&old.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let dest: PathBuf = rig.dir.path().join("dump.sql");
    let arguments = json!({"dest": dest});
    let name = "postgresql_dump";
    let intent = kill_in(
        &old.ctx.services,
        "r/1",
        name,
        &arguments,
        progress_over(3 << 20),
    )
    .await;
    assert!(rig.dir.path().join("dump.sql.partial").exists());
    assert_eq!(
        recovered(&old.ctx, "r/1", name, &arguments, &intent).await,
        Recovery::NotDone
    );
    assert!(!rig.dir.path().join("dump.sql.partial").exists());
    let finished = |line: &str| line.contains("FINISHED");
    let intent = kill_in(&old.ctx.services, "r/2", name, &arguments, finished).await;
    let Recovery::Done(dump) = recovered(&old.ctx, "r/2", name, &arguments, &intent).await else {
        panic!("the dump is whole and ours")
    };
    let stranger = recovered(&old.ctx, "r/3", name, &arguments, &intent).await;
    assert!(matches!(stranger, Recovery::Unknown { .. }), "{stranger:?}");

    let new = rig.server("new", &rig.new, true).await;
    let arguments = json!({"src": dest, "checksum": dump.result["checksum"]});
    let name = "postgresql_restore";
    let intent = kill_in(
        &new.ctx.services,
        "r/4",
        name,
        &arguments,
        progress_over(8 << 20),
    )
    .await;
    // psql, whose input ended early, commits what it has.
    assert_eq!(
        recovered(&new.ctx, "r/4", name, &arguments, &intent).await,
        Recovery::NotDone
    );
    assert_eq!(beside(&new).await, json!([]));
    let intent = kill_in(&new.ctx.services, "r/5", name, &arguments, finished).await;
    let done = recovered(&new.ctx, "r/5", name, &arguments, &intent).await;
    assert!(matches!(done, Recovery::Done(_)), "{done:?}");
    let stranger = recovered(&new.ctx, "r/6", name, &arguments, &intent).await;
    assert!(matches!(stranger, Recovery::Unknown { .. }), "{stranger:?}");
    let after = run(&new.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    run(
        &new.ctx,
        "postgresql_verify",
        json!({"before": before, "after": after}),
    )
    .await
    .expect("equal");

    let script = rig.dir.path().join("slow.sql");
    std::fs::write(
        &script,
        "update twins set b = 'x';\nselect pg_sleep(2);\nupdate odd set t = 'y';",
    )
    .expect("write");
    let (name, arguments) = ("postgresql_script", json!({"path": script}));
    let intent = kill_in(&new.ctx.services, "r/7", name, &arguments, progress_over(1)).await;
    assert_eq!(
        recovered(&new.ctx, "r/7", name, &arguments, &intent).await,
        Recovery::NotDone
    );
    let check = "SELECT (SELECT count(*) FROM twins WHERE b = 'x') + (SELECT count(*) FROM odd WHERE t = 'y') AS n";
    assert_eq!(sql(&new, check).await, json!([{"n": 0}]));
    let intent = kill_in(&new.ctx.services, "r/8", name, &arguments, finished).await;
    let done = recovered(&new.ctx, "r/8", name, &arguments, &intent).await;
    assert!(matches!(done, Recovery::Done(_)), "{done:?}");
    assert_eq!(sql(&new, check).await, json!([{"n": 60_004}]));
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_dump_that_is_restored_meanwhile_leaves_nothing_in_either_place() {
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, false).await;
    let new = rig.server("new", &rig.new, true).await;
    fill(&old, 60_000).await;
    let before = run(&old.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let mut ctx = new.ctx.clone();
    ctx.services.push(old.handle.clone());
    let dest: PathBuf = rig.dir.path().join("dump.sql");
    let partial = rig.dir.path().join("dump.sql.partial");
    let arguments = json!({"service": "old", "dest": dest, "restore_ahead": {}});
    let name = "postgresql_dump";
    let intent = kill_in(&ctx.services, "r/1", name, &arguments, progress_over(1)).await;
    assert!(partial.exists());
    assert_eq!(beside(&new).await, json!([{"datname": "pacsdb_restoring"}]));
    let recovery = recovered(&ctx, "r/1", name, &arguments, &intent).await;
    assert_eq!(recovery, Recovery::NotDone);
    assert!(!partial.exists());
    assert_eq!(beside(&new).await, json!([]));
    let finished = |line: &str| line.contains("FINISHED");
    let intent = kill_in(&ctx.services, "r/2", name, &arguments, finished).await;
    let Recovery::Done(dump) = recovered(&ctx, "r/2", name, &arguments, &intent).await else {
        panic!("the dump is whole and ours")
    };
    // The restore that is killed as it takes it over is found done.
    let arguments = json!({"src": dest, "checksum": dump.result["checksum"]});
    let name = "postgresql_restore";
    let intent = kill_in(&new.ctx.services, "r/3", name, &arguments, finished).await;
    let done = recovered(&new.ctx, "r/3", name, &arguments, &intent).await;
    let Recovery::Done(restored) = done else {
        panic!("{done:?}")
    };
    assert_eq!(restored.result["rows"], json!(60_004));
    let after = run(&new.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let both = json!({"before": before, "after": after});
    run(&new.ctx, "postgresql_verify", both)
        .await
        .expect("equal");
    assert_eq!(beside(&new).await, json!([]));
    drop(rig);
}
