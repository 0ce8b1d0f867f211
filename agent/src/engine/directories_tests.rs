//! The rule as a table: what the journal has, what is found, and what a service may do with it.

use serde_json::{Value, json};

use super::*;
use crate::state::format::{FORMAT_VERSION, NO_HASH};
use crate::state::{Fingerprint, How, JournalLocation};

const OLD: &str = "7000000000000000001";
const NEW: &str = "7000000000000000002";

fn records(bodies: Vec<Body>) -> Vec<Record> {
    (1..)
        .zip(bodies)
        .map(|(seq, body)| Record {
            v: FORMAT_VERSION,
            seq,
            time: jiff::Timestamp::UNIX_EPOCH,
            run: "r".into(),
            body,
            prev: NO_HASH.into(),
        })
        .collect()
}

fn directory(path: &str, version: &str, number: &str, inode: u64) -> DataDirectory {
    DataDirectory {
        path: path.into(),
        format: Format::Postgresql,
        version: Some(version.into()),
        system_identifier: Some(number.into()),
        inode,
        device: 100,
        filesystem: Some("fsid:1".into()),
    }
}

fn mounted(service: &str, found: &DataDirectory) -> Body {
    Body::ServiceStarted {
        service: service.into(),
        container: "c".into(),
        directories: vec![served(found)],
    }
}

fn begun(task: &str, module: &str, intent: Value) -> Body {
    Body::TaskStarted {
        task: task.into(),
        attempt: format!("{task}/1"),
        module: module.into(),
        fingerprint: Fingerprint::default(),
        arguments: Value::Null,
        intent,
        needs_change: None,
        reason: None,
    }
}

fn ended(task: &str, status: TaskStatus, result: Value) -> Body {
    Body::TaskFinished {
        task: task.into(),
        attempt: Some(format!("{task}/1")),
        status,
        how: How::Ran,
        fingerprint: Fingerprint::default(),
        arguments: Value::Null,
        result,
        hidden: Vec::new(),
        outputs: Vec::new(),
        summary: None,
        error: None,
        duration_ms: 0,
    }
}

/// As `move` journals itself, in version 2 as well.
fn moved(task: &str, src: &str, dest: &str, inode: u64) -> [Body; 2] {
    [
        begun(
            task,
            "move",
            json!({"src": src, "dest": dest, "identity": {"dev": 100, "ino": inode}, "method": "rename"}),
        ),
        ended(
            task,
            TaskStatus::Changed,
            json!({"dest": dest, "src": src, "device": 100, "inode": inode, "changed": true}),
        ),
    ]
}

fn undone(task: &str) -> Body {
    Body::UndoFinished {
        task: task.into(),
        undo: None,
        with: Vec::new(),
        result: Value::Null,
        summary: None,
        duration_ms: 0,
    }
}

/// The migration: 0.2's directory (inode 1) is kept, 0.3's (inode 2) comes into its place. `with_services` is
/// version 3; without, version 2.
fn migrated(with_services: bool) -> Vec<Body> {
    let mut bodies = Vec::new();
    if with_services {
        bodies.push(mounted("pacs_old", &directory("/fast/pg", "9.6", OLD, 1)));
        bodies.push(mounted(
            "pacs_new",
            &directory("/fast/pg.new", "15", NEW, 2),
        ));
    }
    bodies.extend(moved("keep-old", "/fast/pg", "/fast/pg.kept", 1));
    bodies.extend(moved("put-new", "/fast/pg.new", "/fast/pg", 2));
    bodies
}

fn verdict(
    bodies: &[Body],
    service: &str,
    image_version: Option<&str>,
    found: DataDirectory,
) -> &'static str {
    let served = Served {
        directories: vec![found],
        image_version: image_version.map(str::to_owned),
    };
    let directories = Directories::of(&records(bodies.to_vec()));
    match directories.judge(service, "image", &served) {
        Ok(()) => "",
        Err(refused) => {
            assert!(refused.to_string().contains(service), "{refused}");
            assert!(!refused.help().is_empty());
            refused.code()
        }
    }
}

#[test]
fn what_the_migration_swapped_is_for_those_alone_that_worked_on_it_before() {
    let live = || directory("/fast/pg", "15", NEW, 2);
    let kept = || directory("/fast/pg.kept", "9.6", OLD, 1);
    let swapped = "service::directory_swapped";
    for with_services in [true, false] {
        let bodies = migrated(with_services);
        let known = if with_services { "" } else { swapped };
        // The case that was seen, with the image's own version and with one that would open it.
        assert_eq!(verdict(&bodies, "pacs_old", Some("9.6"), live()), swapped);
        assert_eq!(verdict(&bodies, "pacs_old", Some("15"), live()), swapped);
        assert_eq!(verdict(&bodies, "pacs_old", None, live()), swapped);
        assert_eq!(verdict(&bodies, "pacs_work", Some("15"), live()), swapped);
        assert_eq!(verdict(&bodies, "pacs_new", Some("15"), live()), known);
        assert_eq!(verdict(&bodies, "pacs_new", Some("9.6"), kept()), swapped);
        assert_eq!(verdict(&bodies, "pacs_old", Some("9.6"), kept()), known);
        // After a reboot the device has another number; under another name it is still the same thing.
        let rebooted = DataDirectory {
            device: 7,
            ..live()
        };
        assert_eq!(verdict(&bodies, "pacs_old", Some("9.6"), rebooted), swapped);
        let elsewhere = DataDirectory {
            path: "/mnt/pg".into(),
            ..live()
        };
        assert_eq!(
            verdict(&bodies, "pacs_work", Some("15"), elsewhere),
            swapped
        );
        // Another filesystem has the same inode for something else.
        let stranger = DataDirectory {
            path: "/mnt/other".into(),
            device: 7,
            system_identifier: Some("9".into()),
            ..live()
        };
        assert_eq!(verdict(&bodies, "pacs_work", Some("15"), stranger), "");
        // Taken back, everything is where it was.
        let mut back = bodies.clone();
        back.extend([undone("put-new"), undone("keep-old")]);
        let original = directory("/fast/pg", "9.6", OLD, 1);
        assert_eq!(verdict(&back, "pacs_old", Some("9.6"), original), "");
        let new = directory("/fast/pg.new", "15", NEW, 2);
        assert_eq!(verdict(&back, "pacs_new", Some("15"), new), "");
    }
}

