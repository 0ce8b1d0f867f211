//! The way back: a site is again what it was, wherever the migration stood and however often the
//! rollback is stopped; what was made waits in quarantine until a verified pass.

use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::agent::{self, is_about};
use lab::evidence::inodes;
use lab::images::docker;
use lab::migration::{Ended, Migration, Running};
use lab::site::Scale;
use lab::workplace::Mount;

type Outcome = Result<(), Box<dyn Error>>;

/// More kills than this would mean that the rollback does not get on.
const MOST_KILLS: usize = 120;

#[test]
fn a_finished_migration_is_rolled_back_although_killed_after_every_record() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let purge = |words: &[&str]| -> Result<Ended, Box<dyn Error>> {
        let mut command = migration.agent.command(words);
        Ok(Running::start(&mut command)?.end()?)
    };
    purge(&["purge", "--yes"])?.must_say(&["nothing lies in quarantine"])?;
    migration.finish()?;
    assert_eq!(migration.in_quarantine(), ["postgres-dcm4che9.6"]);

    let check = purge(&["rollback", "--check"])?;
    check.must_have(0)?;
    check.must_say(&["0 that cannot be undone", "move back"])?;
    // Nobody is at a terminal, and nobody said `--yes`.
    let unasked = purge(&["rollback"])?;
    unasked.must_have(2)?;
    unasked.must_say(&["not confirmed"])?;

    let kills = killed_after_every_record(&migration)?;
    println!("the rollback was killed {kills} times");
    assert!(kills > 8, "it was killed {kills} times only");
    migration.must_be_rolled_back()?;
    let made = migration.in_quarantine();
    for name in [
        "pacsdb_9_6.sql",
        "pacsdb_9_6.sql.sha256",
        "pacsdb_updated.sql",
        "pacsdb_updated.sql.sha256",
        "postgres-dcm4che-new",
        "postgres-dcm4che9.6",
        "sql",
        "update-5.32-psql.sql",
    ] {
        assert!(made.iter().any(|found| found == name), "{name}: {made:?}");
    }

    // Something of it is looked at: nothing is deleted yet.
    let looked_at = fs::File::open(in_quarantine(&migration, "pacsdb_9_6.sql")?)?;
    let refused = purge(&["purge", "--yes"])?;
    refused.must_have(5)?;
    refused.must_say(&["purge::not_verified", "is in use"])?;
    drop(looked_at);
    let unasked = purge(&["purge"])?;
    unasked.must_have(2)?;
    unasked.must_say(&[
        "Everything was taken back in run",
        "nobody can look at it or bring it back any more",
        "postgres-dcm4che-new",
    ])?;
    assert_eq!(migration.in_quarantine(), made, "nothing was deleted");
    // The site stays on 0.2, and its disk is free again: nothing but the quarantine was touched.
    let site = &migration.site;
    let stays = || -> Result<_, Box<dyn Error>> {
        Ok((inodes(&site.fast_data_dir)?, inodes(&site.backup_dir)?))
    };
    let before = stays()?;
    purge(&["purge", "--yes"])?.must_have(0)?;
    assert!(migration.in_quarantine().is_empty());
    assert_eq!(stays()?, before);
    migration.must_be_rolled_back()?;
    purge(&["purge", "--yes"])?.must_say(&["nothing lies in quarantine"])?;
    migration
        .start_rollback()?
        .end()?
        .must_say(&["nothing to undo"])?;

    migration.finish()?;
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    let asked = purge(&["purge"])?;
    asked.must_have(2)?;
    asked.must_say(&["This is deleted for good", "postgres-dcm4che9.6"])?;
    assert!(!migration.in_quarantine().is_empty());
    purge(&["purge", "--yes"])?.must_have(0)?;
    assert!(migration.in_quarantine().is_empty());
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;

    // The work copy is gone for good; the way back does not need it.
    migration.start_rollback()?.end()?.must_have(0)?;
    migration.must_be_rolled_back()?;
    Ok(())
}

