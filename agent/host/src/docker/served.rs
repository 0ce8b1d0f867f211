//! The data directories that a container is about to work on, and what its image says that it can open.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, ImageConfig};

use super::arguments::MountPlan;
use super::error::DockerError;
use super::lifecycle;
use super::spec::DockerContainer;
use crate::context::HostContext;
use crate::data_directory::mdb;
use crate::data_directory::postgresql::{Cluster, major};
use crate::error::{ModuleError, PathError};
use crate::files::filesystem::lasting_name;

/// Where the official PostgreSQL images keep their data directory.
const PGDATA: &str = "PGDATA";
/// Label of a container that is asked for the version of its server and nothing else.
const LABEL: &str = "io.kaapana.agent.version-of";
/// How long a server may take to say its version.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PostgreSQL's.
    Postgresql,
    /// The data of slapd's mdb backend.
    Slapd,
    /// slapd's configuration.
    SlapdConfig,
}

impl Format {
    /// Its name in the journal.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Slapd => "slapd",
            Self::SlapdConfig => "slapd-config",
        }
    }
}

/// A data directory that is about to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirectory {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Whose it is.
    pub format: Format,
    /// Its version: the content of PG_VERSION, or the format of slapd's database.
    pub version: Option<String>,
    /// PostgreSQL's system identifier.
    pub system_identifier: Option<String>,
    /// Inode of the directory.
    pub inode: u64,
    /// Number of its device, which changes with a reboot.
    pub device: u64,
    /// The filesystem's own name, where there is one that lasts.
    pub filesystem: Option<String>,
}

/// What a container is about to work on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// The data directories among its mounts.
    pub directories: Vec<DataDirectory>,
    /// Version of PostgreSQL in its image, as PG_VERSION has it, where a directory is PostgreSQL's and the
    /// image tells.
    pub image_version: Option<String>,
}

/// Looks at what a container is about to work on; changes nothing.
///
/// # Errors
/// A directory cannot be read, the image is missing, or Docker does not answer.
pub async fn look(ctx: &HostContext, container: &DockerContainer) -> Result<Served, ModuleError> {
    let mounts = container.mount_plans(ctx)?;
    let binds = || {
        mounts.iter().filter_map(|mount| match mount {
            MountPlan::Bind { source, target, .. } => Some((source, Path::new(target))),
            _ => None,
        })
    };
    if binds().next().is_none() {
        return Ok(Served::default());
    }
    let docker = super::client::connect(ctx).await?;
    let image = lifecycle::image(&docker, container.image()?).await?;
    let config = image.config.unwrap_or_default();
    let data = container
        .env
        .get(PGDATA)
        .cloned()
        .or_else(|| variable(&config, PGDATA));
    let mut directories = Vec::new();
    for (source, target) in binds() {
        let below = data.as_deref().and_then(|data| {
            let inner = Path::new(data).strip_prefix(target).ok()?;
            (!inner.as_os_str().is_empty()).then(|| source.join(inner))
        });
        for path in [Some(source.clone()), below].into_iter().flatten() {
            directories.extend(at(&path)?);
        }
    }
    let image_version = match directories
        .iter()
        .any(|directory| directory.format == Format::Postgresql)
    {
        true => version_of(&docker, &image.id.unwrap_or_default(), &config).await?,
        false => None,
    };
    Ok(Served {
        directories,
        image_version,
    })
}

/// Looks whether a path is a server's data directory.
fn at(path: &Path) -> Result<Option<DataDirectory>, PathError> {
    // What is not there, or is none of the agent's to read, is for whoever mounts it.
    let Some(meta) = fs::metadata(path).ok().filter(fs::Metadata::is_dir) else {
        return Ok(None);
    };
    let cluster = match Cluster::at(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        other => other.map_err(PathError::on("look at", path))?,
    };
    let (format, version, system_identifier) = if let Some(cluster) = cluster {
        let identifier = cluster.system_identifier.map(|number| number.to_string());
        (Format::Postgresql, Some(cluster.version), identifier)
    } else if path.join("data.mdb").is_file() {
        let file = path.join("data.mdb");
        let format = mdb::format_of(&file).map_err(PathError::on("read", &file))?;
        (Format::Slapd, format.map(|format| format.to_string()), None)
    } else if path.join("cn=config.ldif").is_file() {
        (Format::SlapdConfig, None, None)
    } else {
        return Ok(None);
    };
    Ok(Some(DataDirectory {
        path: path.to_path_buf(),
        format,
        version,
        system_identifier,
        inode: meta.ino(),
        device: meta.dev(),
        filesystem: lasting_name(path),
    }))
}

