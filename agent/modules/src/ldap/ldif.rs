//! LDIF (RFC 2849): text to records, each with the line that it starts on.
//!
//! More is accepted than the RFC has, as OpenLDAP's tools do: UTF-8 in values, no `version` line, a
//! `modify` whose last change has no closing `-` or that has no `changetype`. Controls and `increment` are
//! refused.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::ldif_lines::{Line, lines};
use super::substitute::Substitutions;

/// An attribute with its values, in the order of the file.
pub type Attribute = (String, Vec<Vec<u8>>);

/// One record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Line that its `dn` stands on, from 1.
    pub line: usize,
    /// The entry's name.
    pub dn: String,
    /// What is to be done with it.
    pub change: Change,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The entry is added.
    Add(Vec<Attribute>),
    /// The entry is removed.
    Delete,
    /// Attributes of the entry change, all of them or none.
    Modify(Vec<Modification>),
    /// The entry gets another name.
    Rename {
        /// The new first part of the name.
        new_rdn: String,
        /// Whether the value of the old first part goes.
        delete_old_rdn: bool,
        /// The new parent.
        new_superior: Option<String>,
    },
}

impl Change {
    /// Returns the word that LDIF has for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Delete => "delete",
            Self::Modify(_) => "modify",
            Self::Rename { .. } => "modrdn",
        }
    }
}

/// One change of one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modification {
    /// What is done with the values.
    pub kind: ModificationKind,
    /// The attribute.
    pub attribute: String,
    /// The values; none with `Delete` and `Replace` means the whole attribute.
    pub values: Vec<Vec<u8>>,
}

/// What a modification does with its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModificationKind {
    /// They are added.
    Add,
    /// They are taken away.
    Delete,
    /// They take the place of what is there.
    Replace,
}

/// A file is not LDIF; `line` and `column` count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct SyntaxError {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads records; `base` is the folder that relative `file:` values start at.
///
/// # Errors
/// The first place that is not LDIF, or a value's file that cannot be read.
pub fn parse(
    bytes: &[u8],
    substitutions: &Substitutions,
    base: &Path,
) -> Result<Vec<Record>, SyntaxError> {
    let mut lines = lines(bytes)?;
    for line in &mut lines {
        line.text = substitutions.apply(&line.text);
    }
    let mut records = Vec::new();
    let mut first = true;
    for block in lines.split(Line::is_blank) {
        let mut reader = Reader {
            lines: block,
            at: 0,
            base,
        };
        if first && !block.is_empty() {
            first = false;
            reader.version()?;
        }
        if reader.peek().is_some() {
            records.push(reader.record()?);
        }
    }
    Ok(records)
}

