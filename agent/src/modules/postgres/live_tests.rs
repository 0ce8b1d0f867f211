//! The modules against real servers in containers. They need Docker and the lab's images
//! (`kaapana-lab/dcm4che-postgres:0.2-…` and `:0.3-…`), and say so when these are missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::modules::context::{Progress, ServiceHandle, TaskContext};
use crate::modules::docker::service::{self, ServiceIdentity};
use crate::modules::docker::{DockerContainer, client};
use crate::modules::error::ModuleError;
use crate::modules::module::{Module, Outcome, Recovery};
use crate::modules::registry;

const DATA: &str = "/var/lib/postgresql/data";

/// A server in a container with its data in a temporary directory.
struct Server {
    ctx: TaskContext,
    handle: ServiceHandle,
}

/// What every test needs; nothing when the machine cannot run it.
struct Rig {
    ctx: TaskContext,
    dir: tempfile::TempDir,
    state: String,
    old: String,
    new: String,
}

impl Rig {
    async fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("temp dir");
        let ctx = TaskContext::for_tests(dir.path());
        let missing = |what: &str| eprintln!("SKIPPED: {what}; see tests/README.md");
        let Ok(docker) = client::connect(&ctx).await else {
            missing("no Docker here");
            return None;
        };
        let images = docker
            .list_images(None::<bollard::query_parameters::ListImagesOptions>)
            .await
            .expect("images");
        let find = |tag: &str| {
            let of_lab =
                |name: &&String| name.starts_with(&format!("kaapana-lab/dcm4che-postgres:{tag}-"));
            images
                .iter()
                .flat_map(|image| &image.repo_tags)
                .find(of_lab)
                .cloned()
        };
        let (Some(old), Some(new)) = (find("0.2"), find("0.3")) else {
            missing("the lab's images are not built");
            return None;
        };
        let state = hex::encode(Sha256::digest(dir.path().as_os_str().as_encoded_bytes()));
        Some(Self {
            ctx,
            dir,
            state,
            old,
            new,
        })
    }

    /// Starts a server; `bare` mounts an empty directory over the scripts of the image.
    async fn server(&self, name: &str, image: &str, bare: bool) -> Server {
        let data = self.dir.path().join(name);
        let empty = self.dir.path().join("empty");
        for path in [&data, &empty] {
            std::fs::create_dir_all(path).expect("mkdir");
        }
        let mut mounts = vec![format!("{}:{DATA}", data.display())];
        if bare {
            mounts.push(format!(
                "{}:/docker-entrypoint-initdb.d:ro",
                empty.display()
            ));
        }
        let container: DockerContainer = serde_json::from_value(json!({
            "image": image,
            "env": {"POSTGRES_DB": "pacsdb", "POSTGRES_USER": "pacs", "POSTGRES_PASSWORD": "hunter2-long"},
            "volumes": mounts,
            "published_ports": ["5432"],
            "stop_signal": "SIGINT",
            "shm_size": "128M",
        }))
        .expect("arguments");
        let identity = ServiceIdentity {
            state_id: self.state.clone(),
            playbook: "test".into(),
            service: name.into(),
            run: "run-1".into(),
        };
        let handle = service::start(&self.ctx, &identity, &container)
            .await
            .expect("start");
        let mut ctx = self.ctx.clone();
        ctx.services = vec![handle.clone()];
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = run(&ctx, "postgresql_ping", json!({})).await {
            let state = service::state(&ctx, &handle).await.expect("state");
            assert_eq!(state, service::ServiceState::Running, "{error}");
            assert!(Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Server { ctx, handle }
    }
}

/// Containers go with the rig, after a failure too.
impl Drop for Rig {
    fn drop(&mut self) {
        let (mut ctx, state) = (self.ctx.clone(), self.state.clone());
        // A connection belongs to the runtime that it was made in.
        ctx.docker = Arc::default();
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let work = service::remove_left_overs(&ctx, &state, &[]);
            runtime
                .expect("runtime")
                .block_on(work)
                .expect("containers removed");
        });
        removed.join().expect("thread");
    }
}

