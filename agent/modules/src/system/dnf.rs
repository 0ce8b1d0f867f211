//! `dnf`: packages of Rocky, Alma, Red Hat and Fedora.

use std::path::Path;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::program::{look, must};
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::host::process::invocation::Ended;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Exit code of `dnf check-update` where there are newer packages (dnf(8)).
const NEWER_ONES: i32 = 100;

/// Installs or removes packages with dnf.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnfModule {
    /// Packages: a name, `NAME-VERSION`, what a package provides (`/usr/bin/docker`), or a package's file
    /// (`./docker.rpm`).
    #[serde(default, alias = "pkg")]
    #[schemars(extend("aliases" = ["pkg"]))]
    name: Vec<String>,
    /// `present` (default), `latest` or `absent`.
    #[serde(default)]
    state: State,
    /// Reads the repositories' lists anew first. Default: false.
    #[serde(default, alias = "expire-cache")]
    #[schemars(extend("aliases" = ["expire-cache"]))]
    update_cache: bool,
    /// Repositories that are used although they are switched off.
    #[serde(default)]
    enablerepo: Vec<String>,
    /// Repositories that are not used.
    #[serde(default)]
    disablerepo: Vec<String>,
    /// Packages that stay as they are.
    #[serde(default)]
    exclude: Vec<String>,
    /// Does not look at the packages' signatures. Default: false.
    #[serde(default)]
    disable_gpg_check: bool,
    /// Installs what is recommended as well. Default: dnf's own.
    #[serde(default)]
    install_weak_deps: Option<bool>,
    /// Removes installed packages that are in the way. Default: false.
    #[serde(default)]
    allowerasing: bool,
    /// Puts an older version in place of a newer one. Default: false.
    #[serde(default)]
    allow_downgrade: bool,
    /// Removes packages that nothing needs any more. Default: false.
    #[serde(default)]
    autoremove: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    #[serde(alias = "installed")]
    Present,
    Latest,
    #[serde(alias = "removed")]
    Absent,
}

/// A package that is to be installed, upgraded or removed.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Wanted {
    /// As rpm knows it.
    spec: String,
    /// As dnf is told: a file's path, or the same.
    told: String,
    /// Whether it would take the place of a newer version.
    #[serde(default)]
    is_older: bool,
}

impl DnfModule {
    /// Refuses what can be written and is not understood here.
    fn refuse(&self) -> Result<(), ModuleError> {
        for name in &self.name {
            let why = if name.starts_with('@') {
                "is a group of packages: name the packages"
            } else if name.contains("://") {
                "is an address: bring the file with `get_url`, which checks its `checksum`"
            } else if name.contains(['*', '?', '[']) {
                "is a pattern: name the packages"
            } else if name.contains(char::is_whitespace) || name.starts_with('-') || name.is_empty()
            {
                "is no package: NAME or NAME-VERSION is expected"
            } else {
                continue;
            };
            return Err(ControlError::argument(format!("`{name}` {why}")).into());
        }
        Ok(())
    }

    /// Options that every call of dnf gets.
    fn options(&self) -> Vec<String> {
        let mut options = vec!["-y".to_owned(), "-q".to_owned()];
        let each = |option: &str, values: &[String]| -> Vec<String> {
            let one = |value: &String| format!("--{option}={value}");
            values.iter().map(one).collect()
        };
        options.extend(each("disablerepo", &self.disablerepo));
        options.extend(each("enablerepo", &self.enablerepo));
        options.extend(each("exclude", &self.exclude));
        if self.disable_gpg_check {
            options.push("--nogpgcheck".into());
        }
        if let Some(wanted) = self.install_weak_deps {
            options.push(format!("--setopt=install_weak_deps={wanted}"));
        }
        options
    }

    /// Calls dnf; returns how it ended, and the words of the call.
    async fn call(
        &self,
        ctx: &TaskContext,
        words: &[&str],
    ) -> Result<(Ended, String), ModuleError> {
        let options = self.options();
        let mut all = vec!["dnf"];
        all.extend(options.iter().map(String::as_str));
        all.extend(words);
        Ok((look(ctx, &all, &[], None).await?, all.join(" ")))
    }

