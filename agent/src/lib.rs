//! The library behind the `kaapana-agent` binary.
//!
//! Rooms, and who may know whom, are described in `agent/README.md`: `cli` knows everything, `engine`
//! knows `playbook`, `modules` and `state`; `playbook` and `state` know nothing of each other.

pub mod cli;
pub mod engine;
pub mod event;
pub mod inventory;
pub mod remote;
pub mod report;

pub use kaapana_host as host;
pub use kaapana_host::redact;
pub use kaapana_journal as state;
pub use kaapana_language as playbook;
pub use kaapana_language::{source, vault};
pub use kaapana_modules as modules;
pub use kaapana_task as task;
