//! Builds an image from a Debian suite, packages and files: debootstrap, chroot, `docker import`, `docker commit`.
//!
//! Two things are kept: the bare suite as a tarball under `target/lab/cache`, which images share, and the
//! root file system with the packages as an image of one layer. So a change of a file costs a second, not
//! a new installation. Everything is made beside its target as `*.partial`, and renamed or tagged last.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::docker::{self, IMAGE_LABEL};
use crate::error::{LabError, io_error};
use crate::hash::ContentHash;
use crate::workplace::{self, Lock, lab_subdir, stage};
use crate::{apt, tool};

const MIRROR: &str = "http://deb.debian.org/debian";

/// Part of every content hash: to be raised when the way of building changes what comes out.
const RECIPE_VERSION: &str = "1";

/// What dpkg leaves out, and how it writes: a root file system that is thrown away when the power fails
/// needs no sync after each file.
const DPKG_CONFIG: &str = "force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
";

/// Removed from every root file system, as shell patterns.
const TRIM: &str = "/var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/debconf/*-old /var/lib/apt/lists/* \
    /var/log/* /usr/share/doc/* /usr/share/info/* /usr/share/locale/* /usr/share/man/* /etc/dpkg/dpkg.cfg.d/lab \
    /usr/sbin/policy-rc.d";

/// A file in an image, owned by root.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Absolute path in the image.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

/// An image to be built from Debian's packages.
///
/// ```no_run
/// let sshd = lab::images::DebianImage {
///     repository: "kaapana-lab/sshd".into(),
///     version: "1".into(),
///     suite: "bookworm".into(),
///     packages: vec!["openssh-server".into()],
///     config: vec![r#"ENTRYPOINT ["/usr/sbin/sshd", "-D", "-e"]"#.into(), "EXPOSE 22".into()],
///     ..lab::images::DebianImage::default()
/// };
/// let tag = sshd.ensure()?;
/// # Ok::<(), lab::error::LabError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct DebianImage {
    /// Repository, such as `kaapana-lab/sshd`.
    pub repository: String,
    /// First part of the tag; the content hash follows.
    pub version: String,
    /// Debian suite, such as `bookworm`.
    pub suite: String,
    /// Shell commands run in the bare suite before the packages come, such as making users.
    pub before: String,
    /// Packages, installed without their recommendations and without starting a service.
    pub packages: Vec<String>,
    /// Shell commands run in the root file system after the packages came.
    pub after: String,
    /// Shell patterns of what else to remove.
    pub trim: Vec<String>,
    /// Files put on top.
    pub files: Vec<ImageFile>,
    /// Dockerfile instructions that `docker commit --change` takes: `ENV`, `ENTRYPOINT`, `CMD`, `EXPOSE`, ….
    pub config: Vec<String>,
    /// What `docker stop` sends, when it is not SIGTERM.
    pub stop_signal: Option<String>,
}

impl DebianImage {
    /// Returns the image's name: repository, version, and the hash of all that goes in.
    #[must_use]
    pub fn tag(&self) -> String {
        let mut hash = self.rootfs_hash();
        for file in &self.files {
            hash = hash
                .with(&file.path, &file.content)
                .with("mode", file.mode.to_string());
        }
        let hash = hash
            .with("config", self.config.join("\n"))
            .with(
                "stop signal",
                self.stop_signal.as_deref().unwrap_or_default(),
            )
            .short();
        format!("{}:{}-{hash}", self.repository, self.version)
    }

    /// Returns the image's name, after building it where Docker does not have it yet.
    ///
    /// # Errors
    /// Not root, no Docker, no Debian mirror, or a step of the building fails.
    pub fn ensure(&self) -> Result<String, LabError> {
        let tag = self.tag();
        if docker::image_exists(&tag)? {
            return Ok(tag);
        }
        let _lock = Lock::take(&self.lock_name())?;
        if !docker::image_exists(&tag)? {
            self.build(&tag)?;
        }
        Ok(tag)
    }

