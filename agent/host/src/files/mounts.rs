//! Which mount a path is on, read from `/proc/self/mountinfo`. Device numbers alone do not tell: two
//! bind mounts of one filesystem share a device, and still no rename crosses them.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::durable::{nearest_existing, parent_of};
use crate::error::PathError;

/// A mounted filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory or file of the filesystem that is seen there.
    root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Type, e.g. `ext4`.
    pub kind: String,
    /// What is mounted, e.g. `/dev/sda1`.
    pub device: String,
    id: u64,
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, {})",
            self.point.display(),
            self.kind,
            self.device
        )
    }
}

/// All mounts that this process sees, in the order they were mounted.
#[derive(Debug, Clone)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Reads them.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn read() -> Result<Self, PathError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read(path).map_err(PathError::on("read", path))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &[u8]) -> Self {
        Self(
            text.split(|byte| *byte == b'\n')
                .filter_map(mount_of_line)
                .collect(),
        )
    }

    /// Returns the mount that a path is on, or would be on; links are followed.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<&Mount> {
        let nearest = nearest_existing(path);
        let path = fs::canonicalize(&nearest).unwrap_or(nearest);
        self.0
            .iter()
            .enumerate()
            .filter(|(_, mount)| path.starts_with(&mount.point))
            // A later mount on the same place hides the earlier one.
            .max_by_key(|(order, mount)| (mount.point.components().count(), *order))
            .map(|(_, mount)| mount)
    }

    /// Returns the mount of the name itself: the one its folder is on.
    #[must_use]
    pub fn of_entry(&self, path: &Path) -> Option<&Mount> {
        self.of(parent_of(path))
    }

    /// Tells whether a rename between these two names can work.
    #[must_use]
    pub fn same_for_rename(&self, from: &Path, to: &Path) -> bool {
        match (self.of_entry(from), self.of_entry(to)) {
            (Some(from), Some(to)) => from.id == to.id,
            _ => false,
        }
    }

    /// Returns the mount points at and below a path.
    #[must_use]
    pub fn at_or_below(&self, path: &Path) -> Vec<&Mount> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        self.0
            .iter()
            .filter(|mount| mount.point.starts_with(&path))
            .collect()
    }

    /// Returns the id of the container that this process runs in, where Docker made it: its `/etc/hostname`
    /// lies in a folder of that name.
    #[must_use]
    pub fn own_container(&self) -> Option<&str> {
        let mut mounts = self.0.iter();
        let hostname = mounts.find(|mount| mount.point == Path::new("/etc/hostname"))?;
        let id = hostname.root.parent()?.file_name()?.to_str()?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(id)
    }

    /// Describes the mount that a path is on.
    #[must_use]
    pub fn describe(&self, path: &Path) -> String {
        self.of(path)
            .map_or_else(|| "an unknown mount".into(), ToString::to_string)
    }
}

/// proc_pid_mountinfo(5): id, parent, device, root, point, options, optional fields, `-`, type, source.
fn mount_of_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let id = std::str::from_utf8(fields.first()?).ok()?.parse().ok()?;
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(Mount {
        id,
        root: PathBuf::from(OsString::from_vec(unescape(fields.get(3)?))),
        point: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        kind: text(fields.get(dash + 1)?),
        device: text(fields.get(dash + 2)?),
    })
}

/// Blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail
            .get(..3)
            .filter(|d| d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match (first, digits) {
            (b'\\', Some(d)) => {
                let value = d.iter().fold(0u32, |sum, c| sum * 8 + u32::from(c - b'0'));
                out.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_told_from_the_others_that_are_seen() {
        let id = "ab".repeat(32);
        let other =
            format!("77 28 0:51 / /var/lib/docker/containers/{id}/mounts/shm rw - tmpfs shm rw\n");
        assert_eq!(Mounts::parse(other.as_bytes()).own_container(), None);
        let own = format!(
            "612 600 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
        );
        let mounts = Mounts::parse(format!("{other}{own}").as_bytes());
        assert_eq!(mounts.own_container(), Some(id.as_str()));
        let host = "30 1 254:1 /etc/hostname /etc/hostname rw - ext4 /dev/vda rw\n";
        assert_eq!(Mounts::parse(host.as_bytes()).own_container(), None);
    }

    #[test]
    fn the_longest_and_latest_mount_wins() {
        let mounts = Mounts::parse(
            b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
              2 1 8:2 / /proc\\040x rw shared:1 - ext4 /dev/b rw\n\
              3 1 0:5 / /proc rw - proc proc rw\n\
              4 1 0:5 / /proc rw - tmpfs later rw\n",
        );
        assert_eq!(mounts.0[1].point, Path::new("/proc x"));
        let mount = mounts.of(Path::new("/proc/no/such")).expect("found");
        assert_eq!(mount.to_string(), "/proc (tmpfs, later)");
        assert!(!mounts.same_for_rename(Path::new("/proc/a"), Path::new("/b")));
        assert_eq!(mounts.at_or_below(Path::new("/proc")).len(), 2);
    }
}
