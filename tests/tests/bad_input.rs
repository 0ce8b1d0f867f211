//! What is wrong with a host is said clearly, before it does harm, and once it is mended the next run
//! goes on. (`bad_playbook.rs`: what is wrong with a playbook.)

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::agent::{Agent, is_about};
use lab::check;
use lab::evidence::Evidence;
use lab::migration::{Migration, Running};
use lab::schema::UPDATES;
use lab::site::Scale;
use lab::workplace::Mount;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

/// What a run that had to stop said.
struct Refusal {
    task: String,
    code: String,
    text: String,
}

impl Refusal {
    fn must_be(&self, task: &str, code: &str, words: &[&str]) {
        let Self { text, .. } = self;
        assert!(
            self.task.ends_with(&format!(" / {task}"))
                || self.task.contains(&format!(" / {task} [")),
            "{} stopped: {text}",
            self.task
        );
        assert_eq!(self.code, code, "{text}");
        for word in words {
            assert!(text.contains(word), "it does not say `{word}`: {text}");
        }
    }
}

/// Runs, expects that a task fails, and returns what was said of it.
fn refused(command: &mut Command) -> Result<Refusal, Box<dyn Error>> {
    let ended = Running::start(command.args(["--output", "json"]))?.end()?;
    ended.must_have(2)?;
    let mut events = ended
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let failed = events
        .rfind(|event| event["event"] == "task_finished" && event["status"] == "failed")
        .ok_or_else(|| format!("no task failed: {}{}", ended.stdout, ended.stderr))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let result = &failed["result"];
    Ok(Refusal {
        task: text(&failed["task"]),
        code: text(&result["code"]),
        text: format!("{}\n{}", text(&result["msg"]), text(&result["help"])),
    })
}

/// The preflight alone.
fn preflight(agent: &Agent) -> Command {
    let mut command = agent.run();
    command.args(["--tags", "preflight"]);
    command
}

/// The preflight of the mended site goes through.
fn preflight_passes(migration: &Migration) -> Outcome {
    Running::start(&mut preflight(&migration.agent))?
        .end()?
        .must_have(0)?;
    Ok(())
}

/// A fault that is found before anything is touched: it is said, the old data stay byte for byte, and
/// once it is mended the preflight goes through.
fn is_found_first(
    break_it: impl FnOnce(&Migration) -> Outcome,
    mend_it: impl FnOnce(&Migration) -> Outcome,
    task: &str,
    code: &str,
    words: &[&str],
) -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    break_it(&migration)?;
    let before = check::dir_fingerprint(&migration.site.root.join("fast"))?;
    refused(&mut migration.agent.run())?.must_be(task, code, words);
    assert_eq!(
        check::dir_fingerprint(&migration.site.root.join("fast"))?,
        before
    );
    assert_eq!(fs::read_dir(&migration.site.backup_dir)?.count(), 0);
    migration.must_leave_nothing()?;
    mend_it(&migration)?;
    preflight_passes(&migration)
}

#[test]
fn the_slow_directory_taken_for_the_fast_one_is_no_empty_database() -> Outcome {
    is_found_first(
        |m| {
            Ok(m.agent
                .set(&json!({"fast_data_dir": m.site.slow_data_dir}))?)
        },
        |m| {
            Ok(m.agent
                .set(&json!({"fast_data_dir": m.site.fast_data_dir}))?)
        },
        "data-directory",
        "postgresql::data_directory_missing",
        &["does not exist", "FAST_DATA_DIR"],
    )
}

/// No hash of a password is kept to compare with: the server is asked, and its no counts long before a server
/// that does not answer would (`server_ready_timeout`, ten minutes).
#[test]
fn another_password_is_found_by_logging_in_and_the_right_one_goes_on() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    migration
        .agent
        .set(&json!({"pacs_password": "not the one"}))?;
    let since = Instant::now();
    refused(&mut migration.agent.run())?.must_be(
        "schema-5.26",
        "postgresql::connect",
        &[
            "password authentication failed",
            "keeps the password it was made with",
        ],
    );
    assert!(since.elapsed() < Duration::from_secs(300), "{since:?}");
    migration.must_leave_no_container()?;
    migration.agent.set(&json!({"pacs_password": "pacs"}))?;
    migration.finish()?;
    Ok(migration.must_have_ended_right()?)
}

