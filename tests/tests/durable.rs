//! Exactly once, in whatever state the state is found: damages, full disks, copies, clocks,
//! and a copy that is killed in its middle.

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lab::agent;
use lab::apt;
use lab::migration::{Ended, Running};
use lab::scene::{COUNTS, Scene};
use lab::tool;
use lab::workplace::Mount;

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn a_full_disk_stops_before_an_effect_that_could_not_be_recorded() -> Outcome {
    let mut scene = Scene::with(COUNTS)?;
    let small = scene.path("small");
    fs::create_dir(&small)?;
    let disk = Mount::tmpfs(&small, "40k")?;
    scene.state = small.join("state");
    let ended = scene.run()?;
    ended.must_have(2)?;
    ended.must_say(&[
        "state::disk_full",
        "journal.jsonl",
        "No space left on device",
        "free space",
    ])?;
    assert_eq!(scene.effects(), "", "nothing on the host has changed");
    assert!(scene.records("task_started", "first").is_empty());
    scene.agent(&["state", "verify"], &[])?.must_have(0)?;

    disk.resize("4m")?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two x y");
    Ok(())
}

#[test]
fn a_disk_that_fills_up_meanwhile_still_takes_the_end_of_what_was_begun() -> Outcome {
    let mut scene = Scene::with(
        "- id: fills\n  shell: dd if=/dev/zero of=HOME/small/full bs=4k; echo filled >> HOME/effects\n\
         - id: next\n  shell: echo next >> HOME/effects",
    )?;
    let small = scene.path("small");
    fs::create_dir(&small)?;
    let _disk = Mount::tmpfs(&small, "1m")?;
    scene.state = small.join("state");
    // The space of the end was promised before the beginning.
    scene.run()?;
    assert_eq!(scene.records("task_finished", "fills").len(), 1);
    assert!(scene.effects().starts_with("filled"));
    fs::remove_file(small.join("full"))?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "filled next");
    Ok(())
}

#[test]
fn a_read_only_filesystem_stops_before_anything() -> Outcome {
    let mut scene = Scene::with(COUNTS)?;
    let small = scene.path("small");
    fs::create_dir(&small)?;
    let disk = Mount::tmpfs(&small, "4m")?;
    scene.state = small.join("state");
    scene.write("- id: zero\n  debug: {msg: hello}")?;
    scene.run()?.must_have(0)?;
    scene.write(COUNTS)?;
    disk.writable(false)?;
    let ended = scene.run()?;
    ended.must_have(5)?;
    ended.must_say(&["state::read_only", "writable"])?;
    assert_eq!(scene.effects(), "");
    disk.writable(true)?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two x y");
    Ok(())
}

#[test]
fn a_journal_that_is_lost_foreign_no_file_or_not_readable_is_no_new_beginning() -> Outcome {
    let scene = Scene::with(COUNTS)?;
    scene.run()?.must_have(0)?;
    let path = scene.journal_path();
    let good = fs::read(&path)?;
    let refused = |what: &str, code: &str| -> Outcome {
        let ended = scene.run()?;
        ended
            .must_have(5)
            .map_err(|error| format!("{what}: {error}"))?;
        ended.must_say(&[code, "help:"])?;
        assert_eq!(scene.effects(), "one two x y", "{what}: nothing ran");
        Ok(())
    };
    fs::write(&path, "")?;
    refused("empty", "state::journal_lost")?;
    fs::remove_file(&path)?;
    refused("gone", "state::journal_lost")?;
    fs::create_dir(&path)?;
    refused("a directory", "state::not_a_file")?;
    fs::remove_dir(&path)?;

    let other = Scene::with(COUNTS)?;
    other.run()?.must_have(0)?;
    fs::copy(other.journal_path(), &path)?;
    refused("another state's", "state::foreign_journal")?;
    fs::write(
        &path,
        String::from_utf8(good.clone())?.replace("\"v\":", "\"v\": "),
    )?;
    refused("altered", "state::damaged")?;

    // The same file again, so that it is no copy; and a user who may not read it.
    let place = Scene::with(COUNTS)?;
    place.run()?.must_have(0)?;
    for dir in [place.path(""), place.state.clone(), place.state.join("try")] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    }
    let binary = place.path("kaapana-agent");
    fs::copy(agent::binary()?, &binary)?;
    let mut unprivileged = Command::new(&binary);
    unprivileged
        .args(["plan"])
        .arg(place.playbook())
        .arg("--state-dir")
        .arg(&place.state);
    unprivileged.uid(65534).gid(65534);
    let ended = Running::start(&mut unprivileged)?.end()?;
    ended.must_have(5)?;
    ended.must_say(&["state::permission_denied", "owns the state directory"])?;
    Ok(())
}

