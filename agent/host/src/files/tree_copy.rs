//! Copies a tree with everything that makes it what it is: owner, mode, times, extended attributes,
//! hard links, symbolic links, special files and holes. Then proves the copy equal.
//!
//! The source's content is hashed while it is read; the hashes wait in an unnamed file in walking
//! order (a tree of millions of files must not cost memory), and after everything has reached the disk
//! the copy is read back against them.
//!
//! What an earlier, killed attempt copied is kept where it is the source's, chunk by chunk: it is compared,
//! not believed (`tree_resume.rs`), and what differs is copied again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode as NixMode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek, syncfs};
use sha2::{Digest, Sha256};

use super::attributes::{Attributes, apply_to_path};
use super::durable::{CHUNK_BYTES, Identity, mode_of, parent_of};
use super::error::FilesResult;
use super::tree_resume::{Earlier, hard_link_to, make_way, remove_strangers};
use super::tree_verify::{SHARED, changed, sorted_names, verify_tree};
use super::walk::{TreeSize, tree_size};
use crate::context::HostContext;
use crate::error::ModuleError;
use crate::error::PathError;

/// What a copy holds, and how its content got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// What the source held.
    pub size: TreeSize,
    /// Files that share the source's blocks.
    pub reflinked: u64,
    /// Bytes that were written.
    pub copied_bytes: u64,
    /// Bytes that an earlier attempt had written, and that are the source's.
    pub kept_bytes: u64,
}

/// Copies `from` to `to`, makes it durable, and verifies it. At `to` may be what an earlier attempt at this
/// very copy left; it is completed. On an error or when cancelled, what was copied stays: for the caller
/// to remove, or for a later attempt to complete.
///
/// # Errors
/// [`ModuleError::Cancelled`]; `FilesError::ChangedMeanwhile` when the source changed;
/// `FilesError::CopyDiffers`; or what the system said.
pub fn copy_tree(from: &Path, to: &Path, ctx: &HostContext) -> FilesResult<Copied> {
    let size = tree_size(from, ctx)?;
    let spool = tempfile::tempfile_in(parent_of(to))
        .map_err(PathError::on("create a temporary file in", parent_of(to)))?;
    let mut copy = Copy {
        ctx,
        size,
        done_bytes: 0,
        reflinked: 0,
        copied_bytes: 0,
        kept_bytes: 0,
        reflink_works: true,
        links: HashMap::new(),
        hashes: BufWriter::new(spool),
        spool_path: parent_of(to).to_path_buf(),
    };
    copy.entry(from, to)?;
    let mut spool = copy
        .hashes
        .into_inner()
        .map_err(|error| PathError::on("write", &copy.spool_path)(error.into_error()))?;
    // One call for the whole filesystem: an fsync a file would cost hours for a PACS archive.
    let root = File::open(parent_of(to)).map_err(PathError::on("open", parent_of(to)))?;
    syncfs(&root).map_err(|error| PathError::on("sync the filesystem of", to)(error.into()))?;

    spool
        .rewind()
        .map_err(PathError::on("read", &copy.spool_path))?;
    verify_tree(from, to, size, spool, ctx)?;
    Ok(Copied {
        size,
        reflinked: copy.reflinked,
        copied_bytes: copy.copied_bytes,
        kept_bytes: copy.kept_bytes,
    })
}

struct Copy<'a> {
    ctx: &'a HostContext,
    size: TreeSize,
    done_bytes: u64,
    reflinked: u64,
    copied_bytes: u64,
    kept_bytes: u64,
    reflink_works: bool,
    /// First copy of each source file that has several names.
    links: HashMap<Identity, PathBuf>,
    hashes: BufWriter<File>,
    spool_path: PathBuf,
}

