//! One site, one state: a second installation, state folder, playbook or backup is refused before anything
//! runs, until an operator says that it goes on.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lab::agent;
use lab::migration::{Ended, Running};
use lab::tool;
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

const POINTS: &str = "KAAPANA_AGENT_TEST_POINTS";

/// Looks, then has two effects.
const TASKS: &str = r#"
- id: look
  stat: {path: "{{ site_dir }}"}
- id: first
  shell: echo one >> {{ site_dir }}/effects
- id: second
  shell: echo two >> {{ site_dir }}/effects
"#;

/// A site's folder and installations that work on it, which go with this value.
struct Scene {
    home: tempfile::TempDir,
}

/// One installation: a folder with playbooks and, by default, a state.
struct Installation {
    root: PathBuf,
    site: PathBuf,
    playbook: String,
}

impl Scene {
    fn new() -> Result<Self, Box<dyn Error>> {
        let scene = Self {
            home: tempfile::tempdir()?,
        };
        fs::create_dir(scene.site())?;
        Ok(scene)
    }

    fn site(&self) -> PathBuf {
        self.home.path().join("site")
    }

    fn marker(&self) -> PathBuf {
        self.site().join(".kaapana-agent-site.json")
    }

    fn marked(&self) -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_slice(&fs::read(self.marker())?)?)
    }

    /// The words that tasks have appended.
    fn effects(&self) -> String {
        let text = fs::read_to_string(self.site().join("effects")).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn install(&self, name: &str) -> Result<Installation, Box<dyn Error>> {
        let installation = Installation {
            root: self.home.path().join(name),
            site: self.site(),
            playbook: "try".into(),
        };
        fs::create_dir_all(installation.root.join("playbooks"))?;
        installation.write(TASKS)?;
        Ok(installation)
    }
}

impl Installation {
    fn write(&self, tasks: &str) -> Outcome {
        let text = format!(
            "- name: Try\n  hosts: all\n  site: \"{{{{ site_dir }}}}\"\n  vars: {{site_dir: {}}}\n  \
             tasks:\n{}",
            self.site.display(),
            tasks
                .trim_matches('\n')
                .lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
        );
        Ok(fs::write(self.path(), text)?)
    }

    fn path(&self) -> PathBuf {
        self.root.join(format!("playbooks/{}.yaml", self.playbook))
    }

    fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    fn journal_path(&self) -> PathBuf {
        self.state().join(&self.playbook).join("journal.jsonl")
    }

    fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.journal_path()).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn events(&self) -> Vec<String> {
        let event = |record: &Value| record["event"].as_str().map(str::to_owned);
        self.journal().iter().filter_map(event).collect()
    }

    fn command(&self, words: &[&str], more: &[&str]) -> Result<Command, Box<dyn Error>> {
        let mut command = Command::new(agent::binary()?);
        command
            .args(words)
            .arg(self.path())
            .args(more)
            .stdin(Stdio::null());
        Ok(command)
    }

    fn agent(&self, words: &[&str], more: &[&str]) -> Result<Ended, Box<dyn Error>> {
        Ok(Running::start(&mut self.command(words, more)?)?.end()?)
    }

    fn run(&self) -> Result<Ended, Box<dyn Error>> {
        self.agent(&["run"], &[])
    }

    fn run_to(&self, point: &str) -> Result<Ended, Box<dyn Error>> {
        let mut command = self.command(&["run"], &[])?;
        Ok(Running::start(command.env(POINTS, point))?.end()?)
    }

    /// Every command that writes is refused, with these words; those that look warn.
    fn is_refused(&self, words: &[&str]) -> Outcome {
        let run = self.run()?;
        run.must_have(6)?;
        run.must_say(words)?;
        for look in [&["plan"][..], &["run", "--check"]] {
            let looked = self.agent(look, &[])?;
            looked.must_have(0)?;
            looked.must_say(&["warning:", "a run would stop"])?;
        }
        Ok(())
    }
}

