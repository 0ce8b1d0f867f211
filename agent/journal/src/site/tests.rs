use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::{Arc, Barrier};

use super::*;

fn marker(state_id: &str, head: &str) -> Marker {
    Marker::now(
        state_id,
        format!("/opt/{state_id}/state/p").into(),
        "p",
        head,
        "r1",
    )
}

fn claimant<'a>(state_id: Option<&'a str>, head: &'a str) -> Claimant<'a> {
    Claimant {
        state_id,
        state: Path::new("/opt/here/state/p"),
        records: &[],
        head,
    }
}

fn code(error: &StateError) -> &'static str {
    error.code()
}

#[test]
fn a_site_goes_on_with_the_state_that_marked_it_and_with_no_other() {
    let dir = tempfile::tempdir().expect("temp dir");
    let site = dir.path();
    let (own, new) = (claimant(Some("a"), "h1"), claimant(None, NO_HASH));
    assert_eq!(look(site, &own).expect("free"), Standing::Free);
    assert_eq!(look(site, &new).expect("free"), Standing::Free);
    assert!(mark(site, &marker("a", "h1")).expect("marked"));
    assert!(
        !mark(site, &marker("a", "h1")).expect("still"),
        "it was not free"
    );
    assert!(matches!(look(site, &own), Ok(Standing::Own(_))));
    let mode = fs::metadata(site.join(MARKER))
        .expect("there")
        .permissions();
    assert_eq!(mode.mode() & 0o7777, 0o600);
    assert_eq!(
        fs::read_dir(site).expect("list").count(),
        1,
        "nothing half is left"
    );

    for other in [new, claimant(Some("b"), "h1")] {
        let refused = look(site, &other).expect_err("taken");
        assert_eq!(code(&refused), "site::taken");
        let (text, help) = (refused.to_string(), refused.help().unwrap_or_default());
        assert!(
            text.contains("/opt/a/state/p") && !text.contains('\n'),
            "{text}"
        );
        assert!(help.contains("--state-dir /opt/a/state"), "{help}");
        assert!(help.contains("state adopt"), "{help}");
    }
    let refused = mark(site, &marker("b", "h")).expect_err("taken");
    assert_eq!(code(&refused), "site::taken");
    let refused = look(site, &claimant(Some("a"), "h0")).expect_err("restored from a backup");
    assert_eq!(code(&refused), "site::older_state");

    take_over(site, &marker("b", "h")).expect("adopted");
    assert!(matches!(
        look(site, &claimant(Some("b"), "h")),
        Ok(Standing::Own(_))
    ));
    assert!(!free(site, "a").expect("not its own"));
    assert!(free(site, "b").expect("its own"));
    assert_eq!(look(site, &own).expect("free again"), Standing::Free);
    let nowhere = site.join("no");
    assert_eq!(look(&nowhere, &own).expect("nothing"), Standing::NoFolder);
    let refused = mark(&nowhere, &marker("a", "h")).expect_err("no folder");
    assert_eq!(code(&refused), "site::missing");
}

#[test]
fn of_two_states_that_begin_at_once_one_wins() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().expect("temp dir");
        let ready = Arc::new(Barrier::new(2));
        let racers: Vec<_> = ["a", "b"]
            .map(|id| {
                let (site, ready) = (dir.path().to_path_buf(), Arc::clone(&ready));
                std::thread::spawn(move || {
                    ready.wait();
                    mark(&site, &marker(id, "h")).is_ok()
                })
            })
            .into_iter()
            .map(|racer| racer.join().expect("no panic"))
            .collect();
        assert!(!(racers[0] && racers[1]), "both won");
        assert!(read(dir.path()).expect("whole").is_some());
    }
}

/// Everything that somebody who may write into the folder can put there.
#[test]
fn what_no_agent_wrote_is_neither_believed_nor_followed_nor_touched() {
    let dir = tempfile::tempdir().expect("temp dir");
    let elsewhere = dir.path().join("elsewhere");
    fs::write(
        &elsewhere,
        serde_json::to_string(&marker("a", "h")).expect("JSON"),
    )
    .expect("write");
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).expect("chmod");
    type Put<'p> = (&'static str, Box<dyn Fn(&Path) + 'p>);
    let mut puts: Vec<Put<'_>> = vec![
        (
            "a link",
            Box::new(|path| symlink(&elsewhere, path).expect("link")),
        ),
        (
            "a link",
            Box::new(|path| symlink("/nowhere", path).expect("link")),
        ),
        (
            "a directory",
            Box::new(|path| fs::create_dir(path).expect("mkdir")),
        ),
        (
            "no file",
            Box::new(|path| {
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).expect("fifo")
            }),
        ),
        (
            "others may write",
            Box::new(|path| {
                fs::copy(&elsewhere, path).expect("copy");
                fs::set_permissions(path, fs::Permissions::from_mode(0o662)).expect("chmod");
            }),
        ),
    ];
    if nix::unistd::Uid::effective().is_root() {
        puts.push((
            "belongs to uid 1000",
            Box::new(|path| {
                fs::copy(&elsewhere, path).expect("copy");
                std::os::unix::fs::chown(path, Some(1000), None).expect("chown");
            }),
        ));
    }
    for (number, (what, put)) in puts.iter().enumerate() {
        let site = dir.path().join(format!("site-{number}"));
        fs::create_dir(&site).expect("mkdir");
        put(&site.join(MARKER));
        let before = fs::symlink_metadata(site.join(MARKER)).expect("there");
        let refused = [
            look(&site, &claimant(Some("a"), "h")).expect_err(what),
            mark(&site, &marker("a", "h")).expect_err(what),
            take_over(&site, &marker("a", "h")).expect_err(what),
            free(&site, "a").expect_err(what),
        ];
        for error in refused {
            assert_eq!(code(&error), "site::forged_marker", "{what}");
            assert!(error.to_string().contains(what), "{what}: {error}");
        }
        let after = fs::symlink_metadata(site.join(MARKER)).expect("untouched");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(
            (before.ino(), before.ctime_nsec()),
            (after.ino(), after.ctime_nsec())
        );
    }
}

#[test]
fn a_damaged_marker_asks_and_a_newer_one_is_left_to_its_agent() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join(MARKER);
    let put = |text: &str| {
        let _ = fs::remove_file(&path);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    };
    let whole = serde_json::to_string(&marker("a", "h")).expect("JSON");
    for text in ["", "{}", "null", "[1]", &whole[..whole.len() / 2], "\0\0\0"] {
        put(text);
        let refused = look(dir.path(), &claimant(Some("a"), "h")).expect_err(text);
        assert_eq!(code(&refused), "site::damaged_marker", "{text:?}");
        assert!(refused.help().unwrap_or_default().contains("state adopt"));
        take_over(dir.path(), &marker("a", "h")).expect("an operator decides");
        assert!(matches!(
            look(dir.path(), &claimant(Some("a"), "h")),
            Ok(Standing::Own(_))
        ));
    }
    put(r#"{"v": 2, "another": "format"}"#);
    for refused in [
        look(dir.path(), &claimant(Some("a"), "h")).expect_err("newer"),
        take_over(dir.path(), &marker("a", "h")).expect_err("newer"),
    ] {
        assert_eq!(code(&refused), "site::newer_marker");
    }
}

#[test]
fn what_a_crash_left_half_does_not_stand_in_the_way() {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::write(dir.path().join(format!("{MARKER}.a.partial")), "half").expect("write");
    assert!(mark(dir.path(), &marker("a", "h")).expect("marked"));
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
}
