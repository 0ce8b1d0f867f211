//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs a Kaapana migration from a YAML playbook, each task once, with a journal that proves it.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Folder that holds the state [default: `state/` in the folder above the playbook's]
    #[arg(long, global = true, value_name = "DIR", env = "KAAPANA_AGENT_STATE")]
    pub state_dir: Option<PathBuf>,
    /// Print for people or, one JSON object a line, for programs
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Show what tasks print; twice and more: also what the agent itself does
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a playbook; what the journal proves done is passed over
    Run(RunArgs),
    /// Show what a run would do with each task and why, without doing anything
    Plan(PlaybookArgs),
    /// Show where each task stands
    Status(StatusArgs),
    /// Answer what the agent cannot know: was an interrupted or changed task done?
    Resolve(ResolveArgs),
    /// Work on the state directory itself
    State(StateArgs),
}

#[derive(Debug, Args)]
pub(super) struct PlaybookArgs {
    /// The playbook
    pub playbook: PathBuf,
    /// Set variables: `key=value`, YAML or JSON, or @FILE; may be given often, the last wins
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS")]
    pub extra_vars: Vec<String>,
    /// Only tasks with one of these tags (comma-separated)
    #[arg(short, long, value_name = "TAGS", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Not the tasks with one of these tags
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    pub skip_tags: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub playbook: PlaybookArgs,
    /// Predict what would change; change nothing
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Only check that the playbook is well-formed
    #[arg(long)]
    pub syntax_check: bool,
    /// Confirm every `pause` that asks for it; the journal notes that nobody was asked
    #[arg(short, long)]
    pub yes: bool,
    /// Run this task again although it is done, as `resolve TASK --redo` before the run; may be given often
    #[arg(long, value_name = "TASK")]
    pub redo: Vec<String>,
    /// Why; kept in the journal
    #[arg(long, value_name = "TEXT", requires = "redo")]
    pub reason: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The playbook [default: all that have a state]
    pub playbook: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("answer").required(true).args(["done", "redo"])))]
pub(super) struct ResolveArgs {
    #[command(flatten)]
    pub playbook: PlaybookArgs,
    /// The task, as `plan` or `status` shows it
    pub task: String,
    /// Its effect is there, whole: pass over it from now on
    #[arg(long)]
    pub done: bool,
    /// Its effect is not there, or may be repeated: run it again
    #[arg(long)]
    pub redo: bool,
    /// Why you know; kept in the journal
    #[arg(long)]
    pub reason: String,
}

#[derive(Debug, Args)]
pub(super) struct StateArgs {
    #[command(subcommand)]
    pub command: StateCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Prove that no record was changed, removed or inserted, and that the outputs are what was recorded
    Verify(VerifyArgs),
    /// Say that this copy of a state (restored, or moved here) is now the only one, and goes on
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub(super) struct AdoptArgs {
    /// The playbook
    pub playbook: PathBuf,
    /// Why you know that no other copy goes on; kept in the journal
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The playbook [default: all that have a state]
    pub playbook: Option<PathBuf>,
    /// Do not read the files that tasks made
    #[arg(long)]
    pub no_outputs: bool,
}
