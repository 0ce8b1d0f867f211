//! `modules`, `schema`, `completions` and `man`: what the agent says about itself.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;

use super::args::{Cli, Global, ManArgs, ModulesArgs, Output};
use super::exit::Failure;
use super::{Done, screen};
use crate::modules::registry;
use crate::playbook::schema::playbook_schema;
use crate::report::modules;
use crate::source::closest;

const NAME: &str = "kaapana-agent";

pub(super) fn modules(global: &Global, args: &ModulesArgs) -> Done {
    let Some(name) = &args.name else {
        match global.output {
            Output::Text => print!("{}", modules::list(registry::all(), screen::view())),
            Output::Json => {
                for module in registry::all() {
                    println!("{}", modules::json(module));
                }
            }
        }
        return Ok(ExitCode::SUCCESS);
    };
    let module = registry::find(name).ok_or_else(|| unknown(name))?;
    match global.output {
        Output::Text => print!("{}", modules::page(module, screen::view())),
        Output::Json => println!("{}", modules::json(module)),
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(name: &str) -> Failure {
    let names = registry::all()
        .iter()
        .flat_map(|module| std::iter::once(&module.name).chain(module.aliases))
        .copied();
    let help = match closest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`modules` without a name lists them".into(),
    };
    Failure::other(
        "modules::unknown",
        format!("there is no module `{name}`"),
        &help,
    )
}

pub(super) fn schema() -> Done {
    print(format!("{:#}\n", playbook_schema()).as_bytes())
}

pub(super) fn completions(shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    print(&script)
}

pub(super) fn man(args: &ManArgs) -> Done {
    let mut command = Cli::command();
    command.build();
    let command = match &args.command {
        None => command,
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::other(
                "man::unknown_command",
                format!("there is no command `{name}`"),
                "`kaapana-agent --help` lists them",
            )
        })?,
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| {
            Failure::other(
                "agent::output",
                format!("the page could not be made: {error}"),
                "try again",
            )
        })?;
    print(&page)
}

/// A reader that went away (`| head`) has had enough.
fn print(bytes: &[u8]) -> Done {
    let _ = std::io::stdout().write_all(bytes);
    Ok(ExitCode::SUCCESS)
}
