//! A site's folder, held open: the marker is looked at and written in the very folder that was opened,
//! whatever its path leads to meanwhile, and no link in the marker's place is ever followed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, linkat, unlinkat};
use serde_json::Value;

use super::super::error::StateError;
use super::MARKER;
use super::error::SiteError;
use super::marker::{MARKER_VERSION, Marker};

/// A marker has some hundred bytes.
const LONGEST: u64 = 64 * 1024;

/// A site's folder.
pub(super) struct Folder {
    folder: File,
    marker: PathBuf,
}

impl Folder {
    /// Opens it; `None` where there is nothing of this name.
    pub(super) fn open(site: &Path) -> Result<Option<Self>, StateError> {
        let opened = File::options()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NONBLOCK).bits())
            .open(site);
        match opened {
            Ok(folder) => Ok(Some(Self {
                folder,
                marker: site.join(MARKER),
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::io("open the site", site)(error)),
        }
    }

    /// The marker, where there is one that can be trusted.
    pub(super) fn read(&self) -> Result<Option<Marker>, StateError> {
        let found = match fstatat(&self.folder, MARKER, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(self.failed("inspect", error)),
        };
        // A pipe or device is not even opened.
        if let Some(what) = not_a_file(&found) {
            return Err(SiteError::forged(&self.marker, what).into());
        }
        self.is_ours(found.st_uid, found.st_mode)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.folder, MARKER, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(SiteError::forged(&self.marker, "it is a link").into()),
            Err(error) => return Err(self.failed("open", error)),
        };
        // What was opened may be another one than what was inspected.
        let meta = file
            .metadata()
            .map_err(StateError::io("inspect", &self.marker))?;
        if !meta.is_file() {
            return Err(SiteError::forged(&self.marker, "it is no file").into());
        }
        self.is_ours(meta.uid(), meta.mode())?;
        let mut text = Vec::new();
        file.take(LONGEST)
            .read_to_end(&mut text)
            .map_err(StateError::io("read", &self.marker))?;
        self.parse(&text).map(Some)
    }

    /// Only what nobody else may write says anything.
    fn is_ours(&self, owner: u32, mode: u32) -> Result<(), StateError> {
        let own = Uid::effective();
        let what = if owner != own.as_raw() {
            format!("it belongs to uid {owner}, and the agent runs as uid {own}")
        } else if mode & 0o022 != 0 {
            format!("others may write to it (mode {:04o})", mode & 0o7777)
        } else {
            return Ok(());
        };
        Err(SiteError::forged(&self.marker, what).into())
    }

    fn parse(&self, text: &[u8]) -> Result<Marker, StateError> {
        let damaged = |error: serde_json::Error| SiteError::Damaged {
            marker: self.marker.clone(),
            why: error.to_string(),
        };
        let value: Value = serde_json::from_slice(text).map_err(damaged)?;
        match value["v"].as_u64() {
            Some(version) if version > MARKER_VERSION => Err(SiteError::Newer {
                marker: self.marker.clone(),
                version,
            }
            .into()),
            _ => Ok(serde_json::from_value(value).map_err(damaged)?),
        }
    }

    /// Name under which a state writes its marker until it is whole: two that do so at once do not meet.
    fn half(marker: &Marker) -> String {
        format!("{MARKER}.{}.partial", marker.state_id)
    }

    /// Makes the marker; false where one is there already. What has the name is whole and durable.
    pub(super) fn create(&self, marker: &Marker) -> Result<bool, StateError> {
        let half = self.write_half(marker)?;
        let (half, folder) = (half.as_str(), &self.folder);
        let linked = linkat(folder, half, folder, MARKER, AtFlags::empty());
        let removed = unlinkat(folder, half, UnlinkatFlags::NoRemoveDir);
        match linked {
            Ok(()) => removed.map_err(|error| self.failed("mark", error))?,
            Err(Errno::EEXIST) => return Ok(false),
            // A filesystem without hard links: the name is taken first, and gets its content at once.
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EMLINK) => {
                match self.new_file(MARKER) {
                    Ok(file) => self.fill(file.into(), marker)?,
                    Err(Errno::EEXIST) => return Ok(false),
                    Err(error) => return Err(self.failed("mark", error)),
                }
            }
            Err(error) => return Err(self.failed("mark", error)),
        }
        self.sync()?;
        Ok(true)
    }

    /// Puts the marker into the place of the one that is there.
    pub(super) fn replace(&self, marker: &Marker) -> Result<(), StateError> {
        let half = self.write_half(marker)?;
        renameat(&self.folder, half.as_str(), &self.folder, MARKER)
            .map_err(|error| self.failed("mark", error))?;
        self.sync()
    }

    /// Takes the marker away.
    pub(super) fn remove(&self) -> Result<(), StateError> {
        match unlinkat(&self.folder, MARKER, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => self.sync(),
            Err(error) => Err(self.failed("remove", error)),
        }
    }

    /// Writes the marker under its other name, durably. What a crash left there goes.
    fn write_half(&self, marker: &Marker) -> Result<String, StateError> {
        let half = Self::half(marker);
        let file = match self.new_file(&half) {
            Err(Errno::EEXIST) => {
                unlinkat(&self.folder, half.as_str(), UnlinkatFlags::NoRemoveDir)
                    .map_err(|error| self.failed("mark", error))?;
                self.new_file(&half)
            }
            made => made,
        };
        let file = file.map_err(|error| self.failed("mark", error))?;
        self.fill(file.into(), marker)?;
        Ok(half)
    }

    fn new_file(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    fn fill(&self, mut file: File, marker: &Marker) -> Result<(), StateError> {
        let written = serde_json::to_string_pretty(marker)
            .map_err(std::io::Error::from)
            .and_then(|text| writeln!(file, "{text}"))
            .and_then(|()| file.sync_all());
        written.map_err(StateError::io("mark", &self.marker))
    }

    fn sync(&self) -> Result<(), StateError> {
        self.folder
            .sync_all()
            .map_err(StateError::io("sync", &self.marker))
    }

    fn failed(&self, action: &'static str, error: Errno) -> StateError {
        StateError::io(action, &self.marker)(error.into())
    }
}

/// What a thing is that is no file.
fn not_a_file(stat: &FileStat) -> Option<&'static str> {
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFREG => None,
        SFlag::S_IFLNK => Some("it is a link"),
        SFlag::S_IFDIR => Some("it is a directory"),
        _ => Some("it is no file"),
    }
}
