//! What a snapshot of a database holds, and its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key_ranges::KeyRanges;

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSnapshot {
    /// Number of rows.
    pub rows: u64,
    /// Checksum of all columns of all rows, whatever their order. Comparable where `kept_columns` are the
    /// same: it is made of what these give.
    pub checksum: String,
    /// Sums of the same by ranges of the primary key: they tell where a difference lies. Small tables have
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<KeyRanges>,
    /// Checksum of the columns that no later script changes; only for tables named in
    /// `changed_columns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The columns that `kept` covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_columns: Option<Vec<String>>,
    /// Sums of `kept` by ranges of the primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_ranges: Option<KeyRanges>,
    /// Checksum of all columns with values in the place of NULLs, where scripts that are anticipated
    /// fill these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<String>,
    /// The values that `filled` has for NULLs, by column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_columns: Option<BTreeMap<String, String>>,
    /// Sums of `filled` by ranges of the primary key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_ranges: Option<KeyRanges>,
    /// Columns with their types, `not null` added where it applies.
    pub columns: BTreeMap<String, String>,
    /// Number of indexes.
    #[serde(default)]
    pub indexes: u64,
    /// Number of constraints: primary and foreign keys, unique, check, exclusion.
    #[serde(default)]
    pub constraints: u64,
    /// Size on disk with indexes when it was read; does not count in comparisons.
    #[serde(default)]
    pub size_bytes: u64,
}

/// One sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceSnapshot {
    /// Last value.
    pub last_value: i64,
    /// Whether it has been handed out.
    pub is_called: bool,
}

/// A database at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Database.
    #[serde(default)]
    pub db: String,
    /// Version of the server.
    #[serde(default)]
    pub server_version: String,
    /// Tables by `schema.name`.
    pub tables: BTreeMap<String, TableSnapshot>,
    /// Sequences by `schema.name`.
    #[serde(default)]
    pub sequences: BTreeMap<String, SequenceSnapshot>,
    /// SHA-256 over all tables' rows, checksums and columns, and all sequences.
    #[serde(default)]
    pub digest: String,
}

impl Snapshot {
    /// Rows of all tables.
    #[must_use]
    pub fn total_rows(&self) -> u64 {
        self.tables.values().map(|table| table.rows).sum()
    }

    /// Computes the digest over what makes two databases equal; sizes do not.
    #[must_use]
    pub fn compute_digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut line = |parts: &[&str]| {
            for part in parts {
                // Lengths keep the parts apart whatever they hold.
                hasher.update((part.len() as u64).to_be_bytes());
                hasher.update(part.as_bytes());
            }
        };
        for (name, table) in &self.tables {
            line(&["table", name, &table.rows.to_string(), &table.checksum]);
            for (column, kind) in &table.columns {
                line(&["column", column, kind]);
            }
        }
        for (name, sequence) in &self.sequences {
            let called = if sequence.is_called {
                "called"
            } else {
                "fresh"
            };
            line(&["sequence", name, &sequence.last_value.to_string(), called]);
        }
        hex::encode(hasher.finalize())
    }
}

/// Splits `schema.name`; a bare name is in `public`.
#[must_use]
pub fn qualified(name: &str) -> String {
    if name.contains('.') {
        name.to_owned()
    } else {
        format!("public.{name}")
    }
}
