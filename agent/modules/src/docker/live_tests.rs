//! The modules against the real Docker. Their image is the lab's.

use std::process::Command;

use serde_json::{Value, json};

use crate::host::error::ModuleError;
use crate::registry;
use crate::task::context::TaskContext;
use crate::task::module::{Outcome, Plan, Recovery};

fn image() -> String {
    lab::images::new_postgres().expect("the lab's image")
}

async fn run(ctx: &TaskContext, name: &str, arguments: &Value) -> Result<Outcome, ModuleError> {
    let module = (registry::find(name).expect("module").build)(arguments.clone()).expect("valid");
    let intent = module.prepare(ctx).await?;
    module.apply(ctx, &intent).await
}

async fn check(ctx: &TaskContext, name: &str, arguments: &Value) -> Plan {
    let module = (registry::find(name).expect("module").build)(arguments.clone()).expect("valid");
    module.check(ctx).await.expect("checked")
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .expect("docker");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn a_container_is_brought_to_every_state_and_left_alone_when_it_is_right() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let image = image();
    let name = format!("kaapana-agent-test-{}", std::process::id());
    let module = "docker_container";
    let mut arguments = json!({
        "name": name, "image": image, "entrypoint": ["sleep"], "command": "1000", "init": true,
        "env": {"A": "1"}, "volumes": [format!("{}:/data:ro", dir.path().display())],
        "published_ports": ["5432"], "shm_size": "128M", "memory": "256M", "tmpfs": ["/tmp:size=1m"],
        "labels": {"x": "y"}, "stop_signal": "SIGTERM", "network_mode": "bridge",
    });
    assert!(matches!(
        check(&ctx, module, &arguments).await,
        Plan::NeedsChange(_)
    ));
    assert_eq!(
        docker(&["ps", "-aq", "--filter", &format!("name={name}")]),
        ""
    );
    let made = run(&ctx, module, &arguments).await.expect("started");
    assert!(made.changed);
    let port = made.result["container"]["ports"]["5432/tcp"].to_string();
    assert!(port.contains("127.0.0.1:"), "{port}");
    assert_eq!(
        docker(&["inspect", "-f", "{{.HostConfig.ShmSize}}", &name]),
        "134217728"
    );
    assert_eq!(check(&ctx, module, &arguments).await, Plan::InSync);
    assert!(!run(&ctx, module, &arguments).await.expect("same").changed);
    arguments["env"]["A"] = json!("2");
    let remade = run(&ctx, module, &arguments).await.expect("recreated");
    assert_ne!(
        remade.result["container"]["id"],
        made.result["container"]["id"]
    );
    for state in ["stopped", "started", "absent"] {
        arguments["state"] = json!(state);
        assert!(run(&ctx, module, &arguments).await.expect(state).changed);
        assert!(!run(&ctx, module, &arguments).await.expect(state).changed);
    }
    assert_eq!(
        docker(&["ps", "-aq", "--filter", &format!("name={name}")]),
        ""
    );
    arguments["state"] = json!("started");
    arguments["volumes"] = json!([format!("{}/missing:/data", dir.path().display())]);
    let error = run(&ctx, module, &arguments).await.expect_err("missing");
    assert!(error.to_string().contains("does not exist"), "{error}");
    assert!(!dir.path().join("missing").exists());
}

