//! `unarchive`: what is in a tar or zip archive, by the host's own `tar` and `unzip`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::result::with_file_facts;
use crate::host::error::ModuleError;
use crate::host::files::attributes::Wanted;
use crate::host::files::converge::{Converge, set_attributes};
use crate::host::files::durable::sync_everything;
use crate::host::files::error::FilesError;
use crate::host::files::mode::Mode;
use crate::host::process::invocation::{Ended, Invocation, run};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Unpacks an archive of this host into a directory that is there.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnarchiveModule {
    /// The archive: `.tar`, `.tar.gz`, `.tgz`, `.tar.xz`, `.tar.bz2`, `.tar.zst` or `.zip`. No address: get it
    /// with `get_url`, and a `checksum`, first.
    src: PathBuf,
    /// The directory.
    dest: PathBuf,
    /// Accepted for Ansible's sake: the archive is on this host either way.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    remote_src: bool,
    /// Where this path exists, nothing is done.
    #[serde(default)]
    creates: Option<PathBuf>,
    /// Only these files and directories of the archive.
    #[serde(default)]
    include: Vec<String>,
    /// Not these; patterns as `tar --exclude` takes them.
    #[serde(default)]
    exclude: Vec<String>,
    /// More options for `tar` or `unzip`.
    #[serde(default)]
    extra_opts: Vec<String>,
    /// Does not replace files that are newer. Default: false.
    #[serde(default)]
    keep_newer: bool,
    /// Returns the names of all files in `files`. Default: false.
    #[serde(default)]
    list_files: bool,
    /// Mode of everything that is unpacked.
    #[serde(default)]
    mode: Option<Mode>,
    /// Owner of everything that is unpacked.
    #[serde(default)]
    owner: Option<String>,
    /// Group of everything that is unpacked.
    #[serde(default)]
    group: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handler {
    Tar,
    Tgz,
    TarBz2,
    TarXz,
    TarZst,
    Zip,
}

impl Handler {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let ends = |all: &[&str]| all.iter().any(|end| name.ends_with(end));
        Some(if ends(&[".tar.gz", ".tgz"]) {
            Self::Tgz
        } else if ends(&[".tar.bz2", ".tbz2", ".tbz"]) {
            Self::TarBz2
        } else if ends(&[".tar.xz", ".txz"]) {
            Self::TarXz
        } else if ends(&[".tar.zst", ".tzst"]) {
            Self::TarZst
        } else if ends(&[".tar"]) {
            Self::Tar
        } else if ends(&[".zip"]) {
            Self::Zip
        } else {
            return None;
        })
    }

    /// Its name in results, as Ansible has it.
    fn word(self) -> &'static str {
        match self {
            Self::Tar => "TarArchive",
            Self::Tgz => "TgzArchive",
            Self::TarBz2 => "TarBzipArchive",
            Self::TarXz => "TarXzArchive",
            Self::TarZst => "TarZstdArchive",
            Self::Zip => "ZipArchive",
        }
    }

    fn option(self) -> Option<&'static str> {
        match self {
            Self::Tgz => Some("-z"),
            Self::TarBz2 => Some("-j"),
            Self::TarXz => Some("-J"),
            Self::TarZst => Some("--zstd"),
            Self::Tar | Self::Zip => None,
        }
    }
}

struct Places {
    src: PathBuf,
    dest: PathBuf,
    handler: Handler,
}

impl UnarchiveModule {
    fn places(&self, ctx: &TaskContext) -> Result<Places, ModuleError> {
        let (src, dest) = (ctx.resolve(&self.src), ctx.resolve(&self.dest));
        if !src.is_file() {
            let what = "the archive";
            return Err(FilesError::Missing { what, path: src }.into());
        }
        if !dest.is_dir() {
            let what = "the directory";
            return Err(FilesError::Missing { what, path: dest }.into());
        }
        let handler = Handler::of(&src).ok_or_else(|| {
            FilesError::argument_with_help(
                format!(
                    "{} has no ending of an archive that is known",
                    src.display()
                ),
                "known are .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz, .tar.zst and .zip",
            )
        })?;
        Ok(Places { src, dest, handler })
    }

