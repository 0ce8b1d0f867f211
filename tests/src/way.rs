//! The ways of the shipped migration: how the database goes, how the LDAP part is done, and what each of
//! them leaves at its end.

use std::fs;
use std::sync::{Mutex, OnceLock};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::error::LabError;
use crate::images::{docker, new_slapd};
use crate::kubernetes::Cluster;
use crate::ldap_update::{Content, by_script, checksums, content, copy_of, deploy, update_in_pods};
use crate::migration::{Migration, must};
use crate::site::{Scale, Site};

/// The task before which Kaapana 0.3 has to be deployed, where the LDAP part is done in pods.
pub const DEPLOYED_BY: &str = "ldap-pod-ready";

/// How the database goes: the playbook's `route`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Route {
    /// Server by server and dump by dump.
    #[default]
    Guide,
    /// Restored into the 0.3 server while it is dumped.
    Direct,
}

/// How the LDAP part is done: the playbook's `ldap_update`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum LdapUpdate {
    /// By a person, who confirms it.
    #[default]
    Confirm,
    /// On copies, before Kaapana 0.3 starts.
    Offline,
    /// In the pod of the running Kaapana 0.3: the cluster's double.
    Pod,
}

/// One of the six ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// How the database goes.
    pub route: Route,
    /// How the LDAP part is done.
    pub ldap: LdapUpdate,
}

impl Route {
    /// As the playbook has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Guide => "guide",
            Self::Direct => "direct",
        }
    }
}

impl LdapUpdate {
    /// As the playbook has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Offline => "offline",
            Self::Pod => "pod",
        }
    }
}

impl Way {
    /// All of them, the default first.
    pub const ALL: [Self; 6] = {
        const fn way(route: Route, ldap: LdapUpdate) -> Way {
            Way { route, ldap }
        }
        [
            way(Route::Guide, LdapUpdate::Confirm),
            way(Route::Guide, LdapUpdate::Offline),
            way(Route::Guide, LdapUpdate::Pod),
            way(Route::Direct, LdapUpdate::Confirm),
            way(Route::Direct, LdapUpdate::Offline),
            way(Route::Direct, LdapUpdate::Pod),
        ]
    };

    /// Its place in [`Way::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self.route as usize * 3 + self.ldap as usize
    }

    /// `guide-confirm`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}-{}", self.route.word(), self.ldap.word())
    }

    /// Options of `crash` that choose it; nothing for the default.
    #[must_use]
    pub fn options(self) -> String {
        let mut options = String::new();
        if self.route != Route::default() {
            options.push_str(&format!(" --route {}", self.route.word()));
        }
        if self.ldap != LdapUpdate::default() {
            options.push_str(&format!(" --ldap {}", self.ldap.word()));
        }
        options
    }

    /// The service whose server all scripts have run in, and the last task that needs it before the notes
    /// of the scripts are gone.
    #[must_use]
    pub fn history_place(self) -> (&'static str, &'static str) {
        match self.route {
            Route::Guide => ("pacs_work", "dump-updated"),
            Route::Direct => ("pacs_direct", "dump-direct"),
        }
    }

    /// Variables that choose it. `cluster` is there with [`LdapUpdate::Pod`].
    ///
    /// # Errors
    /// An image cannot be built.
    pub fn variables(self, cluster: Option<&Cluster>) -> Result<Value, LabError> {
        let mut all = match (self.ldap, cluster) {
            (LdapUpdate::Confirm, _) => json!({}),
            (LdapUpdate::Offline, _) => json!({
                "ldap_update": "offline",
                "slapd_image": new_slapd()?,
                "ldap_schema_files": ["dicom-modify.ldif", "dcm4chee-archive-modify.ldif"],
                "ldap_remap_retrieve_url": "https://kaapana.example.org",
            }),
            (LdapUpdate::Pod, Some(cluster)) => update_in_pods(cluster),
            (LdapUpdate::Pod, None) => {
                return Err(LabError::Unexpected("find the cluster of the pods".into()));
            }
        };
        // The default is left to the playbook.
        if self.route != Route::default() {
            all["route"] = self.route.word().into();
        }
        Ok(all)
    }
}

