//! Archives as Docker and pods send them: unpacked file by file, each durable and hashed.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tokio::sync::mpsc;

use super::error::DockerError;
use crate::error::PathError;
use crate::files::digest::copy_hashed;
use crate::files::durable::fsync_dir;

/// One file that was found in the archive: relative path, size, SHA-256.
pub type Found = (PathBuf, u64, String);

/// Blocking reader over chunks that an async task sends.
pub struct ChannelReader {
    receiver: mpsc::Receiver<io::Result<bytes::Bytes>>,
    current: bytes::Bytes,
}

impl ChannelReader {
    /// Reads what is sent to this end.
    #[must_use]
    pub fn new(receiver: mpsc::Receiver<io::Result<bytes::Bytes>>) -> Self {
        Self {
            receiver,
            current: bytes::Bytes::new(),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}

/// Unpacks an archive under `dest`, or only lists and hashes it without one.
///
/// Docker's archive of `/sql` holds `sql/`, `sql/a`, …: the first component is dropped for a folder
/// and kept for a file. Each file is written beside its place, synced, and renamed.
pub fn unpack_archive(
    reader: impl Read,
    origin: &str,
    path: &str,
    pattern: Option<&regex::Regex>,
    dest: Option<&Path>,
) -> Result<Vec<Found>, DockerError> {
    let bad = |path: &str, message: String| DockerError::Archive {
        origin: origin.to_owned(),
        path: path.to_owned(),
        message,
    };
    let mut archive = tar::Archive::new(reader);
    let mut found = Vec::new();
    let entries = archive
        .entries()
        .map_err(|error| bad(path, error.to_string()))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| bad(path, error.to_string()))?;
        let name = entry
            .path()
            .map_err(|error| bad(path, error.to_string()))?
            .into_owned();
        let shown = name.display().to_string();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if name
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(bad(&shown, "its path leads out of the folder".into()));
        }
        let mut parts = name
            .components()
            .filter(|part| matches!(part, Component::Normal(_)));
        let rest: PathBuf = if parts.clone().count() > 1 {
            parts.next();
            parts.collect()
        } else {
            parts.collect()
        };
        let file_name = rest
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if pattern.is_some_and(|pattern| !pattern.is_match(&file_name)) {
            continue;
        }
        if !kind.is_file() {
            return Err(bad(
                &shown,
                "it is neither a file nor a directory (a link?)".into(),
            ));
        }
        let (size, sha256) = match dest {
            Some(dest) => write_file(&mut entry, &dest.join(&rest))?,
            None => copy_hashed(&mut entry, &mut io::sink(), |_| {})
                .map_err(|error| bad(&shown, error.to_string()))?,
        };
        found.push((rest, size, sha256));
    }
    found.sort();
    Ok(found)
}

fn write_file(from: &mut impl Read, place: &Path) -> Result<(u64, String), DockerError> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(PathError::on("create", folder))?;
    let mut file = tempfile::Builder::new()
        .prefix(".copy-")
        .suffix(".partial")
        .tempfile_in(folder)
        .map_err(PathError::on("write into", folder))?;
    let written =
        copy_hashed(from, file.as_file_mut(), |_| {}).map_err(PathError::on("write", place))?;
    file.as_file()
        .sync_all()
        .map_err(PathError::on("sync", place))?;
    file.persist(place)
        .map_err(|error| PathError::on("rename into place", place)(error.error))?;
    fsync_dir(folder)?;
    Ok(written)
}

/// Returns the SHA-256 of a file that is there, or nothing.
pub fn hash_of(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    copy_hashed(&mut file, &mut io::sink(), |_| {})
        .ok()
        .map(|(_, sha256)| sha256)
}

/// Removes what a killed attempt left in the folder and below.
pub fn remove_partials(dest: &Path) -> Result<(), DockerError> {
    let Ok(entries) = std::fs::read_dir(dest) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let (path, name) = (
            entry.path(),
            entry.file_name().to_string_lossy().into_owned(),
        );
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_partials(&path)?;
        } else if name.starts_with(".copy-") && name.ends_with(".partial") {
            std::fs::remove_file(&path).map_err(PathError::on("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            // Written by hand, because the builder itself refuses names such as `../x`.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).expect("append");
        }
        builder.into_inner().expect("archive")
    }

    #[test]
    fn files_land_under_dest_and_nothing_leads_out_of_it() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let dir = tempfile::tempdir().expect("temp dir");
        let good = archive(&[
            ("sql/", Directory, ""),
            ("sql/update-1.sql", Regular, "select 1;"),
            ("sql/readme", Regular, "x"),
        ]);
        let pattern = regex::Regex::new(r"\.sql$").expect("regex");
        let found = unpack_archive(&good[..], "image", "/sql", Some(&pattern), Some(dir.path()));
        assert_eq!(found.expect("unpacked").len(), 1);
        assert_eq!(
            std::fs::read_to_string(dir.path().join("update-1.sql")).expect("file"),
            "select 1;"
        );
        for bad in [("sql/../../x.sql", Regular), ("sql/link.sql", Symlink)] {
            let bytes = archive(&[(bad.0, bad.1, "")]);
            let result = unpack_archive(&bytes[..], "image", "/sql", None, Some(dir.path()));
            assert!(result.is_err(), "{bad:?}");
        }
        let cut = &good[..good.len() - 1400];
        assert!(unpack_archive(cut, "image", "/sql", None, None).is_err());
    }
}
