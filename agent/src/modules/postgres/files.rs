//! Files that a module writes: whole or not at all, and synced.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::modules::error::PathError;
use crate::modules::module::OutputFile;

/// Syncs the directory that holds `path`, so that a rename in it lasts.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> Result<(), PathError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(PathError::on("sync", folder))
}

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
    sync_parent(path)?;
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
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
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
pub fn hash_file(path: &Path, mut advance: impl FnMut(u64)) -> Result<(u64, String), PathError> {
    let mut file = File::open(path).map_err(PathError::on("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    let mut total = 0;
    loop {
        let size = file
            .read(&mut buffer)
            .map_err(PathError::on("read", path))?;
        if size == 0 {
            return Ok((total, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..size]);
        total += size as u64;
        advance(total);
    }
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
