//! Changes that survive a power loss: whole files by temporary file and rename, renames that never
//! overwrite, and the questions one asks of a filesystem before trusting it with data.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::attributes::{self, Attributes};
use super::blocking::detached;
use super::error::{FilesError, FilesResult};
use crate::error::ModuleError;
use crate::error::PathError;

/// Size of the pieces in which files are read; cancelling takes at most one piece.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Which file it is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

impl Identity {
    /// Reads it from metadata.
    #[must_use]
    pub fn of(meta: &fs::Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
        }
    }

    /// Returns the identity of what has this name (a link itself, not its target), if anything has.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn at(path: &Path) -> Result<Option<Self>, PathError> {
        Ok(metadata_of(path)?.as_ref().map(Self::of))
    }
}

/// Returns the metadata of what has this name, links not followed; `None` where nothing has.
///
/// # Errors
/// When the system cannot tell.
pub fn metadata_of(path: &Path) -> Result<Option<fs::Metadata>, PathError> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(PathError::on("inspect", path)(error)),
    }
}

/// Tells whether an error means that nothing has the name.
#[must_use]
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Returns the folder that holds a path; `/` for the root itself.
#[must_use]
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ if path.is_absolute() => Path::new("/"),
        _ => Path::new("."),
    }
}

/// Returns the name of an attempt's own left-over beside `target`, e.g. `.data.partial-run-1-7`.
/// Nobody else makes such names, so `recover` may remove what it finds there.
#[must_use]
pub fn sibling(target: &Path, kind: &str, attempt: &str) -> PathBuf {
    let mut name = OsString::from(".");
    let own = target.file_name().unwrap_or_default().as_bytes();
    // NAME_MAX is 255 bytes; the kind and attempt must fit too.
    name.push(OsString::from_vec(own[..own.len().min(120)].to_vec()));
    let attempt: String = attempt
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let attempt = if attempt.len() > 64 {
        hex::encode(&Sha256::digest(attempt.as_bytes())[..16])
    } else {
        attempt
    };
    name.push(format!(".{kind}-{attempt}"));
    parent_of(target).join(name)
}

/// Makes a directory's entries durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn fsync_dir(dir: &Path) -> Result<(), PathError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(PathError::on("sync", dir))
}

/// Makes durable whatever a program has written, wherever that is: sync(2), which on Linux waits for the
/// disks.
///
/// # Errors
/// [`ModuleError::Cancelled`]; the disks go on meanwhile.
pub async fn sync_everything(cancel: &CancellationToken) -> FilesResult<()> {
    tokio::select! {
        () = cancel.cancelled() => Err(ModuleError::Cancelled),
        // A dead network filesystem must not hold up the agent's end.
        synced = detached("sync", nix::unistd::sync) => synced,
    }
}

/// Renames without ever overwriting: renameat2(2) with RENAME_NOREPLACE.
///
/// # Errors
/// `EXIST` where something is there; `INVAL` or `NOSYS` where the filesystem or the kernel cannot do it.
pub fn rename_exclusive(from: &Path, to: &Path) -> Result<(), rustix::io::Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// Renames without ever overwriting, and makes both directories durable.
///
/// # Errors
/// [`FilesError::TargetExists`] when the target exists, [`FilesError::NoSafeRename`] where the
/// filesystem lacks the operation, else what the system said.
pub fn rename_noreplace(from: &Path, to: &Path) -> FilesResult<()> {
    match rename_exclusive(from, to) {
        Ok(()) => {}
        Err(rustix::io::Errno::EXIST) => {
            let found = metadata_of(to)?.map_or("something", |meta| kind_of(&meta));
            return Err(FilesError::TargetExists {
                path: to.to_path_buf(),
                found,
            }
            .into());
        }
        // The kernel says EINVAL for a directory moved into itself, too.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.starts_with(from) => {
            return Err(FilesError::NoSafeRename {
                path: to.to_path_buf(),
            }
            .into());
        }
        Err(error) => return Err(PathError::on("rename", from)(error.into()).into()),
    }
    fsync_dir(parent_of(to))?;
    if parent_of(from) != parent_of(to) {
        fsync_dir(parent_of(from))?;
    }
    Ok(())
}

/// Names a kind of file in words.
#[must_use]
pub fn kind_of(meta: &fs::Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_dir() {
        "directory"
    } else if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_file() {
        "file"
    } else {
        "special file"
    }
}

