//! What is wrong with an inventory is said where it stands.

use super::*;

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
