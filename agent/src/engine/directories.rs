//! Which data directory a service may work on: what the journal knows of each, and what follows from it.
//!
//! Paths lie: after a swap another database has the old one's name. A directory is known by its inode and,
//! where it is PostgreSQL's, by the system identifier of its cluster. The device's number is only a hint, as
//! it changes with a reboot on LVM, btrfs and NFS.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::host::docker::served::{DataDirectory, Format, Served};
use crate::state::{Answer, Body, Record, ServedDirectory, TaskStatus};

/// A service is not to be started on a directory before a person has looked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryRefused {
    /// The image's server cannot open it.
    #[error(
        "{} is of PostgreSQL {found}, and the image of service `{service}`, {image}, is of PostgreSQL \
         {expected}",
        path.display()
    )]
    OtherVersion {
        /// The directory.
        path: PathBuf,
        /// Content of PG_VERSION.
        found: String,
        /// Name of the service.
        service: String,
        /// Its image.
        image: String,
        /// The image's version.
        expected: String,
    },
    /// The migration put it where it is, or took it away from there, and the service never worked on it.
    #[error(
        "{} is what `{task}` moved there ({what}): service `{service}` never worked on it before, and would \
         change a database that is none of its business",
        path.display()
    )]
    Swapped {
        /// The directory.
        path: PathBuf,
        /// What it is.
        what: String,
        /// The task that moved it, last.
        task: String,
        /// Name of the service.
        service: String,
    },
    /// Another database has the place of the one that the service worked on.
    #[error(
        "{} is not what service `{service}` worked on before: it is {what} now, and was {was}",
        path.display()
    )]
    OtherDatabase {
        /// The directory.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What it was.
        was: String,
        /// Name of the service.
        service: String,
    },
    /// The same database, in another directory than then: a copy, or one that was put back.
    #[error(
        "{} is a copy of what service `{service}` worked on before, or was put back: it is {what} now, and \
         was {was}",
        path.display()
    )]
    OtherCopy {
        /// The directory.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What it was.
        was: String,
        /// Name of the service.
        service: String,
    },
}

impl DirectoryRefused {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherVersion { .. } => "service::directory_version",
            Self::Swapped { .. } => "service::directory_swapped",
            Self::OtherDatabase { .. } => "service::directory_other",
            Self::OtherCopy { .. } => "service::directory_copied",
        }
    }

    /// The ways on.
    #[must_use]
    pub fn help(&self) -> Vec<String> {
        let undone = "no container was started, and nothing was changed";
        let variable = "a variable names another image or directory than it did: put the old value back and run again";
        let rest = match self {
            Self::OtherVersion { .. } => {
                "where the directory is the wrong one: put the right one back under this name"
            }
            Self::Swapped { .. } => {
                "to go back to what was there before, `rollback`; what was swapped stays as it is until then"
            }
            Self::OtherDatabase { .. } => {
                "put back the directory of then; or have the task that makes it run again (`resolve TASK \
                 --redo`), or go back with `rollback`"
            }
            Self::OtherCopy { .. } => {
                "put back the directory of then; where there is none any more and this one is whole, say so: \
                 `state adopt PLAYBOOK --reason TEXT`"
            }
        };
        [variable, rest, undone].map(str::to_owned).into()
    }
}

/// A directory on which a service was started.
#[derive(Debug, Clone)]
struct Mounted {
    seq: u64,
    service: String,
    directory: ServedDirectory,
}

/// A thing that a task gave a name.
#[derive(Debug, Clone)]
struct Placed {
    seq: u64,
    task: String,
    /// Its name since.
    path: PathBuf,
    /// Inode, and the device of then, where the record has them.
    identity: Option<(u64, Option<u64>)>,
    /// The name was only taken away.
    removed: bool,
    /// Its name before, where it was moved.
    from: Option<PathBuf>,
}

/// What the journal knows of directories.
#[derive(Debug, Clone, Default)]
pub(super) struct Directories {
    mounted: Vec<Mounted>,
    placed: Vec<Placed>,
    /// What attempts that have not come to an end would move.
    moving: HashMap<String, (String, Placed)>,
    /// When an operator last said that what lies here goes on.
    adopted: u64,
    /// A rollback looks into what was swapped before it takes the swap back; the version has to fit.
    pub(super) going_back: bool,
}

impl Directories {
    pub(super) fn of(records: &[Record]) -> Self {
        let mut all = Self::default();
        for record in records {
            all.add(record);
        }
        all
    }

