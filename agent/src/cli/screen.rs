//! What the process knows about where its output goes.

use std::io::{IsTerminal, stderr, stdout};

use tracing_subscriber::EnvFilter;

use crate::report::style::Style;
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

/// Columns of the terminal, or a width that reads well in a file.
pub(super) fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100)
}

pub(super) fn options(verbose: u8) -> Options {
    Options {
        style: stdout_style(),
        bars: stderr().is_terminal() && stdout().is_terminal(),
        verbose: verbose > 0,
    }
}

/// The agent's own diagnostics go to standard error: warnings, and more with `-vv`.
pub(super) fn start_tracing(verbose: u8) {
    let level = match verbose {
        0 | 1 => "warn",
        2 => "kaapana_agent=debug,warn",
        _ => "debug",
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal() && colour_wanted())
        .finish();
    // Fails only if it was set before, which `main` does not do.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
