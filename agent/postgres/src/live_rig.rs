//! Real servers in containers for the tests, from the lab's images.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::host::docker::service::ServiceHandle;
use crate::host::docker::service::{self, ServiceIdentity};
use crate::host::docker::spec::DockerContainer;
use crate::host::error::ModuleError;
use crate::registry;
use crate::task::context::TaskContext;
use crate::task::module::{Module, Outcome};

pub const DATA: &str = "/var/lib/postgresql/data";

/// A server in a container with its data in a temporary directory.
pub struct Server {
    pub ctx: TaskContext,
    pub handle: ServiceHandle,
}

/// What every test needs.
pub struct Rig {
    pub ctx: TaskContext,
    pub dir: tempfile::TempDir,
    pub state: String,
    pub old: String,
    pub new: String,
}

impl Rig {
    /// Builds the lab's images where they are missing.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let images = lab::images::PostgresImages::ensure().expect("the lab's images");
        let state = hex::encode(Sha256::digest(dir.path().as_os_str().as_encoded_bytes()));
        Self {
            ctx: TaskContext::for_tests(dir.path()),
            dir,
            state,
            old: images.old,
            new: images.new,
        }
    }

    /// Starts a server; `bare` mounts an empty directory over the scripts of the image.
    pub async fn server(&self, name: &str, image: &str, bare: bool) -> Server {
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

pub fn module(name: &str, arguments: Value) -> Box<dyn Module> {
    (registry::find(name).expect("module").build)(arguments).expect("arguments")
}

/// What the engine does: prepare, then apply.
pub async fn run(ctx: &TaskContext, name: &str, arguments: Value) -> Result<Outcome, ModuleError> {
    let module = module(name, arguments);
    let intent = module.prepare(ctx).await?;
    module.apply(ctx, &intent).await
}

pub fn code(error: ModuleError) -> String {
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

pub async fn sql(server: &Server, query: &str) -> Value {
    let ran = run(&server.ctx, "postgresql_query", json!({"query": query})).await;
    ran.expect("query").result["query_result"].clone()
}

/// Values that look different from version to version, and enough rows to be interrupted in.
pub async fn fill(server: &Server, rows: u32) {
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

/// Runs a program of the server's container as the server's user.
pub fn inside(server: &Server, options: &[&str], command: &[&str], stdin: &str) -> Output {
    let mut child = Command::new("docker")
        .args(["exec", "-i", "-e", "PGUSER=pacs"])
        .args(options)
        .arg(&server.handle.container_id)
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("docker");
    let mut pipe = child.stdin.take().expect("stdin");
    let text = stdin.to_owned();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut pipe, text.as_bytes()));
    let output = child.wait_with_output().expect("docker");
    writer.join().expect("thread").expect("written");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn psql(server: &Server, db: &str, text: &str) -> String {
    let command = [
        "psql",
        "-X",
        "-q",
        "-A",
        "-t",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        db,
    ];
    String::from_utf8(inside(server, &[], &command, text).stdout).expect("UTF-8")
}
