//! Host patterns, as `hosts` and `--limit` take them.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use regex::Regex;

use super::{ALL, Inventory, InventoryError, LOCAL};
use crate::source::closest;

pub(super) fn select(inventory: &Inventory, pattern: &str) -> Result<Vec<String>, InventoryError> {
    let terms = terms(pattern);
    if terms.is_empty() {
        return Err(wrong(pattern, "a host or group is missing"));
    }
    let mut chosen: Option<HashSet<String>> = None;
    let mut local = Vec::new();
    let (mut both, mut without) = (Vec::new(), HashSet::new());
    for term in terms {
        if let Some(term) = term.strip_prefix('!') {
            without.extend(matching(inventory, term)?);
        } else if let Some(term) = term.strip_prefix('&') {
            both.push(
                matching(inventory, term)?
                    .into_iter()
                    .collect::<HashSet<_>>(),
            );
        } else {
            let found = matching(inventory, term)?;
            local.extend(
                found
                    .iter()
                    .filter(|host| !inventory.entries.contains_key(*host))
                    .cloned(),
            );
            chosen.get_or_insert_default().extend(found);
        }
    }
    let kept =
        |host: &&String| both.iter().all(|both| both.contains(*host)) && !without.contains(*host);
    let mut seen = HashSet::new();
    let hosts: Vec<String> = inventory
        .hosts
        .iter()
        .filter(|host| chosen.as_ref().is_none_or(|chosen| chosen.contains(*host)))
        .chain(&local)
        .filter(kept)
        .filter(|host| seen.insert(*host))
        .cloned()
        .collect();
    if hosts.is_empty() {
        return Err(InventoryError::Nothing {
            pattern: pattern.to_owned(),
        });
    }
    Ok(hosts)
}

fn wrong(term: &str, what: impl Into<String>) -> InventoryError {
    InventoryError::Pattern {
        term: term.to_owned(),
        what: what.into(),
    }
}

