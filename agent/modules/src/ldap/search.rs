//! `ldap_search`: entries of a directory.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::directory::{Entry, Scope, cancellable};
use super::error::LdapError;
use super::login::with_directory;
use super::values::entry_to_json;
use crate::host::error::ModuleError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Entries that a result may hold: it goes into the journal, and a directory does not belong there.
const ENTRY_LIMIT: usize = 10_000;

/// Which entries are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchScope {
    /// `dn` itself.
    Base,
    /// The entries right below `dn`.
    OneLevel,
    /// `dn` and all entries below it.
    Subordinate,
    /// All entries below `dn`.
    Children,
}

impl SearchScope {
    fn base() -> Self {
        Self::Base
    }
}

fn any_entry() -> String {
    "(objectClass=*)".to_owned()
}

with_directory! {
    /// Returns entries of a directory.
    pub struct LdapSearch {
        /// Where to look. Empty: the server's own entry.
        pub dn: String,
        /// How far: `base`, `onelevel`, `subordinate` (with `dn`) or `children`. Default: `base`.
        #[serde(default = "SearchScope::base")]
        pub scope: SearchScope,
        /// Which entries (RFC 4515). Default: `(objectClass=*)`, all.
        #[serde(default = "any_entry")]
        pub filter: String,
        /// Attributes that are returned; `+` stands for the operational ones. Default: all that users set.
        #[serde(default)]
        pub attrs: Vec<String>,
        /// Attributes whose values are returned in base64, `*` for all.
        #[serde(default)]
        pub base64_attributes: Vec<String>,
        /// Return only the names of attributes, in a list. Default: false.
        #[serde(default)]
        pub schema: bool,
    }
}

impl TypedModule for LdapSearch {
    const NAME: &'static str = "ldap_search";
    const ALIASES: &'static [&'static str] = &["community.general.ldap_search"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "asks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Returns entries of a directory.";
    const EXAMPLE: &'static str = r#"- name: Which devices there are
  ldap_search:
    dn: cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org
    scope: onelevel
    attrs: [dicomDeviceName, dicomInstalled]
  register: devices   # devices.results: [{dn, dicomDeviceName, dicomInstalled}]
"#;
}

impl LdapSearch {
    async fn find(&self, ctx: &TaskContext) -> Result<Vec<Entry>, ModuleError> {
        let directory = self.login().directory(ctx).await?;
        let scope = match self.scope {
            SearchScope::Base => Scope::Base,
            SearchScope::OneLevel => Scope::OneLevel,
            SearchScope::Subordinate | SearchScope::Children => Scope::Subtree,
        };
        let mut entries = Vec::new();
        let search = directory.search_each(&self.dn, scope, &self.filter, &self.attrs, |entry| {
            if entries.len() == ENTRY_LIMIT {
                return Err(LdapError::argument(
                    "filter",
                    format!("more than {ENTRY_LIMIT} entries fit; use ldap_export for these"),
                ));
            }
            entries.push(entry);
            Ok(())
        });
        cancellable(&ctx.cancel, search).await?;
        if self.scope == SearchScope::Children {
            // The server's own name for the base may be spelt otherwise; it is the shortest.
            let base = super::dn::depth(&self.dn);
            entries.retain(|entry| super::dn::depth(&entry.dn) > base);
        }
        Ok(entries)
    }
}

#[async_trait]
impl Module for LdapSearch {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let entries = self.find(ctx).await?;
        let shown: Vec<Value> = entries
            .iter()
            .map(|entry| {
                if self.schema {
                    let names: Vec<Value> = entry
                        .attributes
                        .keys()
                        .map(|name| name.as_str().into())
                        .collect();
                    serde_json::json!({"dn": entry.dn, "attrs": names})
                } else {
                    entry_to_json(entry, &self.base64_attributes)
                }
            })
            .collect();
        let count = shown.len();
        Ok(Outcome::ok()
            .with("results", shown)
            .summary(format!("{count} entries")))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}
