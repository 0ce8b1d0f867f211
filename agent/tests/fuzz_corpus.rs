//! What the fuzzers found worth keeping goes through the same functions in every test run.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod targets;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is kept") {
        let path = entry.expect("an entry").path();
        let data = fs::read(&path).expect("read");
        // A test that fails shows what was printed last.
        println!("{}", path.display());
        run(&data);
        count += 1;
    }
    assert!(count > 100, "{count} inputs in {}", folder.display());
}

#[test]
fn every_kept_playbook_is_read_or_refused() {
    replay("playbook", targets::playbook);
}

#[test]
fn every_kept_template_is_rendered_or_refused() {
    replay("template", targets::template);
}

#[test]
fn every_kept_inventory_is_read_or_refused() {
    replay("inventory", targets::inventory);
}
