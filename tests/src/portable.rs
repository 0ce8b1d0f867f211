//! The agent as one static file, which runs on any Linux of its architecture, whatever its C library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::agent::build;
use crate::error::LabError;
use crate::workplace::Lock;
use crate::{apt, tool};

/// Linked against musl, with nothing left to be found on the host.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// Names a file to use instead of building one.
const VARIABLE: &str = "KAAPANA_LAB_PORTABLE_AGENT";

/// Returns the portable agent, built once a process, with what building it needs: rustup's standard library
/// for musl, and Debian's `musl-gcc` for the C code in one of the crates. Built in a hurry and without what a
/// debugger reads, as it is sent to every host of every test; a site's is built by `cargo portable`.
///
/// # Errors
/// It does not build.
pub fn portable_agent() -> Result<PathBuf, LabError> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BUILT.get() {
        return Ok(path.clone());
    }
    let path = built(&[], |cargo| {
        cargo
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("CARGO_PROFILE_DEV_STRIP", "true");
    })?;
    Ok(BUILT.get_or_init(|| path).clone())
}

/// Returns the portable agent as `cargo portable` builds it for a site, which takes some minutes.
///
/// # Errors
/// It does not build.
pub fn shipped_agent() -> Result<PathBuf, LabError> {
    built(&["--profile", "dist"], |_| ())
}

fn built(more: &[&str], adjust: impl FnOnce(&mut Command)) -> Result<PathBuf, LabError> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    ensure_musl()?;
    let target = ["--package", "kaapana-agent", "--target", TARGET];
    build(&[&target[..], more].concat(), adjust)
}

/// Installs what a static file is built with, one test at a time: rustup fails where two of it add the same.
fn ensure_musl() -> Result<(), LabError> {
    let _lock = Lock::take("musl")?;
    apt::ensure("musl-gcc", "musl-tools")?;
    let mut installed = Command::new("rustc");
    installed.args(["--print", "target-libdir", "--target", TARGET]);
    let folder = tool::run(&mut installed, "find the standard library for musl")?;
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    tool::run(
        add.args(["target", "add", TARGET]),
        "add the standard library for musl",
    )?;
    Ok(())
}
