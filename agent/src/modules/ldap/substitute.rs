//! Names that a site has chosen in the place of those that its LDIF files are shipped with.

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::LdapError;

/// One substitution.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Substitution {
    /// Regular expression, looked for in every line once it is unfolded; `^` is the line's start.
    pub regexp: String,
    /// What takes the place of each match; `\1` is the first group.
    pub replace: String,
}

/// Substitutions, in order.
#[derive(Debug, Clone, Default)]
pub struct Substitutions(Vec<(Regex, String)>);

impl Substitutions {
    /// Compiles them.
    ///
    /// # Errors
    /// A regular expression is none.
    pub fn new(substitutions: &[Substitution]) -> Result<Self, LdapError> {
        let one = |substitution: &Substitution| {
            let regexp = Regex::new(&substitution.regexp)
                .map_err(|error| LdapError::argument("substitute", error.to_string()))?;
            Ok((regexp, groups(&substitution.replace)))
        };
        substitutions
            .iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Returns the line with all substitutions made.
    #[must_use]
    pub fn apply(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (regexp, replace) in &self.0 {
            if regexp.is_match(&line) {
                line = regexp.replace_all(&line, replace).into_owned();
            }
        }
        line
    }
}

/// Ansible writes `\1` where the regex crate has `${1}`.
fn groups(replace: &str) -> String {
    let mut out = String::new();
    let mut characters = replace.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, characters.peek()) {
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                out.push_str(&format!("${{{digit}}}"));
                characters.next();
            }
            // No group of the crate's own kind.
            ('$', _) => out.push_str("$$"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_in_order() {
        let all = Substitutions::new(&[
            Substitution {
                regexp: "dicomDeviceName=dcm4chee-arc".into(),
                replace: "dicomDeviceName=kaapana".into(),
            },
            Substitution {
                regexp: "^(dicomAETitle|dcmRetrieveAET): DCM4CHEE$".into(),
                replace: r"\1: KAAPANA".into(),
            },
        ])
        .expect("valid");
        assert_eq!(
            all.apply("dn: cn=x,dicomDeviceName=dcm4chee-arc,dc=y"),
            "dn: cn=x,dicomDeviceName=kaapana,dc=y"
        );
        assert_eq!(
            all.apply("dcmRetrieveAET: DCM4CHEE"),
            "dcmRetrieveAET: KAAPANA"
        );
        assert_eq!(all.apply("cn: DCM4CHEE"), "cn: DCM4CHEE");
        let wrong = Substitution {
            regexp: "(".into(),
            replace: String::new(),
        };
        assert!(Substitutions::new(&[wrong]).is_err());
    }
}