/// A file under construction beside its target. Dropped without [`PendingFile::commit`], it vanishes
/// and the target stays as it was.
#[derive(Debug)]
pub struct PendingFile {
    /// Open for writing.
    pub file: File,
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl PendingFile {
    /// Creates the temporary file, readable by its owner only.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(target: &Path, attempt: &str) -> FilesResult<Self> {
        let temporary = sibling(target, "partial", attempt);
        remove_if_there(&temporary)?;
        let file = OpenOptions::new()
            .write(true)
            .read(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(PathError::on("create", &temporary))?;
        Ok(Self {
            file,
            temporary,
            target: target.to_path_buf(),
            committed: false,
        })
    }

    /// Where the content is until it is committed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Sets owner and mode, syncs, takes the target's name, and syncs the directory.
    ///
    /// # Errors
    /// When any of that fails; the target is untouched then, unless syncing its directory failed.
    pub fn commit(mut self, attributes: &Attributes) -> FilesResult<()> {
        attributes::apply_to_file(&self.file, &self.temporary, attributes)?;
        self.file
            .sync_all()
            .map_err(PathError::on("sync", &self.temporary))?;
        fs::rename(&self.temporary, &self.target)
            .map_err(PathError::on("replace", &self.target))?;
        self.committed = true;
        Ok(fsync_dir(parent_of(&self.target))?)
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: `recover` of the next run removes it otherwise.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Removes what an interrupted attempt left beside `target`, and says whether there was something.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_partial(target: &Path, attempt: Option<&str>) -> Result<bool, PathError> {
    match attempt {
        Some(attempt) => remove_if_there(&sibling(target, "partial", attempt)),
        None => Ok(false),
    }
}

/// Removes a file, link or whole directory if it is there, and says whether it was.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<bool, PathError> {
    match metadata_of(path)? {
        None => return Ok(false),
        Some(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Some(_) => fs::remove_file(path),
    }
    .map_err(PathError::on("remove", path))?;
    Ok(true)
}

/// Reads a file to its end in pieces; `each` gets every piece.
///
/// # Errors
/// [`ModuleError::Cancelled`], or what reading or `each` said.
pub fn read_through(
    file: &mut impl Read,
    path: &Path,
    cancel: &CancellationToken,
    mut each: impl FnMut(&[u8]) -> FilesResult<()>,
) -> FilesResult<u64> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PathError::on("read", path)(error).into()),
        };
        total += count as u64;
        each(&buffer[..count])?;
    }
}

/// Returns the SHA-256 of a file in hex; `read` hears how many bytes each piece had.
///
/// # Errors
/// [`ModuleError::Cancelled`], or what reading said.
pub fn sha256_file(
    path: &Path,
    cancel: &CancellationToken,
    mut read: impl FnMut(u64),
) -> FilesResult<String> {
    let mut file = File::open(path).map_err(PathError::on("open", path))?;
    let mut hash = Sha256::new();
    read_through(&mut file, path, cancel, |piece| {
        hash.update(piece);
        read(piece.len() as u64);
        Ok(())
    })?;
    Ok(hex::encode(hash.finalize()))
}

/// Returns the nearest folder of `path` that exists (links followed), the path itself included.
#[must_use]
pub fn nearest_existing(path: &Path) -> PathBuf {
    let mut path = path;
    while !path.exists() {
        path = parent_of(path);
        if path == Path::new(".") || path == Path::new("/") {
            break;
        }
    }
    path.to_path_buf()
}

/// Returns the bytes that this process may still write on the filesystem of an existing path.
///
/// # Errors
/// When the system cannot tell.
pub fn free_bytes(path: &Path) -> Result<(u64, u64), PathError> {
    let stat = nix::sys::statvfs::statvfs(path)
        .map_err(|error| PathError::on("inspect the filesystem of", path)(error.into()))?;
    let unit = stat.fragment_size();
    // Blocks that are kept for root count for root alone.
    let blocks = if nix::unistd::geteuid().is_root() {
        stat.blocks_free()
    } else {
        stat.blocks_available()
    };
    Ok((
        blocks.saturating_mul(unit),
        stat.blocks().saturating_mul(unit),
    ))
}

/// Returns the permission bits of metadata, set-id and sticky bits included.
#[must_use]
pub fn mode_of(meta: &fs::Metadata) -> u32 {
    meta.permissions().mode() & 0o7777
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("temp dir");
        let target = dir.path().join("a.txt");
        fs::write(&target, "old").expect("write");
        let mut pending = PendingFile::create(&target, "run/1").expect("create");
        pending.file.write_all(b"half").expect("write");
        drop(pending);
        assert_eq!(fs::read(&target).expect("read"), b"old");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);

        let mut pending = PendingFile::create(&target, "run/1").expect("create");
        pending.file.write_all(b"new").expect("write");
        let attributes = Attributes {
            mode: Some(0o640),
            ..Attributes::default()
        };
        pending.commit(&attributes).expect("commit");
        assert_eq!(fs::read(&target).expect("read"), b"new");
        assert_eq!(mode_of(&fs::metadata(&target).expect("stat")), 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn a_rename_never_overwrites() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).expect("mkdir");
        // An empty directory is what rename(2) would silently replace.
        fs::create_dir(&b).expect("mkdir");
        let error = rename_noreplace(&a, &b).expect_err("b exists");
        assert!(
            error.to_string().contains("already exists (directory)"),
            "{error}"
        );
        fs::remove_dir(&b).expect("rmdir");
        rename_noreplace(&a, &b).expect("free now");
        assert!(!a.exists() && b.is_dir());
    }

    #[test]
    fn left_over_names_fit_and_differ_by_attempt() {
        let long = PathBuf::from("/x").join("n".repeat(255));
        let name = sibling(&long, "partial", &"a/".repeat(300));
        assert!(name.file_name().expect("name").len() <= 255);
        assert_ne!(
            sibling(&long, "partial", "r/1"),
            sibling(&long, "partial", "r/2")
        );
    }

    #[test]
    fn hashing_stops_when_cancelled() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("a");
        fs::write(&path, "abc").expect("write");
        let cancel = CancellationToken::new();
        assert_eq!(
            sha256_file(&path, &cancel, |_| {}).expect("hash"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        cancel.cancel();
        let stopped = sha256_file(&path, &cancel, |_| {});
        assert!(matches!(stopped, Err(ModuleError::Cancelled)));
    }
}
