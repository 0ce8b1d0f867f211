//! What an earlier attempt at the same copy left: nothing of it is believed. Names, kinds and links are
//! brought in order, content is compared with the source's and only what is equal stays.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::durable::{CHUNK_BYTES, Identity, metadata_of, remove_if_there};
use super::error::FilesResult;
use super::tree_verify::sorted_names;
use crate::error::PathError;

/// Removes what has the name and cannot become the copy of `source`; returns whether something stays.
/// Only directories, and files with no other name unless the source has several, can stay.
pub fn make_way(source: &fs::Metadata, to: &Path) -> FilesResult<bool> {
    let Some(found) = metadata_of(to)? else {
        return Ok(false);
    };
    let kept = if source.is_dir() {
        found.is_dir()
    } else {
        source.is_file() && found.is_file() && (source.nlink() > 1 || found.nlink() == 1)
    };
    if !kept {
        remove_if_there(to)?;
    }
    Ok(kept)
}

/// Gives the first copy of a file with several names one more name.
pub fn hard_link_to(first: &Path, to: &Path, there: bool) -> FilesResult<()> {
    if there {
        if Identity::at(to)? == Identity::at(first)? {
            return Ok(());
        }
        remove_if_there(to)?;
    }
    Ok(fs::hard_link(first, to).map_err(PathError::on("link", to))?)
}

/// Removes what is in the copy of a directory and not in the directory.
pub fn remove_strangers(from: &Path, to: &Path) -> FilesResult<()> {
    let wanted = sorted_names(from)?;
    for name in sorted_names(to)? {
        if wanted.binary_search(&name).is_err() {
            remove_if_there(&to.join(name))?;
        }
    }
    Ok(())
}

/// What a file held before this attempt.
pub struct Earlier {
    /// Its bytes; shrinks to zero where they cannot be of use.
    length: u64,
    buffer: Vec<u8>,
}

impl Earlier {
    /// Looks at what is there at `to`, open as `target`.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn of(target: &File, to: &Path) -> FilesResult<Self> {
        let meta = target.metadata().map_err(PathError::on("inspect", to))?;
        let buffer = if meta.len() == 0 {
            Vec::new()
        } else {
            vec![0; CHUNK_BYTES]
        };
        Ok(Self {
            length: meta.len(),
            buffer,
        })
    }

    /// Tells whether these bytes stand there already.
    pub fn has(&mut self, target: &File, at: u64, chunk: &[u8]) -> bool {
        if at + chunk.len() as u64 > self.length {
            return false;
        }
        let Some(buffer) = self.buffer.get_mut(..chunk.len()) else {
            return false;
        };
        // What cannot be read is written again.
        target.read_exact_at(buffer, at).is_ok() && buffer == chunk
    }

    /// Makes a hole of what the source has as one: an earlier write, or a crash, may have left data.
    pub fn must_be_hole(
        &mut self,
        target: &File,
        to: &Path,
        from: u64,
        until: u64,
    ) -> FilesResult<()> {
        let until = until.min(self.length);
        if from >= until {
            return Ok(());
        }
        let offset = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(target, flags, offset(from), offset(until - from)) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                // No holes here: what follows is written anew.
                target.set_len(from).map_err(PathError::on("write", to))?;
                self.length = from;
                Ok(())
            }
            Err(error) => Err(PathError::on("write", to)(error.into()).into()),
        }
    }
}
