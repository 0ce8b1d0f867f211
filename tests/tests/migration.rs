//! The promise of the whole: a site is migrated once and rightly, however often the agent is stopped.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::agent::{Agent, is_about};
use lab::images::docker;
use lab::migration::{Ended, Migration, Running};
use lab::schema::UPDATES;
use lab::site::Scale;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

/// The database that a dump is restored into, as it is called until it is whole.
const RESTORING: &str = "pacsdb_restoring";

/// Where in a task the agent is killed.
enum Moment<'a> {
    /// As soon as the journal says that the task has started.
    Started,
    /// While this program, or a process that says this of itself, works in a container of this service.
    Program(&'a str, &'a str),
    /// As soon as this path is there, or is not there any more.
    Appears(PathBuf),
    Vanishes(PathBuf),
}

#[test]
fn a_site_is_migrated_whole_and_once() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    migration.finish()?;
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;

    let agent = &migration.agent;
    let ask = |words: &[&str]| Running::start(&mut agent.command(words)).and_then(Running::end);
    let plan = ask(&["plan"])?;
    plan.must_have(0)?;
    plan.must_say(&["0 to run, 0 to look at after an interruption, 0 known later"])?;
    let plan = ask(&["--output", "json", "plan"])?;
    let plan: Value = serde_json::from_str(&plan.stdout)?;
    let entries = plan["plan"]["entries"]
        .as_array()
        .ok_or("a plan has entries")?;
    assert!(
        entries
            .iter()
            .all(|entry| ["done", "skip"].contains(&entry["action"].as_str().unwrap_or_default())),
        "{plan:#}"
    );

    let status = without_variables(agent, &["--output", "json", "status"])?;
    status.must_have(0)?;
    let status: Value = serde_json::from_str(&status.stdout)?;
    assert_eq!(status["runs"].as_array().map(Vec::len), Some(2));
    assert_eq!(status["runs"][0]["outcome"], "done");
    without_variables(agent, &["state", "verify"])?.must_have(0)?;
    // It notices a dump that was changed afterwards.
    let dump = migration.site.backup_dir.join("pacsdb_9_6.sql");
    fs::write(&dump, "-- gone\n")?;
    let verify = without_variables(agent, &["state", "verify"])?;
    verify.must_have(2)?;
    verify.must_say(&["pacsdb_9_6.sql", "its content has changed since"])?;
    Ok(())
}

/// `status` and `state` take a playbook and no variables.
fn without_variables(agent: &Agent, words: &[&str]) -> Result<Ended, Box<dyn Error>> {
    let mut command = agent.command_without_variables(words);
    Ok(Running::start(&mut command)?.end()?)
}

#[test]
fn a_run_killed_in_the_first_dump_is_continued() -> Outcome {
    killed_at("dump-old", |_| Moment::Program("pacs_old", "pg_dump"))
}

#[test]
fn a_run_killed_in_the_restore_is_continued() -> Outcome {
    killed_at("restore-work", |_| Moment::Program("pacs_work", RESTORING))
}

#[test]
fn a_run_killed_in_the_second_dump_is_continued() -> Outcome {
    killed_at("dump-updated", |migration| {
        Moment::Appears(migration.site.backup_dir.join("pacsdb_updated.sql.partial"))
    })
}

#[test]
fn a_run_killed_in_the_restore_into_the_new_server_is_continued() -> Outcome {
    killed_at("restore-new", |_| Moment::Program("pacs_new", RESTORING))
}

#[test]
fn a_run_killed_before_the_old_directory_is_moved_is_continued() -> Outcome {
    killed_at("keep-old", |_| Moment::Started)
}

#[test]
fn a_run_killed_when_the_old_directory_has_moved_is_continued() -> Outcome {
    killed_at("keep-old", |migration| {
        Moment::Appears(migration.kept_dir())
    })
}

#[test]
fn a_run_killed_when_the_new_directory_has_moved_is_continued() -> Outcome {
    killed_at("put-new", |migration| Moment::Vanishes(migration.new_dir()))
}

#[test]
fn a_run_killed_in_the_removal_is_continued() -> Outcome {
    killed_at("remove-work", |migration| {
        Moment::Vanishes(migration.work_dir())
    })
}

#[test]
fn a_run_killed_in_the_dump_that_is_restored_meanwhile_is_continued() -> Outcome {
    killed_on("direct", "dump-old-direct", |_| {
        Moment::Program("pacs_direct", RESTORING)
    })
}

#[test]
fn a_run_killed_before_what_was_restored_meanwhile_is_taken_is_continued() -> Outcome {
    killed_on("direct", "restore-direct", |_| Moment::Started)
}

