//! What the process knows about where its output goes.

use std::fs::OpenOptions;
use std::io::{IsTerminal, stderr, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::args::{Cli, Command};
use super::exit::Failure;
use crate::report::style::{Style, View};
use crate::report::terminal::Options;

fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

pub(super) fn stdout_style() -> Style {
    Style {
        colour: stdout().is_terminal() && colour_wanted(),
    }
}

pub(super) fn stderr_style() -> Style {
    Style {
        colour: stderr().is_terminal() && colour_wanted(),
    }
}

/// Columns of the terminal that standard output is; `None` where it is none.
fn columns() -> Option<usize> {
    let (_, columns) = console::Term::stdout().size_checked()?;
    Some(usize::from(columns))
}

/// How standard output is looked at.
pub(super) fn view() -> View {
    View {
        style: stdout_style(),
        width: columns(),
    }
}

/// Columns of the terminal, or a width that reads well in a file.
pub(super) fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .or_else(columns)
        .unwrap_or(100)
}

pub(super) fn options(verbose: u8) -> Options {
    Options {
        view: view(),
        bars: stderr().is_terminal() && stdout().is_terminal(),
        verbose: verbose > 0,
    }
}

/// The agent's own diagnostics: warnings to standard error, and more with `-vv`; all of them into
/// `--log-file`; and what a run does into the journal of systemd, on hosts that have it.
pub(super) fn start_tracing(cli: &Cli) -> Result<(), Failure> {
    let level = match cli.global.verbose {
        0 | 1 => "warn,kaapana_agent::run=off",
        2 => "kaapana_agent=debug,warn",
        _ => "debug",
    };
    let shown = fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal() && colour_wanted())
        .with_filter(EnvFilter::new(level));
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![Box::new(shown)];
    if let Some(path) = &cli.global.log_file {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                Failure::other(
                    "arguments::log_file",
                    format!("failed to open the log file {}: {error}", path.display()),
                    "name a file in a folder that is there and can be written",
                )
            })?;
        layers.push(Box::new(
            fmt::layer()
                .with_writer(Mutex::new(file))
                .with_ansi(false)
                .with_filter(EnvFilter::new("kaapana_agent=trace,info")),
        ));
    }
    // No socket, no journal of systemd: nothing to say about it.
    if matches!(cli.command, Command::Run(_))
        && let Ok(journald) = tracing_journald::layer()
    {
        layers.push(Box::new(
            journald
                .with_syslog_identifier("kaapana-agent".into())
                .with_filter(EnvFilter::new("kaapana_agent=info,warn")),
        ));
    }
    // Fails only if it was set before, which `main` does not do.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layers));
    Ok(())
}
