//! What nobody saw, what the journal holds without its secrets, and what is still due: nothing is done twice,
//! nothing wrong is written, and nothing is forgotten when a run says that it is done.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::Duration;

use lab::images::PostgresImages;
use lab::migration::{Ended, Running};
use lab::scene::Scene;
use lab::server::{Server, ServerOptions};

type Outcome = Result<(), Box<dyn Error>>;

/// A web service that takes requests and never answers; its address.
fn silent() -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let _ = stream.read(&mut [0; 4096]);
            kept.push(stream);
        }
    });
    Ok(address)
}

/// A one-way task whose time limit runs out, with everything around it that must not act on that.
fn surrounded(task: &str) -> String {
    let mut text = "- block:\n".to_owned();
    for line in task.trim_matches('\n').lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text.push_str(
        "      timeout: 1\n      ignore_errors: true\n      retries: 2\n      delay: 0\n      \
         register: tried\n      until: tried is succeeded\n      failed_when: false\n  rescue:\n    - \
         shell: echo rescue >> HOME/effects\n  always:\n    - shell: echo always >> HOME/effects\n- \
         shell: echo after >> HOME/effects\n",
    );
    text
}

#[test]
fn what_outlives_its_time_limit_is_open_for_every_one_way_module_and_ends_the_run() -> Outcome {
    let web = silent()?;
    let server = Server::start(
        &PostgresImages::ensure()?.new,
        None,
        &ServerOptions {
            publish: true,
            without_schema: true,
            ..ServerOptions::default()
        },
    )?;
    let (container, port) = (server.name().to_owned(), server.port()?);
    let login = format!(
        "login_host: 127.0.0.1, login_port: {port}, login_user: pacs, login_password: pacs, db: pacsdb"
    );
    // The task, and whether a person is asked at once: where its module finds out by itself, the next run does.
    let cases = [
        (
            "- id: t\n  shell: echo begun >> HOME/effects; sleep 60".to_owned(),
            6,
        ),
        ("- id: t\n  command: sleep 60".to_owned(), 6),
        ("- id: t\n  script: HOME/slow.sh".to_owned(), 6),
        (
            format!(
                "- id: t\n  docker_container_exec: {{container: {container}, argv: [sleep, '60']}}"
            ),
            6,
        ),
        (
            format!("- id: t\n  postgresql_query: {{{login}, query: SELECT pg_sleep(60)}}"),
            6,
        ),
        (
            format!("- id: t\n  uri: {{url: 'http://{web}/', method: POST, body: x}}"),
            6,
        ),
        // Sending it again has no other effect than sending it once.
        (
            format!("- id: t\n  uri: {{url: 'http://{web}/', method: PUT, body: x}}"),
            2,
        ),
        // `creates` tells.
        (
            "- id: t\n  shell: touch HOME/made; sleep 60\n  args: {creates: HOME/made}".to_owned(),
            2,
        ),
        // `done_when` tells.
        (
            "- id: t\n  shell: touch HOME/done; sleep 60\n  done_when:\n    probe: {stat: {path: \
             HOME/done}}\n    that: probe.stat.exists"
                .to_owned(),
            2,
        ),
        (
            format!(
                "- id: t\n  postgresql_script: {{{login}, path: HOME/slow.sql, transaction: true}}"
            ),
            2,
        ),
    ];
    for (task, code) in cases {
        let scene = Scene::with(&surrounded(&task))?;
        fs::write(scene.path("slow.sh"), "#!/bin/sh\nsleep 60\n")?;
        fs::set_permissions(scene.path("slow.sh"), fs::Permissions::from_mode(0o755))?;
        fs::write(scene.path("slow.sql"), "SELECT pg_sleep(60);\n")?;
        let ended = scene.run()?;
        let told = |what: &str| format!("{task}\n{what}\n{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(code), "{}", told("exit code"));
        assert_eq!(
            scene.records("task_started", "t").len(),
            1,
            "{}",
            told("tries")
        );
        assert_eq!(
            scene.records("task_finished", "t").len(),
            0,
            "{}",
            told("open")
        );
        let unknown = scene.records("outcome_unknown", "t");
        assert_eq!(unknown.len(), 1, "{}", told("record"));
        let seen = unknown[0]["error"].as_str().unwrap_or_default();
        assert!(seen.contains("timeout of 1 s"), "{seen}");
        let effects = scene.effects();
        assert!(
            effects.is_empty() || effects == "begun",
            "{}",
            told(&format!("nothing acts on it, not {effects}"))
        );
        ended.must_say(&["nobody saw how it ended"])?;
        if code == 6 {
            let again = scene.run()?;
            again.must_have(6)?;
            again.must_say(&["nobody saw how it ended in run", "--redo --reason TEXT"])?;
            assert_eq!(scene.records("task_started", "t").len(), 1, "{task}");
        } else if task.contains("HOME/") && !task.contains("sql") {
            scene.run()?.must_have(0)?;
            assert_eq!(scene.effects(), "always after", "{task}");
        }
        if task.contains("sleep") && !task.contains("sql") && !task.contains("docker") {
            scene.agent(&["state", "verify"], &[])?.must_have(0)?;
        }
    }
    Ok(())
}

#[test]
fn what_only_looks_fails_by_its_time_limit_as_anything_else_fails() -> Outcome {
    let web = silent()?;
    for task in [
        "- id: t\n  shell: echo tried >> HOME/effects; sleep 60\n  changed_when: false".to_owned(),
        format!("- id: t\n  uri: {{url: 'http://{web}/'}}"),
        "- id: t\n  pause: {seconds: 60}".to_owned(),
        "- id: t\n  wait_for: {path: HOME/never, timeout: 60}".to_owned(),
    ] {
        let tasks = format!(
            "- block:\n{}\n      timeout: 1\n      retries: 1\n      delay: 0\n      register: r\n      \
             until: r is succeeded\n  rescue:\n    - shell: echo rescue >> HOME/effects",
            task.lines()
                .map(|line| format!("    {line}\n"))
                .collect::<String>()
                .trim_end()
        );
        let scene = Scene::with(&tasks)?;
        scene.run()?.must_have(0)?;
        assert_eq!(scene.records("outcome_unknown", "t").len(), 0, "{task}");
        assert_eq!(scene.records("task_started", "t").len(), 2, "{task}");
        assert!(scene.effects().ends_with("rescue"), "{task}");
    }
    Ok(())
}

#[test]
fn a_program_that_never_started_or_ended_by_itself_is_a_plain_failure() -> Outcome {
    let scene = Scene::with(
        "- block:\n    - {id: none, command: /no/such/program}\n  rescue:\n    - shell: echo one >> \
         HOME/effects\n- block:\n    - {id: fails, command: 'false', timeout: 60}\n  rescue:\n    - \
         shell: echo two >> HOME/effects\n- block:\n    - {id: refused, uri: {url: \
         'http://127.0.0.1:1/', method: POST}}\n  rescue:\n    - shell: echo three >> HOME/effects\n",
    )?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "one two three");
    Ok(())
}

