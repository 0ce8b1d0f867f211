//! Playbooks must end under the agent as they do under ansible-core, but for the differences that are meant.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Mutex;

use lab::conformance::{Case, Differences, cases, disagreements, left_behind, place, run_agent};

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
