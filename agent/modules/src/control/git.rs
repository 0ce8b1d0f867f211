//! `git`: a working copy of a repository, at a version.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::error::ModuleError;
use crate::host::error::PathError;
use crate::host::files::durable::{rename_noreplace, sibling, sync_everything};
use crate::host::process::error::ControlError;
use crate::host::process::invocation::{Ended, Invocation, run};
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Clones a repository, or brings a working copy to a version. A new one appears whole, by a rename.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitModule {
    /// Address of the repository.
    #[serde(alias = "name")]
    #[schemars(extend("aliases" = ["name"]))]
    repo: String,
    /// The working copy.
    dest: PathBuf,
    /// Branch, tag or commit. Default: `HEAD`, the repository's own branch.
    #[serde(default = "head")]
    version: String,
    /// Name of the repository in the working copy. Default: `origin`.
    #[serde(default = "origin")]
    remote: String,
    /// Looks for newer commits where the working copy is there. Default: true.
    #[serde(default = "yes")]
    update: bool,
    /// Clones where there is none. Default: true.
    #[serde(default = "yes")]
    clone: bool,
    /// Throws away what was changed by hand in the working copy. Default: false, it is an error.
    #[serde(default)]
    force: bool,
    /// Only so many commits of the history.
    #[serde(default)]
    depth: Option<u32>,
    /// Only the branch that is wanted. Default: false.
    #[serde(default)]
    single_branch: bool,
    /// Submodules as well. Default: true.
    #[serde(default = "yes")]
    recursive: bool,
    /// Takes the key of a host that is not known yet. Default: false.
    #[serde(default)]
    accept_newhostkey: bool,
    /// Private key for SSH.
    #[serde(default)]
    key_file: Option<PathBuf>,
    /// Umask of git, in octal.
    #[serde(default)]
    umask: Option<String>,
}

fn head() -> String {
    "HEAD".into()
}

fn origin() -> String {
    "origin".into()
}

fn yes() -> bool {
    true
}

impl GitModule {
    async fn git(
        &self,
        ctx: &TaskContext,
        dir: &Path,
        words: &[&str],
    ) -> Result<Ended, ModuleError> {
        let mut environment: BTreeMap<String, String> = ctx.environment.clone();
        environment.insert("LC_ALL".into(), "C".into());
        // Nobody is there to type a password.
        environment.insert("GIT_TERMINAL_PROMPT".into(), "0".into());
        let mut ssh = String::from("ssh -o BatchMode=yes");
        if let Some(key) = &self.key_file {
            ssh.push_str(&format!(" -i '{}'", ctx.resolve(key).display()));
        }
        if self.accept_newhostkey {
            ssh.push_str(" -o StrictHostKeyChecking=accept-new");
        }
        environment.entry("GIT_SSH_COMMAND".into()).or_insert(ssh);
        let (program, mut arguments) = match &self.umask {
            None => ("git", Vec::new()),
            Some(umask) => (
                "sh",
                vec![
                    "-c".into(),
                    r#"umask "$0" && exec git "$@""#.into(),
                    OsString::from(umask),
                ],
            ),
        };
        arguments.extend(words.iter().map(OsString::from));
        let invocation = Invocation {
            program: program.into(),
            arguments,
            directory: dir.to_path_buf(),
            environment,
            stdin: None,
        };
        run(&invocation, ctx).await
    }

    async fn must(
        &self,
        ctx: &TaskContext,
        dir: &Path,
        words: &[&str],
    ) -> Result<String, ModuleError> {
        let ended = self.git(ctx, dir, words).await?;
        let verb = words.first().copied().unwrap_or_default();
        let ended = ended.must(&format!("git {verb}"))?;
        Ok(ended.stdout.trim().to_owned())
    }

    fn is_there(&self, dest: &Path) -> bool {
        dest.join(".git").exists()
    }

    async fn commit_of(&self, ctx: &TaskContext, dest: &Path) -> Result<String, ModuleError> {
        self.must(ctx, dest, &["rev-parse", "HEAD"]).await
    }

    /// The commit that the version means in the repository; nothing where it names a commit itself.
    async fn wanted(&self, ctx: &TaskContext) -> Result<Option<String>, ModuleError> {
        if is_commit(&self.version) {
            return Ok(None);
        }
        let peeled = format!("{}^{{}}", self.version);
        let words = [
            "ls-remote",
            self.repo.as_str(),
            self.version.as_str(),
            peeled.as_str(),
        ];
        let listed = self.must(ctx, Path::new("/"), &words).await?;
        let named = |name: &str| {
            listed.lines().find_map(|line| {
                let (commit, found) = line.split_once('\t')?;
                (found == name).then(|| commit.to_owned())
            })
        };
        let version = &self.version;
        // What an annotated tag points to, before the tag itself.
        let forms = [
            format!("refs/tags/{version}^{{}}"),
            format!("refs/tags/{version}"),
            format!("refs/heads/{version}"),
            version.clone(),
        ];
        match forms.iter().find_map(|form| named(form)) {
            Some(commit) => Ok(Some(commit)),
            None => {
                let message = format!("{} has no branch, tag or commit `{version}`", self.repo);
                Err(ControlError::argument(message).into())
            }
        }
    }

    async fn fits(&self, ctx: &TaskContext, dest: &Path) -> Result<bool, ModuleError> {
        if !self.update {
            return Ok(true);
        }
        let has = self.commit_of(ctx, dest).await?;
        Ok(match self.wanted(ctx).await? {
            Some(wanted) => wanted == has,
            None => has.starts_with(&self.version.to_ascii_lowercase()),
        })
    }

