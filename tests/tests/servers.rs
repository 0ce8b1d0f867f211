//! Servers do not outlive their agent, and work on no directory that is not what it was. A real server, real
//! signals, real directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::error::LabError;
use lab::images::{docker, new_postgres, old_postgres, remove_containers_on};
use lab::migration::{Ended, Running};
use lab::scene::Scene;
use serde_json::Value;

type Tried = Result<(), LabError>;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a server that lost its agent may take to end: a fast shutdown of an idle one.
const SECONDS: Duration = Duration::from_secs(30);

/// A cluster, a server on it, and a task that waits for a file as long as nobody makes it.
const LONG: &str = r#"
- id: make
  postgresql_initdb: {path: HOME/pg, image: IMAGE, env: &env {POSTGRES_DB: d, POSTGRES_USER: u, POSTGRES_PASSWORD: a-long-password}}
- name: On it
  services:
    - name: db
      docker_container:
        image: IMAGE
        env: *env
        volumes: ["HOME/pg:/var/lib/postgresql/data"]
        tmpfs: [/docker-entrypoint-initdb.d]
        published_ports: ["5432"]
      ready: {postgresql_ping: {db: d}}
  block:
    - id: table
      postgresql_query: {db: d, query: create table t (x int)}
    - id: wait
      wait_for: {path: HOME/go, sleep: 1}
    - id: row
      postgresql_query: {db: d, query: insert into t values (1)}
"#;

/// A playbook with servers; its containers go with it.
struct Stage {
    scene: Scene,
}

impl Stage {
    fn with(tasks: &str) -> Result<Self, LabError> {
        let scene = Scene::with(&filled(tasks)?)?;
        Ok(Self { scene })
    }

    fn home(&self) -> PathBuf {
        self.scene.path("")
    }

    /// Waits until a task has begun.
    fn in_task(&self, run: &mut Running, task: &str) -> Tried {
        run.wait_for(task, || {
            !self.scene.records("task_started", task).is_empty()
        })
    }

    /// The container of the service that was started last.
    fn container(&self) -> String {
        let journal = self.scene.journal();
        let started = journal
            .iter()
            .rfind(|record| record["event"] == "service_started");
        started
            .and_then(|record| record["container"].as_str())
            .unwrap_or_default()
            .to_owned()
    }

    fn is_up(&self) -> bool {
        let running = docker(&["inspect", "-f", "{{.State.Running}}", &self.container()]);
        running.is_ok_and(|running| running.trim() == "true")
    }

