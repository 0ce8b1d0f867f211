//! `archive`: files and directories of this host in one tar or zip file, by the host's own programs.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::result::with_file_facts;
use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::attributes::{Wanted, umask};
use crate::host::files::converge::{Converge, set_attributes};
use crate::host::files::durable::{
    PendingFile, metadata_of, mode_of, parent_of, remove_partial, sha256_file,
};
use crate::host::files::error::{FilesError, human_bytes};
use crate::host::files::mode::Mode;
use crate::host::glob::all_matches;
use crate::host::output_file::OutputFile;
use crate::host::process::invocation::{Invocation, run};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::prior_state::{before_of, intent_of, undo_of_path};
use crate::task::undo::{PastAttempt, Undo};

/// Packs files and directories of this host. Nothing is removed by it; that takes a task of its own, after
/// the archive was looked at.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveModule {
    /// What is packed; patterns with `*`, `?` and `[…]` are allowed. Each must be there.
    path: Vec<PathBuf>,
    /// The archive. Default: the one path with the ending of the format.
    #[serde(default)]
    dest: Option<PathBuf>,
    /// `gz` (default), `bz2`, `xz`, `tar` or `zip`.
    #[serde(default)]
    format: Format,
    /// Paths that are left out, with all in them; patterns are allowed.
    #[serde(default)]
    exclude_path: Vec<PathBuf>,
    /// Names that are left out wherever they are: `*.tmp`.
    #[serde(default)]
    exclusion_patterns: Vec<String>,
    /// Makes a tar of one single file as well, which else is only compressed. Default: false.
    #[serde(default)]
    force_archive: bool,
    /// Mode of the archive. Default: for a new file the umask decides.
    #[serde(default)]
    mode: Option<Mode>,
    /// Owner, a name or number.
    #[serde(default)]
    owner: Option<String>,
    /// Group, a name or number.
    #[serde(default)]
    group: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Gz,
    Bz2,
    Xz,
    Tar,
    Zip,
}

impl Format {
    fn word(self) -> &'static str {
        match self {
            Self::Gz => "gz",
            Self::Bz2 => "bz2",
            Self::Xz => "xz",
            Self::Tar => "tar",
            Self::Zip => "zip",
        }
    }

    /// The program that compresses, called so that the same content gives the same bytes.
    fn filter(self) -> &'static str {
        match self {
            Self::Gz => "gzip -n",
            Self::Bz2 => "bzip2",
            Self::Xz => "xz",
            Self::Tar | Self::Zip => "cat",
        }
    }
}

/// What is packed, and into what.
struct Work {
    /// Absolute, in order.
    paths: Vec<PathBuf>,
    /// Their common folder, which names in the archive begin behind.
    root: PathBuf,
    excluded: Vec<PathBuf>,
    dest: PathBuf,
    compresses_only: bool,
}

impl ArchiveModule {
    fn wanted(&self) -> Result<Wanted, ModuleError> {
        Wanted::look_up(
            self.mode.as_ref(),
            self.owner.as_deref(),
            self.group.as_deref(),
        )
    }

    fn target(&self, ctx: &TaskContext) -> Result<PathBuf, ModuleError> {
        match (&self.dest, self.path.as_slice()) {
            (Some(dest), _) => Ok(ctx.resolve(dest)),
            (None, [one]) => {
                let path = ctx.resolve(one);
                let is_file = path.is_file() && !self.force_archive;
                let end = match self.format {
                    Format::Tar | Format::Zip => self.format.word().to_owned(),
                    _ if is_file => self.format.word().to_owned(),
                    _ => format!("tar.{}", self.format.word()),
                };
                let mut name = path.into_os_string();
                name.push(format!(".{end}"));
                Ok(PathBuf::from(name))
            }
            (None, _) => Err(FilesError::argument("several paths need a `dest`").into()),
        }
    }