/// Reads the lines of one record.
struct Reader<'a> {
    lines: &'a [Line],
    at: usize,
    base: &'a Path,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Line> {
        self.lines.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Line> {
        let line = self.peek()?;
        self.at += 1;
        Some(line)
    }

    fn version(&mut self) -> Result<(), SyntaxError> {
        let Some(line) = self.peek() else {
            return Ok(());
        };
        let (name, value) = self.pair(line)?;
        if !name.eq_ignore_ascii_case("version") {
            return Ok(());
        }
        self.at += 1;
        if value == b"1" {
            Ok(())
        } else {
            Err(line.error(name.len() + 1, "only version 1 of LDIF is known"))
        }
    }

    fn record(&mut self) -> Result<Record, SyntaxError> {
        let Some(line) = self.next() else {
            return Err(SyntaxError {
                line: 1,
                column: 1,
                message: "a record is expected".into(),
            });
        };
        let (name, value) = self.pair(line)?;
        if !name.eq_ignore_ascii_case("dn") {
            return Err(line.error(
                0,
                format!("a record starts with `dn:`, and here is `{name}`"),
            ));
        }
        let dn = self.text(line, value)?;
        let change = self.change(line)?;
        match self.peek() {
            Some(rest) => Err(rest.error(
                0,
                "the record should be at its end here: a blank line parts two records",
            )),
            None => Ok(Record {
                line: line.number,
                dn,
                change,
            }),
        }
    }

    fn change(&mut self, dn: &Line) -> Result<Change, SyntaxError> {
        let Some(line) = self.peek() else {
            return Err(dn.error(dn.text.len(), "the record has a `dn` and nothing else"));
        };
        let (name, value) = self.pair(line)?;
        if name.eq_ignore_ascii_case("control") {
            return Err(line.error(0, "controls are not supported"));
        }
        if !name.eq_ignore_ascii_case("changetype") {
            // The RFC has no such record; ldapmodify takes it for a change, and files in use rely on it.
            let is_change = ["add", "delete", "replace", "increment"]
                .iter()
                .any(|word| name.eq_ignore_ascii_case(word));
            return if is_change {
                self.modifications(line).map(Change::Modify)
            } else {
                self.attributes().map(Change::Add)
            };
        }
        self.at += 1;
        let value = self.text(line, value)?;
        match value.to_ascii_lowercase().as_str() {
            "add" => match self.attributes()? {
                attributes if attributes.is_empty() => Err(line.error(
                    line.text.len(),
                    "an entry without attributes cannot be added",
                )),
                attributes => Ok(Change::Add(attributes)),
            },
            "delete" => Ok(Change::Delete),
            "modify" => self.modifications(line).map(Change::Modify),
            "modrdn" | "moddn" => self.rename(line),
            _ => Err(line.error(
                name.len() + 1,
                format!("`{value}` is no change: add, delete, modify or modrdn is expected"),
            )),
        }
    }

    fn attributes(&mut self) -> Result<Vec<Attribute>, SyntaxError> {
        let mut attributes: Vec<Attribute> = Vec::new();
        while let Some(line) = self.next() {
            let (name, value) = self.pair(line)?;
            match attributes
                .iter_mut()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
            {
                Some((_, values)) => values.push(value),
                None => attributes.push((name.to_owned(), vec![value])),
            }
        }
        Ok(attributes)
    }

    fn modifications(&mut self, start: &Line) -> Result<Vec<Modification>, SyntaxError> {
        let mut modifications = Vec::new();
        while let Some(line) = self.next() {
            let (word, value) = self.pair(line)?;
            let kind = match word.to_ascii_lowercase().as_str() {
                "add" => ModificationKind::Add,
                "delete" => ModificationKind::Delete,
                "replace" => ModificationKind::Replace,
                "increment" => {
                    let message = "`increment` is not supported: nothing would tell whether it was done already";
                    return Err(line.error(0, message));
                }
                _ => {
                    let message = format!(
                        "`{word}` is no change of an attribute: add, delete or replace is expected"
                    );
                    return Err(line.error(0, message));
                }
            };
            let attribute = self.text(line, value)?;
            let mut values = Vec::new();
            while let Some(line) = self.next() {
                if line.text.trim_end() == "-" {
                    break;
                }
                let (name, value) = self.pair(line)?;
                if !name.eq_ignore_ascii_case(&attribute) {
                    let message = format!(
                        "a value of `{attribute}` or a line with `-` is expected, and here is `{name}`"
                    );
                    return Err(line.error(0, message));
                }
                values.push(value);
            }
            if values.is_empty() && kind == ModificationKind::Add {
                return Err(line.error(line.text.len(), "there is no value to add"));
            }
            modifications.push(Modification {
                kind,
                attribute,
                values,
            });
        }
        if modifications.is_empty() {
            return Err(start.error(start.text.len(), "the record changes nothing"));
        }
        Ok(modifications)
    }

    fn rename(&mut self, start: &Line) -> Result<Change, SyntaxError> {
        let new_rdn = self.named(start, "newrdn")?;
        let delete = self.named(start, "deleteoldrdn")?;
        let delete_old_rdn = match delete.as_str() {
            "0" => false,
            "1" => true,
            _ => {
                let line = &self.lines[self.at - 1];
                return Err(line.error(line.text.len(), "0 or 1 is expected"));
            }
        };
        let new_superior = match self.peek() {
            Some(_) => Some(self.named(start, "newsuperior")?),
            None => None,
        };
        Ok(Change::Rename {
            new_rdn,
            delete_old_rdn,
            new_superior,
        })
    }

    fn named(&mut self, start: &Line, expected: &str) -> Result<String, SyntaxError> {
        let Some(line) = self.next() else {
            return Err(start.error(start.text.len(), format!("`{expected}:` is missing")));
        };
        let (name, value) = self.pair(line)?;
        if name.eq_ignore_ascii_case(expected) {
            self.text(line, value)
        } else {
            Err(line.error(
                0,
                format!("`{expected}:` is expected, and here is `{name}`"),
            ))
        }
    }

    /// Cuts a line into its name and its value, which may be in base64 or in a file.
    fn pair(&self, line: &'a Line) -> Result<(&'a str, Vec<u8>), SyntaxError> {
        let text = &line.text;
        let Some(colon) = text.find(':') else {
            return Err(line.error(0, "`name: value` is expected"));
        };
        let name = &text[..colon];
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-;._".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            let wrong = name.find(|c| !allowed(c)).unwrap_or(0);
            return Err(line.error(wrong, "the name of an attribute is expected"));
        }
        let rest = &text[colon + 1..];
        let skip = |rest: &'a str| rest.trim_start_matches(' ');
        if let Some(encoded) = rest.strip_prefix(':') {
            let encoded = skip(encoded);
            let start = text.len() - encoded.len();
            let value = STANDARD.decode(encoded.trim_end()).map_err(|error| {
                let offset = match error {
                    base64::DecodeError::InvalidByte(offset, _)
                    | base64::DecodeError::InvalidLastSymbol(offset, _) => offset,
                    _ => encoded.trim_end().len(),
                };
                line.error(start + offset, "this is not base64")
            })?;
            return Ok((name, value));
        }
        if let Some(url) = rest.strip_prefix('<') {
            let url = skip(url);
            let start = text.len() - url.len();
            return self.file_value(line, start, url).map(|value| (name, value));
        }
        Ok((name, skip(rest).as_bytes().to_vec()))
    }

    fn file_value(&self, line: &Line, start: usize, url: &str) -> Result<Vec<u8>, SyntaxError> {
        let Some(path) = url.trim_end().strip_prefix("file:") else {
            return Err(line.error(start, "only `file:` values are read"));
        };
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        let path = if path.is_absolute() {
            path
        } else {
            self.base.join(path)
        };
        std::fs::read(&path).map_err(|error| {
            line.error(
                start,
                format!(
                    "the value is in {}, which cannot be read: {error}",
                    path.display()
                ),
            )
        })
    }

    fn text(&self, line: &Line, value: Vec<u8>) -> Result<String, SyntaxError> {
        String::from_utf8(value)
            .map(|text| text.trim_end().to_owned())
            .map_err(|_| line.error(0, "the value is no UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Record>, SyntaxError> {
        parse(text.as_bytes(), &Substitutions::default(), Path::new("/"))
    }

    #[test]
    fn every_kind_of_record_is_read() {
        let dir = tempfile::tempdir().expect("temp dir");
        std::fs::write(dir.path().join("data.bin"), [0xff, 0]).expect("write");
        let text = "version: 1\r\n# a remark\n  over two lines\ndn: cn=a,dc=x\nobjectClass: top\ncn:: w7Y=\n\
            description: long\n er\nblob:< file:data.bin\n\n\ndn:: Y249YixkYz14\nchangetype: modify\n\
            add: m\nm: 1\nm: 2\n-\ndelete: n\n-\nreplace: o\no:\n\n\
            dn: cn=c,dc=x\nchangetype: delete\n\n\
            dn: cn=d,dc=x\nchangetype: modrdn\nnewrdn: cn=e\ndeleteoldrdn: 1\nnewsuperior: dc=y\n";
        let records = parse(text.as_bytes(), &Substitutions::default(), dir.path()).expect("valid");
        let lines: Vec<usize> = records.iter().map(|record| record.line).collect();
        assert_eq!(lines, [4, 12, 23, 26]);
        let value = |text: &str| text.as_bytes().to_vec();
        assert_eq!(
            records[0].change,
            Change::Add(vec![
                ("objectClass".into(), vec![value("top")]),
                ("cn".into(), vec![value("ö")]),
                ("description".into(), vec![value("longer")]),
                ("blob".into(), vec![vec![0xff, 0]]),
            ])
        );
        assert_eq!(records[1].dn, "cn=b,dc=x");
        let Change::Modify(changes) = &records[1].change else {
            panic!("{:?}", records[1]);
        };
        let shapes: Vec<(ModificationKind, usize)> = changes
            .iter()
            .map(|change| (change.kind, change.values.len()))
            .collect();
        assert_eq!(
            shapes,
            [
                (ModificationKind::Add, 2),
                (ModificationKind::Delete, 0),
                (ModificationKind::Replace, 1)
            ]
        );
        assert_eq!(
            records[3].change,
            Change::Rename {
                new_rdn: "cn=e".into(),
                delete_old_rdn: true,
                new_superior: Some("dc=y".into())
            }
        );
    }

    #[test]
    fn a_change_without_its_type_is_one_as_for_ldapmodify() {
        let records = read("dn: cn=a\nadd: m\nm: 1\n\ndn: cn=b\nm: 1\n").expect("valid");
        assert_eq!(records[0].change.word(), "modify");
        assert_eq!(records[1].change.word(), "add");
    }

    #[test]
    fn mistakes_have_a_line_and_a_column() {
        for (text, line, column, message) in [
            ("dn: cn=a\nchangetype: ad\n", 2, 12, "no change"),
            ("cn: a\n", 1, 1, "starts with `dn:`"),
            ("dn: cn=a\n", 1, 9, "nothing else"),
            ("dn: cn=a\ncn\n", 2, 1, "`name: value`"),
            ("dn: cn=a\ncn:: w7%=\n", 2, 8, "not base64"),
            ("dn: cn=a\nlong:: w7Y9\n  w7%=\n", 3, 2, "not base64"),
            ("dn: cn=a\nc n: a\n", 2, 2, "name of an attribute"),
            (
                "dn: cn=a\nchangetype: modify\nadd: m\nn: 1\n",
                4,
                1,
                "a value of `m`",
            ),
            (
                "dn: cn=a\nchangetype: modify\nadd: m\n-\n",
                3,
                7,
                "no value to add",
            ),
            (
                "dn: cn=a\nchangetype: modify\nincrement: m\nm: 1\n",
                3,
                1,
                "not supported",
            ),
            (
                "dn: cn=a\nchangetype: modrdn\nnewrdn: cn=b\n",
                2,
                19,
                "`deleteoldrdn:` is missing",
            ),
            ("dn: cn=a\nchangetype: delete\ncn: a\n", 3, 1, "blank line"),
            ("dn: cn=a\ncn:< http://x\n", 2, 6, "only `file:`"),
            (
                "dn: cn=a\ncn:< file:/no/such/file\n",
                2,
                6,
                "cannot be read",
            ),
            ("dn: cn=a\ncn: a\n\n continued\n", 4, 1, "goes on"),
            ("version: 2\n\ndn: cn=a\ncn: a\n", 1, 9, "version 1"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(
                (error.line, error.column),
                (line, column),
                "{text}: {error}"
            );
            assert!(error.message.contains(message), "{text}: {error}");
        }
        let error = parse(
            b"dn: cn=a\ncn: a\xff\n",
            &Substitutions::default(),
            Path::new("/"),
        );
        assert_eq!(error.map_err(|e| (e.line, e.column)), Err((2, 6)));
    }
}
