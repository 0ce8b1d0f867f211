//! `stat`: what a path is, by Ansible's names.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use nix::unistd::{AccessFlags, access};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Digest;

use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::{group_name, user_name};
use crate::host::files::blocking::blocking;
use crate::host::files::durable::{is_absent, mode_of, read_through};
use crate::host::files::error::FilesResult;
use crate::host::files::mode::show_mode;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Tells what a path is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatModule {
    /// Path to look at.
    #[serde(alias = "dest", alias = "name")]
    #[schemars(extend("aliases" = ["dest", "name"]))]
    path: PathBuf,
    /// Looks at what a link points to. Default: false.
    #[serde(default)]
    follow: bool,
    /// Hashes the content of a regular file. Default: true.
    #[serde(default = "yes")]
    get_checksum: bool,
    /// `sha1` (default, as in Ansible), `md5`, `sha224`, `sha256`, `sha384` or `sha512`.
    #[serde(default, alias = "checksum", alias = "checksum_algo")]
    #[schemars(extend("aliases" = ["checksum", "checksum_algo"]))]
    checksum_algorithm: Algorithm,
    /// Accepted for Ansible's sake; file types are not guessed.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    get_mime: Option<bool>,
    /// Accepted for Ansible's sake; `lsattr` attributes are not read.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    get_attributes: Option<bool>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Algorithm {
    #[default]
    Sha1,
    Md5,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

fn yes() -> bool {
    true
}

impl StatModule {
    fn look(&self, ctx: &TaskContext) -> FilesResult<Outcome> {
        let path = ctx.resolve(&self.path);
        let found = if self.follow {
            fs::metadata(&path)
        } else {
            fs::symlink_metadata(&path)
        };
        let meta = match found {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => {
                return Ok(Outcome::ok().with("stat", json!({"exists": false})));
            }
            Err(error) => return Err(PathError::on("inspect", &path)(error).into()),
        };
        let mut stat = describe(&path, &meta);
        if self.get_checksum && meta.is_file() {
            stat["checksum"] = checksum(self.checksum_algorithm, &path, meta.len(), ctx)?.into();
        }
        if meta.is_symlink() {
            let target = fs::read_link(&path).map_err(PathError::on("read", &path))?;
            stat["lnk_target"] = target.display().to_string().into();
            let source = fs::canonicalize(&path).unwrap_or(target);
            stat["lnk_source"] = source.display().to_string().into();
        }
        Ok(Outcome::ok().with("stat", stat))
    }
}

pub(super) fn describe(path: &Path, meta: &fs::Metadata) -> Value {
    let kind = meta.file_type();
    let bits = mode_of(meta);
    let time = |seconds: i64, nanoseconds: i64| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "Ansible gives a float with the same loss"
        )]
        let value = seconds as f64 + nanoseconds as f64 / 1e9;
        value
    };
    let may = |flags| access(path, flags).is_ok();
    let mut stat = json!({
        "exists": true,
        "path": path.display().to_string(),
        "mode": show_mode(bits),
        "isdir": kind.is_dir(),
        "isreg": kind.is_file(),
        "islnk": kind.is_symlink(),
        "isblk": kind.is_block_device(),
        "ischr": kind.is_char_device(),
        "isfifo": kind.is_fifo(),
        "issock": kind.is_socket(),
        "size": meta.size(),
        "uid": meta.uid(),
        "gid": meta.gid(),
        "pw_name": user_name(meta.uid()),
        "gr_name": group_name(meta.gid()),
        "inode": meta.ino(),
        "dev": meta.dev(),
        "nlink": meta.nlink(),
        "atime": time(meta.atime(), meta.atime_nsec()),
        "mtime": time(meta.mtime(), meta.mtime_nsec()),
        "ctime": time(meta.ctime(), meta.ctime_nsec()),
        "blocks": meta.blocks(),
        "block_size": meta.blksize(),
        "device_type": meta.rdev(),
        "isuid": bits & 0o4000 != 0,
        "isgid": bits & 0o2000 != 0,
        "readable": may(AccessFlags::R_OK),
        "writeable": may(AccessFlags::W_OK),
        "executable": may(AccessFlags::X_OK),
    });
    for (class, shift) in [("usr", 6), ("grp", 3), ("oth", 0)] {
        for (letter, bit) in [("r", 4), ("w", 2), ("x", 1)] {
            stat[format!("{letter}{class}")] = (bits >> shift & bit != 0).into();
        }
    }
    stat
}

