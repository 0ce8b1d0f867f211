//! A small playbook with every kind of step that is a matter of files alone, and the host that it runs on.

use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::model::{Node, Tree};
use super::trace;
use crate::agent;
use crate::apt;
use crate::error::{LabError, io_error};
use crate::migration::{Ended, Running, must};
use crate::workplace::{lab_subdir, remove_any, unique};

const PLAYBOOK: &str = include_str!("power.yaml");
const NAME: &str = "power";
/// Large enough to be written in pieces.
const LARGE_BYTES: usize = 2_500_000;
/// The one directory whose inode counts: it is moved.
const MOVED: [&str; 2] = ["site/data", "site/data-old"];

/// A place with a playbook, what it works on, and its state.
pub(super) struct Scene {
    dir: PathBuf,
    agent: PathBuf,
    large: Vec<u8>,
    moved: u64,
}

impl Scene {
    pub(super) fn new() -> Result<Self, LabError> {
        let dir = lab_subdir("sites")?.join(unique("site"));
        make_dir(&dir)?;
        for name in ["root", "root/site", "hold", "input", "input/playbooks"] {
            make_dir(&dir.join(name))?;
        }
        let large: Vec<u8> = (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect();
        let mut scene = Self {
            agent: agent::binary()?,
            large,
            moved: 0,
            dir,
        };
        let playbook = PLAYBOOK
            .replace("ROOT", &scene.root().display().to_string())
            .replace("INPUT", &scene.dir.join("input").display().to_string());
        write(&scene.playbook(), playbook.as_bytes())?;
        write(&scene.dir.join("input/large"), &scene.large)?;
        let data = scene.root().join(MOVED[0]);
        make_dir(&data)?;
        write(&data.join("PG_VERSION"), b"13\n")?;
        scene.moved = inode(&data)?;
        let mut before = Self::before();
        // It is there already, around the directory that is moved.
        before.remove(Path::new("site"));
        scene.put(&before, false)?;
        Ok(scene)
    }

    /// What the model sees as there from the start.
    pub(super) fn before() -> Tree {
        let directory = |path: &str| (PathBuf::from(path), Node::Directory);
        let file = |path: &str| (PathBuf::from(path), Node::File(b"old\n".to_vec()));
        Tree::from([
            (PathBuf::from(MOVED[0]), Node::Kept),
            directory("site"),
            file("site/config"),
            directory("site/gone"),
            directory("site/gone/inner"),
            file("site/gone/file"),
            file("site/gone/inner/file"),
        ])
    }

    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// What the tasks work on.
    pub(super) fn site(&self) -> PathBuf {
        self.root().join("site")
    }

    fn playbook(&self) -> PathBuf {
        self.dir.join(format!("input/playbooks/{NAME}.yaml"))
    }

    fn journal(&self) -> PathBuf {
        self.root().join(format!("state/{NAME}/journal.jsonl"))
    }

    /// The traced run's journal, whatever name it has at the time.
    fn held_journal(&self) -> PathBuf {
        self.dir.join("hold/journal")
    }

    fn command(&self, mut command: Command, words: &[&str]) -> Command {
        command.args(words).arg(self.playbook());
        command.arg("--state-dir").arg(self.root().join("state"));
        command.stdin(std::process::Stdio::null());
        command
    }

    pub(super) fn ask(&self, words: &[&str]) -> Result<Ended, LabError> {
        Running::start(&mut self.command(Command::new(&self.agent), words))?.end()
    }

    /// Answers that the command has not run.
    pub(super) fn ask_operator(&self) -> Result<(), LabError> {
        let mut command = self.command(Command::new(&self.agent), &["resolve"]);
        command.args(["once", "--redo", "--reason", "its directory is not there"]);
        Running::start(&mut command)?.end()?.must_have(0)
    }

    /// Runs the playbook under strace.
    pub(super) fn trace(&self) -> Result<String, LabError> {
        apt::ensure("strace", "strace")?;
        let file = self.dir.join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-xx", "-s", "16000000", "-e"]);
        strace
            .arg(format!("trace={}", trace::CALLS))
            .arg("-o")
            .arg(&file);
        strace.arg(&self.agent);
        Running::start(&mut self.command(strace, &["run"]))?
            .end()?
            .must_have(0)?;
        // A disk keeps the file that the journal is, and the agent knows it by that.
        let (journal, held) = (self.journal(), self.held_journal());
        fs::hard_link(&journal, &held).map_err(io_error("link", &journal))?;
        fs::read_to_string(&file).map_err(io_error("read", &file))
    }

    /// Puts a state of the disk in the place of what is there.
    pub(super) fn restore(&self, tree: &Tree) -> Result<(), LabError> {
        for name in MOVED {
            let path = self.root().join(name);
            if path.exists() {
                let held = self.dir.join("hold/data");
                fs::rename(&path, &held).map_err(io_error("rename", &path))?;
            }
        }
        remove_any(&self.root())?;
        make_dir(&self.root())?;
        self.put(tree, true)
    }

    fn put(&self, tree: &Tree, with_kept: bool) -> Result<(), LabError> {
        for (path, node) in tree {
            let path = self.root().join(path);
            let (journal, held) = (self.journal(), self.held_journal());
            if let Node::File(content) = node
                && path == journal
                && held.exists()
            {
                fs::hard_link(&held, &path).map_err(io_error("link", &held))?;
                fs::write(&path, content).map_err(io_error("write", &path))?;
                continue;
            }
            match node {
                Node::Directory => make_dir(&path)?,
                Node::File(content) => write(&path, content)?,
                Node::Kept if with_kept => {
                    let held = self.dir.join("hold/data");
                    fs::rename(&held, &path).map_err(io_error("rename", &held))?;
                }
                Node::Kept => {}
            }
        }
        Ok(())
    }

    /// Whole records of the journal.
    pub(super) fn records(&self) -> Vec<Value> {
        let bytes = fs::read(self.journal()).unwrap_or_default();
        let whole = bytes.split_inclusive(|byte| *byte == b'\n');
        whole
            .filter(|line| line.ends_with(b"\n"))
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect()
    }

    /// Fails unless the effect of a task is there, whole and once.
    pub(super) fn must_have_effect(&self, task: &str) -> Result<(), LabError> {
        let (root, site) = (self.root(), self.site());
        let holds =
            |name: &str, content: &[u8]| fs::read(site.join(name)).unwrap_or_default() == content;
        let is_there = match task {
            "directory" => site.join("out").is_dir(),
            "small" => holds("out/small", b"small\n"),
            "anew" => holds("config", b"other\n"),
            "large" => holds("out/large", &self.large),
            "move" => {
                inode(&root.join(MOVED[1])).ok() == Some(self.moved)
                    && !root.join(MOVED[0]).exists()
            }
            "once" => site.join("marker").is_dir(),
            "remove" => !site.join("gone").exists(),
            other => return Err(LabError::Unexpected(format!("an unknown task `{other}`"))),
        };
        must(is_there, || format!("the effect of `{task}` is not there"))
    }

    /// Fails unless this is the end of an undisturbed run.
    pub(super) fn must_be_at_its_end(&self) -> Result<(), LabError> {
        for task in [
            "directory",
            "small",
            "anew",
            "large",
            "move",
            "once",
            "remove",
        ] {
            self.must_have_effect(task)?;
        }
        let mut found = Vec::new();
        for dir in [self.root(), self.site(), self.site().join("out")] {
            for entry in fs::read_dir(&dir)
                .map_err(io_error("list", &dir))?
                .flatten()
            {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        found.sort();
        must(
            found
                == [
                    "config", "data-old", "large", "marker", "out", "site", "small", "state",
                ],
            || format!("something else is there at the end: {found:?}"),
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What stays is swept by the next process.
        let _ = remove_any(&self.dir);
    }
}

fn make_dir(path: &Path) -> Result<(), LabError> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(io_error("create", path))
}

fn write(path: &Path, content: &[u8]) -> Result<(), LabError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(io_error("write", path))
}

fn inode(path: &Path) -> Result<u64, LabError> {
    fs::symlink_metadata(path)
        .map(|meta| meta.ino())
        .map_err(io_error("inspect", path))
}
