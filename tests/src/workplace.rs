//! Where the lab keeps its things, who it is, and the locks that keep parallel processes apart.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::error::{LabError, io_error};
use crate::tool;

/// Directory of everything that the lab may make again: `target/lab`, or `KAAPANA_LAB_DIR`.
#[must_use]
pub fn lab_dir() -> PathBuf {
    match std::env::var_os("KAAPANA_LAB_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab"),
    }
}

/// Returns `target/lab/<name>`, made where it is missing.
///
/// # Errors
/// The directory cannot be made.
pub fn lab_subdir(name: &str) -> Result<PathBuf, LabError> {
    let path = lab_dir().join(name);
    if !path.is_dir() {
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        spread(&path);
    }
    path.canonicalize().map_err(io_error("resolve", &path))
}

/// Asks the filesystem to put each folder that is made in this one into another place (`chattr +T`). An
/// ext4 without a journal looks at every file that was removed within the last seconds before it makes one
/// nearby (`recently_deleted` of its `ialloc.c`); a lab that makes and removes sites all day spends a third
/// of its time there.
fn spread(path: &Path) {
    // Other filesystems do not know it, nor need it.
    let _ = Command::new("chattr")
        .arg("+T")
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Fails with a clear message where the process is not root.
///
/// # Errors
/// The effective user is not root.
pub fn require_root(purpose: &'static str) -> Result<(), LabError> {
    use std::os::unix::fs::MetadataExt;
    let status = Path::new("/proc/self");
    // The owner of /proc/self is the effective user of this process.
    let uid = fs::metadata(status)
        .map_err(io_error("inspect", status))?
        .uid();
    if uid == 0 {
        Ok(())
    } else {
        Err(LabError::NotRoot(purpose))
    }
}

/// Says who owns a container: pid and start time, so that a reused pid is not taken for its owner.
#[must_use]
pub fn owner() -> String {
    let pid = std::process::id();
    format!("{pid}-{}", start_time(pid).unwrap_or_default())
}

/// Returns whether the process that [`owner`] named is still there.
#[must_use]
pub fn owner_is_alive(owner: &str) -> bool {
    owner
        .split_once('-')
        .and_then(|(pid, started)| Some((pid.parse().ok()?, started)))
        .is_some_and(|(pid, started)| start_time(pid).is_some_and(|now| now == started))
}

/// Field 22 of /proc/PID/stat (proc(5)), counted from behind the program's name, which may hold anything.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(19).map(str::to_owned)
}

/// A name that no other process or thread uses.
#[must_use]
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}-{}-{}",
        owner(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// An exclusive lock on a file in `target/lab/locks`, free again when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Lock {
    /// Waits for the lock, and says so when another process holds it.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn take(name: &str) -> Result<Self, LabError> {
        let path = lab_subdir("locks")?.join(format!("{name}.lock"));
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            eprintln!("lab: {name} is being made by another process, waiting for it");
            file.lock().map_err(io_error("lock", &path))?;
        }
        Ok(Self(file))
    }
}

/// Removes what an earlier, killed attempt left: everything in `dir` named `<prefix>…` that ends in `.partial`.
/// The caller holds the lock for it.
///
/// # Errors
/// Something cannot be removed.
pub fn remove_partials(dir: &Path, prefix: &str) -> Result<(), LabError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".partial") {
            remove_any(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file or a whole directory; one that is not there is fine.
///
/// # Errors
/// It cannot be removed.
pub fn remove_any(path: &Path) -> Result<(), LabError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(io_error("remove", path))
}

/// Runs one stage of a longer work, and prints its name and the time it took.
///
/// # Errors
/// Those of the stage.
pub fn stage<T>(name: &str, work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
    let start = Instant::now();
    let outcome = work();
    let verdict = if outcome.is_ok() { "" } else { " (failed)" };
    eprintln!(
        "lab: {name}: {:.1} s{verdict}",
        start.elapsed().as_secs_f64()
    );
    outcome
}

/// A small filesystem in memory, which goes with this value.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a tmpfs of this size (`16m`) on a directory.
    ///
    /// # Errors
    /// `mount` refuses.
    pub fn tmpfs(dir: &Path, size: &str) -> Result<Self, LabError> {
        require_root("mount a small filesystem")?;
        let mut mount = Command::new("mount");
        mount
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=755"),
                "tmpfs",
            ])
            .arg(dir);
        tool::run(&mut mount, "mount a small filesystem")?;
        Ok(Self(dir.to_path_buf()))
    }

    /// Mounts a new ext4 of this size (`16M`), kept in the file `image`, on a directory.
    ///
    /// # Errors
    /// `truncate`, `mkfs.ext4` or `mount` refuses.
    pub fn ext4(dir: &Path, image: &Path, size: &str) -> Result<Self, LabError> {
        require_root("mount a small filesystem")?;
        let purpose = "make a small filesystem";
        tool::run(
            Command::new("truncate").args(["-s", size]).arg(image),
            purpose,
        )?;
        // No room is kept for root, who fills it.
        let mut make = Command::new("mkfs.ext4");
        tool::run(make.args(["-q", "-m", "0"]).arg(image), purpose)?;
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(image).arg(dir);
        tool::run(&mut mount, "mount a small filesystem")?;
        Ok(Self(dir.to_path_buf()))
    }

    /// Makes it read-only, or writable again.
    ///
    /// # Errors
    /// `mount` refuses.
    pub fn writable(&self, writable: bool) -> Result<(), LabError> {
        let mode = if writable { "remount,rw" } else { "remount,ro" };
        let mut mount = Command::new("mount");
        mount.args(["-o", mode]).arg(&self.0);
        tool::run(&mut mount, "change a small filesystem").map(drop)
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// More is in it than fits.
    pub fn resize(&self, size: &str) -> Result<(), LabError> {
        let mut mount = Command::new("mount");
        mount
            .args(["-o", &format!("remount,size={size}")])
            .arg(&self.0);
        tool::run(&mut mount, "resize a small filesystem").map(drop)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount_below(&self.0);
    }
}

/// Unmounts everything that is mounted on a directory or below it, so that it can be removed.
pub fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for target in mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1))
    {
        if Path::new(target).starts_with(dir) {
            // Detached at once, even if somebody still looks into it.
            let _ = tool::run(Command::new("umount").args(["--lazy", target]), "unmount");
        }
    }
}
