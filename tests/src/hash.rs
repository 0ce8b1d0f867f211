//! Names things by their content.

use sha2::{Digest, Sha256};

/// Collects the inputs of something and names it by them.
#[derive(Debug, Clone, Default)]
pub struct ContentHash(Sha256);

impl ContentHash {
    /// Adds one named input. Lengths go in too, so that inputs cannot run into each other.
    #[must_use]
    pub fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        for part in [name.as_bytes(), content] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Returns the first twelve digits: enough to tell a handful of versions apart.
    #[must_use]
    pub fn short(self) -> String {
        hex::encode(self.0.finalize())[..12].to_owned()
    }
}

/// Returns the SHA-256 of `content` in hexadecimal.
#[must_use]
pub fn sha256(content: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(content))
}
