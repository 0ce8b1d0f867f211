//! The cluster's API server, and programs in its pods.

pub mod access;
pub mod bridge;
#[cfg(feature = "kubernetes")]
pub mod client;
#[cfg(not(feature = "kubernetes"))]
#[path = "client_absent.rs"]
pub mod client;
pub mod connect;
pub mod error;
pub mod exec;
pub mod kind;
pub mod pods;
