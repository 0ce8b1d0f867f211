//! Throw-away database containers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::error::LabError;
use crate::images::{LABEL, OWNER_LABEL, docker, remove_orphaned_containers};
use crate::tool;
use crate::workplace::{owner, unique};

/// Where the images keep their database.
const PGDATA: &str = "/var/lib/postgresql/data";

/// How to start a [`Server`].
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// POSTGRES_DB.
    pub database: String,
    /// POSTGRES_USER.
    pub user: String,
    /// POSTGRES_PASSWORD.
    pub password: String,
    /// Further variables.
    pub environment: Vec<(String, String)>,
    /// Further mounts: host path, path in the container.
    pub mounts: Vec<(PathBuf, String)>,
    /// Whether the container may write into them.
    pub writable_mounts: bool,
    /// Arguments for `postgres`, such as `-c`, `fsync=off`.
    pub arguments: Vec<String>,
    /// Mounts an empty directory over `/docker-entrypoint-initdb.d`: a new database stays empty.
    pub without_schema: bool,
    /// Publishes the server on 127.0.0.1, at a port that the kernel picks. Otherwise it has no network.
    pub publish: bool,
    /// `--user` of the container, such as `70:70`.
    pub run_as: Option<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            database: "pacsdb".to_owned(),
            user: "pacs".to_owned(),
            password: "pacs".to_owned(),
            environment: Vec::new(),
            mounts: Vec::new(),
            writable_mounts: false,
            arguments: Vec::new(),
            without_schema: false,
            publish: false,
            run_as: None,
        }
    }
}

