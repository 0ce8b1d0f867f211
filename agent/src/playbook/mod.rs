//! Playbook text -> typed playbook with source positions; variables, templates, validation.

pub mod model;
