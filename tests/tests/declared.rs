//! The variables that a play declares: what is set from outside fits, or nothing runs; what the first effect
//! settled is held.

use std::error::Error;
use std::fs;
use std::path::Path;

use lab::migration::Ended;
use lab::scene::{problems, run_files};
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

const PLAYBOOK: &str = "- name: Declared
  hosts: localhost
  argument_spec:
    - spec.yaml
    - route: {choices: [guide, direct], default: guide, settled: true, description: Which way.}
  vars:
    constant: fixed
  tasks:
    - id: look
      stat: {path: '{{ target }}'}
    - id: fill
      shell: echo {{ route }} {{ level }} {{ constant }} >> {{ target }}
    - id: other-way
      when: route == 'direct'
      shell: echo other >> {{ target }}
";

const SPEC: &str = "target:
  type: path
  required: true
  settled: true
  description: The file that is written
level:
  type: int
  default: 3
  description: How much
pass_phrase:
  default: ''
  choices: ['', long enough to hide]
  no_log: true
  description: A secret
";

fn run(dir: &Path, more: &[&str]) -> Result<Ended, Box<dyn Error>> {
    let files = [("main.yaml", PLAYBOOK), ("spec.yaml", SPEC)];
    Ok(run_files(dir, &files, more)?)
}

/// What a decision is about, in the agent's words.
fn decisions(ended: &Ended) -> Vec<String> {
    let lines = ended
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["event"] == "decision_needed")
        .flat_map(|line| line["tasks"].as_array().cloned().unwrap_or_default())
        .map(|task| task["why"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn whatever_does_not_fit_a_declaration_is_told_with_its_place_before_anything_runs() -> Outcome {
    let site = "target: TARGET\nlevle: 4\nconstant: mine\n";
    let table: [(&[&str], &[&str]); 8] = [
        (&[], &["playbook::variable_not_set spec.yaml:1:1"]),
        (
            &["-e", "target="],
            &["playbook::variable_not_set spec.yaml:1:1"],
        ),
        (
            &["-e", "target=relative"],
            &["playbook::wrong_value -e target:1:1"],
        ),
        (
            &["-e", "target=TARGET", "-e", "levle=4"],
            &["playbook::unknown_variable -e levle:1:1"],
        ),
        (
            &["-e", "target=TARGET", "-e", "level=many"],
            &["playbook::wrong_value -e level:1:1"],
        ),
        (
            &["-e", "target=TARGET", "-e", "route=dirct"],
            &["playbook::wrong_value -e route:1:1"],
        ),
        (
            &["-e", "target=TARGET", "-e", "constant=mine"],
            &["playbook::constant -e constant:1:1"],
        ),
        (
            &["-e", "@SITE"],
            &[
                "playbook::unknown_variable site.yaml:2:1",
                "playbook::constant site.yaml:3:1",
            ],
        ),
    ];
    for (given, expected) in table {
        let dir = tempfile::tempdir()?;
        let target = dir.path().join("target").display().to_string();
        let file = dir.path().join("site.yaml");
        fs::write(&file, site.replace("TARGET", &target))?;
        let given: Vec<String> = given
            .iter()
            .map(|word| {
                word.replace("TARGET", &target)
                    .replace("SITE", &file.display().to_string())
            })
            .collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        let ended = run(dir.path(), &given)?;
        ended.must_have(5)?;
        assert_eq!(problems(&ended), expected, "{given:?}");
        assert!(!dir.path().join("target").exists(), "{given:?}");
    }
    Ok(())
}

#[test]
fn a_value_that_does_not_fit_is_never_repeated_where_it_is_a_secret() -> Outcome {
    let dir = tempfile::tempdir()?;
    let target = format!("target={}", dir.path().join("target").display());
    let file = dir.path().join("site.yaml");
    fs::write(
        &file,
        "pass_phrase: hunter2hunter2\npass_phrasee: hunter2hunter2\n",
    )?;
    let file = format!("@{}", file.display());
    let ended = run(dir.path(), &["-e", &target, "-e", &file])?;
    ended.must_have(5)?;
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn what_the_first_effect_settled_may_not_change_and_everything_else_may() -> Outcome {
    let dir = tempfile::tempdir()?;
    let target = dir.path().join("target");
    let given = format!("target={}", target.display());
    run(dir.path(), &["-e", &given])?.must_have(0)?;
    assert_eq!(fs::read_to_string(&target)?, "guide 3 fixed\n");

    let elsewhere = format!("target={}", dir.path().join("elsewhere").display());
    for (more, why) in [
        (
            vec!["-e", &given, "-e", "route=direct"],
            "`route` was guide when the migration began and is direct now; put it back".to_owned(),
        ),
        (
            vec!["-e", &elsewhere],
            format!(
                "`target` was {} when the migration began and is {} now; put it back",
                target.display(),
                dir.path().join("elsewhere").display()
            ),
        ),
    ] {
        let ended = run(dir.path(), &more)?;
        ended.must_have(6)?;
        assert_eq!(decisions(&ended), [why]);
        assert_eq!(fs::read_to_string(&target)?, "guide 3 fixed\n");
        assert!(!dir.path().join("elsewhere").exists());
    }

    // The same path in another spelling is the same.
    let slash = format!("target={}/", target.display());
    let ended = run(dir.path(), &["-e", &slash])?;
    assert!(
        !decisions(&ended)
            .iter()
            .any(|why| why.contains("`target` was"))
    );

    run(dir.path(), &["-e", &given])?.must_have(0)?;
    Ok(())
}

#[test]
fn a_look_settles_nothing() -> Outcome {
    let dir = tempfile::tempdir()?;
    let looks = PLAYBOOK.replace(
        "      shell: echo {{ route }}",
        "      fail: {msg: x}\n    - shell: echo {{ route }}",
    );
    let files = [("main.yaml", looks.as_str()), ("spec.yaml", SPEC)];
    let target = dir.path().join("target");
    let given = format!("target={}", target.display());
    run_files(dir.path(), &files, &["-e", &given])?.must_have(2)?;
    let ended = run(dir.path(), &["-e", &given, "-e", "route=direct"])?;
    ended.must_have(0)?;
    assert_eq!(fs::read_to_string(&target)?, "direct 3 fixed\nother\n");
    Ok(())
}

#[test]
fn where_nothing_is_declared_a_name_that_nothing_uses_gets_a_warning() -> Outcome {
    let dir = tempfile::tempdir()?;
    let main = "- hosts: localhost\n  vars: {new_image: x}\n  tasks:\n    - debug: {msg: '{{ new_image }}'}\n";
    let ended = run_files(dir.path(), &[("main.yaml", main)], &["-e", "new_imge=y"])?;
    ended.must_have(0)?;
    ended.must_say(&[
        "nothing in the playbook uses `new_imge`",
        "did you mean `new_image`?",
    ])?;
    Ok(())
}
