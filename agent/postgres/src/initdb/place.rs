//! Where a data directory is made: the path it gets, the name it has until it is whole, and the claim
//! that tells our own left-overs from what is somebody else's.
//!
//! The claim is a small file beside the path, made before the directory and removed after it. It names
//! the attempt, and whoever works under it holds a lock on it that the kernel releases with the
//! process: a claim that can be locked belongs to an attempt that is over.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::error::{ModuleError, PathError};
use crate::host::files::durable::{
    Identity, fsync_dir, kind_of, metadata_of, parent_of, remove_if_there, rename_noreplace,
    sibling,
};
use crate::initdb::error::InitdbError;

/// The names that making one data directory uses.
#[derive(Debug, Clone)]
pub struct ClusterLocation {
    /// What the data directory will be called.
    pub path: PathBuf,
    /// What it is called until it is whole.
    pub initializing: PathBuf,
    claim: PathBuf,
}

/// What has the path's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Nothing.
    Absent,
    /// An empty directory.
    Empty,
    /// A directory that holds PG_VERSION.
    Database,
    /// Anything else.
    Other,
}

/// What the claim's file says.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    module: String,
    attempt: String,
}

/// The right to make the directory, for as long as it lives.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
    /// The attempt that claimed the place before and is over.
    pub before: Option<String>,
}

impl ClusterLocation {
    /// Makes the names. The path must be absolute.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let mut name = OsString::from(path.file_name().unwrap_or_default());
        name.push(".initializing");
        Self {
            path: path.to_path_buf(),
            initializing: parent_of(path).join(name),
            claim: sibling(path, "initializing", "claim"),
        }
    }

    /// Returns which folder holds the path, by device and inode.
    ///
    /// # Errors
    /// There is none.
    pub fn parent(&self) -> Result<Identity, InitdbError> {
        let parent = parent_of(&self.path);
        match fs::metadata(parent) {
            Ok(meta) if meta.is_dir() => Ok(Identity::of(&meta)),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(PathError::on("inspect", parent)(error).into())
            }
            _ => Err(InitdbError::NoParent {
                path: parent.to_path_buf(),
            }),
        }
    }

    /// Returns what has the path's name, and the same in words.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn look(&self) -> Result<(Before, String), PathError> {
        let Some(meta) = metadata_of(&self.path)? else {
            return Ok((Before::Absent, "does not exist".into()));
        };
        if !meta.is_dir() {
            return Ok((Before::Other, format!("is a {}", kind_of(&meta))));
        }
        let list = PathError::on("list", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(list)?.take(5) {
            let entry = entry.map_err(PathError::on("list", &self.path))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        if names.is_empty() {
            return Ok((Before::Empty, "is an empty directory".into()));
        }
        if metadata_of(&self.path.join("PG_VERSION"))?.is_some_and(|meta| meta.is_file()) {
            return Ok((Before::Database, "holds a database already".into()));
        }
        names.sort();
        Ok((
            Before::Other,
            format!("is not empty ({}, …)", names.join(", ")),
        ))
    }

    /// Refuses a path that is not free, without regard to who stands in it.
    ///
    /// # Errors
    /// The folder is missing, the path is taken or a mount point, or what stands in the way is not
    /// ours.
    pub fn refuse_taken(&self) -> Result<Before, InitdbError> {
        let parent = self.parent()?;
        let taken = |found: String| InitdbError::Taken {
            path: self.path.clone(),
            found,
        };
        let (before, found) = self.look()?;
        match before {
            Before::Absent => {}
            Before::Empty => {
                let meta = metadata_of(&self.path)?;
                if meta.is_some_and(|meta| meta.dev() != parent.dev) {
                    return Err(taken("is a mount point".into()));
                }
            }
            Before::Database | Before::Other => return Err(taken(found)),
        }
        let there = metadata_of(&self.initializing)?.is_some();
        match self.open_claim(false)? {
            Some((_, owner)) if !there || owner.is_some() => Ok(before),
            None if !there => Ok(before),
            _ => Err(InitdbError::Foreign {
                path: self.initializing.clone(),
            }),
        }
    }

    /// Returns the locked claim's file and whose it is, where there is one or `create` makes one.
    fn open_claim(&self, create: bool) -> Result<Option<(File, Option<Owner>)>, InitdbError> {
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .mode(0o600)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(&self.claim);
            let mut file = match opened {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                other => other.map_err(PathError::on("open", &self.claim))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(InitdbError::Busy {
                        path: self.path.clone(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(PathError::on("lock", &self.claim)(error).into());
                }
            }
            // Whoever held it may have removed it between our opening and our locking.
            let meta = file
                .metadata()
                .map_err(PathError::on("inspect", &self.claim))?;
            if Identity::at(&self.claim)? != Some(Identity::of(&meta)) {
                continue;
            }
            let mut text = Vec::new();
            (&mut file)
                .take(64 << 10)
                .read_to_end(&mut text)
                .map_err(PathError::on("read", &self.claim))?;
            // A torn one was never synced, so nothing was made under it.
            return Ok(Some((file, serde_json::from_slice(&text).ok())));
        }
    }

    /// Takes the right to make the directory, without yet saying for which attempt.
    ///
    /// # Errors
    /// Another run has it.
    pub fn claim(&self) -> Result<Claim, InitdbError> {
        match self.open_claim(true)? {
            Some((file, owner)) => Ok(Claim {
                file,
                path: self.claim.clone(),
                before: owner.map(|owner| owner.attempt),
            }),
            None => Err(InitdbError::NoParent {
                path: parent_of(&self.path).to_path_buf(),
            }),
        }
    }

    /// Takes the right where somebody had it before and is gone.
    ///
    /// # Errors
    /// A living process has it.
    pub fn existing_claim(&self) -> Result<Option<Claim>, InitdbError> {
        Ok(self.open_claim(false)?.map(|(file, owner)| Claim {
            file,
            path: self.claim.clone(),
            before: owner.map(|owner| owner.attempt),
        }))
    }

    /// Makes the directory under its temporary name.
    ///
    /// # Errors
    /// Something has that name.
    pub fn make(&self) -> Result<(), InitdbError> {
        match DirBuilder::new().mode(0o700).create(&self.initializing) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(InitdbError::Foreign {
                    path: self.initializing.clone(),
                })
            }
            other => Ok(other.map_err(PathError::on("create", &self.initializing))?),
        }
    }

    /// Removes what an attempt made: the tree loses its name at once and is deleted afterwards.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(&self, attempt: &str) -> Result<(), ModuleError> {
        let waiting = sibling(&self.path, "removing", attempt);
        remove_if_there(&waiting)?;
        if metadata_of(&self.initializing)?.is_some() {
            rename_noreplace(&self.initializing, &waiting)?;
            remove_if_there(&waiting)?;
        }
        Ok(fsync_dir(parent_of(&self.path))?)
    }

    /// Makes everything in the directory durable and gives it its name, never over anything.
    ///
    /// # Errors
    /// The system refuses, or the path is no longer free.
    pub fn put_in_place(&self) -> Result<(), ModuleError> {
        sync_filesystem(&self.initializing)?;
        sync_tree(&self.initializing)?;
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(PathError::on("replace the empty directory", &self.path)(error).into());
            }
            _ => {}
        }
        rename_noreplace(&self.initializing, &self.path)
    }
}

