//! Which hosts a pattern selects.

use super::*;

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
