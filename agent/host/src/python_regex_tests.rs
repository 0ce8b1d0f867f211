//! Held against Python's own `re`, over every form of a replacement and patterns with and without its group.

use std::io::Write;
use std::process::{Command, Stdio};

use regex::Captures;
use serde_json::{Value, json};

use super::*;

/// Does what is asked for with Python's `re`, a line of JSON for each case.
const PYTHON: &str = r#"
import json, re, sys
for line in sys.stdin:
    pattern, replacement, text = json.loads(line)
    try:
        print(json.dumps({"text": re.sub(pattern, replacement, text)}))
    except re.error as error:
        print(json.dumps({"error": str(error)}))
    except IndexError as error:
        print(json.dumps({"error": str(error.args[0])}))
"#;

/// Patterns with 0 to 12 groups: plain, named, optional ones that take no part in the match.
fn patterns() -> Vec<String> {
    let mut patterns = Vec::new();
    for groups in 0..=12_usize {
        let of = |group: fn(usize) -> String| (1..=groups).map(group).collect::<String>();
        patterns.push(format!("x{}", of(|_| "(.)".into())));
        patterns.push(format!("x{}", of(|index| format!("(?P<n{index}>.)"))));
        patterns.push(format!("x{}", of(|_| "(q)?".into())));
        patterns.push(format!("x{}(?P<name>.)?", of(|_| "(?:(q)|.)".into())));
    }
    // No match: Python refuses a wrong replacement all the same.
    patterns.push("absent(.)".into());
    patterns
}

/// Every form, and what stands around it.
fn replacements() -> Vec<String> {
    let mut forms: Vec<String> = (0..=13).map(|group| format!("\\{group}")).collect();
    forms.extend((0..=13).map(|group| format!("\\g<{group}>")));
    forms.extend((0..=0o777).step_by(7).map(|octal| format!("\\{octal:03o}")));
    forms.extend((' '..='~').filter(|c| *c != 'g').map(|c| format!("\\{c}")));
    let more = [
        "",
        "plain",
        "$1 ${1} $$",
        "\\",
        "\\\\",
        "a\\",
        "\\g",
        "\\g<",
        "\\g<>",
        "\\g<1",
        "\\g<name>",
        "\\g<n1>",
        "\\g<n12>",
        "\\g<none>",
        "\\g<1a>",
        "\\g<a-b>",
        "\\g<-1>",
        "\\g<01>",
        "\\g<_>",
        "\\g<é>",
        "\\g<99999999999999999999>",
        "\\00",
        "\\08",
        "\\018",
        "\\100x",
        "\\1008",
        "\\118",
        "\\188",
        "\\400",
        "\\477",
        "\\é",
        "é\\9",
        "\\9\\g<9>",
        "\n\t",
    ];
    forms.extend(more.map(str::to_owned));
    let around = forms.iter().map(|form| format!("é<{form}>0"));
    let around: Vec<String> = around.collect();
    forms.extend(around);
    forms
}

fn ours(pattern: &str, replacement: &str, text: &str) -> Value {
    let pattern = build(pattern, |_| {}).expect("a pattern");
    match Replacement::read(replacement, &pattern) {
        Ok(replacement) => {
            let filled = |found: &Captures<'_>| replacement.expand(found);
            json!({"text": pattern.replace_all(text, filled)})
        }
        Err(error) => json!({"error": error.to_string()}),
    }
}

#[test]
fn a_replacement_is_what_python_makes_of_it() {
    let text = "xabcdefghijklmnop";
    let replacements = replacements();
    let cases: Vec<(String, &String)> = patterns()
        .into_iter()
        .flat_map(|pattern| replacements.iter().map(move |form| (pattern.clone(), form)))
        .collect();
    let input: String = cases
        .iter()
        .map(|(pattern, form)| json!([pattern, form, text]).to_string() + "\n")
        .collect();
    let mut python = Command::new("python3")
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = python.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = python.wait_with_output().expect("python3 ends");
    writer.join().expect("no panic").expect("python3 reads");
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).expect("text");
    let mut answered = 0;
    let mut differences = Vec::new();
    for ((pattern, form), answer) in cases.iter().zip(answers.lines()) {
        answered += 1;
        let theirs: Value = serde_json::from_str(answer).expect("an answer");
        let ours = ours(pattern, form, text);
        if ours != theirs {
            differences.push(format!("{pattern:?} {form:?}: {ours} instead of {theirs}"));
        }
    }
    assert_eq!(answered, cases.len());
    assert!(
        differences.is_empty(),
        "{} of {answered} differ:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
}

#[test]
fn a_search_names_groups_that_are_there() {
    let pattern = build("(a)(?P<b>b)?", |_| {}).expect("a pattern");
    assert_eq!(group(&pattern, "2"), Ok(2));
    assert_eq!(group(&pattern, "b"), Ok(2));
    assert!(group(&pattern, "3").is_err());
    assert!(group(&pattern, "c").is_err());
}