impl Claim {
    /// Says durably for which attempt.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, attempt: &str) -> Result<(), PathError> {
        let owner = serde_json::json!({"module": "postgresql_initdb", "attempt": attempt});
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(owner.to_string().as_bytes()))
            .and_then(|()| self.file.sync_all())
            .map_err(PathError::on("write", &self.path))?;
        fsync_dir(parent_of(&self.path))
    }

    /// Gives the right back; only when nothing is left of the attempt.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn release(self) -> Result<(), PathError> {
        remove_if_there(&self.path)?;
        fsync_dir(parent_of(&self.path))
    }
}

/// One call writes out in bulk; the files are asked one by one afterwards, because older kernels keep
/// errors to themselves here.
fn sync_filesystem(dir: &Path) -> Result<(), PathError> {
    let file = File::open(dir).map_err(PathError::on("open", dir))?;
    rustix::fs::syncfs(&file).map_err(|error| PathError::on("sync", dir)(error.into()))
}

fn sync_tree(dir: &Path) -> Result<(), PathError> {
    for entry in fs::read_dir(dir).map_err(PathError::on("list", dir))? {
        let entry = entry.map_err(PathError::on("list", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(PathError::on("inspect", &path))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(PathError::on("sync", &path))?;
        }
    }
    fsync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::error::ModuleFailure;

    #[test]
    fn left_overs_are_told_from_what_is_foreign() {
        let dir = tempfile::tempdir().expect("temp dir");
        let place = ClusterLocation::new(&dir.path().join("data"));
        assert_eq!(place.refuse_taken().expect("free"), Before::Absent);
        place.make().expect("made");
        let code = |place: &ClusterLocation| place.refuse_taken().expect_err("taken").code();
        assert_eq!(code(&place), "postgresql::initdb_foreign");

        let mut claim = place.claim().expect("claimed");
        claim.write("run/7").expect("written");
        assert_eq!(code(&place), "postgresql::initdb_busy");
        assert_eq!(
            place.claim().expect_err("held").code(),
            "postgresql::initdb_busy"
        );
        drop(claim);
        place.refuse_taken().expect("ours, and its maker is gone");
        let claim = place.claim().expect("claimed");
        assert_eq!(claim.before.as_deref(), Some("run/7"));
        fs::write(place.initializing.join("PG_VERSION"), "15\n").expect("write");
        place.remove("run/7").expect("removed");
        claim.release().expect("released");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_torn_claim_vouches_for_nothing() {
        let dir = tempfile::tempdir().expect("temp dir");
        let place = ClusterLocation::new(&dir.path().join("data"));
        fs::write(&place.claim, "{\"attempt\":\"ru").expect("write");
        place.refuse_taken().expect("nothing was made under it");
        place.make().expect("made");
        let error = place.refuse_taken().expect_err("nobody's");
        assert_eq!(error.code(), "postgresql::initdb_foreign");
    }

    #[test]
    fn only_nothing_or_an_empty_directory_is_free() {
        let dir = tempfile::tempdir().expect("temp dir");
        let place = ClusterLocation::new(&dir.path().join("data"));
        fs::create_dir(&place.path).expect("mkdir");
        assert_eq!(place.refuse_taken().expect("free"), Before::Empty);
        place.make().expect("made");
        fs::write(place.initializing.join("x"), "").expect("write");
        place.put_in_place().expect("in place");
        assert_eq!(place.look().expect("look").0, Before::Other);
        assert!(place.refuse_taken().is_err());
        place.make().expect("made");
        assert!(place.put_in_place().is_err(), "never over anything");
        assert!(place.path.join("x").exists() && place.initializing.exists());
        fs::write(place.path.join("PG_VERSION"), "15\n").expect("write");
        assert_eq!(place.look().expect("look").0, Before::Database);

        let nowhere = ClusterLocation::new(&dir.path().join("a/b"));
        let error = nowhere.refuse_taken().expect_err("no parent");
        assert_eq!(error.code(), "postgresql::initdb_no_parent");
    }
}
