//! The library behind the `kaapana-agent` binary.
//!
//! Rooms, and who may know whom, are described in `agent/README.md`: `cli` knows everything, `engine`
//! knows `playbook`, `modules` and `state`; `playbook` and `state` know nothing of each other.

pub mod cli;
pub mod engine;
pub mod event;
pub mod inventory;
pub mod modules;
pub mod playbook;
pub mod redact;
pub mod report;
pub mod source;
pub mod state;
