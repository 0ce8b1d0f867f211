//! The two database images of a migration: `old` for Kaapana 0.2, `new` for Kaapana 0.3.
//!
//! Each makes the whole PACS schema of its version when it starts on an empty data directory, and brings
//! the update scripts in `/sql`, as the dcm4chee images do.

use std::thread;

use super::debian::{DebianImage, ImageFile};
use super::{docker, official};
use crate::error::LabError;
use crate::schema::{Schema, SchemaVersion, UPDATES};
use crate::workplace::Lock;

const REPOSITORY: &str = "kaapana-lab/dcm4che-postgres";

/// Not needed by a server: the just-in-time compiler with its 120 MB (9.6 has none), and the perl that
/// only Debian's cluster tools use.
const TRIM: [&str; 7] = [
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/postgresql/*/lib/bitcode",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3.*",
    "/usr/lib/*/libperl.so*",
    "/usr/share/i18n",
    "/usr/share/perl /usr/lib/*/perl",
];

/// Names of the two images; Docker has both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresImages {
    /// PostgreSQL 13 with the 5.26 schema, uid 999.
    pub old: String,
    /// PostgreSQL 15 with the 5.32 schema, uid 70.
    pub new: String,
}

impl PostgresImages {
    /// Returns the names of the two images, after building what is missing (side by side).
    ///
    /// # Errors
    /// As [`DebianImage::ensure`].
    pub fn ensure() -> Result<Self, LabError> {
        thread::scope(|scope| {
            let old = scope.spawn(old_postgres);
            let new = new_postgres();
            let old = old
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(Self {
                old: old?,
                new: new?,
            })
        })
    }
}

/// Returns the image of Kaapana 0.2's database, built where it is missing.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn old_postgres() -> Result<String, LabError> {
    ensure(
        &image("0.2", "bullseye", 13, 999, SchemaVersion::V5_26)?,
        "docker.io/library/postgres:13-bullseye",
    )
}

/// Returns the image of Kaapana 0.3's database, built where it is missing.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn new_postgres() -> Result<String, LabError> {
    ensure(
        &image("0.3", "bookworm", 15, 70, SchemaVersion::V5_32)?,
        "docker.io/library/postgres:15-alpine",
    )
}

/// Returns an image of the version that Kaapana 0.4 uses, PostgreSQL 17, built where it is missing.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn newer_postgres() -> Result<String, LabError> {
    ensure(
        &image("0.4", "trixie", 17, 70, SchemaVersion::V5_32)?,
        "docker.io/library/postgres:17-alpine",
    )
}

fn ensure(image: &DebianImage, official: &str) -> Result<String, LabError> {
    let tag = image.tag();
    if docker::image_exists(&tag)? {
        return Ok(tag);
    }
    if official::registry_answers() {
        let _lock = Lock::take(&tag.replace(['/', ':'], "-"))?;
        // The official entry point stays; only ours is left out.
        let files: Vec<ImageFile> = image
            .files
            .iter()
            .filter(|file| file.path != ENTRYPOINT)
            .cloned()
            .collect();
        match official::build_on(official, &files, &tag) {
            Ok(()) => return Ok(tag),
            Err(error) => eprintln!(
                "lab: no image from {official} ({error}), building from Debian's packages"
            ),
        }
    }
    image.ensure()
}

const ENTRYPOINT: &str = "/usr/local/bin/docker-entrypoint.sh";

fn image(
    version: &str,
    suite: &str,
    major: u32,
    uid: u32,
    schema: SchemaVersion,
) -> Result<DebianImage, LabError> {
    let file = |path: String, mode: u32, content: &str| ImageFile {
        path,
        mode,
        content: content.into(),
    };
    let mut files = vec![file(
        ENTRYPOINT.to_owned(),
        0o755,
        include_str!("postgres-entrypoint.sh"),
    )];
    for (name, sql) in Schema::render(schema)?.files() {
        files.push(file(
            format!("/docker-entrypoint-initdb.d/{name}"),
            0o644,
            sql,
        ));
    }
    for (name, sql) in UPDATES {
        files.push(file(format!("/sql/{name}"), 0o644, sql));
    }
    Ok(DebianImage {
        repository: REPOSITORY.to_owned(),
        version: version.to_owned(),
        suite: suite.to_owned(),
        // The package finds its user there and keeps the number; and it must make no cluster.
        before: format!(
            "groupadd --gid {uid} postgres\n\
             useradd --uid {uid} --gid postgres --home-dir /var/lib/postgresql --shell /bin/bash postgres\n\
             mkdir -p /etc/postgresql-common\n\
             echo create_main_cluster=false > /etc/postgresql-common/createcluster.conf"
        ),
        packages: vec![format!("postgresql-{major}"), "locales".to_owned()],
        // As in the official image every new cluster listens everywhere; containers decide what is published.
        after: format!(
            "localedef -i en_US -c -f UTF-8 en_US.UTF-8\n\
             echo \"listen_addresses = '*'\" >> /usr/share/postgresql/{major}/postgresql.conf.sample\n\
             install -d -o postgres -g postgres -m 0775 /var/run/postgresql\n\
             install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data"
        ),
        trim: TRIM.iter().map(|pattern| (*pattern).to_owned()).collect(),
        files,
        config: vec![
            // In front of /usr/bin, where Debian's `psql` is a script in perl.
            format!(
                "ENV PATH=/usr/lib/postgresql/{major}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            ),
            format!("ENV PG_MAJOR={major}"),
            "ENV LANG=en_US.utf8".to_owned(),
            "ENV PGDATA=/var/lib/postgresql/data".to_owned(),
            "ENTRYPOINT [\"docker-entrypoint.sh\"]".to_owned(),
            "CMD [\"postgres\"]".to_owned(),
            "EXPOSE 5432".to_owned(),
        ],
        // A fast shutdown: SIGTERM would wait until the last client leaves.
        stop_signal: Some("SIGINT".to_owned()),
    })
}
