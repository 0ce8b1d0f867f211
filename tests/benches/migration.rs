//! The whole migration, by the agent on both routes and by the guide's own commands in a shell script, in
//! turns on fresh sites: `cargo bench --bench migration -- --scale s --scale m`. Prints ratios; tests nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use lab::agent::{self, Agent};
use lab::error::LabError;
use lab::site::{Scale, Site};
use lab::timing::{median, settle, shown, watched};
use serde_json::{Value, json};

/// Times the whole migration against the guide's commands.
#[derive(Parser)]
struct Arguments {
    /// Scales to run.
    #[arg(long, value_enum, ignore_case = true, default_values = ["s", "m"])]
    scale: Vec<Scale>,
    /// Runs of each, in turns.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Leave out the peer that reads every row where the agent does.
    #[arg(long)]
    counts_only: bool,
    /// Print what each task of the agent's runs took.
    #[arg(long)]
    tasks: bool,
    /// Cargo says so to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one scale gave.
#[derive(Default)]
struct Figures {
    counts_only: Vec<Duration>,
    every_row: Vec<Duration>,
    guide: Vec<Duration>,
    direct: Vec<Duration>,
    rerun: Vec<Duration>,
    peak_kib: u64,
}

fn main() -> Result<(), LabError> {
    let arguments = Arguments::parse();
    println!(
        "| scale | runs | by hand, two counts, s | by hand, every row read, s | agent, `route: guide`, s | ratio to counts, every row | agent, `route: direct`, s | ratio to counts, every row | rerun, ms | agent's peak memory, MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for scale in arguments.scale {
        let mut figures = Figures::default();
        for _ in 0..arguments.runs {
            figures.counts_only.push(by_hand(scale, false)?);
            let direct = by_the_agent(scale, "direct", arguments.tasks, &mut figures)?;
            figures.direct.push(direct);
            if !arguments.counts_only {
                figures.every_row.push(by_hand(scale, true)?);
            }
            let guide = by_the_agent(scale, "guide", arguments.tasks, &mut figures)?;
            figures.guide.push(guide);
        }
        let every_row = !figures.every_row.is_empty();
        let ratios = |agent: &[Duration]| {
            let ratio =
                |peer: &[Duration]| median(agent).as_secs_f64() / median(peer).as_secs_f64();
            let counts = format!("{:.2}", ratio(&figures.counts_only));
            match every_row {
                true => format!("{counts}, {:.2}", ratio(&figures.every_row)),
                false => counts,
            }
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} |",
            scale.letter(),
            arguments.runs,
            shown(&figures.counts_only, 1),
            if every_row {
                shown(&figures.every_row, 1)
            } else {
                "–".into()
            },
            shown(&figures.guide, 1),
            ratios(&figures.guide),
            shown(&figures.direct, 1),
            ratios(&figures.direct),
            median(&figures.rerun).as_millis(),
            figures.peak_kib as f64 / 1024.0,
        );
    }
    Ok(())
}

/// `content`: with the reading of every row that the agent's verification is; else with the guide's two
/// counts.
fn by_hand(scale: Scale, content: bool) -> Result<Duration, LabError> {
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

fn by_the_agent(
    scale: Scale,
    route: &str,
    tasks: bool,
    figures: &mut Figures,
) -> Result<Duration, LabError> {
    let site = Site::temporary(scale)?;
    let agent = Agent::on(&site)?;
    agent.set(&json!({"route": route}))?;
    settle()?;
    let run = watched(&mut agent.run())?;
    figures.peak_kib = figures.peak_kib.max(run.peak_kib);
    if tasks {
        for record in agent.journal() {
            let took = record["duration_ms"].as_u64().filter(|took| *took >= 50);
            if let (Some(took), Value::String(task)) = (took, &record["task"]) {
                let name = task.rsplit(" / ").next().unwrap_or(task);
                eprintln!(
                    "{} {route} {:>8.2} {name}",
                    scale.letter(),
                    took as f64 / 1000.0
                );
            }
        }
        eprintln!(
            "{} {route} {:>8.2} in all",
            scale.letter(),
            run.elapsed.as_secs_f64()
        );
    }
    let again = Instant::now();
    let output = Agent::output(&mut agent.run())?;
    figures.rerun.push(again.elapsed());
    if !output.status.success() {
        return Err(LabError::Unexpected("run the agent again".into()));
    }
    Ok(run.elapsed)
}
