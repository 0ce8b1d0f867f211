//! Ansible's tests (`is changed`, `is match`, `is version`, `is exists` …).

use std::path::PathBuf;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, Value};

use super::error::say;
use super::filters::pattern;
use super::versions::version;

/// Every test there is, the engine's own included.
pub(super) const TESTS: &[&str] = &[
    "abs",
    "all",
    "any",
    "boolean",
    "change",
    "changed",
    "contains",
    "defined",
    "directory",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "escaped",
    "even",
    "exists",
    "failed",
    "failure",
    "false",
    "falsy",
    "file",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "int",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "link",
    "lower",
    "lt",
    "mapping",
    "match",
    "mount",
    "ne",
    "none",
    "number",
    "odd",
    "regex",
    "safe",
    "same_file",
    "sameas",
    "search",
    "sequence",
    "skip",
    "skipped",
    "startingwith",
    "string",
    "subset",
    "succeeded",
    "success",
    "successful",
    "superset",
    "test",
    "true",
    "truthy",
    "undefined",
    "upper",
    "url",
    "version",
    "version_compare",
];

/// Python's idea of truth; with `convert_bool`, words for a boolean are one.
fn truthy(value: &Value, kwargs: &Kwargs) -> Result<bool, Error> {
    let convert = kwargs.get::<Option<bool>>("convert_bool")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let word = value.as_str().filter(|_| convert).map(str::to_lowercase);
    Ok(match word.as_deref() {
        Some("yes" | "on" | "1" | "true" | "t" | "y") => true,
        Some("no" | "off" | "0" | "false" | "f" | "n") => false,
        _ => value.is_true(),
    })
}

/// A directory on another filesystem than the one above it.
fn is_mount(path: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(here) = std::fs::symlink_metadata(path) else {
        return false;
    };
    match std::fs::symlink_metadata(format!("{path}/..")) {
        Ok(above) => here.is_dir() && (here.dev() != above.dev() || here.ino() == above.ino()),
        Err(_) => false,
    }
}

pub(super) fn add_to(environment: &mut Environment<'static>) {
    for name in ["changed", "change"] {
        environment.add_test(name, |result: Value| flag(&result, "changed"));
    }
    for name in ["failed", "failure"] {
        environment.add_test(name, |result: Value| flag(&result, "failed"));
    }
    for name in ["succeeded", "success", "successful"] {
        environment.add_test(name, |result: Value| {
            flag(&result, "failed").map(|failed| !failed)
        });
    }
    for name in ["skipped", "skip"] {
        environment.add_test(name, |result: Value| flag(&result, "skipped"));
    }
    environment.add_test("match", |text: Value, source: String, kwargs: Kwargs| {
        matches(&text, &format!(r"\A(?:{source})"), &kwargs)
    });
    environment.add_test("search", |text: Value, source: String, kwargs: Kwargs| {
        matches(&text, &source, &kwargs)
    });
    environment.add_test("regex", |text: Value, source: String, kwargs: Kwargs| {
        matches(&text, &source, &kwargs)
    });
    for name in ["version", "version_compare"] {
        environment.add_test(name, version);
    }
    environment.add_test("subset", |part: Value, whole: Value| {
        contains_all(&whole, &part)
    });
    environment.add_test("superset", |whole: Value, part: Value| {
        contains_all(&whole, &part)
    });
    environment.add_test("contains", |container: Value, item: Value| {
        if let (Some(text), Some(part)) = (container.as_str(), item.as_str()) {
            return Ok::<_, Error>(text.contains(part));
        }
        Ok(container.try_iter()?.any(|known| known == item))
    });
    environment.add_test("truthy", |value: Value, kwargs: Kwargs| {
        truthy(&value, &kwargs)
    });
    environment.add_test("falsy", |value: Value, kwargs: Kwargs| {
        truthy(&value, &kwargs).map(|truth| !truth)
    });
    environment.add_test("abs", |path: String| path.starts_with('/'));
    environment.add_test("mount", |path: String| is_mount(&path));
    environment.add_test("same_file", |one: String, other: String| {
        let real = |path: &str| std::fs::canonicalize(path).ok();
        real(&one).is_some() && real(&one) == real(&other)
    });
    environment.add_test("url", |text: Value| {
        let text = text.as_str().unwrap_or_default();
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) && !rest.is_empty()
    });
    environment.add_test("all", |list: Value| {
        Ok::<_, Error>(list.try_iter()?.all(|item| item.is_true()))
    });
    environment.add_test("any", |list: Value| {
        Ok::<_, Error>(list.try_iter()?.any(|item| item.is_true()))
    });
    environment.add_test("exists", |path: String| PathBuf::from(path).exists());
    environment.add_test("directory", |path: String| PathBuf::from(path).is_dir());
    environment.add_test("file", |path: String| PathBuf::from(path).is_file());
    environment.add_test("link", |path: String| PathBuf::from(path).is_symlink());
}

fn flag(result: &Value, name: &str) -> Result<bool, Error> {
    match result.kind() {
        ValueKind::Map => Ok(result.get_attr(name).is_ok_and(|value| value.is_true())),
        ValueKind::Undefined => Err(minijinja::ErrorKind::UndefinedError.into()),
        kind => Err(say(format!(
            "`is {name}` asks for a task's registered result, and is given a {kind}"
        ))),
    }
}

fn matches(text: &Value, source: &str, kwargs: &Kwargs) -> Result<bool, Error> {
    let ignorecase = kwargs.get::<Option<bool>>("ignorecase")?.unwrap_or(false);
    let multiline = kwargs.get::<Option<bool>>("multiline")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    Ok(pattern(source, ignorecase, multiline)?.is_match(&text.to_string()))
}

fn contains_all(whole: &Value, part: &Value) -> Result<bool, Error> {
    let whole: Vec<Value> = whole.try_iter()?.collect();
    Ok(part.try_iter()?.all(|item| whole.contains(&item)))
}
