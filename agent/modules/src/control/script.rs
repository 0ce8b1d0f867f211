//! `script`: a script beside the playbook, run once.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{Call, advice, places};
use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::host::process::invocation::Invocation;
use crate::host::words;
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Runs a script that comes with the playbook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptModule {
    /// The script and its arguments. A relative path is looked for in `files/` beside the playbook, then
    /// beside it.
    #[serde(alias = "_raw_params")]
    cmd: String,
    /// Program that runs it. Default: what its first line names, else `/bin/sh`.
    #[serde(default)]
    executable: Option<String>,
    /// Directory to run in. Default: the playbook's folder.
    #[serde(default)]
    chdir: Option<PathBuf>,
    /// Path or pattern; where it exists, the script does not run, and an interrupted one counts as done.
    #[serde(default)]
    creates: Option<PathBuf>,
    /// Path or pattern; where it does not exist, the script does not run, and an interrupted one counts as
    /// done.
    #[serde(default)]
    removes: Option<PathBuf>,
}

impl ScriptModule {
    fn script(&self, ctx: &TaskContext) -> Result<(PathBuf, Vec<String>), ControlError> {
        let mut words = words::split(&self.cmd).map_err(ControlError::argument)?;
        if words.is_empty() {
            return Err(ControlError::argument("`cmd` names no script"));
        }
        let named = PathBuf::from(words.remove(0));
        let in_files = ctx.base_dir.join("files").join(&named);
        let path = match in_files.is_file() {
            true => in_files,
            false => ctx.resolve(&named),
        };
        Ok((path, words))
    }

    fn call(&self, ctx: &TaskContext) -> Result<Call, ControlError> {
        let (path, arguments) = self.script(ctx)?;
        let meta = fs::metadata(&path).map_err(|source| ControlError::Start {
            program: path.display().to_string(),
            source,
        })?;
        let runs_itself = meta.permissions().mode() & 0o111 != 0;
        let mut line: Vec<String> = match &self.executable {
            Some(program) => words::split(program).map_err(ControlError::argument)?,
            None if runs_itself => Vec::new(),
            None => interpreter(&path),
        };
        line.push(path.display().to_string());
        line.extend(arguments);
        let program = line.remove(0);
        let (directory, [creates, removes]) = places(
            ctx,
            self.chdir.as_ref(),
            [self.creates.as_ref(), self.removes.as_ref()],
        );
        Ok(Call {
            shown: json!(self.cmd),
            line: self.cmd.clone(),
            invocation: Invocation {
                program: OsString::from(program),
                arguments: line.iter().map(OsString::from).collect(),
                directory,
                environment: ctx.environment.clone(),
                stdin: None,
            },
            creates,
            removes,
            strip: true,
        })
    }
}

/// What a script's first line names.
fn interpreter(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    match first.strip_prefix("#!").map(str::trim) {
        // The kernel takes all behind the program as one argument.
        Some(line) if !line.is_empty() => line
            .splitn(2, char::is_whitespace)
            .map(|word| word.trim().to_owned())
            .collect(),
        _ => vec!["/bin/sh".to_owned()],
    }
}

#[async_trait]
impl Module for ScriptModule {
    fn input_files(&self, ctx: &TaskContext) -> Vec<PathBuf> {
        self.script(ctx).map(|(path, _)| path).into_iter().collect()
    }

    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(self.call(ctx)?.check())
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let call = self.call(ctx)?;
        let outcome = call.apply(ctx).await?;
        // As Ansible, which calls it skipped where `command` is ok.
        Ok(match outcome.changed {
            true => outcome,
            false => outcome.with("skipped", true),
        })
    }

    async fn recover(&self, ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(self.call(ctx)?.recover())
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, _ctx: &TaskContext) -> Advice {
        advice(&self.cmd, [self.creates.as_ref(), self.removes.as_ref()])
    }
}

impl TypedModule for ScriptModule {
    const NAME: &'static str = "script";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.script", "ansible.legacy.script"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "as `command`";
    const CHECK_MODE: &'static str = "as `command`";
    const SUMMARY: &'static str = "Runs a script that comes with the playbook, once";
    const EXAMPLE: &'static str = "\
- name: What the vendor wants done
  id: vendor-script
  script: vendor.sh --quiet
  args:
    creates: /opt/vendor/done
";
    const FREE_FORM: Option<&'static str> = Some("cmd");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_script_runs_by_its_first_line_though_it_is_not_executable() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::create_dir(dir.path().join("files")).expect("made");
        let text = "#!/bin/sh -e\necho \"$1\"; false; echo no\n";
        fs::write(dir.path().join("files/s.sh"), text).expect("written");
        let ctx = TaskContext::for_tests(dir.path());
        let module: ScriptModule =
            serde_json::from_value(json!({"cmd": "s.sh 'one two'"})).expect("arguments");
        let error = module
            .apply(&ctx, &Value::Null)
            .await
            .expect_err("-e ends it");
        let ModuleError::Failed(failure) = error else {
            panic!("{error}")
        };
        assert_eq!(failure.result()["stdout"], "one two");
        assert_eq!(module.input_files(&ctx), [dir.path().join("files/s.sh")]);
    }
}