    fn needless(&self, ctx: &TaskContext) -> bool {
        let creates = self.creates.as_ref();
        creates.is_some_and(|path| ctx.resolve(path).exists())
    }

    async fn call(&self, ctx: &TaskContext, words: Vec<String>) -> Result<Ended, ModuleError> {
        let mut words = words.into_iter();
        let program = words.next().unwrap_or_default();
        let mut environment: BTreeMap<String, String> = ctx.environment.clone();
        environment.insert("LC_ALL".into(), "C.UTF-8".into());
        let invocation = Invocation {
            program: OsString::from(program),
            arguments: words.map(OsString::from).collect(),
            directory: PathBuf::from("/"),
            environment,
            stdin: None,
        };
        run(&invocation, ctx).await
    }

    async fn must(&self, ctx: &TaskContext, words: Vec<String>) -> Result<Ended, ModuleError> {
        let program = words.first().cloned().unwrap_or_default();
        Ok(self.call(ctx, words).await?.must(&program)?)
    }

    fn tar(&self, places: &Places, action: &str) -> Vec<String> {
        let mut words: Vec<String> = ["tar", action].map(str::to_owned).to_vec();
        words.extend(["-C".to_owned(), places.dest.display().to_string()]);
        words.extend(places.handler.option().map(str::to_owned));
        words.extend(self.extra_opts.iter().cloned());
        words.extend(self.exclude.iter().map(|name| format!("--exclude={name}")));
        if self.keep_newer && action == "--extract" {
            words.push("--keep-newer-files".into());
        }
        words.extend(["-f".to_owned(), places.src.display().to_string()]);
        words.extend(self.include.iter().cloned());
        words
    }

    /// Names in the archive, as they are unpacked.
    async fn names(&self, ctx: &TaskContext, places: &Places) -> Result<Vec<String>, ModuleError> {
        let words = match places.handler {
            Handler::Zip => {
                let mut words: Vec<String> = ["unzip", "-Z1"].map(str::to_owned).to_vec();
                words.push(places.src.display().to_string());
                words.extend(self.include.iter().cloned());
                words
            }
            _ => {
                let mut words = self.tar(places, "--list");
                words.insert(2, "--show-transformed-names".into());
                words
            }
        };
        let ended = self.must(ctx, words).await?;
        let names = ended.stdout.lines().map(str::to_owned);
        // What `--strip-components` leaves nothing of is no name.
        Ok(names
            .filter(|name| !name.is_empty() && name != "/")
            .collect())
    }

    /// Tells whether the directory has what the archive has. tar compares; what is in a zip archive is there
    /// when every name is, with the size that it should have.
    async fn in_sync(&self, ctx: &TaskContext, places: &Places) -> Result<bool, ModuleError> {
        if places.handler == Handler::Zip {
            let names = self.names(ctx, places).await?;
            return Ok(names.iter().all(|name| places.dest.join(name).exists()));
        }
        let ended = self.call(ctx, self.tar(places, "--diff")).await?;
        if ended.rc > 1 || (ended.rc == 1 && ended.stdout.trim().is_empty()) {
            // Names that are not there are errors to tar, and a reason to unpack to us.
            return Ok(false);
        }
        let minds = |line: &&str| {
            let moded = self.mode.is_some() && line.contains("Mode differs");
            let owned = self.owner.is_some() && line.contains("Uid differs");
            let grouped = self.group.is_some() && line.contains("Gid differs");
            !moded && !owned && !grouped
        };
        Ok(!ended.stdout.lines().any(|line| minds(&line)))
    }

    /// Owner, group and mode of what was unpacked.
    async fn attributes(
        &self,
        ctx: &TaskContext,
        places: &Places,
        mode: Converge,
    ) -> Result<bool, ModuleError> {
        let owner = self.owner.as_deref();
        let wanted = Wanted::look_up(self.mode.as_ref(), owner, self.group.as_deref())?;
        if wanted.is_empty() {
            return Ok(false);
        }
        let mut changed = false;
        for name in self.names(ctx, places).await? {
            let path = places.dest.join(&name);
            if path.exists() {
                changed |= !set_attributes(&path, &wanted, mode)?.is_empty();
            }
        }
        Ok(changed)
    }
}

