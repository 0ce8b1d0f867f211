//! `ldap_entry`: an entry is there, or is not.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::directory::{Directory, Scope, cancellable};
use super::dn;
use super::error::LdapError;
use super::ldif::Attribute;
use super::login::with_directory;
use super::values::attributes_of;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Whether an entry is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryState {
    /// It is.
    #[default]
    Present,
    /// It is not.
    Absent,
}

/// One name or several.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Names {
    /// None.
    #[default]
    None,
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

with_directory! {
    /// Adds or removes an entry. Attributes of one that is there already are left alone; for these there
    /// is `ldap_attrs`.
    pub struct LdapEntry {
        /// Name of the entry.
        pub dn: String,
        /// `present` or `absent`. Default: present.
        #[serde(default)]
        pub state: EntryState,
        /// Classes of a new entry, one or a list.
        #[serde(default, rename = "objectClass")]
        pub object_class: Names,
        /// Attributes of a new entry: a value, or a list of values.
        #[serde(default)]
        pub attributes: BTreeMap<String, Value>,
        /// With `absent`: remove what is below it too. Default: false.
        #[serde(default)]
        pub recursive: bool,
    }
}

impl TypedModule for LdapEntry {
    const NAME: &'static str = "ldap_entry";
    const ALIASES: &'static [&'static str] = &["community.general.ldap_entry"];
    const KIND: Kind = Kind::Converging;
    const AFTER_INTERRUPTION: &'static str = "looks whether it is there";
    const CHECK_MODE: &'static str =
        "predicts where the directory can be reached; otherwise skipped";
    const SUMMARY: &'static str = "Adds or removes an entry of a directory.";
    const EXAMPLE: &'static str = r#"- name: The role auth is there
  ldap_entry:
    dn: cn=auth,ou=users,dc=dcm4che,dc=org
    objectClass: groupOfNames
    attributes: {cn: auth, member: "uid=user,ou=users,dc=dcm4che,dc=org"}
"#;
}

impl LdapEntry {
    fn attributes(&self) -> Result<Vec<Attribute>, LdapError> {
        let mut attributes = attributes_of("attributes", &self.attributes)?;
        let classes: Vec<Vec<u8>> = match &self.object_class {
            Names::None => Vec::new(),
            Names::One(name) => vec![name.clone().into_bytes()],
            Names::Several(names) => names.iter().map(|n| n.clone().into_bytes()).collect(),
        };
        if !classes.is_empty() {
            attributes.insert(0, ("objectClass".into(), classes));
        }
        let has_class = |(name, _): &Attribute| name.eq_ignore_ascii_case("objectClass");
        if !attributes.iter().any(has_class) {
            return Err(LdapError::argument(
                "objectClass",
                "is missing: an entry cannot be added without a class",
            ));
        }
        Ok(attributes)
    }

    /// Removes the entry, with what is below it where that is wanted: the deepest first.
    async fn remove(&self, directory: &Directory) -> Result<(), LdapError> {
        let mut names = vec![self.dn.clone()];
        if self.recursive {
            let entries = directory
                .search(&self.dn, Scope::Subtree, "(objectClass=*)", &["1.1".into()])
                .await?;
            names = entries.into_iter().map(|entry| entry.dn).collect();
            names.sort_by_key(|name| std::cmp::Reverse(dn::depth(name)));
        }
        for name in names {
            directory.delete(&name).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Module for LdapEntry {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        if self.state == EntryState::Present {
            self.attributes()?;
        }
        let Some(directory) = self.login().directory_if_there(ctx).await? else {
            return Ok(Plan::CannotPredict);
        };
        let found = cancellable(&ctx.cancel, directory.read(&self.dn, &["1.1".into()])).await?;
        Ok(match (self.state, found.is_some()) {
            (EntryState::Present, false) => Plan::NeedsChange(vec![format!("add {}", self.dn)]),
            (EntryState::Absent, true) => Plan::NeedsChange(vec![format!("remove {}", self.dn)]),
            _ => Plan::InSync,
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let directory = self.login().directory(ctx).await?;
        let work = async {
            let found = directory.read(&self.dn, &["1.1".into()]).await?;
            match (self.state, found.is_some()) {
                (EntryState::Present, false) => {
                    directory.add(&self.dn, &self.attributes()?).await?;
                }
                (EntryState::Absent, true) => self.remove(&directory).await?,
                _ => return Ok(false),
            }
            Ok(true)
        };
        let changed = cancellable(&ctx.cancel, work).await?;
        Ok(Outcome {
            changed,
            ..Outcome::ok().with("dn", self.dn.as_str())
        })
    }

    /// The next attempt looks what is there.
    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
