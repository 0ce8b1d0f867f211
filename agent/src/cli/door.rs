//! Paths of the command line, made absolute once, where they come in: nothing behind it depends on the
//! working directory, and `play.yml` means the same as `./play.yml`.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};

/// Reads an argument that is a path.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| absolute(&path))
}

/// Reads a path, or `-` for standard output.
pub(super) fn path_or_dash() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| match path.as_os_str() == "-" {
        true => path,
        false => absolute(&path),
    })
}

/// Reads variables, of which `@FILE` is a path.
pub(super) fn variables() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().map(|text| match text.trim().strip_prefix('@') {
        Some(file) => format!("@{}", as_text(file)),
        None => text,
    })
}

/// Reads an inventory: a path, or hosts with a comma.
pub(super) fn inventory() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().map(
        |text| match text.contains(',') && !Path::new(&text).exists() {
            true => text,
            false => as_text(&text),
        },
    )
}

/// A path in a text, which it still is afterwards: the working directory's own name may be none.
fn as_text(path: &str) -> String {
    let absolute = absolute(Path::new(path)).into_os_string();
    absolute
        .into_string()
        .unwrap_or_else(|_: OsString| path.to_owned())
}

/// Makes a path absolute. Links stay what they are; `..` is resolved, since what stands before it may be one,
/// and since one file should not have a name for every place that it is called from.
pub(super) fn absolute(path: &Path) -> PathBuf {
    // Without a working directory it stays as it is, and whoever opens it says why that fails.
    let Ok(absolute) = std::path::absolute(path) else {
        return path.to_path_buf();
    };
    let parts: Vec<Component<'_>> = absolute.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == Component::ParentDir) else {
        return absolute;
    };
    let (up, rest) = parts.split_at(last + 1);
    let up: PathBuf = up.iter().collect();
    match std::fs::canonicalize(&up) {
        Ok(real) => real.join(rest.iter().collect::<PathBuf>()),
        Err(_) => absolute,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_form_of_a_path_becomes_one_name_and_links_stay() {
        let here = std::env::current_dir().expect("a working directory");
        assert_eq!(absolute(Path::new("play.yml")), here.join("play.yml"));
        assert_eq!(
            absolute(Path::new("./a b/play.yml")),
            here.join("a b/play.yml")
        );
        let dir = tempfile::tempdir().expect("temp dir");
        let root = std::fs::canonicalize(dir.path()).expect("real");
        std::fs::create_dir_all(root.join("far/x")).expect("made");
        std::fs::create_dir(root.join("y")).expect("made");
        symlink(root.join("far/x"), root.join("link")).expect("linked");
        let of = |path: &str| absolute(&root.join(path));
        assert_eq!(of("y/../link/play.yml"), root.join("link/play.yml"));
        // Not `root`: the link leads elsewhere.
        assert_eq!(of("link/../play.yml"), root.join("far/play.yml"));
        assert_eq!(of("none/../play.yml"), root.join("none/../play.yml"));
    }
}
