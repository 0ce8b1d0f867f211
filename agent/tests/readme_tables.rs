//! `playbooks/README.md` lists the variables of the shipped migration as its playbook declares them, and the
//! modules as their types describe them.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kaapana_agent::modules::registry;
use kaapana_agent::playbook::{LoadOptions, load};
use kaapana_agent::report::variables;
use kaapana_agent::task::module::{Kind, ModuleSpec};

/// Writes what is made anew instead of comparing it.
const UPDATE: &str = "KAAPANA_UPDATE_README";

#[test]
fn the_table_of_variables_in_the_readme_is_what_the_playbook_declares() {
    let playbook = load(
        &playbooks().join("kaapana-0.2-to-0.3.yaml"),
        &LoadOptions::default(),
    )
    .expect("the shipped playbook is well-formed");
    must_hold(
        "variables",
        &format!("\n{}\n", variables::markdown(&playbook)),
    );
}

#[test]
fn the_table_of_modules_in_the_readme_is_what_their_types_say() {
    let mut table = String::from(
        "\n| module | Ansible's counterpart, or full name | kind | after an interruption |\n\
         |---|---|---|---|\n",
    );
    for module in registry::all() {
        let _ = writeln!(
            table,
            "| [`{0}`](#{0}) | {1} | {2} | {3} |",
            module.name,
            counterpart(module),
            kind(module.kind),
            module.after_interruption
        );
    }
    must_hold("modules", &table);
}

/// Ansible's name; where it has no such module, the agent's full one.
fn counterpart(module: &ModuleSpec) -> String {
    let (name, own) = match module.aliases.first() {
        Some(alias) => (*alias, alias.starts_with("kaapana.")),
        None => (module.name, false),
    };
    match own {
        true => format!("— (`{name}`)"),
        false => format!("`{name}`"),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::ReadOnly => "read-only",
        Kind::Converging => "converging",
        Kind::OneWay => "one-way",
    }
}

fn playbooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../playbooks")
}

/// One test at a time reads and writes the README.
static README: Mutex<()> = Mutex::new(());

/// What stands between the marks of this name is `made`.
fn must_hold(name: &str, made: &str) {
    let _alone = README.lock().unwrap_or_else(PoisonError::into_inner);
    let path = playbooks().join("README.md");
    let readme = fs::read_to_string(&path).expect("playbooks/README.md");
    let begin = format!(
        "<!-- {name}: made by `{UPDATE}=1 cargo test --workspace --test readme_tables` -->\n"
    );
    let end = format!("<!-- /{name} -->");
    let (before, rest) = readme.split_once(&begin).expect("the mark where it begins");
    let (now, after) = rest.split_once(&end).expect("the mark where it ends");
    if std::env::var_os(UPDATE).is_some() {
        let text = format!("{before}{begin}{made}{end}{after}");
        fs::write(&path, text).expect("playbooks/README.md can be written");
        return;
    }
    assert!(
        now == made,
        "`{name}` in playbooks/README.md is stale; run this test again with {UPDATE}=1"
    );
}