    fn lock_name(&self) -> String {
        format!(
            "image-{}-{}",
            self.repository.replace('/', "-"),
            self.version
        )
    }

    /// Builds the image, whether Docker has it or not. The caller holds the lock.
    fn build(&self, tag: &str) -> Result<(), LabError> {
        workplace::require_root("build images")?;
        eprintln!("lab: building {tag}");
        let rootfs = self.rootfs()?;
        stage("add files and tag", || self.add_files(&rootfs, tag))
    }

    fn rootfs_hash(&self) -> ContentHash {
        ContentHash::default()
            .with("recipe", RECIPE_VERSION)
            .with("dpkg", DPKG_CONFIG)
            .with("suite", &self.suite)
            .with("before", &self.before)
            .with("packages", self.packages.join(" "))
            .with("after", &self.after)
            .with("trim", self.trim.join(" "))
    }

    /// Returns the image of the root file system with all packages.
    fn rootfs(&self) -> Result<String, LabError> {
        let name = format!(
            "{}-rootfs:{}-{}",
            self.repository,
            self.version,
            self.rootfs_hash().short()
        );
        if docker::image_exists(&name)? {
            return Ok(name);
        }
        let bare = bare_suite(&self.suite)?;
        let cache = lab_subdir("cache")?;
        let prefix = self.lock_name();
        workplace::remove_partials(&cache, &prefix)?;
        let root = cache.join(format!("{prefix}.root.partial"));
        stage(&format!("unpack {}", self.suite), || {
            fs::create_dir(&root).map_err(io_error("create", &root))?;
            let mut tar = Command::new("tar");
            tool::run(
                tar.arg("-xpf")
                    .arg(&bare)
                    .arg("-C")
                    .arg(&root)
                    .arg("--numeric-owner"),
                "unpack the bare suite",
            )
        })?;
        stage(&format!("install {}", self.packages.join(" ")), || {
            write(&root.join("etc/dpkg/dpkg.cfg.d/lab"), DPKG_CONFIG, 0o644)?;
            // invoke-rc.d asks this file: nothing is started while packages are installed.
            write(
                &root.join("usr/sbin/policy-rc.d"),
                "#!/bin/sh\nexit 101\n",
                0o755,
            )?;
            fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf"))
                .map_err(io_error("copy", Path::new("/etc/resolv.conf")))?;
            let packages = self.packages.join(" ");
            let trim = self.trim.join(" ");
            chroot(
                &root,
                &format!(
                    "{}\napt-get -q update\napt-get -qy install --no-install-recommends {packages}\n{}\napt-get clean\n\
                 rm -rf {TRIM} {trim}\n: > /etc/resolv.conf",
                    self.before, self.after
                ),
            )
        })?;
        stage("docker import", || {
            let pipe = "set -o pipefail; tar -cf - --numeric-owner --one-file-system --exclude='./dev/*' -C \"$1\" . \
                        | docker import --change \"LABEL $2\" - \"$3\"";
            let mut import = Command::new("bash");
            import
                .args(["-c", pipe, "bash"])
                .arg(&root)
                .args([IMAGE_LABEL, &name]);
            tool::run(&mut import, "import the root file system")
        })?;
        workplace::remove_any(&root)?;
        Ok(name)
    }