#[test]
fn an_answer_to_no_question_is_refused_whatever_the_task_stands_at() -> Outcome {
    let scene = Scene::with(
        "- {id: done, shell: echo done >> HOME/effects}\n\
         - {id: looked, stat: {path: HOME}}\n\
         - {id: skipped, command: ls, when: false}\n\
         - {id: changes, shell: \"echo {{ word }} >> HOME/effects\"}\n\
         - {id: file, copy: {content: \"{{ word }}\", dest: HOME/file}}\n\
         - {id: open, shell: \"echo open >> HOME/effects; test -e HOME/quick || sleep 60\"}\n\
         - {id: fails, command: test -e HOME/mended}\n\
         - {id: never, command: ls}\n",
    )?;
    let word = ["-e", "word=one"];
    let mut run = Running::start(&mut scene.command(&[], &["run"], &word)?)?;
    run.wait_for("the open task", || scene.effects().ends_with("open"))?;
    run.kill()?;
    let answer = |task: &str, how: &str, more: &[&str]| -> Result<Ended, Box<dyn Error>> {
        let words = [&[task, how, "--reason", "x"], more].concat();
        Ok(scene.agent(&["resolve"], &words)?)
    };
    let refused = |task: &str, says: &[&str], more: &[&str]| -> Outcome {
        for how in ["--done", "--redo"] {
            let before = fs::read(scene.journal_path())?;
            let ended = answer(task, how, more)?;
            ended.must_have(5)?;
            ended.must_say(says)?;
            assert_eq!(fs::read(scene.journal_path())?, before, "{task} {how}");
        }
        Ok(())
    };
    let nothing = "resolve::asks_nothing";
    refused(
        "done",
        &[nothing, "done in run", "--redo 'Try / done'"],
        &word,
    )?;
    refused("looked", &[nothing, "--redo"], &word)?;
    refused("skipped", &[nothing, "looks at its condition again"], &word)?;
    refused(
        "never",
        &["resolve::unknown_task", "has not run yet"],
        &word,
    )?;
    // What describes a state runs again by itself; what happens once asks.
    let other = ["-e", "word=two"];
    refused("file", &[nothing, "the next run does it again"], &other)?;
    answer("changes", "--done", &other)?.must_have(0)?;
    answer("changes", "--redo", &other)?.must_have(0)?;
    answer("changes", "--done", &other)?.must_have(0)?;
    answer("open", "--redo", &other)?.must_have(0)?;
    fs::write(scene.path("quick"), "")?;
    scene.agent(&["run"], &other)?.must_have(2)?;
    refused("fails", &[nothing, "failed in run", "done_when"], &other)?;
    refused("open", &[nothing, "--redo 'Try / open'"], &other)?;
    fs::write(scene.path("mended"), "")?;
    scene.agent(&["run"], &other)?.must_have(0)?;
    assert_eq!(scene.effects(), "done one open open");
    Ok(())
}

