//! Exactly once: what a run decides, what it asks, and what an answer leads to.

use std::error::Error;
use std::fs;
use std::process::Command;

use lab::migration::Running;
use lab::scene::{COUNTS, Scene};
use lab::tool;

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn redo_repeats_what_it_names_and_a_misspelt_name_stops_before_anything() -> Outcome {
    let scene = Scene::with(COUNTS)?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two x y");

    for (name, words) in [
        ("secnd", ["resolve::unknown_task", "did you mean 'second'?"]),
        ("items", ["resolve::ambiguous_task", "'Try / items [y]'"]),
        (
            "nothing like it",
            ["resolve::unknown_task", "`status` lists"],
        ),
    ] {
        let before = fs::read(scene.journal_path())?;
        let ended = scene.agent(&["run", "--redo", "first", "--redo", name], &[])?;
        ended.must_have(5)?;
        ended.must_say(&words)?;
        assert_eq!(
            fs::read(scene.journal_path())?,
            before,
            "nothing is recorded"
        );
    }
    assert_eq!(scene.effects(), "one two x y", "nothing ran");

    let redo = [
        "run",
        "--redo",
        "second",
        "--redo",
        "items [y]",
        "--reason",
        "lost by hand",
    ];
    scene.agent(&redo, &[])?.must_have(0)?;
    assert_eq!(scene.effects(), "one two x y two y");
    let answers = scene.records("task_resolved", "second");
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (&answers[0]["answer"], &answers[0]["reason"]),
        (&"redo".into(), &"lost by hand".into())
    );
    scene.run()?.must_have(0)?;
    assert_eq!(
        scene.effects(),
        "one two x y two y",
        "an answer counts once"
    );
    Ok(())
}

#[test]
fn a_loop_of_what_cannot_be_repeated_ends_with_the_item_that_fails_and_goes_on_there() -> Outcome {
    let scene = Scene::with(
        r#"
- id: items
  shell: test {{ item }} != 2 -o -e HOME/mended && echo {{ item }} >> HOME/effects
  loop: [1, 2, 3]
"#,
    )?;
    scene.run()?.must_have(2)?;
    assert_eq!(scene.effects(), "1", "what rests on item 2 has not run");
    fs::write(scene.path("mended"), "")?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "1 2 3");
    Ok(())
}

#[test]
fn what_is_asked_can_be_typed_and_says_what_to_look_at() -> Outcome {
    let scene = Scene::with("- id: wait\n  shell: echo begun >> HOME/effects; sleep {{ pause }}")?;
    let vars = ["-e", "pause=60"];
    let mut run = Running::start(&mut scene.command(&[], &["run"], &vars)?)?;
    run.wait_for("the effect", || scene.effects() == "begun")?;
    run.kill()?;
    let ended = scene.agent(&["run"], &vars)?;
    ended.must_have(6)?;
    let playbook = scene.playbook().display().to_string();
    let resolve = format!(
        "resolve {playbook} -e pause=60 --state-dir {} 'Try / wait' --done --reason TEXT",
        scene.state.display()
    );
    ended.must_say(&[
        "while running `echo begun",
        "pgrep -af echo",
        "right when it came to its end",
        "it runs again, right when it no longer runs",
        &resolve,
    ])?;
    assert!(!ended.stderr.contains("PLAYBOOK"), "{}", ended.stderr);

    // Typed as it stands there.
    let line = ended
        .stderr
        .lines()
        .find(|line| line.contains("--redo --reason TEXT"))
        .and_then(|line| line.split('`').find(|part| part.contains(" resolve ")))
        .ok_or("the command is shown")?;
    let mut typed = Command::new("sh");
    typed.args(["-c", &line.replace("TEXT", "'I looked'")]);
    let said = tool::run(&mut typed, "type the answer")?;
    assert!(said.contains("it was interrupted in run"), "{said}");
    assert!(
        said.contains("that is right when it no longer runs"),
        "{said}"
    );
    scene.agent(&["run"], &["-e", "pause=0"])?.must_have(0)?;
    assert_eq!(scene.effects(), "begun begun");

    // Changed after it was done: plan tells it with the same words, and looks at nothing.
    let plan = scene.agent(&["plan"], &["-e", "pause=1"])?;
    plan.must_have(6)?;
    let other = resolve.replace("pause=60", "pause=1");
    plan.must_say(&[
        "sleep 0 -> ",
        "put the old value back",
        "counts as done with the new values",
        &other,
    ])?;
    assert!(!plan.stdout.contains("PLAYBOOK"), "{}", plan.stdout);
    Ok(())
}

#[test]
fn a_condition_that_cannot_be_evaluated_takes_nothing_back_that_was_done() -> Outcome {
    let once = "- id: once\n  shell: echo once >> HOME/effects\n  when: ";
    let scene = Scene::with(&format!("{once}true"))?;
    scene.run()?.must_have(0)?;
    // What the condition rests on is known only when the run comes to it.
    let look = "- id: look\n  stat: {path: HOME}\n  register: seen\n";
    scene.write(&format!("{look}{once}seen.nothing.more == 1"))?;
    scene.run()?.must_have(2)?;
    scene.write(&format!("{look}{once}true"))?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "once");
    Ok(())
}

