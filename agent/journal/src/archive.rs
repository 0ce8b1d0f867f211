//! One playbook's state as one tar file that can be verified by itself, with the agent or with `tar`
//! and `sha256sum`.
//!
//! Below `<playbook>/` it holds `journal.jsonl`, `runs/`, torn tails, and two files made for it:
//! `SHA256SUMS` in the form of `sha256sum`, over every other member, and `MANIFEST.json`: what was
//! exported, when, of which journal with which head, and the hashes of the playbooks that ran.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::StateError;
use super::fingerprint::{sha256_hex, sha256_of_file};
use super::history::History;
use super::journal::StateDir;
use super::reader::{self, Contents};

/// Version of the manifest; raised when a field changes its meaning or goes away.
pub const ARCHIVE_VERSION: u32 = 1;

const JOURNAL: &str = "journal.jsonl";
const MANIFEST: &str = "MANIFEST.json";
const SUMS: &str = "SHA256SUMS";

/// A member that is larger than this is no log and no journal of ours: reading it would fill memory.
const MAX_MEMBER: u64 = 1 << 30;

/// What an archive says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub v: u32,
    /// Name of the playbook.
    pub playbook: String,
    /// Id of the state.
    pub state_id: Option<String>,
    /// When it was exported, UTC.
    pub exported: Timestamp,
    /// Version of the agent that exported it.
    pub agent_version: String,
    /// Records in the journal.
    pub records: usize,
    /// Hash of the last record.
    pub head: String,
    /// Runs with the text that they ran.
    pub runs: Vec<ManifestRun>,
}

/// A run, as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRun {
    /// Its id.
    pub run: String,
    /// Playbook path as given.
    pub playbook: String,
    /// SHA-256 over the playbook and every file it includes.
    pub playbook_sha256: String,
}

/// An archive that holds what it should.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Its journal.
    pub journal: Contents,
    /// Members whose SHA-256 was compared.
    pub members: usize,
    /// SHA-256 of the archive itself.
    pub sha256: String,
}

/// A playbook's state, ready to be written as an archive.
#[derive(Debug, Clone)]
pub struct Export {
    playbook: String,
    manifest: Manifest,
    members: Vec<(String, Vec<u8>)>,
}

impl Export {
    /// Reads a playbook's state. What a run appends meanwhile is not part of it.
    ///
    /// # Errors
    /// When the journal is damaged or foreign, or the system refuses.
    pub fn of(dir: &StateDir, playbook: &str) -> Result<Self, StateError> {
        let journal = dir.journal();
        let mut bytes = fs::read(&journal).map_err(StateError::io("read", &journal))?;
        let contents = reader::parse(&journal, &bytes)?;
        // What a run is writing just now belongs to the next export.
        bytes.truncate(usize::try_from(contents.whole).unwrap_or(usize::MAX));
        let history = History::of(&contents.records);
        let manifest = Manifest {
            v: ARCHIVE_VERSION,
            playbook: playbook.to_owned(),
            state_id: contents.state_id().map(str::to_owned),
            exported: Timestamp::now(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            records: contents.records.len(),
            head: contents.head.clone(),
            runs: history
                .runs
                .iter()
                .map(|run| ManifestRun {
                    run: run.id.clone(),
                    playbook: run.playbook.clone(),
                    playbook_sha256: run.playbook_sha256.clone(),
                })
                .collect(),
        };
        let mut members = vec![(JOURNAL.to_owned(), bytes)];
        for path in logs_and_tails(dir)? {
            let name = path.strip_prefix(dir.path()).unwrap_or(&path);
            let content = fs::read(&path).map_err(StateError::io("read", &path))?;
            members.push((name.to_string_lossy().into_owned(), content));
        }
        let text = serde_json::to_string_pretty(&manifest)
            .map_err(|e| StateError::io("describe", dir.path())(e.into()))?;
        members.push((MANIFEST.to_owned(), format!("{text}\n").into_bytes()));
        let sums: String = members
            .iter()
            .map(|(name, content)| format!("{}  {name}\n", sha256_hex(content)))
            .collect();
        members.push((SUMS.to_owned(), sums.into_bytes()));
        Ok(Self {
            playbook: playbook.to_owned(),
            manifest,
            members,
        })
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(out);
        for (name, content) in &self.members {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(self.manifest.exported.as_second()).unwrap_or(0));
            archive.append_data(
                &mut header,
                format!("{}/{name}", self.playbook),
                content.as_slice(),
            )?;
        }
        archive.into_inner()?.flush()
    }
}

