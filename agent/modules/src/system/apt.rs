//! `apt`: packages of Debian and Ubuntu.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::program::{look, must};
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Nobody answers questions, and what an admin changed in `/etc` stays.
const QUIET: &[(&str, &str)] = &[
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBIAN_PRIORITY", "critical"),
];
/// By default apt puts dpkg into a session of its own, where it would outlive a killed agent.
const IN_THE_SAME_SESSION: &[&str] = &["-o", "Dpkg::Use-Pty=0"];
const KEEP_CONFIGURATION: &[&str] = &[
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
];
/// Its time tells when the lists of packages were read.
const LISTS: [&str; 2] = [
    "/var/lib/apt/periodic/update-success-stamp",
    "/var/lib/apt/lists",
];

/// Installs or removes packages with apt-get.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AptModule {
    /// Packages, each with `=VERSION` where a version is wanted.
    #[serde(default, alias = "package", alias = "pkg")]
    #[schemars(extend("aliases" = ["package", "pkg"]))]
    name: Vec<String>,
    /// A package's file, instead of `name`.
    #[serde(default)]
    deb: Option<PathBuf>,
    /// `present` (default), `latest` or `absent`.
    #[serde(default)]
    state: State,
    /// Reads the lists of packages first. Default: false.
    #[serde(default, alias = "update-cache")]
    #[schemars(extend("aliases" = ["update-cache"]))]
    update_cache: bool,
    /// Seconds for which lists that were read are good enough. Default: 0.
    #[serde(default)]
    cache_valid_time: u64,
    /// Installs what is recommended as well. Default: apt's own.
    #[serde(default, alias = "install-recommends")]
    #[schemars(extend("aliases" = ["install-recommends"]))]
    install_recommends: Option<bool>,
    /// With `absent`: removes configuration as well. Default: false.
    #[serde(default)]
    purge: bool,
    /// Removes packages that nothing needs any more. Default: false.
    #[serde(default)]
    autoremove: bool,
    /// Seconds to wait for another apt to end. Default: 60.
    #[serde(default = "minute")]
    lock_timeout: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Present,
    Latest,
    Absent,
}

fn minute() -> u64 {
    60
}

/// What is left to do.
#[derive(Debug, Default)]
struct Todo {
    update: bool,
    packages: Vec<String>,
}

impl AptModule {
    fn lists_are_old(&self) -> bool {
        if !self.update_cache && self.cache_valid_time == 0 {
            return false;
        }
        let read = LISTS
            .iter()
            .filter_map(|path| fs::metadata(path).ok()?.modified().ok())
            .max();
        let age = read.and_then(|time| SystemTime::now().duration_since(time).ok());
        age.is_none_or(|age| age >= Duration::from_secs(self.cache_valid_time))
    }

    /// The version that is installed.
    async fn installed(
        &self,
        ctx: &TaskContext,
        name: &str,
    ) -> Result<Option<String>, ModuleError> {
        let words = [
            "dpkg-query",
            "-W",
            "-f=${db:Status-Status} ${Version}\n",
            name,
        ];
        let ended = look(ctx, &words, &[], None).await?;
        let version = ended
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("installed "));
        Ok(version.filter(|_| ended.rc == 0).map(str::to_owned))
    }

    /// The version that apt would install.
    async fn candidate(
        &self,
        ctx: &TaskContext,
        name: &str,
    ) -> Result<Option<String>, ModuleError> {
        let ended = look(ctx, &["apt-cache", "policy", name], &[], None).await?;
        let line = ended
            .stdout
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "));
        Ok(line
            .filter(|version| *version != "(none)")
            .map(str::to_owned))
    }

    async fn todo(&self, ctx: &TaskContext) -> Result<Todo, ModuleError> {
        if !self.name.is_empty() && self.deb.is_some() {
            return Err(ControlError::argument("`name` and `deb` exclude each other").into());
        }
        let mut todo = Todo {
            update: self.lists_are_old(),
            packages: Vec::new(),
        };
        if let Some(deb) = &self.deb {
            let path = ctx.resolve(deb);
            let shown = path.display().to_string();
            let words = [
                "dpkg-deb",
                "-W",
                "--showformat=${Package} ${Version}",
                &shown,
            ];
            let named = must(ctx, &words, &[], None).await?.stdout;
            let (name, version) = named.trim().split_once(' ').unwrap_or((named.trim(), ""));
            let has = self.installed(ctx, name).await?;
            let fits = match self.state {
                State::Absent => has.is_none(),
                _ => has.as_deref() == Some(version),
            };
            if !fits {
                let wanted = match self.state {
                    State::Absent => name.to_owned(),
                    _ => shown,
                };
                todo.packages.push(wanted);
            }
            return Ok(todo);
        }
        for package in &self.name {
            let (name, version) = match package.split_once('=') {
                Some((name, version)) => (name, Some(version)),
                None => (package.as_str(), None),
            };
            let has = self.installed(ctx, name).await?;
            let fits = match (self.state, &has, version) {
                (State::Absent, has, _) => has.is_none(),
                (_, None, _) => false,
                (_, Some(has), Some(version)) => has == version,
                (State::Present, Some(_), None) => true,
                (State::Latest, Some(has), None) => self
                    .candidate(ctx, name)
                    .await?
                    .is_none_or(|best| best == *has),
            };
            if !fits {
                todo.packages.push(package.clone());
            }
        }
        Ok(todo)
    }

    async fn apt_get(&self, ctx: &TaskContext, words: &[&str]) -> Result<String, ModuleError> {
        let lock = format!("DPkg::Lock::Timeout={}", self.lock_timeout);
        let mut all = vec!["apt-get", "-y", "-q", "-o", lock.as_str()];
        all.extend(IN_THE_SAME_SESSION);
        all.extend(KEEP_CONFIGURATION);
        all.extend(words);
        Ok(must(ctx, &all, QUIET, None).await?.stdout)
    }
}

