//! Rerunning converged `copy` tasks: the agent with its checkpoint ignored, beside ansible-core.
//!
//! `cargo bench --bench rerun -- --tasks 1000`. Both have run the playbook once before; both look at every
//! file again, and change none. Fails where the agent is not thirty times as fast.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lab::agent::binary;
use lab::conformance::{Ansible, place};

/// The ratio that is promised.
const PROMISED: f64 = 30.0;

#[derive(Debug, Parser)]
struct Arguments {
    /// How many tasks the playbook has
    #[arg(long, default_value_t = 1000)]
    tasks: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let home = place()?;
    let playbook = home.path().join("copies.yaml");
    let mut text = String::from("- hosts: localhost\n  gather_facts: false\n  tasks:\n");
    for number in 0..arguments.tasks {
        writeln!(
            text,
            "    - name: File {number}\n      copy: {{content: \"content {number}\\n\", \
             dest: \"{{{{ root }}}}/{number}\", mode: \"0644\"}}"
        )?;
    }
    fs::write(&playbook, text)?;
    let (ours, theirs) = (home.path().join("agent"), home.path().join("ansible"));
    fs::create_dir(&ours)?;
    fs::create_dir(&theirs)?;
    let agent = |more: &[&str]| -> Result<Duration, Box<dyn Error>> {
        let mut command = Command::new(binary()?);
        command
            .arg("run")
            .arg(&playbook)
            .args(["-e", &root(&ours)])
            .args(more);
        timed(command.arg("--state-dir").arg(home.path().join("state")))
    };
    let ansible = Ansible::install()?;
    let peer = || -> Result<Duration, Box<dyn Error>> {
        let mut command = ansible.command(home.path());
        timed(command.arg(&playbook).args(["-e", &root(&theirs)]))
    };
    let first = agent(&[])?;
    let again = agent(&["--no-checkpoint"])?;
    let done = agent(&[])?;
    peer()?;
    let peer = peer()?;
    let ratio = peer.as_secs_f64() / again.as_secs_f64();
    println!("{} tasks, converged", arguments.tasks);
    println!(
        "agent, first run             {:>9.3} s",
        first.as_secs_f64()
    );
    println!(
        "agent, --no-checkpoint       {:>9.3} s",
        again.as_secs_f64()
    );
    println!("agent, rerun                 {:>9.3} s", done.as_secs_f64());
    println!("ansible-core, rerun          {:>9.3} s", peer.as_secs_f64());
    println!("ratio                        {ratio:>9.1}");
    if ratio < PROMISED {
        return Err(format!("{ratio:.1} is less than {PROMISED}").into());
    }
    Ok(())
}

fn root(folder: &Path) -> String {
    format!("root={}", folder.display())
}

fn timed(command: &mut Command) -> Result<Duration, Box<dyn Error>> {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = begun.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?} ended with {}: {said}", output.status).into());
    }
    Ok(took)
}
