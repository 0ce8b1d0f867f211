//! Filters on texts: paths, regular expressions, base64, hashes, quoting, sizes.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, Value};
use regex::{Captures, Regex};
use sha1::Digest;

use super::super::error::say;
use crate::python_regex::{self, Replacement};

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("basename", |path: String| {
        path.rsplit('/').next().unwrap_or_default().to_owned()
    });
    environment.add_filter("dirname", dirname);
    environment.add_filter("splitext", splitext);
    environment.add_filter("path_join", path_join);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("regex_search", regex_search);
    environment.add_filter("regex_findall", regex_findall);
    environment.add_filter("regex_escape", |text: String| regex::escape(&text));
    environment.add_filter("b64encode", |text: String| STANDARD.encode(text));
    environment.add_filter("b64decode", b64decode);
    environment.add_filter("hash", |text: String, kind: Option<String>| {
        hash(&text, kind.as_deref().unwrap_or("sha1"))
    });
    environment.add_filter("sha1", |text: String| hash(&text, "sha1"));
    environment.add_filter("md5", |text: String| hash(&text, "md5"));
    environment.add_filter("quote", |value: Value| quote(&value.to_string()));
    environment.add_filter("splitlines", |text: String| {
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    environment.add_filter("human_readable", human_readable);
    environment.add_filter("human_to_bytes", human_to_bytes);
    environment.add_filter("filesizeformat", filesizeformat);
}

/// As Python's `os.path.dirname`: what stands before the last slash.
fn dirname(path: String) -> String {
    let Some((head, _)) = path.rsplit_once('/') else {
        return String::new();
    };
    let trimmed = head.trim_end_matches('/');
    if trimmed.is_empty() {
        // All slashes: the root itself.
        return path[..=head.len()].to_owned();
    }
    trimmed.to_owned()
}

fn splitext(path: String) -> Vec<String> {
    let name_start = path.rfind('/').map_or(0, |at| at + 1);
    let name = &path[name_start..];
    let leading = name.len() - name.trim_start_matches('.').len();
    match name[leading..].rfind('.') {
        Some(at) => {
            let (root, extension) = path.split_at(name_start + leading + at);
            vec![root.to_owned(), extension.to_owned()]
        }
        None => vec![path, String::new()],
    }
}

fn path_join(parts: Value) -> Result<String, Error> {
    if let Some(text) = parts.as_str() {
        return Ok(text.to_owned());
    }
    let mut path = std::path::PathBuf::new();
    for part in parts.try_iter()? {
        let Some(part) = part.as_str() else {
            return Err(say("`path_join` takes a list of texts"));
        };
        path.push(Path::new(part));
    }
    Ok(path.to_string_lossy().into_owned())
}

/// Builds a pattern; Python's `ignorecase` and `multiline` are accepted by name.
pub(in crate::template) fn pattern(
    source: &str,
    ignorecase: bool,
    multiline: bool,
) -> Result<Regex, Error> {
    python_regex::build(source, |builder| {
        builder.case_insensitive(ignorecase).multi_line(multiline);
    })
    .map_err(say)
}

fn options(kwargs: &Kwargs) -> Result<(bool, bool), Error> {
    let ignorecase = kwargs.get::<Option<bool>>("ignorecase")?.unwrap_or(false);
    let multiline = kwargs.get::<Option<bool>>("multiline")?.unwrap_or(false);
    Ok((ignorecase, multiline))
}

fn regex_replace(
    value: Value,
    source: String,
    replacement: String,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let text = value.to_string();
    let (ignorecase, multiline) = options(&kwargs)?;
    let count = kwargs.get::<Option<usize>>("count")?.unwrap_or(0);
    kwargs.assert_all_used()?;
    let pattern = pattern(&source, ignorecase, multiline)?;
    let replacement = Replacement::read(&replacement, &pattern)
        .map_err(|error| say(format!("`regex_replace`: {error}")))?;
    let replaced = pattern.replacen(&text, count, |found: &Captures<'_>| {
        replacement.expand(found)
    });
    Ok(replaced.into_owned())
}

/// Returns the match, or the named groups (`\1`, `\g<name>`) as a list, or none.
fn regex_search(
    value: Value,
    source: String,
    groups: Rest<String>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let text = value.to_string();
    let (ignorecase, multiline) = options(&kwargs)?;
    kwargs.assert_all_used()?;
    let pattern = pattern(&source, ignorecase, multiline)?;
    let Some(found) = pattern.captures(&text) else {
        return Ok(Value::from(()));
    };
    if groups.is_empty() {
        return Ok(Value::from(&found[0]));
    }
    let mut values = Vec::new();
    for group in groups.iter() {
        let name = group
            .strip_prefix(r"\g<")
            .and_then(|name| name.strip_suffix('>'))
            .or_else(|| group.strip_prefix('\\'))
            .ok_or_else(|| say(r"`regex_search` takes groups as `\1` or `\g<name>`"))?;
        let index = python_regex::group(&pattern, name)
            .map_err(|_| say(format!("`regex_search`: the pattern has no group `{name}`")))?;
        values.push(
            found
                .get(index)
                .map_or(Value::from(()), |group| Value::from(group.as_str())),
        );
    }
    Ok(values.into())
}

