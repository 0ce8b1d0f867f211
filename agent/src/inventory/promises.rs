//! What inventories promise.

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

#[test]
fn mistakes_in_yaml_are_shown_where_they_stand() {
    for (text, expected) in [
        (
            "web:\n  host:\n    a:\n",
            "2:3 inventory::unknown_key a group has no `host` = did you mean `hosts`?",
        ),
        (
            "web:\n  hosts:\n    - a\n",
            "3:5 inventory::wrong_type `hosts` must be a mapping, and this is a list = hosts are keys",
        ),
        (
            "web:\n  hosts:\n    a: 5\n",
            "3:8 inventory::wrong_type variables must be a mapping",
        ),
        (
            "web:\n  hosts:\n    a:\n    a:\n",
            "4:5 playbook::yaml_duplicate_key",
        ),
        (
            "web:\n  hosts:\n    w[3:1]:\n",
            "3:5 inventory::host_name the range `[3:1]` ends before it begins",
        ),
        (
            "web:\n  vars:\n    a-b: 1\n",
            "3:5 inventory::variable_name `a-b` cannot be a variable's name",
        ),
        (
            "web:\n  vars: {ansible_group_priority: high}\n",
            "2:9 inventory::priority `ansible_group_priority` must be a whole number",
        ),
        ("'a b':\n", "1:1 inventory::group_name"),
        (
            "a:\n  children:\n    b:\n      children:\n        a:\n",
            "5:9 inventory::circle the group `a` cannot be within `b`",
        ),
        ("a: {children: {a: }}\n", "1:16 inventory::circle"),
        ("a: {children: {all: }}\n", "1:16 inventory::circle"),
        (
            "plugin: aws_ec2\n",
            "1:1 inventory::dynamic this configures the inventory plugin `aws_ec2`",
        ),
        ("{\"_meta\": {}}\n", "1:2 inventory::dynamic"),
        (
            "- a\n",
            "1:1 inventory::wrong_type an inventory must be a mapping",
        ),
        ("", "1:1 playbook::yaml_empty"),
        (
            "web:\n  hosts: {a: {x: !vault y}}\n",
            "2:18 playbook::vault",
        ),
    ] {
        assert_refused("h.yml", text, expected);
    }
}

#[test]
fn mistakes_in_ini_are_shown_where_they_stand() {
    for (text, expected) in [
        (
            "[web\na\n",
            "1:1 inventory::section this section's `[` is not closed",
        ),
        (
            "[web:child]\n",
            "1:1 inventory::section a section cannot be of kind `child`",
        ),
        ("[we b]\n", "1:1 inventory::group_name"),
        (
            "[web]\n  a x\n",
            "2:5 inventory::syntax expected `name=value` behind a host, and found `x`",
        ),
        ("a x = 1\n", "1:3 inventory::syntax"),
        ("a x='1\n", "1:5 inventory::syntax this quote is not closed"),
        (
            "a password=ab#cd\n",
            "1:14 inventory::syntax a `#` within a word",
        ),
        (
            "a x=1 x=2\n",
            "1:7 inventory::twice `x` stands twice on this line",
        ),
        (
            "[web]\n[web:vars]\nx=1\nx=2\n",
            "4:1 inventory::twice `x` stands twice for `web`",
        ),
        (
            "[web]\n[web:vars]\nx\n",
            "3:1 inventory::syntax a line below `[web:vars]` is `name=value`",
        ),
        (
            "[webs:vars]\nx=1\n[web]\na\n",
            "1:1 inventory::unknown_group there is no group `webs` = did you mean `web`?",
        ),
        (
            "[s:children]\nwbe\n[web]\na\n",
            "2:1 inventory::unknown_group there is no group `wbe` = did you mean `web`?",
        ),
        ("[s:children]\nt\n[t:children]\ns\n", "inventory::circle"),
        ("ä\na[2:1] x=1\n", "2:1 inventory::host_name"),
        (
            "a n=99999999999999999999\n",
            "1:3 inventory::value the number does not fit into 64 bits",
        ),
        ("a x-y=1\n", "1:3 inventory::variable_name"),
        (
            "a:\n",
            "1:1 inventory::host_name the port behind the `:` is missing",
        ),
    ] {
        assert_refused("h.ini", text, expected);
    }
    let all = refused("h.ini", "a x\nb y\n");
    assert_eq!(all.len(), 2, "all mistakes are shown together: {all:?}");
}

