//! The Docker Engine of the host, and the containers of services.

pub mod archive;
pub mod arguments;
pub mod client;
pub mod error;
pub mod exec;
pub mod lifecycle;
pub mod main_process;
pub mod served;
pub mod service;
pub mod spec;
pub mod watch;
