//! The library behind the `kaapana-agent` binary.