#[tokio::test]
async fn images_are_found_loaded_or_missed_with_advice() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let image = image();
    let here = run(&ctx, "docker_image", &json!({"name": image}))
        .await
        .expect("here");
    assert!(!here.changed && here.result["id"].to_string().contains("sha256:"));
    let tag = format!("kaapana-lab/load-test:{}", std::process::id());
    docker(&["tag", &image, &tag]);
    let archive = dir.path().join("image.tar");
    docker(&["save", "-o", &archive.display().to_string(), &tag]);
    docker(&["rmi", &tag]);
    let missing = json!({"name": tag, "source": "local"});
    let error = run(&ctx, "docker_image", &missing).await.expect_err("gone");
    assert!(error.to_string().contains("not on this host"), "{error}");
    let load = json!({"name": tag, "archive_path": "image.tar"});
    assert!(matches!(
        check(&ctx, "docker_image", &load).await,
        Plan::NeedsChange(_)
    ));
    assert!(
        run(&ctx, "docker_image", &load)
            .await
            .expect("loaded")
            .changed
    );
    let other = json!({"name": "kaapana-lab/nowhere:1", "archive_path": "image.tar"});
    let error = run(&ctx, "docker_image", &other).await.expect_err("other");
    assert!(error.to_string().contains(&tag), "{error}");
    docker(&["rmi", &tag]);
    let pull = json!({"name": "127.0.0.1:1/nowhere:1"});
    let error = run(&ctx, "docker_image", &pull)
        .await
        .expect_err("no registry");
    assert!(error.to_string().contains("cannot be pulled"), "{error}");
}

#[tokio::test]
async fn files_come_out_of_an_image_that_never_runs() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let image = image();
    let name = "docker_container_copy_from";
    let arguments = json!({"image": image, "path": "/docker-entrypoint-initdb.d", "dest": "sql"});
    let copied = run(&ctx, name, &arguments).await.expect("copied");
    assert!(copied.changed && !copied.outputs.is_empty());
    for file in &copied.outputs {
        let sum = Command::new("sha256sum")
            .arg(&file.path)
            .output()
            .expect("sha256sum");
        assert!(String::from_utf8_lossy(&sum.stdout).starts_with(&file.sha256));
    }
    assert_eq!(check(&ctx, name, &arguments).await, Plan::InSync);
    std::fs::write(&copied.outputs[0].path, "broken").expect("write");
    assert!(run(&ctx, name, &arguments).await.expect("repaired").changed);
    assert!(!run(&ctx, name, &arguments).await.expect("same").changed);
    let label = format!("label=io.kaapana.agent.copy={}", ctx.attempt);
    assert_eq!(docker(&["ps", "-aq", "--filter", &label]), "");
    let nowhere = json!({"image": image, "path": "/nowhere", "dest": "sql"});
    assert!(run(&ctx, name, &nowhere).await.is_err());
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_before_it_can_hear_is_told_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let name = format!("kaapana-agent-test-young-{}", std::process::id());
    // The kernel drops a signal that the first process of a container has no handler for.
    let server = "sleep 2; $SIG{INT} = sub { exit 0 }; sleep 1000 while 1";
    let arguments = json!({
        "name": name, "image": image(), "entrypoint": ["perl"], "command": ["-e", server],
        "stop_signal": "SIGINT",
    });
    run(&ctx, "docker_container", &arguments)
        .await
        .expect("started");
    let docker = crate::host::docker::client::connect(&ctx)
        .await
        .expect("docker");
    let patience = std::time::Duration::from_secs(30);
    let stopped = crate::host::docker::lifecycle::stop(&docker, &name, patience).await;
    let exit = self::docker(&["inspect", "-f", "{{.State.ExitCode}}", &name]);
    self::docker(&["rm", "-f", &name]);
    assert!(stopped.expect("it ends"), "it ran");
    assert_eq!(exit, "0", "by itself");
}

