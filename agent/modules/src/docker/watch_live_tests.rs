//! Process 1 of a service's container, in real ones: signals, exit codes, and an agent that goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::host::docker::service::ServiceHandle;
use crate::host::docker::service::{self, ServiceIdentity, ServiceState};
use crate::host::docker::spec::DockerContainer;
use crate::host::docker::watch::Watch;
use crate::host::docker::{client, lifecycle};
use crate::task::context::TaskContext;

/// How long an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Rig {
    ctx: TaskContext,
    dir: tempfile::TempDir,
    image: String,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let mut ctx = TaskContext::for_tests(dir.path());
        ctx.watch = Some(Arc::new(Watch::new(dir.path().join("alive/run"))));
        let image = lab::images::old_postgres().expect("the lab's image");
        Self { ctx, dir, image }
    }

    async fn start(&self, signal: &str, command: &[&str]) -> ServiceHandle {
        let container: DockerContainer = serde_json::from_value(json!({
            "image": self.image, "entrypoint": [command[0]], "command": command[1..],
            "stop_signal": signal,
        }))
        .expect("arguments");
        let identity = ServiceIdentity {
            state_id: lab::workplace::unique("watch"),
            playbook: "test".into(),
            // The container's name has the whole of this one.
            service: lab::workplace::unique("watched"),
            run: self.dir.path().display().to_string(),
        };
        let started = service::start(&self.ctx, &identity, &container).await;
        let handle = started.expect("started");
        // What is to be stopped is there, and not the script before it.
        self.says(&handle, "up").await;
        handle
    }

    async fn says(&self, handle: &ServiceHandle, word: &str) {
        let docker = client::connect(&self.ctx).await.expect("docker");
        let since = Instant::now();
        while !lifecycle::log_tail(&docker, &handle.container_id, 9)
            .await
            .iter()
            .any(|line| line == word)
        {
            assert!(since.elapsed() < PATIENCE, "it never said `{word}`");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the end; returns exit code and log.
    async fn end(&self, handle: &ServiceHandle) -> (i64, String) {
        let docker = client::connect(&self.ctx).await.expect("docker");
        let since = Instant::now();
        loop {
            let state = service::state(&self.ctx, handle).await.expect("state");
            if let ServiceState::Exited { code, log } = state {
                lifecycle::remove(&docker, &handle.container_id)
                    .await
                    .expect("removed");
                return (code, log.join("\n"));
            }
            assert!(since.elapsed() < PATIENCE, "it is still up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What ends how: a server with a handler, one that ignores its signal until it has one, a plain program, one
/// that hears SIGTERM only, and shells.
const ENDS: &[(&str, &[&str], i64)] = &[
    (
        "SIGTERM",
        &[
            "bash",
            "-c",
            "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done",
        ],
        7,
    ),
    (
        "SIGQUIT",
        &[
            "perl",
            "-e",
            "$| = 1; $SIG{QUIT} = sub { exit 8 }; print \"up\\n\"; sleep 1 while 1",
        ],
        8,
    ),
    (
        "SIGINT",
        &[
            "perl",
            "-e",
            "$| = 1; print \"up\\n\"; sleep 3; $SIG{INT} = sub { exit 9 }; sleep 1 while 1",
        ],
        9,
    ),
    (
        "SIGTERM",
        &["perl", "-e", "$| = 1; print \"up\\n\"; sleep 1 while 1"],
        143,
    ),
    ("SIGTERM", &["sh", "-c", "echo up; sleep 1000; exit 5"], 5),
];

#[tokio::test]
async fn a_watched_container_hears_its_signal_and_ends_with_its_own_code() {
    let rig = Rig::new();
    let docker = client::connect(&rig.ctx).await.expect("docker");
    for (signal, command, expected) in ENDS {
        let handle = rig.start(signal, command).await;
        let stopped = lifecycle::stop(&docker, &handle.container_id, PATIENCE).await;
        assert!(stopped.expect("stopped"), "{command:?}");
        let (code, log) = rig.end(&handle).await;
        assert_eq!(code, *expected, "{command:?}: {log}");
    }
    // By itself, with its own words last.
    let handle = rig
        .start(
            "SIGTERM",
            &["sh", "-c", "echo up; sleep 0.5; echo last; exit 42"],
        )
        .await;
    let (code, log) = rig.end(&handle).await;
    assert_eq!((code, log.as_str()), (42, "up\nlast"));
}

#[tokio::test]
async fn a_watched_container_ends_when_the_lock_is_dropped_and_does_not_begin_without_it() {
    let mut rig = Rig::new();
    let (signal, command, expected) = ENDS[0];
    let handle = rig.start(signal, command).await;
    rig.ctx.watch = None;
    let (code, log) = rig.end(&handle).await;
    assert_eq!(code, expected, "{log}");
    assert!(
        log.contains("the agent is gone: SIGTERM ends bash"),
        "{log}"
    );

    // The lock of somebody who is gone already.
    let watch = Arc::new(Watch::new(rig.dir.path().join("alive/run")));
    let folder = watch.hold().expect("held").to_path_buf();
    let kept = rig.dir.path().join("kept");
    std::fs::create_dir(&kept).expect("mkdir");
    for file in ["lock", "watch"] {
        std::fs::copy(folder.join(file), kept.join(file)).expect("copy");
    }
    let mut body = bollard::models::ContainerCreateBody {
        image: Some(rig.image.clone()),
        entrypoint: Some(vec!["sleep".into(), "1000".into()]),
        ..Default::default()
    };
    crate::host::docker::watch::wrap(&mut body, &Default::default(), &kept, true);
    let docker = client::connect(&rig.ctx).await.expect("docker");
    let id = lifecycle::create(&docker, None, body)
        .await
        .expect("created");
    lifecycle::start(&docker, &id).await.expect("started");
    let handle = ServiceHandle {
        name: "watched".into(),
        container_id: id,
        container_name: "watched".into(),
        ports: Default::default(),
        env: Default::default(),
    };
    let (code, log) = rig.end(&handle).await;
    let refused = crate::host::docker::watch::refusal("image", code, std::slice::from_ref(&log));
    let refused = refused.unwrap_or_else(|| panic!("{code}: {log}"));
    assert!(refused.to_string().contains("not held"), "{refused}");
}