    /// What the server's own log says.
    fn log(&self) -> String {
        let logs = Command::new("docker")
            .args(["logs", &self.container()])
            .output()
            .expect("docker");
        String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).into_owned()
    }

    /// Waits until the server has ended by itself, and proves that it ended well.
    fn must_end_cleanly(&self) {
        let since = Instant::now();
        while self.is_up() {
            assert!(since.elapsed() < SECONDS, "it is still up: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = self.log();
        assert!(
            log.contains("the agent is gone: SIGINT ends postgres"),
            "{log}"
        );
        assert!(log.contains("received fast shutdown request"), "{log}");
        assert!(log.contains("database system is shut down"), "{log}");
        let pid = self.scene.path("pg/postmaster.pid");
        assert!(!pid.exists(), "a server that ended well takes it away");
    }

    fn status(&self) -> Result<String, LabError> {
        Ok(self.scene.agent(&["status"], &[])?.stdout)
    }

    fn finish(&self) -> Tried {
        fs::write(self.scene.path("go"), "").expect("write");
        let ended = self.scene.run()?;
        ended.must_have(0)?;
        assert!(!self.exists());
        Ok(())
    }

    fn exists(&self) -> bool {
        docker(&["inspect", &self.container()]).is_ok()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        remove_containers_on(&self.home());
    }
}

fn filled(tasks: &str) -> Result<String, LabError> {
    Ok(tasks
        .replace("IMAGE", &new_postgres()?)
        .replace("OLD", &old_postgres()?))
}

fn decided(ended: &Ended, code: &str, words: &[&str]) {
    assert_eq!(ended.code, Some(6), "{}{}", ended.stdout, ended.stderr);
    for word in words.iter().chain([&code]) {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
}

#[test]
fn a_server_ends_by_itself_when_its_agent_is_killed_and_the_next_run_goes_on() -> Tried {
    let stage = Stage::with(LONG)?;
    let mut run = stage.scene.start()?;
    stage.in_task(&mut run, "wait")?;
    let status = stage.status()?;
    let first = status.lines().next().unwrap_or_default();
    let path = stage.scene.path("pg");
    assert!(first.starts_with("server of service db is up"), "{status}");
    assert!(
        first.contains(&format!("{} (PostgreSQL 15)", path.display())),
        "{status}"
    );
    assert!(status.contains("do not deploy Kaapana now"), "{status}");
    run.kill()?;
    stage.must_end_cleanly();
    let status = stage.status()?;
    assert!(!status.contains("do not deploy"), "{status}");
    assert!(status.contains("ended, as its agent is gone"), "{status}");
    stage.finish()
}

/// Pauses a container; runc gives up on one whose processes are just being born.
fn freeze(container: &str) {
    let since = Instant::now();
    while let Err(error) = docker(&["pause", container]) {
        assert!(since.elapsed() < PATIENCE, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_stopped_agent_and_a_frozen_container_lose_nothing() -> Tried {
    // The soak variant stands still for five minutes.
    let seconds = std::env::var("KAAPANA_LAB_STILL").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(4);
    let still = Duration::from_secs(seconds);
    let stage = Stage::with(LONG)?;
    let mut run = stage.scene.start()?;
    stage.in_task(&mut run, "wait")?;
    let container = stage.container();
    run.signal("STOP")?;
    std::thread::sleep(still);
    assert!(stage.is_up());
    freeze(&container);
    std::thread::sleep(Duration::from_secs(1));
    docker(&["unpause", &container])?;
    run.signal("CONT")?;
    assert!(stage.is_up());
    assert!(!stage.log().contains("shutdown request"), "{}", stage.log());
    // Killed while its container is frozen: the server ends when it thaws.
    freeze(&container);
    run.kill()?;
    std::thread::sleep(Duration::from_millis(500));
    docker(&["unpause", &container])?;
    stage.must_end_cleanly();
    stage.finish()
}

/// Whoever starts the tests may ignore the signal, as nohup does, and the agent would inherit that.
const HEARS_HANGUPS: [&str; 2] = ["env", "--default-signal=HUP"];

#[test]
fn a_terminal_that_goes_away_stops_the_run_cleanly() -> Tried {
    let stage = Stage::with(LONG)?;
    // The agent's terminal is made by script(1), and goes with it.
    let agent = stage.scene.command(&[], &["run"], &[])?;
    let words: Vec<String> = std::iter::once(agent.get_program())
        .chain(agent.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut terminal = Command::new("script");
    let words = words.join(" ");
    let line = format!("exec {} {words}", HEARS_HANGUPS.join(" "));
    terminal.args(["-qec", &line, "/dev/null"]);
    let mut run = Running::start(terminal.stdin(std::process::Stdio::null()))?;
    stage.in_task(&mut run, "wait")?;
    run.kill()?;
    let since = Instant::now();
    let ended = || {
        let journal = stage.scene.journal();
        journal
            .iter()
            .find(|record| record["event"] == "run_finished")
            .map(|record| record["outcome"].clone())
    };
    while ended().is_none() {
        assert!(since.elapsed() < PATIENCE, "{:?}", stage.scene.journal());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ended(), Some(Value::from("interrupted")));
    assert!(!stage.exists(), "the service was stopped and removed");
    stage.finish()
}

#[test]
fn a_hangup_is_heard_unless_it_was_ignored_from_the_start() -> Tried {
    let stage = Stage::with("- id: wait\n  wait_for: {path: HOME/go, sleep: 1}\n")?;
    let mut run = Running::start(&mut stage.scene.command(&HEARS_HANGUPS, &["run"], &[])?)?;
    stage.in_task(&mut run, "wait")?;
    run.signal("HUP")?;
    assert_eq!(run.end()?.code, Some(130));
    let nohup = ["sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""];
    let mut run = Running::start(&mut stage.scene.command(&nohup, &["run"], &[])?)?;
    run.wait_for("wait", || {
        stage.scene.records("task_started", "wait").len() == 2
    })?;
    run.signal("HUP")?;
    fs::write(stage.scene.path("go"), "").expect("write");
    run.end()?.must_have(0)
}

#[test]
fn an_agent_that_is_killed_in_the_commit_of_a_script_leaves_it_whole_or_undone() -> Tried {
    // The commit takes as long as a deferred trigger does.
    let tasks = LONG.replace(
        "    - id: wait\n      wait_for: {path: HOME/go, sleep: 1}\n",
        "    - id: script\n      postgresql_script: {db: d, path: HOME/script.sql}\n",
    );
    let stage = Stage::with(&tasks)?;
    fs::write(
        stage.scene.path("script.sql"),
        "create table slow (x int);\n\
         create function wait() returns trigger language plpgsql as \
         $$ begin if not exists (select from pg_ls_dir('.') as f where f = 'go') then perform pg_sleep(60); end if; return null; end $$;\n\
         create constraint trigger late after insert on slow deferrable initially deferred \
         for each row execute function wait();\n\
         insert into slow values (1);\n",
    )
    .expect("write");
    let mut run = stage.scene.start()?;
    stage.in_task(&mut run, "script")?;
    let container = stage.container();
    let in_commit = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    run.wait_for("the commit", || {
        let psql = [
            "exec", &container, "psql", "-XqAt", "-U", "u", "-d", "d", "-c", in_commit,
        ];
        docker(&psql).is_ok_and(|count| count.trim() == "1")
    })?;
    run.kill()?;
    stage.must_end_cleanly();
    // The next one does not wait.
    fs::write(stage.scene.path("pg/go"), "").expect("write");
    stage.scene.run()?.must_have(0)?;
    let finished = stage.scene.records("task_finished", "script");
    assert_eq!(finished.len(), 1, "{finished:?}");
    Ok(())
}

/// Two clusters, a server on each, and the swap; AT and BY are where each server finds its directory.
const SWAP: &str = r#"
- id: make-old
  postgresql_initdb: {path: HOME/pg, image: OLD, env: &env {POSTGRES_DB: d, POSTGRES_USER: u, POSTGRES_PASSWORD: a-long-password}}
- id: make-new
  postgresql_initdb: {path: HOME/pg.new, image: IMAGE, env: *env}
- name: Old
  services:
    - name: old
      docker_container: {image: SERVER, env: *env, volumes: ["HOME/AT:/var/lib/postgresql/data"], published_ports: ["5432"]}
      ready: {postgresql_ping: {db: d}}
  block:
    - id: look-old TIMES
      postgresql_ping: {db: d}
- name: New
  services:
    - name: new
      docker_container: {image: IMAGE, env: *env, volumes: ["HOME/BY:/var/lib/postgresql/data"], published_ports: ["5432"]}
      ready: {postgresql_ping: {db: d}}
  block:
    - id: look-new TIMES
      postgresql_ping: {db: d}
- id: keep-old
  move: {src: HOME/pg, dest: HOME/pg.kept}
- id: put-new
  move: {src: HOME/pg.new, dest: HOME/pg}
"#;

/// The playbook in which a server finds another directory, and has something new to do there.
fn swap(at: &str, server: &str, by: &str, times: &str) -> String {
    SWAP.replace("AT:", &format!("{at}:"))
        .replace("SERVER", server)
        .replace("BY:", &format!("{by}:"))
        .replace("TIMES", times)
}

#[test]
fn no_server_is_started_on_what_the_migration_swapped() -> Tried {
    let stage = Stage::with(&swap("pg", "OLD", "pg.new", "1"))?;
    stage.scene.run()?.must_have(0)?;
    let live = stage.scene.path("pg");
    let control = || fs::read(live.join("global/pg_control")).expect("read");
    let before = control();
    let started = || {
        let journal = stage.scene.journal().into_iter();
        journal
            .filter(|record| record["event"] == "service_started")
            .count()
    };
    let count = started();
    let path = live.display().to_string();
    // The 0.2 server on the live 0.3 directory, then with an image that could open it.
    for server in ["OLD", "IMAGE"] {
        stage
            .scene
            .write(&filled(&swap("pg", server, "pg", "2"))?)?;
        let ended = stage.scene.run()?;
        decided(
            &ended,
            "service::directory_swapped",
            &[&path, "put-new", "PostgreSQL 15", "rollback"],
        );
        assert_eq!(started(), count, "no container was started");
    }
    assert_eq!(control(), before);
    // Who worked on it before the swap may again; and so with the one that is kept.
    stage
        .scene
        .write(&filled(&swap("pg.kept", "OLD", "pg", "3"))?)?;
    stage.scene.run()?.must_have(0)?;
    assert_eq!(started(), count + 2);
    // Another major version is told from the image, before Docker hears of it.
    stage
        .scene
        .write(&filled(&swap("pg.kept", "IMAGE", "pg", "4"))?)?;
    let words = ["pg.kept", "PostgreSQL 13", "PostgreSQL 15"];
    decided(&stage.scene.run()?, "service::directory_version", &words);
    // An image whose environment says nothing is asked.
    let silent = Derived::of("ENV PG_MAJOR= PG_VERSION=", "silent")?;
    let tasks = swap("pg.kept", &silent.0, "pg", "5");
    stage.scene.write(&filled(&tasks)?)?;
    decided(&stage.scene.run()?, "service::directory_version", &words);
    Ok(())
}

#[test]
fn a_journal_that_knows_no_directories_protects_what_it_moved() -> Tried {
    let stage = Stage::with(&swap("pg", "OLD", "pg.new", "1"))?;
    stage.scene.run()?.must_have(0)?;
    // What an agent of version 2 would have written: nothing of directories.
    without_directories(&stage.scene.journal_path());
    stage
        .scene
        .write(&filled(&swap("pg", "IMAGE", "pg", "2"))?)?;
    decided(
        &stage.scene.run()?,
        "service::directory_swapped",
        &["put-new"],
    );
    Ok(())
}

/// Writes a journal anew, as an older agent would have.
fn without_directories(journal: &Path) {
    let text = fs::read_to_string(journal).expect("read");
    let mut prev = "0".repeat(64);
    let mut out = String::new();
    for line in text.lines() {
        let mut record: serde_json::Map<String, Value> = serde_json::from_str(line).expect("json");
        record.remove("directories");
        record.remove("hash");
        record.insert("v".into(), 2.into());
        record.insert("prev".into(), prev.into());
        let body = serde_json::to_string(&record).expect("json");
        let mut sum = Command::new("sha256sum");
        let hash = lab::tool::run_with_input(&mut sum, "hash", body.as_bytes()).expect("sha256sum");
        prev = hash.split(' ').next().unwrap_or_default().to_owned();
        out.push_str(&format!(
            "{},\"hash\":\"{prev}\"}}\n",
            body.trim_end_matches('}')
        ));
    }
    fs::write(journal, out).expect("write");
}

/// A server that is started in each of two runs.
const TWICE: &str = r#"
- id: make
  postgresql_initdb: {path: HOME/disk/pg, image: IMAGE, env: &env {POSTGRES_DB: d, POSTGRES_USER: u, POSTGRES_PASSWORD: a-long-password}}
- name: On it
  services:
    - name: db
      docker_container:
        image: IMAGE
        env: *env
        volumes: ["HOME/disk/pg:/var/lib/postgresql/data"]
        published_ports: ["5432"]
      ready: {postgresql_ping: {db: d}}
  block:
    - id: first
      postgresql_query: {db: d, query: create table t (x int)}
    - id: there
      assert: {that: "'HOME/go' is exists"}
    - id: second
      postgresql_query: {db: d, query: insert into t values (1)}
"#;

#[test]
fn a_disk_that_comes_back_under_another_number_is_the_same_disk() -> Tried {
    let stage = Stage::with(TWICE)?;
    let disk = stage.scene.path("disk");
    let image = stage.scene.path("disk.ext4");
    fs::create_dir(&disk).expect("mkdir");
    let sh = |script: &str| {
        let mut sh = Command::new("sh");
        sh.args(["-ec", script, "sh"]).arg(&image).arg(&disk);
        lab::tool::run(&mut sh, "prepare a disk")
    };
    sh("truncate -s 512M \"$1\"; mkfs.ext4 -q \"$1\"; mount -o loop \"$1\" \"$2\"")?;
    let device = || {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&disk).expect("stat").dev()
    };
    let before = device();
    let first = stage.scene.run()?;
    assert_eq!(first.code, Some(2), "{}{}", first.stdout, first.stderr);
    // The same file behind another device.
    let behind = sh(
        "other=$(losetup --find --show \"$1\"); umount \"$2\"; mount \"$other\" \"$2\"; echo $other",
    )?;
    let other = device();
    fs::write(stage.scene.path("go"), "").expect("write");
    let second = stage.scene.run();
    let copied = sh("cp -a \"$2/pg\" \"$2/copy\"; rm -r \"$2/pg\"; mv \"$2/copy\" \"$2/pg\"");
    stage.scene.write(&filled(&format!(
        "{TWICE}    - id: third\n      postgresql_ping: {{db: d}}\n"
    ))?)?;
    let third = stage.scene.run();
    let adopted = stage
        .scene
        .agent(&["state", "adopt"], &["--reason", "restored"]);
    let fourth = stage.scene.run();
    remove_containers_on(&stage.home());
    sh(&format!(
        "umount \"$2\"; losetup --detach {}",
        behind.trim()
    ))?;
    assert_ne!(before, other, "the disk has another number");
    second?.must_have(0)?;
    // A copy of the directory in its place is asked about, and a person may answer for it.
    copied?;
    decided(
        &third?,
        "service::directory_copied",
        &["disk/pg", "state adopt"],
    );
    adopted?.must_have(0)?;
    fourth?.must_have(0)
}

#[test]
fn an_image_that_cannot_wait_for_the_agent_gets_no_data() -> Tried {
    let base = new_postgres()?;
    let derived = Derived::of("RUN rm \"$(command -v flock)\"", "without-flock")?;
    let image = &derived.0;
    let stage = Stage::with(LONG)?;
    fs::write(stage.scene.path("go"), "").expect("write");
    let tasks = filled(LONG)?;
    let service = tasks.replacen(&base, image, 2).replacen(image, &base, 1);
    stage.scene.write(&service)?;
    let ended = stage.scene.run()?;
    assert_eq!(ended.code, Some(2), "{}{}", ended.stdout, ended.stderr);
    let told = format!("{}{}", ended.stdout, ended.stderr);
    assert!(told.contains("no flock(1) in this image"), "{told}");
    assert!(
        told.contains("docker::cannot_watch") || told.contains("util-linux"),
        "{told}"
    );
    stage.scene.write(&tasks)?;
    stage.finish()
}

/// An image of the lab's with a difference, which goes with this value.
struct Derived(String);

impl Derived {
    fn of(lines: &str, name: &str) -> Result<Self, LabError> {
        let image = format!("kaapana-lab/{name}:{}", std::process::id());
        let mut build = Command::new("docker");
        build.args(["build", "--quiet", "--tag", &image, "-"]);
        let text = format!("FROM {}\nLABEL kaapana-lab=1\n{lines}\n", new_postgres()?);
        lab::tool::run_with_input(&mut build, "build an image", text.as_bytes())?;
        Ok(Self(image))
    }
}

impl Drop for Derived {
    fn drop(&mut self) {
        let _ = docker(&["rmi", "--force", &self.0]);
    }
}
