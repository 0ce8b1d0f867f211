//! Names that a site has chosen in the place of those that its LDIF files are shipped with.

use regex::{Captures, Regex};
use schemars::JsonSchema;
use serde::Deserialize;

use super::error::LdapError;
use crate::python_regex::{Replacement, build};

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
pub struct Substitutions(Vec<(Regex, Replacement)>);

impl Substitutions {
    /// Compiles them.
    ///
    /// # Errors
    /// A regular expression is none, or a replacement names a group that its expression has not.
    pub fn new(substitutions: &[Substitution]) -> Result<Self, LdapError> {
        let one = |substitution: &Substitution| {
            let wrong = |error: String| LdapError::argument("substitute", error);
            let regexp =
                build(&substitution.regexp, |_| {}).map_err(|error| wrong(error.to_owned()))?;
            let replace = Replacement::read(&substitution.replace, &regexp)
                .map_err(|error| wrong(format!("`{}`: {error}", substitution.replace)))?;
            Ok((regexp, replace))
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
                let filled = |found: &Captures<'_>| replace.expand(found);
                line = regexp.replace_all(&line, filled).into_owned();
            }
        }
        line
    }
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

    #[test]
    fn a_group_that_is_not_there_is_refused_and_a_dollar_is_a_dollar() {
        let one = |replace: &str| {
            let regexp = "^(cn): x".into();
            let replace = replace.into();
            Substitutions::new(&[Substitution { regexp, replace }])
        };
        assert_eq!(one(r"\1: $1").expect("valid").apply("cn: x"), "cn: $1");
        for wrong in [r"\2: y", r"\g<n>: y", r"uid=a\2Cb"] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }
}
