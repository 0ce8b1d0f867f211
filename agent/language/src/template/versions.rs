//! `is version`: which of two versions comes first.

use std::cmp::Ordering;
use std::num::ParseIntError;

use minijinja::value::Kwargs;
use minijinja::{Error, Value};

use super::error::say;

/// What versions are written in.
#[derive(Debug, Clone, Copy)]
enum Grammar {
    /// Anything.
    Loose,
    /// Two or three numbers, and at most one of `a` and `b` with a number: Python's `StrictVersion`.
    Strict,
    /// <https://semver.org>; what is behind `+` does not count.
    Semantic,
}

pub(super) fn version(
    value: Value,
    other: Value,
    operator: Option<String>,
    kwargs: Kwargs,
) -> Result<bool, Error> {
    let operator = operator
        .or(kwargs.get("operator")?)
        .unwrap_or_else(|| "==".to_owned());
    let grammar = grammar(&kwargs)?;
    kwargs.assert_all_used()?;
    let order = compare(grammar, &value.to_string(), &other.to_string())?;
    Ok(match operator.as_str() {
        "==" | "=" | "eq" => order.is_eq(),
        "!=" | "<>" | "ne" => order.is_ne(),
        "<" | "lt" => order.is_lt(),
        "<=" | "le" => order.is_le(),
        ">" | "gt" => order.is_gt(),
        ">=" | "ge" => order.is_ge(),
        _ => return Err(say("`version` knows ==, !=, <, <=, > and >=")),
    })
}

fn grammar(kwargs: &Kwargs) -> Result<Grammar, Error> {
    let strict = kwargs.get::<Option<bool>>("strict")?;
    let named = kwargs.get::<Option<String>>("version_type")?;
    match (strict, named.as_deref()) {
        (Some(_), Some(_)) => Err(say(
            "`version`: `strict` and `version_type` exclude each other",
        )),
        (Some(true), None) | (_, Some("strict")) => Ok(Grammar::Strict),
        (_, None | Some("loose")) => Ok(Grammar::Loose),
        (_, Some("semver" | "semantic")) => Ok(Grammar::Semantic),
        (_, Some(other)) => Err(say(format!(
            "`version` knows the version types loose, strict, semver and semantic, not {other}"
        ))),
    }
}

fn compare(grammar: Grammar, left: &str, right: &str) -> Result<Ordering, Error> {
    Ok(match grammar {
        Grammar::Loose => compare_loosely(left, right),
        Grammar::Strict => strict(left)?.cmp(&strict(right)?),
        Grammar::Semantic => semantic(left)?.cmp_precedence(&semantic(right)?),
    })
}

fn semantic(text: &str) -> Result<semver::Version, Error> {
    semver::Version::parse(text)
        .map_err(|error| say(format!("`{text}` is no semantic version: {error}")))
}

/// Three numbers, and behind them nothing, which comes after every letter.
type Strict = ([u64; 3], (bool, Option<(char, u64)>));

fn strict(text: &str) -> Result<Strict, Error> {
    let read = || -> Result<Option<Strict>, ParseIntError> {
        let (numbers, letter) = match text.find(['a', 'b']) {
            Some(at) => (&text[..at], Some(&text[at..])),
            None => (text, None),
        };
        let numbers: Vec<u64> = numbers
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let numbers = match numbers.as_slice() {
            [one, two] => [*one, *two, 0],
            [one, two, three] => [*one, *two, *three],
            _ => return Ok(None),
        };
        let behind = match letter {
            None => None,
            // `find` stopped at an ASCII letter.
            Some(rest) => Some((
                if rest.starts_with('a') { 'a' } else { 'b' },
                rest[1..].parse()?,
            )),
        };
        Ok(Some((numbers, (behind.is_none(), behind))))
    };
    match read() {
        Ok(Some(version)) => Ok(version),
        _ => Err(say(format!(
            "`{text}` is no strict version: 1.2, 1.2.3 or 1.2a3 is expected"
        ))),
    }
}

/// Compares digit and letter runs in turn, as Python's `LooseVersion`.
fn compare_loosely(left: &str, right: &str) -> Ordering {
    let (left, right) = (parts(left), parts(right));
    for (one, other) in left.iter().zip(&right) {
        let order = match (one.parse::<u128>(), other.parse::<u128>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            // A letter run (`rc`) comes before a number.
            (Ok(_), Err(_)) => Ordering::Greater,
            (Err(_), Ok(_)) => Ordering::Less,
            (Err(_), Err(_)) => one.cmp(other),
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

fn parts(version: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut last = None;
    for character in version.trim().chars() {
        if !character.is_ascii_alphanumeric() {
            last = None;
            continue;
        }
        let digit = character.is_ascii_digit();
        match parts.last_mut() {
            Some(part) if last == Some(digit) => part.push(character),
            _ => parts.push(character.to_string()),
        }
        last = Some(digit);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_grammar_has_its_own_order() {
        let order = |grammar, left, right| compare(grammar, left, right).expect(left);
        assert!(order(Grammar::Loose, "1.2.3-rc1", "1.2.3").is_gt());
        assert!(order(Grammar::Semantic, "1.2.3-rc1", "1.2.3").is_lt());
        assert!(order(Grammar::Semantic, "1.2.3+a", "1.2.3+b").is_eq());
        assert!(order(Grammar::Strict, "1.2a3", "1.2").is_lt());
        assert!(order(Grammar::Strict, "1.2b1", "1.2a3").is_gt());
        assert!(order(Grammar::Strict, "1.2", "1.2.0").is_eq());
        assert!(order(Grammar::Loose, "1.10", "1.9").is_gt());
    }

    #[test]
    fn what_a_grammar_does_not_know_is_an_error() {
        for text in ["1.2", "01.2.3", "v1.2.3", ""] {
            assert!(semantic(text).is_err(), "{text}");
        }
        for text in ["1", "1.2.3.4", "1.2c3", "1.2a", "", "a1"] {
            assert!(strict(text).is_err(), "{text}");
        }
    }
}
