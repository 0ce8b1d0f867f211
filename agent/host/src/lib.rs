//! The ground floor: what any task needs from the machine. It knows neither tasks nor the journal.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod context;
pub mod data_directory;
pub mod docker;
pub mod error;
pub mod files;
pub mod glob;
pub mod holders;
pub mod http;
pub mod kubernetes;
pub mod output_file;
pub mod process;
pub mod progress;
pub mod python_json;
pub mod python_regex;
pub mod redact;
pub mod time;
pub mod words;
pub mod worker;
