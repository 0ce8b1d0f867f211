//! The lab: PostgreSQL images, a synthetic Kaapana 0.2 site, and the end-to-end tests of `kaapana-agent`.