#[test]
fn what_is_no_static_inventory_is_refused_with_a_way_out() {
    assert_refused("h.py", "#!/usr/bin/python3\n", "inventory::dynamic");
    assert_refused(
        "h.py",
        "#!/usr/bin/python3\n",
        "ansible-inventory -i SOURCE --list --yaml",
    );
    assert_refused("h.toml", "[web]\n", "inventory::format");
    assert_refused(
        "h.yml",
        "$ANSIBLE_VAULT;1.1;AES256\n33\n",
        "1:1 inventory::vault",
    );
    let there = folder(&[("h.ini", "a\n"), ("host_vars/a.yml", "x: 1\nx: 2\n")]);
    let error = Inventory::read(&[source(&there.path().join("h.ini"))]).expect_err("a bad file");
    assert!(shown(&error)[0].starts_with("2:1 "), "{error:?}");
    fs::write(there.path().join("latin"), b"ab\xe4\n").expect("a file");
    let error = Inventory::read(&[source(&there.path().join("latin"))]).expect_err("no text");
    assert!(
        shown(&error)[0].starts_with("1:3 inventory::not_text"),
        "{error:?}"
    );
    let error = Inventory::read(&["/nowhere/hosts".into()]).expect_err("no file");
    assert!(shown(&error)[0].contains("`/nowhere/hosts` cannot be read: it is not there"));
    let error = Inventory::read(&["a,b c,".into()]).expect_err("no host");
    assert!(
        shown(&error)[0].starts_with("1:3 inventory::host_name"),
        "{error:?}"
    );
    assert!(Inventory::read(&[",".into()]).is_err());
}

#[test]
fn patterns_select_as_ansible_does() {
    let inventory = read("h.yaml", YAML);
    for (pattern, expected) in [
        ("all", "lonely n01 n02 n03 s-a s-b"),
        ("*", "lonely n01 n02 n03 s-a s-b"),
        ("s-b,n01", "n01 s-b"),
        ("north:south", "n01 n02 n03 s-a s-b"),
        ("sites:!north", "s-a s-b"),
        ("!sites", "lonely"),
        ("sites:&n*", "n01 n02 n03"),
        ("all,&sites,!n02,!south", "n01 n03"),
        ("n0?", "n01 n02 n03"),
        ("s-[!a]", "s-b"),
        ("nort*", "n01 n02 n03"),
        ("~n0(1|3)", "n01 n03"),
        ("~(lonely|s-)", "lonely s-a s-b"),
        ("north[0]", "n01"),
        ("north[-1]", "n03"),
        ("north[1:2]", "n02 n03"),
        ("north[1-2]", "n02 n03"),
        ("north[1:]", "n02 n03"),
        ("north[0:0]", "n01"),
        ("sites[0]:south[0]", "n01 s-a"),
        ("ungrouped", "lonely"),
        ("localhost", "localhost"),
        ("localhost,n01", "n01 localhost"),
        (" n01 , n02 ", "n01 n02"),
    ] {
        let selected = inventory.select(pattern).map(|hosts| hosts.join(" "));
        assert_eq!(selected.as_deref(), Ok(expected), "{pattern}");
    }
}

#[test]
fn a_pattern_that_selects_nothing_says_what_was_probably_meant() {
    let inventory = read("h.yaml", YAML);
    let said = |pattern: &str| {
        let error = inventory.select(pattern).expect_err(pattern);
        format!("{}: {error} = {}", error.code(), error.help())
    };
    assert!(said("nroth").ends_with("is called `nroth` = did you mean `north`?"));
    assert!(
        said("all:!nroth").ends_with("= did you mean `north`?"),
        "an unknown exception excepts nobody"
    );
    assert!(said("x*").starts_with("inventory::unknown_host"));
    assert!(said("north:!sites").starts_with("inventory::no_hosts"));
    assert!(said("north[7]").contains("there are 3 hosts, counted from 0"));
    assert!(said("~(").contains("not a regular expression"));
    assert!(said("all:!").starts_with("inventory::pattern"));
    assert!(said(" , ").starts_with("inventory::pattern"));
}

