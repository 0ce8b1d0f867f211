//! Filters that playbooks use now and then: combinations of lists, paths, numbers, times, comments.

use std::path::{Component, Path, PathBuf};

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, Value};

use super::super::error::say;

/// More combinations than this are taken for a mistake.
const MAX_ROWS: usize = 100_000;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("product", product);
    environment.add_filter("zip", zip);
    environment.add_filter("zip_longest", zip_longest);
    environment.add_filter("combinations", |list: Value, size: usize| {
        let items: Vec<Value> = list.try_iter()?.collect();
        rows(combinations(&items, size))
    });
    environment.add_filter("permutations", |list: Value, size: Option<usize>| {
        let items: Vec<Value> = list.try_iter()?.collect();
        let size = size.unwrap_or(items.len());
        rows(permutations(&items, size))
    });
    environment.add_filter("subelements", subelements);
    environment.add_filter("extract", extract);
    environment.add_filter("expanduser", |path: String| expanduser(&path));
    environment.add_filter("realpath", |path: String| {
        let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.into());
        let plain = normal(&absolute);
        std::fs::canonicalize(&plain)
            .unwrap_or(plain)
            .display()
            .to_string()
    });
    environment.add_filter("relpath", relpath);
    environment.add_filter("normpath", |path: String| {
        normal(Path::new(&path)).display().to_string()
    });
    environment.add_filter("center", |text: String, width: Option<usize>| {
        let missing = width
            .unwrap_or(80)
            .min(10_000)
            .saturating_sub(text.chars().count());
        let left = missing / 2;
        format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left))
    });
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordcount", |text: String| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .count()
    });
    environment.add_filter("pow", |base: f64, exponent: f64| base.powf(exponent));
    environment.add_filter("root", |value: f64, degree: Option<f64>| match degree {
        None | Some(2.0) => value.sqrt(),
        Some(degree) => value.powf(1.0 / degree),
    });
    environment.add_filter("log", |value: f64, base: Option<f64>| match base {
        None => value.ln(),
        Some(10.0) => value.log10(),
        Some(base) => value.log(base),
    });
    environment.add_filter("comment", comment);
    environment.add_filter("urlencode", |value: Value| urlencode(&value.to_string()));
    environment.add_filter("strftime", strftime);
    environment.add_filter("checksum", |text: String| super::texts::hash(&text, "sha1"));
    environment.add_filter("urlsplit", urlsplit);
}

fn rows(rows: Option<Vec<Vec<Value>>>) -> Result<Vec<Value>, Error> {
    let rows = rows.ok_or_else(|| say("there are too many combinations"))?;
    Ok(rows.into_iter().map(Value::from).collect())
}

fn product(list: Value, others: Rest<Value>) -> Result<Vec<Value>, Error> {
    let mut all: Vec<Vec<Value>> = vec![Vec::new()];
    for list in std::iter::once(&list).chain(others.iter()) {
        let items: Vec<Value> = list.try_iter()?.collect();
        if all.len().saturating_mul(items.len()) > MAX_ROWS {
            return Err(say("there are too many combinations"));
        }
        all = all
            .iter()
            .flat_map(|row| {
                items.iter().map(move |item| {
                    let mut row = row.clone();
                    row.push(item.clone());
                    row
                })
            })
            .collect();
    }
    rows(Some(all))
}

fn zip(list: Value, others: Rest<Value>) -> Result<Vec<Value>, Error> {
    let mut lists: Vec<Vec<Value>> = Vec::new();
    for list in std::iter::once(&list).chain(others.iter()) {
        lists.push(list.try_iter()?.collect());
    }
    let shortest = lists.iter().map(Vec::len).min().unwrap_or(0);
    Ok((0..shortest)
        .map(|at| {
            Value::from(
                lists
                    .iter()
                    .map(|list| list[at].clone())
                    .collect::<Vec<_>>(),
            )
        })
        .collect())
}

fn zip_longest(list: Value, others: Rest<Value>, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let fill = kwargs.get::<Option<Value>>("fillvalue")?;
    kwargs.assert_all_used()?;
    let fill = fill.unwrap_or_else(|| Value::from(()));
    let mut lists: Vec<Vec<Value>> = Vec::new();
    for list in std::iter::once(&list).chain(others.iter()) {
        lists.push(list.try_iter()?.collect());
    }
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    Ok((0..longest)
        .map(|at| {
            let row = lists
                .iter()
                .map(|list| list.get(at).unwrap_or(&fill).clone());
            Value::from(row.collect::<Vec<_>>())
        })
        .collect())
}

