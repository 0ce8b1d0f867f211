//! Names of hosts, groups and variables: ports, ranges, and what may stand in them.

use std::net::Ipv6Addr;

/// Most names that one range may stand for: more is a slip of the pen.
const MOST_NAMES: usize = 65_536;

/// What is wrong with a name, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub what: String,
    pub help: &'static str,
}

fn wrong<T>(what: impl Into<String>, help: &'static str) -> Result<T, Wrong> {
    Err(Wrong {
        what: what.into(),
        help,
    })
}

const RANGE: &str = "write `web[1:5]`, `web[01:10]`, `web[0:10:2]` or `db-[a:c]`";
const PORT: &str = "a port is a number from 1 to 65535 behind a `:`; an IPv6 address with a port stands in brackets: `[2001:db8::1]:2222`";

/// Hosts that one entry stands for, and the port behind it.
pub(super) fn expand(text: &str) -> Result<(Vec<String>, Option<u16>), Wrong> {
    let (base, port) = split_port(text)?;
    let mut names = vec![String::new()];
    let mut rest = base;
    while let Some(open) = rest.find('[') {
        let Some(length) = rest[open..].find(']') else {
            return wrong("a `[` is not closed", RANGE);
        };
        let values = range(&rest[open + 1..open + length])?;
        if names.len().saturating_mul(values.len()) > MOST_NAMES {
            return wrong(
                format!("more than {MOST_NAMES} hosts"),
                "make the range smaller",
            );
        }
        let head = &rest[..open];
        names = names
            .iter()
            .flat_map(|name| {
                values
                    .iter()
                    .map(move |value| format!("{name}{head}{value}"))
            })
            .collect();
        rest = &rest[open + length + 1..];
    }
    for name in &mut names {
        name.push_str(rest);
        check_host(name)?;
    }
    Ok((names, port))
}

/// Cuts `:PORT` off. Colons inside brackets and those of an IPv6 address are none.
fn split_port(text: &str) -> Result<(&str, Option<u16>), Wrong> {
    if let Some((inner, port)) = text
        .strip_prefix('[')
        .and_then(|rest| rest.rsplit_once("]:"))
        && inner.parse::<Ipv6Addr>().is_ok()
    {
        return Ok((inner, Some(port_of(port)?)));
    }
    let mut depth = 0_usize;
    let mut colons = Vec::new();
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => colons.push(at),
            _ => {}
        }
    }
    match colons.as_slice() {
        [at] => Ok((&text[..*at], Some(port_of(&text[at + 1..])?))),
        // None, or as many as an IPv6 address has.
        _ => Ok((text, None)),
    }
}

fn port_of(text: &str) -> Result<u16, Wrong> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ if text.is_empty() => wrong("the port behind the `:` is missing", PORT),
        _ => wrong(format!("`{text}` is no port"), PORT),
    }
}

/// What stands between `[` and `]`.
fn range(text: &str) -> Result<Vec<String>, Wrong> {
    let parts: Vec<&str> = text.split(':').collect();
    let (begin, end, step) = match parts.as_slice() {
        [begin, end] => (*begin, *end, "1"),
        [begin, end, step] => (*begin, *end, *step),
        _ => return wrong(format!("`[{text}]` is no range"), RANGE),
    };
    let step = match step.parse::<usize>() {
        Ok(step) if step > 0 => step,
        _ => {
            return wrong(
                format!("the step `{step}` of a range is no number above 0"),
                RANGE,
            );
        }
    };
    if end.is_empty() {
        return wrong(format!("the range `[{text}]` has no end"), RANGE);
    }
    if let (Some(first), Some(last)) = (letter(begin), letter(end)) {
        if first.is_ascii_lowercase() != last.is_ascii_lowercase() || first > last {
            return wrong(format!("the range `[{text}]` ends before it begins"), RANGE);
        }
        return Ok((first..=last)
            .step_by(step)
            .map(|letter| char::from(letter).to_string())
            .collect());
    }
    // As in Ansible, a range without a begin begins at 0.
    let begin = if begin.is_empty() { "0" } else { begin };
    let (Some(first), Some(last)) = (number(begin), number(end)) else {
        return wrong(
            format!("`[{text}]` is neither a range of numbers nor one of letters"),
            RANGE,
        );
    };
    let padded = begin.len() > 1 && begin.starts_with('0');
    if padded && begin.len() != end.len() {
        return wrong(
            format!("begin and end of `[{text}]` differ in length"),
            "with leading zeros both need as many digits: `web[01:10]`",
        );
    }
    if first > last {
        return wrong(format!("the range `[{text}]` ends before it begins"), RANGE);
    }
    if (last - first) / step as u64 >= MOST_NAMES as u64 {
        return wrong(
            format!("more than {MOST_NAMES} hosts"),
            "make the range smaller",
        );
    }
    let width = if padded { begin.len() } else { 0 };
    Ok((first..=last)
        .step_by(step)
        .map(|number| format!("{number:0width$}"))
        .collect())
}

fn letter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => Some(*letter),
        _ => None,
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Refuses names that could be taken for something else: an option of `ssh`, a path, a pattern.
fn check_host(name: &str) -> Result<(), Wrong> {
    const HELP: &str = "a host has letters, digits, `.`, `-`, `_`, or is an address; how it is reached goes into `ansible_host`, `ansible_user` and `ansible_port`";
    if name.is_empty() {
        return wrong("the name of a host is missing", HELP);
    }
    if name.contains(':') {
        return match name.split('%').next().unwrap_or(name).parse::<Ipv6Addr>() {
            Ok(_) => Ok(()),
            Err(_) => wrong(
                format!("`{name}` is no IPv6 address, and a host's name has no `:`"),
                HELP,
            ),
        };
    }
    let begins = |c: char| c.is_alphanumeric() || c == '_';
    let goes_on = |c: char| c.is_alphanumeric() || "._-@+%".contains(c);
    let bad = name
        .char_indices()
        .find(|(at, c)| if *at == 0 { !begins(*c) } else { !goes_on(*c) });
    match bad {
        None => Ok(()),
        Some((0, c)) => wrong(
            format!("a host's name cannot begin with `{}`", c.escape_debug()),
            HELP,
        ),
        Some((_, c)) => wrong(
            format!("a host's name cannot hold `{}`", c.escape_debug()),
            HELP,
        ),
    }
}

/// Refuses groups that no pattern could name.
pub(super) fn check_group(name: &str) -> Result<(), Wrong> {
    const HELP: &str = "a group has letters, digits and `_`";
    if name.is_empty() {
        return wrong("the name of a group is missing", HELP);
    }
    let begins = |c: char| c.is_alphanumeric() || c == '_';
    let goes_on = |c: char| begins(c) || "-.@+".contains(c);
    let bad = name
        .char_indices()
        .find(|(at, c)| if *at == 0 { !begins(*c) } else { !goes_on(*c) });
    match bad {
        None => Ok(()),
        Some((_, c)) => wrong(
            format!(
                "`{}` is no name of a group: `{}`",
                name.escape_debug(),
                c.escape_debug()
            ),
            HELP,
        ),
    }
}

/// Refuses variables that no template could use.
pub(super) fn check_variable(name: &str) -> Result<(), Wrong> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    wrong(
        format!("`{}` cannot be a variable's name", name.escape_debug()),
        "use letters, digits and `_`, and begin with a letter",
    )
}
