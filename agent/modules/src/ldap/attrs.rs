//! `ldap_attrs`: an entry has values of attributes, or has them not, or has these and no others.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::directory::{Directory, Entry, cancellable};
use super::effect::{holds, is_secret};
use super::error::{LdapError, RefusedBy};
use super::ldif::{Attribute, Modification, ModificationKind};
use super::login::with_directory;
use super::values::attributes_of;
use crate::host::error::ModuleError;
use crate::redact::HIDDEN;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// What is wanted of the values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttributeState {
    /// They are there.
    #[default]
    Present,
    /// They are not there.
    Absent,
    /// They are all that the attribute has.
    Exact,
}

with_directory! {
    /// Adds or removes values of an entry's attributes, all in one change.
    pub struct LdapAttrs {
        /// Name of the entry, which must be there.
        pub dn: String,
        /// The attributes: a value, or a list of values. An empty list with `exact` removes the attribute.
        pub attributes: BTreeMap<String, Value>,
        /// `present`: the values are there; `absent`: they are not; `exact`: there are no others.
        /// Default: present.
        #[serde(default)]
        pub state: AttributeState,
        /// Put `{0}`, `{1}`, … in front of the values of a list, as the configuration's ordered
        /// attributes want it. Default: false.
        #[serde(default)]
        pub ordered: bool,
    }
}

impl TypedModule for LdapAttrs {
    const NAME: &'static str = "ldap_attrs";
    const ALIASES: &'static [&'static str] = &["community.general.ldap_attrs"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "looks what is there, and changes the rest";
    const CHECK_MODE: &'static str =
        "predicts where the directory can be reached; otherwise skipped";
    const SUMMARY: &'static str = "Adds or removes values of an entry's attributes.";
    const EXAMPLE: &'static str = r#"- name: Retrieve URLs are those that browsers see
  ldap_attrs:
    dn: dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
    attributes: {dcmRemapRetrieveURL: "https://{{ host }}"}
    state: exact
  register: remap   # remap.modlist: [[add|delete|replace, attribute, values]]
"#;
}

impl LdapAttrs {
    fn wanted(&self) -> Result<Vec<Attribute>, LdapError> {
        let mut wanted = attributes_of("attributes", &self.attributes)?;
        for (_, values) in wanted.iter_mut().filter(|_| self.ordered) {
            for (index, value) in values.iter_mut().enumerate() {
                let mut ordered = format!("{{{index}}}").into_bytes();
                ordered.append(value);
                *value = ordered;
            }
        }
        Ok(wanted)
    }

    async fn changes(&self, directory: &Directory) -> Result<Vec<Modification>, LdapError> {
        let wanted = self.wanted()?;
        let entry = directory.read(&self.dn, &[]).await?;
        let entry = entry.ok_or_else(|| LdapError::Refused {
            action: "change",
            dn: self.dn.clone(),
            result: RefusedBy {
                code: 32,
                text: String::new(),
            },
        })?;
        let mut changes = Vec::new();
        for (attribute, values) in wanted {
            changes.extend(self.change(directory, &entry, attribute, values).await?);
        }
        Ok(changes)
    }

    async fn change(
        &self,
        directory: &Directory,
        entry: &Entry,
        attribute: String,
        values: Vec<Vec<u8>>,
    ) -> Result<Option<Modification>, LdapError> {
        let mut missing = Vec::new();
        let mut found = Vec::new();
        for value in values {
            if holds(directory, entry, &attribute, &value).await? {
                found.push(value);
            } else {
                missing.push(value);
            }
        }
        let (kind, values) = match self.state {
            AttributeState::Present => (ModificationKind::Add, missing),
            AttributeState::Absent => (ModificationKind::Delete, found),
            AttributeState::Exact => {
                let held = entry.values(&attribute).len();
                if missing.is_empty() && found.len() == held {
                    return Ok(None);
                }
                found.extend(missing);
                (ModificationKind::Replace, found)
            }
        };
        if values.is_empty() && kind != ModificationKind::Replace {
            return Ok(None);
        }
        Ok(Some(Modification {
            kind,
            attribute,
            values,
        }))
    }
}

/// Returns the changes as Ansible's module returns them.
fn modlist(changes: &[Modification]) -> Value {
    let one = |change: &Modification| {
        let values: Vec<_> = change
            .values
            .iter()
            .map(|value| match is_secret(&change.attribute) {
                true => HIDDEN.to_owned(),
                false => String::from_utf8_lossy(value).into_owned(),
            })
            .collect();
        json!([word(change.kind), change.attribute, values])
    };
    changes.iter().map(one).collect()
}

fn word(kind: ModificationKind) -> &'static str {
    match kind {
        ModificationKind::Add => "add",
        ModificationKind::Delete => "delete",
        ModificationKind::Replace => "replace",
    }
}

#[async_trait]
impl Module for LdapAttrs {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.wanted()?;
        let Some(directory) = self.login().directory_if_there(ctx).await? else {
            return Ok(Plan::CannotPredict);
        };
        let changes = cancellable(&ctx.cancel, self.changes(&directory)).await?;
        if changes.is_empty() {
            return Ok(Plan::InSync);
        }
        let line = |change: &Modification| {
            format!("{} {} of {}", word(change.kind), change.attribute, self.dn)
        };
        Ok(Plan::NeedsChange(changes.iter().map(line).collect()))
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let directory = self.login().directory(ctx).await?;
        let work = async {
            let changes = self.changes(&directory).await?;
            if !changes.is_empty() {
                directory.modify(&self.dn, &changes).await?;
            }
            Ok(changes)
        };
        let changes = cancellable(&ctx.cancel, work).await?;
        Ok(Outcome {
            changed: !changes.is_empty(),
            ..Outcome::ok().with("modlist", modlist(&changes))
        })
    }

    /// The next attempt looks what is there.
    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
