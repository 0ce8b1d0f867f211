//! Which filesystem a path lies on, told in a way that a reboot does not change.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

/// Where udev keeps the UUIDs of filesystems.
const BY_UUID: &str = "/dev/disk/by-uuid";

/// Returns a name that a filesystem keeps for its life, and nothing where none can be told.
///
/// For ext2 to ext4 and btrfs it is `f_fsid` of statfs(2), which the kernel makes of the filesystem's UUID
/// (and of the subvolume's number): it needs no rights, no udev, and is the same in a container. Elsewhere
/// that number may be the device's (XFS), which changes; there the UUID that udev found counts. Reading the
/// superblock would need the right to read the whole disk.
pub fn lasting_name(path: &Path) -> Option<String> {
    let kind = statfs(path).ok()?.filesystem_type();
    if kind == EXT4_SUPER_MAGIC || kind == BTRFS_SUPER_MAGIC {
        // The C libraries differ in what they make of the upper half.
        let id = statvfs(path).ok()?.filesystem_id() & 0xffff_ffff;
        return (id != 0).then(|| format!("fsid:{id:08x}"));
    }
    let device = fs::metadata(path).ok()?.dev();
    fs::read_dir(BY_UUID).ok()?.flatten().find_map(|entry| {
        let meta = fs::metadata(entry.path()).ok()?;
        let is_it = meta.file_type().is_block_device() && meta.rdev() == device;
        is_it.then(|| format!("uuid:{}", entry.file_name().to_string_lossy()))
    })
}
