//! The `kaapana-agent` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    kaapana_agent::cli::main()
}