/// A cluster on which somebody deploys Kaapana 0.3 once, when the agent waits for it.
#[derive(Debug)]
pub struct Deployment {
    /// The cluster.
    pub cluster: Cluster,
    is_done: Mutex<bool>,
}

impl Deployment {
    /// Starts a cluster where a way needs one.
    ///
    /// # Errors
    /// It does not start.
    pub fn of(way: Way) -> Result<Option<Self>, LabError> {
        if way.ldap != LdapUpdate::Pod {
            return Ok(None);
        }
        Ok(Some(Self {
            cluster: Cluster::start()?,
            is_done: Mutex::new(false),
        }))
    }

    /// Deploys, unless that was done.
    ///
    /// # Errors
    /// An image cannot be built.
    pub fn deploy_once(&self, site: &Site) -> Result<(), LabError> {
        let mut is_done = self
            .is_done
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if !*is_done {
            deploy(&self.cluster, site)?;
            *is_done = true;
        }
        Ok(())
    }
}

/// What a way leaves of the LDAP directory.
#[derive(Debug)]
pub struct Directory {
    /// What the image's own scripts make of it; nothing where nobody updates it.
    updated: Option<&'static Content>,
    /// Checksums of its files before the migration.
    original: String,
}

impl Directory {
    /// Looks at the directory of a site that nobody has migrated yet. All sites have copies of one.
    ///
    /// # Errors
    /// It cannot be read, or a script fails.
    pub fn expected(way: Way, site: &Site) -> Result<Self, LabError> {
        Ok(Self {
            updated: match way.ldap {
                LdapUpdate::Confirm => None,
                LdapUpdate::Offline | LdapUpdate::Pod => Some(updated_by_script()?),
            },
            original: checksums(&site.fast_data_dir, "")?,
        })
    }

    /// Fails unless the directory is the one that this way leaves. Ends its pod.
    ///
    /// # Errors
    /// Says what differs.
    pub fn must_be_left_by(&self, migration: &Migration) -> Result<(), LabError> {
        let (site, ldap) = (&migration.site, migration.way.ldap);
        // With `confirm` a person works on it, and no person was here.
        let kept = if ldap == LdapUpdate::Confirm {
            ""
        } else {
            "-old"
        };
        must(
            checksums(&site.fast_data_dir, kept)? == self.original,
            || format!("`ldap{kept}` is not what the directory was"),
        )?;
        let Some(expected) = self.updated else {
            return Ok(());
        };
        for gone in ["ldap-new", "slapd.d-new"] {
            must(!site.fast_data_dir.join(gone).exists(), || {
                format!("{gone} is still there")
            })?;
        }
        for backup in ["ldap-data.ldif", "ldap-config.ldif"] {
            let file = site.backup_dir.join(backup);
            must(fs::metadata(file).is_ok_and(|meta| meta.len() > 0), || {
                format!("{backup} is missing or empty")
            })?;
        }
        if let Some(deployment) = &migration.deployment {
            let pod = deployment.cluster.container("ldap", "ldap-container")?;
            docker(&["stop", "--time", "60", &pod])?;
        }
        let found = content(&site.ldap_dir(), &site.slapd_config_dir())?;
        must(found == *expected, || {
            "the directory is another one than the image's own scripts make".into()
        })
    }
}

/// What the image's own scripts make of a site's directory, once a process.
fn updated_by_script() -> Result<&'static Content, LabError> {
    static KNOWN: OnceLock<Content> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(known) = KNOWN.get() {
        return Ok(known);
    }
    let site = Site::temporary(Scale::S)?;
    let made = by_script(&copy_of(&site, "by-script")?)?;
    Ok(KNOWN.get_or_init(|| made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_at_its_own_place() {
        for (index, way) in Way::ALL.into_iter().enumerate() {
            assert_eq!(way.index(), index, "{}", way.name());
        }
        assert_eq!(Way::ALL[0], Way::default());
        assert_eq!(Way::default().options(), "");
        assert_eq!(Way::ALL[4].options(), " --route direct --ldap offline");
    }
}
