//! Playbook text -> typed playbook with source positions; variables, templates, validation.
//!
//! [`check`] reads a playbook with everything it includes and reports all mistakes together;
//! [`Templates`] renders its values against a [`Scope`]; [`arguments::coerce`] fits rendered arguments
//! to a module's schema.

pub mod arguments;
pub mod declared;
#[cfg(test)]
mod fixtures;
pub mod load;
pub mod model;
mod scalar;
pub mod schema;
pub mod template;
pub mod validate;
mod yaml;

pub use load::{Catalog, LoadOptions, load};
pub use template::{Scope, Syntax, Templates, is_omitted};
pub use validate::{Checked, Findings, KnownNames, check, mentions, validate};
pub use yaml::{parse, parse_with};
