//! `command` and `shell`: programs, run once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Zoned;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::host::error::ModuleError;
use crate::host::files::durable::sync_everything;
use crate::host::process::error::ControlError;
use crate::host::process::invocation::{Ended, Invocation, run};
use crate::host::words;
use crate::task::arguments::{needless, stdin_text};
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Runs a program without a shell.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandModule {
    /// Command line. Quotes and backslashes work as in a shell; pipes and redirections do not.
    #[serde(default, alias = "_raw_params")]
    cmd: Option<String>,
    /// Program and arguments as a list, taken as they are; instead of `cmd`.
    #[serde(default)]
    argv: Option<Vec<String>>,
    /// Directory to run in. Default: the playbook's folder.
    #[serde(default)]
    chdir: Option<PathBuf>,
    /// Path or pattern; where it exists, the command does not run, and an interrupted one counts as
    /// done.
    #[serde(default)]
    creates: Option<PathBuf>,
    /// Path or pattern; where it does not exist, the command does not run, and an interrupted one
    /// counts as done.
    #[serde(default)]
    removes: Option<PathBuf>,
    /// Text for its standard input. Default: none.
    #[serde(default)]
    stdin: Option<String>,
    /// Ends `stdin` with a newline. Default: true.
    #[serde(default = "yes")]
    stdin_add_newline: bool,
    /// Cuts newlines off the end of `stdout` and `stderr`. Default: true.
    #[serde(default = "yes")]
    strip_empty_ends: bool,
    /// Replaces `$NAME` and `${NAME}` by the environment's values. Default: true.
    #[serde(default = "yes")]
    expand_argument_vars: bool,
}

/// Runs a command line in a shell.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShellModule {
    /// Command line, handed to the shell as it is.
    #[serde(alias = "_raw_params")]
    cmd: String,
    /// The shell. Default: `/bin/sh`.
    #[serde(default = "default_shell")]
    executable: PathBuf,
    /// Directory to run in. Default: the playbook's folder.
    #[serde(default)]
    chdir: Option<PathBuf>,
    /// Path or pattern; where it exists, the command does not run, and an interrupted one counts as
    /// done.
    #[serde(default)]
    creates: Option<PathBuf>,
    /// Path or pattern; where it does not exist, the command does not run, and an interrupted one
    /// counts as done.
    #[serde(default)]
    removes: Option<PathBuf>,
    /// Text for its standard input. Default: none.
    #[serde(default)]
    stdin: Option<String>,
    /// Ends `stdin` with a newline. Default: true.
    #[serde(default = "yes")]
    stdin_add_newline: bool,
}

fn yes() -> bool {
    true
}

fn default_shell() -> PathBuf {
    "/bin/sh".into()
}

/// What these modules come down to.
pub(super) struct Call {
    /// For people, and `cmd` of the result.
    pub shown: Value,
    pub line: String,
    pub invocation: Invocation,
    pub creates: Option<PathBuf>,
    pub removes: Option<PathBuf>,
    pub strip: bool,
}

impl Call {
    /// Why there is nothing to do.
    fn needless(&self) -> Option<String> {
        needless(self.creates.as_deref(), self.removes.as_deref())
    }

    pub(super) fn check(&self) -> Plan {
        if self.needless().is_some() {
            Plan::InSync
        } else if self.creates.is_some() || self.removes.is_some() {
            Plan::NeedsChange(vec![format!("run `{}`", self.line)])
        } else {
            Plan::CannotPredict
        }
    }

    pub(super) async fn apply(&self, ctx: &TaskContext) -> Result<Outcome, ModuleError> {
        if let Some(why) = self.needless() {
            let message = format!("did not run the command since {why}");
            let nothing = json!({"rc": 0, "stdout": "", "stdout_lines": [], "stderr": "",
                "stderr_lines": [], "start": null, "end": null, "delta": null});
            return Ok(Outcome {
                result: nothing.as_object().cloned().unwrap_or_default(),
                ..Outcome::default()
            }
            .with("cmd", self.shown.clone())
            .with("msg", message.clone())
            .summary(message));
        }
        let start = Zoned::now();
        let ended = run(&self.invocation, ctx).await?;
        // Nobody knows what it wrote: a finished record must not outlive the effect in a power loss.
        sync_everything(&ctx.cancel).await?;
        let result = self.result(&ended, &start, &Zoned::now());
        if ended.rc == 0 {
            return Ok(Outcome {
                changed: true,
                result,
                ..Outcome::default()
            });
        }
        let how = if ended.rc < 0 {
            format!("`{}` was killed by signal {}", self.line, -ended.rc)
        } else {
            format!("`{}` ended with code {}", self.line, ended.rc)
        };
        let last = [&ended.stderr, &ended.stdout]
            .into_iter()
            .find_map(|text| text.lines().rfind(|line| !line.trim().is_empty()));
        // As Ansible: nobody knows what it changed before it failed.
        let mut result = result;
        result.insert("changed".into(), true.into());
        Err(ControlError::NonZero {
            message: match last {
                Some(last) => format!("{how}: {}", last.trim()),
                None => how,
            },
            result,
        }
        .into())
    }