#[test]
fn an_empty_data_directory_is_no_empty_database() -> Outcome {
    let away = |m: &Migration| m.site.root.join("away");
    is_found_first(
        |m| {
            fs::rename(m.site.postgres_dir(), away(m))?;
            Ok(fs::create_dir(m.site.postgres_dir())?)
        },
        |m| {
            fs::remove_dir(m.site.postgres_dir())?;
            Ok(fs::rename(away(m), m.site.postgres_dir())?)
        },
        "data-directory",
        "postgresql::data_directory_empty",
        &["is empty"],
    )
}

#[test]
fn a_data_directory_of_another_version_is_refused() -> Outcome {
    let version =
        |m: &Migration, text: &str| Ok(fs::write(m.site.postgres_dir().join("PG_VERSION"), text)?);
    is_found_first(
        |m| version(m, "12\n"),
        |m| version(m, "13\n"),
        "data-directory",
        "postgresql::data_directory_version",
        &["12", "13"],
    )
}

#[test]
fn a_place_that_is_to_be_filled_must_be_free() -> Outcome {
    is_found_first(
        |m| {
            fs::create_dir(m.kept_dir())?;
            Ok(fs::write(m.kept_dir().join("precious"), "data")?)
        },
        |m| Ok(fs::remove_dir_all(m.kept_dir())?),
        "places-free",
        "engine::failed_when",
        &[],
    )
}

#[test]
fn an_image_that_is_not_there_is_named() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    migration
        .agent
        .set(&json!({"new_image": "kaapana-lab/not-there:1"}))?;
    let before = check::dir_fingerprint(&migration.site.fast_data_dir)?;
    let refusal = refused(&mut migration.agent.run())?;
    let code = refusal.code.clone();
    assert!(code.starts_with("docker::"), "{code}");
    refusal.must_be("new-image", &code, &["kaapana-lab/not-there:1"]);
    assert_eq!(
        check::dir_fingerprint(&migration.site.fast_data_dir)?,
        before
    );
    migration
        .agent
        .set(&json!({"new_image": migration.site.images.new}))?;
    preflight_passes(&migration)
}

#[test]
fn without_docker_the_preflight_says_so() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let before = check::dir_fingerprint(&migration.site.fast_data_dir)?;
    let mut run = migration.agent.run();
    run.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let refusal = refused(&mut run)?;
    assert!(refusal.task.contains(" / Preflight / "), "{}", refusal.task);
    assert_eq!(refusal.code, "docker::no_socket");
    assert!(
        refusal.text.contains("/nonexistent/docker.sock"),
        "{}",
        refusal.text
    );
    assert_eq!(
        check::dir_fingerprint(&migration.site.fast_data_dir)?,
        before
    );
    preflight_passes(&migration)
}

#[test]
fn a_running_server_on_the_old_directory_stops_the_run_at_any_time() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let site = &migration.site;
    let server = site.serve(&site.images.old, &site.postgres_dir())?;
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be(
        "data-directory",
        "postgresql::data_directory_in_use",
        &[server.name()],
    );
    assert_eq!(server.psql("select count(*) from instance")?, "1000");
    server.stop()?;
    preflight_passes(&migration)?;

    // It was at rest in the preflight, and somebody starts it afterwards.
    let server = site.serve(&site.images.old, &site.postgres_dir())?;
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be(
        "data-directory",
        "postgresql::data_directory_in_use",
        &[server.name()],
    );
    // Without the looks, the service itself does not start on it.
    let refusal = refused(migration.agent.run().args(["--skip-tags", "preflight"]))?;
    refusal.must_be("schema-5.26", "docker::directory_held", &[server.name()]);
    assert_eq!(server.psql("select count(*) from instance")?, "1000");
    server.stop()?;
    migration.must_leave_nothing()?;
    migration.finish()?;
    migration.must_have_ended_right()?;
    Ok(())
}

/// The server must look to know, so that bytes of its own change; the content may not.
fn is_found_by_looking(
    change: impl FnOnce(&Migration) -> Outcome,
    task: &str,
    code: &str,
    words: &[&str],
) -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    change(&migration)?;
    let site = &migration.site;
    let look = || Evidence::of(site, &site.images.old, &site.postgres_dir(), None);
    let before = look()?;
    refused(&mut migration.agent.run())?.must_be(task, code, words);
    assert_eq!(look()?, before);
    for place in [
        migration.kept_dir(),
        migration.work_dir(),
        migration.new_dir(),
    ] {
        assert!(!place.exists(), "{}", place.display());
    }
    migration.must_leave_nothing()?;
    Ok(())
}