#[test]
fn a_site_that_was_begun_in_one_place_is_refused_in_every_other() -> Outcome {
    let scene = Scene::new()?;
    let (a, b) = (scene.install("opt/a")?, scene.install("usr/share/b")?);
    for look in [&["plan"][..], &["run", "--check"]] {
        a.agent(look, &[])?.must_have(0)?;
    }
    assert!(!scene.marker().exists(), "nothing was done yet");
    // Begun, and killed in the middle.
    a.run_to("kill:after:task_finished:first")?;
    assert_eq!(scene.effects(), "one");
    let meta = fs::symlink_metadata(scene.marker())?;
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert_eq!(meta.uid(), fs::metadata(scene.site())?.uid());
    let events = a.events();
    let marked = events.iter().position(|event| event == "site_marked");
    let first = a
        .journal()
        .iter()
        .position(|record| agent::is_about(record, "task_started", "first"));
    assert!(marked.is_some() && marked < first, "{events:?}");

    let state = a.state().join("try").display().to_string();
    let way = format!("--state-dir {}", a.state().display());
    b.is_refused(&[&state, "site::taken", &way, "state adopt"])?;
    assert_eq!(scene.effects(), "one", "nothing ran");
    assert!(!b.journal_path().exists(), "nothing was recorded");

    // Another playbook of the same installation is another state.
    let other = Installation {
        root: a.root.clone(),
        site: scene.site(),
        playbook: "other".into(),
    };
    other.write(TASKS)?;
    other.is_refused(&[&state, "site::taken"])?;

    // The way that the message names: the other installation with this state.
    let root = a.state().display().to_string();
    b.agent(&["run"], &["--state-dir", &root])?.must_have(0)?;
    assert_eq!(scene.effects(), "one two");
    a.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two");
    let count = a.events().iter().filter(|e| *e == "site_marked").count();
    assert_eq!(count, 1);
    let status = a.agent(&["status"], &[])?;
    status.must_say(&[
        &format!("site {}", scene.site().display()),
        "marked as this state's",
    ])?;
    b.agent(&["status"], &[])?
        .must_say(&["a run would stop", &state])?;
    Ok(())
}

#[test]
fn a_run_that_does_nothing_leaves_the_marker_as_it_is() -> Outcome {
    let scene = Scene::new()?;
    let a = scene.install("a")?;
    a.run()?.must_have(0)?;
    let head = scene.marked()?["head"].clone();
    assert_eq!(Some(&head), a.journal().last().map(|last| &last["hash"]));
    let before = fs::metadata(scene.marker())?;
    a.run()?.must_have(0)?;
    let after = fs::metadata(scene.marker())?;
    assert_eq!(
        (before.ino(), before.ctime_nsec()),
        (after.ino(), after.ctime_nsec())
    );
    Ok(())
}

#[test]
fn an_operator_says_which_state_goes_on_and_the_other_one_stays_out() -> Outcome {
    let scene = Scene::new()?;
    let (a, b) = (scene.install("a")?, scene.install("b")?);
    a.run()?.must_have(0)?;
    let site = scene.site().display().to_string();
    let adopt = ["--site", &site, "--reason", "the disk of a is lost"];
    let adopted = b.agent(&["state", "adopt"], &adopt)?;
    adopted.must_have(0)?;
    adopted.must_say(&["goes on with this state", "a/state/try"])?;
    let again = b.agent(&["state", "adopt"], &adopt)?;
    again.must_have(0)?;
    again.must_say(&["nothing to adopt"])?;
    let told = b.journal();
    let reasons: Vec<_> = told
        .iter()
        .filter(|record| record["event"] == "state_adopted")
        .map(|record| record["reason"].clone())
        .collect();
    assert_eq!(reasons, ["the disk of a is lost"]);
    b.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two one two");
    b.agent(&["state", "verify"], &[])?.must_have(0)?;

    a.is_refused(&["b/state/try", "site::taken"])?;
    for words in [&["rollback", "--yes"][..], &["purge", "--yes"]] {
        let refused = a.agent(words, &[])?;
        refused.must_have(6)?;
        refused.must_say(&["site::taken"])?;
    }
    let resolve = a.agent(&["resolve"], &["second", "--redo", "--reason", "x"])?;
    resolve.must_have(6)?;
    resolve.must_say(&["site::taken"])?;
    Ok(())
}

