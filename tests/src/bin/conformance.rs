//! Makes the expectations of the conformance suite anew: runs its cases under the real ansible-core.

use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
use lab::conformance::{Ansible, Case, cases, folder, left_behind, place, ranks};
use lab::error::{LabError, io_error};

/// Runs the cases whose expectations are missing or stale under ansible-core and keeps what it made of them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cases to run, by name [default: those without fresh expectations]
    names: Vec<String>,
    /// All cases
    #[arg(long)]
    all: bool,
    /// Write the case about the ranks of variables anew
    #[arg(long)]
    ranks: bool,
    /// How many run side by side
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    match refresh(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to {error}");
            ExitCode::FAILURE
        }
    }
}

fn refresh(arguments: &Arguments) -> Result<(), LabError> {
    if arguments.ranks {
        for (name, text) in ranks::files() {
            let path = folder().join("cases").join(name);
            std::fs::write(&path, text).map_err(io_error("write", &path))?;
        }
    }
    let ansible = Ansible::install()?;
    let wanted = |case: &Case| match arguments.names.as_slice() {
        [] => arguments.all || case.expected().is_none(),
        names => names.contains(&case.name),
    };
    let mut left: Vec<Case> = cases()?.into_iter().filter(wanted).collect();
    left.reverse();
    let left = Mutex::new(left);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                let next = || left.lock().ok().and_then(|mut left| left.pop());
                while let Some(case) = next() {
                    match one(&ansible, &case) {
                        Ok(()) => println!("{}", case.name),
                        Err(error) => {
                            eprintln!("{}: failed to {error}", case.name);
                            if let Ok(mut failed) = failed.lock() {
                                failed.push(case.name);
                            }
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() {
        return Ok(());
    }
    Err(LabError::Unexpected(format!("run {}", failed.join(", "))))
}

fn one(ansible: &Ansible, case: &Case) -> Result<(), LabError> {
    let root = place()?;
    let runs = ansible.run(case, root.path())?;
    case.keep(&runs, &left_behind(root.path())?)
}