/// Starts the rollback again and again, each time to be killed as soon as it has journaled one record
/// of an undo more, until it comes to its end. Returns how often it was killed.
fn killed_after_every_record(migration: &Migration) -> Result<usize, Box<dyn Error>> {
    let undone = || {
        let journal = fs::read_to_string(migration.agent.journal_path()).unwrap_or_default();
        let of_undo = |line: &&str| line.contains("\"event\":\"undo_");
        journal.lines().filter(of_undo).count()
    };
    for kills in 0..MOST_KILLS {
        let before = undone();
        let mut rollback = migration.start_rollback()?;
        let seen = rollback.wait_for("one more record", || undone() > before);
        match seen {
            Ok(()) => rollback.kill()?,
            // It ended before anything was seen: then it came to its end.
            Err(_) => {
                migration.start_rollback()?.end()?.must_have(0)?;
                return Ok(kills);
            }
        }
        let journal = migration.agent.journal();
        let last = journal.last().ok_or("the journal has an end")?;
        if last["event"] == "run_finished" && last["outcome"] == "done" {
            return Ok(kills);
        }
    }
    Err("the rollback does not come to its end".into())
}

#[test]
fn a_migration_that_was_killed_on_the_way_is_rolled_back() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    for task in [
        "dump-old",
        "work-directory",
        "restore-work",
        "new-directory",
    ] {
        let mut run = migration.start()?;
        run.wait_for(task, || started_in_this_run(&migration, task))?;
        run.kill()?;
        println!("killed within {task}: {}", migration.is_open(task));
        let ended = migration.start_rollback()?.end()?;
        ended.must_have(0)?;
        migration.must_be_rolled_back()?;
    }
    // Between the two renames there is no database under its name.
    let mut run = migration.start()?;
    let kept = migration.kept_dir();
    run.wait_for("the first rename", || kept.exists())?;
    run.kill()?;
    migration.start_rollback()?.end()?.must_have(0)?;
    migration.must_be_rolled_back()?;

    migration.finish()?;
    migration.must_have_ended_right()?;
    // Somebody still uses what would be moved.
    let open = fs::File::open(migration.site.postgres_dir().join("PG_VERSION"))?;
    let ended = migration.start_rollback()?.end()?;
    ended.must_have(6)?;
    ended.must_say(&["put-new", "is in use", "Nothing was undone."])?;
    drop(open);
    migration.must_have_ended_right()?;
    // A run does not go over a rollback that was cut short in the middle of a task.
    let mut rollback = migration.start_rollback()?;
    rollback.wait_for("the undo of the swap", || {
        let journal = migration.agent.journal();
        journal
            .iter()
            .any(|r| is_about(r, "undo_started", "put-new"))
    })?;
    rollback.kill()?;
    let mut purge = migration.agent.command(&["purge", "--yes"]);
    let before = migration.in_quarantine();
    let refused = Running::start(&mut purge)?.end()?;
    refused.must_have(5)?;
    refused.must_say(&["purge::not_verified", "has not come to its end"])?;
    assert_eq!(migration.in_quarantine(), before, "nothing was deleted");
    if half_undone(&migration, "put-new") {
        let ended = migration.start()?.end()?;
        ended.must_have(6)?;
        ended.must_say(&["finish it first", "rollback"])?;
    }
    migration.start_rollback()?.end()?.must_have(0)?;
    migration.must_be_rolled_back()?;
    Ok(())
}

/// The path of something in quarantine.
fn in_quarantine(migration: &Migration, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let attempts = fs::read_dir(migration.agent.quarantine())?.flatten();
    let mut places = attempts.map(|attempt| attempt.path().join(name));
    let found = places.find(|place| place.exists());
    found.ok_or_else(|| format!("{name} is not in quarantine").into())
}

fn half_undone(migration: &Migration, task: &str) -> bool {
    let journal = migration.agent.journal();
    let count = |event| journal.iter().filter(|r| is_about(r, event, task)).count();
    count("undo_started") > count("undo_finished")
}

fn started_in_this_run(migration: &Migration, task: &str) -> bool {
    let end = format!(" / {task}");
    let started = migration.started_in_the_last_run();
    started.iter().any(|identity| identity.ends_with(&end))
}

/// A playbook of a test's own, in a folder that goes with it.
struct Own {
    home: tempfile::TempDir,
}