fn module(name: &str, arguments: Value) -> Box<dyn Module> {
    (registry::find(name).expect("module").build)(arguments).expect("arguments")
}

/// What the engine does: prepare, then apply.
async fn run(ctx: &TaskContext, name: &str, arguments: Value) -> Result<Outcome, ModuleError> {
    let module = module(name, arguments);
    let intent = module.prepare(ctx).await?;
    module.apply(ctx, &intent).await
}

fn code(error: ModuleError) -> String {
    match error {
        ModuleError::Cancelled => "cancelled".into(),
        ModuleError::Failed(failure) => {
            eprintln!(
                "  {}: {failure} | {}",
                failure.code(),
                failure.help().unwrap_or_default()
            );
            failure.code().into()
        }
    }
}

async fn sql(server: &Server, query: &str) -> Value {
    let ran = run(&server.ctx, "postgresql_query", json!({"query": query})).await;
    ran.expect("query").result["query_result"].clone()
}

/// Values that look different from version to version, and enough rows to be interrupted in.
async fn fill(server: &Server, rows: u32) {
    sql(
        server,
        "CREATE TABLE odd (pk bigint PRIMARY KEY, f4 float4, f8 float8, fa float8[], n numeric, \
        b bytea, t text, ts timestamptz, iv interval, e text, bo boolean, j jsonb)",
    )
    .await;
    sql(
        server,
        &format!(
            "INSERT INTO odd SELECT i, i / 3.0::float4, i / 7.0::float8, \
        ARRAY[i / 9.0::float8, 'NaN'], i / 11.0, decode(md5(i::text), 'hex'), \
        CASE WHEN i % 3 = 0 THEN NULL WHEN i % 3 = 1 THEN '' ELSE 'a\"b\\c,(' || i END, \
        now() - i * interval '1 hour', i * interval '1 min', repeat('x', 200), i % 2 = 0, \
        ('{{\"k\": ' || i || '}}')::jsonb FROM generate_series(1, {rows}) i"
        ),
    )
    .await;
    sql(server, "CREATE INDEX odd_t ON odd (t)").await;
    sql(server, "CREATE TABLE twins (a int, b text)").await;
    sql(
        server,
        "INSERT INTO twins SELECT 1, NULL FROM generate_series(1, 4)",
    )
    .await;
    sql(server, "CREATE SEQUENCE own_seq").await;
    sql(server, "SELECT nextval('own_seq')").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_the_same_after_dump_and_restore_between_versions() {
    let Some(rig) = Rig::new().await else { return };
    let old = rig.server("old", &rig.old, false).await;
    fill(&old, 20_000).await;
    let refused = service_again(&rig, &rig.old).await;
    assert_eq!(refused, "docker::directory_held");
    let before = run(&old.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let dest = rig.dir.path().join("dump.sql");
    let dump = run(&old.ctx, "postgresql_dump", json!({"dest": dest}))
        .await
        .expect("dump")
        .result;
    let checked = Command::new("sha256sum")
        .args(["-c", "dump.sql.sha256"])
        .current_dir(rig.dir.path())
        .output()
        .expect("sha256sum");
    assert!(checked.status.success(), "{checked:?}");
    let again = run(&old.ctx, "postgresql_dump", json!({"dest": dest})).await;
    assert_eq!(code(again.expect_err("exists")), "postgresql::dest_exists");
    let new = rig.server("new", &rig.new, true).await;
    let restore = json!({"src": dest, "checksum": dump["checksum"]});
    let restored = run(&new.ctx, "postgresql_restore", restore.clone())
        .await
        .expect("restore")
        .result;
    eprintln!("  {}", Value::Object(restored));
    let after = run(&new.ctx, "postgresql_snapshot", json!({"connections": 3}))
        .await
        .expect("snapshot");
    let verify = json!({"before": before, "after": after.result});
    let verified = run(&new.ctx, "postgresql_verify", verify)
        .await
        .expect("equal");
    eprintln!("  {}", verified.summary.unwrap_or_default());
    let filled = run(&new.ctx, "postgresql_restore", restore).await;
    assert_eq!(
        code(filled.expect_err("filled")),
        "postgresql::target_not_empty"
    );
    sql(&new, "UPDATE twins SET b = ''").await;
    let after = run(&new.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let differs = run(
        &new.ctx,
        "postgresql_verify",
        json!({"before": before, "after": after}),
    )
    .await;
    assert_eq!(code(differs.expect_err("differs")), "postgresql::differs");
    service::stop(&old.ctx, &old.handle, Duration::from_secs(60))
        .await
        .expect("stop");
    let directory = json!({"path": rig.dir.path().join("old"), "version": ["9.6", "13"]});
    let looked = run(&rig.ctx, "postgresql_data_directory", directory)
        .await
        .expect("idle")
        .result;
    assert_eq!(
        (&looked["uid"], &looked["postmaster_pid"]),
        (&json!(999), &Value::Null)
    );
    drop(rig);
}

/// Starts a second server on the data of `old`, which must be refused.
async fn service_again(rig: &Rig, image: &str) -> String {
    let container: DockerContainer = serde_json::from_value(json!({
        "image": image,
        "volumes": [format!("{}:{DATA}", rig.dir.path().join("old").display())],
    }))
    .expect("arguments");
    let identity = ServiceIdentity {
        state_id: rig.state.clone(),
        playbook: "test".into(),
        service: "second".into(),
        run: "run-1".into(),
    };
    code(
        service::start(&rig.ctx, &identity, &container)
            .await
            .expect_err("held"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_dumps_and_scripts_change_nothing() {
    let Some(rig) = Rig::new().await else { return };
    let new = rig.server("new", &rig.new, true).await;
    let other = rig.server("other", &rig.new, true).await;
    fill(&new, 2_000).await;
    let dest = rig.dir.path().join("dump.sql");
    run(&new.ctx, "postgresql_dump", json!({"dest": dest}))
        .await
        .expect("dump");
    let text = std::fs::read_to_string(&dest).expect("dump");
    let broken = rig.dir.path().join("broken.sql");
    let middle = text.find("COPY public.odd").expect("data") + 5_000;
    let line_end = middle + text[middle..].find('\n').expect("line") + 1;
    let trailer = &text[text
        .find("--\n-- PostgreSQL database dump complete")
        .expect("trailer")..];
    let cases = [
        (
            "cut at a line end",
            text[..line_end].to_owned(),
            "postgresql::bad_dump",
        ),
        // Only the hash knows of this one.
        (
            "row lost, trailer whole",
            text.replacen("1\t\\N\n", "", 1),
            "postgresql::checksum",
        ),
        (
            "hole with trailer",
            format!("{}{trailer}", &text[..line_end]),
            "postgresql::psql_failed",
        ),
        (
            "bad line",
            text.replacen("CREATE TABLE", "CREATE TABEL", 1),
            "postgresql::psql_failed",
        ),
        (
            "connect inside",
            text.replacen("COPY public.odd", "\\connect postgres\nCOPY public.odd", 1),
            "postgresql::bad_dump",
        ),
    ];
    let good = super::files::hash_file(&dest, |_| {}).expect("hash").1;
    for (what, content, expected) in cases {
        assert_ne!(content, text, "{what}");
        std::fs::write(&broken, content).expect("write");
        eprintln!("{what}");
        let failed = run(
            &other.ctx,
            "postgresql_restore",
            json!({"src": broken, "checksum": good}),
        )
        .await;
        assert_eq!(code(failed.expect_err(what)), expected, "{what}");
        let left = sql(
            &other,
            "SELECT datname::text FROM pg_database WHERE datname LIKE '%restoring'",
        )
        .await;
        assert_eq!(left, json!([]), "{what}");
        let tables = sql(
            &other,
            "SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'public'",
        )
        .await;
        assert_eq!(tables, json!([{"n": 0}]), "{what}");
    }
    let script = rig.dir.path().join("update-1.sql");
    let apply = json!({"path": script});
    std::fs::write(
        &script,
        "alter table twins add c int;\n\nupdate twins\nset c = 1 / a,\n d = 2;\n",
    )
    .expect("write");
    let failed = run(&new.ctx, "postgresql_script", apply.clone())
        .await
        .expect_err("no column d");
    assert!(
        failed.to_string().contains("update-1.sql:5: column \"d\""),
        "{failed}"
    );
    assert_eq!(code(failed), "postgresql::script_failed");
    let columns =
        "SELECT count(*) AS n FROM pg_attribute WHERE attrelid = 'twins'::regclass AND attnum > 0";
    assert_eq!(sql(&new, columns).await, json!([{"n": 2}]));
    std::fs::write(
        &script,
        "alter table twins add c int; -- x\nupdate twins set c = 1;\n",
    )
    .expect("write");
    let done = run(&new.ctx, "postgresql_script", apply.clone())
        .await
        .expect("applied");
    assert!(done.changed);
    std::fs::write(
        &script,
        "-- y\nalter table twins add c int;update twins set c = 1;\n",
    )
    .expect("write");
    let again = run(&new.ctx, "postgresql_script", apply.clone())
        .await
        .expect("known");
    assert_eq!(
        (again.changed, &again.result["already_applied"]),
        (false, &json!(true))
    );
    std::fs::write(&script, "alter table twins add d int;").expect("write");
    let other_content = run(&new.ctx, "postgresql_script", apply.clone()).await;
    assert_eq!(
        code(other_content.expect_err("differs")),
        "postgresql::script_differs"
    );
    let (sum, _) = (sql(&new, "SELECT sum(c) AS s FROM twins").await, ());
    assert_eq!(sum, json!([{"s": 4}]));
    let writes = run(
        &new.ctx,
        "postgresql_select",
        json!({"query": "DELETE FROM twins"}),
    )
    .await;
    assert_eq!(code(writes.expect_err("read-only")), "postgresql::sql");
    cancel_works(&rig, &new).await;
    drop(rig);
}

/// A cancelled script is gone from the server when `apply` returns.
async fn cancel_works(rig: &Rig, server: &Server) {
    let script = rig.dir.path().join("slow.sql");
    std::fs::write(&script, "update twins set b = 'slow'; select pg_sleep(60);").expect("write");
    let mut ctx = server.ctx.clone();
    ctx.cancel = tokio_util::sync::CancellationToken::new();
    let token = ctx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel();
    });
    let started = Instant::now();
    let ended = run(&ctx, "postgresql_script", json!({"path": script})).await;
    assert_eq!(code(ended.expect_err("cancelled")), "cancelled");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(
        sql(server, "SELECT count(*) AS n FROM twins WHERE b = 'slow'").await,
        json!([{"n": 0}])
    );
    let exec = json!({"argv": ["sleep", "77"]});
    ctx.cancel = tokio_util::sync::CancellationToken::new();
    let token = ctx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel();
    });
    let ended = run(&ctx, "docker_container_exec", exec).await;
    assert_eq!(code(ended.expect_err("cancelled")), "cancelled");
    let left = run(
        &server.ctx,
        "docker_container_exec",
        json!({"command": "sh -c 'cat /proc/[0-9]*/cmdline'"}),
    )
    .await;
    let left = left.expect("list").result["stdout"].to_string();
    assert!(
        !left.contains("sleep\u{0}77") && !left.contains("sleep\\u000077"),
        "{left}"
    );
}

/// What the child of a kill test runs; started by the tests below in a process of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "only as the child of another test"]
async fn child_that_is_killed() {
    let Ok(text) = std::env::var("KAAPANA_AGENT_TEST_CHILD") else {
        return;
    };
    let task: Value = serde_json::from_str(&text).expect("json");
    let mut ctx = TaskContext::for_tests(Path::new("/"));
    ctx.attempt = task["attempt"].as_str().expect("attempt").into();
    ctx.progress = Progress::new(|done, _, _, _| println!("PROGRESS {done}"), |_| {});
    ctx.services = vec![handle_of(&task["service"])];
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

/// Runs a task in a process, kills it when `until` says so, and returns its intent.
async fn kill_in(
    server: &Server,
    attempt: &str,
    name: &str,
    arguments: &Value,
    until: impl Fn(&str) -> bool + Send + 'static,
) -> Value {
    let handle = &server.handle;
    let task = json!({
        "attempt": attempt, "module": name, "arguments": arguments,
        "service": {"name": handle.name, "id": handle.container_id,
            "address": handle.ports["5432/tcp"].to_string(), "env": handle.env},
    });
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args([
            "--exact",
            "modules::postgres::live_tests::child_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("KAAPANA_AGENT_TEST_CHILD", task.to_string())
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
    server: &Server,
    attempt: &str,
    name: &str,
    arguments: &Value,
    intent: &Value,
) -> Recovery {
    let mut ctx = server.ctx.clone();
    ctx.interrupted_attempt = Some(attempt.into());
    ctx.attempt = format!("{attempt}-next");
    module(name, arguments.clone())
        .recover(&ctx, intent)
        .await
        .expect("recover")
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
    let Some(rig) = Rig::new().await else { return };
    let old = rig.server("old", &rig.old, false).await;
    fill(&old, 60_000).await;
    let before = run(&old.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let dest: PathBuf = rig.dir.path().join("dump.sql");
    let arguments = json!({"dest": dest});
    let name = "postgresql_dump";
    let intent = kill_in(&old, "r/1", name, &arguments, progress_over(3 << 20)).await;
    assert!(rig.dir.path().join("dump.sql.partial").exists());
    assert_eq!(
        recovered(&old, "r/1", name, &arguments, &intent).await,
        Recovery::NotDone
    );
    assert!(!rig.dir.path().join("dump.sql.partial").exists());
    let finished = |line: &str| line.contains("FINISHED");
    let intent = kill_in(&old, "r/2", name, &arguments, finished).await;
    let Recovery::Done(dump) = recovered(&old, "r/2", name, &arguments, &intent).await else {
        panic!("the dump is whole and ours")
    };
    let stranger = recovered(&old, "r/3", name, &arguments, &intent).await;
    assert!(matches!(stranger, Recovery::Unknown { .. }), "{stranger:?}");

    let new = rig.server("new", &rig.new, true).await;
    let arguments = json!({"src": dest, "checksum": dump.result["checksum"]});
    let name = "postgresql_restore";
    let intent = kill_in(&new, "r/4", name, &arguments, progress_over(8 << 20)).await;
    // psql, whose input ended early, commits what it has.
    assert_eq!(
        recovered(&new, "r/4", name, &arguments, &intent).await,
        Recovery::NotDone
    );
    let left = sql(
        &new,
        "SELECT datname::text FROM pg_database WHERE datname LIKE 'pacsdb_%'",
    )
    .await;
    assert_eq!(left, json!([]));
    let intent = kill_in(&new, "r/5", name, &arguments, finished).await;
    let done = recovered(&new, "r/5", name, &arguments, &intent).await;
    assert!(matches!(done, Recovery::Done(_)), "{done:?}");
    let stranger = recovered(&new, "r/6", name, &arguments, &intent).await;
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
    let intent = kill_in(&new, "r/7", name, &arguments, progress_over(1)).await;
    assert_eq!(
        recovered(&new, "r/7", name, &arguments, &intent).await,
        Recovery::NotDone
    );
    let check = "SELECT (SELECT count(*) FROM twins WHERE b = 'x') + (SELECT count(*) FROM odd WHERE t = 'y') AS n";
    assert_eq!(sql(&new, check).await, json!([{"n": 0}]));
    let intent = kill_in(&new, "r/8", name, &arguments, finished).await;
    let done = recovered(&new, "r/8", name, &arguments, &intent).await;
    assert!(matches!(done, Recovery::Done(_)), "{done:?}");
    assert_eq!(sql(&new, check).await, json!([{"n": 60_004}]));
    drop(rig);
}
