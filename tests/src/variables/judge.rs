//! What a run with a changed variable did, told by the host and not by the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::declared::Variable;
use super::stand::{Moment, Stand};
use super::values::Other;
use super::watch::{Made, Watch};
use crate::error::{LabError, io_error};
use crate::images::{SLAPD_CONFIG, SLAPD_DATA, remove_containers_on};
use crate::migration::{Ended, Migration, Running, must};
use crate::site::Site;

/// How long a run with a changed variable may take.
const BOUND: Duration = Duration::from_secs(400);
const LOOK: Duration = Duration::from_millis(10);
const REFUSED: i32 = 5;
const ASKS: i32 = 6;

/// What is known of a file or folder of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its inode.
    pub inode: u64,
    /// When it was made, where the filesystem tells: what has its inode later may be another thing.
    born: Option<SystemTime>,
    owner: (u32, u32, u32),
    changed: (i64, i64),
    is_dir: bool,
}

/// Everything of a site but its DICOM files, state and variables.
///
/// # Errors
/// It cannot be read.
pub fn entries(migration: &Migration) -> Result<BTreeMap<PathBuf, Entry>, LabError> {
    let site = &migration.site;
    let mut found = BTreeMap::new();
    let mut open = vec![
        site.fast_data_dir.clone(),
        site.backup_dir.clone(),
        site.slow_data_dir.clone(),
        site.root.join("elsewhere"),
    ];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).map_err(io_error("inspect", &path))?;
        if meta.is_dir() && path != site.dicom_dir() {
            let list = fs::read_dir(&path).map_err(io_error("list", &path))?;
            open.extend(list.flatten().map(|entry| entry.path()));
        }
        let entry = Entry {
            inode: meta.ino(),
            born: meta.created().ok(),
            owner: (meta.uid(), meta.gid(), meta.mode() & 0o7777),
            changed: (meta.ctime(), meta.ctime_nsec()),
            is_dir: meta.is_dir(),
        };
        found.insert(path, entry);
    }
    Ok(found)
}

/// A run with a changed variable, and what it came upon.
pub(super) struct Trial<'s> {
    stand: &'s Stand,
    entries: BTreeMap<PathBuf, Entry>,
    records: usize,
    /// The kept 0.2 database was there.
    kept: bool,
    watch: Watch,
}

/// What a run did.
pub(super) struct Deed {
    pub ended: Ended,
    made: Vec<Made>,
    wrong: Vec<String>,
    entries: BTreeMap<PathBuf, Entry>,
    /// Containers were made, or something of the site changed.
    pub changed: bool,
    /// Tasks were begun, or that.
    pub touched: bool,
}

impl<'s> Trial<'s> {
    pub(super) fn begin(stand: &'s Stand) -> Result<Self, LabError> {
        let migration = &stand.migration;
        Ok(Self {
            stand,
            entries: entries(migration)?,
            records: migration.agent.journal().len(),
            kept: migration.kept_dir().exists(),
            watch: Watch::begin(&migration.agent)?,
        })
    }

    /// Runs with this file of variables beside the site's.
    pub(super) fn run(self, change: &Path) -> Result<Deed, LabError> {
        let migration = &self.stand.migration;
        let ended = run_with(migration, change)?;
        let mut wrong = Vec::new();
        if let Err(error) = migration.must_leave_no_container() {
            wrong.push(error.to_string());
            // The watch waits for the end of their logs.
            remove_containers_on(&migration.site.root);
        }
        let (made, said) = self.watch.end()?;
        wrong.extend(said);
        let after = entries(migration)?;
        let journal = migration.agent.journal();
        let begun = journal.iter().skip(self.records).any(|record| {
            let event = record["event"].as_str().unwrap_or_default();
            event.starts_with("task_") || event.starts_with("service_")
        });
        let changed = !made.is_empty() || after != self.entries;
        let mut deed = Deed {
            touched: begun || changed,
            changed,
            ended,
            made,
            wrong,
            entries: after,
        };
        for made in &deed.made {
            deed.wrong
                .extend(wrong_directory(self.stand, &self.entries, self.kept, made));
        }
        let moved = wrong_owners(self.stand, &self.entries, &deed.entries);
        deed.wrong.extend(moved);
        let put_in = wrong_names(self.stand, &self.entries, &deed.entries);
        deed.wrong.extend(put_in);
        if self.kept {
            deed.wrong.extend(wrong_content(
                &migration.kept_dir(),
                &self.entries,
                &deed.entries,
            ));
            deed.wrong.extend(wrong_content(
                &migration.site.postgres_dir(),
                &self.entries,
                &deed.entries,
            ));
        }
        Ok(deed)
    }
}

