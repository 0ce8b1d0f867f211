//! The lab: PostgreSQL images, a synthetic Kaapana 0.2 site, and the end-to-end tests of `kaapana-agent`.
//!
//! Nothing in here is a mock. The images hold real servers built from Debian's packages, a site's data
//! directory was filled and cleanly stopped by one of them, and the checks ([`check`], [`server`]) use
//! `psql` and coreutils, so that they share no code with the agent they judge.

pub mod agent;
pub mod apt;
pub mod browser;
pub mod check;
pub mod conformance;
pub mod controller;
pub mod crash;
pub mod directory;
pub mod error;
pub mod evidence;
pub mod fixture;
pub mod golden;
pub mod guest;
pub mod hash;
pub mod hosts;
pub mod images;
pub mod journals;
pub mod kubernetes;
pub mod ldap_update;
pub mod migration;
pub mod portable;
pub mod scene;
pub mod schema;
pub mod server;
pub mod site;
pub mod slapd;
pub mod slow_line;
pub mod timing;
pub mod tool;
pub mod tree;
pub mod variables;
pub mod way;
pub mod workplace;
