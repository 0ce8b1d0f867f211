//! Playbook text -> typed playbook with source positions; variables, templates, validation.
//!
//! [`check`] reads a playbook with everything it includes and reports all mistakes together;
//! [`Templates`] renders its values against a [`Scope`]; [`arguments::coerce`] fits rendered arguments
//! to a module's schema.

use kaapana_host as host;
use kaapana_host::{python_json, python_regex};
use kaapana_modules as modules;
use kaapana_task as task;

pub mod arguments;
pub mod declared;
#[cfg(test)]
mod fixtures;
pub mod load;
pub mod model;
mod scalar;
pub mod schema;
pub mod source;
pub mod template;
pub mod validate;
pub mod vault;
mod yaml;

pub use load::{Catalog, LoadOptions, load};
pub use template::{Scope, Syntax, Templates, is_omitted};
pub use validate::{Checked, Findings, KnownNames, check, mentions, validate};
pub use yaml::{parse, parse_with};
