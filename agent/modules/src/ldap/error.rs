//! How modules for directories fail.

use std::path::PathBuf;

use serde_json::{Map, Value};
use thiserror::Error;

use super::ldif::SyntaxError;
use crate::host::error::{ModuleFailure, PathError};

/// A module of this family did not come to a good end.
#[derive(Debug, Error)]
pub enum LdapError {
    /// An argument makes no sense.
    #[error("argument `{argument}`: {message}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Nothing says where the directory is.
    #[error("find the LDAP server: {0}")]
    NoServer(String),
    /// The server cannot be reached, or the connection broke.
    #[error("{action} at {address}: {message}")]
    Connection {
        /// What was tried, e.g. `bind`.
        action: String,
        /// Host and port.
        address: String,
        /// What went wrong.
        message: String,
    },
    /// The server does not let this user in.
    #[error("bind to {address} as `{bind_dn}`: {message}")]
    InvalidCredentials {
        /// Host and port.
        address: String,
        /// Who.
        bind_dn: String,
        /// What the server said.
        message: String,
    },
    /// The server refused an operation.
    #[error("{action} `{dn}`: {result}")]
    Refused {
        /// What was tried, e.g. `modify`.
        action: &'static str,
        /// The entry.
        dn: String,
        /// Code, its name, and what the server said.
        result: RefusedBy,
    },
    /// A file is not LDIF.
    #[error("read {}:{source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        source: SyntaxError,
    },
    /// A file has another content than was pinned.
    #[error("use {}: its SHA-256 is {found}, {expected} is expected", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// What it should have.
        expected: String,
        /// What it has.
        found: String,
    },
    /// A record fits neither what the directory was before it nor what it is after it.
    #[error("apply {}:{line}: {change} `{dn}`: {found}", path.display())]
    Conflict {
        /// The file.
        path: PathBuf,
        /// Line of the record.
        line: usize,
        /// add, delete, modify, modrdn.
        change: &'static str,
        /// The entry.
        dn: String,
        /// What the directory holds.
        found: String,
        /// Records of the file that are in the directory already.
        already: usize,
        /// Records that this attempt applied before it met this one.
        applied: usize,
    },
    /// The server refused a record.
    #[error("apply {}:{line}: {change} `{dn}`: {result}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Line of the record.
        line: usize,
        /// add, delete, modify, modrdn.
        change: &'static str,
        /// The entry.
        dn: String,
        /// Code, its name, and what the server said.
        result: RefusedBy,
    },
    /// A record was applied, and the directory does not show its effect.
    #[error("find {}:{line}: {change} `{dn}` in the directory after it was applied: {found}", path.display())]
    NoEffect {
        /// The file.
        path: PathBuf,
        /// Line of the record.
        line: usize,
        /// add, delete, modify, modrdn.
        change: &'static str,
        /// The entry.
        dn: String,
        /// What the directory holds.
        found: String,
    },
    /// The directory does not hold what files make of it.
    #[error("find {} of {records} records in the directory, the first being {}", missing.len(), missing.first().map_or("none", String::as_str))]
    Missing {
        /// Records of the files.
        records: usize,
        /// Those that are not there.
        missing: Vec<String>,
    },
    /// A file is where the export should go.
    #[error("write {}: a file is there", .0.display())]
    DestExists(PathBuf),
    /// An export, read again, is not what the server sent.
    #[error("check the export {}: {message}", path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What differs.
        message: String,
    },
    /// A directory is not that of a slapd.
    #[error("find {file} in {}", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
        /// What should be in it.
        file: &'static str,
    },
    /// Somebody uses a slapd's directory.
    #[error("use {}: {by}", path.display())]
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
        /// Who.
        by: String,
    },
    /// A path.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// An LDAP result that is no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedBy {
    /// Result code of RFC 4511.
    pub code: u32,
    /// What the server said.
    pub text: String,
}

impl std::fmt::Display for RefusedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", name_of(self.code), self.code)?;
        if self.text.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.text)
        }
    }
}

/// Names of the result codes (RFC 4511, 4.1.9) that a directory's content can lead to.
fn name_of(code: u32) -> &'static str {
    match code {
        1 => "operations error",
        4 => "size limit exceeded",
        8 => "stronger authentication required",
        16 => "no such attribute",
        17 => "undefined attribute type",
        18 => "inappropriate matching",
        19 => "constraint violation",
        20 => "attribute or value exists",
        21 => "invalid syntax",
        32 => "no such object",
        34 => "invalid DN",
        49 => "invalid credentials",
        50 => "insufficient access",
        51 => "busy",
        52 => "unavailable",
        53 => "unwilling to perform",
        64 => "naming violation",
        65 => "object class violation",
        66 => "not allowed on an entry with children",
        67 => "not allowed on the entry's name",
        68 => "entry already exists",
        69 => "object class change not allowed",
        80 => "other error of the server",
        _ => "refused",
    }
}