/// Fails unless a run with a changed variable did no harm and ended as it must.
pub(super) fn must_be_right(
    stand: &Stand,
    moment: Moment,
    (variable, other): (&Variable, &Other),
    change: &Path,
    mut deed: Deed,
) -> Result<String, LabError> {
    let migration = &stand.migration;
    let held = is_held(migration, moment, variable)?;
    let code = deed.ended.code;
    let untouched = !deed.touched;
    let allowed: &[i32] = match other {
        Other::Misspelt => &[REFUSED],
        _ if other.is_wrong() => &[REFUSED, ASKS],
        Other::Empty if held => &[REFUSED, ASKS],
        _ if held => &[ASKS],
        _ => &[0, 2, REFUSED, ASKS],
    };
    let is_allowed = code.is_some_and(|code| allowed.contains(&code));
    if !is_allowed {
        deed.wrong
            .push(format!("it ended with {code:?}, not {allowed:?}"));
    }
    if (held || other.is_wrong() || code == Some(REFUSED) || code == Some(ASKS)) && !untouched {
        deed.wrong
            .push("it refused, or had to, and did something all the same".into());
    }
    if code == Some(0) && is_allowed {
        if let Err(error) = nothing_is_left(migration, change) {
            deed.wrong.push(error.to_string());
        }
        if deed.changed || moment != Moment::AfterTheEnd {
            let kept = place_of(stand, &deed.entries)?;
            if let Err(error) = migration.must_have_ended_right_with(&kept) {
                deed.wrong.push(error.to_string());
            }
        }
    }
    // Whatever it was that failed: with the value of before it goes on to the right end.
    if code == Some(2) && !variable.settled && matches!(moment, Moment::InTheMiddle(_)) {
        let again = migration
            .finish()
            .and_then(|()| migration.must_have_ended_right());
        if let Err(error) = again {
            deed.wrong
                .push(format!("put back, it does not go on: {error}"));
        }
    }
    must(deed.wrong.is_empty(), || {
        format!(
            "{}\n  it said: {}",
            deed.wrong.join("\n  "),
            last_lines(&[&deed.ended.stdout, &deed.ended.stderr])
        )
    })?;
    let what = match (deed.changed, deed.touched) {
        (true, _) => "ran",
        (_, true) => "looked",
        _ => "nothing done",
    };
    Ok(format!("exit {}, {what}", code.unwrap_or(-1)))
}

/// What was said last: a run tells of every task that it passes over.
fn last_lines(texts: &[&str]) -> String {
    const MOST: usize = 12;
    let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
    lines[lines.len().saturating_sub(MOST)..].join("\n    ")
}

/// Whether the journal must hold the variable, and does.
fn is_held(migration: &Migration, moment: Moment, variable: &Variable) -> Result<bool, LabError> {
    // A password is found by logging in; after a rollback the migration begins anew.
    if !variable.settled || variable.no_log || moment == Moment::AfterRollback {
        return Ok(false);
    }
    let journal = migration.agent.journal();
    let holds = journal.iter().any(|record| {
        record["event"] == "variables_settled" && record["variables"].get(&variable.name).is_some()
    });
    let has_effects = journal
        .iter()
        .any(|record| record["event"] == "task_finished" && record["status"] == "changed");
    must(holds || !has_effects, || {
        format!(
            "the journal does not hold `{}`, which is settled",
            variable.name
        )
    })?;
    Ok(holds)
}

fn run_with(migration: &Migration, change: &Path) -> Result<Ended, LabError> {
    let mut command = migration.agent.run();
    command.arg("-e").arg(format!("@{}", change.display()));
    let mut run = Running::start(&mut command)?;
    let since = Instant::now();
    while !run.has_ended()? {
        must(since.elapsed() < BOUND, || {
            format!("the run did not end within {BOUND:?}")
        })?;
        std::thread::sleep(LOOK);
    }
    run.end()
}

/// Fails where the plan with this change has anything left: then something else is there than asked.
fn nothing_is_left(migration: &Migration, change: &Path) -> Result<(), LabError> {
    let mut command = migration.agent.command(&["plan", "--output", "json"]);
    command.arg("-e").arg(format!("@{}", change.display()));
    let ended = Running::start(&mut command)?.end()?;
    ended.must_have(0)?;
    let plan: Value = serde_json::from_str(&ended.stdout)
        .map_err(|error| LabError::Unexpected(format!("read the plan: {error}")))?;
    let entries = plan["plan"]["entries"].as_array();
    let left: Vec<String> = entries
        .into_iter()
        .flatten()
        .filter(|entry| entry["action"] != "done" && entry["action"] != "skip")
        .map(|entry| format!("{} {}", entry["action"], entry["task"]))
        .collect();
    must(left.is_empty(), || {
        format!("it ended with 0, and something else is there than asked: {left:?}")
    })
}

/// Where the original 0.2 database lies.
fn place_of(stand: &Stand, entries: &BTreeMap<PathBuf, Entry>) -> Result<PathBuf, LabError> {
    let original = stand.originals.first().copied().unwrap_or_default();
    let found = entries.iter().find(|(_, entry)| entry.inode == original);
    found
        .map(|(path, _)| path.clone())
        .ok_or_else(|| LabError::Unexpected("find the original 0.2 database: it is gone".into()))
}