#[test]
fn a_run_killed_in_a_direct_update_is_continued() -> Outcome {
    killed_on("direct", "update-direct [5.32]", |_| Moment::Started)
}

#[test]
fn a_run_killed_in_the_direct_dump_is_continued() -> Outcome {
    killed_on("direct", "dump-direct", |migration| {
        Moment::Appears(migration.site.backup_dir.join("pacsdb_updated.sql.partial"))
    })
}

fn killed_at(task: &str, moment: impl FnOnce(&Migration) -> Moment<'static>) -> Outcome {
    killed_on("guide", task, moment)
}

/// Runs until a moment within a task, sends SIGKILL, and runs again to the one right end.
fn killed_on(
    route: &str,
    task: &str,
    moment: impl FnOnce(&Migration) -> Moment<'static>,
) -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    migration.agent.set(&json!({"route": route}))?;
    let mut run = migration.start()?;
    run.wait_for(&format!("the start of {task}"), || {
        migration.has_started(task)
    })?;
    match moment(&migration) {
        Moment::Started => {}
        Moment::Program(service, program) => {
            let container = migration
                .container(service)
                .ok_or("the service has a container")?;
            let id = docker(&["inspect", "--format", "{{.Id}}", &container])?;
            run.wait_for(program, || works_in(program, id.trim()))?;
        }
        Moment::Appears(path) => at_once(&mut run, || path.exists())?,
        Moment::Vanishes(path) => at_once(&mut run, || !path.exists())?,
    }
    run.kill()?;
    println!("killed within {task}: {}", migration.is_open(task));
    continues_to_the_right_end(&migration)
}

/// Every task that ended before the kill is passed over, and the end is the right one.
fn continues_to_the_right_end(migration: &Migration) -> Outcome {
    let done = migration.agent.journal();
    migration.finish()?;
    for task in migration.started_in_the_last_run() {
        let ended = done.iter().any(|r| {
            r["event"] == "task_finished" && r["task"] == task.as_str() && r["status"] != "failed"
        });
        let again = lab::agent::is_looked_at_again(&task);
        assert!(!ended || again, "{task} ran again although it was done");
    }
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    Ok(())
}

/// Looks without a pause: what is waited for may be over in a millisecond.
fn at_once(run: &mut Running, mut condition: impl FnMut() -> bool) -> Outcome {
    run.wait_for("it", || {
        let since = std::time::Instant::now();
        loop {
            if condition() {
                return true;
            }
            if since.elapsed() > Duration::from_millis(200) {
                return false;
            }
            std::hint::spin_loop();
        }
    })?;
    Ok(())
}

/// Tells whether a program of this name, or a session of PostgreSQL's that names this in its title, runs in
/// a container: its control group has the container's id.
fn works_in(program: &str, container_id: &str) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        let read = |name: &str| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        (read("comm").trim() == program || read("cmdline").contains(program))
            && read("cgroup").contains(container_id)
    })
}

#[test]
fn a_run_killed_in_a_script_is_continued() -> Outcome {
    killed_in_script("5.31")
}

#[test]
fn a_run_killed_in_the_last_script_is_continued() -> Outcome {
    killed_in_script("5.32")
}

/// The script stands still at its end, its work done and not committed, as long as a file is in the
/// container: that file goes with the container, and the script itself stays the same.
fn killed_in_script(version: &str) -> Outcome {
    const HOLD: &str = "do $$ begin while (pg_stat_file('/tmp/hold', true)).size is not null loop \
                        perform pg_sleep(0.01); end loop; end $$;\n";
    let migration = Migration::begin(Scale::S)?;
    let held = format!("update-{version}-psql.sql");
    let folder = scripts(&migration, |name, text| {
        if name == held {
            format!("{text}\n{HOLD}")
        } else {
            text.to_owned()
        }
    })?;
    migration
        .agent
        .set(&json!({"update_scripts_from": "folder", "update_scripts_folder": folder}))?;
    let mut run = migration.start()?;
    run.wait_for("the restore", || migration.has_started("restore-work"))?;
    let container = migration
        .container("pacs_work")
        .ok_or("the service has a container")?;
    docker(&["exec", &container, "touch", "/tmp/hold"])?;
    let task = format!("update [{version}]");
    run.wait_for("the script", || {
        migration
            .agent
            .journal()
            .iter()
            .any(|r| is_about(r, "task_started", &task))
    })?;
    run.wait_for("the script at its end", || {
        lab::server::psql(
            &container,
            "pacs",
            "pacsdb",
            "select count(*) from pg_stat_activity where wait_event = 'PgSleep'",
        )
        .is_ok_and(|count| count == "1")
    })?;
    run.kill()?;
    assert!(migration.is_open(&task));
    continues_to_the_right_end(&migration)
}

