//! The `kaapana-agent` binary.
fn main() {}