#[test]
fn nobody_takes_a_site_from_under_a_run() -> Outcome {
    let scene = Scene::new()?;
    let (a, b) = (scene.install("a")?, scene.install("b")?);
    a.write(&format!(
        "{TASKS}- id: wait\n  wait_for: {{path: '{{{{ site_dir }}}}/go', timeout: 120}}\n"
    ))?;
    let mut run = Running::start(&mut a.command(&["run"], &[])?)?;
    run.wait_for("the second effect", || scene.effects() == "one two")?;
    let site = scene.site().display().to_string();
    let refused = b.agent(&["state", "adopt"], &["--site", &site, "--reason", "x"])?;
    refused.must_have(7)?;
    fs::write(scene.site().join("go"), "")?;
    run.end()?.must_have(0)?;
    a.run()?.must_have(0)?;
    Ok(())
}

#[test]
fn of_two_states_that_begin_at_once_one_goes_on() -> Outcome {
    let scene = Scene::new()?;
    let both = [scene.install("a")?, scene.install("b")?];
    let go = scene.home.path().join("go");
    let wait = format!(
        "- id: wait\n  wait_for: {{path: {}, timeout: 120}}\n",
        go.display()
    );
    let mut runs = Vec::new();
    for one in &both {
        one.write(&format!("{wait}{}", TASKS.trim_start()))?;
        runs.push(Running::start(&mut one.command(&["run"], &[])?)?);
    }
    for (one, run) in both.iter().zip(&mut runs) {
        run.wait_for("the look", || {
            let journal = one.journal();
            journal
                .iter()
                .any(|record| agent::is_about(record, "task_started", "wait"))
        })?;
    }
    fs::write(&go, "")?;
    let mut codes = Vec::new();
    for run in runs {
        let ended = run.end()?;
        codes.push(ended.code);
        if ended.code == Some(6) {
            ended.must_say(&["site::taken"])?;
        }
    }
    codes.sort();
    assert_eq!(codes, [Some(0), Some(6)]);
    assert_eq!(scene.effects(), "one two");
    Ok(())
}

#[test]
fn a_backup_that_is_put_back_is_older_than_the_marker() -> Outcome {
    let scene = Scene::new()?;
    let a = scene.install("a")?;
    a.run()?.must_have(0)?;
    let backup = fs::read(a.journal_path())?;
    a.write(&format!(
        "{}- id: third\n  shell: echo three >> {{{{ site_dir }}}}/effects\n",
        TASKS.trim_start()
    ))?;
    // Killed: the marker has the run's beginning at least.
    a.run_to("kill:after:task_finished:third")?;
    assert_eq!(scene.effects(), "one two three");
    // Into the very file, so that nothing but what it holds tells.
    fs::write(a.journal_path(), &backup)?;
    a.is_refused(&["is older than what was done", "site::older_state"])?;
    assert_eq!(scene.effects(), "one two three");
    a.agent(
        &["state", "adopt"],
        &["--reason", "the newest that there is"],
    )?
    .must_have(0)?;
    a.run()?.must_have(0)?;
    Ok(())
}

#[test]
fn the_original_of_an_adopted_copy_is_told_that_it_is_no_longer_the_one() -> Outcome {
    let scene = Scene::new()?;
    let a = scene.install("a")?;
    a.run()?.must_have(0)?;
    let copy = scene.home.path().join("copy");
    let mut cp = Command::new("cp");
    tool::run(cp.arg("-a").arg(a.state()).arg(&copy), "copy a state")?;
    let at = copy.display().to_string();
    let refused = a.agent(&["run"], &["--state-dir", &at])?;
    refused.must_have(6)?;
    refused.must_say(&["state::copied"])?;
    a.agent(
        &["state", "adopt"],
        &["--state-dir", &at, "--reason", "moved to another disk"],
    )?
    .must_have(0)?;
    a.agent(&["run"], &["--state-dir", &at])?.must_have(0)?;
    a.is_refused(&["is older than what was done", "site::older_state"])?;
    Ok(())
}