    fn work(&self, ctx: &TaskContext) -> Result<Work, ModuleError> {
        let dest = self.target(ctx)?;
        let mut paths = Vec::new();
        for path in &self.path {
            let path = ctx.resolve(path);
            let found = all_matches(&path);
            if found.is_empty() {
                let what = "what is to be packed";
                return Err(FilesError::Missing { what, path }.into());
            }
            paths.extend(found);
        }
        let mut excluded: Vec<PathBuf> = self
            .exclude_path
            .iter()
            .flat_map(|path| all_matches(&ctx.resolve(path)))
            .collect();
        // An archive in the midst of what it packs does not pack itself.
        excluded.push(dest.clone());
        paths.retain(|path| !excluded.contains(path));
        paths.sort();
        paths.dedup();
        let Some(root) = common_folder(&paths) else {
            return Err(FilesError::argument("nothing is left to be packed").into());
        };
        let single = matches!(paths.as_slice(), [one] if one.is_file());
        let compresses_only =
            single && !self.force_archive && !matches!(self.format, Format::Tar | Format::Zip);
        Ok(Work {
            paths,
            root,
            excluded,
            dest,
            compresses_only,
        })
    }

    /// A shell's pipe and its arguments: nothing of the playbook's becomes shell text.
    fn command(&self, work: &Work, into: &Path) -> (String, Vec<OsString>) {
        let filter = self.format.filter();
        let mut arguments = vec![into.as_os_str().to_owned()];
        if work.compresses_only {
            arguments.extend(work.paths.iter().map(|path| path.as_os_str().to_owned()));
            return (format!("{filter} < \"$2\" > \"$1\""), arguments);
        }
        let relative = |path: &Path| -> OsString {
            let name = path.strip_prefix(&work.root).unwrap_or(path);
            let name = Path::new(".").join(name);
            // `./-name` is no option.
            name.into_os_string()
        };
        if self.format == Format::Zip {
            for path in &work.paths {
                arguments.push(relative(path));
            }
            let mut excluded: Vec<OsString> = Vec::new();
            for path in &work.excluded {
                let name = path.strip_prefix(&work.root).unwrap_or(path);
                excluded.push(name.as_os_str().to_owned());
                excluded.push(name.join("*").into_os_string());
            }
            for pattern in &self.exclusion_patterns {
                excluded.extend([pattern.into(), format!("*/{pattern}").into()]);
            }
            arguments.push("-x".into());
            arguments.extend(excluded);
            let line = "to=$1; shift; zip -q -X -r -y - \"$@\" > \"$to\"";
            return (line.into(), arguments);
        }
        arguments.push("--anchored".into());
        for path in &work.excluded {
            let mut option = OsString::from("--exclude=");
            option.push(relative(path));
            arguments.push(option);
        }
        arguments.push("--no-anchored".into());
        for pattern in &self.exclusion_patterns {
            arguments.push(format!("--exclude={pattern}").into());
        }
        arguments.push("--transform=flags=rh;s,^\\./,,".into());
        arguments.push("--".into());
        arguments.extend(work.paths.iter().map(|path| relative(path)));
        let line = format!(
            "set -o pipefail; to=$1; shift; tar --create --sort=name --file=- \"$@\" | {filter} > \
             \"$to\""
        );
        (line, arguments)
    }

    async fn pack(&self, ctx: &TaskContext, work: &Work, into: &Path) -> Result<(), ModuleError> {
        let (line, arguments) = self.command(work, into);
        let mut environment = ctx.environment.clone();
        environment.insert("LC_ALL".into(), "C.UTF-8".into());
        let mut all: Vec<OsString> = vec!["-c".into(), line.into(), "archive".into()];
        all.extend(arguments);
        let invocation = Invocation {
            // `pipefail` is not in every sh.
            program: "bash".into(),
            arguments: all,
            directory: work.root.clone(),
            environment,
            stdin: None,
        };
        let packing = match self.format {
            Format::Zip => "zip",
            _ if work.compresses_only => self.format.filter(),
            _ => "tar",
        };
        run(&invocation, ctx).await?.must(packing)?;
        Ok(())
    }
}

