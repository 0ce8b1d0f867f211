//! Proves a copied tree equal to its source.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};

use super::durable::{CHUNK_BYTES, Identity, mode_of};
use super::error::{FilesError, FilesResult};
use super::walk::TreeSize;
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::error::PathError;

/// What the spool says instead of a hash when the blocks are shared.
pub const SHARED: [u8; 32] = [0; 32];

/// Compares a copy, which has reached the disk, with its source and with the hashes that were taken when
/// the source was read (regular files in walking order, a file with several names once).
///
/// # Errors
/// [`FilesError::CopyDiffers`], [`FilesError::ChangedMeanwhile`], [`ModuleError::Cancelled`], or what
/// the system said.
pub fn verify_tree(
    from: &Path,
    to: &Path,
    size: TreeSize,
    hashes: File,
    ctx: &HostContext,
) -> FilesResult<()> {
    let mut verify = Verify {
        ctx,
        size,
        done_bytes: 0,
        content_too: true,
        seen: HashMap::new(),
        hashes: BufReader::new(hashes),
        buffer: vec![0; CHUNK_BYTES],
    };
    verify.entry(from, to)?;
    // Reading everything back took a while; what was compared first may have changed since.
    verify.content_too = false;
    verify.seen.clear();
    verify.entry(from, to)
}

/// Returns the names in a directory in walking order.
///
/// # Errors
/// When it cannot be listed.
pub fn sorted_names(dir: &Path) -> FilesResult<Vec<std::ffi::OsString>> {
    let mut names = fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(PathError::on("list", dir))?;
    names.sort_unstable();
    Ok(names)
}

/// Walks source and copy side by side: every entry is there, nothing else is, the source is what it
/// was when it was read, and the content on the disk has the hash of what was read.
struct Verify<'a> {
    ctx: &'a HostContext,
    size: TreeSize,
    done_bytes: u64,
    content_too: bool,
    seen: HashMap<Identity, Identity>,
    hashes: BufReader<File>,
    buffer: Vec<u8>,
}

impl Verify<'_> {
    fn entry(&mut self, from: &Path, to: &Path) -> FilesResult<()> {
        let source = fs::symlink_metadata(from).map_err(PathError::on("inspect", from))?;
        let copy = fs::symlink_metadata(to).map_err(PathError::on("inspect", to))?;
        let differs = |what: &str| FilesError::CopyDiffers {
            path: to.to_path_buf(),
            what: what.to_owned(),
        };
        if source.file_type() != copy.file_type() {
            return Err(differs("its kind").into());
        }
        if (source.uid(), source.gid()) != (copy.uid(), copy.gid()) {
            return Err(differs("its owner").into());
        }
        if !source.is_symlink() && mode_of(&source) != mode_of(&copy) {
            return Err(differs("its mode").into());
        }
        if !source.is_dir() && source.nlink() > 1 {
            let first = self.seen.insert(Identity::of(&source), Identity::of(&copy));
            if let Some(first) = first {
                return if first == Identity::of(&copy) {
                    Ok(())
                } else {
                    Err(differs("its hard links").into())
                };
            }
        }
        // The copy carries the time that the source had when it was read.
        if (source.mtime(), source.mtime_nsec()) != (copy.mtime(), copy.mtime_nsec()) {
            return Err(changed(from, "its modification time is another"));
        }
        if source.is_dir() {
            let names = sorted_names(from)?;
            if names != sorted_names(to)? {
                return Err(differs("the names in it").into());
            }
            for name in names {
                self.entry(&from.join(&name), &to.join(&name))?;
            }
        } else if source.is_symlink() {
            let target = |path: &Path| fs::read_link(path).map_err(PathError::on("read", path));
            if target(from)? != target(to)? {
                return Err(differs("its target").into());
            }
        } else if source.is_file() {
            if source.len() != copy.len() {
                return Err(differs("its size").into());
            }
            if self.content_too {
                self.content(to, copy.len())?;
            }
        } else if source.rdev() != copy.rdev() {
            return Err(differs("its device").into());
        }
        Ok(())
    }

    fn content(&mut self, to: &Path, length: u64) -> FilesResult<()> {
        let mut expected = [0; 32];
        self.hashes
            .read_exact(&mut expected)
            .map_err(PathError::on("read the hashes of", to))?;
        if expected == SHARED {
            self.advance(length);
            return Ok(());
        }
        let mut file = File::open(to).map_err(PathError::on("open", to))?;
        // Read what the disk has, not what memory still remembers of it. Only advice: no matter if not.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let mut hash = Sha256::new();
        loop {
            if self.ctx.cancel.is_cancelled() {
                return Err(ModuleError::Cancelled);
            }
            let count = file
                .read(&mut self.buffer)
                .map_err(PathError::on("read", to))?;
            if count == 0 {
                break;
            }
            hash.update(&self.buffer[..count]);
            self.advance(count as u64);
        }
        if hash.finalize()[..] != expected {
            return Err(FilesError::CopyDiffers {
                path: to.to_path_buf(),
                what: "its SHA-256".into(),
            }
            .into());
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        let total = self.size.bytes;
        self.ctx
            .progress
            .bytes(total + self.done_bytes, Some(total * 2));
    }
}

/// Makes the error for a source that is no longer what it was.
pub fn changed(path: &Path, what: &str) -> ModuleError {
    FilesError::ChangedMeanwhile {
        path: path.to_path_buf(),
        what: what.to_owned(),
    }
    .into()
}