#[tokio::test]
async fn networks_and_volumes_are_kept_as_described_and_volumes_never_made_anew() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let name = format!("kaapana-agent-test-kept-{}", std::process::id());
    let container = json!({
        "name": name, "image": image(), "entrypoint": ["sleep"], "command": "1000", "init": true,
        "env": {"SOME_PASSWORD": "hunter2-long"},
    });
    run(&ctx, "docker_container", &container)
        .await
        .expect("started");
    let asked = json!({"name": name});
    let info = run(&ctx, "docker_container_info", &asked).await;
    let info = info.expect("looked").result;
    assert_eq!(info["exists"], true);
    assert_eq!(info["container"]["State"]["Running"], true);
    assert!(!Value::Object(info).to_string().contains("hunter2-long"));

    let mut network = json!({
        "name": name, "internal": true, "labels": {"of": "test"}, "connected": [name],
    });
    let module = "docker_network";
    assert!(matches!(
        check(&ctx, module, &network).await,
        Plan::NeedsChange(_)
    ));
    assert!(run(&ctx, module, &network).await.expect("made").changed);
    assert_eq!(check(&ctx, module, &network).await, Plan::InSync);
    assert!(!run(&ctx, module, &network).await.expect("same").changed);
    network["labels"] = json!({"of": "another"});
    let other = run(&ctx, module, &network).await.expect("made anew");
    assert!(other.changed);
    let inside = &other.result["network"]["Containers"];
    assert!(inside.to_string().contains(&name), "{inside}");
    killed_while_it_is_made_anew(&ctx, &name).await;
    network["connected"] = json!([]);
    assert!(run(&ctx, module, &network).await.expect("off").changed);
    network["state"] = json!("absent");
    assert!(run(&ctx, module, &network).await.expect("gone").changed);
    assert!(!run(&ctx, module, &network).await.expect("gone").changed);

    let mut volume = json!({"name": name, "labels": {"of": "test"}});
    let module = "docker_volume";
    let made = run(&ctx, module, &volume).await.expect("made");
    assert!(made.changed && made.result["volume"]["Mountpoint"].is_string());
    assert_eq!(check(&ctx, module, &volume).await, Plan::InSync);
    volume["labels"] = json!({"of": "another"});
    let refused = run(&ctx, module, &volume).await.expect_err("differs");
    assert!(
        refused.to_string().contains("data would be lost"),
        "{refused}"
    );
    volume["state"] = json!("absent");
    assert!(run(&ctx, module, &volume).await.expect("gone").changed);
    assert_eq!(check(&ctx, module, &volume).await, Plan::InSync);

    let away = json!({"name": name, "state": "absent"});
    run(&ctx, "docker_container", &away).await.expect("removed");
    let info = run(&ctx, "docker_container_info", &asked).await;
    assert_eq!(info.expect("looked").result["exists"], false);
}

/// Who was on a network comes back, although the attempt that took it off never ended.
async fn killed_while_it_is_made_anew(ctx: &TaskContext, name: &str) {
    let arguments = json!({"name": name, "internal": true, "labels": {"of": "a third"}});
    let spec = registry::find("docker_network").expect("module");
    let module = (spec.build)(arguments).expect("valid");
    let intent = module.prepare(ctx).await.expect("prepared");
    docker(&["network", "disconnect", name, name]);
    docker(&["network", "rm", name]);
    let Recovery::Done(outcome) = module.recover(ctx, &intent).await.expect("recovered") else {
        panic!("it knows what was begun")
    };
    assert!(outcome.changed);
    let inside = outcome.result["network"]["Containers"].to_string();
    assert!(inside.contains(name), "{inside}");
    assert_eq!(module.check(ctx).await.expect("checked"), Plan::InSync);
}

/// A cancelled command is gone from its container when `apply` returns.
#[tokio::test]
async fn a_command_that_is_cancelled_is_gone_from_its_container() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut ctx = TaskContext::for_tests(dir.path());
    let name = format!("kaapana-agent-test-cancel-{}", std::process::id());
    let container = json!({
        "name": name, "image": image(), "entrypoint": ["sleep"], "command": "1000", "init": true,
    });
    run(&ctx, "docker_container", &container)
        .await
        .expect("started");
    let token = ctx.cancel.clone();
    let cancel = async move {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        token.cancel();
    };
    let exec = json!({"container": name, "argv": ["sleep", "77"]});
    let (ended, ()) = tokio::join!(run(&ctx, "docker_container_exec", &exec), cancel);
    let left = docker(&["exec", &name, "sh", "-c", "cat /proc/[0-9]*/cmdline"]);
    ctx.cancel = tokio_util::sync::CancellationToken::new();
    let away = json!({"name": name, "state": "absent"});
    run(&ctx, "docker_container", &away).await.expect("removed");
    assert!(
        matches!(ended, Err(ModuleError::Cancelled)),
        "it was not cancelled"
    );
    assert!(!left.contains("sleep\u{0}77"), "{left}");
}
