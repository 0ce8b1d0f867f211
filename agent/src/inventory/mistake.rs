//! Mistakes that several kinds of sources share.

use super::names::Wrong;
use crate::source::{Location, Problem};

/// A mistake whose message depends on the text.
#[derive(Clone, Copy)]
pub(super) enum Mistake {
    /// A host's name, range or port is not written as one.
    HostName,
    /// A group's name cannot be one.
    GroupName,
    /// A variable's name is none that a template could use.
    VariableName,
    /// `ansible_group_priority` is no whole number.
    Priority,
    /// A value of an INI inventory is a number or dictionary that cannot be kept.
    Value,
    /// A line of an INI inventory is not written as its section's lines are.
    Syntax,
    /// A section of an INI inventory is not closed or of an unknown kind.
    Section,
    /// A variable is set twice in one place of an INI inventory.
    Twice,
}

impl Mistake {
    /// Stable code.
    fn code(self) -> &'static str {
        match self {
            Self::HostName => "inventory::host_name",
            Self::GroupName => "inventory::group_name",
            Self::VariableName => "inventory::variable_name",
            Self::Priority => "inventory::priority",
            Self::Value => "inventory::value",
            Self::Syntax => "inventory::syntax",
            Self::Section => "inventory::section",
            Self::Twice => "inventory::twice",
        }
    }

    /// Makes a problem of it.
    pub fn at(
        self,
        at: &Location,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Problem {
        Problem::new(self.code(), at, message, label)
    }

    /// Makes a problem of a name that is wrong.
    pub fn of(self, at: &Location, wrong: Wrong) -> Problem {
        self.at(at, wrong.what, "here").with_help(wrong.help)
    }
}
