//! What fitting arguments promises.

use serde_json::json;

use super::*;
use crate::fixtures::file_schema;

#[test]
fn values_are_converted_as_ansible_does() {
    let schema = file_schema();
    for (given, expected) in [
        (json!({"path": 5}), json!({"path": "5"})),
        (json!({"path": true}), json!({"path": "True"})),
        (
            json!({"path": "x", "recurse": "yes"}),
            json!({"path": "x", "recurse": true}),
        ),
        (
            json!({"path": "x", "recurse": 0}),
            json!({"path": "x", "recurse": false}),
        ),
        (
            json!({"path": "x", "depth": "3"}),
            json!({"path": "x", "depth": 3}),
        ),
        (
            json!({"path": "x", "depth": 3.0}),
            json!({"path": "x", "depth": 3}),
        ),
        (
            json!({"path": "x", "depth": null}),
            json!({"path": "x", "depth": null}),
        ),
        (json!({"path": "x", "recurse": null}), json!({"path": "x"})),
        (
            json!({"path": "x", "names": "a, b"}),
            json!({"path": "x", "names": ["a", "b"]}),
        ),
        (
            json!({"path": "x", "names": [1]}),
            json!({"path": "x", "names": ["1"]}),
        ),
        (
            json!({"path": "x", "mode": 420}),
            json!({"path": "x", "mode": 420}),
        ),
        (
            json!({"path": "x", "mode": "0644"}),
            json!({"path": "x", "mode": "0644"}),
        ),
        (
            json!({"path": "x", "env": {"A": 1}}),
            json!({"path": "x", "env": {"A": "1"}}),
        ),
        (
            json!({"path": "x", "nested": {"size": "7"}}),
            json!({"path": "x", "nested": {"size": 7}}),
        ),
    ] {
        assert_eq!(coerce(&schema, given.clone()), Ok(expected), "{given}");
    }
}

#[test]
fn everything_that_does_not_fit_is_named_with_its_path() {
    let given = json!({"recurse": "x", "bogus": 1, "nested": {"size": []}, "state": "gone",
                           "names": ["a", {}]});
    let shown: Vec<String> = coerce(&file_schema(), given)
        .expect_err("it does not fit")
        .iter()
        .map(|error| format!("{}: {}", error.path, error.message))
        .collect();
    for expected in [
        "recurse: must be true or false, and is a text",
        ": `path` is required",
        "nested.size: must be an integer, and is a list",
        "state: must be one of file, directory, absent",
        "names[1]: must be a text, and is a mapping",
    ] {
        assert!(
            shown.iter().any(|line| line == expected),
            "{expected} in {shown:#?}"
        );
    }
    assert!(
        shown
            .iter()
            .any(|line| line.starts_with(": unknown argument `bogus`"))
    );
    assert_eq!(shown.len(), 6);
}

#[test]
fn templates_fit_everywhere_in_literals_only() {
    let given = json!({"path": "x", "recurse": "{{ r }}", "nested": "{{ n }}"});
    assert_eq!(check_literals(&file_schema(), given.clone()), []);
    assert!(coerce(&file_schema(), given).is_err());
}