/// The version that the server of an image needs.
fn version_of<'i>(site: &Site, image: &'i str) -> &'i str {
    if image == site.images.old {
        "13"
    } else if image == site.images.new {
        "15"
    } else {
        image
    }
}

/// Says which directories of a container it must not have.
fn wrong_directory(
    stand: &Stand,
    before: &BTreeMap<PathBuf, Entry>,
    kept: bool,
    made: &Made,
) -> Vec<String> {
    let site = &stand.migration.site;
    let mut wrong = Vec::new();
    for (source, target, version) in &made.mounts {
        let head = format!("{} of {} on {}", made.name, made.image, source.display());
        let inode = before.get(source).map(|entry| entry.inode);
        if target == SLAPD_DATA || target == SLAPD_CONFIG {
            if inode.is_some_and(|inode| stand.originals.contains(&inode)) {
                wrong.push(format!("{head}: the original directory, not a copy"));
            }
            continue;
        }
        let needs = version_of(site, &made.image);
        if version.as_deref().is_some_and(|found| found != needs) {
            wrong.push(format!("{head}: its version is {version:?}"));
        }
        // What was swapped is in use, or kept: no server of the agent has anything to do there.
        if kept && inode.is_some() {
            wrong.push(format!("{head}: the directories were swapped before"));
        }
    }
    wrong
}

/// Says which entries have got another owner or mode.
fn wrong_owners(
    stand: &Stand,
    before: &BTreeMap<PathBuf, Entry>,
    after: &BTreeMap<PathBuf, Entry>,
) -> Vec<String> {
    let site = &stand.migration.site;
    let now: BTreeMap<u64, &Entry> = after.values().map(|entry| (entry.inode, entry)).collect();
    let empty = site.root.join("elsewhere/empty");
    let mut wrong = Vec::new();
    for (path, entry) in before
        .iter()
        .filter(|(_, e)| stand.owned.contains(&e.inode))
    {
        // An inode that is free may be another thing's by now.
        let Some(now) = now
            .get(&entry.inode)
            .filter(|now| now.is_dir == entry.is_dir && now.born == entry.born)
        else {
            continue;
        };
        // The folder of the dumps is made the agent's own; only its mode may change.
        let is_backup = *path == site.backup_dir || *path == empty;
        let same_user = (now.owner.0, now.owner.1) == (entry.owner.0, entry.owner.1);
        if now.owner != entry.owner && !(is_backup && same_user) {
            wrong.push(format!(
                "owner and mode of {} were {:?} and are {:?}",
                path.display(),
                entry.owner,
                now.owner
            ));
        }
    }
    wrong
}

/// Says what was put into the site's own directories, wherever they are by now: dumps, copies, work.
fn wrong_names(
    stand: &Stand,
    before: &BTreeMap<PathBuf, Entry>,
    after: &BTreeMap<PathBuf, Entry>,
) -> Vec<String> {
    /// Left by a server itself.
    const SERVERS: [&str; 4] = ["postmaster.opts", "postmaster.pid", "lock.mdb", "data.mdb"];
    let mut wrong = Vec::new();
    for original in &stand.originals {
        let names = |all: &BTreeMap<PathBuf, Entry>| -> BTreeSet<OsString> {
            let dir = all.iter().find(|(_, entry)| entry.inode == *original);
            let inside = |path: &&PathBuf| path.parent() == dir.map(|(dir, _)| dir.as_path());
            let paths = all.keys().filter(inside);
            paths
                .filter_map(|path| path.file_name().map(OsString::from))
                .collect()
        };
        let before = names(before);
        let is_new = |name: &&OsString| {
            !before.contains(*name) && !SERVERS.iter().any(|server| name.as_os_str() == *server)
        };
        for name in names(after).iter().filter(is_new) {
            wrong.push(format!(
                "{} was put into one of the site's own directories",
                name.display()
            ));
        }
    }
    wrong
}

/// Says what changed in a directory that nobody may touch, wherever it went.
fn wrong_content(
    dir: &Path,
    before: &BTreeMap<PathBuf, Entry>,
    after: &BTreeMap<PathBuf, Entry>,
) -> Option<String> {
    let within = |all: &BTreeMap<PathBuf, Entry>| -> BTreeMap<PathBuf, Entry> {
        let inside = all.iter().filter(|(path, _)| path.starts_with(dir));
        inside
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect()
    };
    let (before, after) = (within(before), within(after));
    let differing = before
        .iter()
        .find(|(path, entry)| after.get(*path) != Some(entry))
        .map(|(path, _)| path);
    let added = after.keys().find(|path| !before.contains_key(*path));
    differing
        .or(added)
        .map(|path| format!("{} was changed, or what is in it", path.display()))
}
