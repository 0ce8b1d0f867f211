//! What looking back costs: `status` on a journal of 10,000 tasks, and a run that passes over 1,000
//! finished tasks beside `make` with as many targets that are up to date.
//!
//! `cargo bench --bench audit`; `--tasks N` and `--targets N` change the sizes. Every figure is the
//! median of whole processes, the two sides in turns.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lab::agent;
use lab::error::{LabError, io_error};

#[derive(Parser)]
struct Arguments {
    /// Tasks in the journal that `status` reads.
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// Finished tasks of the rerun, and targets of `make`.
    #[arg(long, default_value_t = 1_000)]
    targets: usize,
    /// Repetitions.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), LabError> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
    let binary = agent::binary()?;

    let large = folder.path().join("large");
    prepare(&large, arguments.tasks)?;
    run(&binary, &large, &["run", "playbooks/many.yaml"])?;
    let journal = large.join("state/many/journal.jsonl");
    let size = fs::metadata(&journal)
        .map_err(io_error("inspect", &journal))?
        .len();
    let mut alone = Vec::new();
    let mut planned = Vec::new();
    for _ in 0..arguments.runs {
        alone.push(run(&binary, &large, &["status"])?);
        planned.push(run(&binary, &large, &["status", "playbooks/many.yaml"])?);
    }
    println!(
        "status, journal of {} tasks ({} MiB): {}; with the playbook's plan: {}",
        arguments.tasks,
        size >> 20,
        shown(&mut alone),
        shown(&mut planned)
    );

    let small = folder.path().join("small");
    prepare(&small, arguments.targets)?;
    run(&binary, &small, &["run", "playbooks/many.yaml"])?;
    make(&small)?;
    let (mut reruns, mut makes) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        reruns.push(run(&binary, &small, &["run", "playbooks/many.yaml"])?);
        makes.push(make(&small)?);
    }
    let (rerun, peer) = (shown(&mut reruns), shown(&mut makes));
    let ratio = median(&mut reruns).as_secs_f64() / median(&mut makes).as_secs_f64();
    println!(
        "rerun over {} finished tasks: {rerun}; make with as many targets: {peer}; ratio {ratio:.2}",
        arguments.targets
    );
    Ok(())
}

/// A playbook and a makefile that make the same small files.
fn prepare(folder: &Path, count: usize) -> Result<(), LabError> {
    for name in ["playbooks", "from", "made", "by_make"] {
        let path = folder.join(name);
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
    }
    let mut playbook = String::from("- name: Many\n  hosts: localhost\n  tasks:\n");
    let targets: Vec<String> = (0..count).map(|n| format!("by_make/{n}")).collect();
    let mut makefile = format!("all: {}\n", targets.join(" "));
    for n in 0..count {
        let _ = writeln!(
            playbook,
            "    - name: Make file {n}\n      id: file-{n}\n      file: {{path: {}/made/{n}, state: directory}}",
            folder.display()
        );
        let _ = writeln!(makefile, "by_make/{n}: from/{n}\n\tcp $< $@");
        let path = folder.join(format!("from/{n}"));
        fs::write(&path, "x").map_err(io_error("write", &path))?;
    }
    for (name, text) in [("playbooks/many.yaml", playbook), ("Makefile", makefile)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(io_error("write", &path))?;
    }
    Ok(())
}

fn run(binary: &Path, folder: &Path, words: &[&str]) -> Result<Duration, LabError> {
    let mut command = Command::new(binary);
    command.args(words).env_remove("KAAPANA_AGENT_STATE");
    timed(command.current_dir(folder))
}

fn make(folder: &Path) -> Result<Duration, LabError> {
    timed(Command::new("make").arg("-s").current_dir(folder))
}

fn timed(command: &mut Command) -> Result<Duration, LabError> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let since = Instant::now();
    let status = command
        .status()
        .map_err(io_error("start", Path::new("a program")))?;
    let took = since.elapsed();
    if !status.success() {
        return Err(LabError::Unexpected(format!(
            "{command:?} ended with {status}"
        )));
    }
    Ok(took)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn shown(times: &mut [Duration]) -> String {
    let middle = median(times).as_secs_f64() * 1e3;
    let (least, most) = (
        times[0].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
    );
    format!("{middle:.1} ms [{least:.1} to {most:.1}]")
}
