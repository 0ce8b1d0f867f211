//! The command line.

use std::path::PathBuf;

use super::door;
use super::on_host::OnHostArgs;
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
    #[arg(long, global = true, value_name = "DIR", env = "KAAPANA_AGENT_STATE", value_parser = door::path())]
    pub state_dir: Option<PathBuf>,
    /// File with the password of what is encrypted with ansible-vault; a program is run, and prints it. May be
    /// given often
    #[arg(
        long,
        alias = "vault-pass-file",
        global = true,
        value_name = "FILE",
        env = "ANSIBLE_VAULT_PASSWORD_FILE",
        value_parser = door::path()
    )]
    pub vault_password_file: Vec<PathBuf>,
    /// Ask for that password
    #[arg(short = 'J', long, alias = "ask-vault-password", global = true)]
    pub ask_vault_pass: bool,
    /// Print for people or, one JSON object a line, for programs
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Show what tasks print; twice and more: also what the agent itself does
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Also append what the agent does to this file, in full detail
    #[arg(long, global = true, value_name = "FILE", value_parser = door::path())]
    pub log_file: Option<PathBuf>,
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
    /// Follow the newest run of a playbook on other hosts, from its beginning
    Attach(FleetArgs),
    /// End the run of a playbook on other hosts cleanly
    Stop(StopArgs),
    /// What a controller starts on a host
    #[command(hide = true)]
    OnHost(OnHostArgs),
    /// Show what a run would do with each task and why, without doing anything
    Plan(PlaybookArgs),
    /// Show where each task stands, and what a later run would do
    Status(StatusArgs),
    /// Show all runs: outcome, who, from where, which playbook text
    History(HistoryArgs),
    /// Show one task: what it was given, how it ended, what it depended on, and whether that has changed
    Show(ShowArgs),
    /// Write a report of the migration: one HTML file that needs nothing else
    Report(ReportArgs),
    /// Answer what the agent cannot know: was an interrupted or changed task done?
    Resolve(ResolveArgs),
    /// Take back what a playbook did, newest first; what it made goes into quarantine
    Rollback(RollbackArgs),
    /// Delete for good what lies in quarantine, after a run or a rollback that came to its end
    Purge(PurgeArgs),
    /// Work on the state directory itself
    State(StateArgs),
    /// List the variables that a playbook declares: what a site can set
    Variables(VariablesArgs),
    /// Explain what tasks can do: all modules, or one with its arguments
    Modules(ModulesArgs),
    /// Print the JSON Schema of playbooks, for editors that complete and check YAML
    Schema,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(super) struct PlaybookArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// Set variables: `key=value`, YAML or JSON, or @FILE; may be given often, the last wins
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS", value_parser = door::variables())]
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
    /// Show how files change, line by line
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Look again at what is done and describes a state, or only looks; what must not run twice stays done
    #[arg(long)]
    pub no_checkpoint: bool,
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
    #[command(flatten)]
    pub hosts: HostsArgs,
}

/// Other hosts, and how they are reached.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Other hosts")]
pub(super) struct HostsArgs {
    /// Inventory: a file (YAML or INI), a folder of them, or hosts with a comma: `a,b,`; may be given often
    #[arg(short, long = "inventory", value_name = "INVENTORY", value_parser = door::inventory())]
    pub inventory: Vec<String>,
    /// Only these hosts: a pattern, as `hosts` takes it
    #[arg(short, long, value_name = "PATTERN", requires = "inventory")]
    pub limit: Option<String>,
    /// Hosts side by side
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub forks: u16,
    /// Be root there, by sudo
    #[arg(short, long = "become", requires = "inventory")]
    pub r#become: bool,
    /// Ask for sudo's password, once for all hosts
    #[arg(short = 'K', long, requires = "inventory")]
    pub ask_become_pass: bool,
    /// The agent to put there [default: this one]
    #[arg(long, value_name = "FILE", requires = "inventory", value_parser = door::path())]
    pub agent_binary: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct FleetArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    #[command(flatten)]
    pub hosts: HostsArgs,
}

#[derive(Debug, Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    pub fleet: FleetArgs,
    /// Not at once, but behind the task that is at work
    #[arg(long)]
    pub after_task: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The playbook [default: all that have a state]
    #[arg(value_parser = door::path())]
    pub playbook: Option<PathBuf>,
    /// Variables for telling what a later run would do [default: those of the last run]
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS", value_parser = door::variables())]
    pub extra_vars: Vec<String>,
    #[command(flatten)]
    pub hosts: HostsArgs,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The playbook [default: all that have a state]
    #[arg(value_parser = door::path())]
    pub playbook: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// The task, as `status` shows it, or the end of it
    pub task: String,
    /// Variables for comparing with the present playbook [default: those of the last run]
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS", value_parser = door::variables())]
    pub extra_vars: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// The file to write; one that is there is replaced. `-` is standard output
    #[arg(short, long = "out", value_name = "FILE", value_parser = door::path_or_dash())]
    pub out: PathBuf,
    /// Variables for telling what is still to come [default: those of the last run]
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS", value_parser = door::variables())]
    pub extra_vars: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ModulesArgs {
    /// The module, by its short or full name [default: a list of all]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write the page of this command [default: the main page]
    pub command: Option<String>,
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
    #[command(flatten)]
    pub hosts: HostsArgs,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// Set variables, as for `run`
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS", value_parser = door::variables())]
    pub extra_vars: Vec<String>,
    /// Show what would be done; undo nothing
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Confirm every question; the journal notes that nobody was asked
    #[arg(short, long)]
    pub yes: bool,
    /// A task that the agent cannot undo and that you took back by hand; may be given often
    #[arg(long, value_name = "TASK", requires = "reason")]
    pub accept: Vec<String>,
    /// Why you know; kept in the journal
    #[arg(long, requires = "accept")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub hosts: HostsArgs,
}

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// Set variables, as for `run`
    #[arg(short = 'e', long = "extra-vars", value_name = "VARS", value_parser = door::variables())]
    pub extra_vars: Vec<String>,
    /// Show what would be deleted; delete nothing
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Confirm; the journal notes that nobody was asked
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    pub hosts: HostsArgs,
}

#[derive(Debug, Args)]
pub(super) struct VariablesArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
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
    /// Write one archive to hand to an auditor: journal, logs, hashes of everything
    Export(ExportArgs),
    /// Say that this copy of a state (restored, or moved here) is now the only one, and goes on
    Adopt(AdoptArgs),
}

#[derive(Debug, Args)]
pub(super) struct AdoptArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// Why you know that no other copy goes on; kept in the journal
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// A site that is marked as another state's, and goes on with this one; those that the journal knows are
    /// adopted without
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The playbook [default: all that have a state]
    #[arg(value_parser = door::path())]
    pub playbook: Option<PathBuf>,
    /// Do not read the files that tasks made
    #[arg(long)]
    pub no_outputs: bool,
    /// Prove that the record with this hash is there: nothing before it was cut off or changed
    #[arg(long, value_name = "HASH", requires = "playbook")]
    pub head: Option<String>,
    /// Verify an archive made by `state export` in place of the state directory
    #[arg(long, value_name = "FILE", conflicts_with_all = ["playbook", "no_outputs", "head"], value_parser = door::path())]
    pub archive: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The playbook
    #[arg(value_parser = door::path())]
    pub playbook: PathBuf,
    /// The tar file to write; must not be there yet
    #[arg(short, long = "out", value_name = "FILE", value_parser = door::path())]
    pub out: PathBuf,
}
