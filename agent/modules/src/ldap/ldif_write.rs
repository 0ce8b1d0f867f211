//! Entries to LDIF text (RFC 2849).

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::directory::Entry;

/// Longest line, as the RFC advises.
const WIDTH: usize = 76;

/// Writes one entry, classes first, and the blank line that ends it.
///
/// # Errors
/// What `out` says.
pub fn write_entry(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    write_line(out, "dn", entry.dn.as_bytes())?;
    let is_class = |name: &str| name.eq_ignore_ascii_case("objectClass");
    let (classes, others): (Vec<_>, Vec<_>) = entry
        .attributes
        .iter()
        .partition(|(name, _)| is_class(name));
    for (name, values) in classes.into_iter().chain(others) {
        for value in values {
            write_line(out, name, value)?;
        }
    }
    out.write_all(b"\n")
}

fn write_line(out: &mut impl Write, name: &str, value: &[u8]) -> io::Result<()> {
    let line = match std::str::from_utf8(value) {
        Ok(text) if is_safe(text) && text.is_empty() => format!("{name}:"),
        Ok(text) if is_safe(text) => format!("{name}: {text}"),
        _ => format!("{name}:: {}", STANDARD.encode(value)),
    };
    // Only ASCII is left, so a byte is a character.
    let bytes = line.as_bytes();
    let (first, mut rest) = bytes.split_at(bytes.len().min(WIDTH));
    out.write_all(first)?;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.len().min(WIDTH - 1));
        out.write_all(b"\n ")?;
        out.write_all(part)?;
        rest = after;
    }
    out.write_all(b"\n")
}

/// SAFE-STRING of the RFC, and no blank at the end.
fn is_safe(text: &str) -> bool {
    !text.starts_with([' ', ':', '<'])
        && !text.ends_with(' ')
        && text.chars().all(|c| c.is_ascii() && !"\0\n\r".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ldap::ldif::{Change, parse};
    use crate::ldap::substitute::Substitutions;
    use proptest::prelude::*;

    fn written(entry: &Entry) -> Vec<u8> {
        let mut out = Vec::new();
        write_entry(&mut out, entry).expect("written");
        out
    }

    #[test]
    fn long_and_odd_values_are_folded_and_encoded() {
        let entry = Entry {
            dn: "cn=ö,dc=x".into(),
            attributes: [
                ("a".to_owned(), vec![b" x".to_vec(), b"".to_vec()]),
                ("objectClass".to_owned(), vec![b"top".to_vec()]),
                ("z".to_owned(), vec!["y".repeat(100).into_bytes()]),
            ]
            .into(),
        };
        let text = String::from_utf8(written(&entry)).expect("UTF-8");
        assert!(text.starts_with("dn:: Y249w7YsZGM9eA==\nobjectClass: top\na:: IHg=\na:\nz: yyy"));
        assert!(text.lines().all(|line| line.len() <= WIDTH));
        assert!(text.ends_with("y\n\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            dn in "[a-zö=,+ ]{1,90}x",
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..4),
            text in "\\PC{0,120}",
        ) {
            let mut values = values;
            values.push(text.into_bytes());
            let entry = Entry { dn, attributes: [("attr".to_owned(), values)].into() };
            let records = parse(&written(&entry), &Substitutions::default(), "/".as_ref());
            let records = records.expect("valid");
            prop_assert_eq!(&records[0].dn, &entry.dn);
            let Change::Add(attributes) = &records[0].change else { panic!("an entry") };
            prop_assert_eq!(&attributes[0].1, &entry.attributes["attr"]);
        }
    }
}