    fn result(&self, ended: &Ended, start: &Zoned, end: &Zoned) -> Map<String, Value> {
        let cut = |text: &str| match self.strip {
            true => text.trim_end_matches(['\n', '\r']).to_owned(),
            false => text.to_owned(),
        };
        let (stdout, stderr) = (cut(&ended.stdout), cut(&ended.stderr));
        let time = |time: &Zoned| time.strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
        let micros = end.timestamp().as_microsecond() - start.timestamp().as_microsecond();
        let micros = micros.max(0);
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let delta = format!(
            "{}:{:02}:{:02}.{rest:06}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        let result = json!({
            "cmd": self.shown,
            "rc": ended.rc,
            "stdout_lines": stdout.lines().collect::<Vec<_>>(),
            "stdout": stdout,
            "stderr_lines": stderr.lines().collect::<Vec<_>>(),
            "stderr": stderr,
            "start": time(start),
            "end": time(end),
            "delta": delta,
        });
        result.as_object().cloned().unwrap_or_default()
    }

    pub(super) fn recover(&self) -> Recovery {
        match self.needless() {
            Some(why) if self.creates.is_some() || self.removes.is_some() => Recovery::Done(
                Outcome::changed()
                    .with("cmd", self.shown.clone())
                    .with("rc", Value::Null)
                    .with("msg", format!("interrupted, but {why}"))
                    .summary(format!("interrupted, but {why}")),
            ),
            _ => Recovery::Unknown {
                doing: format!("running `{}`", self.line),
                found: match (&self.creates, &self.removes) {
                    (Some(creates), _) => format!("{} does not exist", creates.display()),
                    (_, Some(removes)) => format!("{} still exists", removes.display()),
                    _ => "nothing that tells: the task has no `creates`, `removes` or `done_when`"
                        .into(),
                },
            },
        }
    }
}

/// What to tell who must answer for a command.
pub(super) fn advice(line: &str, tells: [Option<&PathBuf>; 2]) -> Advice {
    let program = line.split_whitespace().next().unwrap_or(line);
    let program = program.rsplit('/').next().unwrap_or(program);
    let tell = match tells {
        [Some(creates), _] => format!("; {} comes with its end", creates.display()),
        [_, Some(removes)] => format!("; {} goes with its end", removes.display()),
        _ => String::new(),
    };
    Advice {
        look: format!(
            "whether it still runs (`pgrep -af {program}`), and at what it changes{tell}"
        ),
        done: "it came to its end, or all that it changes is changed".into(),
        redo: "it no longer runs, and its first half may be repeated: it runs again from its \
               beginning"
            .into(),
    }
}

/// Relative paths of a command start where it runs, as in Ansible.
pub(super) fn places(
    ctx: &TaskContext,
    chdir: Option<&PathBuf>,
    paths: [Option<&PathBuf>; 2],
) -> (PathBuf, [Option<PathBuf>; 2]) {
    let directory = chdir.map_or_else(|| ctx.base_dir.clone(), |dir| ctx.resolve(dir));
    let paths = paths.map(|path| path.map(|path| directory.join(path)));
    (directory, paths)
}