/// Exports a playbook's state into a new file, which only its owner can read.
///
/// # Errors
/// As [`Export::of`], or the file exists or cannot be written.
pub fn export(dir: &StateDir, playbook: &str, to: &Path) -> Result<Manifest, StateError> {
    let export = Export::of(dir, playbook)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(StateError::io("create", to))?;
    let written = export.write(&file).and_then(|()| file.sync_all());
    written.map_err(|source| {
        // Half an archive is of no use to anybody; the state itself is untouched.
        let _ = fs::remove_file(to);
        StateError::io("write", to)(source)
    })?;
    Ok(export.manifest)
}

fn logs_and_tails(dir: &StateDir) -> Result<Vec<PathBuf>, StateError> {
    let listed = fs::read_dir(dir.path()).map_err(StateError::io("list", dir.path()))?;
    let mut paths: Vec<PathBuf> = listed
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("journal.torn-")
        })
        .collect();
    paths.sort();
    paths.extend(dir.logs().into_iter().map(|log| log.path));
    Ok(paths)
}

/// Whether a playbook's state was unpacked from an archive: a copy of another host's, whose files are not
/// here.
#[must_use]
pub fn is_unpacked(dir: &StateDir) -> bool {
    dir.path().join(MANIFEST).is_file()
}

/// Verifies an archive: every member against `SHA256SUMS`, none more and none less, the journal's
/// chain, and its head against the manifest.
///
/// # Errors
/// [`StateError::Archive`] says what is wrong; the journal's own errors name its line.
pub fn verify(path: &Path) -> Result<Verified, StateError> {
    let wrong = |what: String| StateError::Archive {
        path: path.to_path_buf(),
        what,
    };
    let mut members = members(path)?;
    let sums = members.remove(SUMS).ok_or_else(|| {
        wrong(format!(
            "it holds no {SUMS}: it was not made by `state export`"
        ))
    })?;
    let sums = String::from_utf8_lossy(&sums);
    let mut expected = BTreeMap::new();
    for line in sums.lines() {
        let (hash, name) = line
            .split_once("  ")
            .ok_or_else(|| wrong(format!("{SUMS} has a line that is none: `{line}`")))?;
        expected.insert(name.to_owned(), hash.to_owned());
    }
    for (name, content) in &members {
        match expected.remove(name) {
            Some(hash) if hash == sha256_hex(content) => {}
            Some(_) => return Err(wrong(format!("`{name}` is not what was exported"))),
            None => return Err(wrong(format!("`{name}` was added after the export"))),
        }
    }
    if let Some(name) = expected.keys().next() {
        return Err(wrong(format!("`{name}` is missing")));
    }
    let manifest = members
        .get(MANIFEST)
        .ok_or_else(|| wrong(format!("it holds no {MANIFEST}")))?;
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| wrong(format!("{MANIFEST} cannot be read: {error}")))?;
    let journal = members
        .get(JOURNAL)
        .ok_or_else(|| wrong(format!("it holds no {JOURNAL}")))?;
    let journal = reader::parse(&path.join(JOURNAL), journal)?;
    if !journal.torn.is_empty() || journal.head != manifest.head {
        return Err(wrong(format!(
            "its journal ends with {}, and the manifest says {}",
            journal.head, manifest.head
        )));
    }
    Ok(Verified {
        manifest,
        journal,
        members: members.len(),
        sha256: sha256_of_file(path).map_err(StateError::io("read", path))?,
    })
}

/// Unpacks an archive that [`verify`] found sound into a new folder: the journal, the logs, what it says
/// about itself.
///
/// # Errors
/// A member's name leads out of the folder, or the system refuses.
pub fn unpack(path: &Path, folder: &Path) -> Result<(), StateError> {
    for (name, content) in members(path)? {
        let below = Path::new(&name);
        if !below
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(StateError::Archive {
                path: path.to_path_buf(),
                what: format!("`{name}` leads out of it"),
            });
        }
        let to = folder.join(below);
        let parent = to.parent().unwrap_or(folder);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(StateError::io("create", parent))?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&to)
            .and_then(|mut file| {
                file.write_all(&content)?;
                file.sync_all()
            })
            .map_err(StateError::io("write", &to))?;
    }
    Ok(())
}

