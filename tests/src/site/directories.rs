//! A site's directories: made, opened and removed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use super::{Scale, generate, objects};
use crate::error::{LabError, io_error};
use crate::images::{self, PostgresImages};
use crate::server::{Server, ServerOptions};
use crate::workplace::{self, lab_subdir, require_root, stage, unique};
use crate::{schema, tool};

/// Marks a directory as a site, so that nothing else is ever removed.
const MARKER: &str = ".kaapana-lab-site";
/// Marks a temporary site that is to stay when its process ends.
const KEPT: &str = ".kept";
/// Begin of the names of temporary sites; the owner follows.
const PREFIX: &str = "site";

/// A Kaapana 0.2 site: the directories of a hospital's host, and the images that go with them.
///
/// FAST_DATA_DIR and SLOW_DATA_DIR differ, as they may at a hospital: a playbook that takes one for the
/// other finds an empty directory.
#[derive(Debug)]
pub struct Site {
    /// Holds all the others.
    pub root: PathBuf,
    /// FAST_DATA_DIR: `postgres-dcm4che`, `ldap`, `slapd.d`.
    pub fast_data_dir: PathBuf,
    /// SLOW_DATA_DIR: `dcm4che/dicom_data`, `dcm4che/server_data`.
    pub slow_data_dir: PathBuf,
    /// An empty directory for dumps.
    pub backup_dir: PathBuf,
    /// The database images of Kaapana 0.2 and 0.3.
    pub images: PostgresImages,
    /// How large it is.
    pub scale: Scale,
    removes_itself: bool,
}

impl Site {
    /// Makes a site in a new or empty directory. It stays there until [`Site::remove`].
    ///
    /// # Errors
    /// Not root, a directory that is not empty, or an image or the database cannot be made.
    pub fn create(dir: &Path, scale: Scale) -> Result<Self, LabError> {
        Self::create_with(dir, scale, copy_tree)
    }

    /// As [`Site::create`]; `lay_out_objects` brings the DICOM files to their place.
    fn create_with(
        dir: &Path,
        scale: Scale,
        lay_out_objects: fn(&Path, &Path) -> Result<(), LabError>,
    ) -> Result<Self, LabError> {
        require_root("create a site")?;
        let images = PostgresImages::ensure()?;
        let original = generate::original(scale, &images.old)?;
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let root = dir.canonicalize().map_err(io_error("resolve", dir))?;
        if fs::read_dir(&root)
            .map_err(io_error("list", &root))?
            .next()
            .is_some()
        {
            return Err(LabError::NotEmpty(root));
        }
        // First of all, so that a site that was cut short can be removed.
        let marker = root.join(MARKER);
        fs::write(&marker, format!("{}\n", scale.letter())).map_err(io_error("write", &marker))?;
        let site = Self::at(root, scale, images);
        stage(
            &format!("copy the site of scale {}", scale.letter()),
            || site.lay_out(&original, lay_out_objects),
        )?;
        Ok(site)
    }

