//! Throw-away slapd containers, and what another program than the agent says of a directory.

use std::path::Path;
use std::process::Command;

use crate::error::LabError;
use crate::images::{LABEL, OWNER_LABEL, SLAPD_CONFIG, SLAPD_DATA, docker};
use crate::tool;
use crate::workplace::{owner, unique};

/// Administrator of the data.
pub const ADMIN: &str = "cn=admin,dc=dcm4che,dc=org";
/// Administrator of the configuration.
pub const CONFIG_ADMIN: &str = "cn=admin,cn=config";

/// How to start a [`Slapd`].
#[derive(Debug, Clone)]
pub struct SlapdOptions {
    /// LDAP_ROOTPASS and LDAP_CONFIGPASS.
    pub password: String,
    /// Publishes it on 127.0.0.1, at a port that the kernel picks. Otherwise it has no network.
    pub publish: bool,
}

impl Default for SlapdOptions {
    fn default() -> Self {
        Self {
            password: "secret".to_owned(),
            publish: false,
        }
    }
}

/// A slapd in a container with the names of a Kaapana site, which ends with this value.
#[derive(Debug)]
pub struct Slapd {
    name: String,
}

impl Slapd {
    /// Starts slapd on data and configuration directories, which it fills when they are empty, and
    /// returns when it answers. Without directories everything is in the container and goes with it.
    ///
    /// # Errors
    /// The container does not start, or slapd does not answer within a minute.
    pub fn start(
        image: &str,
        directories: Option<(&Path, &Path)>,
        options: &SlapdOptions,
    ) -> Result<Self, LabError> {
        let name = unique("kaapana-lab-ldap");
        let mut run = Command::new("docker");
        run.args(["run", "--detach", "--name", &name, "--label", LABEL]);
        run.args(["--label", &format!("{OWNER_LABEL}={}", owner())]);
        if options.publish {
            run.args(["--publish", "127.0.0.1::389"]);
        } else {
            run.args(["--network", "none"]);
        }
        for (variable, value) in [
            ("LDAP_ROOTPASS", options.password.as_str()),
            ("LDAP_CONFIGPASS", options.password.as_str()),
            ("ARCHIVE_DEVICE_NAME", "kaapana"),
            ("AE_TITLE", "KAAPANA"),
        ] {
            // Values come from the client's own environment: no password on a command line.
            run.args(["--env", variable]).env(variable, value);
        }
        if let Some((data, config)) = directories {
            for (source, target) in [(data, SLAPD_DATA), (config, SLAPD_CONFIG)] {
                run.arg("--mount").arg(format!(
                    "type=bind,source={},target={target}",
                    source.display()
                ));
            }
        }
        let server = Self { name };
        tool::run(run.arg(image), "start a slapd container")?;
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&self) -> Result<(), LabError> {
        let wait = "until ldapsearch -x -H ldap://127.0.0.1 -s base -b '' >/dev/null 2>&1; do sleep 0.02; done";
        docker(&["exec", &self.name, "timeout", "60", "sh", "-c", wait])
            .map(drop)
            .map_err(|error| {
                let log = Command::new("docker")
                    .args(["logs", "--tail", "50", &self.name])
                    .output()
                    .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
                    .unwrap_or_default();
                LabError::Unexpected(format!("wait for slapd in {}: {error}\n{log}", self.name))
            })
    }

    /// The container's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address on 127.0.0.1, such as `127.0.0.1:4711`.
    ///
    /// # Errors
    /// It was not published, or Docker does not answer.
    pub fn address(&self) -> Result<String, LabError> {
        let answer = docker(&["port", &self.name, "389/tcp"])?;
        Ok(answer.lines().next().unwrap_or_default().trim().to_owned())
    }

    /// Runs a command in the container, whatever its exit status, and returns that with what it printed.
    ///
    /// # Errors
    /// Docker cannot be started.
    pub fn run(&self, command: &[&str]) -> Result<(Option<i32>, String), LabError> {
        let output = Command::new("docker")
            .args(["exec", &self.name])
            .args(command)
            .output()
            .map_err(|error| LabError::Unexpected(format!("run docker exec: {error}")))?;
        let text = [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat();
        Ok((output.status.code(), text))
    }

    /// Applies LDIF records by ldapmodify: what somebody does by hand.
    ///
    /// # Errors
    /// ldapmodify refuses one.
    pub fn modify(&self, records: &str) -> Result<(), LabError> {
        let mut command = Command::new("docker");
        command.args(["exec", "--interactive", &self.name, "sh", "-c"]);
        command.arg(". setenv.sh; as_root ldapmodify");
        tool::run_with_input(&mut command, "change the directory", records.as_bytes()).map(drop)
    }

    /// Returns the data as slapcat writes it, see [`entries_of`].
    ///
    /// # Errors
    /// slapcat fails.
    pub fn data(&self) -> Result<Vec<String>, LabError> {
        self.dump(1)
    }

    /// Returns the configuration as slapcat writes it, see [`entries_of`].
    ///
    /// # Errors
    /// slapcat fails.
    pub fn config(&self) -> Result<Vec<String>, LabError> {
        self.dump(0)
    }

    fn dump(&self, database: u8) -> Result<Vec<String>, LabError> {
        let database = database.to_string();
        let text = docker(&[
            "exec",
            &self.name,
            "/usr/sbin/slapcat",
            "-o",
            "ldif-wrap=no",
            "-F",
            SLAPD_CONFIG,
            "-n",
            &database,
        ])?;
        Ok(entries_of(&text))
    }

    /// Stops slapd cleanly and removes the container.
    ///
    /// # Errors
    /// It does not end by itself.
    pub fn stop(self) -> Result<(), LabError> {
        docker(&["stop", "--time", "60", &self.name])?;
        let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &self.name])?;
        if code.trim() == "0" {
            return Ok(());
        }
        Err(LabError::Unexpected(format!(
            "stop slapd: exit code {}",
            code.trim()
        )))
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// Returns the entries of an unfolded LDIF text: sorted, the lines of each sorted too, without what every
/// writing changes (times, identities, sequence numbers).
#[must_use]
pub fn entries_of(text: &str) -> Vec<String> {
    const CHANGES: [&str; 8] = [
        "entryUUID:",
        "entryCSN:",
        "contextCSN:",
        "createTimestamp:",
        "modifyTimestamp:",
        "creatorsName:",
        "modifiersName:",
        "structuralObjectClass:",
    ];
    let mut entries: Vec<String> = text
        .split("\n\n")
        .filter(|entry| entry.lines().any(|line| line.starts_with("dn:")))
        .map(|entry| {
            let mut lines: Vec<&str> = entry
                .lines()
                .filter(|line| {
                    !line.is_empty() && !CHANGES.iter().any(|name| line.starts_with(name))
                })
                .collect();
            lines.sort_unstable_by_key(|line| (!line.starts_with("dn:"), *line));
            lines.join("\n")
        })
        .collect();
    entries.sort_unstable();
    entries
}
