//! Commands: turn arguments and environment into calls of the library, and results into exit codes.

mod args;
mod confirm;
mod exit;
mod extra_vars;
mod history;
mod locate;
mod plan;
mod present;
mod reference;
mod report;
mod resolve;
mod run;
mod screen;
mod show;
mod state;
mod status;

use std::process::ExitCode;

use clap::Parser;

pub use args::Cli;
use args::Command;
use exit::Failure;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
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
    if let Err(failure) = screen::start_tracing(&cli) {
        return failure.report(&cli.global);
    }
    let result = match &cli.command {
        Command::Run(args) => run::run(&cli.global, args),
        Command::Plan(args) => plan::plan(&cli.global, args),
        Command::Status(args) => status::status(&cli.global, args),
        Command::History(args) => history::history(&cli.global, args),
        Command::Show(args) => show::show(&cli.global, args),
        Command::Report(args) => report::report(&cli.global, args),
        Command::Resolve(args) => resolve::resolve(&cli.global, args),
        Command::State(args) => state::state(&cli.global, args),
        Command::Modules(args) => reference::modules(&cli.global, args),
        Command::Schema => reference::schema(),
        Command::Completions(args) => reference::completions(args.shell),
        Command::Man(args) => reference::man(args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(&cli.global),
    }
}

type Done = Result<ExitCode, Failure>;
