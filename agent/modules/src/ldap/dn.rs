//! Names of entries (RFC 4514), as far as records of one file are compared by them.
//!
//! Whether two values are equal is a matter of the schema, which only the server knows. Here names count
//! as equal when they differ in blanks around `,` and `=` and in the case of attribute names only: two
//! spellings that the server takes for one entry are two here, and lead to a conflict, never to a change
//! that is passed over.

/// Cuts a name at the commas that part it.
fn parts(dn: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped, mut quoted) = (0, false, false);
    for (at, c) in dn.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' | ';' if !quoted => {
                parts.push(&dn[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !dn[start..].trim().is_empty() || !parts.is_empty() {
        parts.push(&dn[start..]);
    }
    parts
}

/// Returns the name in the form that names are compared in.
#[must_use]
pub fn normal(dn: &str) -> String {
    let part = |part: &&str| match part.split_once('=') {
        Some((name, value)) => format!("{}={}", name.trim().to_ascii_lowercase(), value.trim()),
        None => part.trim().to_owned(),
    };
    parts(dn).iter().map(part).collect::<Vec<_>>().join(",")
}

/// Returns the parent's name, empty at the top.
#[must_use]
pub fn parent(dn: &str) -> String {
    parts(dn)
        .split_first()
        .map_or_else(String::new, |(_, rest)| {
            rest.iter()
                .map(|part| part.trim())
                .collect::<Vec<_>>()
                .join(",")
        })
}

/// Returns the name that an entry has after a rename.
#[must_use]
pub fn renamed(dn: &str, new_rdn: &str, new_superior: Option<&str>) -> String {
    let parent = new_superior.map_or_else(|| parent(dn), str::to_owned);
    if parent.is_empty() {
        new_rdn.to_owned()
    } else {
        format!("{new_rdn},{parent}")
    }
}

/// Returns what a name becomes when the entry `from`, which it is or lies below, is renamed to `to`.
#[must_use]
pub fn moved(dn: &str, from: &str, to: &str) -> Option<String> {
    let (name, from) = (normal(dn), normal(from));
    if name == from {
        return Some(to.to_owned());
    }
    let below = name.strip_suffix(&from)?.strip_suffix(',')?;
    Some(format!("{below},{to}"))
}

/// Tells whether a name is `above` or lies below it.
#[must_use]
pub fn is_at_or_below(dn: &str, above: &str) -> bool {
    moved(dn, above, above).is_some()
}

/// Returns the attributes and values of a name's first part; `\\` escapes are taken out.
#[must_use]
pub fn rdn_values(dn: &str) -> Vec<(String, Vec<u8>)> {
    let first = parts(dn).first().copied().unwrap_or_default();
    first
        .split('+')
        .filter_map(|part| part.split_once('='))
        .map(|(attribute, value)| (attribute.trim().to_owned(), unescaped(value.trim())))
        .collect()
}

fn unescaped(value: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| hex::decode(two).ok());
        match (byte, hex) {
            (b'\\', Some(byte)) => {
                out.extend(byte);
                rest = &after[2..];
            }
            (b'\\', None) => rest = after,
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// Returns how many parts a name has.
#[must_use]
pub fn depth(dn: &str) -> usize {
    parts(dn).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_compared_and_moved() {
        assert_eq!(normal("CN=a b , DC = X"), "cn=a b,dc=X");
        assert_eq!(parent(r"cn=a\,b,ou=c,dc=x"), "ou=c,dc=x");
        assert_eq!(parent("dc=x"), "");
        assert_eq!(renamed("cn=a,dc=x", "cn=b", None), "cn=b,dc=x");
        assert_eq!(renamed("cn=a,dc=x", "cn=b", Some("dc=y")), "cn=b,dc=y");
        assert_eq!(
            moved("cn=k,cn=a,dc=x", "CN=a,dc=x", "cn=b,dc=x").as_deref(),
            Some("cn=k,cn=b,dc=x")
        );
        assert_eq!(moved("cn=aa,dc=x", "cn=a,dc=x", "cn=b,dc=x"), None);
        assert!(is_at_or_below("cn=k,dc=x", "dc=x") && !is_at_or_below("dc=x", "cn=k,dc=x"));
        assert_eq!(depth(r#"cn="a,b",dc=x"#), 2);
        assert_eq!(depth(""), 0);
        assert_eq!(
            rdn_values(r"cn=a\,b\c3\b6,dc=x"),
            [("cn".to_owned(), "a,bö".as_bytes().to_vec())]
        );
    }
}