impl Own {
    fn new(tasks: &str) -> Result<Self, Box<dyn Error>> {
        let home = tempfile::tempdir()?;
        fs::create_dir(home.path().join("playbooks"))?;
        let text = format!("- name: Own\n  hosts: localhost\n  tasks:\n{tasks}");
        fs::write(home.path().join("playbooks/own.yaml"), text)?;
        Ok(Self { home })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn agent(&self, words: &[&str]) -> Result<Ended, Box<dyn Error>> {
        let mut command = Command::new(agent::binary()?);
        command
            .args(words)
            .arg(self.path("playbooks/own.yaml"))
            .current_dir(self.home.path())
            .stdin(std::process::Stdio::null());
        Ok(Running::start(&mut command)?.end()?)
    }
}

fn inode(path: &Path) -> Result<u64, Box<dyn Error>> {
    Ok(fs::symlink_metadata(path)?.ino())
}

#[test]
fn a_task_that_cannot_be_undone_is_named_before_anything_is() -> Outcome {
    let own = Own::new(
        "    - {id: made, file: {path: ../made, state: directory}}\n    \
         - {id: ran, command: touch ../ran}\n    \
         - {id: moved, move: {src: ../theirs, dest: ../made/theirs}}\n",
    )?;
    fs::write(own.path("theirs"), "x")?;
    let original = inode(&own.path("theirs"))?;
    own.agent(&["run"])?.must_have(0)?;
    let refused = own.agent(&["rollback"])?;
    refused.must_have(6)?;
    refused.must_say(&[
        "this cannot be undone: Own / ran",
        "--accept 'Own / ran'",
        "Nothing was undone.",
    ])?;
    assert!(own.path("made/theirs").exists());
    own.agent(&["rollback", "--check"])?.must_have(6)?;

    let unknown = own.agent(&["rollback", "--accept", "run", "--reason", "x"])?;
    unknown.must_have(6)?;
    unknown.must_say(&["the journal knows of no effect of such a task"])?;
    let accepted = [
        "rollback",
        "--accept",
        "ran",
        "--reason",
        "removed it by hand",
    ];
    own.agent(&accepted)?.must_have(0)?;
    assert_eq!(inode(&own.path("theirs"))?, original);
    assert!(!own.path("made").exists());
    let journal = fs::read_to_string(own.path("state/own/journal.jsonl"))?;
    assert!(
        journal.contains("\"reason\":\"removed it by hand\""),
        "{journal}"
    );
    own.agent(&["plan"])?.must_say(&["undone in run"])?;

    // Everything runs again, as if it had never run.
    own.agent(&["run"])?.must_have(0)?;
    assert_eq!(inode(&own.path("made/theirs"))?, original);
    let again = own.agent(&["run"])?;
    again.must_say(&["done=3"])?;
    Ok(())
}

#[test]
fn replaced_and_removed_files_come_back_and_a_purge_waits_for_a_verified_pass() -> Outcome {
    let own = Own::new(
        "    - {id: replaced, copy: {content: new, dest: ../file}}\n    \
         - {id: added, copy: {content: more, dest: ../added}}\n    \
         - {id: removed, file: {path: ../tree, state: absent}}\n    \
         - {id: later, assert: {that: \"'later' is exists\"}}\n",
    )?;
    fs::write(own.path("file"), "old")?;
    fs::create_dir(own.path("tree"))?;
    fs::write(own.path("tree/f"), "x")?;
    let was = (inode(&own.path("file"))?, inode(&own.path("tree"))?);
    own.agent(&["run"])?.must_have(2)?;
    let refused = own.agent(&["purge", "--yes"])?;
    refused.must_have(5)?;
    refused.must_say(&["purge::not_verified", "the last run", "failed"])?;

    own.agent(&["rollback"])?.must_have(0)?;
    assert_eq!((inode(&own.path("file"))?, inode(&own.path("tree"))?), was);
    assert_eq!(fs::read(own.path("file"))?, b"old");
    assert!(!own.path("added").exists());

    fs::write(own.path("later"), "")?;
    own.agent(&["run"])?.must_have(0)?;
    assert_eq!(fs::read(own.path("file"))?, b"new");
    fs::write(own.path("added"), "by hand")?;
    let refused = own.agent(&["purge", "--yes"])?;
    refused.must_have(5)?;
    refused.must_say(&["its content has changed since"])?;
    fs::write(own.path("added"), "more")?;
    own.agent(&["purge", "--check"])?.must_have(0)?;
    own.agent(&["purge", "--yes"])?.must_have(0)?;
    assert!(!own.path("state/own/quarantine").exists());

    // What was purged cannot come back, and the rollback says so before it begins.
    let refused = own.agent(&["rollback"])?;
    refused.must_have(6)?;
    refused.must_say(&["Own / removed", "Own / replaced", "Nothing was undone."])?;
    assert!(own.path("added").exists());
    Ok(())
}

#[test]
fn what_is_replaced_on_another_filesystem_waits_there_and_comes_back() -> Outcome {
    let own = Own::new(
        "    - {id: replaced, copy: {content: new, dest: ../elsewhere/file}}\n    \
         - {id: removed, file: {path: ../elsewhere/tree, state: absent}}\n",
    )?;
    let elsewhere = own.path("elsewhere");
    fs::create_dir(&elsewhere)?;
    let _mount = Mount::tmpfs(&elsewhere, "8m")?;
    fs::write(elsewhere.join("file"), "old")?;
    fs::create_dir(elsewhere.join("tree"))?;
    fs::write(elsewhere.join("tree/f"), "x")?;
    let was = (
        inode(&elsewhere.join("file"))?,
        inode(&elsewhere.join("tree"))?,
    );
    own.agent(&["run"])?.must_have(0)?;
    assert_eq!(fs::read(elsewhere.join("file"))?, b"new");
    assert!(!elsewhere.join("tree").exists());
    assert!(
        !own.path("state/own/quarantine").exists(),
        "nothing was copied between filesystems"
    );

    own.agent(&["rollback"])?.must_have(0)?;
    let now = (
        inode(&elsewhere.join("file"))?,
        inode(&elsewhere.join("tree"))?,
    );
    assert_eq!(now, was, "the very same ones came back");
    assert_eq!(fs::read(elsewhere.join("file"))?, b"old");

    own.agent(&["run"])?.must_have(0)?;
    own.agent(&["purge", "--yes"])?.must_have(0)?;
    let mut left: Vec<_> = fs::read_dir(&elsewhere)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["file"], "a purge finds what waited beside its place");
    Ok(())
}