fn regex_findall(value: Value, source: String, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let text = value.to_string();
    let (ignorecase, multiline) = options(&kwargs)?;
    kwargs.assert_all_used()?;
    let pattern = pattern(&source, ignorecase, multiline)?;
    let part = |found: &Captures<'_>, index: usize| {
        Value::from(found.get(index).map_or("", |group| group.as_str()))
    };
    Ok(pattern
        .captures_iter(&text)
        .map(|found| match found.len() {
            1 => part(&found, 0),
            2 => part(&found, 1),
            groups => (1..groups)
                .map(|index| part(&found, index))
                .collect::<Vec<_>>()
                .into(),
        })
        .collect())
}

fn b64decode(text: String) -> Result<String, Error> {
    let compact: String = text.split_whitespace().collect();
    let bytes = STANDARD
        .decode(compact)
        .map_err(|_| say("`b64decode` is given something that is not base64"))?;
    String::from_utf8(bytes).map_err(|_| say("`b64decode` gives something that is not UTF-8 text"))
}

pub(super) fn hash(text: &str, kind: &str) -> Result<String, Error> {
    match kind {
        "sha1" => Ok(hex::encode(sha1::Sha1::digest(text))),
        "sha224" => Ok(hex::encode(sha2::Sha224::digest(text))),
        "sha256" => Ok(hex::encode(sha2::Sha256::digest(text))),
        "sha384" => Ok(hex::encode(sha2::Sha384::digest(text))),
        "sha512" => Ok(hex::encode(sha2::Sha512::digest(text))),
        "md5" => Ok(hex::encode(md5::Md5::digest(text))),
        _ => Err(say(
            "`hash` knows sha1, sha224, sha256, sha384, sha512 and md5",
        )),
    }
}

/// As Python's `shlex.quote`.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

const UNITS: [&str; 9] = ["", "K", "M", "G", "T", "P", "E", "Z", "Y"];

fn number(value: &Value) -> Result<f64, Error> {
    f64::try_from(value.clone())
        .ok()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
        .ok_or_else(|| say("a size must be a number"))
}

/// As Ansible's: `1.50 GB`, powers of 1024.
fn human_readable(
    value: Value,
    is_bits: Option<bool>,
    unit: Option<String>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let is_bits = is_bits
        .or(kwargs.get::<Option<bool>>("isbits")?)
        .unwrap_or(false);
    let unit = unit.or(kwargs.get::<Option<String>>("unit")?);
    kwargs.assert_all_used()?;
    let size = number(&value)?;
    let base = if is_bits { "bits" } else { "Bytes" };
    let letter = if is_bits { "b" } else { "B" };
    let mut limit = 1.0;
    let mut chosen = (1.0, "");
    for name in UNITS {
        let wanted = unit.as_ref().map_or(size >= limit && size > 0.0, |unit| {
            !name.is_empty() && unit.to_uppercase().starts_with(name)
        });
        if wanted {
            chosen = (limit, name);
        }
        limit *= 1024.0;
    }
    let (limit, name) = chosen;
    Ok(if name.is_empty() {
        format!("{size:.2} {base}")
    } else {
        format!("{:.2} {name}{letter}", size / limit)
    })
}

/// `10G`, `2.5 MB`, `100` -> bytes, powers of 1024.
fn human_to_bytes(value: Value, default_unit: Option<String>) -> Result<i64, Error> {
    let text = value.to_string();
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let figure: f64 = text[..digits]
        .parse()
        .map_err(|_| say("`human_to_bytes` takes a size such as `10G`"))?;
    let mut unit = text[digits..].trim().to_uppercase();
    if unit.is_empty() {
        unit = default_unit.unwrap_or_default().to_uppercase();
    }
    let unit = unit.strip_suffix('B').unwrap_or(&unit);
    let power = UNITS
        .iter()
        .position(|name| *name == unit)
        .and_then(|power| i32::try_from(power).ok())
        .ok_or_else(|| say("`human_to_bytes` knows the units B, KB, MB, GB, TB, PB, EB"))?;
    let bytes = (figure * 1024_f64.powi(power)).round();
    if bytes > 9.0e18 {
        return Err(say("the size does not fit into 64 bits"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded and within the range of i64, checked above"
    )]
    Ok(bytes as i64)
}

/// As Jinja's: `1.5 MB`, powers of 1000 unless binary.
fn filesizeformat(value: Value, binary: Option<bool>) -> Result<String, Error> {
    let size = number(&value)?;
    let (base, suffix) = if binary.unwrap_or(false) {
        (1024.0, "iB")
    } else {
        (1000.0, "B")
    };
    if size == 1.0 {
        return Ok("1 Byte".to_owned());
    }
    if size < base {
        return Ok(format!("{size:.0} Bytes"));
    }
    let mut shown = size;
    let mut unit = "";
    for (index, name) in UNITS.iter().enumerate().skip(1) {
        shown /= base;
        unit = if *name == "K" && suffix == "B" {
            "k"
        } else {
            name
        };
        if shown < base || index == UNITS.len() - 1 {
            break;
        }
    }
    Ok(format!("{shown:.1} {unit}{suffix}"))
}
