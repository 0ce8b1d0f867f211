//! What a task is to whoever runs it, and what modules of every family need for theirs.

use kaapana_host as host;
use kaapana_host::redact;

pub mod arguments;
pub mod ask;
pub mod context;
pub mod module;
pub mod presence;
pub mod prior_state;
pub mod prior_tree;
pub mod rendered;
pub mod target;
pub mod undo;
pub mod undo_plan;
pub mod undo_steps;