#[test]
fn the_controller_is_there_under_each_of_its_names() {
    let inventory = read("h.ini", "a\n[all:vars]\nx=1\n");
    for name in LOCAL {
        assert_eq!(inventory.select(name), Ok(vec![name.to_owned()]));
        assert_eq!(
            vars(&inventory, name),
            json!({"x": 1, "ansible_connection": "local"})
        );
    }
    assert_eq!(inventory.select("all"), Ok(vec!["a".to_owned()]));
    let inventory = read("h.ini", "127.0.0.1 x=1\n");
    assert_eq!(
        inventory.select("localhost"),
        Ok(vec!["127.0.0.1".to_owned()])
    );
    let inventory = Inventory::read(&[]).expect("no source at all");
    assert_eq!(
        inventory.select("localhost"),
        Ok(vec!["localhost".to_owned()])
    );
    assert!(matches!(
        inventory.select("all"),
        Err(InventoryError::Nothing { .. })
    ));
}

/// Text near enough to an inventory to get far into a parser.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "[web]",
        "[web:vars]",
        "[db:children]",
        "[",
        "]",
        "\n",
        "\n  ",
        " ",
        ":",
        "a",
        "b=1",
        "x='",
        "\"",
        "w[1:3]",
        "[a:c]",
        "#",
        ";",
        "\\",
        "{",
        "}",
        "'k': ",
        ",",
        "0x",
        "1e",
        "-",
        "ä",
        "all:",
        "hosts:",
        "vars:",
        "children:",
        "ansible_group_priority=",
        "(",
        ")",
        "u'",
        "\t",
        "~",
        "!",
        "&",
        "*",
        "\\x",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat()),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in texts()) {
        ini::read(&file("h.ini", &text), &mut Draft::new());
        yaml::read(&file("h.yml", &text), &mut Draft::new());
        let _ = yaml::variables(&file("v.yml", &text));
        let _ = literal::value(&text);
        let _ = names::expand(&text);
        for problem in ini::read(&file("h.ini", &text), &mut Draft::new()) {
            prop_assert!(problem.at.start <= problem.at.end && problem.at.end <= text.len());
            prop_assert!(text.is_char_boundary(problem.at.start) && text.is_char_boundary(problem.at.end));
        }
        let _ = read("h.yaml", YAML).select(&text);
    }

    /// The model: sets of numbers, and the terms taken in Ansible's order (union, both, without).
    #[test]
    fn patterns_equal_operations_on_sets(
        groups in prop::collection::vec(prop::collection::btree_set(0_usize..8, 1..6), 3),
        terms in prop::collection::vec((0_usize..3, 0_usize..5, 0_usize..8), 1..5),
        comma in any::<bool>(),
    ) {
        let mut text = String::from("[g0]\n[g1]\n[g2]\n[pool]\n");
        (0..8).for_each(|host| text.push_str(&format!("h{host}\n")));
        for (index, hosts) in groups.iter().enumerate() {
            text.push_str(&format!("[g{index}]\n"));
            hosts.iter().for_each(|host| text.push_str(&format!("h{host}\n")));
        }
        let inventory = read("h.ini", &text);
        let everyone: BTreeSet<usize> = (0..8).collect();
        let (mut union, mut both, mut without) = (None::<BTreeSet<usize>>, everyone.clone(), BTreeSet::new());
        let mut written = Vec::new();
        for (kind, what, host) in terms {
            let (name, set) = match what {
                0..=2 => (format!("g{what}"), groups[what].clone()),
                3 => (format!("h{host}"), BTreeSet::from([host])),
                _ => (format!("h[!{host}]"), everyone.iter().copied().filter(|h| *h != host).collect()),
            };
            match kind {
                0 => { union.get_or_insert_default().extend(set); written.push(name); }
                1 => { both = &both & &set; written.push(format!("&{name}")); }
                _ => { without.extend(set); written.push(format!("!{name}")); }
            }
        }
        let model: BTreeSet<String> = (&(&union.unwrap_or(everyone) & &both) - &without)
            .into_iter()
            .map(|host| format!("h{host}"))
            .collect();
        let pattern = written.join(if comma { "," } else { ":" });
        match inventory.select(&pattern) {
            Ok(hosts) => {
                let order: Vec<&String> = inventory.hosts().iter().filter(|host| model.contains(*host)).collect();
                prop_assert_eq!(hosts.iter().collect::<Vec<_>>(), order, "{}", pattern);
            }
            Err(error) => {
                prop_assert_eq!(error, InventoryError::Nothing { pattern: pattern.clone() });
                prop_assert!(model.is_empty(), "{}", pattern);
            }
        }
    }
}