impl CommandModule {
    fn call(&self, ctx: &TaskContext) -> Result<Call, ControlError> {
        let mut argv = match (&self.cmd, &self.argv) {
            (Some(line), None) => words::split(line).map_err(ControlError::argument)?,
            (None, Some(argv)) => argv.clone(),
            (Some(_), Some(_)) => {
                return Err(ControlError::argument(
                    "`cmd` and `argv` exclude each other",
                ));
            }
            (None, None) => return Err(ControlError::argument("`cmd` or `argv` is needed")),
        };
        if self.expand_argument_vars {
            let value_of = |name: &str| {
                let own = ctx.environment.get(name).cloned();
                // The environment that the program will get; nothing is decided by it here.
                own.or_else(|| std::env::var(name).ok())
            };
            argv = argv
                .iter()
                .map(|word| words::expand(word, value_of))
                .collect();
        }
        let Some((program, arguments)) = argv.split_first() else {
            return Err(ControlError::argument("the command is empty"));
        };
        let (directory, [creates, removes]) = places(
            ctx,
            self.chdir.as_ref(),
            [self.creates.as_ref(), self.removes.as_ref()],
        );
        Ok(Call {
            shown: json!(argv),
            line: self.cmd.clone().unwrap_or_else(|| argv.join(" ")),
            invocation: Invocation {
                program: program_path(program, &directory, &ctx.environment),
                arguments: arguments.iter().map(Into::into).collect(),
                directory,
                environment: ctx.environment.clone(),
                stdin: stdin_text(self.stdin.as_ref(), self.stdin_add_newline),
            },
            creates,
            removes,
            strip: self.strip_empty_ends,
        })
    }
}

/// Whether a relative program is looked for before or after the change of directory differs between
/// platforms (see `std::process::Command::current_dir`), so it is made absolute. Names without a slash
/// are looked up in the task's own `PATH` where it has one.
fn program_path(
    program: &str,
    directory: &Path,
    environment: &BTreeMap<String, String>,
) -> std::ffi::OsString {
    if program.contains('/') {
        return directory.join(program).into_os_string();
    }
    environment
        .get("PATH")
        .and_then(|path| {
            std::env::split_paths(path)
                .map(|dir| dir.join(program))
                .find(|candidate| candidate.is_file())
        })
        .map_or_else(|| program.into(), PathBuf::into_os_string)
}

impl ShellModule {
    fn call(&self, ctx: &TaskContext) -> Result<Call, ControlError> {
        let (directory, [creates, removes]) = places(
            ctx,
            self.chdir.as_ref(),
            [self.creates.as_ref(), self.removes.as_ref()],
        );
        Ok(Call {
            shown: json!(self.cmd),
            line: self.cmd.trim().to_owned(),
            invocation: Invocation {
                program: self.executable.clone().into_os_string(),
                arguments: vec!["-c".into(), self.cmd.clone().into()],
                directory,
                environment: ctx.environment.clone(),
                stdin: stdin_text(self.stdin.as_ref(), self.stdin_add_newline),
            },
            creates,
            removes,
            strip: true,
        })
    }
}

#[async_trait]
impl Module for CommandModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(self.call(ctx)?.check())
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        self.call(ctx)?.apply(ctx).await
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(self.call(ctx)?.recover())
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, _ctx: &TaskContext) -> Advice {
        let line = self
            .cmd
            .clone()
            .unwrap_or_else(|| self.argv.clone().unwrap_or_default().join(" "));
        advice(&line, [self.creates.as_ref(), self.removes.as_ref()])
    }
}

#[async_trait]
impl Module for ShellModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(self.call(ctx)?.check())
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        self.call(ctx)?.apply(ctx).await
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(self.call(ctx)?.recover())
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, _ctx: &TaskContext) -> Advice {
        let line = self.cmd.trim().to_owned();
        advice(&line, [self.creates.as_ref(), self.removes.as_ref()])
    }
}

impl TypedModule for CommandModule {
    const NAME: &'static str = "command";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.command", "ansible.legacy.command"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "done where `creates` or `removes` tells so; otherwise *unknown*: you are asked, unless `done_when` is true. It counts as finished only when sync(2) has brought what it wrote to the disks";
    const CHECK_MODE: &'static str = "predicts where `creates` or `removes` tells that there is nothing to do; otherwise skipped";
    const SUMMARY: &'static str = "Runs a program without a shell, once";
    const EXAMPLE: &'static str = "\
- name: Stop the platform
  command:
    argv: [./deploy_platform.sh, --quiet, --undeploy]
    chdir: \"{{ kaapana_dir }}\"
    creates: /var/lib/kaapana/undeployed
";
    const FREE_FORM: Option<&'static str> = Some("cmd");
}

impl TypedModule for ShellModule {
    const NAME: &'static str = "shell";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.shell", "ansible.legacy.shell"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "as `command`";
    const CHECK_MODE: &'static str = "as `command`";
    const SUMMARY: &'static str = "Runs a command line in a shell, once";
    const EXAMPLE: &'static str = "\
- name: Keep the list of containers
  shell: docker ps --all > containers.txt
  args:
    chdir: \"{{ backup_dir }}\"
    creates: containers.txt
";
    const FREE_FORM: Option<&'static str> = Some("cmd");
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
