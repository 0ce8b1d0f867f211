//! What an updated LDAP directory is compared with: the same steps by the image's own scripts, on a copy,
//! without an interruption.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::directory::{BASE, VERSIONS};
use crate::error::{LabError, io_error};
use crate::images::new_slapd;
use crate::kubernetes::{Cluster, archive, ldap};
use crate::migration::Migration;
use crate::site::Site;
use crate::slapd::{Slapd, SlapdOptions};
use crate::tool;

/// Entries of data and of configuration, as slapcat writes them.
pub type Content = (Vec<String>, Vec<String>);

/// Copies a site's directory to a folder beside it.
///
/// # Errors
/// It cannot be copied.
pub fn copy_of(site: &Site, name: &str) -> Result<PathBuf, LabError> {
    let copy = site.root.join(name);
    fs::create_dir(&copy).map_err(io_error("create", &copy))?;
    for dir in [site.ldap_dir(), site.slapd_config_dir()] {
        let mut cp = Command::new("cp");
        tool::run(cp.arg("-a").arg(&dir).arg(&copy), "copy the directory")?;
    }
    Ok(copy)
}

/// What a site's two directories hold.
///
/// # Errors
/// slapd does not start on them, or slapcat fails.
pub fn content(data: &Path, config: &Path) -> Result<Content, LabError> {
    let slapd = Slapd::start(
        &new_slapd()?,
        Some((data, config)),
        &SlapdOptions::default(),
    )?;
    let content = (slapd.data()?, slapd.config()?);
    slapd.stop()?;
    Ok(content)
}

/// Does the guide's steps by the image's own scripts on a copy, and says what it holds then.
///
/// # Errors
/// A script fails.
pub fn by_script(copy: &Path) -> Result<Content, LabError> {
    let directories = (copy.join("ldap"), copy.join("slapd.d"));
    let slapd = Slapd::start(
        &new_slapd()?,
        Some((&directories.0, &directories.1)),
        &SlapdOptions::default(),
    )?;
    let run = |command: &[&str]| match slapd.run(command)? {
        (Some(0), _) => Ok(()),
        (code, text) => Err(LabError::Unexpected(format!(
            "{command:?}: {code:?}: {text}"
        ))),
    };
    run(&["update-schema"])?;
    for version in VERSIONS {
        run(&["update-data", version])?;
    }
    run(&["init-role", "auth", "root"])?;
    run(&["assign-role-to-user", "auth", "user"])?;
    run(&["unassign-role-from-user", "auth", "root"])?;
    slapd.modify(&format!(
        "dn: dicomDeviceName=kaapana,cn=Devices,cn=DICOM Configuration,{BASE}\nchangetype: modify\n\
         add: dcmRemapRetrieveURL\ndcmRemapRetrieveURL: https://kaapana.example.org\n"
    ))?;
    let content = (slapd.data()?, slapd.config()?);
    slapd.stop()?;
    Ok(content)
}

/// Variables for the guide's last third in pods of this cluster.
#[must_use]
pub fn update_in_pods(cluster: &Cluster) -> Value {
    json!({
        "ldap_update": "pod",
        "kubeconfig": cluster.admin(),
        "ldap_schema_files": ["dicom-modify.ldif", "dcm4chee-archive-modify.ldif"],
        "ldap_remap_retrieve_url": "https://kaapana.example.org",
        "archive_check": ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/dcm4chee-arc/aets"],
    })
}

/// What a person does who is asked to deploy Kaapana 0.3.
///
/// # Errors
/// An image cannot be built.
pub fn deploy(cluster: &Cluster, site: &Site) -> Result<(), LabError> {
    let directories = (site.ldap_dir(), site.slapd_config_dir());
    cluster.deploy(ldap(Some((&directories.0, &directories.1)), "secret")?);
    cluster.deploy(archive()?);
    Ok(())
}

/// How many records the agent says to have applied, in all runs.
#[must_use]
pub fn applied(migration: &Migration) -> usize {
    let runs = migration.agent.journal_path().with_file_name("runs");
    let logs = fs::read_dir(runs)
        .into_iter()
        .flatten()
        .flatten()
        .flat_map(|run| fs::read_dir(run.path()).into_iter().flatten().flatten());
    logs.map(|log| fs::read_to_string(log.path()).unwrap_or_default())
        .map(|text| {
            text.lines()
                .filter(|line| line.ends_with(": applied"))
                .count()
        })
        .sum()
}

/// Checksums of the files of `ldap` and `slapd.d`, each with `suffix`, without the lock file, which every
/// start of a server writes.
///
/// # Errors
/// They cannot be read.
pub fn checksums(fast: &Path, suffix: &str) -> Result<String, LabError> {
    let script = "for dir in ldap slapd.d; do cd \"$1/$dir$2\"; \
                  find . -type f ! -name lock.mdb | sort | xargs sha256sum; done";
    let mut sums = Command::new("sh");
    sums.args(["-ec", script, "sh"]).arg(fast).arg(suffix);
    tool::run(&mut sums, "read the directory's files")
}