/// A second state directory that is a copy of a scene's.
fn copy_of(scene: &Scene) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let copy = scene.path("copy");
    let mut cp = Command::new("cp");
    cp.arg("-a").arg(&scene.state).arg(&copy);
    tool::run(&mut cp, "copy a state")?;
    Ok(copy)
}

#[test]
fn a_copied_state_is_refused_until_somebody_says_that_it_goes_on() -> Outcome {
    let mut scene = Scene::with(COUNTS)?;
    scene.run()?.must_have(0)?;
    let own = scene.state.clone();
    scene.state = copy_of(&scene)?;
    let ended = scene.run()?;
    ended.must_have(6)?;
    ended.must_say(&["state::copied", "another file (inode)", "state adopt"])?;
    let resolve = scene.agent(&["resolve"], &["second", "--redo", "--reason", "x"])?;
    resolve.must_have(6)?;
    resolve.must_say(&["state::copied"])?;
    for look in [&["plan"][..], &["run", "--check"]] {
        let looked = scene.agent(look, &[])?;
        looked.must_have(0)?;
        looked.must_say(&["warning:", "a run would stop", "state adopt"])?;
    }

    scene
        .agent(
            &["state", "adopt"],
            &["--reason", "restored from the backup"],
        )?
        .must_have(0)?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two x y");
    let journal = scene.journal();
    let adopted: Vec<_> = journal
        .iter()
        .filter(|r| r["event"] == "state_adopted")
        .collect();
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0]["reason"], "restored from the backup");
    let again = scene.agent(&["state", "adopt"], &["--reason", "twice"])?;
    again.must_have(0)?;
    again.must_say(&["nothing to adopt"])?;
    scene.agent(&["state", "verify"], &[])?.must_have(0)?;

    scene.state = own;
    scene.run()?.must_have(0)?;
    Ok(())
}

#[test]
fn of_two_copies_of_one_state_only_one_runs_at_a_time() -> Outcome {
    let mut scene = Scene::with("- id: wait\n  wait_for: {path: HOME/go, timeout: 120}")?;
    fs::write(scene.path("go"), "")?;
    scene.run()?.must_have(0)?;
    fs::remove_file(scene.path("go"))?;
    let copy = copy_of(&scene)?;
    let own = std::mem::replace(&mut scene.state, copy);
    scene
        .agent(&["state", "adopt"], &["--reason", "a test"])?
        .must_have(0)?;
    scene.state.clone_from(&own);
    let mut first = Running::start(&mut scene.command(&[], &["run", "--redo", "wait"], &[])?)?;
    first.wait_for("the task", || {
        scene.records("task_started", "wait").len() == 2
    })?;
    scene.state = scene.path("copy");
    let second = scene.run()?;
    second.must_have(7)?;
    second.must_say(&["state::held_by_copy", &format!("pid {}", first.pid())])?;
    fs::write(scene.path("go"), "")?;
    first.end()?.must_have(0)?;
    scene.run()?.must_have(0)?;
    Ok(())
}

#[test]
fn another_machine_is_refused_and_another_host_name_is_worth_a_warning() -> Outcome {
    let scene = Scene::with(COUNTS)?;
    scene.run()?.must_have(0)?;
    let renamed = [
        "unshare",
        "--uts",
        "sh",
        "-c",
        "hostname other-name && exec \"$0\" \"$@\"",
    ];
    let ended = Running::start(&mut scene.command(&renamed, &["run"], &[])?)?.end()?;
    ended.must_have(0)?;
    ended.must_say(&["this host is called other-name now"])?;

    let id = scene.path("machine-id");
    fs::write(&id, "0123456789abcdef0123456789abcdef\n")?;
    let bind = format!(
        "touch /etc/machine-id && mount --bind {} /etc/machine-id && exec \"$0\" \"$@\"",
        id.display()
    );
    let moved = ["unshare", "--mount", "sh", "-c", &bind];
    // A host without a machine id is taken for the same as any.
    if Path::new("/etc/machine-id")
        .metadata()
        .is_ok_and(|meta| meta.len() > 0)
    {
        let ended = Running::start(&mut scene.command(&moved, &["run"], &[])?)?.end()?;
        ended.must_have(6)?;
        ended.must_say(&["state::copied", "another machine"])?;
    } else {
        Running::start(&mut scene.command(&moved, &["run"], &[])?)?
            .end()?
            .must_have(0)?;
        let ended = Running::start(&mut scene.command(&moved, &["run"], &[])?)?.end()?;
        ended.must_have(0)?;
    }
    assert_eq!(scene.effects(), "one two x y");
    Ok(())
}

