//! What tasks can do: one file a module or close family, and the list of them all.

pub mod context;
pub mod control;
pub mod docker;
pub mod error;
pub mod files;
pub mod ldap;
pub mod module;
pub mod postgres;
pub mod registry;

pub use context::{Progress, ServiceHandle, TaskContext};
pub use error::{ModuleError, ModuleFailure};
pub use module::{
    Kind, Module, ModuleSpec, Outcome, OutputFile, Plan, Recovery, TypedModule, spec_of,
};
