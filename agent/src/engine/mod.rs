//! Decides what to do with each task and why, and does it: journal, services, handlers, events.
//!
//! Prints nothing and asks nothing; what happens is told through [`crate::event::Event`].

pub mod again;
mod arguments;
mod asks;
pub mod decide;
mod declared;
mod directories;
mod execute;
mod facts;
mod failure;
mod frame;
mod fresh;
mod handlers;
mod host_requirements;
pub mod identity;
pub mod inspect;
mod judge;
mod locked_state;
mod options;
pub mod plan;
mod purge;
mod question;
mod recovery;
mod resolve;
mod rollback;
mod rollback_plan;
mod rounds;
mod run;
mod run_progress;
mod secrets;
mod services;
mod session;
mod site;
mod task;
mod task_log;
mod undo_tasks;
mod unit;
mod unseen;
mod variables;

pub use asks::AsksNothing;
pub use decide::{Decision, decide};
pub use directories::DirectoryRefused;
pub use failure::describe;
pub use host_requirements::root_asked_for;
pub use options::{Host, Operator, RunOptions};
pub use plan::{Plan, PlanAction, PlanEntry};
pub use purge::{PurgeEnd, PurgePlan};
pub use resolve::{Resolved, UnknownTask, find_task};
pub use rollback::RollbackEnd;
pub use rollback_plan::{Accepted, RollbackPlan, UndoAction, UndoEntry};
pub use run::{Engine, RunEnd, RunError, new_state_id, playbook_name, run_id};
pub use site::{SiteView, site_views};
