//! `user`: a user of the host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use nix::unistd::{Gid, Group, User};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::program::must;
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};
use crate::task::presence::Presence;

/// Makes sure that a user is there as described, or that none has the name.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserModule {
    /// The user.
    #[serde(alias = "user")]
    #[schemars(extend("aliases" = ["user"]))]
    name: String,
    /// Number. Default: the next that is free.
    #[serde(default)]
    uid: Option<u32>,
    /// First group, a name or number.
    #[serde(default)]
    group: Option<String>,
    /// More groups. They are all of them, unless `append` is true.
    #[serde(default)]
    groups: Option<Vec<String>>,
    /// `groups` come to those that the user has. Default: false.
    #[serde(default)]
    append: bool,
    /// Login shell.
    #[serde(default)]
    shell: Option<PathBuf>,
    /// Home directory.
    #[serde(default)]
    home: Option<PathBuf>,
    /// Makes the home directory of a new user. Default: true.
    #[serde(default = "yes", alias = "createhome")]
    #[schemars(extend("aliases" = ["createhome"]))]
    create_home: bool,
    /// Moves the home directory when `home` changes. Default: false.
    #[serde(default)]
    move_home: bool,
    /// Full name, or what the account is for.
    #[serde(default)]
    comment: Option<String>,
    /// A user of the system, with a low number. For new ones. Default: false.
    #[serde(default)]
    system: bool,
    /// Allows a number that another user has. Default: false.
    #[serde(default)]
    non_unique: bool,
    /// Hash of the password, as `mkpasswd` makes it; `!` locks the account.
    #[serde(default)]
    password: Option<String>,
    /// `always` (default) sets the password, `on_create` only that of a new user.
    #[serde(default)]
    update_password: When,
    /// `present` (default) or `absent`.
    #[serde(default)]
    state: Presence,
    /// With `absent`: removes home directory and mail as well, for good. Default: false.
    #[serde(default)]
    remove: bool,
    /// With `absent`: although the user has processes. Default: false.
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum When {
    #[default]
    Always,
    OnCreate,
}

fn yes() -> bool {
    true
}

/// What is left to do: the commands, and whether the password is set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Todo {
    command: Option<Vec<String>>,
    password: bool,
}

impl UserModule {
    fn found(&self) -> Result<Option<User>, ModuleError> {
        let failed = |error| ControlError::argument(format!("the users cannot be read: {error}"));
        Ok(User::from_name(&self.name).map_err(failed)?)
    }

    fn gid(&self) -> Result<Option<Gid>, ModuleError> {
        let Some(name) = &self.group else {
            return Ok(None);
        };
        let known = Group::from_name(name).ok().flatten().map(|group| group.gid);
        let number = || name.parse().ok().map(Gid::from_raw);
        known.or_else(number).map(Some).ok_or_else(|| {
            ControlError::argument(format!("this host has no group `{name}`: make it first")).into()
        })
    }