#[test]
fn a_schema_of_5_25_is_not_updated() -> Outcome {
    is_found_by_looking(
        |m| Ok(m.site.make_schema_5_25()?),
        "schema-5.26",
        "postgresql::schema_version",
        &["5.26", "accno_entity_id"],
    )
}

#[test]
fn a_database_without_instances_is_not_migrated() -> Outcome {
    is_found_by_looking(
        |m| {
            let server = m.site.serve(&m.site.images.old, &m.site.postgres_dir())?;
            server.psql("truncate instance cascade")?;
            Ok(server.stop()?)
        },
        "not-empty",
        "assert::false",
        &["holds no instances", "FAST_DATA_DIR"],
    )
}

#[test]
fn what_was_seen_in_a_wrong_directory_does_not_count_once_the_variable_is_mended() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let (site, agent) = (&migration.site, &migration.agent);
    let wrong = site.root.join("wrong");
    fs::create_dir(&wrong)?;
    let empty = wrong.join("postgres-dcm4che");
    let mut copy = Command::new("cp");
    copy.arg("-a").args([&site.postgres_dir(), &empty]);
    lab::tool::run(&mut copy, "copy the database")?;
    let server = site.serve(&site.images.old, &empty)?;
    server.psql("truncate instance cascade")?;
    server.stop()?;
    agent.set(&json!({"fast_data_dir": wrong}))?;
    refused(&mut agent.run())?.must_be("not-empty", "assert::false", &["holds no instances"]);
    // Something was done there: the variable is settled until that is taken back.
    agent.set(&json!({"fast_data_dir": site.fast_data_dir}))?;
    let ended = migration.start()?.end()?;
    ended.must_have(6)?;
    ended.must_say(&["`fast_data_dir` was", "put it back", "rollback"])?;
    migration.start_rollback()?.end()?.must_have(0)?;
    migration.finish()?;
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn a_script_that_fails_half_way_changes_nothing_and_goes_on_when_mended() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let folder = migration.site.root.join("scripts");
    fs::create_dir(&folder)?;
    for (name, text) in UPDATES {
        fs::write(folder.join(name), text)?;
    }
    let broken = folder.join("update-5.31-psql.sql");
    let whole = fs::read_to_string(&broken)?;
    // Behind the statement that drops the link from patient to identifier.
    fs::write(&broken, format!("{whole}\nselect 1/0;\n"))?;
    migration
        .agent
        .set(&json!({"update_scripts_from": "folder", "update_scripts_folder": folder}))?;
    let old_data = fs::metadata(migration.site.postgres_dir())?.ino();
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be(
        "update",
        "postgresql::script_failed",
        &[
            "update-5.31-psql.sql:",
            "division by zero",
            "nothing was changed",
        ],
    );
    assert!(refusal.task.ends_with("[5.31]"), "{}", refusal.task);
    assert_eq!(fs::metadata(migration.site.postgres_dir())?.ino(), old_data);
    let site = &migration.site;
    let work = Evidence::of(site, &site.images.old, &migration.work_dir(), None)?;
    assert!(work.columns["patient"].contains(&"patient_id_fk".to_owned()));
    assert!(!work.columns["patient_id"].contains(&"patient_fk".to_owned()));
    migration.must_leave_nothing()?;

    fs::write(&broken, whole)?;
    migration.finish()?;
    let again = migration.started_in_the_last_run();
    for done in ["restore-work", "update [5.30]"] {
        assert!(
            !again
                .iter()
                .any(|task| task.ends_with(&format!(" / {done}"))),
            "{done} ran again"
        );
    }
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn a_dump_that_is_cut_short_or_changed_is_not_restored() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let mut run = migration.start()?;
    run.wait_for("the work server", || {
        migration.container("pacs_work").is_some()
    })?;
    run.kill()?;
    let dump = migration.site.backup_dir.join("pacsdb_9_6.sql");
    let whole = fs::read(&dump)?;

    fs::write(&dump, &whole[..whole.len() / 2])?;
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be("restore-work", "postgresql::bad_dump", &["pacsdb_9_6.sql"]);

    // Cut at a line end within the rows, with the line that a whole dump ends with.
    let text = String::from_utf8_lossy(&whole);
    let rows = text
        .find("COPY public.location ")
        .ok_or("the dump has the rows of location")?;
    let cut = rows
        + text[rows..]
            .match_indices('\n')
            .nth(500)
            .ok_or("there are 500 rows")?
            .0;
    let rest = cut + text[cut..].find("\n\\.\n").ok_or("the rows have an end")?;
    fs::write(&dump, format!("{}{}", &text[..cut], &text[rest..]))?;
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be(
        "restore-work",
        "postgresql::checksum",
        &["pacsdb_9_6.sql", "expected"],
    );
    migration.must_leave_nothing()?;

    fs::write(&dump, whole)?;
    migration.finish()?;
    assert!(
        !migration
            .started_in_the_last_run()
            .iter()
            .any(|task| task.ends_with(" / dump-old"))
    );
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn a_full_disk_for_the_dumps_is_said_before_and_by_every_later_run() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let backup = migration.site.backup_dir.clone();
    let disk = Mount::tmpfs(&backup, "16m")?;
    let before = check::dir_fingerprint(&migration.site.postgres_dir())?;
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be("room-for-dumps", "files::not_enough_space", &["backup"]);
    assert_eq!(
        check::dir_fingerprint(&migration.site.postgres_dir())?,
        before
    );

    disk.resize("400m")?;
    preflight_passes(&migration)?;
    // It was large enough then, and fills up until the dump.
    let filler = backup.join("somebody-elses");
    fs::write(&filler, vec![0; 1 << 20])?;
    disk.resize("1600k")?;
    // Looked at again before anything rests on it; `crash --faults` fills it in the dump itself.
    let refusal = refused(&mut migration.agent.run())?;
    refusal.must_be("room-for-dumps", "files::not_enough_space", &["backup"]);
    migration.must_leave_nothing()?;
    assert!(!backup.join("pacsdb_9_6.sql").exists());

    disk.resize("400m")?;
    migration.finish()?;
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn a_full_disk_for_the_state_stops_the_run_and_loses_no_record() -> Outcome {
    let mut migration = Migration::begin(Scale::S)?;
    let dir = migration.site.root.join("small");
    fs::create_dir(&dir)?;
    let disk = Mount::tmpfs(&dir, "48k")?;
    migration.agent.state = dir.join("state");
    let ended = migration.start()?.end()?;
    ended.must_have(2)?;
    ended.must_say(&[
        "state::disk_full",
        "journal.jsonl",
        "No space left on device",
        "free space",
    ])?;
    migration.must_leave_nothing()?;

    disk.resize("50m")?;
    migration.finish()?;
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    let mut verify = Command::new(&migration.agent.binary);
    verify
        .args(["state", "verify", "--state-dir"])
        .arg(&migration.agent.state);
    Running::start(&mut verify)?.end()?.must_have(0)?;
    Ok(())
}