#[test]
fn a_clock_that_goes_back_changes_no_order_and_no_duration() -> Outcome {
    apt::ensure("faketime", "faketime")?;
    let tasks = r#"
- id: first
  shell: echo one >> HOME/effects; echo @1990-01-01 00:00:00 > HOME/clock; sleep 0.2
- id: second
  shell: echo two >> HOME/effects; test {{ fail }} = no
"#;
    let scene = Scene::with(tasks)?;
    // The clock of the run itself jumps while its first task is at work.
    let clock = scene.path("clock");
    fs::write(&clock, "+0\n")?;
    let library = tool::run(
        Command::new("sh").args(["-c", "find /usr/lib -name libfaketimeMT.so.1 | head -n 1"]),
        "find faketime's library",
    )?;
    let mut jumping = scene.command(&[], &["run"], &["-e", "fail=yes"])?;
    jumping
        .env("LD_PRELOAD", library.trim())
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Running::start(&mut jumping)?.end()?.must_have(2)?;
    let ends = scene.records("task_finished", "first");
    let took = ends[0]["duration_ms"].as_u64().ok_or("a duration")?;
    assert!((200..60_000).contains(&took), "{took} ms");
    let years =
        |record: &serde_json::Value| record["time"].as_str().unwrap_or_default()[..4].to_owned();
    assert_eq!(years(&ends[0]), "1990", "the clock did go back");

    // The next run begins before the last record of one that ran at the right time.
    scene.agent(&["run"], &["-e", "fail=yes"])?.must_have(2)?;
    let back = ["faketime", "-f", "-2d"];
    let mut run = scene.command(&back, &["run"], &["-e", "fail=no"])?;
    run.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let ended = Running::start(&mut run)?.end()?;
    ended.must_have(0)?;
    ended.must_say(&["the clock went back"])?;
    assert_eq!(
        scene.effects(),
        "one two two two",
        "what was done is done, whatever the clock says"
    );
    let numbers: Vec<_> = scene.journal().iter().map(|r| r["seq"].as_u64()).collect();
    let expected: Vec<_> = (1..=numbers.len() as u64).map(Some).collect();
    assert_eq!(numbers, expected);
    scene.agent(&["state", "verify"], &[])?.must_have(0)?;
    Ok(())
}

#[test]
fn a_state_of_every_format_that_was_ever_written_is_read() -> Outcome {
    let samples = agent::workspace().join("tests/fixtures/state");
    let mut read = 0;
    for sample in fs::read_dir(samples)? {
        let dir = sample?.path();
        // Journals of whole migrations are another test's, older_journals.rs.
        if !dir.join("try").is_dir() {
            continue;
        }
        let run = |words: &[&str]| -> Result<Ended, Box<dyn Error>> {
            let mut command = Command::new(agent::binary()?);
            command.args(words).arg("--state-dir").arg(&dir);
            Ok(Running::start(&mut command)?.end()?)
        };
        let verified = run(&["state", "verify", "--no-outputs"])?;
        verified.must_have(0)?;
        verified.must_say(&["each follows the one before it"])?;
        let status = run(&["status", "--output", "json"])?;
        status.must_have(0)?;
        status.must_say(&["Try / first", "Try / items [y]"])?;
        read += 1;
    }
    assert!(read >= 3, "only {read} samples");
    Ok(())
}