/// Killed at every moment around the marker: before it, between it and its record, after both.
#[test]
fn a_kill_around_the_marker_leaves_a_state_that_goes_on() -> Outcome {
    let reference = Scene::new()?;
    let a = reference.install("a")?;
    a.run()?.must_have(0)?;
    let of = |event: &str| {
        let journal = a.journal();
        let found = journal.iter().find(|record| record["event"] == event);
        found.and_then(|record| record["seq"].as_u64())
    };
    let marked = of("site_marked").ok_or("the site was marked")?;
    for point in [
        format!("kill:after:{}", marked - 1),
        format!("kill:before:{marked}"),
        format!("kill:torn:{marked}"),
        format!("kill:after:{marked}"),
        format!("kill:before:{}", a.journal().len()),
        format!("kill:after:{}", a.journal().len()),
    ] {
        let scene = Scene::new()?;
        let (a, b) = (scene.install("a")?, scene.install("b")?);
        a.run_to(&point)?;
        let was_marked = scene.marker().exists();
        assert_eq!(
            was_marked,
            !point.starts_with("kill:after:") || !point.ends_with(&format!(":{}", marked - 1)),
            "{point}"
        );
        if was_marked {
            b.is_refused(&["site::taken"])?;
        }
        a.run()?.must_have(0)?;
        assert_eq!(scene.effects(), "one two", "{point}");
        let count = a.events().iter().filter(|e| *e == "site_marked").count();
        assert_eq!(count, 1, "{point}");
        b.is_refused(&["site::taken"])?;
        a.agent(&["state", "verify"], &[])?.must_have(0)?;
    }
    Ok(())
}

#[test]
fn a_rollback_frees_the_site() -> Outcome {
    let scene = Scene::new()?;
    let (a, b) = (scene.install("a")?, scene.install("b")?);
    for one in [&a, &b] {
        one.write("- id: made\n  file: {path: '{{ site_dir }}/made', state: directory}\n")?;
    }
    a.run()?.must_have(0)?;
    b.is_refused(&["site::taken"])?;
    a.agent(&["rollback", "--yes"], &[])?.must_have(0)?;
    assert!(!scene.marker().exists());
    let freed: Vec<_> = a
        .journal()
        .into_iter()
        .filter(|record| record["event"] == "site_marked")
        .map(|record| record["marker"].is_null())
        .collect();
    assert_eq!(freed, [false, true]);
    b.run()?.must_have(0)?;
    a.is_refused(&["site::taken", "b/state/try"])?;
    Ok(())
}

/// As of an agent that knew no sites: the playbook of then names none.
#[test]
fn a_journal_without_a_site_marks_it_at_its_next_run() -> Outcome {
    let scene = Scene::new()?;
    let (a, b) = (scene.install("a")?, scene.install("b")?);
    let text = fs::read_to_string(a.path())?;
    let without: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("site:"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(a.path(), without)?;
    a.run()?.must_have(0)?;
    assert!(!scene.marker().exists());
    fs::write(a.path(), text)?;
    a.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two", "nothing is repeated");
    assert_eq!(scene.marked()?["playbook"], "try");
    b.is_refused(&["site::taken"])?;
    // Somebody takes it away: the journal knows better.
    fs::remove_file(scene.marker())?;
    let warned = a.run()?;
    warned.must_have(0)?;
    warned.must_say(&["the marker of", "is gone"])?;
    b.is_refused(&["site::taken"])?;
    Ok(())
}

#[test]
fn a_run_that_asks_leaves_every_folder_as_it_was() -> Outcome {
    for older in [false, true] {
        let scene = Scene::new()?;
        let a = scene.install("a")?;
        let text = fs::read_to_string(a.path())?;
        if older {
            let kept = |line: &&str| !line.trim_start().starts_with("site:");
            let lines: Vec<&str> = text.lines().filter(kept).collect();
            fs::write(a.path(), lines.join("\n"))?;
        }
        a.run()?.must_have(0)?;
        fs::write(a.path(), &text)?;
        let other = scene.home.path().join("other");
        fs::create_dir(&other)?;
        let changes = || -> std::io::Result<Vec<(i64, i64)>> {
            [&other, &scene.site()]
                .iter()
                .map(|dir| fs::metadata(dir).map(|meta| (meta.ctime(), meta.ctime_nsec())))
                .collect()
        };
        let before = changes()?;
        let elsewhere = format!("site_dir={}", other.display());
        let asked = a.agent(&["run"], &["-e", &elsewhere])?;
        asked.must_have(6)?;
        assert_eq!(changes()?, before, "older: {older}\n{}", asked.stdout);
    }
    Ok(())
}

#[test]
fn what_stands_in_the_place_of_the_marker_is_refused_and_left_alone() -> Outcome {
    let scene = Scene::new()?;
    let a = scene.install("a")?;
    let precious = scene.home.path().join("precious");
    fs::write(&precious, "{}")?;
    symlink(&precious, scene.marker())?;
    let site = scene.site().display().to_string();
    a.is_refused(&["it is a link", "site::forged_marker"])?;
    let adopt = ["--site", &site, "--reason", "x"];
    let refused = a.agent(&["state", "adopt"], &adopt)?;
    refused.must_have(6)?;
    refused.must_say(&["site::forged_marker"])?;
    assert_eq!(fs::read_to_string(&precious)?, "{}");
    assert_eq!(scene.effects(), "");
    fs::remove_file(scene.marker())?;

    fs::write(scene.marker(), "{\"v\": 1, \"state_id\"")?;
    fs::set_permissions(scene.marker(), fs::Permissions::from_mode(0o600))?;
    a.is_refused(&["is damaged", "site::damaged_marker"])?;
    a.agent(&["state", "adopt"], &adopt)?.must_have(0)?;
    a.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two");
    Ok(())
}

#[test]
fn a_site_that_cannot_be_marked_is_not_worked_on() -> Outcome {
    let scene = Scene::new()?;
    let a = scene.install("a")?;
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(scene.site());
        tool::run(&mut mount, "mount a tmpfs")
    };
    mount("ro")?;
    let ended = a.run();
    let unmounted = tool::run(Command::new("umount").arg(scene.site()), "unmount");
    let ended = ended?;
    unmounted?;
    ended.must_have(2)?;
    ended.must_say(&["failed to mark", "Read-only file system"])?;
    let started = a.events().iter().filter(|e| *e == "task_started").count();
    assert_eq!(started, 1, "the look alone");

    // It is not there at all.
    let gone = Scene::new()?;
    let b = gone.install("b")?;
    fs::remove_dir(gone.site())?;
    let ended = b.run()?;
    ended.must_have(2)?;
    ended.must_say(&["site::missing"])?;

    a.run()?.must_have(0)?;
    Ok(())
}

