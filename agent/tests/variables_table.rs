//! `playbooks/README.md` lists the variables of the shipped migration as its playbook declares them.

use std::fs;
use std::path::Path;

use kaapana_agent::playbook::{LoadOptions, load};
use kaapana_agent::report::variables;

const BEGIN: &str = "--test variables_table` -->\n";
const END: &str = "<!-- /variables -->";
/// Writes the table anew instead of comparing it.
const UPDATE: &str = "KAAPANA_UPDATE_README";

#[test]
fn the_table_of_variables_in_the_readme_is_what_the_playbook_declares() {
    let playbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../playbooks");
    let playbook = load(
        &playbooks.join("kaapana-0.2-to-0.3.yaml"),
        &LoadOptions::default(),
    )
    .expect("the shipped playbook is well-formed");
    let table = format!("\n{}\n", variables::markdown(&playbook));
    let path = playbooks.join("README.md");
    let readme = fs::read_to_string(&path).expect("playbooks/README.md");
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("the mark where the table begins");
    let (now, after) = rest.split_once(END).expect("the mark where the table ends");
    if std::env::var_os(UPDATE).is_some() {
        let text = format!("{before}{BEGIN}{table}{END}{after}");
        fs::write(&path, text).expect("playbooks/README.md can be written");
        return;
    }
    assert!(
        now == table,
        "the table in playbooks/README.md is stale; run this test again with {UPDATE}=1"
    );
}