/// A container that a test made, and that goes with it.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        // It may be gone already, which is what most tests are about.
        let _ = docker(&["rm", "--force", &self.0]);
    }
}

#[test]
fn a_container_goes_only_if_the_task_made_it() -> Outcome {
    let image = lab::images::new_postgres()?;
    let [made, theirs] = ["made", "theirs"].map(|name| Container(lab::workplace::unique(name)));
    let own = Own::new(&format!(
        "    - {{id: made, docker_container: {{name: {}, image: '{}', command: [sleep, '600'], stop_signal: KILL}}}}\n    \
         - {{id: theirs, docker_container: {{name: {}, image: '{}', command: [sleep, '600'], stop_signal: KILL}}}}\n",
        made.0, image, theirs.0, image
    ))?;
    let sleep = ["sleep", "5"];
    docker(&[&["create", "--name", &theirs.0, &image][..], &sleep].concat())?;
    own.agent(&["run"])?.must_have(0)?;
    let refused = own.agent(&["rollback"])?;
    refused.must_have(6)?;
    refused.must_say(&["Own / theirs", "the container was there before"])?;
    let there = |name: &str| docker(&["inspect", "--format", "{{.Id}}", name]).is_ok();
    assert!(there(&made.0) && there(&theirs.0));
    let accepted = ["rollback", "--accept", "theirs", "--reason", "it may stay"];
    own.agent(&accepted)?.must_have(0)?;
    assert!(!there(&made.0) && there(&theirs.0));
    Ok(())
}

#[test]
fn a_task_whose_maker_never_ran_stands_alone() -> Outcome {
    let own = Own::new(
        "    - {id: maker, when: false, file: {path: ../made, state: directory}}\n    \
         - {id: nothing, file: {path: ../absent, state: absent}, undone_by: maker}\n    \
         - {id: looked, stat: {path: ../made}, undone_by: maker}\n    \
         - {id: added, copy: {content: x, dest: ../added}, undone_by: maker}\n",
    )?;
    own.agent(&["run"])?.must_have(0)?;
    own.agent(&["rollback"])?.must_have(0)?;
    assert!(!own.path("added").exists());
    own.agent(&["run"])?.must_have(0)?;

    let own = Own::new(
        "    - {id: maker, when: false, file: {path: ../made, state: directory}}\n    \
         - {id: ran, command: touch ../ran, undone_by: maker}\n",
    )?;
    own.agent(&["run"])?.must_have(0)?;
    let refused = own.agent(&["rollback"])?;
    refused.must_have(6)?;
    refused.must_say(&["it is to be undone by `Own / maker`", "and by itself"])?;
    Ok(())
}

