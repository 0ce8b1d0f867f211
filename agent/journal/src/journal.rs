//! Appends records: each is on disk before the caller goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::error::StateError;
use super::failure_point::{self, Phase};
use super::format::{self, Body, FORMAT_VERSION, Record};
use super::reader::{self, Contents};

/// Begins the first line of every task's log; the task's identity follows.
pub const LOG_HEADER: &str = "# task: ";

/// The folder of one playbook's state: `state/<playbook>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Names the folder of `playbook` below the state directory. Touches nothing.
    #[must_use]
    pub fn new(state: &Path, playbook: &str) -> Self {
        Self {
            root: state.join(playbook),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.jsonl")
    }

    /// The file that keeps the state's id beside the journal, so that a journal which was lost or exchanged
    /// is noticed.
    #[must_use]
    pub fn id(&self) -> PathBuf {
        self.root.join("state-id")
    }

    /// Writes the state's id beside the journal that has it in its first record.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn keep_id(&self, state_id: &str) -> Result<(), StateError> {
        let path = self.id();
        if path.exists() {
            return Ok(());
        }
        let half = self.root.join("state-id.partial");
        let mut file = private_file(&half, true)?;
        writeln!(file, "{state_id}")
            .and_then(|()| file.sync_all())
            .map_err(StateError::io("write", &half))?;
        fs::rename(&half, &path).map_err(StateError::io("create", &path))?;
        sync_directory(&self.root)
    }

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder of what tasks took away.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// The folder of one run's task logs.
    #[must_use]
    pub fn run_logs(&self, run: &str) -> PathBuf {
        self.root.join("runs").join(run)
    }

    /// The folder by which the containers of a run know that their agent is there.
    #[must_use]
    pub fn alive(&self, run: &str) -> PathBuf {
        self.root.join("alive").join(run)
    }

    /// Logs of all runs, oldest first; runs of which nothing is left are passed over.
    #[must_use]
    pub fn logs(&self) -> Vec<LogFile> {
        let files_of = |folder: &Path| -> Vec<PathBuf> {
            let listed = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
            paths.sort();
            paths
        };
        files_of(&self.root.join("runs"))
            .iter()
            .flat_map(|run| {
                let name = run.file_name().unwrap_or_default().to_string_lossy();
                let name = name.into_owned();
                files_of(run).into_iter().map(move |path| LogFile {
                    run: name.clone(),
                    path,
                })
            })
            .collect()
    }

    /// Makes the folder, readable by its owner only, so that a power loss does not take it away.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self) -> Result<(), StateError> {
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let missing: Vec<&Path> = self.root.ancestors().take_while(is_missing).collect();
        create_private(&self.root)?;
        for made in missing {
            sync_directory(made.parent().unwrap_or(Path::new("")))?;
        }
        // A run that was killed may have made the state directory and not come to this.
        let above = self.root.parent().and_then(Path::parent);
        match above.map_or(Ok(()), sync_directory) {
            Err(StateError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Ok(())
            }
            synced => synced,
        }
    }
}

/// A log of one task, or of a run's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Id of the run.
    pub run: String,
    /// The file.
    pub path: PathBuf,
}

impl LogFile {
    /// Identity of the task that wrote it, where its first line says so.
    #[must_use]
    pub fn task(&self) -> Option<String> {
        let mut first = String::new();
        let file = File::open(&self.path).ok()?.take(16 * 1024);
        BufReader::new(file).read_line(&mut first).ok()?;
        let task = first.strip_prefix(LOG_HEADER)?;
        Some(task.trim_end_matches('\n').to_owned())
    }
}

/// Makes a folder and its parents with mode 0700.
///
/// # Errors
/// When the system refuses.
pub fn create_private(path: &Path) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StateError::io("create", path))
}

/// An open journal. Its owner holds the lock.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    run: String,
    next_seq: u64,
    head: String,
    length: u64,
    /// Up to where the filesystem has promised space.
    reserved: u64,
    poisoned: bool,
}

/// Space that is set aside before a task starts, so that its end can be recorded whatever else fills the
/// disk meanwhile.
const RESERVE_BYTES: u64 = 256 * 1024;

/// A torn tail that was set aside when the journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where its bytes are now.
    pub path: PathBuf,
    /// How many.
    pub bytes: usize,
}

