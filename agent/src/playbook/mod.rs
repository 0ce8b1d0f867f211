//! Playbook text -> typed playbook with source positions; variables, templates, validation.

pub mod arguments;
pub mod model;
mod scalar;
pub mod template;
mod yaml;
