//! A file that was made.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A file that a task made and whose content its result vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content, hex.
    pub sha256: String,
}
