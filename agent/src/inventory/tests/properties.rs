//! What holds for any text and any set of hosts.

use super::*;

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
