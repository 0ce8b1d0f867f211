//! Files that a module writes: whole or not at all, and synced.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::digest::copy_hashed;
use super::durable::{fsync_dir, parent_of, rename_exclusive};
use crate::error::PathError;
use crate::output_file::OutputFile;

/// Writes a file beside its place, syncs it, and renames it there. Mode 0600.
///
/// # Errors
/// A step fails; what was there before is still there.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<OutputFile, PathError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".write-")
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(PathError::on("write into", folder))?;
    file.write_all(content)
        .map_err(PathError::on("write", path))?;
    file.as_file()
        .sync_all()
        .map_err(PathError::on("sync", path))?;
    file.persist(path)
        .map_err(|error| PathError::on("rename into place", path)(error.error))?;
    fsync_dir(parent_of(path))?;
    Ok(OutputFile {
        path: path.to_path_buf(),
        size: content.len() as u64,
        sha256: hex::encode(Sha256::digest(content)),
    })
}

/// Renames a file to a place where nothing may be yet.
///
/// # Errors
/// Something is there (`AlreadyExists`), or the rename fails.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_exclusive(from, to) {
        // Some filesystems (NFS) do not know the flag. The gap is ours alone: one run at a time.
        Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => std::fs::rename(from, to),
        Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
        result => result.map_err(io::Error::from),
    }
}

/// Returns size and SHA-256 of a file; `advance` hears how far it is.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Path, advance: impl FnMut(u64)) -> Result<(u64, String), PathError> {
    let mut file = File::open(path).map_err(PathError::on("open", path))?;
    copy_hashed(&mut file, &mut io::sink(), advance).map_err(PathError::on("read", path))
}

/// Reads a checksum argument, `sha256:<hex>` or plain hex; returns lower-case hex.
#[must_use]
pub fn sha256_of_argument(text: &str) -> Option<String> {
    let hex = text
        .trim()
        .strip_prefix("sha256:")
        .unwrap_or(text.trim())
        .to_ascii_lowercase();
    (hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "a").expect("write");
        std::fs::write(&b, "b").expect("write");
        let error = rename_new(&a, &b).expect_err("b is there");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        std::fs::remove_file(&b).expect("remove");
        rename_new(&a, &b).expect("free now");
        assert_eq!(hash_file(&b, |_| {}).expect("hash").0, 1);
    }

    #[test]
    fn checksums_come_in_two_spellings() {
        let hex = "A".repeat(64);
        assert_eq!(
            sha256_of_argument(&format!("sha256:{hex}")),
            Some("a".repeat(64))
        );
        assert_eq!(sha256_of_argument(&hex), Some("a".repeat(64)));
        assert_eq!(sha256_of_argument("sha256:12"), None);
    }
}
