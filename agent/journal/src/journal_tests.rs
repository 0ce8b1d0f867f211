//! The journal under everything that can befall it: each damage is told apart, none goes unnoticed.

use super::*;
use std::io::Read;

fn created() -> Body {
    Body::JournalCreated {
        state_id: "s".into(),
        playbook: "p".into(),
        host: "h".into(),
        rehearsal: false,
    }
}

fn skipped(task: &str) -> Body {
    Body::TaskSkipped {
        task: task.into(),
        condition: "x".into(),
    }
}

/// A journal of four records and its path.
fn sample() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("journal.jsonl");
    let contents = reader::read(&path).expect("empty");
    let (mut journal, _) = Journal::open(&path, &contents, "r1").expect("open");
    for body in [created(), skipped("a"), skipped("b"), skipped("c")] {
        journal.append(body).expect("append");
    }
    (dir, path)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .expect("read")
        .lines()
        .map(str::to_owned)
        .collect()
}

fn rewrite(path: &Path, lines: &[String]) {
    fs::write(
        path,
        lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
    .expect("write");
}

#[test]
fn a_torn_last_line_is_set_aside_and_the_journal_goes_on() {
    let (_dir, path) = sample();
    let text = fs::read(&path).expect("read");
    fs::write(&path, &text[..text.len() - 20]).expect("cut");
    let contents = reader::read(&path).expect("torn tails are normal");
    assert_eq!(contents.records.len(), 3);
    let (mut journal, aside) = Journal::open(&path, &contents, "r2").expect("open");
    let aside = aside.expect("the tail was torn");
    let mut kept = Vec::new();
    File::open(&aside.path)
        .expect("open")
        .read_to_end(&mut kept)
        .expect("read");
    assert_eq!(kept, contents.torn);
    journal.append(skipped("d")).expect("append");
    assert_eq!(reader::read(&path).expect("whole again").records.len(), 4);
}

#[test]
fn a_tail_of_zeros_after_a_power_loss_is_a_torn_tail() {
    let (_dir, path) = sample();
    let mut text = fs::read(&path).expect("read");
    text.extend([0; 512]);
    fs::write(&path, text).expect("write");
    let contents = reader::read(&path).expect("zeros are a torn tail");
    assert_eq!((contents.records.len(), contents.torn.len()), (4, 512));
}

/// The code of what reading says, and where.
fn said(path: &Path) -> (&'static str, String) {
    let error = reader::read(path).expect_err("this journal must be refused");
    assert!(
        error.help().is_some(),
        "{error} says nothing of what to do next"
    );
    (error.code(), error.to_string())
}

#[test]
fn every_kind_of_damage_is_told_apart_with_its_line() {
    let (_dir, path) = sample();
    let (_other_dir, other) = sample();
    let good = lines(&path);
    let foreign = lines(&other);
    let check = |what: &str, change: &dyn Fn(&mut Vec<String>), code: &str, words: &[&str]| {
        let mut lines = good.clone();
        change(&mut lines);
        rewrite(&path, &lines);
        let (found, text) = said(&path);
        assert_eq!(found, code, "{what}: {text}");
        for word in words {
            assert!(text.contains(word), "{what}: {text}");
        }
    };
    let removed = "state::line_removed";
    check(
        "first",
        &|l| drop(l.remove(0)),
        removed,
        &[":1:", "record 1 is missing"],
    );
    check(
        "one",
        &|l| drop(l.remove(1)),
        removed,
        &[":2:", "record 2 is missing"],
    );
    let two = |l: &mut Vec<String>| drop(l.drain(1..3));
    check("two", &two, removed, &[":2:", "records 2 to 3 are missing"]);
    let swapped = "state::lines_swapped";
    check(
        "neighbours",
        &|l| l.swap(1, 2),
        swapped,
        &[":2:", "record 2", "line 3"],
    );
    check(
        "ends",
        &|l| l.swap(0, 3),
        swapped,
        &[":1:", "record 1", "line 4"],
    );
    let inserted = "state::line_inserted";
    check(
        "copy",
        &|l| l.insert(3, l[1].clone()),
        inserted,
        &[":4:", "number 2", "record 4"],
    );
    check(
        "copy at the end",
        &|l| l.push(l[3].clone()),
        inserted,
        &[":5:", "number 4"],
    );
    let foreign_line = foreign[2].clone();
    let insert = |l: &mut Vec<String>| l.insert(2, foreign_line.clone());
    check(
        "foreign line",
        &insert,
        inserted,
        &[":3:", "number 3", "record 3"],
    );
    let replace = |l: &mut Vec<String>| l[2] = foreign_line.clone();
    check(
        "foreign line instead",
        &replace,
        "state::line_replaced",
        &[":3:", "record 3"],
    );
    let text = |l: &mut Vec<String>| l.insert(2, "a remark".into());
    check("text", &text, "state::damaged", &[":3:", "not a record"]);
    let alter = |l: &mut Vec<String>| l[2] = l[2].replace("\"task\":\"b\"", "\"task\":\"z\"");
    check("content", &alter, "state::damaged", &[":3:", "altered"]);
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let (_dir, path) = sample();
    let whole = fs::read(&path).expect("read");
    let records = reader::read(&path).expect("whole").records;
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).expect("write");
        match reader::read(&path) {
            Err(error) => assert!(
                matches!(
                    error,
                    StateError::Damaged { .. } | StateError::BrokenChain { .. }
                ),
                "byte {at}, bit {bit}: {error}"
            ),
            Ok(contents) => {
                // What remains is what was written, and the rest is set aside, never taken for a record.
                let kept = contents.records.len();
                assert!(
                    !contents.torn.is_empty(),
                    "byte {at}, bit {bit} went unnoticed"
                );
                assert_eq!(contents.records, records[..kept], "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_zero_inside_a_sector_is_an_alteration_and_a_sector_of_zeros_a_power_loss() {
    let (_dir, path) = sample();
    let whole = fs::read(&path).expect("read");
    let last = whole[..whole.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .expect("several lines")
        + 1;
    let mut bytes = whole.clone();
    let inside = (last + 10..whole.len() - 2)
        .find(|at| at % 512 != 0 && (at + 1) % 512 != 0)
        .expect("inside");
    bytes[inside] = 0;
    fs::write(&path, &bytes).expect("write");
    assert_eq!(said(&path).0, "state::damaged");

    let mut bytes = whole.clone();
    let border = whole.len().div_ceil(512) * 512 - 512;
    let from = border.max(last);
    bytes[from..whole.len() - 1].fill(0);
    fs::write(&path, &bytes).expect("write");
    let contents = reader::read(&path).expect("a sector that never reached the disk");
    assert_eq!(contents.records.len(), 3);
}

#[test]
fn an_empty_or_lost_journal_is_no_new_one_once_something_was_recorded() {
    let (dir, path) = sample();
    let state = StateDir {
        root: dir.path().to_path_buf(),
    };
    fs::write(&path, "").expect("empty");
    assert!(
        read_for(&state, "p")
            .expect("never used")
            .records
            .is_empty()
    );
    let (_again, other) = sample();
    fs::copy(&other, &path).expect("copy");
    state.keep_id("s").expect("id");
    state.keep_id("never written over").expect("id");
    assert_eq!(read_for(&state, "p").expect("its own").records.len(), 4);

    fs::write(&path, "").expect("empty");
    let lost = read_for(&state, "p").expect_err("emptied");
    assert_eq!(lost.code(), "state::journal_lost");
    assert!(lost.to_string().contains("is empty"), "{lost}");
    fs::remove_file(&path).expect("remove");
    let lost = read_for(&state, "p").expect_err("removed");
    assert!(lost.to_string().contains("is gone"), "{lost}");

    fs::write(state.id(), "another\n").expect("write");
    fs::copy(&other, &path).expect("copy");
    let foreign = read_for(&state, "p").expect_err("of another folder");
    assert_eq!(foreign.code(), "state::foreign_journal");
}

#[test]
fn what_is_no_file_is_no_journal() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("journal.jsonl");
    fs::create_dir(&path).expect("mkdir");
    assert_eq!(said(&path).0, "state::not_a_file");
    fs::remove_dir(&path).expect("rmdir");
    // Reading this would wait for a writer for ever.
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&path, mode).expect("fifo");
    assert_eq!(said(&path).0, "state::not_a_file");
}

#[test]
fn an_append_that_does_not_fit_leaves_a_journal_that_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
        .arg(dir.path())
        .status()
        .expect("mount(8)");
    assert!(mount.success(), "this test needs root to mount a tmpfs");
    let ended = std::panic::catch_unwind(|| {
        let path = dir.path().join("journal.jsonl");
        let empty = reader::read(&path).expect("empty");
        let (mut journal, _) = Journal::open(&path, &empty, "r1").expect("open");
        let mut whole = 0;
        // Lines of an odd length, so that the one that fails is cut in its middle.
        let error = loop {
            match journal.append(skipped(&"t".repeat(700))) {
                Ok(_) => whole += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), "state::disk_full");
        let refused = journal
            .append(skipped("small"))
            .expect_err("after a failure");
        assert_eq!(refused.code(), "state::poisoned");
        let contents = reader::read(&path).expect("readable");
        assert_eq!((contents.records.len(), contents.torn.len()), (whole, 0));

        let grown = std::process::Command::new("mount")
            .args(["-o", "remount,size=64k"])
            .arg(dir.path())
            .status()
            .expect("mount(8)");
        assert!(grown.success());
        let (mut journal, _) = Journal::open(&path, &contents, "r2").expect("open");
        journal.append(skipped("small")).expect("there is room");
        assert_eq!(reader::read(&path).expect("whole").records.len(), whole + 1);

        // Before a task starts there must be room for its end, too.
        let started = Body::TaskStarted {
            task: "t".into(),
            attempt: "r2/9".into(),
            module: "m".into(),
            fingerprint: crate::Fingerprint::new("m", &serde_json::Value::Null, &[]),
            arguments: serde_json::Value::Null,
            intent: serde_json::Value::Null,
            needs_change: None,
            reason: None,
        };
        let full = journal.append(started).expect_err("no room for the end");
        assert_eq!(full.code(), "state::disk_full");
        let after = reader::read(&path).expect("whole").records.len();
        assert_eq!(after, whole + 1, "nothing was announced");
        journal
            .append(skipped("goodbye"))
            .expect("the run can still say how it ended");
    });
    let _ = std::process::Command::new("umount")
        .arg("-l")
        .arg(dir.path())
        .status();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_journal_of_another_playbook_is_refused() {
    let (dir, _) = sample();
    let state = StateDir {
        root: dir.path().to_path_buf(),
    };
    assert!(matches!(
        read_for(&state, "q"),
        Err(StateError::Foreign { .. })
    ));
    assert!(read_for(&state, "p").is_ok());
}
