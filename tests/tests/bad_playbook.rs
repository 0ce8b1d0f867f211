//! What is wrong with a playbook or its variables is told all at once, each with its place, before
//! anything runs.

use std::error::Error;
use std::fs;
use std::process::Command;

use lab::migration::Running;
use lab::scene::{problems, run_files};

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn all_mistakes_of_a_playbook_are_told_together_and_nothing_is_done() -> Outcome {
    let dir = tempfile::tempdir()?;
    let effect = dir.path().join("effect");
    let main = format!(
        "- hosts: localhost
  tasks:
    - id: same
      file: {{path: {}, state: directory}}
    - comand: echo
    - id: same
      file: {{path: /nonexistent/x, stat: directory}}
    - wait_for: {{port: many}}
    - debug: {{msg: \"{{{{ nowhere }}}}\"}}
    - debug: {{msg: \"{{{{ 1 + }}}}\"}}
",
        effect.display()
    );
    let ended = run_files(dir.path(), &[("main.yaml", &main)], &[])?;
    ended.must_have(5)?;
    assert_eq!(
        problems(&ended),
        [
            "playbook::unknown_module main.yaml:5:7",
            "playbook::duplicate_id main.yaml:6:11",
            "playbook::unknown_argument main.yaml:7:36",
            "playbook::wrong_argument main.yaml:8:24",
            "playbook::undefined main.yaml:9:24",
            "playbook::template_syntax main.yaml:10:26",
        ]
    );
    assert!(!effect.exists() && !dir.path().join("state").exists());
    Ok(())
}

#[test]
fn mistakes_of_several_files_are_told_together() -> Outcome {
    let dir = tempfile::tempdir()?;
    let main = "- hosts: localhost
  tasks:
    - import_tasks: tab.yaml
    - import_tasks: not-there.yaml
    - comand: echo
    - debug: {msg: \"{{ nowhere }}\"}
";
    let tab = "- name: a tab\n\tdebug: {}\n";
    let ended = run_files(dir.path(), &[("main.yaml", main), ("tab.yaml", tab)], &[])?;
    ended.must_have(5)?;
    let mut told = problems(&ended);
    told.sort();
    assert_eq!(
        told,
        [
            "playbook::file main.yaml:4:21",
            "playbook::undefined main.yaml:6:24",
            "playbook::unknown_module main.yaml:5:7",
            "playbook::yaml_tab tab.yaml:2:1",
        ]
    );
    assert!(!dir.path().join("state").exists());
    Ok(())
}

#[test]
fn people_are_shown_the_line_and_the_place_in_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("main.yaml");
    fs::write(&path, "- hosts: localhost\n  tasks:\n    - comand: echo\n")?;
    let mut command = Command::new(lab::agent::binary()?);
    command
        .arg("run")
        .arg(&path)
        .arg("--state-dir")
        .arg(dir.path().join("state"));
    let ended = Running::start(&mut command)?.end()?;
    ended.must_have(5)?;
    ended.must_say(&[
        "main.yaml:3:7]",
        "- comand: echo",
        "did you mean `command`?",
        "nothing was run",
    ])?;
    Ok(())
}

#[test]
fn an_extra_variable_without_a_value_is_refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    let main = "- hosts: localhost\n  tasks:\n    - debug: {msg: x}\n";
    for (wrong, why) in [
        ("nonsense", "is no `key=value`"),
        ("@/nonexistent.yaml", "failed to read the variables file"),
    ] {
        let ended = run_files(dir.path(), &[("main.yaml", main)], &["-e", wrong])?;
        ended.must_have(5)?;
        ended.must_say(&["arguments::extra_vars", why])?;
    }
    assert!(!dir.path().join("state").exists());
    Ok(())
}
