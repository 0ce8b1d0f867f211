//! Owner, group and mode: what differs from what a task wants, and how it gets onto a file.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

use super::durable::mode_of;
use super::error::{FilesError, FilesResult};
use super::mode::{Mode, show_mode};
use crate::error::PathError;

/// What a file should have; `None` leaves it as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Owner, group and mode as a task names them, looked up on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Mode.
    pub mode: Option<Mode>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

impl Wanted {
    /// Looks the names up.
    ///
    /// # Errors
    /// When this host knows no such user or group.
    pub fn look_up(
        mode: Option<&Mode>,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> FilesResult<Self> {
        Ok(Self {
            mode: mode.cloned(),
            uid: owner.map(uid_of).transpose()?,
            gid: group.map(gid_of).transpose()?,
        })
    }

    /// Tells whether the task says nothing about them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what differs from what a file has, and the lines that say so.
    #[must_use]
    pub fn difference(&self, meta: &fs::Metadata) -> (Attributes, Vec<String>) {
        let mut change = Attributes::default();
        let mut lines = Vec::new();
        if let Some(uid) = self.uid.filter(|uid| *uid != meta.uid()) {
            lines.push(format!(
                "owner {} -> {}",
                user_name(meta.uid()),
                user_name(uid)
            ));
            change.uid = Some(uid);
        }
        if let Some(gid) = self.gid.filter(|gid| *gid != meta.gid()) {
            lines.push(format!(
                "group {} -> {}",
                group_name(meta.gid()),
                group_name(gid)
            ));
            change.gid = Some(gid);
        }
        // A link has no mode of its own.
        if let Some(mode) = self.mode.as_ref().filter(|_| !meta.is_symlink()) {
            let (old, new) = (mode_of(meta), mode.resolve(mode_of(meta), meta.is_dir()));
            if old != new {
                lines.push(format!("mode {} -> {}", show_mode(old), show_mode(new)));
                change.mode = Some(new);
            } else if (change.uid.is_some() || change.gid.is_some()) && new & 0o6000 != 0 {
                // Changing the owner clears the set-id bits.
                change.mode = Some(new);
            }
        }
        (change, lines)
    }

    /// Returns what a new file should get, given its mode where the task names none.
    #[must_use]
    pub fn for_new(&self, default_mode: u32, is_dir: bool) -> Attributes {
        Attributes {
            mode: Some(
                self.mode
                    .as_ref()
                    .map_or(default_mode, |mode| mode.resolve(default_mode, is_dir)),
            ),
            uid: self.uid,
            gid: self.gid,
        }
    }
}

/// Sets attributes of an open file. The owner first: changing it clears set-id bits.
///
/// # Errors
/// When the system refuses.
pub fn apply_to_file(file: &File, path: &Path, attributes: &Attributes) -> Result<(), PathError> {
    if attributes.uid.is_some() || attributes.gid.is_some() {
        fchown(file, attributes.uid, attributes.gid)
            .map_err(PathError::on("change the owner of", path))?;
    }
    if let Some(mode) = attributes.mode {
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(PathError::on("change the mode of", path))?;
    }
    Ok(())
}

/// Sets attributes of what has a name; a link's own owner, and never its target's mode.
///
/// # Errors
/// When the system refuses.
pub fn apply_to_path(path: &Path, attributes: &Attributes) -> Result<(), PathError> {
    if attributes.uid.is_some() || attributes.gid.is_some() {
        lchown(path, attributes.uid, attributes.gid)
            .map_err(PathError::on("change the owner of", path))?;
    }
    if let Some(mode) = attributes.mode {
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(PathError::on("change the mode of", path))?;
    }
    Ok(())
}

/// Returns the id of a user given by name or number.
///
/// # Errors
/// When this host knows no such user.
pub fn uid_of(name: &str) -> FilesResult<u32> {
    if let Ok(Some(user)) = User::from_name(name) {
        return Ok(user.uid.as_raw());
    }
    name.parse().map_err(|_| {
        FilesError::argument_with_help(
            format!("this host has no user `{name}`"),
            "create the user first, or give a numeric id",
        )
        .into()
    })
}

/// Returns the id of a group given by name or number.
///
/// # Errors
/// When this host knows no such group.
pub fn gid_of(name: &str) -> FilesResult<u32> {
    if let Ok(Some(group)) = Group::from_name(name) {
        return Ok(group.gid.as_raw());
    }
    name.parse().map_err(|_| {
        FilesError::argument_with_help(
            format!("this host has no group `{name}`"),
            "create the group first, or give a numeric id",
        )
        .into()
    })
}

/// Returns a user's name, or the number where there is none.
#[must_use]
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Returns a group's name, or the number where there is none.
#[must_use]
pub fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    }
}

/// Returns this process's umask, read from `/proc`: umask(2) can only tell by changing it, which
/// other threads would notice.
#[must_use]
pub fn umask() -> u32 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o022)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(uid_of("root").expect("root"), 0);
        assert_eq!(uid_of("54321").expect("number"), 54321);
        assert!(uid_of("no-such-user").is_err());
    }
}