/// A play with a secret in it.
fn secretive(tasks: &str) -> Result<Scene, Box<dyn Error>> {
    let scene = Scene::with(tasks)?;
    let text = fs::read_to_string(scene.playbook())?;
    let text = text.replacen(
        "  tasks:\n",
        "  secrets: [word]\n  vars: {word: the-hidden-word}\n  tasks:\n",
        1,
    );
    fs::write(scene.playbook(), text)?;
    Ok(scene)
}

const GATE: &str = "- {id: gate, command: test -e HOME/gate}\n";

#[test]
fn a_value_that_lost_its_secret_is_never_written() -> Outcome {
    let use_it = "- {id: use, copy: {content: \"{{ value }}\", dest: HOME/out, mode: \"0600\"}}\n";
    let look = "- {id: get, command: \"echo {{ word }} x\", changed_when: false, register: got}\n";
    let act =
        "- {id: get, shell: \"echo run >> HOME/effects; echo {{ word }} x\", register: got}\n";
    // Tasks before the gate, what is used behind it, what must be written, and the exit code of the run that
    // goes on.
    let cases: [(&str, &str, &str, i32); 10] = [
        (look, "got.stdout", "the-hidden-word x", 0),
        (look, "got.stdout_lines[0]", "the-hidden-word x", 0),
        (
            look,
            "got.stdout_lines | join('-') | upper",
            "THE-HIDDEN-WORD X",
            0,
        ),
        (look, "got.stdout | length", "17", 0),
        (look, "got.rc", "0", 0),
        (
            "- {id: get, set_fact: {got: {a: \"{{ word }}\", b: plain}}}\n- {id: more, set_fact: {made: \
             \"{{ got.a }}!\"}}\n",
            "made",
            "the-hidden-word!",
            0,
        ),
        (
            "- {id: get, command: \"echo {{ word }}{{ item }}\", loop: [a, b], changed_when: false, \
             register: got}\n",
            "got.results[1].stdout ~ got.results[0].stdout",
            "the-hidden-wordbthe-hidden-worda",
            0,
        ),
        (
            "- {id: get, no_log: true, command: echo quiet, changed_when: false, register: got}\n",
            "got.stdout",
            "quiet",
            0,
        ),
        (act, "got.rc", "0", 0),
        (act, "got.stdout", "", 6),
    ];
    for (tasks, value, written, code) in cases {
        let text = format!("{tasks}{GATE}{}", use_it.replace("value", value));
        let scene = secretive(&text)?;
        scene.run()?.must_have(2)?;
        fs::write(scene.path("gate"), "")?;
        let plan = scene.agent(&["plan"], &[])?;
        assert_ne!(plan.code, Some(5), "{value}: {}", plan.stderr);
        let ended = scene.run()?;
        ended.must_have(code)?;
        let found = fs::read_to_string(scene.path("out")).unwrap_or_default();
        assert_eq!(found, written, "{value}: {}{}", ended.stdout, ended.stderr);
        let journal = fs::read_to_string(scene.journal_path())?;
        assert!(!journal.contains("the-hidden-word"), "{value}");
        if code == 6 {
            ended.must_say(&["without its secrets", "run again", "--redo 'Try / get'"])?;
            assert_eq!(scene.records("task_started", "use").len(), 0);
            scene.agent(&["run", "--redo", "get"], &[])?.must_have(0)?;
            let found = fs::read_to_string(scene.path("out"))?;
            assert_eq!(found, "the-hidden-word x");
            assert_eq!(scene.effects(), "run run");
        }
        if value == "got.rc" {
            assert_eq!(
                scene.records("task_started", "get").len(),
                1,
                "it cost nothing"
            );
        }
        // Now all is done, and nothing is needed any more, but for a look where what is left of the result
        // does not tell whether its user is still the same: under `no_log`, and behind a filter.
        let before = scene.records("task_started", "get").len();
        scene.run()?.must_have(0)?;
        let more = scene.records("task_started", "get").len() - before;
        assert!(
            more == 0 || (more == 1 && (value.contains('|') || tasks.contains("no_log"))),
            "{value}: {more}"
        );
        assert_eq!(scene.records("task_started", "use").len(), 1, "{value}");
    }
    Ok(())
}

