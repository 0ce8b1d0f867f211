//! The harness that changes every declared variable, and a table at the end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use lab::agent::{self, Agent};
use lab::crash::{self, Table};
use lab::error::LabError;
use lab::variables::{Change, Moment, Stand, case_of, changes, declared_by, declared_in};

/// Changes every declared variable of the migration, one at a time: after its end, in its middle, after a
/// rollback. Scale S.
#[derive(Parser)]
#[command(name = "variables", max_term_width = 100)]
struct Arguments {
    /// Seed of ways and kills.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// The case to begin with.
    #[arg(long, default_value_t = 0)]
    case: u64,
    /// The case to end with.
    #[arg(long)]
    to: Option<u64>,
    /// Names the cases and runs none.
    #[arg(long)]
    list: bool,
    /// Only cases of this moment.
    #[arg(long, value_enum)]
    moment: Option<When>,
    /// Only variables that are settled.
    #[arg(long)]
    settled: bool,
    /// Only cases whose name holds this text, or one of them where it is given more than once.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// What the agent would print of the declared variables, from a file.
    #[arg(long, value_name = "FILE")]
    declared: Option<PathBuf>,
    /// Cases side by side.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// After the end.
    End,
    /// Killed in the middle.
    Middle,
    /// After a rollback.
    Rollback,
}

impl When {
    fn is(self, moment: Moment) -> bool {
        match moment {
            Moment::AfterTheEnd => self == Self::End,
            Moment::InTheMiddle(_) => self == Self::Middle,
            Moment::AfterRollback => self == Self::Rollback,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match wanted(&arguments) {
        Ok(wanted) if arguments.list => {
            for change in wanted {
                println!("{}", change.name());
            }
            ExitCode::SUCCESS
        }
        Ok(wanted) => run(&arguments, wanted),
        Err(error) => {
            eprintln!("variables: failed to {error}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(arguments: &Arguments) -> Result<Vec<Change>, LabError> {
    agent::keep_binary()?;
    let declared = match &arguments.declared {
        Some(file) => declared_in(file)?,
        None => declared_by(&Agent::bare()?)?,
    };
    let mut wanted = changes(&declared, arguments.seed);
    let to = arguments.to.unwrap_or(u64::MAX);
    wanted.retain(|change| {
        (arguments.case..=to).contains(&change.number)
            && arguments.moment.is_none_or(|when| when.is(change.moment))
            && (change.variable.settled || !arguments.settled)
    });
    if !arguments.only.is_empty() {
        wanted.retain(|change| {
            let name = change.name();
            arguments.only.iter().any(|text| name.contains(text))
        });
    }
    Ok(wanted)
}

fn run(arguments: &Arguments, wanted: Vec<Change>) -> ExitCode {
    let more = arguments
        .declared
        .as_ref()
        .map_or_else(String::new, |file| {
            format!(" --declared {}", file.display())
        });
    let mut wanted = wanted;
    // Those that can share a site one after the other.
    wanted.sort_by_key(|change| {
        let may_run = !change.variable.settled && !change.other.is_wrong();
        (change.way, change.moment.word(), may_run, change.number)
    });
    let cases = wanted
        .into_iter()
        .map(|change| case_of(change, arguments.seed, &more))
        .collect();
    let verdicts = crash::run_all(cases, arguments.jobs, None);
    Stand::clear();
    let table = Table::of(&verdicts);
    println!("\nseed {}\n{table}", arguments.seed);
    for verdict in verdicts.iter().filter(|verdict| verdict.wrong.is_some()) {
        println!(
            "WRONG {}: {}\n  again: cargo run -p lab --bin variables -- {}",
            verdict.kind, verdict.name, verdict.replay
        );
    }
    println!("{} wrong ends", table.wrong());
    match table.wrong() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
