//! Programs that are run, and what they print.

pub mod capture;
pub mod error;
pub mod invocation;