/// Members by their name below the playbook's folder.
fn members(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, StateError> {
    let file = File::open(path).map_err(StateError::io("open", path))?;
    let wrong = |what: String| StateError::Archive {
        path: path.to_path_buf(),
        what,
    };
    let unreadable = |error: io::Error| wrong(format!("it is no tar file: {error}"));
    let mut archive = tar::Archive::new(io::BufReader::new(file));
    let mut found = BTreeMap::new();
    for entry in archive.entries().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.path().map_err(unreadable)?;
        let name = name.to_string_lossy().into_owned();
        let short = name.split_once('/').map(|(_, rest)| rest.to_owned());
        let Some(short) = short.filter(|_| entry.header().entry_type().is_file()) else {
            return Err(wrong(format!("`{name}` does not belong into it")));
        };
        if entry.size() > MAX_MEMBER {
            return Err(wrong(format!("`{name}` is larger than an export has any")));
        }
        let mut content = Vec::new();
        entry
            .take(MAX_MEMBER)
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        if found.insert(short, content).is_some() {
            return Err(wrong(format!("`{name}` is there twice")));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Journal};

    /// A state with two records and a log, and its archive.
    fn exported() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().expect("temp dir");
        let dir = StateDir::new(root.path(), "site");
        dir.create().expect("create");
        let contents = reader::read(&dir.journal()).expect("empty");
        let (mut journal, _) = Journal::open(&dir.journal(), &contents, "r1").expect("open");
        for body in [
            Body::JournalCreated {
                state_id: "s".into(),
                playbook: "site".into(),
                host: "h".into(),
                rehearsal: false,
            },
            Body::TaskSkipped {
                task: "a".into(),
                condition: "false".into(),
            },
        ] {
            journal.append(body).expect("append");
        }
        fs::create_dir_all(dir.run_logs("r1")).expect("runs");
        fs::write(dir.run_logs("r1").join("001-a.log"), "# task: a\nhello\n").expect("log");
        let to = root.path().join("site.tar");
        export(&dir, "site", &to).expect("export");
        (root, to)
    }

    #[test]
    fn an_archive_vouches_for_every_byte_of_its_members() {
        let (_root, path) = exported();
        let whole = verify(&path).expect("untouched");
        assert_eq!((whole.members, whole.journal.records.len()), (3, 2));
        let good = fs::read(&path).expect("read");
        let names = [
            "site/journal.jsonl",
            "site/runs/r1/001-a.log",
            "site/MANIFEST.json",
        ];
        for name in names {
            // The content begins a block after the header that carries the name.
            let at = find(&good, name.as_bytes()) + 512;
            let mut altered = good.clone();
            altered[at + 3] ^= 1;
            fs::write(&path, &altered).expect("write");
            let error = verify(&path).expect_err("a byte changed").to_string();
            assert!(
                error.contains("is not what was exported"),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_member_that_is_missing_or_added_is_named() {
        let (root, path) = exported();
        let mut some = members(&path).expect("members");
        let log = some.remove("runs/r1/001-a.log").expect("there");
        let manifest = verify(&path).expect("whole").manifest;
        let write = |to: &Path, members: &BTreeMap<String, Vec<u8>>| {
            let export = Export {
                playbook: "site".into(),
                manifest: manifest.clone(),
                members: members.clone().into_iter().collect(),
            };
            let file = File::create(to).expect("create");
            export.write(file).expect("write");
        };
        let to = root.path().join("less.tar");
        write(&to, &some);
        let error = verify(&to).expect_err("one is gone").to_string();
        assert!(error.contains("`runs/r1/001-a.log` is missing"), "{error}");
        some.insert("runs/r1/001-a.log".into(), log.clone());
        some.insert("runs/r1/002-b.log".into(), log);
        let to = root.path().join("more.tar");
        write(&to, &some);
        let error = verify(&to).expect_err("one too many").to_string();
        assert!(error.contains("002-b.log` was added"), "{error}");
    }

    #[test]
    fn an_export_overwrites_nothing() {
        let (root, path) = exported();
        let dir = StateDir::new(root.path(), "site");
        assert!(matches!(
            export(&dir, "site", &path),
            Err(StateError::Io {
                action: "create",
                ..
            })
        ));
    }

    fn find(bytes: &[u8], text: &[u8]) -> usize {
        bytes
            .windows(text.len())
            .position(|window| window == text)
            .expect("the name is there")
    }
}