#[async_trait]
impl Module for AptModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let todo = self.todo(ctx).await?;
        let verb = match self.state {
            State::Absent => "remove",
            _ => "install",
        };
        let mut lines: Vec<String> = Vec::new();
        if todo.update && self.name.is_empty() && self.deb.is_none() {
            lines.push("read the lists of packages".into());
        }
        lines.extend(todo.packages.iter().map(|name| format!("{verb} {name}")));
        Ok(match (lines.is_empty(), self.autoremove) {
            (true, true) => Plan::CannotPredict,
            (true, false) => Plan::InSync,
            (false, _) => Plan::NeedsChange(lines),
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if !Path::new("/usr/bin/apt-get").exists() {
            let message = "this host has no apt-get: it is not Debian or Ubuntu";
            return Err(ControlError::argument(message).into());
        }
        let mut outcome = Outcome::ok();
        let before = self.todo(ctx).await?;
        if before.update {
            self.apt_get(ctx, &["update"]).await?;
            outcome.changed |= self.name.is_empty() && self.deb.is_none();
        }
        outcome = outcome.with("cache_updated", before.update);
        // With fresh lists, the latest version may be another one.
        let todo = match before.update {
            true => self.todo(ctx).await?,
            false => before,
        };
        let mut said = String::new();
        if !todo.packages.is_empty() {
            let mut words: Vec<&str> = match (self.state, self.purge) {
                (State::Absent, true) => vec!["remove", "--purge"],
                (State::Absent, false) => vec!["remove"],
                _ => vec!["install"],
            };
            match self.install_recommends {
                Some(true) => words.extend(["-o", "APT::Install-Recommends=yes"]),
                Some(false) => words.push("--no-install-recommends"),
                None => {}
            }
            // A version that is wanted may be an older one.
            if todo.packages.iter().any(|name| name.contains('=')) {
                words.push("--allow-downgrades");
            }
            words.extend(todo.packages.iter().map(String::as_str));
            said = self.apt_get(ctx, &words).await?;
            outcome.changed = true;
            outcome = outcome.summary(format!("{} {}", words[0], todo.packages.join(" ")));
        }
        if self.autoremove {
            let cleaned = self.apt_get(ctx, &["autoremove"]).await?;
            outcome.changed |= !cleaned.contains(" 0 to remove");
            said.push_str(&cleaned);
        }
        Ok(outcome.with("stdout", said))
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        // What dpkg was in the middle of is brought to its end before anything else is asked of it.
        must(
            ctx,
            &[
                "dpkg",
                "--configure",
                "-a",
                "--force-confdef",
                "--force-confold",
            ],
            QUIET,
            None,
        )
        .await?;
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for AptModule {
    const NAME: &'static str = "apt";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.apt", "ansible.legacy.apt"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str =
        "lets dpkg finish what it was in the middle of, then installs the rest";
    const CHECK_MODE: &'static str = "predicts; with `autoremove` skipped";
    const SUMMARY: &'static str = "Installs or removes packages of Debian and Ubuntu";
    const EXAMPLE: &'static str = "\
- name: Docker's engine
  apt:
    name: [docker-ce, docker-ce-cli, containerd.io]
    update_cache: true
    cache_valid_time: 3600
";
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_installed_is_in_order_and_what_is_not_there_needs_no_removal() {
        if !Path::new("/usr/bin/apt-get").exists() {
            println!("this host has no apt-get; the module is for Debian and Ubuntu");
            return;
        }
        let ctx = TaskContext::for_tests(Path::new("/"));
        let check = async |arguments: Value| {
            let module: AptModule = serde_json::from_value(arguments).expect("arguments");
            module.check(&ctx).await.expect("check")
        };
        assert_eq!(check(json!({"name": ["dpkg"]})).await, Plan::InSync);
        let none = json!({"name": ["no-such-package-at-all"], "state": "absent"});
        assert_eq!(check(none).await, Plan::InSync);
        let new = check(json!({"name": ["no-such-package-at-all"]})).await;
        assert_eq!(
            new,
            Plan::NeedsChange(vec!["install no-such-package-at-all".into()])
        );
        let other = check(json!({"name": ["dpkg=0.1"]})).await;
        assert!(matches!(other, Plan::NeedsChange(_)));
    }
}