#[test]
fn a_probe_is_asked_anew_in_every_run_and_a_blind_one_stops_the_task() -> Outcome {
    let tasks = r#"
- id: step
  shell: echo {{ item }} >> HOME/effects; test {{ item }} != {{ fail }}
  done_when:
    probe: {stat: {path: "HOME/{{ item }}"}}
    that: probe.stat.exists
  loop: [a, b, c]
"#;
    let scene = Scene::with(tasks)?;
    fs::write(scene.path("a"), "")?;
    scene.agent(&["run"], &["-e", "fail=b"])?.must_have(2)?;
    assert_eq!(scene.effects(), "b", "a was there, and c waits for b");
    // Somebody does b by hand between the runs.
    fs::write(scene.path("b"), "")?;
    scene.agent(&["run"], &["-e", "fail=b"])?.must_have(0)?;
    assert_eq!(scene.effects(), "b c", "b is not repeated");
    let how = |task: &str| {
        let ends = scene.records("task_finished", task);
        ends.last()
            .map(|end| end["how"].clone())
            .unwrap_or_default()
    };
    assert_eq!(how("step [a]"), "already_done");
    assert_eq!(how("step [b]"), "already_done");
    assert_eq!(how("step [c]"), "ran");

    let blind = r#"
- id: blind
  shell: echo blind >> HOME/effects
  done_when:
    probe: {wait_for: {path: HOME/never, timeout: 0}}
    that: true
"#;
    scene.write(blind)?;
    scene.run()?.must_have(2)?;
    assert_eq!(
        scene.effects(),
        "b c",
        "what cannot be looked at is not begun"
    );

    scene.write("- command: ls\n  done_when: {probe: {command: ls}, that: true}")?;
    let wrong = scene.run()?;
    wrong.must_have(5)?;
    wrong.must_say(&["playbook::probe", "`command` may change the host"])?;
    Ok(())
}

#[test]
fn a_task_that_only_looks_is_run_again_and_nobody_is_asked() -> Outcome {
    let scene = Scene::with(
        "- id: look\n  shell: echo looked >> HOME/effects; sleep {{ pause }}\n  changed_when: false",
    )?;
    let mut run = Running::start(&mut scene.command(&[], &["run"], &["-e", "pause=60"])?)?;
    run.wait_for("the look", || scene.effects() == "looked")?;
    run.kill()?;
    let mut run = Running::start(&mut scene.command(&[], &["run"], &["-e", "pause=60"])?)?;
    run.wait_for("another look", || scene.effects() == "looked looked")?;
    run.signal("TERM")?;
    run.end()?.must_have(130)?;
    Ok(())
}

#[test]
fn extra_variables_may_hold_templates_and_wrong_ones_stop_before_anything() -> Outcome {
    let scene = Scene::with(
        "- {id: root, set_fact: {top: /srv}}\n\
         - {id: count, shell: \"echo {{ place }} >> HOME/effects\"}\n",
    )?;
    let file = scene.path("site.yaml");
    let from_file = format!("@{}", file.display());
    for (text, said) in [
        ("place: \"{{ nowhere }}/x\"\n", "`nowhere` is undefined"),
        ("place: \"{{ root \"\n", "-e place"),
    ] {
        fs::write(&file, text)?;
        let ended = scene.agent(&["run"], &["-e", &from_file])?;
        ended.must_have(5)?;
        ended.must_say(&["-e place", said])?;
        assert_eq!(scene.effects(), "");
    }
    fs::write(&file, "sub: x\nplace: \"{{ top }}/{{ sub }}\"\n")?;
    scene.agent(&["run"], &["-e", &from_file])?.must_have(0)?;
    assert_eq!(scene.effects(), "/srv/x");
    Ok(())
}

#[test]
fn what_debug_prints_is_shown_and_what_no_log_hides_is_neither_shown_nor_recorded() -> Outcome {
    let hidden = "the-word-that-stays-here";
    let scene = Scene::with(
        "- {id: told, debug: {msg: for everybody}}\n\
         - {id: long, debug: {msg: \"first\\nsecond\\nthird\"}}\n\
         - {id: value, no_log: true, debug: {msg: \"{{ word }}\"}}\n\
         - {id: right, no_log: true, assert: {that: true, success_msg: \"it is {{ word }}\"}}\n\
         - {id: wrong, no_log: true, assert: {that: false, fail_msg: \"not {{ word }}\"}}\n",
    )?;
    // The command line is recorded.
    let file = scene.path("word.yaml");
    fs::write(&file, format!("word: {hidden}\n"))?;
    let word = format!("@{}", file.display());
    let ended = scene.agent(&["run"], &["-vv", "-e", &word])?;
    ended.must_have(2)?;
    ended.must_say(&[
        "for everybody",
        "first … (`-v` shows 2 more lines)",
        "third",
        "failed assert: the error is hidden because of no_log",
    ])?;
    let printed = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!printed.contains(hidden), "{printed}");
    assert_eq!(scene.records("task_finished", "wrong").len(), 1);
    let journal = fs::read_to_string(scene.journal_path())?;
    let said: Vec<&str> = journal
        .lines()
        .filter(|line| line.contains(hidden))
        .collect();
    assert_eq!(said, Vec::<&str>::new());
    Ok(())
}
