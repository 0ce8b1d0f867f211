//! Programs of the host that modules of this family work with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::host::error::ModuleError;
use crate::host::process::invocation::{Ended, Invocation, run};
use crate::task::context::TaskContext;

/// Runs a program to its end, whatever its exit code.
///
/// # Errors
/// It cannot be started, or cancelled.
pub(super) async fn look(
    ctx: &TaskContext,
    words: &[&str],
    environment: &[(&str, &str)],
    stdin: Option<&str>,
) -> Result<Ended, ModuleError> {
    let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
    // The output is read here, whatever the language of the host.
    let mut all: BTreeMap<String, String> = ctx.environment.clone();
    all.insert("LC_ALL".into(), "C".into());
    for (name, value) in environment {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    let invocation = Invocation {
        program: OsString::from(program),
        arguments: arguments.iter().map(OsString::from).collect(),
        directory: PathBuf::from("/"),
        environment: all,
        stdin: stdin.map(str::to_owned),
    };
    run(&invocation, ctx).await
}

/// Runs a program that must succeed.
///
/// # Errors
/// As [`look`], and when it ends with another code than zero.
pub(super) async fn must(
    ctx: &TaskContext,
    words: &[&str],
    environment: &[(&str, &str)],
    stdin: Option<&str>,
) -> Result<Ended, ModuleError> {
    let ended = look(ctx, words, environment, stdin).await?;
    Ok(ended.must(&words.join(" "))?)
}
