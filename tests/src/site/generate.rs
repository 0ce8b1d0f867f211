//! Fills a data directory once per scale and keeps it: a new site is then a copy.

use std::fs;
use std::path::{Path, PathBuf};

use super::objects;
use super::scale::Scale;
use crate::error::{LabError, io_error};
use crate::hash::ContentHash;
use crate::images;
use crate::schema::{Schema, SchemaVersion};
use crate::server::{Server, ServerOptions};
use crate::slapd::{Slapd, SlapdOptions};
use crate::workplace::{self, Lock, lab_subdir, stage};

const SITE_SQL: &str = include_str!("../../sql/site.sql");
const FILES_SQL: &str = include_str!("../../sql/site-files.sql");

/// Raised when the Rust side of the generator changes what comes out.
const GENERATOR_VERSION: &str = "1";

/// Only while the directory is being filled: a crash then means doing it again, not losing anything.
const FILLING: [&str; 8] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "maintenance_work_mem=512MB",
    "max_wal_size=4GB",
];

/// Returns the cached original of a site: `postgres-dcm4che` and `dicom_data`, made where it is missing.
pub(super) fn original(scale: Scale, old_image: &str) -> Result<PathBuf, LabError> {
    let hash = ContentHash::default()
        .with("generator", GENERATOR_VERSION)
        .with("image", old_image)
        .with("sql", SITE_SQL)
        .with("files", FILES_SQL)
        .with("step", scale.file_step().to_string())
        .short();
    let cache = lab_subdir("cache")?;
    let prefix = format!("site-{}", scale.letter());
    let original = cache.join(format!("{prefix}-{hash}"));
    if original.exists() {
        return Ok(original);
    }
    let _lock = Lock::take(&prefix)?;
    if original.exists() {
        return Ok(original);
    }
    // A killed attempt's server would go on writing into what is removed here.
    images::remove_orphaned_containers(false)?;
    workplace::remove_partials(&cache, &prefix)?;
    let partial = cache.join(format!("{prefix}-{hash}.partial"));
    fs::create_dir(&partial).map_err(io_error("create", &partial))?;
    eprintln!(
        "lab: filling a database with {} instances",
        scale.instances()
    );
    fill(scale, old_image, &partial)?;
    fs::rename(&partial, &original).map_err(io_error("rename", &partial))?;
    Ok(original)
}

fn fill(scale: Scale, old_image: &str, dir: &Path) -> Result<(), LabError> {
    let pgdata = dir.join("postgres-dcm4che");
    fs::create_dir(&pgdata).map_err(io_error("create", &pgdata))?;
    let schema = Schema::render(SchemaVersion::V5_26)?;
    let options = ServerOptions {
        // Filled first and indexed after, as a restore does it; the outcome is the image's own schema.
        without_schema: true,
        arguments: FILLING
            .iter()
            .flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()])
            .collect(),
        ..ServerOptions::default()
    };
    let server = stage("start the old database", || {
        Server::start(old_image, Some(&pgdata), &options)
    })?;
    stage("tables and rows, DICOM files", || {
        server.psql(&schema.tables)?;
        // One session: the files come from temporary tables of the generator.
        let parameters = format!(
            "\\set instances {}\n\\set file_step {}\n",
            scale.instances(),
            scale.file_step()
        );
        let files = server.psql(&format!("{parameters}{SITE_SQL}{FILES_SQL}"))?;
        objects::write_all(&dir.join("dicom_data"), &files)
    })?;
    stage("keys and indexes", || {
        server.psql(&schema.keys)?;
        server.psql(&schema.indexes)?;
        server.psql("vacuum analyze")
    })?;
    stage("stop the old database", || {
        server.psql("checkpoint")?;
        server.stop()
    })?;
    // So that the last session to write is one with the settings that a site has.
    stage("start and stop it as a site does", || {
        Server::start(old_image, Some(&pgdata), &ServerOptions::default())?.stop()
    })
}

/// Returns the cached original of a site's LDAP directory, the same for every scale: `ldap` and
/// `slapd.d`, as the slapd of Kaapana 0.2 left them.
pub(super) fn directory() -> Result<PathBuf, LabError> {
    let image = images::old_slapd()?;
    let hash = ContentHash::default()
        .with("generator", GENERATOR_VERSION)
        .with("image", &image)
        .short();
    let cache = lab_subdir("cache")?;
    let original = cache.join(format!("directory-{hash}"));
    if original.exists() {
        return Ok(original);
    }
    let _lock = Lock::take("directory")?;
    if original.exists() {
        return Ok(original);
    }
    images::remove_orphaned_containers(false)?;
    workplace::remove_partials(&cache, "directory")?;
    let partial = cache.join(format!("directory-{hash}.partial"));
    let (data, config) = (partial.join("ldap"), partial.join("slapd.d"));
    for dir in [&partial, &data, &config] {
        fs::create_dir(dir).map_err(io_error("create", dir))?;
    }
    stage("make the LDAP directory", || {
        Slapd::start(&image, Some((&data, &config)), &SlapdOptions::default())?.stop()
    })?;
    fs::rename(&partial, &original).map_err(io_error("rename", &partial))?;
    Ok(original)
}