#[test]
fn one_folder_by_two_names_is_one_site() -> Outcome {
    let scene = Scene::new()?;
    let (a, mut b) = (scene.install("a")?, scene.install("b")?);
    let other_name = scene.home.path().join("fast");
    symlink(scene.site(), &other_name)?;
    b.site = other_name;
    b.write(TASKS)?;
    a.run()?.must_have(0)?;
    b.is_refused(&["site::taken"])?;
    Ok(())
}

#[test]
fn a_site_is_an_absolute_path_that_is_known_before_anything_runs() -> Outcome {
    let scene = Scene::new()?;
    let a = scene.install("a")?;
    let text = fs::read_to_string(a.path())?;
    for (site, word) in [
        ("relative/path", "absolute path"),
        ("''", "absolute path"),
        ("[1]", "must be a path"),
        ("\"{{ nothing_like_it }}\"", "nothing_like_it"),
    ] {
        fs::write(
            a.path(),
            text.replace("\"{{ site_dir }}\"\n  vars", &format!("{site}\n  vars")),
        )?;
        let ended = a.run()?;
        ended.must_have(5)?;
        ended.must_say(&[word])?;
        assert_eq!(scene.effects(), "", "{site}");
    }
    Ok(())
}

/// The state on the host is the one that counts: two controllers that call the host by other names meet the
/// same one, and where each has its own there, the second is refused.
#[test]
fn two_controllers_with_names_of_their_own_for_a_host_meet_the_same_marker() -> Outcome {
    let scene = Scene::new()?;
    let (a, b) = (scene.install("a")?, scene.install("b")?);
    let dir = |name: &str| scene.home.path().join(name).display().to_string();
    let order = |from: &Installation, host: &str, base: &str| {
        let inventory = from.root.join("hosts.yaml");
        let text = format!(
            "all: {{hosts: {{{host}: {{ansible_connection: local, kaapana_agent_dir: {}}}}}}}\n",
            dir(base)
        );
        fs::write(&inventory, text)?;
        from.agent(&["run"], &["-i", &inventory.display().to_string()])
    };
    order(&a, "alpha", "base")?.must_have(0)?;
    assert_eq!(scene.effects(), "one two");
    order(&b, "beta", "base")?.must_have(0)?;
    assert_eq!(scene.effects(), "one two", "the same state");
    let refused = order(&b, "beta", "another-base")?;
    refused.must_have(6)?;
    refused.must_say(&["is the site of another state", &dir("base/state/try")])?;
    assert_eq!(scene.effects(), "one two");
    Ok(())
}