/// A variable of an image's environment.
fn variable(image: &ImageConfig, name: &str) -> Option<String> {
    let env = image.env.as_deref().unwrap_or_default();
    env.iter()
        .filter_map(|text| text.split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value.to_owned())
}

/// What an image says of its PostgreSQL, as PG_VERSION has it: in its environment, else by the program itself,
/// which is asked once for each image. None where it has none.
pub async fn version_of(
    docker: &Docker,
    id: &str,
    image: &ImageConfig,
) -> Result<Option<String>, DockerError> {
    static ASKED: Mutex<Option<HashMap<String, Option<String>>>> = Mutex::new(None);
    let told = ["PG_MAJOR", "PG_VERSION"]
        .iter()
        .find_map(|name| major(&variable(image, name)?));
    if told.is_some() {
        return Ok(told);
    }
    let asked = || ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = asked().get_or_insert_default().get(id) {
        return Ok(known.clone());
    }
    let said = ask(docker, id).await?;
    let version = said.as_deref().and_then(version_in);
    asked()
        .get_or_insert_default()
        .insert(id.to_owned(), version.clone());
    Ok(version)
}

/// `postgres (PostgreSQL) 15.4 (Debian 15.4-1.pgdg120+1)`.
fn version_in(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("(PostgreSQL) ")?;
    major(rest.split_whitespace().next()?)
}

/// Runs `postgres --version` in a container that has nothing of the host.
async fn ask(docker: &Docker, image: &str) -> Result<Option<String>, DockerError> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["postgres".into()]),
        cmd: Some(vec!["--version".into()]),
        labels: Some([(LABEL.to_owned(), String::new())].into()),
        network_disabled: Some(true),
        host_config: Some(HostConfig {
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = lifecycle::create(docker, None, body).await?;
    let said = async {
        // An image without the program says nothing, which is no failure.
        if lifecycle::start(docker, &id).await.is_err() {
            return Ok(None);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(found) = lifecycle::inspect(docker, &id).await? {
            if !lifecycle::is_running(&found) {
                return Ok(Some(lifecycle::log_tail(docker, &id, 1).await.join(" ")));
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(None)
    }
    .await;
    lifecycle::discard(docker, &id).await?;
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_understood() {
        for (said, expected) in [
            (
                "postgres (PostgreSQL) 15.4 (Debian 15.4-1.pgdg120+1)",
                Some("15"),
            ),
            ("postgres (PostgreSQL) 9.6.24", Some("9.6")),
            ("sh: postgres: not found", None),
            ("", None),
        ] {
            assert_eq!(version_in(said).as_deref(), expected, "{said}");
        }
    }

    #[test]
    fn a_directory_is_known_by_what_only_a_server_writes() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(at(&dir.path().join("nothing")).expect("looked"), None);
        assert_eq!(at(dir.path()).expect("looked"), None);
        fs::write(dir.path().join("cn=config.ldif"), "").expect("write");
        let found = at(dir.path()).expect("looked").expect("one");
        assert_eq!(found.format, Format::SlapdConfig);
        let meta = fs::metadata(dir.path()).expect("stat");
        assert_eq!((found.inode, found.device), (meta.ino(), meta.dev()));
        fs::write(dir.path().join("PG_VERSION"), "9.6\n").expect("write");
        let found = at(dir.path()).expect("looked").expect("one");
        assert_eq!(found.format, Format::Postgresql);
        assert_eq!(found.version.as_deref(), Some("9.6"));
    }
}
