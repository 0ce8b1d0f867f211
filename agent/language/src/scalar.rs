//! What a plain (unquoted) scalar means in YAML 1.1, the version that Ansible's users write.
//!
//! The rules are those of <https://yaml.org/type/> as PyYAML applies them. Dates stay texts.

use serde_json::Number;

/// A plain scalar's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    /// `~`, `null` or nothing.
    Null,
    /// `yes`, `no`, `on`, `off`, `true`, `false`.
    Bool(bool),
    /// An integer or a float.
    Number(Number),
    /// Everything else.
    Text,
    /// A number that cannot be kept exactly; the reason.
    Unfit(&'static str),
}

/// Returns what a plain scalar means.
#[must_use]
pub fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Plain::Bool(true);
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Plain::Bool(false);
        }
        _ => {}
    }
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    match digits.as_bytes().first() {
        Some(b'0'..=b'9') => integer(digits, negative)
            .or_else(|| float(digits, negative))
            .unwrap_or(Plain::Text),
        Some(b'.') => dotted(text, digits, negative),
        _ => Plain::Text,
    }
}

/// Reads binary, octal, hexadecimal, decimal and sexagesimal integers; `None` is another thing.
fn integer(digits: &str, negative: bool) -> Option<Plain> {
    let read = |text: &str, radix: u32| -> Option<Plain> {
        let plain: String = text.chars().filter(|c| *c != '_').collect();
        if plain.is_empty() || !plain.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        Some(signed(u128::from_str_radix(&plain, radix).ok(), negative))
    };
    if let Some(rest) = digits.strip_prefix("0b") {
        return read(rest, 2);
    }
    if let Some(rest) = digits.strip_prefix("0x") {
        return read(rest, 16);
    }
    if digits.contains(':') {
        return sexagesimal(digits).map(|value| signed(value, negative));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return read(&digits[1..], 8);
    }
    read(digits, 10)
}

/// Reads `12:30` as 12 × 60 + 30. The inner `None` means too large.
fn sexagesimal(digits: &str) -> Option<Option<u128>> {
    if digits.starts_with('0') {
        return None;
    }
    let mut parts = digits.split(':');
    let first: String = parts.next()?.chars().filter(|c| *c != '_').collect();
    if first.is_empty() || !first.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut value = first.parse::<u128>().ok();
    for part in parts {
        value = value
            .and_then(|value| value.checked_mul(60))
            .and_then(|value| value.checked_add(u128::from(sixtieth(part)?)));
        sixtieth(part)?;
    }
    Some(value)
}

/// One `[0-5]?[0-9]` of a sexagesimal number.
fn sixtieth(part: &str) -> Option<u8> {
    let shape = matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
    if shape { part.parse().ok() } else { None }
}

fn signed(value: Option<u128>, negative: bool) -> Plain {
    let number = value.and_then(|value| {
        if negative {
            i128::try_from(value)
                .ok()
                .and_then(|value| i64::try_from(-value).ok())
                .map(Number::from)
        } else {
            u64::try_from(value).ok().map(Number::from)
        }
    });
    number.map_or(
        Plain::Unfit("the number does not fit into 64 bits"),
        Plain::Number,
    )
}

/// Reads `1.5`, `1.`, `1.5e+3` and `1:30.5`. Without a dot, or with an unsigned exponent, YAML 1.1
/// sees a text.
fn float(digits: &str, negative: bool) -> Option<Plain> {
    let (whole, rest) = digits.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let numeric = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !numeric(fraction) {
        return None;
    }
    let plain = |text: &str| text.replace('_', "");
    if whole.contains(':') {
        if exponent.is_some() {
            return None;
        }
        let mut value = 0.0;
        for (index, part) in whole.split(':').enumerate() {
            let part = if index == 0 && numeric(part) {
                plain(part).parse::<f64>().ok()?
            } else {
                f64::from(sixtieth(part)?)
            };
            value = value * 60.0 + part;
        }
        value += format!("0.{}0", plain(fraction)).parse::<f64>().ok()?;
        return Some(finite(if negative { -value } else { value }));
    }
    if !numeric(whole) {
        return None;
    }
    let exponent = match exponent {
        None => String::new(),
        Some(text) => {
            let signed = text.starts_with(['+', '-'])
                && text.len() > 1
                && text[1..].bytes().all(|b| b.is_ascii_digit());
            if !signed {
                return None;
            }
            format!("e{text}")
        }
    };
    let sign = if negative { "-" } else { "" };
    format!("{sign}{}.{}0{exponent}", plain(whole), plain(fraction))
        .parse()
        .ok()
        .map(finite)
}

/// Reads what begins with a dot.
fn dotted(text: &str, digits: &str, negative: bool) -> Plain {
    match digits {
        ".inf" | ".Inf" | ".INF" => return Plain::Unfit("infinity cannot be kept"),
        _ if matches!(text, ".nan" | ".NaN" | ".NAN") => {
            return Plain::Unfit("not-a-number cannot be kept");
        }
        _ => {}
    }
    // A signed `.5` is a text in YAML 1.1.
    let starts_with_digit = digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if !starts_with_digit || text.len() != digits.len() {
        return Plain::Text;
    }
    float(&format!("0{digits}"), negative).unwrap_or(Plain::Text)
}

fn finite(value: f64) -> Plain {
    Number::from_f64(value).map_or(Plain::Unfit("the number is too large"), Plain::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_yaml_1_1_says() {
        let number = |value: i64| Plain::Number(value.into());
        let float = |value: f64| finite(value);
        for (text, expected) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("yes", Plain::Bool(true)),
            ("Off", Plain::Bool(false)),
            ("y", Plain::Text),
            ("yEs", Plain::Text),
            ("0", number(0)),
            ("-7", number(-7)),
            ("+7", number(7)),
            ("0644", number(420)),
            ("0o644", Plain::Text),
            ("0899", Plain::Text),
            ("0x1F", number(31)),
            ("0b101", number(5)),
            ("1_000", number(1000)),
            ("12:30", number(750)),
            ("1:30:00", number(5400)),
            ("01:30", Plain::Text),
            ("12:61", Plain::Text),
            ("5432:5432", Plain::Text),
            ("1e3", Plain::Text),
            ("1.5e3", Plain::Text),
            ("1.5e+3", float(1500.0)),
            ("1.", float(1.0)),
            (".5", float(0.5)),
            ("1.2.3", Plain::Text),
            ("2024-01-01", Plain::Text),
            ("9.6.24", Plain::Text),
            ("-", Plain::Text),
            ("-i", Plain::Text),
            ("18446744073709551615", Plain::Number(u64::MAX.into())),
        ] {
            assert_eq!(resolve(text), expected, "{text:?}");
        }
        assert!(matches!(resolve("99999999999999999999"), Plain::Unfit(_)));
        assert!(matches!(resolve(".inf"), Plain::Unfit(_)));
    }
}