    /// Makes a site under `target/lab/sites` that is removed when the value is dropped.
    ///
    /// # Errors
    /// As [`Site::create`].
    pub fn temporary(scale: Scale) -> Result<Self, LabError> {
        let sites = lab_subdir("sites")?;
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| sweep(&sites));
        let dir = sites.join(unique(PREFIX));
        match Self::create_with(&dir, scale, link_tree) {
            Ok(mut site) => {
                site.removes_itself = true;
                Ok(site)
            }
            Err(error) => {
                // The error of the creation is the one to tell.
                let _ = workplace::remove_any(&dir);
                Err(error)
            }
        }
    }

    /// Returns the site that was made in this directory.
    ///
    /// # Errors
    /// The directory is no site, or the images cannot be made.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let (root, scale) = read_marker(dir)?;
        Ok(Self::at(root, scale, PostgresImages::ensure()?))
    }

    /// Removes the site in this directory, whatever became of it, without a look at the images.
    ///
    /// # Errors
    /// The directory is no site, or something in it cannot be removed.
    pub fn remove_at(dir: &Path) -> Result<(), LabError> {
        workplace::remove_any(&read_marker(dir)?.0)
    }

    fn at(root: PathBuf, scale: Scale, images: PostgresImages) -> Self {
        Self {
            fast_data_dir: root.join("fast"),
            slow_data_dir: root.join("slow"),
            backup_dir: root.join("backup"),
            root,
            images,
            scale,
            removes_itself: false,
        }
    }

    /// The data directory of the PACS database.
    #[must_use]
    pub fn postgres_dir(&self) -> PathBuf {
        self.fast_data_dir.join("postgres-dcm4che")
    }

    /// The data of the LDAP directory.
    #[must_use]
    pub fn ldap_dir(&self) -> PathBuf {
        self.fast_data_dir.join("ldap")
    }

    /// The configuration of its server.
    #[must_use]
    pub fn slapd_config_dir(&self) -> PathBuf {
        self.fast_data_dir.join("slapd.d")
    }

    /// Where `location.storage_path` begins.
    #[must_use]
    pub fn dicom_dir(&self) -> PathBuf {
        self.slow_data_dir.join("dcm4che/dicom_data")
    }

    /// Returns the shell variables that `baseline/guide.sh` and people need.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("FAST_DATA_DIR", self.fast_data_dir.display().to_string()),
            ("SLOW_DATA_DIR", self.slow_data_dir.display().to_string()),
            ("BACKUP_DIR", self.backup_dir.display().to_string()),
            ("OLD_IMAGE", self.images.old.clone()),
            ("NEW_IMAGE", self.images.new.clone()),
        ]
    }

    /// Starts a server of this image on one of the site's data directories.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn serve(&self, image: &str, data_dir: &Path) -> Result<Server, LabError> {
        Server::start(image, Some(data_dir), &ServerOptions::default())
    }

    /// Turns the site's database into one that looks like schema 5.25, for tests of refusal.
    ///
    /// # Errors
    /// The database does not start or stop, or is not a 5.26 one.
    pub fn make_schema_5_25(&self) -> Result<(), LabError> {
        let server = self.serve(&self.images.old, &self.postgres_dir())?;
        server.psql(schema::TO_5_25)?;
        server.stop()
    }

    /// Removes the site, whatever became of it.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(mut self) -> Result<(), LabError> {
        self.removes_itself = false;
        workplace::remove_any(&self.root)
    }

    /// Keeps a temporary site after this value is dropped, to look at it, until `lab clean`.
    ///
    /// # Errors
    /// The file that marks it as kept cannot be written.
    pub fn keep(&mut self) -> Result<(), LabError> {
        let kept = self.root.join(KEPT);
        fs::write(&kept, "").map_err(io_error("write", &kept))?;
        self.removes_itself = false;
        Ok(())
    }

    fn lay_out(
        &self,
        original: &Path,
        lay_out_objects: fn(&Path, &Path) -> Result<(), LabError>,
    ) -> Result<(), LabError> {
        let archive = Some(objects::ARCHIVE_UID);
        make_dir(&self.fast_data_dir, 0o755, None)?;
        make_dir(&self.slow_data_dir, 0o755, None)?;
        make_dir(&self.backup_dir, 0o755, None)?;
        make_dir(&self.slow_data_dir.join("dcm4che"), 0o755, None)?;
        copy_tree(&original.join("postgres-dcm4che"), &self.postgres_dir())?;
        lay_out_objects(&original.join("dicom_data"), &self.dicom_dir())?;

        let server_data = self.slow_data_dir.join("dcm4che/server_data");
        make_dir(&server_data, 0o755, archive)?;
        make_dir(&server_data.join("configuration"), 0o755, archive)?;
        make_file(
            &server_data.join("configuration/dcm4chee-arc.xml"),
            b"<?xml version='1.0' encoding='UTF-8'?>\n<!-- configuration of the archive's server, not migrated -->\n<server/>\n",
            0o644,
            objects::ARCHIVE_UID,
        )?;
        self.lay_out_ldap()
    }

    /// What the directory server left behind when it was stopped: data and configuration.
    fn lay_out_ldap(&self) -> Result<(), LabError> {
        let original = generate::directory()?;
        copy_tree(&original.join("ldap"), &self.ldap_dir())?;
        copy_tree(&original.join("slapd.d"), &self.slapd_config_dir())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.removes_itself {
            workplace::unmount_below(&self.root);
            // What stays behind is in target/lab/sites, where `lab clean` finds it.
            let _ = workplace::remove_any(&self.root);
        }
    }
}

/// Returns the real path and the scale of the site in this directory.
fn read_marker(dir: &Path) -> Result<(PathBuf, Scale), LabError> {
    let not_a_site = || LabError::NotASite {
        path: dir.to_path_buf(),
        marker: MARKER,
    };
    let letter = fs::read_to_string(dir.join(MARKER)).map_err(|_| not_a_site())?;
    let scale = [Scale::S, Scale::M, Scale::L]
        .into_iter()
        .find(|scale| scale.letter() == letter.trim());
    let root = dir.canonicalize().map_err(io_error("resolve", dir))?;
    Ok((root, scale.ok_or_else(not_a_site)?))
}

/// Removes the temporary sites of processes that are gone.
fn sweep(sites: &Path) {
    for entry in fs::read_dir(sites).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-')?.rsplit_once('-'));
        let is_orphaned = owner.is_some_and(|(owner, _)| !workplace::owner_is_alive(owner));
        if is_orphaned && !entry.path().join(KEPT).exists() {
            images::remove_containers_on(&entry.path());
            workplace::unmount_below(&entry.path());
            // Another process may be removing it too.
            let _ = workplace::remove_any(&entry.path());
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), LabError> {
    copy_with(&["--reflink=auto"], from, to)
}

/// Folders of their own, with the very files: for what nobody writes to. Making and removing 100,000 files
/// would take longer than a migration, most of all where the disk is told of each that is gone (`discard`).
fn link_tree(from: &Path, to: &Path) -> Result<(), LabError> {
    copy_with(&["--link"], from, to)
}

fn copy_with(options: &[&str], from: &Path, to: &Path) -> Result<(), LabError> {
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--no-target-directory"])
        .args(options)
        .arg(from)
        .arg(to);
    tool::run(&mut copy, "copy the cached site").map(drop)
}

fn make_dir(path: &Path, mode: u32, owner: Option<u32>) -> Result<(), LabError> {
    fs::create_dir(path).map_err(io_error("create", path))?;
    settle(path, mode, owner)
}

fn make_file(path: &Path, content: &[u8], mode: u32, owner: u32) -> Result<(), LabError> {
    fs::write(path, content).map_err(io_error("write", path))?;
    settle(path, mode, Some(owner))
}

fn settle(path: &Path, mode: u32, owner: Option<u32>) -> Result<(), LabError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", path))?;
    chown(path, owner, owner).map_err(io_error("change the owner of", path))
}
