//! A full disk: real small filesystems, filled to the last byte at an exact point.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::faults::finish_and_judge;
use super::leg::on_a_site;
use super::reference::Reference;
use super::report::{Case, Seen};
use super::strike::{self, Moment};
use crate::agent::is_about;
use crate::error::{LabError, io_error};
use crate::migration::{Migration, must};
use crate::site::{Scale, Site};
use crate::tool;
use crate::workplace::{Mount, remove_any};

/// Which filesystem is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// Where the dumps go: a tmpfs.
    Backup,
    /// FAST_DATA_DIR: ext4 in a file.
    Fast,
    /// The state directory: ext4 in a file.
    State,
}

/// Filesystem, when it is full, bytes that stay free.
const CASES: [(Full, &str, u64); 11] = [
    (Full::Backup, "after:task_started:dump-old", 200 << 10),
    (Full::Backup, "after:task_started:dump-updated", 0),
    (Full::Fast, "after:task_started:work-directory", 8 << 20),
    (Full::Fast, "after:task_started:restore-work", 1 << 20),
    (Full::Fast, "after:task_started:update [5.32]", 0),
    (Full::Fast, "after:task_started:keep-old", 0),
    (Full::Fast, "after:task_started:put-new", 0),
    (Full::State, "before:task_started:dump-old", 0),
    (Full::State, "before:task_finished:restore-work", 0),
    (Full::State, "before:task_started:keep-old", 0),
    (Full::State, "before:task_finished:keep-old", 0),
];

/// All cases of a full disk.
#[must_use]
pub fn full_disks() -> Vec<Case> {
    CASES
        .into_iter()
        .map(|(full, point, free)| full_disk(full, point, free))
        .collect()
}

/// One of them.
#[must_use]
pub fn full_disk(full: Full, point: &'static str, free: u64) -> Case {
    let name = format!("{full:?} full {point}");
    Case {
        kind: "fault: full disk",
        replay: format!("--faults --only '{name}'"),
        name,
        work: Box::new(move || {
            let reference = Reference::of(Scale::S)?;
            let mut mount = None;
            let migration = Migration::begin_with(Scale::S, |site| {
                mount = Some(small(site, full)?);
                Ok(())
            })?;
            on_a_site(migration, |migration| {
                fill_and_judge(migration, reference, full, point, free)
            })
        }),
    }
}

fn fill_and_judge(
    migration: &Migration,
    reference: &Reference,
    full: Full,
    point: &'static str,
    free: u64,
) -> Result<Seen, LabError> {
    let dir = dir_of(&migration.site, full);
    let (run, ballast) =
        strike::strike(migration, Moment::At(point), |_| Ballast::fill(&dir, free))?;
    let ended = strike::must_end(run)?;
    // A rename may need no room at all, and the journal has set some aside for its next records.
    let renames = full == Full::Fast && (point.ends_with("-old") || point.ends_with("-new"));
    let may_succeed = renames || full == Full::State;
    must(
        ended.code == Some(2) || (may_succeed && ended.code == Some(0)),
        || {
            format!(
                "exit code {:?}\n{}{}",
                ended.code, ended.stdout, ended.stderr
            )
        },
    )?;
    if (full, point) == (Full::State, "before:task_started:keep-old") {
        let journal = migration.agent.journal();
        let recorded = journal
            .iter()
            .any(|record| is_about(record, "task_started", "keep-old"));
        must(recorded || !migration.kept_dir().exists(), || {
            "the directory was moved although that could not be recorded".into()
        })?;
    }
    drop(ballast);
    finish_and_judge(migration, reference)?;
    let said = ended.stdout + &ended.stderr;
    let tells = ["disk", "space"].iter().any(|word| said.contains(word));
    must(tells || ended.code == Some(0), || {
        format!("it does not say that the disk was full: {said}")
    })?;
    Ok(format!("first end {:?}", ended.code).into())
}

fn dir_of(site: &Site, full: Full) -> PathBuf {
    match full {
        Full::Backup => site.backup_dir.clone(),
        Full::Fast => site.fast_data_dir.clone(),
        Full::State => site.root.join("state"),
    }
}

/// Puts a small filesystem in the place of a directory, content included.
fn small(site: &Site, full: Full) -> Result<Mount, LabError> {
    let dir = dir_of(site, full);
    let image = site.root.join(format!("{full:?}.ext4"));
    match full {
        Full::Backup => Mount::tmpfs(&dir, "512m"),
        Full::State => {
            fs::create_dir(&dir).map_err(io_error("create", &dir))?;
            Mount::ext4(&dir, &image, "16M")
        }
        Full::Fast => {
            let aside = site.root.join("fast-before");
            fs::rename(&dir, &aside).map_err(io_error("rename", &dir))?;
            fs::create_dir(&dir).map_err(io_error("create", &dir))?;
            let mount = Mount::ext4(&dir, &image, "1G")?;
            let mut copy = Command::new("cp");
            copy.args(["--archive", "--no-target-directory"])
                .arg(&aside)
                .arg(&dir);
            tool::run(&mut copy, "copy a site into a small filesystem")?;
            remove_any(&aside)?;
            Ok(mount)
        }
    }
}

/// Fills a filesystem for as long as it lives.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(dir: &Path, free: u64) -> Result<Self, LabError> {
        let path = dir.join("ballast");
        let ballast = Self(path.clone());
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(io_error("create", &path))?;
        for block in [1 << 20, 4096, 1] {
            let zeros = vec![0; block];
            // Until there is no room for another block.
            while file.write_all(&zeros).is_ok() {}
        }
        let length = file.metadata().map_err(io_error("inspect", &path))?.len();
        file.set_len(length.saturating_sub(free))
            .map_err(io_error("cut", &path))?;
        File::open(&path)
            .and_then(|file| file.sync_all())
            .map_err(io_error("sync", &path))?;
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // The case's own judgement meets it, if it stays.
        let _ = fs::remove_file(&self.0);
    }
}