pub(super) fn checksum(
    algorithm: Algorithm,
    path: &Path,
    length: u64,
    ctx: &TaskContext,
) -> FilesResult<String> {
    match algorithm {
        Algorithm::Sha1 => digest::<sha1::Sha1>(path, length, ctx),
        Algorithm::Md5 => digest::<md5::Md5>(path, length, ctx),
        Algorithm::Sha224 => digest::<sha2::Sha224>(path, length, ctx),
        Algorithm::Sha256 => digest::<sha2::Sha256>(path, length, ctx),
        Algorithm::Sha384 => digest::<sha2::Sha384>(path, length, ctx),
        Algorithm::Sha512 => digest::<sha2::Sha512>(path, length, ctx),
    }
}

fn digest<D: Digest>(path: &Path, length: u64, ctx: &TaskContext) -> FilesResult<String> {
    let mut file = File::open(path).map_err(PathError::on("open", path))?;
    let mut hash = D::new();
    let mut done = 0;
    read_through(&mut file, path, &ctx.cancel, |piece| {
        hash.update(piece);
        done += piece.len() as u64;
        ctx.progress.bytes(done, Some(length));
        Ok(())
    })?;
    Ok(hex::encode(hash.finalize()))
}

/// Returns the SHA-1 of a file, which Ansible's results call `checksum`.
///
/// # Errors
/// When the file cannot be read, or cancelled.
pub fn ansible_checksum(path: &Path, ctx: &TaskContext) -> FilesResult<String> {
    let length = fs::metadata(path)
        .map_err(PathError::on("inspect", path))?
        .len();
    digest::<sha1::Sha1>(path, length, ctx)
}

#[async_trait]
impl Module for StatModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        blocking(self, ctx, |module, ctx| module.look(ctx)).await
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for StatModule {
    const NAME: &'static str = "stat";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.stat", "ansible.legacy.stat"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Tells what a path is: kind, size, owner, mode, times, checksum";
    const EXAMPLE: &'static str = "\
- name: Look at the old database's directory
  stat:
    path: \"{{ fast_data_dir }}/postgres-dcm4che/PG_VERSION\"
    checksum_algorithm: sha256
  register: pg_version_file
";
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    async fn stat(arguments: Value) -> Value {
        let module: StatModule = serde_json::from_value(arguments).expect("arguments");
        let ctx = TaskContext::for_tests(Path::new("/"));
        let outcome = module.apply(&ctx, &Value::Null).await.expect("apply");
        assert!(!outcome.changed);
        outcome.result["stat"].clone()
    }

    #[tokio::test]
    async fn it_agrees_with_coreutils() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("f");
        fs::write(&path, "abc").expect("write");
        let stat = stat(json!({"path": path, "checksum_algorithm": "sha256"})).await;
        let run = |program: &str, arguments: &[&str]| {
            let out = Command::new(program)
                .args(arguments)
                .arg(&path)
                .output()
                .expect("run");
            String::from_utf8(out.stdout).expect("text")
        };
        let theirs = run("stat", &["-c", "%a %s %u %U %i %h"]);
        let ours = format!(
            "{} {} {} {} {} {}\n",
            stat["mode"].as_str().expect("mode").trim_start_matches('0'),
            stat["size"],
            stat["uid"],
            stat["pw_name"].as_str().expect("name"),
            stat["inode"],
            stat["nlink"]
        );
        assert_eq!(ours, theirs);
        assert!(run("sha256sum", &[]).starts_with(stat["checksum"].as_str().expect("hash")));
        assert_eq!(
            (&stat["isreg"], &stat["rusr"]),
            (&json!(true), &json!(true))
        );
    }

    #[tokio::test]
    async fn a_link_is_itself_unless_followed_and_a_missing_path_is_no_error() {
        let dir = tempfile::tempdir().expect("temp dir");
        symlink("/etc", dir.path().join("l")).expect("link");
        let link = stat(json!({"path": dir.path().join("l")})).await;
        assert_eq!(
            (&link["islnk"], &link["lnk_target"]),
            (&json!(true), &json!("/etc"))
        );
        let behind = stat(json!({"path": dir.path().join("l"), "follow": true})).await;
        assert_eq!(
            (&behind["islnk"], &behind["isdir"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(
            stat(json!({"path": "/no/such"})).await,
            json!({"exists": false})
        );
        assert_eq!(
            stat(json!({"path": "/etc/hostname/x"})).await,
            json!({"exists": false})
        );
        let sha1 = stat(json!({"path": "/dev/null"})).await;
        assert!(sha1.get("checksum").is_none());
    }
}