    async fn clone_new(&self, ctx: &TaskContext, dest: &Path) -> Result<(), ModuleError> {
        let above = dest.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(above).map_err(PathError::on("create", above))?;
        let partial = sibling(dest, "partial", &ctx.attempt);
        let shown = partial.display().to_string();
        let depth = self.depth.map(|depth| depth.to_string());
        let mut words = vec!["clone", "--origin", self.remote.as_str()];
        let named = self.version != "HEAD" && !is_commit(&self.version);
        if let Some(depth) = &depth {
            words.extend(["--depth", depth.as_str()]);
        }
        if self.single_branch {
            words.push("--single-branch");
        }
        if named {
            words.extend(["--branch", self.version.as_str()]);
        }
        if self.recursive {
            words.push("--recurse-submodules");
        }
        words.extend([self.repo.as_str(), shown.as_str()]);
        self.must(ctx, above, &words).await?;
        if is_commit(&self.version) {
            self.must(ctx, &partial, &["checkout", "--detach", &self.version])
                .await?;
        }
        sync_everything(&ctx.cancel).await?;
        if dest.is_dir() {
            // Empty, or the rename refuses.
            fs::remove_dir(dest).map_err(PathError::on("replace", dest))?;
        }
        rename_noreplace(&partial, dest)
    }

    async fn update_there(&self, ctx: &TaskContext, dest: &Path) -> Result<(), ModuleError> {
        let dirty = self
            .must(
                ctx,
                dest,
                &["status", "--porcelain", "--untracked-files=no"],
            )
            .await?;
        if !dirty.is_empty() && !self.force {
            let message = format!(
                "{} was changed by hand: commit that, or say `force: true` to throw it away",
                dest.display()
            );
            return Err(ControlError::argument(message).into());
        }
        let wanted = self.wanted(ctx).await?;
        let depth = self.depth.map(|depth| depth.to_string());
        let mut words = vec!["fetch", "--tags", "--force"];
        if let Some(depth) = &depth {
            words.extend(["--depth", depth.as_str()]);
        }
        words.push(self.remote.as_str());
        let refs = format!("+refs/heads/*:refs/remotes/{}/*", self.remote);
        words.push(&refs);
        self.must(ctx, dest, &["remote", "set-url", &self.remote, &self.repo])
            .await?;
        self.must(ctx, dest, &words).await?;
        let commit = wanted.unwrap_or_else(|| self.version.clone());
        let on_branch = format!("refs/remotes/{}/{}", self.remote, self.version);
        let known = self
            .git(ctx, dest, &["show-ref", "--verify", "--quiet", &on_branch])
            .await?;
        if known.rc == 0 {
            self.must(
                ctx,
                dest,
                &["checkout", "--force", "-B", &self.version, &commit],
            )
            .await?;
        } else {
            self.must(ctx, dest, &["checkout", "--force", "--detach", &commit])
                .await?;
        }
        if self.recursive && dest.join(".gitmodules").exists() {
            self.must(ctx, dest, &["submodule", "update", "--init", "--recursive"])
                .await?;
        }
        sync_everything(&ctx.cancel).await
    }
}

/// Something that can only be a commit's hash.
fn is_commit(version: &str) -> bool {
    version.len() == 40 && version.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[async_trait]
impl Module for GitModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        if !self.is_there(&dest) {
            return Ok(match self.clone {
                true => Plan::NeedsChange(vec![format!("clone {}", self.repo)]),
                false => Plan::InSync,
            });
        }
        Ok(match self.fits(ctx, &dest).await? {
            true => Plan::InSync,
            false => Plan::NeedsChange(vec![format!("bring it to {}", self.version)]),
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        let mut before = Value::Null;
        let changed = match self.is_there(&dest) {
            false if !self.clone => {
                let commit = self.wanted(ctx).await?;
                return Ok(Outcome::ok()
                    .with("before", Value::Null)
                    .with("after", commit));
            }
            false => {
                self.clone_new(ctx, &dest).await?;
                true
            }
            true => {
                before = self.commit_of(ctx, &dest).await?.into();
                let fits = self.fits(ctx, &dest).await?;
                if !fits {
                    self.update_there(ctx, &dest).await?;
                }
                !fits
            }
        };
        let after = self.commit_of(ctx, &dest).await?;
        let short = after.get(..12).unwrap_or(&after).to_owned();
        Ok(Outcome {
            changed,
            ..Outcome::default()
        }
        .with("before", before)
        .with("after", after)
        .with("remote_url_changed", false)
        .summary(format!("{} at {short}", dest.display())))
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        let dest = ctx.resolve(&self.dest);
        if let Some(attempt) = &ctx.interrupted_attempt {
            let partial = sibling(&dest, "partial", attempt);
            if partial.is_dir() {
                fs::remove_dir_all(&partial).map_err(PathError::on("remove", &partial))?;
            }
        }
        // A killed git leaves its lock, and nobody else is at work here.
        let lock = dest.join(".git/index.lock");
        if lock.is_file() {
            fs::remove_file(&lock).map_err(PathError::on("remove", &lock))?;
        }
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for GitModule {
    const NAME: &'static str = "git";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.git", "ansible.legacy.git"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "removes its half clone and git's lock, then looks what is there, and does the rest";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str = "Clones a repository, or brings a working copy to a version";
    const EXAMPLE: &'static str = "\
- name: The platform's sources
  git:
    repo: https://github.com/kaapana/kaapana.git
    dest: /opt/kaapana
    version: \"0.3.5\"
    depth: 1
";
}