fn combinations(items: &[Value], size: usize) -> Option<Vec<Vec<Value>>> {
    if size == 0 {
        return Some(vec![Vec::new()]);
    }
    let mut all = Vec::new();
    for (at, first) in items.iter().enumerate() {
        for rest in combinations(&items[at + 1..], size - 1)? {
            let mut row = vec![first.clone()];
            row.extend(rest);
            all.push(row);
            if all.len() > MAX_ROWS {
                return None;
            }
        }
    }
    Some(all)
}

fn permutations(items: &[Value], size: usize) -> Option<Vec<Vec<Value>>> {
    if size == 0 {
        return Some(vec![Vec::new()]);
    }
    let mut all = Vec::new();
    for (at, first) in items.iter().enumerate() {
        let others: Vec<Value> = [&items[..at], &items[at + 1..]].concat();
        for rest in permutations(&others, size - 1)? {
            let mut row = vec![first.clone()];
            row.extend(rest);
            all.push(row);
            if all.len() > MAX_ROWS {
                return None;
            }
        }
    }
    Some(all)
}

/// Pairs of an element and each item of a list in it.
fn subelements(list: Value, path: String, kwargs: Kwargs) -> Result<Vec<Value>, Error> {
    let skip = kwargs.get::<Option<bool>>("skip_missing")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let elements: Vec<Value> = match list.kind() {
        minijinja::value::ValueKind::Map => {
            let keys: Vec<Value> = list.try_iter()?.collect();
            keys.iter()
                .map(|key| list.get_item(key))
                .collect::<Result<_, _>>()?
        }
        _ => list.try_iter()?.collect(),
    };
    let mut pairs = Vec::new();
    for element in elements {
        let mut inner = element.clone();
        for key in path.split('.') {
            inner = inner.get_attr(key)?;
        }
        if inner.is_undefined() {
            if skip {
                continue;
            }
            return Err(say(format!("`subelements`: an element has no `{path}`")));
        }
        for item in inner.try_iter()? {
            pairs.push(Value::from(vec![element.clone(), item]));
        }
    }
    Ok(pairs)
}

/// What a container has under a key, and under more keys below it: `keys | map('extract', container)`.
fn extract(key: Value, container: Value, more: Option<Value>) -> Result<Value, Error> {
    let mut found = container.get_item(&key)?;
    let Some(more) = more else {
        return Ok(found);
    };
    match more.kind() {
        minijinja::value::ValueKind::Seq => {
            for key in more.try_iter()? {
                found = found.get_item(&key)?;
            }
        }
        _ => found = found.get_item(&more)?,
    }
    Ok(found)
}

fn expanduser(path: &str) -> String {
    let Some(rest) = path.strip_prefix('~') else {
        return path.to_owned();
    };
    let (name, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let user = match name {
        "" => nix::unistd::User::from_uid(nix::unistd::Uid::effective()),
        name => nix::unistd::User::from_name(name),
    };
    match user {
        Ok(Some(user)) => format!("{}{below}", user.dir.display()),
        _ => path.to_owned(),
    }
}

/// Without `.`, `..` and doubled slashes, as far as the text alone tells.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    plain.push("..");
                }
            }
            other => plain.push(other),
        }
    }
    match plain.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => plain,
    }
}

fn relpath(path: String, start: Option<String>) -> String {
    let absolute = |path: &str| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        normal(&path)
    };
    let (path, start) = (absolute(&path), absolute(start.as_deref().unwrap_or(".")));
    let same = path
        .components()
        .zip(start.components())
        .take_while(|(one, other)| one == other)
        .count();
    let up = start.components().skip(same).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path.components().skip(same)).collect();
    match relative.as_os_str().is_empty() {
        true => ".".into(),
        false => relative.display().to_string(),
    }
}

/// As Jinja's: with `...`, at the end of a word, and a little more is let through.
fn truncate(
    text: String,
    length: Option<usize>,
    killwords: Option<bool>,
    end: Option<String>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let length = length.or(kwargs.get("length")?).unwrap_or(255);
    let kill = killwords.or(kwargs.get("killwords")?).unwrap_or(false);
    let end = end.or(kwargs.get("end")?).unwrap_or_else(|| "...".into());
    let leeway = kwargs.get::<Option<usize>>("leeway")?.unwrap_or(5);
    kwargs.assert_all_used()?;
    if text.chars().count() <= length + leeway {
        return Ok(text);
    }
    let kept: String = text
        .chars()
        .take(length.saturating_sub(end.chars().count()))
        .collect();
    let kept = match (kill, kept.rsplit_once(' ')) {
        (false, Some((words, _))) => words.to_owned(),
        _ => kept,
    };
    Ok(kept + &end)
}

