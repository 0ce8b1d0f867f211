//! On the host: jobs, each a run that nobody needs to watch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::error::RemoteError;
use super::order::{ORDER_VERSION, Order};
use super::ssh::last_line;
use crate::state::{Lock, StateDir, StateError};

/// Jobs whose events are kept, a playbook.
const KEPT: usize = 20;
/// How often a follower looks for more.
const LOOK: Duration = Duration::from_millis(30);
/// How often a follower says that it is still there: who hears nothing for longer knows that the line is
/// dead, and a follower whose line is dead notices by writing.
pub const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How long a job that was just started may take until it holds its lock.
const TAKES_OFF: Duration = Duration::from_secs(30);
/// Where systemd is the one that keeps services (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";

/// The agent's folder on a host.
#[derive(Debug, Clone)]
pub struct Base(PathBuf);

/// A job: one run of a playbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its folder.
    pub dir: PathBuf,
    /// Its name: the folder's.
    pub id: String,
}

impl Base {
    /// The folder.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    /// Where a bundle is unpacked.
    #[must_use]
    pub fn bundle(&self, sha256: &str) -> PathBuf {
        self.0.join("bundles").join(sha256)
    }

    /// The root of states.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The link by which a playbook's runs name its bundle: it stays when the bundle changes, and with it
    /// every path in the journal.
    #[must_use]
    pub fn playbook(&self, name: &str) -> PathBuf {
        self.0.join("playbooks").join(name)
    }

    fn jobs(&self, name: &str) -> PathBuf {
        self.0.join("jobs").join(name)
    }

    /// The newest job of a playbook.
    ///
    /// # Errors
    /// They cannot be listed: root's jobs are root's alone.
    pub fn newest(&self, name: &str) -> Result<Option<Job>, RemoteError> {
        Ok(self.all(name)?.pop())
    }

    /// All of them, oldest first: ids begin with the time.
    fn all(&self, name: &str) -> Result<Vec<Job>, RemoteError> {
        let folder = self.jobs(name);
        let listed = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(RemoteError::io("list", &folder))?,
        };
        let mut jobs: Vec<Job> = listed
            .flatten()
            .map(|entry| Job {
                dir: entry.path(),
                id: entry.file_name().to_string_lossy().into_owned(),
            })
            .collect();
        jobs.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(jobs)
    }

    /// Begins a run that is on its own from then on. Returns `None` where the bundle is not here yet.
    ///
    /// # Errors
    /// An order of another version, another run of this playbook at work, a refusal of the system.
    pub fn start(
        &self,
        order: &Order,
        name: &str,
        id: &str,
        program: &Path,
    ) -> Result<Option<Job>, RemoteError> {
        if order.v != ORDER_VERSION {
            return Err(RemoteError::Answer {
                said: format!("an order of version {}, not {ORDER_VERSION}", order.v),
            });
        }
        let bundle = self.bundle(&order.bundle);
        if !bundle.is_dir() {
            return Ok(None);
        }
        let state = order
            .state_dir
            .as_ref()
            .map_or_else(|| self.state(), PathBuf::from);
        private_dir(&self.0.join("jobs"))?;
        let turns = self.0.join("jobs").join(format!("{name}.lock"));
        // Between two controllers, from the look whether one is at work to the job that is.
        let _turn = Lock::take(&turns, id).map_err(|error| at_work(error.to_string()))?;
        let lock = StateDir::new(&state, name).lock();
        if lock.is_file()
            && let Err(error @ StateError::Locked { .. }) = Lock::look(&lock)
        {
            return Err(at_work(error.to_string()));
        }
        if let Some(last) = self.newest(name)?
            && last.is_at_work()
        {
            return Err(at_work(format!(
                "job {} of this playbook is at work",
                last.id
            )));
        }
        self.point(name, &order.bundle)?;
        let job = Job::at(&self.jobs(name).join(id));
        private_dir(&job.dir)?;
        private_dir(&state)?;
        if let Err(error) = job.begin(order, program, &self.0) {
            // The order holds secrets; nobody will take it.
            let _ = fs::remove_dir_all(&job.dir);
            return Err(error);
        }
        let mut old = self.all(name)?;
        old.truncate(old.len().saturating_sub(KEPT));
        for job in old {
            // Only what it said: its run is in the state.
            let _ = fs::remove_dir_all(&job.dir);
        }
        Ok(Some(job))
    }

    /// Lets the playbook's link name this bundle, in one step.
    fn point(&self, name: &str, bundle: &str) -> Result<(), RemoteError> {
        let link = self.playbook(name);
        let folder = self.0.join("playbooks");
        fs::create_dir_all(&folder).map_err(RemoteError::io("create", &folder))?;
        let new = folder.join(format!(".{name}-{}", std::process::id()));
        let _ = fs::remove_file(&new);
        symlink(Path::new("../bundles").join(bundle), &new)
            .and_then(|()| fs::rename(&new, &link))
            .map_err(RemoteError::io("link", &link))
    }
}