#[async_trait]
impl Module for UnarchiveModule {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        vec![ctx.resolve(&self.src)]
    }

    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        if self.needless(ctx) {
            return Ok(Plan::InSync);
        }
        let places = self.places(ctx)?;
        let in_sync = self.in_sync(ctx, &places).await?
            && !self.attributes(ctx, &places, Converge::Check).await?;
        Ok(if in_sync {
            Plan::InSync
        } else {
            let line = format!(
                "unpack {} to {}",
                places.src.display(),
                places.dest.display()
            );
            Plan::NeedsChange(vec![line])
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if self.needless(ctx) {
            let creates = self.creates.as_ref().map(|path| ctx.resolve(path));
            let path = creates.unwrap_or_default().display().to_string();
            return Ok(Outcome::ok()
                .with("skipped", true)
                .with("msg", format!("skipped, since {path} exists")));
        }
        let places = self.places(ctx)?;
        let mut outcome = Outcome::ok();
        if !self.in_sync(ctx, &places).await? {
            let words = match places.handler {
                Handler::Zip => {
                    let mut words: Vec<String> = vec!["unzip".into(), "-o".into(), "-q".into()];
                    if self.keep_newer {
                        words.push("-u".into());
                    }
                    words.extend(self.extra_opts.iter().cloned());
                    words.push(places.src.display().to_string());
                    words.extend(self.include.iter().cloned());
                    words.extend(["-d".to_owned(), places.dest.display().to_string()]);
                    if !self.exclude.is_empty() {
                        words.push("-x".into());
                        words.extend(self.exclude.iter().cloned());
                    }
                    words
                }
                _ => self.tar(&places, "--extract"),
            };
            self.must(ctx, words).await?;
            outcome = Outcome::changed().summary(format!("unpacked {}", places.src.display()));
        }
        outcome.changed |= self.attributes(ctx, &places, Converge::Apply).await?;
        if outcome.changed {
            sync_everything(&ctx.cancel).await?;
        }
        if self.list_files {
            let files = self.names(ctx, &places).await?;
            outcome = outcome.with("files", files);
        }
        outcome = with_file_facts(outcome, "dest", &places.dest)?;
        Ok(outcome
            .with("src", places.src.display().to_string())
            .with("handler", places.handler.word()))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        // Unpacking once more replaces whatever was left half.
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for UnarchiveModule {
    const NAME: &'static str = "unarchive";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.unarchive", "ansible.legacy.unarchive"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "unpacks again";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Unpacks an archive into a directory";
    const EXAMPLE: &'static str = "\
- name: What the vendor sent
  unarchive:
    src: /var/tmp/vendor.tar.gz
    dest: /opt/vendor
    remote_src: true
";
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_not_unpacked_again_and_what_was_changed_is() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("tree/deep")).expect("made");
        fs::create_dir_all(path("to")).expect("made");
        fs::write(path("tree/deep/file"), "content\n").expect("written");
        let made = Command::new("tar")
            .args(["-czf", "a.tgz", "tree"])
            .current_dir(dir.path())
            .status();
        assert!(made.expect("tar runs").success());
        let ctx = TaskContext::for_tests(dir.path());
        let module: UnarchiveModule =
            serde_json::from_value(json!({"src": "a.tgz", "dest": "to", "list_files": true}))
                .expect("arguments");
        assert!(matches!(
            module.check(&ctx).await.expect("check"),
            Plan::NeedsChange(_)
        ));
        let outcome = module.apply(&ctx, &Value::Null).await.expect("apply");
        assert!(outcome.changed);
        assert_eq!(
            outcome.result["files"],
            json!(["tree/", "tree/deep/", "tree/deep/file"])
        );
        assert_eq!(module.check(&ctx).await.expect("check"), Plan::InSync);
        fs::write(path("to/tree/deep/file"), "changed\n").expect("written");
        assert!(matches!(
            module.check(&ctx).await.expect("check"),
            Plan::NeedsChange(_)
        ));
        module.apply(&ctx, &Value::Null).await.expect("apply");
        let text = fs::read_to_string(path("to/tree/deep/file")).expect("there");
        assert_eq!(text, "content\n");
    }
}