/// Everything by which a tree is told from another, by tar: names, kinds, owners, modes, times, links,
/// extended attributes, content.
fn told_by_tar(dir: &Path) -> Result<String, Box<dyn Error>> {
    let script = "tar --sort=name --numeric-owner --xattrs --xattrs-include='*' --pax-option=exthdr.name=%d/%f,delete=atime,delete=ctime -C \"$0\" -cf - . | sha256sum";
    Ok(tool::run(
        Command::new("sh").args(["-c", script]).arg(dir),
        "read a tree",
    )?)
}

#[test]
fn a_move_that_is_killed_in_a_large_copy_goes_on_where_it_was_and_believes_nothing() -> Outcome {
    const LARGE: usize = 160 << 20;
    let scene = Scene::with(
        "- id: move\n  move: {src: HOME/from/data, dest: HOME/to/data, cross_filesystem: true}",
    )?;
    let mounts = ["from", "to"].map(|name| scene.path(name));
    for mount in &mounts {
        fs::create_dir(mount)?;
    }
    let _from = Mount::tmpfs(&mounts[0], "400m")?;
    let _to = Mount::tmpfs(&mounts[1], "400m")?;
    let data = mounts[0].join("data");
    fs::create_dir_all(data.join("base/1"))?;
    // Names are copied in their order: something small, the large ones, and what must still come.
    fs::write(data.join("a-small"), "small")?;
    fs::hard_link(data.join("a-small"), data.join("z-twin"))?;
    chown(data.join("a-small"), Some(999), Some(998))?;
    let noise: Vec<u8> = (0..LARGE as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(data.join("base/large"), &noise)?;
    fs::write(data.join("base/larger"), &noise)?;
    chown(data.join("base/larger"), Some(70), Some(70))?;
    File::create(data.join("sparse"))?.write_all_at(b"end", 64 << 20)?;
    fs::set_permissions(data.join("base"), fs::Permissions::from_mode(0o700))?;
    tool::run(
        Command::new("python3")
            .arg("-c")
            .arg("import os,sys; os.setxattr(sys.argv[1], 'trusted.test', b'value')")
            .arg(data.join("base/large")),
        "set an extended attribute",
    )?;
    let before = told_by_tar(&data)?;

    let partial = || -> Option<std::path::PathBuf> {
        let entries = fs::read_dir(&mounts[1]).ok()?.flatten();
        entries
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains(".partial-"))
    };
    let size_of = |name: &str| {
        let path = partial().map(|partial| partial.join(name));
        path.and_then(|path| fs::metadata(path).ok())
            .map_or(0, |meta| meta.len())
    };
    let mut run = scene.start()?;
    run.wait_for("half of the second large file", || {
        size_of("base/larger") > LARGE as u64 / 4
    })?;
    run.kill()?;
    assert!(data.join("base/large").exists() && !mounts[1].join("data").exists());
    let large = partial()
        .ok_or("the half copy is there")?
        .join("base/large");
    // What a crash left may be anything: one byte of it is wrong.
    File::options()
        .write(true)
        .open(&large)?
        .write_all_at(&[!noise[5 << 20]], 5 << 20)?;

    let ended = scene.run()?;
    ended.must_have(0)?;
    let end = scene
        .records("task_finished", "move")
        .pop()
        .ok_or("an end")?;
    let figure = |name: &str| end["result"][name].as_u64().unwrap_or_default();
    let (kept, copied) = (figure("kept_bytes"), figure("copied_bytes"));
    println!("kept {} MiB, copied again {} MiB", kept >> 20, copied >> 20);
    let all = 2 * LARGE as u64 + 5 + 3;
    assert_eq!(kept + copied, all, "{end}");
    assert!(
        kept >= LARGE as u64,
        "a whole large file and more was there already: {end}"
    );
    assert!(copied > 0 && copied < all, "{end}");
    assert_eq!(told_by_tar(&mounts[1].join("data"))?, before);
    let (small, twin) = (
        mounts[1].join("data/a-small").metadata()?,
        mounts[1].join("data/z-twin").metadata()?,
    );
    assert_eq!(
        (small.ino(), small.uid(), small.gid()),
        (twin.ino(), 999, 998)
    );
    let sparse = mounts[1].join("data/sparse").metadata()?;
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
    for mount in &mounts {
        let names: Vec<_> = fs::read_dir(mount)?
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        let expected: &[&str] = if mount == &mounts[0] { &[] } else { &["data"] };
        assert_eq!(names, expected);
    }
    Ok(())
}