#[test]
fn conditions_loops_and_includes_do_not_rest_on_what_was_cut() -> Outcome {
    let look = "- {id: get, command: \"echo {{ word }}\", changed_when: false, register: got}\n";
    let cases = [
        "- {id: use, shell: echo used >> HOME/effects, when: got.stdout == word}\n",
        "- {id: use, shell: echo used >> HOME/effects, loop: \"{{ got.stdout_lines }}\", when: item == \
         word}\n",
        "- {id: use, shell: echo used >> HOME/effects, changed_when: got.stdout == word}\n",
        "- include_tasks: more.yaml\n  when: got.stdout == word\n",
    ];
    for user in cases {
        let scene = secretive(&format!("{look}{GATE}{user}"))?;
        let more = format!(
            "- shell: echo used >> {}\n",
            scene.path("effects").display()
        );
        fs::write(scene.path("more.yaml"), more)?;
        scene.run()?.must_have(2)?;
        fs::write(scene.path("gate"), "")?;
        scene.run()?.must_have(0)?;
        assert_eq!(scene.effects(), "used", "{user}");
        assert_eq!(scene.records("task_started", "get").len(), 2, "{user}");
        scene.run()?.must_have(0)?;
        assert_eq!(scene.effects(), "used", "{user}");
    }
    Ok(())
}

#[test]
fn what_is_done_needs_no_secret_any_more() -> Outcome {
    let scene = secretive(&format!(
        "- {{id: get, shell: \"echo run >> HOME/effects; echo {{{{ word }}}}\", register: got}}\n\
         - {{id: asks, shell: echo asks >> HOME/effects, when: got.stdout == word}}\n\
         - {{id: writes, shell: \"echo {{{{ got.stdout | length }}}} >> HOME/effects\"}}\n\
         - {{id: file, copy: {{content: \"{{{{ got.stdout | upper }}}}\", dest: HOME/out}}}}\n{GATE}"
    ))?;
    scene.run()?.must_have(2)?;
    fs::write(scene.path("gate"), "")?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "run asks 15");
    assert_eq!(fs::read_to_string(scene.path("out"))?, "THE-HIDDEN-WORD");
    for task in ["get", "asks", "writes", "file"] {
        assert_eq!(scene.records("task_started", task).len(), 1, "{task}");
    }
    Ok(())
}

#[test]
fn nothing_that_was_notified_is_left_when_a_run_is_done() -> Outcome {
    let handlers = "\n  handlers:\n    - {name: early, shell: echo early >> HOME/effects}\n    - {name: \
                    fails, shell: echo tried >> HOME/effects; test -e HOME/mended, notify: early}\n    - \
                    {name: loops, shell: \"echo {{ item }} >> HOME/effects\", loop: [a, b]}\n    - \
                    {name: never, command: ls, when: false}\n    - {name: late, command: ls, notify: \
                    fails}\n";
    let scene = Scene::with("- {id: go, shell: \"true\", notify: [late, loops, never]}")?;
    let home = scene.path("").display().to_string();
    let text = fs::read_to_string(scene.playbook())?;
    let handlers = handlers.replace("HOME/", &home);
    fs::write(scene.playbook(), format!("{}{handlers}", text.trim_end()))?;
    // `fails` stands before `late`, which notifies it: its turn is in the second flush.
    scene.run()?.must_have(2)?;
    assert_eq!(scene.effects(), "a b tried");
    fs::write(scene.path("mended"), "")?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "a b tried tried early");
    let journal = scene.journal();
    let count = |event: &str| {
        let all = journal.iter().filter(|record| record["event"] == event);
        all.count()
    };
    assert_eq!(count("handler_ran"), count("handler_notified"));
    // Nothing is due any more.
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "a b tried tried early");
    Ok(())
}
