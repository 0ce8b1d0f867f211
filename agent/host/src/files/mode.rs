//! File modes as playbooks write them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A mode as Ansible takes it: an octal number (`0644`, read by YAML as 420), octal text (`"0644"`),
/// or symbolic text (`u=rwX,g=rX,o=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Permission bits.
    Bits(u32),
    /// Changes to the bits that are there.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode, e.g. `ug+rX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Bits of the classes that it is about, set-id and sticky included.
    classes: u32,
    /// `+`, `-` or `=`.
    operator: char,
    /// `rwxXst`, or one of `ugo` to copy from.
    permissions: String,
}

impl Mode {
    /// Returns the bits that a file with the bits `current` should have.
    #[must_use]
    pub fn resolve(&self, current: u32, is_dir: bool) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(current, |bits, clause| clause.apply(bits, is_dir)),
        }
    }

    /// Reads text.
    ///
    /// # Errors
    /// The text says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.strip_prefix("0o").unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return u32::from_str_radix(digits, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
                .map(Self::Bits)
                .ok_or_else(|| format!("`{text}` is not an octal mode up to 7777"));
        }
        text.split(',')
            .flat_map(one_operator_each)
            .map(|clause| Clause::parse(&clause))
            .collect::<Option<Vec<_>>>()
            .map(Self::Symbolic)
            .ok_or_else(|| {
                format!(
                    "`{text}` is neither an octal mode (\"0644\") nor a symbolic one (u=rw,g=r)"
                )
            })
    }

    fn from_number(number: u64) -> Result<Self, String> {
        // Decimal 512 to 777 is `644` or `755` without the leading zero; as bits it would be a sticky
        // file that its owner cannot read, which nobody means.
        if (512..=777).contains(&number) {
            return Err(format!(
                "{number} is a decimal number; write 0{number} or \"0{number}\""
            ));
        }
        u32::try_from(number)
            .ok()
            .filter(|bits| *bits <= 0o7777)
            .map(Self::Bits)
            .ok_or_else(|| format!("{number} is not a mode up to 07777"))
    }
}

/// `go+rX-w` is `go+rX` and `go-w`.
fn one_operator_each(clause: &str) -> Vec<String> {
    let operators: Vec<usize> = clause
        .match_indices(['+', '-', '='])
        .map(|(at, _)| at)
        .collect();
    let (Some(first), true) = (operators.first(), operators.len() > 1) else {
        return vec![clause.to_owned()];
    };
    let classes = &clause[..*first];
    let ends = operators.iter().skip(1).copied().chain([clause.len()]);
    operators
        .iter()
        .zip(ends)
        .map(|(from, to)| format!("{classes}{}", &clause[*from..to]))
        .collect()
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['+', '-', '='])?;
        let (who, rest) = text.split_at(at);
        let mut classes = 0;
        for class in who.chars() {
            classes |= match class {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let operator = rest.chars().next()?;
        let permissions = &rest[1..];
        let plain = permissions.chars().all(|c| "rwxXst".contains(c));
        let copy = permissions.len() == 1 && "ugo".contains(permissions);
        (plain || copy).then(|| Self {
            classes: if classes == 0 { 0o7777 } else { classes },
            operator,
            permissions: permissions.to_owned(),
        })
    }

    fn apply(&self, current: u32, is_dir: bool) -> u32 {
        let mut wanted = 0;
        for permission in self.permissions.chars() {
            wanted |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || current & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => (current >> 6 & 7) * 0o111,
                'g' => (current >> 3 & 7) * 0o111,
                'o' => (current & 7) * 0o111,
                _ => 0,
            };
        }
        wanted &= self.classes;
        match self.operator {
            '+' => current | wanted,
            '-' => current & !wanted,
            // Like chmod(1): `=` leaves the set-id bits of directories alone unless they are named.
            _ => {
                let kept = if is_dir { 0o6000 & current } else { 0 };
                current & !self.classes | wanted | kept & self.classes
            }
        }
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModeVisitor;
        impl Visitor<'_> for ModeVisitor {
            type Value = Mode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode such as 0644, \"0644\" or u=rw,g=r")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Mode, E> {
                Mode::from_number(number).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Mode, E> {
                Mode::from_number(u64::try_from(number).unwrap_or(u64::MAX)).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Mode, E> {
                Mode::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(ModeVisitor)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bits(bits) => serializer.serialize_str(&show_mode(*bits)),
            Self::Symbolic(clauses) => serializer.collect_str(&format_args!("{clauses:?}")),
        }
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": 4095}, {"type": "string"}],
            "examples": ["0644", "u=rwX,g=rX,o="]
        })
    }
}

/// Writes bits as Ansible's `stat` does, e.g. `0644`.
#[must_use]
pub fn show_mode(bits: u32) -> String {
    format!("{bits:04o}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> Mode {
        Mode::parse(text).expect("valid")
    }

    #[test]
    fn modes_are_read_as_number_octal_text_and_symbols() {
        assert_eq!(
            serde_json::from_str::<Mode>("420").expect("number"),
            Mode::Bits(0o644)
        );
        assert_eq!(
            serde_json::from_str::<Mode>("\"0755\"").expect("text"),
            Mode::Bits(0o755)
        );
        assert_eq!(mode("u=rwX,g=rX,o=").resolve(0o666, false), 0o640);
        assert_eq!(mode("u=rwX,g=rX,o=").resolve(0o666, true), 0o750);
        assert_eq!(mode("g-w,o+x").resolve(0o664, false), 0o645);
        assert_eq!(mode("g=u").resolve(0o741, false), 0o771);
        assert_eq!(mode("u+s,+t").resolve(0o755, false), 0o5755);
        assert!(Mode::parse("rw").is_err());
        assert!(Mode::parse("0998").is_err());
    }

    #[test]
    fn a_mode_without_its_zero_is_refused() {
        let error = serde_json::from_str::<Mode>("755").expect_err("decimal");
        assert!(error.to_string().contains("write 0755"), "{error}");
        let error = serde_json::from_str::<Mode>("10000").expect_err("too large");
        assert!(error.to_string().contains("not a mode"), "{error}");
    }
}
