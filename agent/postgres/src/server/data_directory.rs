//! `postgresql_data_directory`: a data directory is what it should be, and nobody uses it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::PostgresError;
use crate::host::error::{ModuleError, PathError};
use crate::host::holders::holders;
use crate::host::worker;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// Looks at a data directory: version, owner, size, and who uses it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresqlDataDirectory {
    /// The directory. It must exist and hold a database: an empty one is an error, never an empty
    /// database.
    pub path: PathBuf,
    /// Accepted content of PG_VERSION, e.g. `"9.6"`, or a list of such. Default: any.
    #[serde(default, deserialize_with = "versions")]
    #[schemars(with = "Option<Vec<String>>")]
    pub version: Vec<String>,
    /// Fail when a process or a container uses it. Default: true.
    #[serde(default = "yes")]
    pub idle: bool,
}

fn yes() -> bool {
    true
}

/// Reads one version or a list; YAML takes `9.6` and `15` for numbers.
fn versions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let one = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(serde::de::Error::custom(format!(
            "{other} is no version; write \"9.6\""
        ))),
    };
    match Value::deserialize(from)? {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.into_iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

impl TypedModule for PostgresqlDataDirectory {
    const NAME: &'static str = "postgresql_data_directory";
    const ALIASES: &'static [&'static str] = &["kaapana.agent.postgresql_data_directory"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "looks again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str =
        "Checks a server's data directory: there, of the right version, and used by nobody.";
    const EXAMPLE: &'static str = r#"- name: The 0.2 database is where it should be, and at rest
  postgresql_data_directory:
    path: "{{ fast_data_dir }}/postgres-dcm4che"
    version: ["9.6"]
  register: pgdata   # pgdata.version, .uid, .gid, .size_bytes, .control_sha256, .inode, .holders
"#;
}

/// What a data directory is.
pub(crate) struct Found {
    /// Content of PG_VERSION.
    pub version: String,
    /// Of the directory.
    pub meta: fs::Metadata,
    /// Bytes on disk.
    pub size: u64,
    /// The control file changes whenever a server starts, stops or makes a checkpoint.
    pub control_sha256: String,
    /// Content of postmaster.pid, where there is one.
    pub postmaster_pid: Option<String>,
}

/// Looks at a data directory.
///
/// # Errors
/// It is missing, empty, damaged, or none at all.
pub(crate) fn look(path: &Path) -> Result<Found, PostgresError> {
    let wrong = |code: &'static str, message: &str, help: &str| PostgresError::DataDirectory {
        path: path.to_path_buf(),
        message: message.to_owned(),
        code,
        help: help.to_owned(),
    };
    let where_is_it = "check the path: Kaapana keeps `postgres-dcm4che` in FAST_DATA_DIR, not in \
                       SLOW_DATA_DIR; `find / -name PG_VERSION -maxdepth 6` finds data directories";
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(wrong(
                "postgresql::data_directory_missing",
                "does not exist",
                where_is_it,
            ));
        }
        other => other.map_err(PathError::on("inspect", path))?,
    };
    if !meta.is_dir() {
        return Err(wrong(
            "postgresql::data_directory_missing",
            "is not a directory",
            where_is_it,
        ));
    }
    let mut entries = fs::read_dir(path).map_err(PathError::on("list", path))?;
    if entries.next().is_none() {
        return Err(wrong(
            "postgresql::data_directory_empty",
            "is empty",
            where_is_it,
        ));
    }
    let file = path.join("PG_VERSION");
    let version = match fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = "holds no PG_VERSION, so it is no data directory";
            return Err(wrong(
                "postgresql::data_directory_foreign",
                message,
                where_is_it,
            ));
        }
        other => other
            .map_err(PathError::on("read", &file))?
            .trim()
            .to_owned(),
    };
    if !path.join("global/pg_control").exists() {
        let message =
            "holds no global/pg_control: its initialisation was never finished, or it is damaged";
        return Err(wrong(
            "postgresql::data_directory_damaged",
            message,
            "for the original: restore it from a backup. For a work directory of this playbook: \
             remove it and run the playbook again",
        ));
    }
    let control = path.join("global/pg_control");
    let control_sha256 = fs::read(&control)
        .map(|bytes| hex::encode(Sha256::digest(bytes)))
        .map_err(|error| {
            wrong(
                "postgresql::data_directory_unreadable",
                &format!("its global/pg_control cannot be read: {error}"),
                "run as root",
            )
        })?;
    // Links (tablespaces) are not followed.
    let size = fs_extra::dir::get_size(path).map_err(|error| {
        wrong(
            "postgresql::data_directory_unreadable",
            &format!("cannot be measured: {error}"),
            "run as root; a server that is at work on it makes files come and go",
        )
    })?;
    Ok(Found {
        version,
        meta,
        size,
        control_sha256,
        postmaster_pid: fs::read_to_string(path.join("postmaster.pid")).ok(),
    })
}

