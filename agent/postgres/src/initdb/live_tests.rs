//! `postgresql_initdb` against real images.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::docker::{client, service};
use crate::host::error::ModuleError;
use crate::initdb::place::ClusterLocation;
use crate::initdb::server::identity;
use crate::live_rig::Rig;
use crate::registry;
use crate::task::context::TaskContext;
use crate::task::module::{Module, Recovery};

const CHILD: &str = "KAAPANA_TEST_INITDB";

/// What `postgresql_initdb` has to do with a rig.
impl Rig {
    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn arguments(&self, image: &str) -> Value {
        json!({
            "path": self.path(),
            "image": image,
            "env": {"POSTGRES_DB": "pacsdb", "POSTGRES_USER": "pacs", "POSTGRES_PASSWORD": "hunter2-long"},
        })
    }

    /// Names in the folder, and the containers of the attempts.
    async fn left(&self, attempts: &[&str]) -> (Vec<String>, usize) {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .expect("list")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        let docker = client::connect(&self.ctx).await.expect("docker");
        let mut count = 0;
        for attempt in attempts {
            let id = identity(&ClusterLocation::new(&self.path()), attempt);
            let label = format!("io.kaapana.agent.state={}", id.state_id);
            count += service::list_by_labels(&docker, &[label])
                .await
                .expect("list")
                .len();
        }
        (names, count)
    }
}

fn module(arguments: Value) -> Box<dyn Module> {
    let spec = registry::find("postgresql_initdb").expect("module");
    (spec.build)(arguments).expect("arguments")
}

async fn run(
    ctx: &TaskContext,
    arguments: Value,
) -> Result<crate::task::module::Outcome, ModuleError> {
    let module = module(arguments);
    let intent = module.prepare(ctx).await?;
    module.apply(ctx, &intent).await
}

async fn code(ctx: &TaskContext, arguments: Value) -> String {
    match run(ctx, arguments).await {
        Ok(_) => "done".into(),
        Err(ModuleError::Cancelled) => "cancelled".into(),
        Err(ModuleError::Failed(failure)) => {
            assert!(failure.help().is_some(), "{failure}");
            assert!(!failure.to_string().contains("hunter2"), "{failure}");
            eprintln!("{failure}");
            failure.code().to_owned()
        }
    }
}

#[tokio::test]
async fn both_images_make_a_whole_directory() {
    let rig = Rig::new();
    for (image, empty) in [(&rig.old, false), (&rig.new, true)] {
        if empty {
            std::fs::create_dir(rig.path()).expect("mkdir");
        }
        let outcome = run(&rig.ctx, rig.arguments(image)).await.expect("made");
        assert!(outcome.changed);
        let version = std::fs::read_to_string(rig.path().join("PG_VERSION")).expect("version");
        assert_eq!(outcome.result["version"], version.trim());
        assert_ne!(outcome.result["uid"], 0);
        assert!(
            outcome.result["size_bytes"]
                .as_u64()
                .is_some_and(|size| size > 10 << 20)
        );
        assert_eq!(rig.left(&["run-1/1"]).await, (vec!["data".to_owned()], 0));
        assert_eq!(
            code(&rig.ctx, rig.arguments(image)).await,
            "postgresql::initdb_path_taken"
        );
        // What the images' own scripts would create is not there: `base` holds the four databases.
        let databases = std::fs::read_dir(rig.path().join("base"))
            .expect("base")
            .count();
        assert_eq!(databases, 4);
        std::fs::remove_dir_all(rig.path()).expect("remove");
    }
}

#[tokio::test]
async fn failures_leave_nothing_behind() {
    let rig = Rig::new();
    let mut slow = rig.arguments(&rig.new);
    slow["command"] = json!(["sleep", "1000"]);
    slow["timeout"] = json!(2);
    let mut dead = rig.arguments(&rig.new);
    dead["command"] = json!(["postgres", "-c", "no_such_setting=1"]);
    let mut short = rig.arguments(&rig.new);
    short["timeout"] = json!(1);
    short["env"]["POSTGRES_INITDB_ARGS"] = json!("--no-such-option");
    let mut open = rig.arguments(&rig.new);
    open["env"] = json!({});
    for (arguments, expected) in [
        (rig.arguments("no-such-image:1"), "docker::no_image"),
        (slow, "postgresql::initdb_timeout"),
        (dead, "postgresql::initdb_died"),
        (short, "postgresql::initdb_died"),
        (open, "postgresql::initdb_no_password"),
    ] {
        assert_eq!(code(&rig.ctx, arguments).await, expected);
        assert_eq!(rig.left(&["run-1/1"]).await, (vec![], 0), "{expected}");
    }
    std::fs::create_dir(rig.path()).expect("mkdir");
    let mut child = Command::new("sleep")
        .arg("60")
        .current_dir(rig.path())
        .spawn()
        .expect("spawn");
    let held = code(&rig.ctx, rig.arguments(&rig.new)).await;
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(held, "postgresql::initdb_path_in_use");
    std::fs::write(rig.path().join("x"), "").expect("write");
    assert_eq!(
        code(&rig.ctx, rig.arguments(&rig.new)).await,
        "postgresql::initdb_path_taken"
    );
    std::fs::remove_dir_all(rig.path()).expect("remove");
    let foreign = rig.dir.path().join("data.initializing");
    std::fs::create_dir(&foreign).expect("mkdir");
    assert_eq!(
        code(&rig.ctx, rig.arguments(&rig.new)).await,
        "postgresql::initdb_foreign"
    );
    assert!(foreign.exists());
}