fn comment(text: String, style: Option<String>, kwargs: Kwargs) -> Result<String, Error> {
    let style = style.unwrap_or_else(|| "plain".into());
    let (begin, mark, end) = match style.as_str() {
        "plain" => ("", "# ", ""),
        "erlang" => ("", "% ", ""),
        "c" => ("", "// ", ""),
        "cblock" => ("/*", " * ", " */"),
        "xml" => ("<!--", " - ", "-->"),
        _ => return Err(say("`comment` knows plain, erlang, c, cblock and xml")),
    };
    let mark = kwargs
        .get::<Option<String>>("decoration")?
        .unwrap_or_else(|| mark.into());
    kwargs.assert_all_used()?;
    let bare = mark.trim_end().to_owned();
    let mut lines = Vec::new();
    if !begin.is_empty() {
        lines.push(begin.to_owned());
    }
    lines.push(bare.clone());
    lines.extend(
        text.split('\n')
            .map(|line| format!("{mark}{line}").trim_end().to_owned()),
    );
    lines.push(bare);
    if !end.is_empty() {
        lines.push(end.to_owned());
    }
    Ok(lines.join("\n"))
}

/// As Python's `quote`: a slash stays.
fn urlencode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A time, by default now, as text: `'%Y-%m-%d' | strftime(seconds, utc=true)`.
fn strftime(
    form: String,
    second: Option<f64>,
    utc: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let second = second.or(kwargs.get("second")?);
    let utc = utc.or(kwargs.get("utc")?).unwrap_or(false);
    kwargs.assert_all_used()?;
    let time = match second {
        None => jiff::Timestamp::now(),
        Some(second) => {
            let since = jiff::SignedDuration::try_from_secs_f64(second);
            since
                .and_then(jiff::Timestamp::from_duration)
                .map_err(|_| say("`strftime` is given no time"))?
        }
    };
    let zone = match utc {
        true => jiff::tz::TimeZone::UTC,
        false => jiff::tz::TimeZone::system(),
    };
    jiff::fmt::strtime::format(&form, &time.to_zoned(zone))
        .map_err(|_| say("`strftime` does not know this form"))
}

/// A part of an address, or all of them.
fn urlsplit(url: String, part: Option<String>) -> Result<Value, Error> {
    let (rest, fragment) = url.split_once('#').unwrap_or((&url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let (netloc, path) = match scheme.is_empty() {
        true => ("", rest),
        false => rest.split_at(rest.find('/').unwrap_or(rest.len())),
    };
    let (user, host) = netloc.rsplit_once('@').unwrap_or(("", netloc));
    let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let (name, word) = user.split_once(':').unwrap_or((user, ""));
    let text = |text: &str| match text {
        "" => Value::from(()),
        text => Value::from(text),
    };
    let number = port
        .parse::<u16>()
        .map_or_else(|_| Value::from(()), Value::from);
    let parts = [
        ("fragment", Value::from(fragment)),
        ("hostname", text(host)),
        ("netloc", Value::from(netloc)),
        ("password", text(word)),
        ("path", Value::from(path)),
        ("port", number),
        ("query", Value::from(query)),
        ("scheme", Value::from(scheme)),
        ("username", text(name)),
    ];
    let Some(part) = part else {
        return Ok(Value::from_pairs(parts));
    };
    parts
        .into_iter()
        .find(|(name, _)| *name == part)
        .map(|(_, value)| value)
        .ok_or_else(|| {
            say("`urlsplit` knows scheme, netloc, path, query, fragment, username, hostname, port")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_relative_and_plain_without_a_look_at_the_host() {
        assert_eq!(relpath("/a/b/c".into(), Some("/a".into())), "b/c");
        assert_eq!(relpath("/a".into(), Some("/a/b/c".into())), "../..");
        assert_eq!(
            normal(Path::new("a/../b//./c")).display().to_string(),
            "b/c"
        );
        assert_eq!(urlencode("a b/ü"), "a%20b/%C3%BC");
    }

    #[test]
    fn combinations_end_where_there_are_too_many() {
        let items: Vec<Value> = (0..60).map(Value::from).collect();
        assert!(combinations(&items, 30).is_none());
        assert_eq!(combinations(&items[..3], 2).map(|rows| rows.len()), Some(3));
        assert_eq!(permutations(&items[..3], 2).map(|rows| rows.len()), Some(6));
    }
}