    async fn dnf(&self, ctx: &TaskContext, words: &[&str]) -> Result<String, ModuleError> {
        let (ended, shown) = self.call(ctx, words).await?;
        Ok(ended.must(&shown)?.stdout)
    }

    /// What is left to do.
    async fn todo(&self, ctx: &TaskContext) -> Result<Vec<Wanted>, ModuleError> {
        self.refuse()?;
        let mut todo = Vec::new();
        for name in &self.name {
            let file = name.ends_with(".rpm") && name.contains('/');
            let told = match file {
                true => ctx.resolve(Path::new(name)).display().to_string(),
                false => name.clone(),
            };
            let spec = match file {
                true => identity_of(ctx, &told).await?,
                false => told.clone(),
            };
            let is_there = is_installed(ctx, &spec).await?;
            let fits = match self.state {
                State::Absent => !is_there,
                State::Present => is_there,
                State::Latest => is_there && (file || !self.has_newer(ctx, &spec).await?),
            };
            if !fits {
                let is_older = !is_there && is_older(ctx, &spec).await?;
                let told = match self.state {
                    State::Absent => spec.clone(),
                    _ => told,
                };
                todo.push(Wanted {
                    spec,
                    told,
                    is_older,
                });
            }
        }
        Ok(todo)
    }

    /// Tells whether the repositories have a newer version of an installed package.
    async fn has_newer(&self, ctx: &TaskContext, name: &str) -> Result<bool, ModuleError> {
        let (ended, shown) = self.call(ctx, &["check-update", name]).await?;
        if ended.rc == NEWER_ONES {
            return Ok(true);
        }
        ended.must(&shown)?;
        Ok(false)
    }

    /// The command that does it.
    fn verb(&self) -> &'static str {
        match self.state {
            State::Present => "install",
            State::Latest => "upgrade",
            State::Absent => "remove",
        }
    }

    /// Installs, upgrades or removes; returns what dnf said.
    async fn change(&self, ctx: &TaskContext, todo: &[Wanted]) -> Result<String, ModuleError> {
        if let Some(older) = todo.iter().find(|wanted| wanted.is_older)
            && !self.allow_downgrade
        {
            let message = format!(
                "a newer version than {} is installed; `allow_downgrade: true` puts the older one \
                 in its place",
                older.spec
            );
            return Err(ControlError::argument(message).into());
        }
        let mut words = Vec::new();
        if self.allowerasing {
            words.push("--allowerasing");
        }
        words.extend(todo.iter().map(|wanted| wanted.told.as_str()));
        let mut said = String::new();
        if self.state == State::Latest {
            // `upgrade` passes over what is not there yet.
            let words = [&["install"], words.as_slice()].concat();
            said = self.dnf(ctx, &words).await?;
        }
        let words = [&[self.verb()], words.as_slice()].concat();
        said.push_str(&self.dnf(ctx, &words).await?);
        if let Some(left) = self.todo(ctx).await?.first() {
            let message = format!(
                "dnf ended well, and {} is not as it should be:\n{said}",
                left.spec
            );
            return Err(ControlError::argument(message).into());
        }
        Ok(said)
    }
}

fn named(todo: &[Wanted]) -> impl Iterator<Item = &str> {
    todo.iter().map(|wanted| wanted.told.as_str())
}

/// Tells whether a package, or something that provides it, is installed.
async fn is_installed(ctx: &TaskContext, spec: &str) -> Result<bool, ModuleError> {
    let by_name = look(ctx, &["rpm", "-q", spec], &[], None).await?;
    if by_name.rc == 0 {
        return Ok(true);
    }
    let words = ["rpm", "-q", "--whatprovides", spec];
    Ok(look(ctx, &words, &[], None).await?.rc == 0)
}

/// `NAME-VERSION-RELEASE` of a package's file.
async fn identity_of(ctx: &TaskContext, path: &str) -> Result<String, ModuleError> {
    let form = "%{NAME}-%{VERSION}-%{RELEASE}";
    let words = ["rpm", "-q", "--qf", form, "-p", path];
    Ok(must(ctx, &words, &[], None).await?.stdout.trim().to_owned())
}