/// The deepest folder that holds all of them.
fn common_folder(paths: &[PathBuf]) -> Option<PathBuf> {
    let mut root = parent_of(paths.first()?).to_path_buf();
    for path in paths {
        while !parent_of(path).starts_with(&root) {
            root = parent_of(&root).to_path_buf();
        }
    }
    Some(root)
}

#[async_trait]
impl Module for ArchiveModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let work = self.work(ctx)?;
        if work.dest.exists() {
            // Only packing tells whether it would be the same.
            return Ok(Plan::CannotPredict);
        }
        let line = format!("pack {} into {}", listed(&work.paths), work.dest.display());
        Ok(Plan::NeedsChange(vec![line]))
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        intent_of(&self.target(ctx)?, ctx)
    }

    async fn apply(&self, ctx: &TaskContext, intent: &Value) -> Result<Outcome, ModuleError> {
        let work = self.work(ctx)?;
        let dest = &work.dest;
        if dest.is_dir() || !parent_of(dest).is_dir() {
            let what = "the folder of the archive";
            let path = parent_of(dest).to_path_buf();
            return Err(match dest.is_dir() {
                true => FilesError::argument("`dest` is a directory: name the archive").into(),
                false => FilesError::Missing { what, path }.into(),
            });
        }
        let pending = PendingFile::create(dest, &ctx.attempt)?;
        self.pack(ctx, &work, pending.path()).await?;
        let sha256 = sha256_file(pending.path(), &ctx.cancel, |_| {})?;
        let there = metadata_of(dest)?.filter(fs::Metadata::is_file);
        let same = there.is_some() && sha256_file(dest, &ctx.cancel, |_| {})? == sha256;
        let wanted = self.wanted()?;
        let mut outcome = Outcome::ok();
        if same {
            drop(pending);
            outcome.changed = !set_attributes(dest, &wanted, Converge::Apply)?.is_empty();
        } else {
            before_of(intent, dest, ctx)?.keep()?;
            let default = there.as_ref().map_or(0o666 & !umask(), mode_of);
            pending.commit(&wanted.for_new(default, false))?;
            outcome.changed = true;
        }
        let size = fs::metadata(dest)
            .map_err(PathError::on("inspect", dest))?
            .size();
        let shown = |paths: &[PathBuf]| {
            let all = paths.iter().map(|path| path.display().to_string());
            Value::from(all.collect::<Vec<_>>())
        };
        let state = match work.compresses_only {
            true => "compress",
            false => "archive",
        };
        let outcome = with_file_facts(outcome, "dest", dest)?
            .with("dest_state", state)
            .with("archived", shown(&work.paths))
            .with("expanded_paths", shown(&work.paths))
            .with("missing", json!([]))
            .with("arcroot", work.root.display().to_string())
            .with("sha256", sha256.clone())
            .summary(format!("{}, SHA-256 {sha256}", human_bytes(size)));
        Ok(outcome.output(OutputFile {
            path: dest.clone(),
            size,
            sha256,
        }))
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        remove_partial(&self.target(ctx)?, ctx.interrupted_attempt.as_deref())?;
        Ok(Recovery::NotDone)
    }
}

fn listed(paths: &[PathBuf]) -> String {
    let all = paths.iter().map(|path| path.display().to_string());
    all.collect::<Vec<_>>().join(", ")
}

