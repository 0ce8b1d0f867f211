//! Texts that must stay as they are: compared with a file, and written anew on request.

use std::fs;
use std::path::Path;

use crate::agent::workspace;

/// Environment variable that makes tests write their texts in place of comparing them.
pub const UPDATE: &str = "KAAPANA_LAB_UPDATE_GOLDEN";

/// Compares a text with `tests/fixtures/golden/<name>`.
///
/// # Panics
/// They differ, or the file is not there: the message has the first line that differs.
pub fn assert_golden(name: &str, text: &str) {
    let path = workspace().join("tests/fixtures/golden").join(name);
    if std::env::var_os(UPDATE).is_some() {
        write(&path, text);
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == text {
        return;
    }
    let mut lines = expected.lines().zip(text.lines()).enumerate();
    let (number, was, is) = lines
        .find(|(_, (was, is))| was != is)
        .map_or((0, "(another number of lines)", ""), |(at, (was, is))| {
            (at + 1, was, is)
        });
    panic!(
        "{} differs at line {number}\n  was: {was}\n  is:  {is}\nthe whole:\n{text}\nwhere this is \
         right, run again with {UPDATE}=1 and look at the change",
        path.display()
    );
}

fn write(path: &Path, text: &str) {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).expect("the folder of golden texts can be made");
    fs::write(path, text).expect("a golden text can be written");
}
