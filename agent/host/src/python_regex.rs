//! Regular expressions and replacements as Python's users write them, for filters and for modules that edit
//! text.

use regex::{Captures, Regex, RegexBuilder};
use thiserror::Error;

/// Builds a pattern, `set` choosing its options.
///
/// # Errors
/// What is wrong with it.
pub fn build(source: &str, set: impl FnOnce(&mut RegexBuilder)) -> Result<Regex, &'static str> {
    // Python's `\Z` is the very end.
    let mut builder = RegexBuilder::new(&source.replace(r"\Z", r"\z"));
    set(&mut builder);
    builder.build().map_err(|error| match error {
        regex::Error::Syntax(_) => {
            "the regular expression is not valid (look-around and back-references are not supported)"
        }
        _ => "the regular expression is too large",
    })
}

/// What is wrong with a replacement, in Python's words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReplacementError {
    /// The pattern has not so many groups.
    #[error("invalid group reference {group} at position {position}")]
    NoGroup {
        /// The number, as it is written.
        group: String,
        /// Characters before the number.
        position: usize,
    },
    /// The pattern has no group of this name.
    #[error("unknown group name '{name}'")]
    NoName {
        /// The name.
        name: String,
    },
    /// A name that no group can have.
    #[error("bad character in group name '{name}' at position {position}")]
    BadName {
        /// The name.
        name: String,
        /// Characters before it.
        position: usize,
    },
    /// `\g` without `<name>`.
    #[error("missing {what} at position {position}")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// Characters before the place where it should be.
        position: usize,
    },
    /// An octal escape of more than a byte.
    #[error("octal escape value {escape} outside of range 0-0o377 at position {position}")]
    Octal {
        /// The escape.
        escape: String,
        /// Characters before it.
        position: usize,
    },
    /// A letter that stands for nothing after a backslash.
    #[error("bad escape {escape} at position {position}")]
    BadEscape {
        /// The escape.
        escape: String,
        /// Characters before it.
        position: usize,
    },
    /// A backslash at the end.
    #[error("bad escape (end of pattern) at position {position}")]
    LoneBackslash {
        /// Characters before it.
        position: usize,
    },
}

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Group(usize),
}

/// What takes the place of a match: text, and groups of the pattern that it was read for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement(Vec<Part>);

impl Replacement {
    /// Reads one as Python does: `\1`, `\g<1>` and `\g<name>` are groups, which the pattern must have, `\0` and
    /// three octal digits are characters, `\n` and the like what they are everywhere.
    ///
    /// # Errors
    /// What is wrong with it, in Python's words.
    pub fn read(text: &str, pattern: &Regex) -> Result<Self, ReplacementError> {
        Reader {
            text: text.chars().collect(),
            at: 0,
            pattern,
            parts: Vec::new(),
        }
        .read()
    }

    /// Fills it from a match. A group that took no part in it is empty.
    #[must_use]
    pub fn expand(&self, found: &Captures<'_>) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Group(index) => found.get(*index).map_or("", |group| group.as_str()),
        });
        parts.collect()
    }
}

/// Finds the group that a number or a name stands for.
///
/// # Errors
/// The pattern has none such.
pub fn group(pattern: &Regex, name: &str) -> Result<usize, ReplacementError> {
    let index = match is_number(name) {
        true => name
            .parse()
            .ok()
            .filter(|index| *index < pattern.captures_len()),
        false => index_of(pattern, name),
    };
    index.ok_or_else(|| ReplacementError::NoName { name: name.into() })
}