impl TypedModule for ArchiveModule {
    const NAME: &'static str = "archive";
    const ALIASES: &'static [&'static str] = &["community.general.archive"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "removes its half archive, packs again";
    const CHECK_MODE: &'static str = "predicts a new archive; skipped where one is there, as only packing tells whether it would be the same";
    const SUMMARY: &'static str = "Packs files and directories into one archive";
    const EXAMPLE: &'static str = "\
- name: What the directory was configured with
  archive:
    path: [/data/slow/ldap, /data/slow/slapd.d]
    dest: \"{{ backup_dir }}/ldap.tar.gz\"
    mode: \"0600\"
";

    fn undo(efforts: &[PastAttempt<'_>]) -> Undo {
        undo_of_path(efforts)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn module(arguments: Value) -> ArchiveModule {
        serde_json::from_value(arguments).expect("arguments")
    }

    fn names(words: &[&str], archive: &Path) -> Vec<String> {
        let output = Command::new(words[0])
            .args(&words[1..])
            .arg(archive)
            .output();
        let text = String::from_utf8(output.expect("runs").stdout).expect("text");
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn tree() -> (tempfile::TempDir, TaskContext) {
        let dir = tempfile::tempdir().expect("temp dir");
        for (name, text) in [
            ("a/one", "1\n"),
            ("a/-odd", "2\n"),
            ("a/b/x.tmp", "3\n"),
            ("c", "4\n"),
        ] {
            let path = dir.path().join("in").join(name);
            fs::create_dir_all(parent_of(&path)).expect("made");
            fs::write(path, text).expect("written");
        }
        let ctx = TaskContext::for_tests(dir.path());
        (dir, ctx)
    }

    #[tokio::test]
    async fn what_has_not_changed_is_packed_to_the_same_bytes_and_changes_nothing() {
        for program in ["bzip2", "unzip", "zip"] {
            lab::apt::ensure(program, program).expect("installed");
        }
        let (dir, ctx) = tree();
        for (format, list) in [
            ("gz", ["tar", "-tzf"]),
            ("bz2", ["tar", "-tjf"]),
            ("xz", ["tar", "-tJf"]),
            ("zip", ["unzip", "-Z1"]),
            ("tar", ["tar", "-tf"]),
        ] {
            let dest = format!("out.{format}");
            let module = module(json!({
                "path": ["in/a", "in/c"], "dest": dest, "format": format,
                "exclusion_patterns": ["*.tmp"], "mode": "0600",
            }));
            assert!(matches!(
                module.check(&ctx).await.expect("check"),
                Plan::NeedsChange(_)
            ));
            let first = module.apply(&ctx, &Value::Null).await.expect("packed");
            assert!(first.changed);
            let path = dir.path().join(&dest);
            assert_eq!(names(&list, &path), ["a/", "a/-odd", "a/b/", "a/one", "c"]);
            assert_eq!(mode_of(&fs::metadata(&path).expect("there")), 0o600);
            let again = module.apply(&ctx, &Value::Null).await.expect("packed");
            assert!(!again.changed, "{format}");
            fs::write(dir.path().join("in/c"), format!("{format}\n")).expect("written");
            assert!(
                module
                    .apply(&ctx, &Value::Null)
                    .await
                    .expect("packed")
                    .changed
            );
        }
    }

    #[tokio::test]
    async fn one_file_is_compressed_and_excluded_paths_are_left_out() {
        let (dir, ctx) = tree();
        let one = module(json!({"path": ["in/c"]}));
        let outcome = one.apply(&ctx, &Value::Null).await.expect("compressed");
        assert_eq!(outcome.result["dest_state"], "compress");
        let text = Command::new("gzip")
            .arg("-dc")
            .arg(dir.path().join("in/c.gz"))
            .output();
        assert_eq!(text.expect("gzip").stdout, b"4\n");
        let rest =
            json!({"path": ["in/*"], "dest": "o.tgz", "exclude_path": ["in/a/b", "in/c.gz"]});
        module(rest)
            .apply(&ctx, &Value::Null)
            .await
            .expect("packed");
        let found = names(&["tar", "-tzf"], &dir.path().join("o.tgz"));
        assert_eq!(found, ["a/", "a/-odd", "a/one", "c"]);
    }

    #[tokio::test]
    async fn what_is_missing_or_cannot_be_packed_leaves_no_archive() {
        let (dir, ctx) = tree();
        let missing = module(json!({"path": ["in/a", "in/no"], "dest": "o.tgz"}));
        let error = missing
            .apply(&ctx, &Value::Null)
            .await
            .expect_err("missing");
        assert!(error.to_string().contains("in/no"), "{error}");
        let nowhere = module(json!({"path": ["in/a"], "dest": "no/o.tgz"}));
        assert!(nowhere.apply(&ctx, &Value::Null).await.is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }
}