/// Writes the update scripts into a folder of the site.
fn scripts(
    migration: &Migration,
    change: impl Fn(&str, &str) -> String,
) -> Result<PathBuf, Box<dyn Error>> {
    let folder = migration.site.root.join("scripts");
    fs::create_dir_all(&folder)?;
    for (name, text) in UPDATES {
        fs::write(folder.join(name), change(name, text))?;
    }
    Ok(folder)
}

#[test]
fn a_run_killed_when_it_starts_a_server_is_continued() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    for service in ["pacs_old", "pacs_work"] {
        let mut run = migration.start()?;
        run.wait_for(service, || migration.container(service).is_some())?;
        run.kill()?;
    }
    // And in the middle of initdb: the directory is neither empty nor a database.
    let mut run = migration.start()?;
    let new = migration.new_dir();
    run.wait_for("initdb at work", || new.join("PG_VERSION").exists())?;
    run.kill()?;
    continues_to_the_right_end(&migration)
}

#[test]
fn power_lost_in_a_restore_is_survived() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let mut run = migration.start()?;
    run.wait_for("the restore", || migration.has_started("restore-work"))?;
    let container = migration
        .container("pacs_work")
        .ok_or("the service has a container")?;
    let id = docker(&["inspect", "--format", "{{.Id}}", &container])?;
    run.wait_for("its session", || works_in(RESTORING, id.trim()))?;
    run.kill()?;
    // The server has no time to write anything out either.
    docker(&["kill", &container])?;
    continues_to_the_right_end(&migration)
}

#[test]
fn sigint_and_sigterm_stop_cleanly_although_sent_twice() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    for (signal, task) in [
        ("INT", "dump-old"),
        ("TERM", "restore-work"),
        ("INT", "restore-new"),
    ] {
        let mut run = migration.start()?;
        run.wait_for(task, || migration.has_started(task))?;
        run.signal(signal)?;
        // As timeout(1) does: to the process, and to its group.
        run.signal(signal)?;
        let ended = run.end()?;
        ended.must_have(130)?;
        ended.must_say(&["Run the same command again"])?;
        migration.must_leave_nothing()?;
        let journal = migration.agent.journal();
        let last = journal.last().ok_or("the journal has an end")?;
        assert_eq!(
            (&last["event"], &last["outcome"]),
            (&json!("run_finished"), &json!("interrupted"))
        );
    }
    continues_to_the_right_end(&migration)
}

#[test]
fn a_larger_site_is_migrated_in_little_memory_although_killed() -> Outcome {
    const MOST_KIB: u64 = 64 * 1024;
    let migration = Migration::begin(Scale::M)?;
    let mut peak = 0;
    for task in [Some("update [5.32]"), None] {
        let mut run = migration.start()?;
        let status = Path::new("/proc")
            .join(run.pid().to_string())
            .join("status");
        if let Some(task) = task {
            run.wait_for(task, || {
                peak = peak.max(peak_kib(&status));
                migration
                    .agent
                    .journal()
                    .iter()
                    .any(|r| is_about(r, "task_started", task))
            })?;
            run.kill()?;
            assert!(migration.is_open(task));
        } else {
            run.wait_for("the end", || {
                // The figure of a process goes with it.
                peak = peak.max(peak_kib(&status));
                let journal =
                    fs::read_to_string(migration.agent.journal_path()).unwrap_or_default();
                journal.ends_with("}\n")
                    && journal
                        .lines()
                        .last()
                        .is_some_and(|line| line.contains("\"event\":\"run_finished\""))
            })?;
            run.end()?.must_have(0)?;
        }
    }
    println!("peak memory of the agent: {} MiB", peak / 1024);
    assert!(
        (1..MOST_KIB).contains(&peak),
        "the agent used {} MiB",
        peak / 1024
    );
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    Ok(())
}

/// VmHWM of proc(5): the largest resident size so far.
fn peak_kib(status: &Path) -> u64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_second_agent_is_told_who_is_at_work() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let mut run = migration.start()?;
    run.wait_for("the dump", || migration.has_started("dump-old"))?;
    let second = migration.start()?.end()?;
    second.must_have(7)?;
    second.must_say(&["state::locked", &format!("pid {}", run.pid())])?;
    let status = without_variables(&migration.agent, &["status"])?;
    status.must_have(0)?;
    run.end()?.must_have(0)?;
    assert_eq!(
        migration
            .agent
            .journal()
            .iter()
            .filter(|r| r["event"] == "run_started")
            .count(),
        1
    );
    migration.must_have_ended_right()?;
    Ok(())
}
