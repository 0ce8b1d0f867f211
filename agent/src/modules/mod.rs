//! What tasks can do: one file a module or close family, and the list of them all.

pub mod context;
pub mod control;
pub mod docker;
pub mod error;
pub mod files;
pub mod kubernetes;
pub mod ldap;
pub mod module;
pub mod postgres;
pub mod presence;
pub mod reference;
pub mod registry;
pub mod system;
pub mod undo;
mod undo_plan;
mod undo_steps;
pub mod web;
pub mod worker;

pub use context::{Progress, ServiceHandle, TaskContext};
pub use error::{ModuleError, ModuleFailure};
pub use module::{
    Advice, Kind, Module, ModuleSpec, Outcome, OutputFile, Plan, Recovery, TypedModule, spec_of,
};
pub use undo::{Effort, Step, Undo};
pub use undo_plan::{View, plan_steps};
pub use undo_steps::{Planned, Taken, apply_steps, steps_taken};
