//! What the YAML reader promises.

use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::{lines, node, try_node};
use crate::model::NodeKind;

#[test]
fn values_are_those_of_yaml_1_1() {
    let text = "{a: yes, b: 'yes', c: 0644, d: 12:30, e: 1e3, f: ~, g: \"5\", h: !!str 5, i: 1.5}";
    assert_eq!(
        node(text).to_value(),
        json!({"a": true, "b": "yes", "c": 420, "d": 750, "e": "1e3", "f": null, "g": "5",
                   "h": "5", "i": 1.5})
    );
    let text = "a: |\n  x\n  y\nb: >-\n  x\n  y\nc:\n- 1\n-\nd: 'it''s'\ne: \"\\u00e4\\n\"\n";
    assert_eq!(
        node(text).to_value(),
        json!({"a": "x\ny\n", "b": "x y", "c": [1, null], "d": "it's", "e": "ä\n"})
    );
}

#[test]
fn aliases_and_merge_keys_give_what_they_stand_for() {
    let text = "base: &b {x: 1, y: 1}\none: {<<: *b, y: 2}\ntwo:\n  <<: [*b, {z: 3}]\nthree: *b\n";
    assert_eq!(
        node(text).to_value(),
        json!({"base": {"x": 1, "y": 1}, "one": {"x": 1, "y": 2},
                   "two": {"x": 1, "y": 1, "z": 3}, "three": {"x": 1, "y": 1}})
    );
}

#[test]
fn places_are_right_behind_umlauts() {
    let text = "ä: ö\nliste:\n  - 'ü'\n  - {k: wert}\n";
    let root = node(text);
    let NodeKind::Mapping(entries) = &root.kind else {
        panic!("a mapping")
    };
    let slice = |at: &crate::source::Location| text[at.start..at.end].to_owned();
    assert_eq!(slice(&entries[0].1), "ä");
    assert_eq!(slice(&entries[0].2.at), "ö");
    let NodeKind::Sequence(items) = &entries[1].2.kind else {
        panic!("a list")
    };
    assert_eq!(slice(&items[0].at), "'ü'");
    assert_eq!(items[0].at.line_column(), (3, 5));
    assert_eq!(slice(&items[1].at), "{k: wert}");
    assert_eq!(slice(&entries[1].2.at), "- 'ü'\n  - {k: wert}");
}

#[test]
fn wrong_texts_are_refused_at_their_place() {
    for (text, expected) in [
        (
            "a: b\n\tc: 1\n",
            "2:1 a tab indents this line = a tab has no fixed width in YAML: indent with spaces",
        ),
        (
            "a:\n\tb: 1\n",
            "2:1 a tab indents this line = a tab has no fixed width in YAML: indent with spaces",
        ),
        (
            "- a: 1\n  b:\n  \t- 2\n",
            "3:3 a tab indents this line = a tab has no fixed width in YAML: indent with spaces",
        ),
        (
            "a: 1\nb: 2\na: 3\n",
            "3:1 `a` stands twice in this mapping, first at t.yml:1:1 = keep one of the two",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "2:1 a second YAML document begins here = a file holds one document: remove the `---`, or split the file",
        ),
        ("", "1:1 the file is empty"),
        ("# nothing\n", "1:1 the file is empty"),
        (
            "a: !vault |\n  x\n",
            "1:4 it is not what ansible-vault writes: it does not begin with `$ANSIBLE_VAULT;` = encrypt it again with `ansible-vault encrypt`",
        ),
        (
            "a: !unsafe x\n",
            "1:4 the tag `!unsafe` is not supported here = wrap the text in {% raw %} … {% endraw %} instead",
        ),
        ("a: !foo [1]\n", "1:4 the tag `!foo` is not supported here"),
        (
            "on: 1\n",
            "1:1 a key must be a text, and this is a boolean = write it in quotes: \"on\"",
        ),
        (
            "5432: x\n",
            "1:1 a key must be a text, and this is a number = write it in quotes: \"5432\"",
        ),
        (
            "a: {{ b }}\n",
            "1:5 a key must be a text, and this is a mapping = a template must stand in quotes: \"{{ … }}\"",
        ),
        (
            "a: b: c\n",
            "1:5 this is not valid YAML: mapping values are not allowed in this context = a text that contains `: ` must stand in quotes",
        ),
        (
            "a: @x\n",
            "1:4 this is not valid YAML: unexpected character: `@' = a text that begins with this character must stand in quotes",
        ),
        (
            "a: *b\n",
            "1:4 this is not valid YAML: while parsing node, found unknown anchor",
        ),
        (
            "a: &x [*x]\n",
            "1:8 the alias stands inside what it stands for",
        ),
        (
            "a: 99999999999999999999\n",
            "1:4 the number does not fit into 64 bits = write it in quotes",
        ),
        (
            "a: 'x\n",
            "1:4 this is not valid YAML: while scanning a quoted scalar, found unexpected end of stream",
        ),
    ] {
        let found = try_node(text).map_err(|problems| lines(&problems));
        assert_eq!(
            found.map(|node| node.to_value()),
            Err(vec![expected.to_owned()]),
            "{text:?}"
        );
    }
}

#[test]
fn several_mistakes_are_reported_together() {
    let found = try_node("a: !x 1\nb: 1\nb: 2\nno: 3\n").map_err(|problems| problems.len());
    assert_eq!(found.map(|_| ()), Err(3));
}

#[test]
fn a_tab_inside_a_text_is_content() {
    assert_eq!(
        node("a: |\n  all:\n  \tmake\n").to_value(),
        json!({"a": "all:\n\tmake\n"})
    );
}

#[test]
fn alias_bombs_and_deep_nesting_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let started = std::time::Instant::now();
    let found = try_node(&bomb).map_err(|problems| problems[0].code);
    assert_eq!(found.map(|_| ()), Err("playbook::yaml_too_large"));
    assert!(started.elapsed().as_secs() < 5, "it is found early");
    let deep = "[".repeat(10_000);
    assert!(try_node(&deep).is_err());
}

proptest! {
    #[test]
    fn no_text_panics_the_parser(text in "[ \t\n:\\-\\[\\]{}#&*!|>'\"%@`?,a-c0-9ä<~.]{0,60}") {
        let _ = try_node(&text);
    }

    #[test]
    fn places_of_texts_lead_to_the_text(words in proptest::collection::vec("[a-zäöü]{1,6}x", 1..8)) {
        let text: String = words.iter().map(|word| format!("- {word}\n")).collect();
        let root = node(&text);
        if let NodeKind::Sequence(items) = &root.kind {
            for (item, word) in items.iter().zip(&words) {
                prop_assert_eq!(&text[item.at.start..item.at.end], word.as_str());
            }
        }
    }
}
