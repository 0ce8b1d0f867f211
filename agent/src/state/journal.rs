//! Appends records: each is on disk before the caller goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::error::StateError;
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

    /// The lock file.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The folder of one run's task logs.
    #[must_use]
    pub fn run_logs(&self, run: &str) -> PathBuf {
        self.root.join("runs").join(run)
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

    /// Makes the folder, readable by its owner only.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self) -> Result<(), StateError> {
        create_private(&self.root)
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
    poisoned: bool,
}

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
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.poisoned = true;
            // Best effort: a half line is set aside by the next run anyway.
            let _ = self.file.set_len(self.length);
            return Err(StateError::io("append to", &self.path)(source));
        }
        self.length += line.len() as u64;
        self.next_seq += 1;
        self.head = hash;
        Ok(record)
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
/// As [`reader::read`], and [`StateError::Foreign`].
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
mod tests {
    use super::*;
    use std::io::Read;

    fn created() -> Body {
        Body::JournalCreated {
            state_id: "s".into(),
            playbook: "p".into(),
            host: "h".into(),
        }
    }

    fn skipped(task: &str) -> Body {
        Body::TaskSkipped {
            task: task.into(),
            condition: "x".into(),
        }
    }

    /// A journal of four records and its path.
    fn sample() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("journal.jsonl");
        let contents = reader::read(&path).expect("empty");
        let (mut journal, _) = Journal::open(&path, &contents, "r1").expect("open");
        for body in [created(), skipped("a"), skipped("b"), skipped("c")] {
            journal.append(body).expect("append");
        }
        (dir, path)
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .expect("read")
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn rewrite(path: &Path, lines: &[String]) {
        fs::write(
            path,
            lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        )
        .expect("write");
    }

    #[test]
    fn a_torn_last_line_is_set_aside_and_the_journal_goes_on() {
        let (_dir, path) = sample();
        let text = fs::read(&path).expect("read");
        fs::write(&path, &text[..text.len() - 20]).expect("cut");
        let contents = reader::read(&path).expect("torn tails are normal");
        assert_eq!(contents.records.len(), 3);
        let (mut journal, aside) = Journal::open(&path, &contents, "r2").expect("open");
        let aside = aside.expect("the tail was torn");
        let mut kept = Vec::new();
        File::open(&aside.path)
            .expect("open")
            .read_to_end(&mut kept)
            .expect("read");
        assert_eq!(kept, contents.torn);
        journal.append(skipped("d")).expect("append");
        assert_eq!(reader::read(&path).expect("whole again").records.len(), 4);
    }

    #[test]
    fn a_tail_of_zeros_after_a_power_loss_is_a_torn_tail() {
        let (_dir, path) = sample();
        let mut text = fs::read(&path).expect("read");
        text.extend([0; 512]);
        fs::write(&path, text).expect("write");
        let contents = reader::read(&path).expect("zeros are a torn tail");
        assert_eq!((contents.records.len(), contents.torn.len()), (4, 512));
    }

    #[test]
    fn removed_swapped_and_altered_lines_are_told_apart_with_their_number() {
        let (_dir, path) = sample();
        let good = lines(&path);

        let mut removed = good.clone();
        removed.remove(1);
        rewrite(&path, &removed);
        assert!(matches!(
            reader::read(&path),
            Err(StateError::BrokenChain { line: 2, .. })
        ));

        let mut swapped = good.clone();
        swapped.swap(1, 2);
        rewrite(&path, &swapped);
        assert!(matches!(
            reader::read(&path),
            Err(StateError::BrokenChain { line: 2, .. })
        ));

        let mut altered = good.clone();
        altered[2] = altered[2].replace("\"task\":\"b\"", "\"task\":\"z\"");
        rewrite(&path, &altered);
        assert!(matches!(
            reader::read(&path),
            Err(StateError::Damaged { line: 3, .. })
        ));
    }

    #[test]
    fn a_line_from_another_journal_with_a_fitting_number_breaks_the_chain() {
        let (_dir, path) = sample();
        let (_other_dir, other) = sample();
        let mut mixed = lines(&path);
        mixed[2] = lines(&other)[2].clone();
        rewrite(&path, &mixed);
        assert!(matches!(
            reader::read(&path),
            Err(StateError::BrokenChain { line: 3, .. })
        ));
    }

    #[test]
    fn a_changed_byte_anywhere_in_a_journal_is_found() {
        let (_dir, path) = sample();
        let good = fs::read(&path).expect("read");
        for place in 0..good.len() {
            for bit in [1, 4, 128] {
                let mut bytes = good.clone();
                bytes[place] ^= bit;
                match reader::parse(&path, &bytes) {
                    Err(_) => {}
                    // The last line's end is all that looks like a crash: and is told as one.
                    Ok(contents) => assert!(
                        place + 1 == good.len() && !contents.torn.is_empty(),
                        "byte {place} was changed unnoticed"
                    ),
                }
            }
        }
    }

    #[test]
    fn a_journal_of_another_playbook_is_refused() {
        let (dir, _) = sample();
        let state = StateDir {
            root: dir.path().to_path_buf(),
        };
        assert!(matches!(
            read_for(&state, "q"),
            Err(StateError::Foreign { .. })
        ));
        assert!(read_for(&state, "p").is_ok());
    }
}
