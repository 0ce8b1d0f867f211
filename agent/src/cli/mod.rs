//! Commands: turn arguments and environment into calls of the library, and results into exit codes.

mod ansible_module;
mod args;
mod confirm;
mod door;
mod exit;
mod extra_vars;
mod fleet;
mod history;
mod locate;
mod on_host;
mod plan;
mod present;
mod prompts;
mod purge;
mod reference;
mod report;
mod resolve;
mod rollback;
mod run;
mod screen;
mod show;
mod state;
mod status;
mod variables;
mod vault;

use std::process::ExitCode;

use clap::Parser;

pub use args::Cli;
use args::Command;
use exit::Failure;

use crate::host::worker;
use crate::source;
use crate::state::failure_point;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(arguments) = ansible_module::called_by_ansible() {
        return ansible_module::module(arguments);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not mistakes. A closed terminal is nobody's problem.
            let _ = error.print();
            return if error.use_stderr() {
                exit::INVALID.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if let Ok(folder) = std::env::current_dir() {
        source::show_from(folder);
    }
    if let Err(failure) = screen::start_tracing(&cli) {
        return failure.report(&cli.global);
    }
    let result = arm_test_points().and_then(|()| match &cli.command {
        Command::Run(args) => run::run(&cli.global, args),
        Command::Attach(args) => fleet::attach(&cli.global, args),
        Command::Stop(args) => fleet::stop(&cli.global, args),
        Command::OnHost(args) => on_host::on_host(&cli.global, args),
        Command::Plan(args) => plan::plan(&cli.global, args),
        Command::Status(args) => status::status(&cli.global, args),
        Command::History(args) => history::history(&cli.global, args),
        Command::Show(args) => show::show(&cli.global, args),
        Command::Report(args) => report::report(&cli.global, args),
        Command::Resolve(args) => resolve::resolve(&cli.global, args),
        Command::Rollback(args) => rollback::rollback(&cli.global, args),
        Command::Purge(args) => purge::purge(&cli.global, args),
        Command::State(args) => state::state(&cli.global, args),
        Command::Variables(args) => variables::variables(&cli.global, args),
        Command::Modules(args) => reference::modules(&cli.global, args),
        Command::Schema => reference::schema(),
        Command::Completions(args) => reference::completions(args.shell),
        Command::Man(args) => reference::man(args),
    });
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(&cli.global),
    }
}

/// Sets the failure points that a test asks for. Never silently: somebody may have left them on.
fn arm_test_points() -> Result<(), Failure> {
    let Ok(points) = std::env::var(failure_point::VARIABLE) else {
        return Ok(());
    };
    let variable = failure_point::VARIABLE;
    let (workers, stops): (Vec<&str>, Vec<&str>) = points
        .split(';')
        .map(str::trim)
        .partition(|point| point.starts_with("panic:"));
    let workers = workers
        .iter()
        .map(|point| point["panic:".len()..].to_owned());
    let armed = worker::arm(workers.collect()).and_then(|()| match stops.is_empty() {
        true => Ok(()),
        false => failure_point::arm(&stops.join(";")),
    });
    armed.map_err(|why| {
        Failure::other(
            "agent::test_points",
            format!("failed to set the failure points of {variable}: {why}"),
            "unset the variable: it is for tests alone",
        )
    })?;
    eprintln!("warning: {variable} is set: this process stops itself at {points}");
    Ok(())
}

type Done = Result<ExitCode, Failure>;
