//! `variables`: what a playbook lets its users set.

use std::process::ExitCode;

use super::args::{Global, Output, VariablesArgs};
use super::exit::Failure;
use super::vault::vault;
use super::{Done, screen};
use crate::playbook::{LoadOptions, load};
use crate::report::variables;

pub(super) fn variables(global: &Global, args: &VariablesArgs) -> Done {
    let options = LoadOptions {
        vault: vault(global)?,
        ..LoadOptions::default()
    };
    let playbook = load(&args.playbook, &options).map_err(Failure::Problems)?;
    match global.output {
        Output::Text => print!("{}", variables::text(&playbook, screen::stdout_style())),
        Output::Json => println!("{}", variables::json(&playbook)),
    }
    Ok(ExitCode::SUCCESS)
}
