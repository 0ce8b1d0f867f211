//! LDIF files that are read as one: `ldif_apply` and `ldif_verify` share them.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::LdapError;
use super::ldif::{Record, parse};
use super::substitute::{Substitution, Substitutions};
use crate::host::error::PathError;
use crate::host::files::durable::parent_of;
use crate::host::files::whole::sha256_of_argument;
use crate::task::context::TaskContext;

/// One file or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One.
    One(PathBuf),
    /// Several, in order.
    Several(Vec<PathBuf>),
}

/// Files, read and checked.
pub struct Script {
    /// Path, SHA-256, and how many records come before its own.
    pub files: Vec<(PathBuf, String, usize)>,
    /// All their records, in order.
    pub records: Vec<Record>,
}

impl Script {
    /// Returns the file of a record.
    #[must_use]
    pub fn file_of(&self, index: usize) -> &Path {
        let file = self.files.iter().rfind(|(_, _, before)| *before <= index);
        file.map_or(Path::new(""), |(path, ..)| path.as_path())
    }

    /// Names a record for people.
    #[must_use]
    pub fn name_of(&self, index: usize) -> String {
        let record = &self.records[index];
        let file = self.file_of(index).file_name().unwrap_or_default();
        let (line, change) = (record.line, record.change.word());
        format!("{}:{line}: {change} {}", file.to_string_lossy(), record.dn)
    }

    /// Returns the files with their SHA-256, for a result.
    #[must_use]
    pub fn described(&self) -> Vec<Value> {
        let one =
            |(path, sha256, _): &(PathBuf, String, usize)| json!({"path": path, "sha256": sha256});
        self.files.iter().map(one).collect()
    }
}

/// The arguments that say what is read.
pub struct Source<'a> {
    /// The files.
    pub paths: &'a Paths,
    /// SHA-256 of the only one.
    pub checksum: Option<&'a str>,
    /// What is put in the place of what.
    pub substitute: &'a [Substitution],
    /// Where relative `file:` values start.
    pub values_from: Option<&'a Path>,
}

impl Source<'_> {
    /// Returns the files' absolute paths.
    #[must_use]
    pub fn paths(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        match self.paths {
            Paths::One(path) => vec![ctx.resolve(path)],
            Paths::Several(paths) => paths.iter().map(|path| ctx.resolve(path)).collect(),
        }
    }

    /// Reads all files.
    ///
    /// # Errors
    /// A file is not there, is not the pinned one, or is not LDIF.
    pub fn read(&self, ctx: &TaskContext) -> Result<Script, LdapError> {
        let paths = self.paths(ctx);
        if paths.is_empty() {
            return Err(LdapError::argument("path", "names no file"));
        }
        if paths.len() > 1 && self.checksum.is_some() {
            return Err(LdapError::argument("checksum", "goes with one file only"));
        }
        let substitutions = Substitutions::new(self.substitute)?;
        let mut script = Script {
            files: Vec::new(),
            records: Vec::new(),
        };
        for path in paths {
            let bytes = std::fs::read(&path).map_err(PathError::on("read", &path))?;
            let sha256 = hex::encode(Sha256::digest(&bytes));
            self.must_be_pinned(&path, &sha256)?;
            let base = match self.values_from {
                Some(folder) => ctx.resolve(folder),
                None => parent_of(&path).to_path_buf(),
            };
            let records = parse(&bytes, &substitutions, &base).map_err(|source| {
                let path = path.clone();
                LdapError::Syntax { path, source }
            })?;
            script.files.push((path, sha256, script.records.len()));
            script.records.extend(records);
        }
        Ok(script)
    }

    fn must_be_pinned(&self, path: &Path, found: &str) -> Result<(), LdapError> {
        let Some(pinned) = self.checksum else {
            return Ok(());
        };
        let expected = sha256_of_argument(pinned).ok_or_else(|| {
            LdapError::argument("checksum", "is no SHA-256: 64 hex digits are expected")
        })?;
        if expected == found {
            return Ok(());
        }
        Err(LdapError::Checksum {
            path: path.to_path_buf(),
            expected,
            found: found.to_owned(),
        })
    }
}
