//! Renders events and journals for people and programs. Decides nothing.

pub mod attempts;
pub mod diagnostic;
pub mod fleet;
pub mod history;
pub mod html;
pub mod json;
pub mod modules;
pub mod plan;
pub mod rollback;
pub mod show;
pub mod status;
pub mod style;
pub mod terminal;
pub mod trace;
pub mod units;
pub mod variables;