impl Journal {
    /// Opens a journal that was just read, under the lock. A torn tail is moved into a file of its own
    /// beside the journal.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(
        path: &Path,
        contents: &Contents,
        run: &str,
    ) -> Result<(Self, Option<SetAside>), StateError> {
        let parent = path.parent().unwrap_or(Path::new("."));
        let set_aside = if contents.torn.is_empty() {
            None
        } else {
            let aside = path.with_extension(format!("torn-{run}"));
            let mut file = private_file(&aside, true)?;
            file.write_all(&contents.torn)
                .map_err(StateError::io("write", &aside))?;
            file.sync_all().map_err(StateError::io("sync", &aside))?;
            Some(SetAside {
                path: aside,
                bytes: contents.torn.len(),
            })
        };
        let file = private_file(path, false)?;
        file.set_len(contents.whole)
            .map_err(StateError::io("truncate", path))?;
        file.sync_all().map_err(StateError::io("sync", path))?;
        sync_directory(parent)?;
        if let Some(above) = parent.parent() {
            sync_directory(above)?;
        }
        let journal = Self {
            path: path.to_path_buf(),
            file,
            run: run.to_owned(),
            next_seq: contents.records.len() as u64 + 1,
            head: contents.head.clone(),
            length: contents.whole,
            reserved: contents.whole,
            poisoned: false,
        };
        Ok((journal, set_aside))
    }

    /// Appends a record and returns it once it is on disk.
    ///
    /// # Errors
    /// When it could not be written whole and synced. The journal then refuses every further append,
    /// so that no effect can follow that would not be recorded.
    pub fn append(&mut self, body: Body) -> Result<Record, StateError> {
        if self.poisoned {
            return Err(StateError::Poisoned {
                path: self.path.clone(),
            });
        }
        if matches!(body, Body::TaskStarted { .. }) {
            self.reserve()?;
        }
        let record = Record {
            v: FORMAT_VERSION,
            seq: self.next_seq,
            time: Timestamp::now(),
            run: self.run.clone(),
            body,
            prev: self.head.clone(),
        };
        let (mut line, hash) = format::to_line(&record)
            .map_err(|e| StateError::io("encode a record for", &self.path)(e.into()))?;
        line.push('\n');
        failure_point::reach(Phase::Before, &record);
        failure_point::tear(&mut self.file, &line, &record);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| {
            failure_point::reach(Phase::Written, &record);
            self.file.sync_data()
        });
        if let Err(source) = written {
            self.poisoned = true;
            // Best effort: a half line is set aside by the next run anyway.
            let _ = self.file.set_len(self.length);
            return Err(StateError::io("append to", &self.path)(source));
        }
        failure_point::reach(Phase::After, &record);
        self.length += line.len() as u64;
        self.next_seq += 1;
        self.head = hash;
        Ok(record)
    }

    /// Asks the filesystem for the space of the records to come. The file's length stays, so what a crash
    /// leaves behind is no more than before.
    fn reserve(&mut self) -> Result<(), StateError> {
        if self.reserved >= self.length + RESERVE_BYTES / 2 {
            return Ok(());
        }
        let offset = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let wanted = fallocate(
            &self.file,
            FallocateFlags::FALLOC_FL_KEEP_SIZE,
            offset(self.length),
            offset(RESERVE_BYTES),
        );
        match wanted {
            Ok(()) => self.reserved = self.length + RESERVE_BYTES,
            // A filesystem that promises nothing may still have the space.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.reserved = u64::MAX,
            Err(error) => return Err(StateError::io("append to", &self.path)(error.into())),
        }
        Ok(())
    }

    /// Hash of the last record.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Sequence number of the record that comes next.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }
}

fn private_file(path: &Path, truncate: bool) -> Result<File, StateError> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    if truncate {
        options.write(true).truncate(true);
    } else {
        options.append(true);
    }
    options.open(path).map_err(StateError::io("open", path))
}

fn sync_directory(path: &Path) -> Result<(), StateError> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(StateError::io("sync", path))
}

/// Reads the journal of a playbook and checks that it is that playbook's.
///
/// # Errors
/// As [`reader::read`]; [`StateError::Foreign`], [`StateError::ForeignState`], [`StateError::Lost`].
pub fn read_for(dir: &StateDir, playbook: &str) -> Result<Contents, StateError> {
    own(dir, playbook, reader::read(&dir.journal())?)
}

/// As [`read_for`], by [`reader::read_outline`].
///
/// # Errors
/// As [`read_for`].
pub fn read_outline_for(dir: &StateDir, playbook: &str) -> Result<Contents, StateError> {
    own(dir, playbook, reader::read_outline(&dir.journal())?)
}

fn own(dir: &StateDir, playbook: &str, contents: Contents) -> Result<Contents, StateError> {
    let path = dir.journal();
    let kept = fs::read_to_string(dir.id()).unwrap_or_default();
    match (contents.state_id(), kept.trim()) {
        (_, "") => {}
        (None, id) if contents.records.is_empty() => {
            return Err(StateError::Lost {
                how: if path.exists() { "empty" } else { "gone" },
                path,
                state_id: id.to_owned(),
            });
        }
        (Some(found), id) if found != id => {
            return Err(StateError::ForeignState {
                path,
                found: found.to_owned(),
                expected: id.to_owned(),
            });
        }
        _ => {}
    }
    match contents.records.first().map(|record| &record.body) {
        Some(Body::JournalCreated {
            playbook: found, ..
        }) if found != playbook => Err(StateError::Foreign {
            path: dir.journal(),
            found: found.clone(),
            expected: playbook.to_owned(),
        }),
        _ => Ok(contents),
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
