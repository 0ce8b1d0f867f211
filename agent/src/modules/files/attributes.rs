//! Owner, group and mode: how playbooks write them, and how they get onto a file.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, lchown};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::durable::mode_of;
use super::error::{FilesError, FilesResult};
use crate::modules::error::PathError;

/// A mode as Ansible takes it: an octal number (`0644`, read by YAML as 420), octal text (`"0644"`),
/// or symbolic text (`u=rwX,g=rX,o=`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Permission bits.
    Bits(u32),
    /// Changes to the bits that are there.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode, e.g. `ug+rX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Bits of the classes that it is about, set-id and sticky included.
    classes: u32,
    /// `+`, `-` or `=`.
    operator: char,
    /// `rwxXst`, or one of `ugo` to copy from.
    permissions: String,
}

impl Mode {
    /// Returns the bits that a file with the bits `current` should have.
    #[must_use]
    pub fn resolve(&self, current: u32, is_dir: bool) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Symbolic(clauses) => clauses
                .iter()
                .fold(current, |bits, clause| clause.apply(bits, is_dir)),
        }
    }

    /// Reads text.
    ///
    /// # Errors
    /// The text says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.strip_prefix("0o").unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return u32::from_str_radix(digits, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
                .map(Self::Bits)
                .ok_or_else(|| format!("`{text}` is not an octal mode up to 7777"));
        }
        text.split(',')
            .map(Clause::parse)
            .collect::<Option<Vec<_>>>()
            .map(Self::Symbolic)
            .ok_or_else(|| {
                format!(
                    "`{text}` is neither an octal mode (\"0644\") nor a symbolic one (u=rw,g=r)"
                )
            })
    }

    fn from_number(number: u64) -> Result<Self, String> {
        // Decimal 512 to 777 is `644` or `755` without the leading zero; as bits it would be a sticky
        // file that its owner cannot read, which nobody means.
        if (512..=777).contains(&number) {
            return Err(format!(
                "{number} is a decimal number; write 0{number} or \"0{number}\""
            ));
        }
        u32::try_from(number)
            .ok()
            .filter(|bits| *bits <= 0o7777)
            .map(Self::Bits)
            .ok_or_else(|| format!("{number} is not a mode up to 07777"))
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Self> {
        let at = text.find(['+', '-', '='])?;
        let (who, rest) = text.split_at(at);
        let mut classes = 0;
        for class in who.chars() {
            classes |= match class {
                'u' => 0o4700,
                'g' => 0o2070,
                'o' => 0o1007,
                'a' => 0o7777,
                _ => return None,
            };
        }
        let operator = rest.chars().next()?;
        let permissions = &rest[1..];
        let plain = permissions.chars().all(|c| "rwxXst".contains(c));
        let copy = permissions.len() == 1 && "ugo".contains(permissions);
        (plain || copy).then(|| Self {
            classes: if classes == 0 { 0o7777 } else { classes },
            operator,
            permissions: permissions.to_owned(),
        })
    }

    fn apply(&self, current: u32, is_dir: bool) -> u32 {
        let mut wanted = 0;
        for permission in self.permissions.chars() {
            wanted |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || current & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => (current >> 6 & 7) * 0o111,
                'g' => (current >> 3 & 7) * 0o111,
                'o' => (current & 7) * 0o111,
                _ => 0,
            };
        }
        wanted &= self.classes;
        match self.operator {
            '+' => current | wanted,
            '-' => current & !wanted,
            // Like chmod(1): `=` leaves the set-id bits of directories alone unless they are named.
            _ => {
                let kept = if is_dir { 0o6000 & current } else { 0 };
                current & !self.classes | wanted | kept & self.classes
            }
        }
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModeVisitor;
        impl Visitor<'_> for ModeVisitor {
            type Value = Mode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode such as 0644, \"0644\" or u=rw,g=r")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Mode, E> {
                Mode::from_number(number).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Mode, E> {
                Mode::from_number(u64::try_from(number).unwrap_or(u64::MAX)).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Mode, E> {
                Mode::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(ModeVisitor)
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bits(bits) => serializer.serialize_str(&show_mode(*bits)),
            Self::Symbolic(clauses) => serializer.collect_str(&format_args!("{clauses:?}")),
        }
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": 4095}, {"type": "string"}],
            "examples": ["0644", "u=rwX,g=rX,o="]
        })
    }
}

/// Writes bits as Ansible's `stat` does, e.g. `0644`.
#[must_use]
pub fn show_mode(bits: u32) -> String {
    format!("{bits:04o}")
}

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

    fn mode(text: &str) -> Mode {
        Mode::parse(text).expect("valid")
    }

    #[test]
    fn modes_are_read_as_number_octal_text_and_symbols() {
        assert_eq!(
            serde_json::from_str::<Mode>("420").expect("number"),
            Mode::Bits(0o644)
        );
        assert_eq!(
            serde_json::from_str::<Mode>("\"0755\"").expect("text"),
            Mode::Bits(0o755)
        );
        assert_eq!(mode("u=rwX,g=rX,o=").resolve(0o666, false), 0o640);
        assert_eq!(mode("u=rwX,g=rX,o=").resolve(0o666, true), 0o750);
        assert_eq!(mode("g-w,o+x").resolve(0o664, false), 0o645);
        assert_eq!(mode("g=u").resolve(0o741, false), 0o771);
        assert_eq!(mode("u+s,+t").resolve(0o755, false), 0o5755);
        assert!(Mode::parse("rw").is_err());
        assert!(Mode::parse("0998").is_err());
    }

    #[test]
    fn a_mode_without_its_zero_is_refused() {
        let error = serde_json::from_str::<Mode>("755").expect_err("decimal");
        assert!(error.to_string().contains("write 0755"), "{error}");
        let error = serde_json::from_str::<Mode>("10000").expect_err("too large");
        assert!(error.to_string().contains("not a mode"), "{error}");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(uid_of("root").expect("root"), 0);
        assert_eq!(uid_of("54321").expect("number"), 54321);
        assert!(uid_of("no-such-user").is_err());
    }
}
