//! `state: present` and `absent`, of modules that know no other.

use schemars::JsonSchema;
use serde::Deserialize;

/// Whether something shall be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It shall.
    #[default]
    Present,
    /// It shall not.
    Absent,
}

impl Presence {
    /// As a playbook writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Absent => "absent",
        }
    }
}