    /// Takes in one more record.
    pub(super) fn add(&mut self, record: &Record) {
        let seq = record.seq;
        match &record.body {
            Body::StateAdopted { .. } => self.adopted = seq,
            Body::ServiceStarted {
                service,
                directories,
                ..
            } => {
                let mounted = directories.iter().map(|directory| Mounted {
                    seq,
                    service: service.clone(),
                    directory: directory.clone(),
                });
                self.mounted.extend(mounted);
            }
            Body::TaskStarted {
                task,
                attempt,
                module,
                intent,
                ..
            } if module == "move" => {
                if let Some(placed) = of_intent(seq, task, intent) {
                    self.moving.insert(attempt.clone(), (task.clone(), placed));
                }
            }
            Body::TaskFinished {
                task,
                attempt,
                status: TaskStatus::Ok | TaskStatus::Changed,
                result,
                ..
            } => {
                let moved = attempt
                    .as_ref()
                    .and_then(|attempt| self.moving.remove(attempt));
                let moved = moved.map(|(_, placed)| placed);
                self.placed.extend(of_result(seq, task, result, moved));
            }
            Body::TaskFinished {
                attempt: Some(attempt),
                ..
            } => {
                self.moving.remove(attempt);
            }
            Body::TaskResolved {
                task,
                answer: Answer::Done,
                ..
            } => {
                let open = self.moving.iter().find(|(_, (of, _))| of == task);
                if let Some(attempt) = open.map(|(attempt, _)| attempt.clone())
                    && let Some((_, placed)) = self.moving.remove(&attempt)
                {
                    self.placed.push(Placed { seq, ..placed });
                }
            }
            Body::TaskAdopted { task, from } => {
                for placed in self.placed.iter_mut().filter(|placed| placed.task == *from) {
                    placed.task.clone_from(task);
                }
            }
            Body::UndoFinished { task, with, .. } => {
                self.placed
                    .retain(|placed| placed.task != *task && !with.contains(&placed.task));
            }
            _ => {}
        }
    }

    /// Judges whether a service may be started on what its container would mount.
    ///
    /// # Errors
    /// A person has to look first.
    pub(super) fn judge(
        &self,
        service: &str,
        image: &str,
        served: &Served,
    ) -> Result<(), DirectoryRefused> {
        for found in &served.directories {
            if !self.going_back {
                self.refuse_swapped(service, found)?;
            }
            refuse_version(service, image, served, found)?;
            self.refuse_other(service, found)?;
        }
        Ok(())
    }

    /// What was swapped is for those alone that worked on it before.
    fn refuse_swapped(&self, service: &str, found: &DataDirectory) -> Result<(), DirectoryRefused> {
        let last = self
            .placed
            .iter()
            .rev()
            .find(|placed| self.is(placed, found));
        let Some(last) = last.filter(|last| last.from.is_some() && self.swapped(last)) else {
            return Ok(());
        };
        let known = self.mounted.iter().any(|mounted| {
            mounted.service == service
                && mounted.seq < last.seq
                && mounted.directory.inode == found.inode
                && mounted.directory.system_identifier == found.system_identifier
        });
        if known {
            return Ok(());
        }
        Err(DirectoryRefused::Swapped {
            path: found.path.clone(),
            what: what_is(&served(found)),
            task: last.task.clone(),
            service: service.to_owned(),
        })
    }

    /// Whether this is the thing that a task placed. Inodes repeat on another filesystem: the device of then,
    /// the name, or the cluster must agree, too.
    fn is(&self, placed: &Placed, found: &DataDirectory) -> bool {
        let Some((inode, device)) = placed.identity else {
            return false;
        };
        let same_cluster = || {
            self.mounted.iter().any(|mounted| {
                mounted.directory.inode == inode
                    && mounted.directory.system_identifier.is_some()
                    && mounted.directory.system_identifier == found.system_identifier
            })
        };
        inode == found.inode
            && (device == Some(found.device)
                || same_path(&placed.path, &found.path)
                || same_cluster())
    }

    /// Whether a move was half of a swap: what it moved came into the place of another thing, or made way for
    /// one.
    fn swapped(&self, one: &Placed) -> bool {
        let made_way = self.placed.iter().any(|other| {
            other.seq > one.seq && other.from.is_some() && Some(&other.path) == one.from.as_ref()
        });
        let took_over = self.placed.iter().any(|other| {
            let away = match other.removed {
                true => Some(&other.path),
                false => other.from.as_ref(),
            };
            other.seq < one.seq && away == Some(&one.path)
        });
        let was_served = self.mounted.iter().any(|mounted| {
            mounted.seq < one.seq
                && mounted.directory.path == one.path
                && one
                    .identity
                    .is_none_or(|(inode, _)| inode != mounted.directory.inode)
        });
        made_way || took_over || was_served
    }

