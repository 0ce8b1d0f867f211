//! What inventories promise.

mod mistakes;
mod patterns;
mod properties;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::Draft;
use super::{Inventory, InventoryError, LOCAL, ini, literal, names, yaml};
use crate::source::{Problem, SourceFile};

fn file(name: &str, text: &str) -> Arc<SourceFile> {
    Arc::new(SourceFile {
        path: name.into(),
        text: text.into(),
    })
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it is within the folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

fn source(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Reads one file; its ending says what it is.
fn read(name: &str, text: &str) -> Inventory {
    let folder = folder(&[(name, text)]);
    Inventory::read(&[source(&folder.path().join(name))]).expect("a good inventory")
}

fn shown(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| {
            let (line, column) = problem.at.line_column();
            let help = problem.help.as_deref().unwrap_or_default();
            format!("{line}:{column} {} {problem} = {help}", problem.code)
        })
        .collect()
}

fn refused(name: &str, text: &str) -> Vec<String> {
    let folder = folder(&[(name, text)]);
    let error = Inventory::read(&[source(&folder.path().join(name))]);
    shown(&error.expect_err("a bad inventory"))
}

#[track_caller]
fn assert_refused(name: &str, text: &str, expected: &str) {
    let problems = refused(name, text);
    assert!(
        problems.iter().any(|problem| problem.contains(expected)),
        "{text:?}: expected {expected:?} among {problems:#?}"
    );
}

fn vars(inventory: &Inventory, host: &str) -> Value {
    Value::Object(inventory.host(host).expect("a known host").vars)
}

const YAML: &str = "\
all:
  vars: {level: all, only_all: yes}
  hosts:
    lonely:
  children:
    sites:
      vars: {level: sites}
      children:
        north:
          hosts:
            n[01:02]:
              own: '{{ level }}'
            'n03:2222': {}
          vars: {level: north}
        south:
          hosts:
            s-[a:b]: {level: host}
";

const INI: &str = "\
lonely

[sites:children]
north
south
[sites:vars]
level=sites
[north]
n[01:02] own='{{ level }}'
n03:2222   # behind a router
; no host
[south]
s-[a:b] level=host
[north:vars]
level = north
[all:vars]
level=all
only_all=True
";

#[test]
fn yaml_and_ini_say_the_same_of_the_same_hosts() {
    for inventory in [
        read("hosts.yaml", YAML),
        read("hosts.ini", INI),
        read("a", YAML),
        read("b", INI),
    ] {
        assert_eq!(
            inventory.hosts(),
            ["lonely", "n01", "n02", "n03", "s-a", "s-b"]
        );
        assert_eq!(
            vars(&inventory, "n02"),
            json!({"level": "north", "only_all": true, "own": "{{ level }}"})
        );
        assert_eq!(
            vars(&inventory, "n03"),
            json!({"level": "north", "only_all": true, "ansible_port": 2222})
        );
        assert_eq!(
            vars(&inventory, "s-b"),
            json!({"level": "host", "only_all": true})
        );
        let host = inventory.host("n01").expect("a known host");
        assert_eq!(host.group_names, ["north", "sites"]);
        let lonely = inventory.host("lonely").expect("a known host");
        assert_eq!(lonely.group_names, ["ungrouped"]);
        let groups = inventory.groups();
        assert_eq!(groups["sites"], ["n01", "n02", "n03", "s-a", "s-b"]);
        assert_eq!(groups["ungrouped"], ["lonely"]);
        assert_eq!(groups["all"], inventory.hosts());
        assert!(inventory.host("nobody").is_none());
    }
}

#[test]
fn a_host_in_several_places_is_one_host_with_all_its_variables() {
    let inventory = read("h.ini", "a x=1\n[web]\nb\na y=2\n[db]\na x=3\n");
    assert_eq!(inventory.hosts(), ["b", "a"]);
    assert_eq!(vars(&inventory, "a"), json!({"x": 3, "y": 2}));
    assert_eq!(inventory.groups()["ungrouped"], Vec::<String>::new());
}

#[test]
fn inner_groups_win_then_higher_priority_then_the_later_name() {
    let text = "\
[outer:children]
inner
[inner]
a
[b_group]
a
[a_group]
a
[outer:vars]
p=outer
q=outer
ansible_group_priority=99
[inner:vars]
p=inner
[a_group:vars]
q=a
r=a
s=a
[b_group:vars]
q=b
r=b
[a_group:vars]
ansible_group_priority=5
";
    let inventory = read("h.ini", text);
    assert_eq!(
        vars(&inventory, "a"),
        json!({"q": "outer", "p": "inner", "r": "a", "s": "a"})
    );
}

#[test]
fn files_of_variables_stand_above_inline_ones_and_below_those_of_the_host() {
    let folder = folder(&[
        (
            "hosts.ini",
            "[web]\nw.example own=line\n[web:vars]\na=inline\nb=inline\nc=inline\n[all:vars]\na=all\nz=all\n",
        ),
        (
            "group_vars/all.yml",
            "a: all-file\nb: all-file\nown: all-file\n",
        ),
        ("group_vars/web/1.yml", "b: web-file\nd: one\n"),
        ("group_vars/web/2.yaml", "d: two\n"),
        ("group_vars/web/README.md", "no: variables\n"),
        ("group_vars/web/sub/3.json", "{\"e\": [1]}"),
        (
            "group_vars/web.yml",
            "d: never read, since there is a folder\n",
        ),
        ("host_vars/w.example", "f: [x]\n"),
        ("host_vars/other.yml", "f: other\n"),
    ]);
    for path in [folder.path().join("hosts.ini"), folder.path().to_path_buf()] {
        let inventory = Inventory::read(&[source(&path)]).expect("a good inventory");
        assert_eq!(
            vars(&inventory, "w.example"),
            json!({"a": "all-file", "b": "web-file", "c": "inline", "d": "two", "e": [1],
                   "f": ["x"], "own": "line", "z": "all"})
        );
    }
}

#[test]
fn several_sources_are_one_inventory_and_later_ones_win() {
    let folder = folder(&[
        ("one/h.yml", "web: {hosts: {a: {x: 1}}}\n"),
        ("one/host_vars/a.yml", "y: one\n"),
        ("two/01", "[web]\na x=2\n[db]\nb\n"),
        ("two/02.yml", "cache: {hosts: {c: }}\n"),
        ("two/notes.txt", "no inventory\n"),
        ("two/.hidden", "[\n"),
        ("two/group_vars/web.yml", "y: group\n"),
        ("two/host_vars/a.yml", ""),
    ]);
    let sources = [
        source(&folder.path().join("one/h.yml")),
        source(&folder.path().join("two")),
        "d, a,e:22,[2001:db8::1]:23,2001:db8::2".into(),
    ];
    let inventory = Inventory::read(&sources).expect("a good inventory");
    assert_eq!(vars(&inventory, "a"), json!({"x": 2, "y": "one"}));
    assert_eq!(
        inventory.hosts(),
        ["d", "e", "2001:db8::1", "2001:db8::2", "a", "b", "c"]
    );
    assert_eq!(vars(&inventory, "e"), json!({"ansible_port": 22}));
    assert_eq!(vars(&inventory, "2001:db8::1"), json!({"ansible_port": 23}));
}

#[test]
fn values_of_ini_are_python_literals_or_texts() {
    for (text, expected) in [
        ("", json!("")),
        ("5", json!(5)),
        ("-5", json!(-5)),
        ("1_000", json!(1000)),
        ("0x1F", json!(31)),
        ("0o17", json!(15)),
        ("0644", json!("0644")),
        ("00", json!(0)),
        ("1.5", json!(1.5)),
        ("1e3", json!(1000.0)),
        ("10.0.0.1", json!("10.0.0.1")),
        ("1-2", json!("1-2")),
        ("--1", json!("--1")),
        ("True", json!(true)),
        ("true", json!("true")),
        ("yes", json!("yes")),
        ("None", Value::Null),
        ("null", json!("null")),
        ("'a b'", json!("a b")),
        ("\"it's\"", json!("it's")),
        ("'a' 'b'", json!("ab")),
        ("r'\\d'", json!("\\d")),
        ("'\\x41\\t\\q\\101'", json!("A\t\\qA")),
        ("[1, 'a', None]", json!([1, "a", null])),
        ("[1 2]", json!("[1 2]")),
        ("80,443", json!([80, 443])),
        ("(1)", json!(1)),
        ("(1,)", json!([1])),
        ("()", json!([])),
        ("{}", json!({})),
        ("{'a': {'b': [True]}}", json!({"a": {"b": [true]}})),
        ("{1, 2, 1}", json!([1, 2])),
        ("{{ x }}", json!("{{ x }}")),
        ("{{ x }} # y", json!("{{ x }} # y")),
        ("5 # five", json!(5)),
        ("five # 5", json!("five # 5")),
        ("a=b", json!("a=b")),
        ("Truely", json!("Truely")),
        ("'open", json!("'open")),
    ] {
        assert_eq!(literal::value(text), Ok(expected), "{text:?}");
    }
    assert!(literal::value("99999999999999999999").is_err());
    assert!(literal::value("{1: 2}").is_err());
    assert!(literal::value(&"[".repeat(100_000)).is_ok_and(|value| value.is_string()));
}

#[test]
fn ranges_stand_for_each_of_their_hosts() {
    for (text, expected) in [
        ("w[1:3]", vec!["w1", "w2", "w3"]),
        ("w[08:10]", vec!["w08", "w09", "w10"]),
        ("w[0:6:3]x", vec!["w0x", "w3x", "w6x"]),
        ("w[:1]", vec!["w0", "w1"]),
        ("[a:b][1:2]", vec!["a1", "a2", "b1", "b2"]),
        ("10.0.0.[9:10]", vec!["10.0.0.9", "10.0.0.10"]),
        ("2001:db8::[1:2]", vec!["2001:db8::1", "2001:db8::2"]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(names::expand(text), Ok((expected, None)), "{text}");
    }
    let port = names::expand("w[1:2]:22").map(|(_, port)| port);
    assert_eq!(port, Ok(Some(22)));
    for bad in [
        "w[1:",
        "w[1]",
        "w[3:1]",
        "w[c:a]",
        "w[a:C]",
        "w[1:b]",
        "w[01:100]",
        "w[1:2:0]",
        "w[1:]",
        "w[0:99999999]",
        "w[1:300][1:300]",
        "w:",
        "w:0",
        "w:99999",
        "w:x",
        "a:b:c",
        "",
        "-oProxyCommand=x",
        "../x",
        "a b",
        "w*",
        "w]",
        "---",
        "!a",
        "w[0:18446744073709551615]",
    ] {
        assert!(names::expand(bad).is_err(), "{bad:?}");
    }
}
