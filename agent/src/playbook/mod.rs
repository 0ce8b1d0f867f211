//! Playbook text -> typed playbook with source positions; variables, templates, validation.

pub mod arguments;
#[cfg(test)]
mod fixtures;
pub mod load;
pub mod model;
mod scalar;
pub mod template;
pub mod validate;
mod yaml;