    /// Puts the files on top of the root file system, sets what a container of it runs, and tags it: by
    /// `docker commit`, as `docker build` takes a second for each instruction on some storage drivers.
    fn add_files(&self, rootfs: &str, tag: &str) -> Result<(), LabError> {
        let cache = lab_subdir("cache")?;
        let files = tempfile::Builder::new()
            .prefix(&self.lock_name())
            .suffix(".partial")
            .tempdir_in(&cache)
            .map_err(io_error("create", &cache))?;
        for file in &self.files {
            write(
                &files.path().join(file.path.trim_start_matches('/')),
                &file.content,
                file.mode,
            )?;
        }
        // tempfile's own mode would become that of the image's root directory.
        set_mode(files.path(), 0o755)?;

        // The name is free but for a container that a killed build left; we hold the lock.
        let container = format!("kaapana-lab-build-{}", self.lock_name());
        docker::docker(&["rm", "--force", &container]).or_else(ignore_missing)?;
        // `docker commit` cannot set a stop signal, but keeps that of the container.
        let signal = self.stop_signal.as_deref().unwrap_or("SIGTERM");
        docker::docker(&[
            "create",
            "--name",
            &container,
            "--stop-signal",
            signal,
            rootfs,
            "true",
        ])?;
        let source = format!("{}/.", files.path().display());
        let target = format!("{container}:/");
        let mut commit = vec!["commit"];
        for line in &self.config {
            commit.extend(["--change", line]);
        }
        commit.extend([container.as_str(), tag]);
        let outcome =
            docker::docker(&["cp", &source, &target]).and_then(|_| docker::docker(&commit));
        docker::docker(&["rm", "--force", &container])?;
        outcome.map(drop)
    }
}

/// Older engines call it an error to remove a container that is not there.
fn ignore_missing(error: LabError) -> Result<String, LabError> {
    match &error {
        LabError::Tool { stderr, .. } if stderr.contains("No such container") => Ok(String::new()),
        _ => Err(error),
    }
}

/// Returns the tarball of a bare Debian suite.
fn bare_suite(suite: &str) -> Result<PathBuf, LabError> {
    let cache = lab_subdir("cache")?;
    let mirror = std::env::var("KAAPANA_LAB_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
    let tarball = cache.join(format!("suite-{suite}-{RECIPE_VERSION}.tar"));
    let prefix = format!("suite-{suite}");
    let _lock = Lock::take(&prefix)?;
    if tarball.exists() {
        return Ok(tarball);
    }
    apt::ensure("debootstrap", "debootstrap")?;
    workplace::remove_partials(&cache, &prefix)?;
    let root = cache.join(format!("{prefix}.root.partial"));
    stage(
        &format!("debootstrap {suite} from {mirror} (about a minute)"),
        || {
            // A mount namespace of its own: what debootstrap mounts goes with it, even when it is killed.
            let mut command = isolated();
            command
                .args(["debootstrap", "--variant=minbase", suite])
                .arg(&root)
                .arg(&mirror);
            tool::run(
                &mut command,
                &format!("install Debian {suite} from {mirror} (KAAPANA_LAB_MIRROR names another)"),
            )
        },
    )?;
    stage("pack the bare suite", || {
        chroot(&root, "apt-get clean; rm -rf /var/lib/apt/lists/*")?;
        pack(&root, &tarball, &prefix)
    })?;
    workplace::remove_any(&root)?;
    Ok(tarball)
}

/// A command prefix: own mount and process namespaces, which end with this process, even when it is killed.
/// So no mount stays behind, and nothing goes on writing into what the next try removes.
fn isolated() -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "unshare",
        "--mount",
        "--propagation",
        "private",
    ]);
    command.args(["--pid", "--fork", "--kill-child", "--"]);
    command
}

fn chroot(root: &Path, script: &str) -> Result<(), LabError> {
    let mut command = isolated();
    command.args([
        "sh",
        "-ec",
        "mount -t proc proc \"$1/proc\"; exec chroot \"$1\" sh -euc \"$2\"",
        "sh",
    ]);
    command.arg(root).arg(script).env_clear();
    command.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C");
    tool::run(&mut command, "run in the new root file system").map(drop)
}

fn pack(root: &Path, tarball: &Path, prefix: &str) -> Result<(), LabError> {
    let partial = tarball.with_file_name(format!("{prefix}.tar.partial"));
    let mut tar = Command::new("tar");
    tar.arg("-cf")
        .arg(&partial)
        .args(["--numeric-owner", "--one-file-system", "-C"]);
    tool::run(tar.arg(root).arg("."), "pack the root file system")?;
    fs::rename(&partial, tarball).map_err(io_error("rename", &partial))
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<(), LabError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    }
    fs::write(path, content).map_err(io_error("write", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), LabError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", path))
}