#[test]
fn tasks_before_an_undo_run_in_a_rollback_alone_and_each_once() -> Outcome {
    let own = Own::new(
        "    - {id: asked, assert: {that: true}, register: asked}\n    \
         - {id: made, copy: {content: x, dest: ../made}}\n    \
         - name: Before it goes\n      \
           before_undo_of: made\n      \
           block:\n        \
           - {id: kept, command: cp ../made ../kept, when: asked is succeeded}\n        \
           - {id: counted, shell: echo once >> ../counted}\n        \
           - {id: wanted, stat: {path: ../wanted}, register: wanted, failed_when: not wanted.stat.exists}\n    \
         - {id: later, copy: {content: y, dest: ../later}}\n",
    )?;
    let count = || {
        fs::read_to_string(own.path("counted"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let run = own.agent(&["run"])?;
    run.must_have(0)?;
    run.must_say(&["done=0", "3 tasks"])?;
    assert!(!own.path("kept").exists());
    own.agent(&["run"])?.must_say(&["done=3"])?;
    own.agent(&["rollback", "--check"])?
        .must_say(&["first: Before it goes"])?;

    // One of them fails: what is newer is undone, and nothing more.
    own.agent(&["rollback"])?.must_have(2)?;
    assert!(!own.path("later").exists() && own.path("made").exists());
    own.agent(&["purge", "--yes"])?.must_have(5)?;
    own.agent(&["rollback"])?.must_have(2)?;
    assert_eq!(count(), 1, "it is done");
    // A run went forward in between: what was seen is of yesterday.
    own.agent(&["run"])?.must_have(0)?;
    own.agent(&["rollback"])?.must_have(2)?;
    assert_eq!(count(), 2);
    fs::write(own.path("wanted"), "")?;
    own.agent(&["rollback"])?.must_have(0)?;
    assert!(!own.path("made").exists());
    assert_eq!(fs::read(own.path("kept"))?, b"x", "nothing undoes it");
    own.agent(&["rollback"])?.must_say(&["nothing to undo"])?;
    own.agent(&["purge", "--yes"])?.must_have(0)?;

    // Another time they run again; where it was taken back by hand they do not.
    own.agent(&["run"])?.must_have(0)?;
    own.agent(&["rollback"])?.must_have(0)?;
    assert_eq!(count(), 3);
    own.agent(&["run"])?.must_have(0)?;
    let accepted = ["rollback", "--accept", "made", "--reason", "by hand"];
    own.agent(&accepted)?.must_have(0)?;
    assert_eq!(count(), 3);
    assert!(own.path("made").exists());
    Ok(())
}

#[test]
fn what_was_only_said_to_be_taken_back_is_named_before_it_is_purged() -> Outcome {
    let own = Own::new("    - {id: removed, file: {path: ../tree, state: absent}}\n")?;
    fs::create_dir(own.path("tree"))?;
    fs::write(own.path("tree/f"), "x")?;
    own.agent(&["run"])?.must_have(0)?;
    let accepted = ["rollback", "--accept", "removed", "--reason", "it is back"];
    own.agent(&accepted)?.must_have(0)?;
    let asked = own.agent(&["purge"])?;
    asked.must_have(2)?;
    asked.must_say(&[
        "`Own / removed` was said to be taken back by hand",
        "this is the last copy of it",
    ])?;

    // What is mounted below is somebody's, and would be emptied.
    let attempts: Vec<_> = fs::read_dir(own.path("state/own/quarantine"))?
        .flatten()
        .collect();
    let below = attempts[0].path().join("tree/below");
    fs::create_dir(&below)?;
    let mount = Mount::tmpfs(&below, "1m")?;
    fs::write(below.join("theirs"), "x")?;
    let refused = own.agent(&["purge", "--yes"])?;
    refused.must_have(5)?;
    refused.must_say(&["is mounted below it"])?;
    assert!(below.join("theirs").exists());
    drop(mount);
    own.agent(&["purge", "--yes"])?.must_have(0)?;
    assert!(!own.path("state/own/quarantine").exists());
    Ok(())
}

#[test]
fn undone_by_must_name_an_earlier_task() -> Outcome {
    let own = Own::new(
        "    - {id: first, command: 'true', undone_by: frist}\n    \
         - {id: second, command: 'true', undone_by: frst}\n",
    )?;
    let wrong = own.agent(&["run"])?;
    wrong.must_have(5)?;
    wrong.must_say(&[
        "playbook::unknown_undone_by",
        "own.yaml:4:47",
        "no task before this one in the play has the id `frist`",
        "own.yaml:5:48",
        "did you mean `first`?",
    ])?;
    Ok(())
}