/// Why a second run of a playbook does not begin.
fn at_work(message: String) -> RemoteError {
    RemoteError::Agent {
        code: "state::locked".to_owned(),
        message,
        help: Some("follow it with `attach`, end it with `stop`".to_owned()),
        exit: 7,
    }
}

fn private_dir(path: &Path) -> Result<(), RemoteError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .map_err(RemoteError::io("create", path))
}

fn write_private(path: &Path, content: &[u8]) -> Result<(), RemoteError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(RemoteError::io("create", path))?;
    file.write_all(content)
        .map_err(RemoteError::io("write", path))
}

impl Job {
    /// A job by its folder.
    #[must_use]
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            id: dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        }
    }

    fn order(&self) -> PathBuf {
        self.dir.join("order.json")
    }

    /// What the run says, as JSON lines.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.dir.join("events.jsonl")
    }

    /// What is not for programs: panics, complaints of the system.
    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.dir.join("stderr.log")
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    fn exit(&self) -> PathBuf {
        self.dir.join("exit")
    }

    /// Leaves the order where the run takes it, and starts the run.
    fn begin(&self, order: &Order, program: &Path, base: &Path) -> Result<(), RemoteError> {
        let text = serde_json::to_vec(order)
            .map_err(|error| RemoteError::io("describe", &self.dir)(error.into()))?;
        write_private(&self.order(), &text)?;
        write_private(&self.events(), b"")?;
        self.launch(program, base)
    }

    /// Starts the process that does the work, in a session of its own: under systemd where that runs the
    /// host and we are root, so that the end of a login session does not end it.
    fn launch(&self, program: &Path, base: &Path) -> Result<(), RemoteError> {
        let root = nix::unistd::Uid::effective().is_root();
        let mut command = if root && Path::new(SYSTEMD).is_dir() {
            let mut command = Command::new("systemd-run");
            command
                .args(["--quiet", "--collect", "--no-ask-password"])
                .args([
                    &format!("--unit=kaapana-agent-{}", self.id),
                    // It ends by SIGTERM as by `stop`; what it started in containers it ends itself.
                    "--property=KillMode=mixed",
                    "--property=TimeoutStopSec=300",
                    &format!(
                        "--property=StandardOutput=append:{}",
                        self.events().display()
                    ),
                    &format!(
                        "--property=StandardError=append:{}",
                        self.stderr().display()
                    ),
                ]);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command
        } else {
            let append = |path: &Path| {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o600)
                    .open(path);
                file.map_err(RemoteError::io("open", path))
            };
            let mut command = Command::new("setsid");
            command
                .arg("--fork")
                .stdout(append(&self.events())?)
                .stderr(append(&self.stderr())?);
            command
        };
        command
            .arg(program)
            .args(["--output", "json", "on-host", "--base"])
            .arg(base)
            .args(["work", "--job"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .current_dir("/");
        let tool = command.get_program().to_string_lossy().into_owned();
        let output = command.output().map_err(|source| RemoteError::Spawn {
            program: tool,
            source,
        })?;
        if output.status.success() {
            return Ok(());
        }
        Err(RemoteError::Push {
            what: "a run",
            said: last_line(&String::from_utf8_lossy(&output.stderr)),
        })
    }

    /// Takes the order, which is gone from the disk afterwards, and the job's lock, which lasts as long as
    /// the process.
    ///
    /// # Errors
    /// There is none (any more), or the system refuses.
    pub fn take(&self) -> Result<(Order, Lock), RemoteError> {
        let holder = std::process::id().to_string();
        let lock = Lock::take(&self.lock(), &holder).map_err(|error| RemoteError::State {
            what: error.to_string(),
        })?;
        let path = self.order();
        let text = fs::read(&path).map_err(RemoteError::io("read", &path))?;
        fs::remove_file(&path).map_err(RemoteError::io("remove", &path))?;
        let order = serde_json::from_slice(&text)
            .map_err(|error| RemoteError::io("read", &path)(error.into()))?;
        Ok((order, lock))
    }

    /// Notes how the run ended.
    ///
    /// # Errors
    /// The system refuses.
    pub fn ended(&self, exit: u8) -> Result<(), RemoteError> {
        let (path, partial) = (self.exit(), self.dir.join("exit.partial"));
        fs::write(&partial, format!("{exit}\n"))
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(RemoteError::io("write", &path))
    }

    /// How it ended, where it did so by itself.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        fs::read_to_string(self.exit()).ok()?.trim().parse().ok()
    }

    /// Whether its process lives, or has yet to begin. The lock is not looked at before it is taken: a look
    /// takes it, too, for a moment, and would be in the way.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.exit_code().is_none() && self.takes_off().unwrap_or_else(|| self.worker().is_some())
    }

    /// Whether it was started a moment ago; `None` once the order was taken.
    fn takes_off(&self) -> Option<bool> {
        let ordered = fs::metadata(self.order()).and_then(|meta| meta.modified());
        let since = ordered.ok()?.elapsed();
        Some(since.is_ok_and(|since| since < TAKES_OFF))
    }

    /// The process at work.
    fn worker(&self) -> Option<Pid> {
        match Lock::look(&self.lock()) {
            Err(StateError::Locked { holder, .. }) => holder.trim().parse().ok().map(Pid::from_raw),
            _ => None,
        }
    }

    /// The file whose presence ends the run behind the task that it is at.
    #[must_use]
    pub fn drain(&self) -> PathBuf {
        self.dir.join("drain")
    }

    /// Asks the run to end cleanly, at once or behind the task that it is at, and waits for it. Returns
    /// whether there was one.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stop(&self, after_task: bool) -> Result<bool, RemoteError> {
        while self.takes_off() == Some(true) {
            std::thread::sleep(LOOK);
        }
        let Some(pid) = self.worker() else {
            return Ok(false);
        };
        if after_task {
            let file = self.drain();
            fs::write(&file, b"").map_err(RemoteError::io("write", &file))?;
        } else {
            kill(pid, Signal::SIGTERM)
                .map_err(|errno| RemoteError::io("stop", &self.dir)(errno.into()))?;
        }
        while self.worker() == Some(pid) {
            std::thread::sleep(LOOK);
        }
        Ok(true)
    }

    /// Writes what the run says from this byte on, whole lines, until it has ended or nobody reads; then a
    /// line that tells how. An empty line now and then is a sign of life.
    ///
    /// # Errors
    /// The events cannot be read. A reader that went away is not an error.
    pub fn follow(&self, from: u64, out: &mut impl Write) -> Result<(), RemoteError> {
        let path = self.events();
        let mut file = File::open(&path).map_err(RemoteError::io("open", &path))?;
        file.seek(SeekFrom::Start(from))
            .map_err(RemoteError::io("read", &path))?;
        let mut tell = |line: &Value| writeln!(out, "{line}").and_then(|()| out.flush());
        if tell(&json!({"on_host": "job", "job": self.id, "from": from})).is_err() {
            return Ok(());
        }
        let mut rest = Vec::new();
        let mut last_word = Instant::now();
        loop {
            // Asked before reading: what it wrote before its end is read for sure.
            let at_work = self.is_at_work();
            let read = file
                .read_to_end(&mut rest)
                .map_err(RemoteError::io("read", &path))?;
            let whole = rest
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end + 1);
            let silent = last_word.elapsed() >= SIGN_OF_LIFE;
            if whole > 0 || silent {
                let told = out.write_all(if whole > 0 { &rest[..whole] } else { b"\n" });
                if told.and_then(|()| out.flush()).is_err() {
                    return Ok(());
                }
                rest.drain(..whole);
                last_word = Instant::now();
            }
            if !at_work && read == 0 {
                break;
            }
            if read == 0 {
                std::thread::sleep(LOOK);
            }
        }
        let complaint = fs::read_to_string(self.stderr()).unwrap_or_default();
        let line = json!({
            "on_host": "end", "exit": self.exit_code(),
            "said": Some(last_line(&complaint)).filter(|_| !complaint.trim().is_empty()),
        });
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        Ok(())
    }
}

/// Waits until the other side closes standard input: then nobody reads any more.
pub fn until_hung_up() {
    let mut sink = [0; 256];
    let mut stdin = io::stdin().lock();
    while matches!(stdin.read(&mut sink), Ok(read) if read > 0) {}
}
