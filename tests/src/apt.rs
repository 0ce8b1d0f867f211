//! Debian packages that tests need beside Rust, installed where they are missing.

use std::process::Command;

use crate::error::LabError;
use crate::tool;
use crate::workplace::{Lock, stage};

/// Makes sure that a program can be run; installs the package that has it where it cannot.
///
/// # Errors
/// The package cannot be installed.
pub fn ensure(program: &str, package: &str) -> Result<(), LabError> {
    let there = || {
        let mut asked = Command::new(program);
        asked.arg("--version").output().is_ok()
    };
    install(package, there)
}

/// Makes sure that a module can be imported by Debian's Python.
///
/// # Errors
/// The package cannot be installed.
pub fn ensure_python(module: &str, package: &str) -> Result<(), LabError> {
    install(package, || {
        let mut asked = Command::new("/usr/bin/python3");
        let asked = asked.args(["-c", &format!("import {module}")]).output();
        asked.is_ok_and(|output| output.status.success())
    })
}

fn install(package: &str, there: impl Fn() -> bool) -> Result<(), LabError> {
    static APT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = APT.lock();
    if there() {
        return Ok(());
    }
    stage(&format!("apt-get install {package}"), || {
        let _lock = Lock::take("apt")?;
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive").args([
                "-o",
                "DPkg::Lock::Timeout=120",
                "-qy",
            ]);
            tool::run(command.args(arguments), &format!("install {package}"))
        };
        let install = ["install", "--no-install-recommends", package];
        // The package lists may be missing or old; asked first they would cost each machine a minute.
        if apt(&install).is_err() {
            apt(&["update"])?;
            apt(&install)?;
        }
        Ok(())
    })
}
