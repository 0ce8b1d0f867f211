//! Copies a tree with everything that makes it what it is: owner, mode, times, extended attributes,
//! hard links, symbolic links, special files and holes. Then proves the copy equal.
//!
//! The source's content is hashed while it is read; the hashes wait in an unnamed file in walking
//! order (a tree of millions of files must not cost memory), and after everything has reached the disk
//! the copy is read back against them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{Mode as NixMode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Whence, lseek, syncfs};
use sha2::{Digest, Sha256};

use super::attributes::{Attributes, apply_to_path};
use super::durable::{CHUNK_BYTES, Identity, mode_of, parent_of};
use super::error::{FilesError, FilesResult};
use super::walk::{TreeSize, tree_size};
use crate::modules::error::PathError;
use crate::modules::{ModuleError, TaskContext};

/// What a copy holds, and how its content got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// What the source held.
    pub size: TreeSize,
    /// Files that share the source's blocks.
    pub reflinked: u64,
}

/// Copies `from` to `to`, which must not exist, makes it durable, and verifies it. On an error or when
/// cancelled, what was copied stays for the caller to remove.
///
/// # Errors
/// [`ModuleError::Cancelled`]; [`FilesError::ChangedMeanwhile`] when the source changed;
/// [`FilesError::CopyDiffers`]; or what the system said.
pub fn copy_tree(from: &Path, to: &Path, ctx: &TaskContext) -> FilesResult<Copied> {
    let size = tree_size(from, ctx)?;
    let spool = tempfile::tempfile_in(parent_of(to))
        .map_err(PathError::on("create a temporary file in", parent_of(to)))?;
    let mut copy = Copy {
        ctx,
        size,
        done_bytes: 0,
        reflinked: 0,
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
    let mut verify = Verify {
        ctx,
        size,
        done_bytes: 0,
        content_too: true,
        seen: HashMap::new(),
        hashes: BufReader::new(spool),
        buffer: vec![0; CHUNK_BYTES],
    };
    verify.entry(from, to)?;
    // Reading everything back took a while; what was compared first may have changed since.
    verify.content_too = false;
    verify.seen.clear();
    verify.entry(from, to)?;
    Ok(Copied {
        size,
        reflinked: copy.reflinked,
    })
}

/// What the spool says instead of a hash when the blocks are shared.
const SHARED: [u8; 32] = [0; 32];

struct Copy<'a> {
    ctx: &'a TaskContext,
    size: TreeSize,
    done_bytes: u64,
    reflinked: u64,
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
        if meta.nlink() > 1 && !meta.is_dir() {
            if let Some(first) = self.links.get(&Identity::of(&meta)) {
                return Ok(fs::hard_link(first, to).map_err(PathError::on("link", to))?);
            }
            self.links.insert(Identity::of(&meta), to.to_path_buf());
        }
        let kind = meta.file_type();
        if kind.is_dir() {
            // Nobody else may look in before the mode is set, last of all.
            fs::DirBuilder::new()
                .mode(0o700)
                .create(to)
                .map_err(PathError::on("create", to))?;
            for name in sorted_names(from)? {
                self.entry(&from.join(&name), &to.join(&name))?;
            }
        } else if kind.is_file() {
            self.file(from, to, &meta)?;
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

    fn file(&mut self, from: &Path, to: &Path, meta: &fs::Metadata) -> FilesResult<()> {
        let mut source = File::open(from).map_err(PathError::on("open", from))?;
        let target = OpenOptions::new()
            .write(true)
            .create_new(true)
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
        let mut buffer =
            vec![0; CHUNK_BYTES.min(usize::try_from(length.max(1)).unwrap_or(CHUNK_BYTES))];
        let mut at = 0;
        while at < length {
            let (data, hole) = next_data(source, at, length);
            hash_zeros(&mut hash, data - at);
            self.advance(data - at);
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
                target
                    .write_all_at(&buffer[..count], at)
                    .map_err(PathError::on("write", to))?;
                hash.update(&buffer[..count]);
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

fn sorted_names(dir: &Path) -> FilesResult<Vec<std::ffi::OsString>> {
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

/// Walks source and copy side by side: every entry is there, nothing else is, the source is what it
/// was when it was read, and the content on the disk has the hash of what was read.
struct Verify<'a> {
    ctx: &'a TaskContext,
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

fn changed(path: &Path, what: &str) -> ModuleError {
    FilesError::ChangedMeanwhile {
        path: path.to_path_buf(),
        what: what.to_owned(),
    }
    .into()
}

#[cfg(test)]
#[path = "tree_copy_tests.rs"]
pub(super) mod tests;
