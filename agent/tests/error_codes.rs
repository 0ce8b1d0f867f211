//! The catalogue of error codes in `agent/README.md` is made from the sources: every code that a user
//! can meet, with what the code's own text or documentation says about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

const BEGIN: &str = "<!-- codes: written by `KAAPANA_UPDATE_README=1 cargo test --workspace --test error_codes` -->\n";
const END: &str = "<!-- end of codes -->\n";
/// Environment variable that makes the test write the catalogue in place of comparing it.
const UPDATE: &str = "KAAPANA_UPDATE_README";

/// Codes whose text is the system's, so that the sources have none beside them.
const BY_HAND: &[(&str, &str)] = &[
    (
        "docker::command_failed",
        "A command in a container ended with another code than 0",
    ),
    ("docker::disk_full", "Docker's filesystem is full"),
    (
        "engine::timeout",
        "A task did not finish within its `timeout`",
    ),
    (
        "files::no_safe_rename",
        "The filesystem cannot rename without overwriting",
    ),
    (
        "files::not_enough_space",
        "There is less room than the task needs",
    ),
    (
        "files::other_filesystem",
        "Paths that must be on one filesystem are on two",
    ),
    (
        "kubernetes::command_failed",
        "A command in a pod ended with another code than 0",
    ),
    (
        "playbook::template",
        "A template or expression cannot be rendered",
    ),
    (
        "files::disk_full",
        "A filesystem is full, or a quota is used up",
    ),
    ("files::io", "The system refused an operation on a path"),
    ("files::not_found", "A path is not there"),
    (
        "files::permission_denied",
        "The agent may not do this to a path",
    ),
    ("files::read_only", "The filesystem is mounted read-only"),
    (
        "postgresql::schema_half_done",
        "A script is in effect in part only: somebody else began it",
    ),
    (
        "engine::no_longer",
        "What a task describes was there in an earlier run, and is there no longer",
    ),
    (
        "playbook::again_until",
        "A task is to be looked at again, and is no look",
    ),
    (
        "playbook::arguments",
        "Arguments of a module are not named, or contradict each other",
    ),
    (
        "playbook::file",
        "A file that the playbook names cannot be read",
    ),
    (
        "playbook::loop_needs_a_list",
        "A loop is given something that its keyword cannot go through",
    ),
    ("playbook::no_module", "A task does not say what to do"),
    ("playbook::site", "`site` is no absolute path"),
    (
        "playbook::unknown_again_until",
        "No later task with an effect has this `id`",
    ),
    (
        "playbook::wrong_type",
        "A value is of another type than is wanted there",
    ),
    ("playbook::yaml_syntax", "A file is not valid YAML"),
    (
        "playbook::vault",
        "What is encrypted with ansible-vault cannot be opened",
    ),
    ("resolve::ambiguous_task", "Several tasks have this name"),
    (
        "service::directory_copied",
        "A service finds the same database in another directory than before: a copy, or one that was put back",
    ),
    (
        "service::directory_other",
        "A service finds another database than before",
    ),
    (
        "service::directory_swapped",
        "A directory was swapped by this playbook, and the service never worked on it before",
    ),
    (
        "service::directory_version",
        "A data directory is of another major version than the image's server",
    ),
    ("site::taken", "Another state goes on at this site"),
    (
        "state::disk_full",
        "The state's filesystem is full, or a quota is used up",
    ),
    (
        "state::held_by_copy",
        "A run goes on with another copy of this state",
    ),
    ("state::io", "The system refused an operation on the state"),
    (
        "state::line_inserted",
        "A line stands in the journal that was not written there",
    ),
    (
        "state::line_replaced",
        "A line of the journal was replaced by another one",
    ),
    (
        "state::lines_swapped",
        "Lines of the journal changed their places",
    ),
    (
        "state::permission_denied",
        "The agent may not read or write the state",
    ),
    (
        "state::read_only",
        "The state's filesystem is mounted read-only",
    ),
];

#[test]
fn the_catalogue_of_error_codes_in_the_readme_is_complete_and_true() {
    let found = codes();
    let silent: Vec<&String> = found
        .iter()
        .filter(|(_, text)| text.is_empty())
        .map(|(code, _)| code)
        .collect();
    assert!(
        silent.is_empty(),
        "codes of which neither a message nor a comment says what they mean: {silent:?}"
    );
    let catalogue = catalogue(&found);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).expect("agent/README.md");
    let (before, rest) = readme
        .split_once(BEGIN)
        .expect("the mark where codes begin");
    let (now, after) = rest.split_once(END).expect("the mark where codes end");
    if std::env::var_os(UPDATE).is_some() {
        let text = format!("{before}{BEGIN}{catalogue}{END}{after}");
        fs::write(&path, text).expect("agent/README.md can be written");
        return;
    }
    assert!(
        now == catalogue,
        "the codes in agent/README.md are stale; run this test again with {UPDATE}=1"
    );
}

