//! What is fuzzed: each function takes any bytes, and must come back, whatever they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kaapana_agent::inventory::Inventory;
use kaapana_agent::playbook::{KnownNames, LoadOptions, Scope, Syntax, Templates, check, parse};
use kaapana_agent::source::SourceFile;
use serde_json::{Map, Value, json};

/// Gives bytes to `work` as a file in memory, which is gone afterwards.
fn with_file(name: &str, data: &[u8], work: impl FnOnce(&Path)) {
    let name = format!("kaapana-agent-fuzz-{}-{name}", std::process::id());
    let path = Path::new("/dev/shm").join(name);
    fs::write(&path, data).expect("/dev/shm can be written to");
    work(&path);
    fs::remove_file(&path).expect("removed");
}

/// Bytes as a playbook: read, and validated as before a run.
pub fn playbook(data: &[u8]) {
    with_file("playbook.yaml", data, read_playbook);
}

fn read_playbook(path: &Path) {
    let options = LoadOptions::default();
    let known = KnownNames::of(&options.extra_vars);
    if let Err(problems) = check(path, &options, &known) {
        assert!(!problems.is_empty(), "refused, and nobody says why");
        for problem in problems {
            // Every mistake has a place, and a message.
            assert!(!problem.message.is_empty());
            let _ = problem.at.line_column();
            let _ = problem.to_string();
        }
    }
}

/// Bytes as a template: of a file, as a value, as a condition.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let templates = Templates::new();
    let mut scope = Scope::new();
    scope.push_values(variables());
    let file = |text: String| {
        Arc::new(SourceFile {
            path: PathBuf::from("fuzzed.j2"),
            text,
        })
    };
    let _ = templates.render_file(&file(text.to_owned()), &scope, &Syntax::default());
    // JSON is YAML: any text becomes a scalar.
    let Ok(node) = parse(&file(Value::from(text).to_string())) else {
        return;
    };
    let _ = templates.render(&node, &scope);
    let _ = templates.condition(&node, &scope);
}

fn variables() -> Map<String, Value> {
    let all = json!({
        "s": "text", "n": 4, "f": 1.5, "t": true, "nothing": null, "l": [1, "two", [3]],
        "d": {"a": 1, "b": {"c": "x"}}, "r": {"changed": true, "failed": false, "rc": 0},
        "lazy": "{{ s }}", "path": "/etc/hostname",
    });
    match all {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Bytes as an inventory: its first byte says which form, its first line is a pattern of hosts, too.
pub fn inventory(data: &[u8]) {
    let (name, rest) = match data.split_first() {
        Some((b'{' | b'-', _)) => ("hosts.yaml", data),
        Some((b'y', rest)) => ("hosts.yaml", rest),
        _ => ("hosts.ini", data),
    };
    with_file(name, rest, |path| read_inventory(path, rest));
}

fn read_inventory(path: &Path, rest: &[u8]) {
    match Inventory::read(&[path.display().to_string()]) {
        Ok(inventory) => {
            let first = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let _ = inventory.select(&String::from_utf8_lossy(first));
            for name in inventory.hosts() {
                assert!(
                    inventory.host(name).is_some(),
                    "{name} is listed and not there"
                );
            }
            let _ = inventory.groups();
        }
        Err(problems) => assert!(!problems.is_empty(), "refused, and nobody says why"),
    }
}
