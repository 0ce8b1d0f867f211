//! The whole migration, by the agent and by the guide's own commands in a shell script, in turns on
//! fresh sites: `cargo bench --bench migration -- --scale s --scale m`. Prints ratios; tests nothing.

use std::io;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use lab::agent::{self, Agent};
use lab::error::{LabError, io_error};
use lab::site::{Scale, Site};
use lab::timing::{median, settle, shown};

/// Times the whole migration against the guide's commands.
#[derive(Parser)]
struct Arguments {
    /// Scales to run.
    #[arg(long, value_enum, ignore_case = true, default_values = ["s", "m"])]
    scale: Vec<Scale>,
    /// Runs of each, in turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one scale gave.
#[derive(Default)]
struct Figures {
    guide: Vec<Duration>,
    same_steps: Vec<Duration>,
    agent: Vec<Duration>,
    rerun: Vec<Duration>,
    peak_kib: u64,
}

fn main() -> Result<(), LabError> {
    let arguments = Arguments::parse();
    println!(
        "| scale | runs | agent, s | the same steps by hand, s | ratio | the guide, counts only, s | ratio | rerun, ms | agent's peak memory, MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for scale in arguments.scale {
        let mut figures = Figures::default();
        for _ in 0..arguments.runs {
            figures.guide.push(by_the_guide(scale, false)?);
            figures.same_steps.push(by_the_guide(scale, true)?);
            by_the_agent(scale, &mut figures)?;
        }
        let agent = median(&figures.agent).as_secs_f64();
        let ratio = |peer: &[Duration]| agent / median(peer).as_secs_f64();
        println!(
            "| {} | {} | {} | {} | {:.2} | {} | {:.2} | {} | {:.1} |",
            scale.letter(),
            arguments.runs,
            shown(&figures.agent, 1),
            shown(&figures.same_steps, 1),
            ratio(&figures.same_steps),
            shown(&figures.guide, 1),
            ratio(&figures.guide),
            median(&figures.rerun).as_millis(),
            figures.peak_kib as f64 / 1024.0,
        );
    }
    Ok(())
}

/// `content`: with the reading of every row that the agent's verification is; else with the guide's two
/// counts.
fn by_the_guide(scale: Scale, content: bool) -> Result<Duration, LabError> {
    let site = Site::temporary(scale)?;
    settle()?;
    let script = agent::workspace().join("tests/baseline/guide.sh");
    let started = Instant::now();
    let mut guide = Command::new("bash");
    guide.arg(script).envs(site.variables());
    if content {
        guide.env("CONTENT", "1");
    }
    lab::tool::run(&mut guide, "follow the guide")?;
    Ok(started.elapsed())
}

fn by_the_agent(scale: Scale, figures: &mut Figures) -> Result<(), LabError> {
    let site = Site::temporary(scale)?;
    let agent = Agent::on(&site)?;
    settle()?;
    let started = Instant::now();
    let mut child = Agent::spawn(&mut agent.run())?;
    let out = child.stdout.take();
    // Read along, so that the agent never waits for us.
    let reader = std::thread::spawn(move || out.map(|mut out| io::copy(&mut out, &mut io::sink())));
    let status = loop {
        figures.peak_kib = figures.peak_kib.max(peak_kib(child.id()).unwrap_or(0));
        if let Some(status) = child
            .try_wait()
            .map_err(io_error("wait for", &agent.binary))?
        {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    figures.agent.push(started.elapsed());
    let _ = reader.join();
    if !status.success() {
        return Err(LabError::Unexpected(format!(
            "migrate with the agent: it ended with {status}"
        )));
    }
    let again = Instant::now();
    let output = Agent::output(&mut agent.run())?;
    figures.rerun.push(again.elapsed());
    if !output.status.success() {
        return Err(LabError::Unexpected("run the agent again".into()));
    }
    Ok(())
}

fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