/// Parts of a pattern: apart at `,` and, outside brackets, regular expressions and IPv6 addresses, at `:`.
fn terms(pattern: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    for part in pattern.split(',').map(str::trim) {
        let body = part.trim_start_matches(['!', '&']);
        if body.starts_with('~') || body.parse::<Ipv6Addr>().is_ok() {
            terms.push(part);
            continue;
        }
        let (mut start, mut depth) = (0, 0_usize);
        for (at, letter) in part.char_indices() {
            match letter {
                '[' => depth += 1,
                ']' => depth = depth.saturating_sub(1),
                ':' if depth == 0 => {
                    terms.push(part[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            }
        }
        terms.push(part[start..].trim());
    }
    terms.retain(|term| !term.is_empty());
    terms
}

/// Hosts of one part, without its `!` or `&`.
fn matching(inventory: &Inventory, term: &str) -> Result<Vec<String>, InventoryError> {
    if term.is_empty() {
        return Err(wrong("!", "a host or group is missing behind `!` or `&`"));
    }
    if inventory.entries.contains_key(term) {
        return Ok(vec![term.to_owned()]);
    }
    if let Some(expression) = term.strip_prefix('~') {
        // As Python's `match`: from the begin of the name, not necessarily to its end.
        let regex = Regex::new(&format!("^(?:{expression})")).map_err(|error| {
            wrong(
                term,
                format!("not a regular expression: {}", last_line(&error)),
            )
        })?;
        return found(inventory, term, |name| regex.is_match(name));
    }
    match subscript(term) {
        Some((name, range)) => {
            let hosts = matching(inventory, name)?;
            let count = hosts.len();
            range.of(hosts).ok_or_else(|| {
                let (be, hosts) = if count == 1 {
                    ("is", "host")
                } else {
                    ("are", "hosts")
                };
                wrong(term, format!("there {be} {count} {hosts}, counted from 0"))
            })
        }
        None => named(inventory, term),
    }
}

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// Hosts of a group, a glob or the controller's own name.
fn named(inventory: &Inventory, term: &str) -> Result<Vec<String>, InventoryError> {
    if let Some(hosts) = inventory.groups.get(term) {
        return Ok(hosts.clone());
    }
    if inventory.entries.contains_key(term) {
        return Ok(vec![term.to_owned()]);
    }
    if LOCAL.contains(&term) {
        // A local host that the inventory has under another of its names is that one.
        let own = LOCAL
            .iter()
            .find(|name| inventory.entries.contains_key(**name));
        return Ok(vec![(*own.unwrap_or(&term)).to_owned()]);
    }
    if term.contains(['*', '?', '[']) {
        let regex = Regex::new(&glob(term)).map_err(|_| wrong(term, "not a glob"))?;
        return found(inventory, term, |name| regex.is_match(name));
    }
    Err(unknown(inventory, term))
}

fn unknown(inventory: &Inventory, term: &str) -> InventoryError {
    let known = inventory.groups.keys().chain(&inventory.hosts);
    InventoryError::Unknown {
        name: term.to_owned(),
        near: closest(term, known.map(String::as_str)).map(str::to_owned),
    }
}

/// Hosts of all groups, and hosts, whose name fits.
fn found(
    inventory: &Inventory,
    term: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<Vec<String>, InventoryError> {
    let mut known = false;
    let mut hosts = HashSet::new();
    for (group, members) in &inventory.groups {
        if fits(group) {
            // `all` is there in an inventory without hosts, too.
            known |= group == ALL || !members.is_empty();
            hosts.extend(members);
        }
    }
    let fitting = inventory.hosts.iter().filter(|host| fits(host));
    hosts.extend(fitting);
    if hosts.is_empty() && !known {
        return Err(unknown(inventory, term));
    }
    Ok(inventory
        .hosts
        .iter()
        .filter(|host| hosts.contains(host))
        .cloned()
        .collect())
}

/// A shell's pattern as a regular expression over the whole name.
fn glob(pattern: &str) -> String {
    let mut regex = String::from("(?s)^");
    let mut rest = pattern.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => match class(rest.as_str()) {
                Some((class, length)) => {
                    regex.push_str(&class);
                    rest = rest.as_str()[length..].chars();
                }
                None => regex.push_str("\\["),
            },
            other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    regex
}

/// What stands behind `[` as a class, and its length with the `]`.
fn class(rest: &str) -> Option<(String, usize)> {
    let negated = rest.starts_with('!');
    let begin = usize::from(negated);
    // A `]` that comes first stands for itself.
    let first = rest[begin..].chars().next()?.len_utf8();
    let end = begin + first + rest[begin + first..].find(']')?;
    let mut class = String::from(if negated { "[^" } else { "[" });
    for letter in rest[begin..end].chars() {
        if letter != '-' && !letter.is_alphanumeric() {
            class.push('\\');
        }
        class.push(letter);
    }
    class.push(']');
    Some((class, end + 1))
}

/// `[0]`, `[-1]`, `[1:3]`, `[1-3]` or `[1:]` behind a name.
enum Subscript {
    One(i64),
    Range(usize, Option<usize>),
}

fn subscript(term: &str) -> Option<(&str, Subscript)> {
    let (name, inner) = term.strip_suffix(']')?.rsplit_once('[')?;
    if name.is_empty() {
        return None;
    }
    if let Ok(index) = inner.parse()
        && !inner.starts_with('+')
    {
        return Some((name, Subscript::One(index)));
    }
    let (first, last) = inner.split_once([':', '-'])?;
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    let last = match last {
        "" => None,
        last => Some(number(last)?),
    };
    Some((name, Subscript::Range(number(first)?, last)))
}

impl Subscript {
    /// The chosen hosts; nothing where there is none.
    fn of(&self, hosts: Vec<String>) -> Option<Vec<String>> {
        let chosen: Vec<String> = match *self {
            Self::One(index) => {
                let count = i64::try_from(hosts.len()).ok()?;
                let index = if index < 0 {
                    count.checked_add(index)?
                } else {
                    index
                };
                hosts
                    .into_iter()
                    .nth(usize::try_from(index).ok()?)
                    .into_iter()
                    .collect()
            }
            // The end is included.
            Self::Range(first, last) => {
                let last = last.unwrap_or(usize::MAX);
                let length = last.checked_sub(first)?.saturating_add(1);
                hosts.into_iter().skip(first).take(length).collect()
            }
        };
        (!chosen.is_empty()).then_some(chosen)
    }
}