#[test]
fn without_a_terminal_the_run_stops_at_what_a_person_must_do_and_names_it() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let mut unattended = migration.agent.command(&["run"]);
    let ended = Running::start(&mut unattended)?.end()?;
    ended.must_have(2)?;
    ended.must_say(&["nobody can be asked", "--yes", "./deploy_platform.sh"])?;
    assert!(
        migration
            .agent
            .journal()
            .iter()
            .any(|r| is_about(r, "task_finished", "put-new"))
    );
    migration.must_leave_nothing()?;

    migration.finish()?;
    let who = migration.agent.journal();
    let answer = who
        .iter()
        .find(|r| is_about(r, "task_finished", "redeployed") && r["status"] == "ok");
    let answer = answer.ok_or("the answer is journaled")?;
    assert!(
        answer["result"]["confirmed_by"]
            .as_str()
            .is_some_and(|who| who.contains("--yes")),
        "{answer}"
    );
    migration.must_have_ended_right()?;
    Ok(())
}

#[test]
fn nothing_is_run_on_a_journal_that_was_altered() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    preflight_passes(&migration)?;
    let path: PathBuf = migration.agent.journal_path();
    let whole = fs::read_to_string(&path)?;
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    lines[4] = lines[4].replacen("Preflight", "Preflught", 1);
    let altered = lines.join("\n") + "\n";
    fs::write(&path, &altered)?;
    let ended = migration.start()?.end()?;
    ended.must_have(5)?;
    ended.must_say(&["state::damaged", "journal.jsonl:5:"])?;
    assert_eq!(fs::read_to_string(&path)?, altered);
    assert_eq!(fs::read_dir(&migration.site.backup_dir)?.count(), 0);

    // A line that was taken out breaks the chain.
    let mut lines: Vec<&str> = whole.lines().collect();
    lines.remove(4);
    fs::write(&path, lines.join("\n") + "\n")?;
    let ended = migration.start()?.end()?;
    ended.must_have(5)?;
    ended.must_say(&["state::line_removed", "journal.jsonl:5:"])?;

    fs::write(&path, whole)?;
    preflight_passes(&migration)
}
