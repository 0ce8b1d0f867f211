//! Playbooks must end under the agent as they do under ansible-core, but for the differences that are meant.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::process::Command;
use std::sync::Mutex;

use lab::conformance::{
    Case, Differences, ansible_lint_schemas, cases, disagreements, folder, left_behind, place,
    ranks, run_agent,
};
use lab::{agent, apt, tool};

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn every_case_ends_as_under_ansible_core() -> Outcome {
    let meant = Differences::read()?;
    let only = std::env::var("KAAPANA_LAB_CASE").ok();
    let cases: Vec<Case> = cases()?
        .into_iter()
        .filter(|case| only.as_ref().is_none_or(|name| *name == case.name))
        .collect();
    let total = cases.len();
    let left = Mutex::new(cases);
    let seen = Mutex::new(BTreeSet::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let next = || left.lock().expect("no panic").pop();
                while let Some(case) = next() {
                    match judge(&case, &meant) {
                        Ok((text, places)) => {
                            let named = places.into_iter().map(|place| (case.name.clone(), place));
                            seen.lock().expect("no panic").extend(named);
                            if !text.is_empty() {
                                wrong
                                    .lock()
                                    .expect("no panic")
                                    .push((case.name.clone(), text));
                            }
                        }
                        Err(error) => {
                            let text = error.to_string();
                            wrong
                                .lock()
                                .expect("no panic")
                                .push((case.name.clone(), text));
                        }
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner()?;
    if only.is_none() {
        let seen = seen.into_inner()?;
        for (case, place) in meant.all() {
            if !seen.contains(&(case.to_owned(), place.to_owned())) {
                let text = format!("differences.txt lists `{place}`, which agrees\n");
                wrong.push((case.to_owned(), text));
            }
        }
    }
    wrong.sort();
    for (name, text) in &wrong {
        println!("==== {name}\n{text}");
    }
    let names: Vec<&String> = wrong.iter().map(|(name, _)| name).collect();
    println!("{total} cases, {} disagree", names.len());
    assert!(
        wrong.is_empty(),
        "{} of {total} disagree: {names:?}",
        wrong.len()
    );
    Ok(())
}

#[test]
fn the_suite_is_large_and_every_case_is_a_case_of_its_own() -> Outcome {
    let all = cases()?;
    assert!(all.len() >= 150, "only {} cases", all.len());
    let hashes: BTreeSet<&String> = all.iter().map(|case| &case.hash).collect();
    assert_eq!(hashes.len(), all.len(), "two cases are the same");
    Ok(())
}

#[test]
fn the_case_about_ranks_has_every_pair_of_them() -> Outcome {
    for (name, text) in ranks::files() {
        let kept = fs::read_to_string(folder().join("cases").join(&name))?;
        assert_eq!(kept, text, "{name}: `conformance --ranks` writes it");
    }
    Ok(())
}

/// What is wrong, and where the sides differ.
fn judge(case: &Case, meant: &Differences) -> Result<(String, Vec<String>), Box<dyn Error>> {
    let expected = case.expected().ok_or(
        "no fresh expectation: `cargo run -p lab --bin conformance` asks ansible-core for it",
    )?;
    let root = place()?;
    let (runs, said) = run_agent(case, root.path())?;
    let differ = disagreements(&expected, &runs, &left_behind(root.path())?);
    let mut text = String::new();
    for one in &differ {
        if !meant.has(&case.name, &one.place) {
            text.push_str(&format!(
                "-- {}\nansible-core: {}\nagent: {}\n",
                one.place, one.expected, one.found
            ));
        }
    }
    if !text.is_empty() {
        text.push_str(&said);
    }
    Ok((text, differ.into_iter().map(|one| one.place).collect()))
}

/// Keywords of plays that are the agent's own; those of blocks and tasks Ansible's schema lets pass.
const OWN: &str = "secrets argument_spec site";

/// Reads the folder of the schemas and playbooks; prints what does not fit, and how many were judged. The
/// agent's own keywords of plays are left out.
const VALIDATE: &str = r"
import json, os, sys, yaml, jsonschema
folder, own, names = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
validators = {}
for kind in ('playbook', 'tasks'):
    schema = json.load(open(os.path.join(folder, kind + '.json')))
    validators[kind] = jsonschema.Draft7Validator(schema)
judged = 0
for name in names:
    content = yaml.safe_load(open(name))
    if not isinstance(content, list):
        continue
    plays = any('hosts' in entry for entry in content)
    for entry in content:
        for word in own if plays else []:
            entry.pop(word, None)
    validator = validators['playbook' if plays else 'tasks']
    for error in validator.iter_errors(content):
        print(name, '|', jsonschema.exceptions.best_match([error]).message[:200].replace('\n', ' '))
    judged += 1
print('judged', judged)
";

#[test]
fn ansible_lints_schemas_accept_the_shared_part_of_every_shipped_playbook() -> Outcome {
    apt::ensure_python("jsonschema", "python3-jsonschema")?;
    apt::ensure_python("yaml", "python3-yaml")?;
    let schemas = ansible_lint_schemas()?;
    let judge = |names: &[String]| {
        let mut python = Command::new("/usr/bin/python3");
        python
            .args(["-c", VALIDATE])
            .arg(&schemas)
            .arg(OWN)
            .args(names);
        tool::run(
            &mut python,
            "judge playbooks by the schemas of ansible-lint",
        )
    };
    let mut names = Vec::new();
    for folder in ["playbooks", "playbooks/ansible"] {
        for entry in fs::read_dir(agent::workspace().join(folder))? {
            let name = entry?.path().display().to_string();
            if name.ends_with(".yaml") {
                names.push(name);
            }
        }
    }
    let said = judge(&names)?;
    let lists = names.iter().filter(|name| agent::holds_tasks(name)).count();
    assert_eq!(said.trim(), format!("judged {lists}"));
    // They do look: what no Ansible knows is found.
    let wrong = tempfile::NamedTempFile::with_suffix(".yaml")?;
    fs::write(&wrong, "- hosts: all\n  tsks: []\n")?;
    let said = judge(&[wrong.path().display().to_string()])?;
    assert!(said.contains("tsks"), "{said}");
    Ok(())
}