#[tokio::test]
async fn cancelling_leaves_nothing_behind() {
    let rig = Rig::new();
    for pause in [50, 400, 1200] {
        let mut ctx = TaskContext::for_tests(rig.dir.path());
        ctx.cancel = tokio_util::sync::CancellationToken::new();
        let cancel = ctx.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            cancel.cancel();
        });
        assert_eq!(code(&ctx, rig.arguments(&rig.new)).await, "cancelled");
        assert_eq!(rig.left(&["run-1/1"]).await, (vec![], 0));
    }
}

/// Not a test: the process that the next test kills.
#[tokio::test]
async fn killed_child() {
    let Ok(arguments) = std::env::var(CHILD) else {
        return;
    };
    let arguments: Value = serde_json::from_str(&arguments).expect("arguments");
    let module = module(arguments["module"].clone());
    let mut ctx = TaskContext::for_tests(Path::new("/"));
    ctx.attempt = arguments["attempt"].as_str().expect("attempt").to_owned();
    module.apply(&ctx, &Value::Null).await.expect("made");
}

#[tokio::test]
async fn a_killed_agent_is_recovered_from_at_every_stage() {
    let rig = Rig::new();
    let initializing = rig.dir.path().join("data.initializing");
    let stages: [(&str, PathBuf); 6] = [
        ("claimed", rig.dir.path().join(".data.initializing-claim")),
        ("made", initializing.clone()),
        ("early", initializing.join("PG_VERSION")),
        ("half", initializing.join("global/pg_control")),
        ("server", initializing.join("postmaster.pid")),
        ("renamed", rig.path().join("PG_VERSION")),
    ];
    for (number, (stage, sign)) in stages.iter().enumerate() {
        let (first, second) = (format!("run-k/{number}"), format!("run-l/{number}"));
        let arguments = rig.arguments(&rig.new);
        let module = module(arguments.clone());
        let intent = module.prepare(&rig.ctx).await.expect("prepared");
        let mut child = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "initdb::live_tests::killed_child"])
            .env(
                CHILD,
                json!({"module": arguments, "attempt": first}).to_string(),
            )
            .stdout(Stdio::null())
            .spawn()
            .expect("spawn");
        let deadline = Instant::now() + Duration::from_secs(120);
        while !sign.exists() {
            assert!(Instant::now() < deadline, "{stage}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        child.kill().expect("kill");
        child.wait().expect("wait");

        let mut ctx = TaskContext::for_tests(rig.dir.path());
        ctx.interrupted_attempt = Some(first.clone());
        let recovery = module.recover(&ctx, &intent).await.expect("recovered");
        if *stage == "renamed" {
            let Recovery::Done(outcome) = recovery else {
                panic!("{stage}: {recovery:?}")
            };
            assert!(outcome.changed && outcome.result["uid"] != 0);
        } else {
            assert_eq!(recovery, Recovery::NotDone, "{stage}");
            assert_eq!(rig.left(&[&first]).await, (vec![], 0), "{stage}");
            if number % 2 == 0 {
                continue;
            }
            ctx.interrupted_attempt = None;
            ctx.attempt.clone_from(&second);
            run(&ctx, arguments).await.expect("made");
        }
        let left = rig.left(&[&first, &second]).await;
        assert_eq!(left, (vec!["data".to_owned()], 0), "{stage}");
        std::fs::remove_dir_all(rig.path()).expect("remove");
    }
}

#[tokio::test]
async fn what_a_failed_attempt_left_goes_with_the_next() {
    let rig = Rig::new();
    let arguments = rig.arguments(&rig.new);
    let place = ClusterLocation::new(&rig.path());
    // A cleaning up that failed: claim, tree and container stay, and no attempt is open.
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "initdb::live_tests::killed_child"])
        .env(
            CHILD,
            json!({"module": arguments, "attempt": "run-f/1"}).to_string(),
        )
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn");
    let busy = loop {
        if place.initializing.join("PG_VERSION").exists() {
            break code(&rig.ctx, arguments.clone()).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(busy, "postgresql::initdb_busy");
    run(&rig.ctx, arguments).await.expect("made");
    let left = rig.left(&["run-f/1", "run-1/1"]).await;
    assert_eq!(left, (vec!["data".to_owned()], 0));
}

#[tokio::test]
async fn what_cannot_be_told_is_said() {
    let rig = Rig::new();
    let module = module(rig.arguments(&rig.new));
    let intent = module.prepare(&rig.ctx).await.expect("prepared");
    let mut ctx = rig.ctx.clone();
    ctx.interrupted_attempt = Some("run-u/1".into());
    std::fs::create_dir(rig.dir.path().join("data.initializing")).expect("mkdir");
    let unknown = |recovery: Recovery| match recovery {
        Recovery::Unknown { found, .. } => found,
        other => panic!("{other:?}"),
    };
    let found = unknown(module.recover(&ctx, &intent).await.expect("looked"));
    assert!(found.contains("no mark"), "{found}");
    std::fs::remove_dir(rig.dir.path().join("data.initializing")).expect("rmdir");
    std::fs::create_dir(rig.path()).expect("mkdir");
    std::fs::write(rig.path().join("x"), "").expect("write");
    let found = unknown(module.recover(&ctx, &intent).await.expect("looked"));
    assert!(found.contains("is not empty (x"), "{found}");
}