#[async_trait]
impl Module for PostgresqlDataDirectory {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        let path = ctx.resolve(&self.path);
        let looked = {
            let path = path.clone();
            worker::blocking("look at a data directory", move || look(&path)).await
        };
        let found = looked??;
        if !self.version.is_empty() && !self.version.contains(&found.version) {
            return Err(PostgresError::DataDirectory {
                message: format!(
                    "is of PostgreSQL {}, expected {}",
                    found.version,
                    self.version.join(" or ")
                ),
                code: "postgresql::data_directory_version",
                help: "choose the image of that version, or check the path; a server of another \
                       major version cannot open it"
                    .into(),
                path,
            }
            .into());
        }
        let held = holders(ctx, &path).await?;
        if self.idle && !held.is_empty() {
            let who: Vec<String> = held.iter().map(ToString::to_string).collect();
            return Err(PostgresError::DataDirectory {
                message: format!("is in use: {}", who.join("; ")),
                code: "postgresql::data_directory_in_use",
                help:
                    "stop who uses it: undeploy Kaapana (`deploy_platform.sh --quiet --undeploy`, \
                       in this order), then check that no `postgres` process is left; a second \
                       server on it would destroy it"
                        .into(),
                path,
            }
            .into());
        }
        let pid_file = found.postmaster_pid.as_deref().map(|text| {
            let pid = text.lines().next().unwrap_or_default().trim().to_owned();
            let note = if held.is_empty() {
                "stale: nobody uses the directory; it was not shut down cleanly, or its container \
                 was killed"
            } else {
                "the directory is in use"
            };
            json!({"pid": pid, "note": note})
        });
        Ok(Outcome::ok()
            .with("path", path.display().to_string())
            .with("version", found.version.as_str())
            .with("uid", found.meta.uid())
            .with("gid", found.meta.gid())
            .with("mode", format!("{:04o}", found.meta.mode() & 0o7777))
            .with("size_bytes", found.size)
            .with("control_sha256", found.control_sha256)
            .with("inode", found.meta.ino())
            .with("device", found.meta.dev())
            .with("holders", serde_json::to_value(&held).unwrap_or_default())
            .with("postmaster_pid", pid_file.unwrap_or_default())
            .summary(format!(
                "PostgreSQL {}, {} MiB",
                found.version,
                found.size >> 20
            )))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn code(path: &Path, version: &str) -> String {
        let mut ctx = TaskContext::for_tests(Path::new("/"));
        ctx.environment
            .insert("DOCKER_HOST".into(), "unix:///nowhere".into());
        let module: PostgresqlDataDirectory =
            serde_yaml::from_str(&format!("{{path: {}, version: {version}}}", path.display()))
                .expect("valid");
        match module.apply(&ctx, &Value::Null).await {
            Ok(outcome) => outcome.result["version"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            Err(ModuleError::Failed(failure)) => failure.code().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn an_empty_or_missing_directory_is_never_an_empty_database() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("data");
        assert_eq!(
            code(&path, "9.6").await,
            "postgresql::data_directory_missing"
        );
        fs::create_dir(&path).expect("mkdir");
        assert_eq!(code(&path, "9.6").await, "postgresql::data_directory_empty");
        fs::write(path.join("x"), "").expect("write");
        assert_eq!(
            code(&path, "9.6").await,
            "postgresql::data_directory_foreign"
        );
        fs::write(path.join("PG_VERSION"), "9.6\n").expect("write");
        assert_eq!(
            code(&path, "9.6").await,
            "postgresql::data_directory_damaged"
        );
        fs::create_dir(path.join("global")).expect("mkdir");
        fs::write(path.join("global/pg_control"), "x").expect("write");
        assert_eq!(code(&path, "['9.6', 15]").await, "9.6");
        assert_eq!(
            code(&path, "15").await,
            "postgresql::data_directory_version"
        );
    }
}