/// A database server in a container, which ends with this value.
#[derive(Debug)]
pub struct Server {
    name: String,
    options: ServerOptions,
    /// Kept for as long as it is mounted.
    _empty: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server on a data directory, and returns when it answers over TCP: the init server never does.
    /// Without a data directory the database lives in the container, is never synced, and goes with it.
    ///
    /// # Errors
    /// The container does not start, or its server does not answer within three minutes; the error has
    /// the end of the container's log.
    pub fn start(
        image: &str,
        pgdata: Option<&Path>,
        options: &ServerOptions,
    ) -> Result<Self, LabError> {
        let server = Self::launch(image, pgdata, options)?;
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Starts the container and returns at once.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn launch(
        image: &str,
        pgdata: Option<&Path>,
        options: &ServerOptions,
    ) -> Result<Self, LabError> {
        static SWEEP: Once = Once::new();
        // What a killed test left behind would hold its data directory for ever. That the sweep fails
        // must not fail the test: another process may just be sweeping too.
        SWEEP.call_once(|| drop(remove_orphaned_containers(false)));

        let name = unique("kaapana-lab-db");
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--name", &name, "--label", LABEL]);
        run.args(["--label", &format!("{OWNER_LABEL}={}", owner())]);
        if options.publish {
            run.args(["--publish", "127.0.0.1::5432"]);
        } else {
            run.args(["--network", "none"]);
        }
        // Values come from the client's own environment: no password on a command line.
        let variables = [
            ("POSTGRES_DB", &options.database),
            ("POSTGRES_USER", &options.user),
            ("POSTGRES_PASSWORD", &options.password),
        ];
        let more = options
            .environment
            .iter()
            .map(|(name, value)| (name.as_str(), value));
        for (name, value) in variables.into_iter().chain(more) {
            run.args(["--env", name]).env(name, value);
        }
        if let Some(pgdata) = pgdata {
            run.arg("--mount").arg(format!(
                "type=bind,source={},target={PGDATA}",
                pgdata.display()
            ));
        }
        let mut empty = None;
        if options.without_schema {
            let dir =
                tempfile::tempdir().map_err(crate::error::io_error("create", Path::new("/tmp")))?;
            let source = dir.path().display();
            run.arg("--mount").arg(format!(
                "type=bind,source={source},target=/docker-entrypoint-initdb.d,readonly"
            ));
            empty = Some(dir);
        }
        for (source, target) in &options.mounts {
            let readonly = if options.writable_mounts {
                ""
            } else {
                ",readonly"
            };
            run.arg("--mount").arg(format!(
                "type=bind,source={},target={target}{readonly}",
                source.display()
            ));
        }
        if let Some(user) = &options.run_as {
            run.args(["--user", user]);
        }
        if pgdata.is_none() {
            // Gone with the container: nothing is gained by syncing it.
            run.args(["--env", "POSTGRES_INITDB_ARGS=--no-sync"]);
        }
        run.arg(image).arg("postgres");
        if pgdata.is_none() {
            run.args(["-c", "fsync=off"]);
        }
        run.args(&options.arguments);
        let server = Self {
            name,
            options: options.clone(),
            _empty: empty,
        };
        tool::run(&mut run, "start a database container")?;
        Ok(server)
    }

    /// Waits until the real server answers over TCP.
    ///
    /// # Errors
    /// The container ends, or three minutes pass.
    pub fn wait_until_ready(&self) -> Result<(), LabError> {
        let wait = "until pg_isready -q -h 127.0.0.1; do sleep 0.02; done";
        docker(&["exec", &self.name, "timeout", "180", "sh", "-c", wait])
            .map(drop)
            .map_err(|error| {
                LabError::Unexpected(format!(
                    "wait for the database in {}: {error}\n{}",
                    self.name,
                    self.log()
                ))
            })
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address, at which it is reached without Docker's proxy.
    ///
    /// # Errors
    /// It has none, or Docker does not answer.
    pub fn address(&self) -> Result<String, LabError> {
        let form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}\n{{end}}";
        let answer = docker(&["inspect", "--format", form, &self.name])?;
        let first = answer.lines().next().map(str::trim).unwrap_or_default();
        if first.is_empty() {
            let what = format!("{} has no address", self.name);
            return Err(LabError::Unexpected(what));
        }
        Ok(first.to_owned())
    }

    /// The port on 127.0.0.1.
    ///
    /// # Errors
    /// It was not published, or Docker does not answer.
    pub fn port(&self) -> Result<u16, LabError> {
        let answer = docker(&["port", &self.name, "5432/tcp"])?;
        let first = answer.lines().next().unwrap_or_default();
        let port = first
            .strip_prefix("127.0.0.1:")
            .and_then(|port| port.trim().parse().ok());
        port.ok_or_else(|| {
            LabError::Unexpected(format!("read the port of {} from `{first}`", self.name))
        })
    }

    /// What the container printed.
    #[must_use]
    pub fn log(&self) -> String {
        let output = Command::new("docker")
            .args(["logs", "--tail", "100", &self.name])
            .output();
        output.map_or_else(
            |error| error.to_string(),
            |output| {
                [output.stdout, output.stderr]
                    .map(|text| String::from_utf8_lossy(&text).into_owned())
                    .concat()
            },
        )
    }

    /// Runs SQL in the server's database; see [`psql`].
    ///
    /// # Errors
    /// As [`psql`].
    pub fn psql(&self, sql: &str) -> Result<String, LabError> {
        psql(&self.name, &self.options.user, &self.options.database, sql)
    }

    /// Runs a shell command in the container and returns what it printed.
    ///
    /// # Errors
    /// It ends with another status than 0.
    pub fn shell(&self, script: &str) -> Result<String, LabError> {
        docker(&["exec", &self.name, "bash", "-o", "pipefail", "-c", script])
    }

    /// Name of the database that the server was started with.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.options.database
    }

    /// Name of its superuser.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.options.user
    }

    /// Stops the server cleanly, with all the time it needs, and removes the container.
    ///
    /// # Errors
    /// The server did not end by itself, or ended with an error.
    pub fn stop(self) -> Result<(), LabError> {
        docker(&["stop", "--time", "300", &self.name])?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.name])?;
        if code.trim() == "0" {
            Ok(())
        } else {
            Err(LabError::Unexpected(format!(
                "stop {}: exit code {}\n{}",
                self.name,
                code.trim(),
                self.log()
            )))
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A second try would not help, and the next process sweeps what stays.
        let _ = docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// Runs SQL with the container's own `psql` over its unix socket and returns the rows, unaligned: one a
/// line, columns parted by `|`. The first error ends it.
///
/// # Errors
/// The container is not there, or a statement fails.
pub fn psql(container: &str, user: &str, database: &str, sql: &str) -> Result<String, LabError> {
    let mut command = Command::new("docker");
    command.args([
        "exec",
        "--interactive",
        container,
        "psql",
        "-X",
        "-q",
        "-A",
        "-t",
    ]);
    command.args(["-v", "ON_ERROR_STOP=1", "-U", user, "-d", database]);
    let text = tool::run_with_input(&mut command, "run SQL", sql.as_bytes())?;
    Ok(text.trim_end_matches('\n').to_owned())
}