impl Copy<'_> {
    fn entry(&mut self, from: &Path, to: &Path) -> FilesResult<()> {
        if self.ctx.cancel.is_cancelled() {
            return Err(ModuleError::Cancelled);
        }
        let meta = fs::symlink_metadata(from).map_err(PathError::on("inspect", from))?;
        let there = make_way(&meta, to)?;
        if meta.nlink() > 1 && !meta.is_dir() {
            if let Some(first) = self.links.get(&Identity::of(&meta)) {
                return hard_link_to(first, to, there);
            }
            self.links.insert(Identity::of(&meta), to.to_path_buf());
        }
        let kind = meta.file_type();
        if kind.is_dir() {
            if there {
                remove_strangers(from, to)?;
            } else {
                // Nobody else may look in before the mode is set, last of all.
                fs::DirBuilder::new()
                    .mode(0o700)
                    .create(to)
                    .map_err(PathError::on("create", to))?;
            }
            for name in sorted_names(from)? {
                self.entry(&from.join(&name), &to.join(&name))?;
            }
        } else if kind.is_file() {
            self.file(from, to, &meta, there)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(from).map_err(PathError::on("read", from))?;
            symlink(target, to).map_err(PathError::on("create", to))?;
        } else {
            let format = SFlag::from_bits_truncate(meta.mode()) & SFlag::S_IFMT;
            mknod(to, format, NixMode::from_bits_truncate(0o600), meta.rdev())
                .map_err(|error| PathError::on("create", to)(error.into()))?;
        }
        copy_attributes(from, to, &meta)
    }

    fn file(
        &mut self,
        from: &Path,
        to: &Path,
        meta: &fs::Metadata,
        there: bool,
    ) -> FilesResult<()> {
        let mut source = File::open(from).map_err(PathError::on("open", from))?;
        let target = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(!there)
            .mode(0o600)
            .open(to)
            .map_err(PathError::on("create", to))?;
        let hash = if self.reflink(&source, &target) {
            self.reflinked += 1;
            self.advance(meta.len());
            SHARED
        } else {
            self.content(&mut source, &target, from, to, meta.len())?
        };
        self.hashes
            .write_all(&hash)
            .map_err(PathError::on("write", &self.spool_path))?;
        Ok(())
    }

    /// Shares the blocks where the filesystem can; asks once, as the answer is the same for all.
    fn reflink(&mut self, source: &File, target: &File) -> bool {
        self.reflink_works =
            self.reflink_works && rustix::fs::ioctl_ficlone(target, source).is_ok();
        self.reflink_works
    }

    /// Copies data and leaves holes; returns the hash of the whole content, holes read as zeros.
    fn content(
        &mut self,
        source: &mut File,
        target: &File,
        from: &Path,
        to: &Path,
        length: u64,
    ) -> FilesResult<[u8; 32]> {
        let mut hash = Sha256::new();
        let size = CHUNK_BYTES.min(usize::try_from(length.max(1)).unwrap_or(CHUNK_BYTES));
        let mut buffer = vec![0; size];
        let mut earlier = Earlier::of(target, to)?;
        let mut at = 0;
        while at < length {
            let (data, hole) = next_data(source, at, length);
            hash_zeros(&mut hash, data - at);
            self.advance(data - at);
            earlier.must_be_hole(target, to, at, data)?;
            source
                .seek(SeekFrom::Start(data))
                .map_err(PathError::on("read", from))?;
            at = data;
            while at < hole {
                if self.ctx.cancel.is_cancelled() {
                    return Err(ModuleError::Cancelled);
                }
                let most = usize::try_from(hole - at)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let count = source
                    .read(&mut buffer[..most])
                    .map_err(PathError::on("read", from))?;
                if count == 0 {
                    return Err(changed(from, "it became shorter"));
                }
                let chunk = &buffer[..count];
                if earlier.has(target, at, chunk) {
                    self.kept_bytes += count as u64;
                } else {
                    target
                        .write_all_at(chunk, at)
                        .map_err(PathError::on("write", to))?;
                    self.copied_bytes += count as u64;
                }
                hash.update(chunk);
                at += count as u64;
                self.advance(count as u64);
            }
        }
        target.set_len(length).map_err(PathError::on("write", to))?;
        Ok(hash.finalize().into())
    }

    fn advance(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        // Copying and verifying are one bar: twice the content.
        self.ctx
            .progress
            .bytes(self.done_bytes, Some(self.size.bytes * 2));
    }
}

/// Returns where the next data at or after `at` begin and end; filesystems without holes are all data.
fn next_data(file: &File, at: u64, length: u64) -> (u64, u64) {
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        lseek(file, from, whence)
    };
    match seek(at, Whence::SeekData) {
        Ok(data) => {
            let data = u64::try_from(data).unwrap_or(at).clamp(at, length);
            let hole = seek(data, Whence::SeekHole)
                .ok()
                .and_then(|hole| u64::try_from(hole).ok())
                .unwrap_or(length);
            (data, hole.clamp(data, length))
        }
        Err(nix::errno::Errno::ENXIO) => (length, length),
        Err(_) => (at, length),
    }
}

fn hash_zeros(hash: &mut Sha256, mut count: u64) {
    let zeros = [0; 8192];
    while count > 0 {
        let most = count.min(zeros.len() as u64);
        hash.update(&zeros[..usize::try_from(most).unwrap_or(zeros.len())]);
        count -= most;
    }
}

/// Owner first (changing it clears set-id bits and capabilities), then extended attributes, mode, times.
fn copy_attributes(from: &Path, to: &Path, meta: &fs::Metadata) -> FilesResult<()> {
    lchown(to, Some(meta.uid()), Some(meta.gid()))
        .map_err(PathError::on("change the owner of", to))?;
    copy_xattrs(from, to)?;
    if !meta.is_symlink() {
        let attributes = Attributes {
            mode: Some(mode_of(meta)),
            ..Attributes::default()
        };
        apply_to_path(to, &attributes)?;
    }
    utimensat(
        nix::fcntl::AT_FDCWD,
        to,
        &TimeSpec::new(meta.atime(), meta.atime_nsec()),
        &TimeSpec::new(meta.mtime(), meta.mtime_nsec()),
        UtimensatFlags::NoFollowSymlink,
    )
    .map_err(|error| PathError::on("set the times of", to)(error.into()))?;
    Ok(())
}

fn xattr_names(path: &Path) -> FilesResult<Vec<Vec<u8>>> {
    let mut list = vec![0; 64 * 1024];
    match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(length) => Ok(list[..length]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()),
        // Filesystems without extended attributes, and kernels that hide them on special files.
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::PERM) => Ok(Vec::new()),
        Err(error) => {
            Err(PathError::on("read the extended attributes of", path)(error.into()).into())
        }
    }
}

fn copy_xattrs(from: &Path, to: &Path) -> FilesResult<()> {
    for name in xattr_names(from)? {
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(from, &name[..], &mut value[..]).map_err(|error| {
            PathError::on("read the extended attributes of", from)(error.into())
        })?;
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::lsetxattr(to, &name[..], &value[..length], flags);
        // The host's policy labels the copy; a filesystem without labels is no loss.
        if set == Err(rustix::io::Errno::NOTSUP) && name == b"security.selinux" {
            continue;
        }
        set.map_err(|error| PathError::on("set the extended attributes of", to)(error.into()))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "tree_copy_tests.rs"]
pub mod tests;