    /// A service finds what it left, unless a task of this journal put another thing there.
    fn refuse_other(&self, service: &str, found: &DataDirectory) -> Result<(), DirectoryRefused> {
        let last = self.mounted.iter().rev().find(|mounted| {
            mounted.service == service
                && mounted.directory.format == found.format.word()
                && same_path(&mounted.directory.path, &found.path)
        });
        let Some(last) = last else {
            return Ok(());
        };
        let was = &last.directory;
        let same_database =
            was.system_identifier == found.system_identifier && was.version == found.version;
        let same_filesystem = match (&was.filesystem, &found.filesystem) {
            (Some(was), Some(now)) => was == now,
            // It cannot be told.
            _ => true,
        };
        let same_place = was.inode == found.inode && same_filesystem;
        if same_database && (same_place || last.seq < self.adopted) {
            return Ok(());
        }
        let explained = self.placed.iter().any(|placed| {
            placed.seq > last.seq
                && !placed.removed
                && same_path(&placed.path, &found.path)
                && placed
                    .identity
                    .is_none_or(|(inode, _)| inode == found.inode)
        });
        if explained {
            return Ok(());
        }
        let (path, service) = (found.path.clone(), service.to_owned());
        let (what, was) = (what_is(&served(found)), what_is(was));
        Err(match same_database {
            true => DirectoryRefused::OtherCopy {
                path,
                what,
                was,
                service,
            },
            false => DirectoryRefused::OtherDatabase {
                path,
                what,
                was,
                service,
            },
        })
    }
}

/// A server of another major version cannot open it.
fn refuse_version(
    service: &str,
    image: &str,
    served: &Served,
    found: &DataDirectory,
) -> Result<(), DirectoryRefused> {
    match (&served.image_version, &found.version) {
        (Some(expected), Some(version))
            if found.format == Format::Postgresql && expected != version =>
        {
            Err(DirectoryRefused::OtherVersion {
                path: found.path.clone(),
                found: version.clone(),
                service: service.to_owned(),
                image: image.to_owned(),
                expected: expected.clone(),
            })
        }
        _ => Ok(()),
    }
}

/// What the journal is to have of a directory.
pub(super) fn served(found: &DataDirectory) -> ServedDirectory {
    ServedDirectory {
        path: found.path.clone(),
        format: found.format.word().to_owned(),
        version: found.version.clone(),
        system_identifier: found.system_identifier.clone(),
        inode: found.inode,
        filesystem: found.filesystem.clone(),
    }
}

/// A directory in words.
fn what_is(directory: &ServedDirectory) -> String {
    let mut words = match (directory.format.as_str(), &directory.version) {
        ("postgresql", Some(version)) => format!("PostgreSQL {version}"),
        (format, Some(version)) => format!("{format}, format {version}"),
        (format, None) => format.to_owned(),
    };
    if let Some(number) = &directory.system_identifier {
        words.push_str(&format!(", system identifier {number}"));
    }
    words.push_str(&format!(", inode {}", directory.inode));
    if let Some(filesystem) = &directory.filesystem {
        words.push_str(&format!(" on filesystem {filesystem}"));
    }
    words
}

/// What a `move` is about to do.
fn of_intent(seq: u64, task: &str, intent: &Value) -> Option<Placed> {
    let path = |key: &str| intent[key].as_str().map(PathBuf::from);
    // A copy to another filesystem has an inode of its own, which only the result knows.
    let renamed = intent["method"] != "copy";
    let identity = &intent["identity"];
    let identity = identity["ino"].as_u64().filter(|_| renamed);
    Some(Placed {
        seq,
        task: task.to_owned(),
        path: path("dest")?,
        identity: identity.map(|inode| (inode, intent["identity"]["dev"].as_u64())),
        removed: false,
        from: path("src"),
    })
}

/// What a finished task gave a name, or took one from.
fn of_result(seq: u64, task: &str, result: &Value, moved: Option<Placed>) -> Option<Placed> {
    let named = ["path", "dest"]
        .into_iter()
        .find_map(|key| result[key].as_str());
    let identity = result["inode"]
        .as_u64()
        .map(|inode| (inode, result["device"].as_u64()));
    if let Some(moved) = moved {
        return Some(Placed {
            seq,
            identity: identity.or(moved.identity),
            ..moved
        });
    }
    // A look names things, too, and puts nothing anywhere.
    if result["changed"] != true {
        return None;
    }
    Some(Placed {
        seq,
        task: task.to_owned(),
        path: PathBuf::from(named?),
        identity,
        removed: result["state"] == "absent",
        from: None,
    })
}

/// Whether two paths lead to one place, whatever links lie on the way.
fn same_path(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    one == other || real(one) == real(other)
}

#[cfg(test)]
#[path = "directories_tests.rs"]
mod tests;