/// Tells whether `NAME-VERSION` or `NAME-VERSION-RELEASE` is older than what is installed of that name.
async fn is_older(ctx: &TaskContext, spec: &str) -> Result<bool, ModuleError> {
    for (at, _) in spec.rmatch_indices('-').take(2) {
        let (name, wanted) = (&spec[..at], &spec[at + 1..]);
        // With a release where one is wanted.
        let form = match wanted.contains('-') {
            true => "%{VERSION}-%{RELEASE}\n",
            false => "%{VERSION}\n",
        };
        let has = look(ctx, &["rpm", "-q", "--qf", form, name], &[], None).await?;
        let Some(has) = has.stdout.lines().next().filter(|_| has.rc == 0) else {
            continue;
        };
        // rpm's own comparison; versions hold neither quotes nor backslashes.
        let compare = format!("%{{lua:print(rpm.vercmp(\"{has}\", \"{wanted}\"))}}");
        let answer = must(ctx, &["rpm", "--eval", &compare], &[], None).await?;
        return Ok(answer.stdout.trim() == "1");
    }
    Ok(false)
}

#[async_trait]
impl Module for DnfModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.refuse()?;
        if self.autoremove {
            return Ok(Plan::CannotPredict);
        }
        let lines: Vec<String> = named(&self.todo(ctx).await?)
            .map(|name| format!("{} {name}", self.verb()))
            .collect();
        Ok(match lines.is_empty() {
            true => Plan::InSync,
            false => Plan::NeedsChange(lines),
        })
    }

    async fn prepare(&self, ctx: &TaskContext) -> Result<Value, ModuleError> {
        Ok(json!({"packages": self.todo(ctx).await?}))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let mut outcome = Outcome::ok();
        if self.update_cache {
            self.dnf(ctx, &["makecache", "--refresh"]).await?;
        }
        let todo = self.todo(ctx).await?;
        let mut said = String::new();
        if !todo.is_empty() {
            said = self.change(ctx, &todo).await?;
            let names: Vec<&str> = named(&todo).collect();
            let summary = format!("{} {}", self.verb(), names.join(" "));
            outcome = Outcome::changed().summary(summary);
        }
        if self.autoremove {
            let cleaned = self.dnf(ctx, &["autoremove"]).await?;
            // Quiet, it says nothing where there was nothing to do.
            outcome.changed |= !cleaned.trim().is_empty();
            said.push_str(&cleaned);
        }
        Ok(outcome.with("results", said))
    }

    async fn recover(&self, ctx: &TaskContext, intent: &Value) -> Result<Recovery, ModuleError> {
        // rpm counts a package as installed before the scripts behind its installation have run, and both
        // versions of one whose upgrade was cut short: neither shows later.
        if self.state == State::Absent {
            return Ok(Recovery::NotDone);
        }
        let duplicates = look(ctx, &["dnf", "-q", "check", "--duplicates"], &[], None).await?;
        if duplicates.rc != 0 {
            self.dnf(ctx, &["remove", "--duplicates"]).await?;
        }
        let begun: Vec<Wanted> =
            serde_json::from_value(intent["packages"].clone()).unwrap_or_default();
        let mut again = vec!["reinstall"];
        for wanted in &begun {
            if is_installed(ctx, &wanted.spec).await? {
                again.push(&wanted.told);
            }
        }
        if again.len() > 1 {
            self.dnf(ctx, &again).await?;
        }
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for DnfModule {
    const NAME: &'static str = "dnf";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.dnf", "ansible.legacy.dnf"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "installs the named packages anew that are there already, so that their scripts run to the end, then the rest";
    const CHECK_MODE: &'static str = "predicts; with `autoremove` skipped";
    const SUMMARY: &'static str = "Installs or removes packages of Rocky, Alma, Red Hat and Fedora";
    const EXAMPLE: &'static str = "\
- name: Docker's engine
  dnf:
    name: [docker-ce, docker-ce-cli, containerd.io]
    update_cache: true
";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_package_is_refused_by_name() {
        for (name, why) in [
            ("@container-tools", "group"),
            ("https://a/b.rpm", "get_url"),
            ("docker*", "pattern"),
            ("docker-ce >= 20", "NAME-VERSION"),
            ("--releasever=9", "no package"),
        ] {
            let module: DnfModule = serde_json::from_value(json!({"name": [name]})).expect("built");
            let refused = module.refuse().expect_err(name).to_string();
            assert!(refused.contains(name) && refused.contains(why), "{refused}");
        }
    }
}
