//! A playbook's folder as one tar file, named by its content.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::RemoteError;
use crate::state::fingerprint::sha256_hex;

/// More than this is no playbook with its files.
const MOST_BYTES: u64 = 256 << 20;

/// Files that a run on other hosts takes with it.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// SHA-256 of the tar file, hexadecimal.
    pub sha256: String,
    /// The tar file.
    pub tar: Vec<u8>,
    /// The playbook within it.
    pub playbook: String,
}

impl Bundle {
    /// Packs the folder of a playbook: regular files and folders, with their modes, in the order of their
    /// names; what begins with a dot is left out. The same files make the same bundle everywhere.
    ///
    /// # Errors
    /// A link that leads out of the folder, something that is neither file nor folder, more than 256 MiB, a
    /// file that cannot be read.
    pub fn of(playbook: &Path) -> Result<Self, RemoteError> {
        let absolute = std::path::absolute(playbook).map_err(RemoteError::io("find", playbook))?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        let mut packer = Packer {
            root: folder
                .canonicalize()
                .map_err(RemoteError::io("find", folder))?,
            tar: tar::Builder::new(Vec::new()),
            bytes: 0,
        };
        packer.folder(folder, Path::new(""))?;
        let tar = packer.tar.into_inner();
        let tar = tar.map_err(RemoteError::io("pack", folder))?;
        let name = absolute.file_name().unwrap_or_default();
        Ok(Self {
            sha256: sha256_hex(&tar),
            tar,
            playbook: name.to_string_lossy().into_owned(),
        })
    }
}

struct Packer {
    root: PathBuf,
    tar: tar::Builder<Vec<u8>>,
    bytes: u64,
}

impl Packer {
    fn folder(&mut self, folder: &Path, below: &Path) -> Result<(), RemoteError> {
        let listed = fs::read_dir(folder).map_err(RemoteError::io("list", folder))?;
        let mut entries = listed
            .collect::<io::Result<Vec<_>>>()
            .map_err(RemoteError::io("list", folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let place = below.join(&name);
            let meta = fs::metadata(&path).map_err(RemoteError::io("inspect", &path))?;
            let real = path
                .canonicalize()
                .map_err(RemoteError::io("find", &path))?;
            let wrong = |what: &str| RemoteError::Bundle {
                path: path.clone(),
                what: what.to_owned(),
            };
            if !real.starts_with(&self.root) {
                return Err(wrong("a link that leads out of the playbook's folder"));
            }
            if meta.is_dir() {
                if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_symlink()) {
                    return Err(wrong("a link to a folder"));
                }
                self.entry(&place, &meta, tar::EntryType::Directory, &[])?;
                self.folder(&path, &place)?;
            } else if meta.is_file() {
                self.bytes += meta.len();
                if self.bytes > MOST_BYTES {
                    return Err(RemoteError::Bundle {
                        path: self.root.clone(),
                        what: format!(
                            "the playbook's folder holds more than {} MiB",
                            MOST_BYTES >> 20
                        ),
                    });
                }
                let content = fs::read(&path).map_err(RemoteError::io("read", &path))?;
                self.entry(&place, &meta, tar::EntryType::Regular, &content)?;
            } else {
                return Err(wrong("neither a file nor a folder"));
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        place: &Path,
        meta: &fs::Metadata,
        kind: tar::EntryType,
        content: &[u8],
    ) -> Result<(), RemoteError> {
        use std::os::unix::fs::PermissionsExt;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        // Neither times nor owners: they would make another bundle of the same files.
        header.set_mode(meta.permissions().mode() & 0o777);
        header.set_mtime(0);
        self.tar
            .append_data(&mut header, place, content)
            .map_err(RemoteError::io("pack", place))
    }
}

/// Unpacks a bundle that must have this hash into a folder, which is there afterwards with all of it or not
/// at all.
///
/// # Errors
/// Another hash, a path that leads out of the folder, a refusal of the system.
pub fn unpack(from: &mut impl Read, sha256: &str, folder: &Path) -> Result<(), RemoteError> {
    let mut tar = Vec::new();
    from.take(MOST_BYTES * 2)
        .read_to_end(&mut tar)
        .map_err(RemoteError::io("receive", folder))?;
    if sha256_hex(&tar) != sha256 {
        return Err(RemoteError::Bundle {
            path: folder.to_path_buf(),
            what: "what arrived is not what was sent".into(),
        });
    }
    let partial = folder.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&partial).map_err(RemoteError::io("create", &partial))?;
    let unpacked = tar::Archive::new(tar.as_slice())
        .unpack(&partial)
        // The name says that all of it is there, after a power loss, too.
        .and_then(|()| Ok(rustix::fs::syncfs(File::open(&partial)?)?))
        .and_then(|()| fs::rename(&partial, folder))
        .and_then(|()| File::open(folder.parent().unwrap_or(folder))?.sync_all());
    // Another controller may have been faster: names are contents.
    if unpacked.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    match unpacked {
        Err(_) if folder.is_dir() => Ok(()),
        other => other.map_err(RemoteError::io("unpack", folder)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_same_files_make_the_same_bundle_and_come_out_as_they_went_in() {
        let home = tempfile::tempdir().expect("temp");
        let make = |name: &str| {
            let folder = home.path().join(name);
            fs::create_dir_all(folder.join("files/deep")).expect("folder");
            fs::write(folder.join("site.yaml"), "- hosts: all\n").expect("file");
            fs::write(folder.join("files/deep/run.sh"), "#!/bin/sh\n").expect("file");
            fs::write(folder.join(".hidden"), name).expect("file");
            let mode = fs::Permissions::from_mode(0o750);
            fs::set_permissions(folder.join("files/deep/run.sh"), mode).expect("mode");
            Bundle::of(&folder.join("site.yaml")).expect("bundle")
        };
        let (one, other) = (make("one"), make("other"));
        assert_eq!(one.sha256, other.sha256);
        assert_eq!(one.playbook, "site.yaml");

        let to = home.path().join("bundles").join(&one.sha256);
        fs::create_dir(home.path().join("bundles")).expect("folder");
        unpack(&mut one.tar.as_slice(), &one.sha256, &to).expect("unpacked");
        unpack(&mut one.tar.as_slice(), &one.sha256, &to).expect("twice is once");
        let script = fs::metadata(to.join("files/deep/run.sh")).expect("there");
        assert_eq!(script.permissions().mode() & 0o777, 0o750);
        assert!(!to.join(".hidden").exists());

        let error = unpack(
            &mut &one.tar[1..],
            &one.sha256,
            &home.path().join("bundles/x"),
        );
        assert!(
            error
                .expect_err("altered")
                .to_string()
                .contains("not what was sent")
        );
        assert!(!home.path().join("bundles/x").exists());
    }

    #[test]
    fn what_lies_elsewhere_is_not_taken_along_in_silence() {
        let home = tempfile::tempdir().expect("temp");
        let folder = home.path().join("playbooks");
        fs::create_dir(&folder).expect("folder");
        fs::write(folder.join("site.yaml"), "").expect("file");
        std::os::unix::fs::symlink("/etc/hostname", folder.join("link")).expect("link");
        let error = Bundle::of(&folder.join("site.yaml")).expect_err("refused");
        assert!(error.to_string().contains("leads out"), "{error}");
        assert_eq!(error.exit(), 5);
    }
}