#[test]
fn a_directory_that_was_only_moved_may_be_served() {
    let bodies = moved("relocate", "/slow/pg", "/fast/pg", 1);
    let found = directory("/fast/pg", "15", NEW, 1);
    assert_eq!(verdict(&bodies, "pacs", Some("15"), found.clone()), "");
    // The place of something that the journal has removed is taken over, too.
    let mut bodies = vec![ended(
        "remove",
        TaskStatus::Changed,
        json!({"path": "/fast/pg", "state": "absent", "changed": true}),
    )];
    bodies.extend(moved("put", "/slow/pg", "/fast/pg", 1));
    assert_eq!(
        verdict(&bodies, "pacs", Some("15"), found),
        "service::directory_swapped"
    );
}

#[test]
fn an_image_opens_its_own_version_only_and_one_that_says_nothing_what_it_opened_before() {
    let found = || directory("/fast/pg", "9.6", OLD, 1);
    assert_eq!(verdict(&[], "pacs", Some("9.6"), found()), "");
    assert_eq!(verdict(&[], "pacs", None, found()), "");
    let version = "service::directory_version";
    assert_eq!(verdict(&[], "pacs", Some("15"), found()), version);
    let before = [mounted("pacs", &directory("/fast/pg", "15", OLD, 1))];
    assert_eq!(
        verdict(&before, "pacs", None, found()),
        "service::directory_other"
    );
}

#[test]
fn a_service_finds_what_it_left_or_what_a_task_put_there() {
    let found = || directory("/fast/pg", "15", NEW, 1);
    let (other, copied) = ("service::directory_other", "service::directory_copied");
    let before = vec![mounted("pacs", &found())];
    let judge = |bodies: &[Body], found| verdict(bodies, "pacs", Some("15"), found);
    let cluster = || DataDirectory {
        system_identifier: Some(OLD.into()),
        ..found()
    };
    let copy = || DataDirectory {
        inode: 5,
        ..found()
    };
    assert_eq!(judge(&before, found()), "");
    assert_eq!(
        judge(
            &before,
            DataDirectory {
                device: 7,
                ..found()
            }
        ),
        ""
    );
    assert_eq!(
        judge(
            &before,
            DataDirectory {
                filesystem: None,
                ..found()
            }
        ),
        ""
    );
    assert_eq!(
        judge(
            &before,
            DataDirectory {
                filesystem: Some("fsid:2".into()),
                ..found()
            }
        ),
        copied
    );
    assert_eq!(judge(&before, cluster()), other);
    assert_eq!(judge(&before, copy()), copied);
    // Another service, and another place, are none of its business.
    assert_eq!(verdict(&before, "other", Some("15"), cluster()), "");
    assert_eq!(
        judge(
            &before,
            DataDirectory {
                path: "/slow/pg".into(),
                ..cluster()
            }
        ),
        ""
    );
    // The newest record counts.
    let mut newer = before.clone();
    newer.push(mounted("pacs", &copy()));
    assert_eq!(judge(&newer, copy()), "");
    assert_eq!(judge(&newer, found()), copied);
    // A task made it anew; it counts until its undo.
    let made = |inode: u64, changed: bool| {
        ended(
            "make",
            TaskStatus::Changed,
            json!({"path": "/fast/pg", "device": 100, "inode": inode, "changed": changed}),
        )
    };
    let mut anew = before.clone();
    anew.push(made(5, true));
    let fresh = || DataDirectory {
        inode: 5,
        ..cluster()
    };
    assert_eq!(judge(&anew, fresh()), "");
    anew.push(undone("make"));
    assert_eq!(judge(&anew, fresh()), other);
    for not_it in [made(6, true), made(5, false)] {
        let mut bodies = before.clone();
        bodies.push(not_it);
        assert_eq!(judge(&bodies, fresh()), other);
    }
    // A person answers for a copy, and not for another database.
    let mut adopted = before.clone();
    adopted.push(Body::StateAdopted {
        seat: JournalLocation {
            machine: None,
            inode: 1,
            made: None,
        },
        reason: "restored".into(),
        user: "me".into(),
        host: "here".into(),
    });
    assert_eq!(judge(&adopted, copy()), "");
    assert_eq!(judge(&adopted, cluster()), other);
}

#[test]
fn a_move_that_nobody_saw_finish_counts_when_an_operator_says_so() {
    let [begun, _] = moved("put-new", "/fast/pg.new", "/fast/pg", 2);
    let mut bodies: Vec<Body> = moved("keep-old", "/fast/pg", "/fast/pg.kept", 1).into();
    bodies.push(begun);
    let live = || directory("/fast/pg", "15", NEW, 2);
    assert_eq!(verdict(&bodies, "pacs_old", Some("15"), live()), "");
    bodies.push(Body::TaskResolved {
        task: "put-new".into(),
        answer: Answer::Done,
        reason: "seen".into(),
        user: "me".into(),
        fingerprint: None,
    });
    assert_eq!(
        verdict(&bodies, "pacs_old", Some("15"), live()),
        "service::directory_swapped"
    );
}