impl LdapError {
    /// An argument makes no sense.
    pub fn argument(argument: &'static str, message: impl Into<String>) -> Self {
        Self::Argument {
            argument,
            message: message.into(),
        }
    }
}

impl ModuleFailure for LdapError {
    fn code(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "ldap::argument",
            Self::NoServer(_) => "ldap::no_server",
            Self::Connection { .. } => "ldap::connect",
            Self::InvalidCredentials { .. } => "ldap::invalid_credentials",
            Self::Refused { .. } | Self::Record { .. } => "ldap::refused",
            Self::Syntax { .. } => "ldap::syntax",
            Self::Checksum { .. } => "ldap::checksum",
            Self::Conflict { .. } => "ldap::conflict",
            Self::NoEffect { .. } => "ldap::no_effect",
            Self::Missing { .. } => "ldap::missing",
            Self::DestExists(_) => "ldap::dest_exists",
            Self::Export { .. } => "ldap::export",
            Self::NoDirectory { .. } => "ldap::data_directory_missing",
            Self::DirectoryInUse { .. } => "ldap::data_directory_in_use",
            Self::Path(error) => error.code(),
        }
    }

    fn is_refusal(&self) -> bool {
        matches!(self, Self::InvalidCredentials { .. })
    }

    fn help(&self) -> Option<String> {
        Some(match self {
            Self::NoServer(_) => {
                "put the task into a block with a service that publishes port 389, or give \
                 `server_uri: ldap://host:port`"
                    .into()
            }
            Self::Connection { .. } => {
                "see that slapd runs and that host and port are right; nothing is lost: the same \
                 command goes on where it stopped"
                    .into()
            }
            Self::InvalidCredentials { .. } => {
                "give the right `bind_pw` (and `bind_dn`). A directory that exists keeps the \
                 password that it was made with, whatever LDAP_ROOTPASS says"
                    .into()
            }
            Self::Refused { result, .. } | Self::Record { result, .. } => match result.code {
                17 | 21 | 65 => {
                    "the schema does not know this: was it updated before the data?".into()
                }
                32 => {
                    "the entry, or its parent, is not there: are base DN, device name and AE title \
                       those of this directory? Values of AE titles are case-exact"
                        .into()
                }
                50 => "bind as the administrator of this part of the directory".into(),
                _ => return None,
            },
            Self::Syntax { .. } => "nothing was applied; mend the file".into(),
            Self::Checksum { .. } => "get the file again; if the new content is right, change the \
                 pinned checksum"
                .into(),
            Self::Conflict { .. } => {
                "somebody has changed this entry, or the file is for another version. Bring the \
                 entry to what it was before this record, or to what the record makes of it, and \
                 run again: records that are there already are passed over"
                    .into()
            }
            Self::NoEffect { .. } => "look at the entry; is another program writing to it?".into(),
            Self::Missing { .. } => {
                "do not put this directory in place: the original is untouched. \
                 Look at the entries that `missing` names"
                    .into()
            }
            Self::DestExists(path) => format!(
                "move it away (`mv -n {0} {0}.old`) or choose another `dest`; it is never \
                 overwritten",
                path.display()
            ),
            Self::Export { .. } => {
                "do not change the directory without a backup: run it again, and \
                 look whether another program writes to the directory meanwhile"
                    .into()
            }
            Self::NoDirectory { .. } => {
                "is it the right place? Kaapana keeps `ldap` and `slapd.d` in \
                 FAST_DATA_DIR. In an empty one slapd would make a new, empty directory"
                    .into()
            }
            Self::DirectoryInUse { .. } => {
                "undeploy Kaapana first, and stop what else uses it".into()
            }
            Self::Path(error) => return error.help(),
            Self::Argument { .. } => return None,
        })
    }

    fn result(&self) -> Map<String, Value> {
        let mut map = Map::new();
        match self {
            Self::Refused { dn, result, .. } => {
                map.insert("dn".into(), dn.as_str().into());
                map.insert("result_code".into(), result.code.into());
            }
            Self::Record {
                line, dn, result, ..
            } => {
                map.insert("line".into(), (*line).into());
                map.insert("dn".into(), dn.as_str().into());
                map.insert("result_code".into(), result.code.into());
            }
            Self::Syntax { source, .. } => {
                map.insert("line".into(), source.line.into());
                map.insert("column".into(), source.column.into());
            }
            Self::Missing { missing, .. } => {
                let shown: Vec<Value> = missing
                    .iter()
                    .take(50)
                    .map(|name| name.as_str().into())
                    .collect();
                map.insert("missing".into(), shown.into());
            }
            Self::Conflict {
                line,
                dn,
                found,
                already,
                applied,
                ..
            } => {
                map.insert("line".into(), (*line).into());
                map.insert("dn".into(), dn.as_str().into());
                map.insert("found".into(), found.as_str().into());
                map.insert("already".into(), (*already).into());
                map.insert("applied".into(), (*applied).into());
            }
            _ => {}
        }
        map
    }
}
