//! Renders events and journals for people and programs. Decides nothing.

pub mod diagnostic;
pub mod json;
pub mod plan;
pub mod rollback;
pub mod status;
pub mod style;
pub mod terminal;
pub mod units;