    fn todo(&self) -> Result<Todo, ModuleError> {
        let found = self.found()?;
        if self.state == Presence::Absent {
            let command = found.map(|_| {
                let mut words = vec!["userdel".to_owned()];
                if self.remove {
                    words.push("-r".into());
                }
                if self.force {
                    words.push("-f".into());
                }
                words.push(self.name.clone());
                words
            });
            return Ok(Todo {
                command,
                password: false,
            });
        }
        let gid = self.gid()?;
        let mut words: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        let path = |path: &Path| path.display().to_string();
        let Some(user) = found else {
            if let Some(uid) = self.uid {
                add("-u", uid.to_string());
            }
            if let Some(gid) = gid {
                add("-g", gid.to_string());
            }
            if let Some(groups) = self.groups.as_ref().filter(|groups| !groups.is_empty()) {
                add("-G", groups.join(","));
            }
            if let Some(shell) = &self.shell {
                add("-s", path(shell));
            }
            if let Some(home) = &self.home {
                add("-d", path(home));
            }
            if let Some(comment) = &self.comment {
                add("-c", comment.clone());
            }
            let mut command = vec!["useradd".to_owned()];
            command.append(&mut words);
            command.push(if self.create_home { "-m" } else { "-M" }.to_owned());
            for (wanted, option) in [(self.system, "-r"), (self.non_unique, "-o")] {
                if wanted {
                    command.push(option.to_owned());
                }
            }
            command.push(self.name.clone());
            return Ok(Todo {
                command: Some(command),
                password: self.password.is_some(),
            });
        };
        if let Some(uid) = self.uid.filter(|uid| user.uid.as_raw() != *uid) {
            add("-u", uid.to_string());
        }
        if let Some(gid) = gid.filter(|gid| user.gid != *gid) {
            add("-g", gid.to_string());
        }
        if let Some(groups) = &self.groups {
            let has = groups_of(&user);
            let wanted: BTreeSet<String> = groups.iter().cloned().collect();
            let differs = match self.append {
                true => !wanted.is_subset(&has),
                false => wanted != has,
            };
            if differs {
                let option = if self.append { "-aG" } else { "-G" };
                add(option, groups.join(","));
            }
        }
        if let Some(shell) = self.shell.as_ref().filter(|shell| user.shell != **shell) {
            add("-s", path(shell));
        }
        let home = self.home.as_ref().filter(|home| user.dir != **home);
        if let Some(home) = home {
            add("-d", path(home));
        }
        let says = user.gecos.to_string_lossy().into_owned();
        if let Some(comment) = self.comment.as_ref().filter(|comment| says != **comment) {
            add("-c", comment.clone());
        }
        if home.is_some() && self.move_home {
            words.push("-m".into());
        }
        let password = match (&self.password, self.update_password) {
            (Some(password), When::Always) => shadow_of(&self.name).as_ref() != Some(password),
            _ => false,
        };
        let command = (!words.is_empty()).then(|| {
            let mut command = vec!["usermod".to_owned()];
            command.append(&mut words);
            command.push(self.name.clone());
            command
        });
        Ok(Todo { command, password })
    }
}

/// Groups that name a user as a member.
fn groups_of(user: &User) -> BTreeSet<String> {
    std::fs::read_to_string("/etc/group")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let mut parts = line.split(':');
            let (name, members) = (parts.next()?, parts.nth(2)?);
            members
                .split(',')
                .any(|member| member == user.name)
                .then(|| name.to_owned())
        })
        .collect()
}

/// The hash of a user's password.
fn shadow_of(name: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/shadow").ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.split(':');
        (parts.next() == Some(name)).then(|| parts.next().unwrap_or_default().to_owned())
    })
}

#[async_trait]
impl Module for UserModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        let todo = self.todo()?;
        let mut lines: Vec<String> = todo.command.iter().map(|words| words.join(" ")).collect();
        if todo.password {
            lines.push("set the password".into());
        }
        Ok(Plan::from(lines))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let todo = self.todo()?;
        let mut outcome = match todo == Todo::default() {
            true => Outcome::ok(),
            false => Outcome::changed(),
        };
        if let Some(words) = &todo.command {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            must(ctx, &words, &[], None).await?;
            outcome = outcome.summary(words.join(" "));
        }
        if let (true, Some(password)) = (todo.password, &self.password) {
            // Through a pipe: arguments are seen by everybody.
            let line = format!("{}:{password}\n", self.name);
            must(ctx, &["chpasswd", "-e"], &[], Some(&line)).await?;
        }
        outcome = outcome
            .with("name", self.name.clone())
            .with("state", self.state.word());
        if let Some(user) = self.found()? {
            outcome = outcome
                .with("uid", user.uid.as_raw())
                .with("group", user.gid.as_raw())
                .with("home", user.dir.display().to_string())
                .with("shell", user.shell.display().to_string())
                .with("comment", user.gecos.to_string_lossy().into_owned())
                .with("groups", json!(groups_of(&user)))
                .with("append", self.append);
        }
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for UserModule {
    const NAME: &'static str = "user";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.user", "ansible.legacy.user"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "looks what is there, and does the rest";
    const CHECK_MODE: &'static str = "predicts";
    const SUMMARY: &'static str =
        "Makes sure that a user is there as described, or that none has the name";
    const EXAMPLE: &'static str = "\
- name: Who deploys
  user:
    name: kaapana
    groups: [docker]
    append: true
    shell: /bin/bash
";
}