fn catalogue(codes: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut family = "";
    for (code, meaning) in codes {
        let (own, kind) = code.split_once("::").unwrap_or((code, ""));
        if own != family {
            family = own;
            text.push_str(&format!(
                "\n`{family}::`\n\n| code | what happened |\n|---|---|\n"
            ));
        }
        text.push_str(&format!("| `{kind}` | {} |\n", meaning.replace('|', "\\|")));
    }
    text.push('\n');
    text
}

/// Every code in the sources, with its meaning.
fn codes() -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for path in all_sources() {
        let text = fs::read_to_string(&path).expect("a source file");
        // What tests say is no part of the product.
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        codes_in(text, &mut found);
    }
    for (code, meaning) in BY_HAND {
        if let Some(text) = found.get_mut(*code) {
            *text = (*meaning).to_owned();
        }
    }
    found
}

/// The sources of every crate of the agent.
fn all_sources() -> Vec<PathBuf> {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = [
        "", "host", "journal", "language", "modules", "postgres", "task",
    ];
    let mut found: Vec<PathBuf> = crates
        .iter()
        .flat_map(|name| sources(&agent.join(name).join("src")))
        .collect();
    found.sort();
    found
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a source folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if name.ends_with(".rs")
            && !name.ends_with("tests.rs")
            && !["tests.rs", "fixtures.rs"].contains(&name.as_str())
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn codes_in(text: &str, found: &mut BTreeMap<String, String>) {
    let code = Regex::new(r#""([a-z][a-z_]+::[a-z][a-z0-9_]+)""#).expect("a pattern");
    let places: Vec<(usize, usize, &str)> = code
        .captures_iter(text)
        .filter_map(|hit| {
            let whole = hit.get(0)?;
            Some((whole.start(), whole.end(), hit.get(1)?.as_str()))
        })
        .filter(|(start, _, name)| {
            // Targets of `tracing` look the same.
            !name.starts_with("kaapana_agent::") && !text[..*start].ends_with("target: ")
        })
        .collect();
    for (index, (start, end, name)) in places.iter().enumerate() {
        let before = index.checked_sub(1).map_or(0, |last| places[last].1);
        let after = places.get(index + 1).map_or(text.len(), |next| next.0);
        let meaning = of_variant(text, &text[before..*start])
            .or_else(|| of_message(&text[*end..after.min(*end + 600)]))
            .unwrap_or_default();
        let known = found.entry((*name).to_owned()).or_default();
        if known.is_empty() {
            *known = meaning;
        }
    }
}

/// `Self::Variant … => "code"`: what the variant's documentation says.
fn of_variant(text: &str, before: &str) -> Option<String> {
    let arm = &before[before.rfind("=>")?..];
    if !arm[2..]
        .trim_matches(|c: char| c.is_whitespace() || c == '{')
        .is_empty()
    {
        return None;
    }
    let variants = Regex::new(r"Self::(\w+)").expect("a pattern");
    let mut said: Vec<String> = Vec::new();
    for variant in variants.captures_iter(before) {
        let documented = Regex::new(&format!(
            r"((?:[ \t]*///[^\n]*\n)+)(?:[ \t]*#\[[^\n]*\n(?:[ \t]+[^\n]*\n[ \t]*\)\]\n)?)*[ \t]*{}\b",
            &variant[1]
        ))
        .expect("a pattern");
        let Some(comment) = documented.captures(text) else {
            continue;
        };
        let lines = comment[1]
            .lines()
            .map(|line| line.trim().trim_start_matches("///").trim());
        let sentence = lines.collect::<Vec<_>>().join(" ");
        let sentence = sentence.trim_end_matches('.').to_owned();
        if !said.contains(&sentence) {
            said.push(sentence);
        }
    }
    (!said.is_empty()).then(|| said.join("; or: "))
}

/// The first text behind the code that is a sentence: its message.
fn of_message(after: &str) -> Option<String> {
    let literal = Regex::new(r#"(?s)"((?:[^"\\]|\\.)*)""#).expect("a pattern");
    let text = literal
        .captures_iter(after)
        .map(|hit| hit[1].to_owned())
        .find(|text| text.contains(' '))?;
    // A line that goes on after a backslash is one text.
    let joined = Regex::new(r"\\\n\s*")
        .expect("a pattern")
        .replace_all(&text, "");
    let plain = joined
        .replace("\\\"", "\"")
        .replace("{{", "{")
        .replace("}}", "}");
    let mut letters = plain.chars();
    let first = letters.next()?;
    Some(format!("{}{}", first.to_uppercase(), letters.as_str()))
}