fn index_of(pattern: &Regex, name: &str) -> Option<usize> {
    pattern
        .capture_names()
        .position(|known| known == Some(name))
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_octal(c: char) -> bool {
    ('0'..='7').contains(&c)
}

struct Reader<'p> {
    text: Vec<char>,
    at: usize,
    pattern: &'p Regex,
    parts: Vec<Part>,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Replacement, ReplacementError> {
        while let Some(c) = self.next() {
            match c {
                '\\' => self.escape()?,
                _ => self.push(c),
            }
        }
        Ok(Replacement(self.parts))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.text.get(self.at).copied()?;
        self.at += 1;
        Some(c)
    }

    fn next_if(&mut self, wanted: impl FnOnce(char) -> bool) -> Option<char> {
        let c = self.text.get(self.at).copied().filter(|c| wanted(*c))?;
        self.at += 1;
        Some(c)
    }

    fn push(&mut self, c: char) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => self.parts.push(Part::Text(c.into())),
        }
    }

    fn push_octal(&mut self, digits: &str) -> Option<()> {
        let byte = u8::from_str_radix(digits, 8).ok()?;
        self.push(char::from(byte));
        Some(())
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), ReplacementError> {
        let position = self.at - 1;
        let Some(c) = self.next() else {
            return Err(ReplacementError::LoneBackslash { position });
        };
        match c {
            'g' => self.named()?,
            '0' => {
                let mut digits = String::from(c);
                while digits.len() < 3
                    && let Some(digit) = self.next_if(is_octal)
                {
                    digits.push(digit);
                }
                // At most `\077`.
                let _ = self.push_octal(&digits);
            }
            '1'..='9' => self.numbered(c, position)?,
            'a' => self.push('\u{7}'),
            'b' => self.push('\u{8}'),
            'f' => self.push('\u{c}'),
            'n' => self.push('\n'),
            'r' => self.push('\r'),
            't' => self.push('\t'),
            'v' => self.push('\u{b}'),
            '\\' => self.push('\\'),
            c if c.is_ascii_alphabetic() => {
                let escape = format!("\\{c}");
                return Err(ReplacementError::BadEscape { escape, position });
            }
            // Python keeps both.
            c => {
                self.push('\\');
                self.push(c);
            }
        }
        Ok(())
    }

    /// One digit or two are a group, three octal ones a character.
    fn numbered(&mut self, first: char, position: usize) -> Result<(), ReplacementError> {
        let mut digits = String::from(first);
        if let Some(second) = self.next_if(|c| c.is_ascii_digit()) {
            digits.push(second);
            if is_octal(first)
                && is_octal(second)
                && let Some(third) = self.next_if(is_octal)
            {
                digits.push(third);
                let escape = format!("\\{digits}");
                return self
                    .push_octal(&digits)
                    .ok_or(ReplacementError::Octal { escape, position });
            }
        }
        self.group(digits, position + 1)
    }

    /// What follows `\g`.
    fn named(&mut self) -> Result<(), ReplacementError> {
        let missing = |what, position| Err(ReplacementError::Missing { what, position });
        if self.next_if(|c| c == '<').is_none() {
            return missing("<", self.at);
        }
        let position = self.at;
        let mut name = String::new();
        loop {
            match self.next() {
                Some('>') => break,
                Some(c) => name.push(c),
                None if name.is_empty() => return missing("group name", position),
                None => return missing(">, unterminated name", position),
            }
        }
        if name.is_empty() {
            return missing("group name", position);
        }
        if is_number(&name) {
            return self.group(name, position);
        }
        let mut characters = name.chars();
        let begins = characters
            .next()
            .is_some_and(|c| c == '_' || c.is_alphabetic());
        if !(begins && characters.all(|c| c == '_' || c.is_alphanumeric())) {
            return Err(ReplacementError::BadName { name, position });
        }
        match index_of(self.pattern, &name) {
            Some(index) => self.parts.push(Part::Group(index)),
            None => return Err(ReplacementError::NoName { name }),
        }
        Ok(())
    }

    fn group(&mut self, digits: String, position: usize) -> Result<(), ReplacementError> {
        match digits.parse::<usize>() {
            Ok(index) if index < self.pattern.captures_len() => {
                self.parts.push(Part::Group(index));
                Ok(())
            }
            // Written as Python prints a number.
            read => Err(ReplacementError::NoGroup {
                group: read.map_or(digits, |index| index.to_string()),
                position,
            }),
        }
    }
}

#[cfg(test)]
#[path = "python_regex_tests.rs"]
mod tests;
