//! The user's own OpenSSH: commands on a host, those at the same time over one connection.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::error::RemoteError;
use super::shell::{quoted, words};

/// Seconds until a host that does not answer counts as unreachable.
const CONNECT_TIMEOUT: u32 = 10;
/// Seconds between signs of life on a silent connection; three without an answer end it.
const ALIVE_INTERVAL: u32 = 5;
/// How often a host is tried, once a second: just after a cable was plugged in, the first packet is lost.
const ATTEMPTS: u32 = 2;
/// ssh's own exit status, whatever the command's.
const SSH_FAILED: i32 = 255;

/// How root is become.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Become {
    /// Not at all: as the login user.
    #[default]
    No,
    /// `sudo -n`: without a password.
    Sudo,
    /// `sudo -S`, with this password on its standard input.
    SudoWithPassword(String),
}

impl std::fmt::Debug for Become {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::No => "No",
            Self::Sudo => "Sudo",
            Self::SudoWithPassword(_) => "SudoWithPassword(..)",
        })
    }
}

/// How a host is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// `ansible_host`: name or address.
    pub address: String,
    /// `ansible_port`.
    pub port: Option<u16>,
    /// `ansible_user`.
    pub user: Option<String>,
    /// `ansible_ssh_private_key_file`.
    pub key: Option<PathBuf>,
    /// `ansible_ssh_common_args` and `ansible_ssh_extra_args`, as words.
    pub arguments: Vec<String>,
    /// `ansible_connection: local`: this host, without ssh.
    pub local: bool,
    /// `ansible_become`.
    pub r#become: bool,
    /// `kaapana_agent_dir`: the agent's folder there.
    pub dir: Option<String>,
}

impl Target {
    /// Reads a host's connection variables, with Ansible's names and meanings. The others are not looked
    /// at.
    ///
    /// # Errors
    /// A variable whose value is of the wrong kind, or that asks for something that is not supported, with
    /// the way to do it: name of the variable, and what is wrong.
    pub fn of(name: &str, vars: &Map<String, Value>) -> Result<Self, (String, String)> {
        let text = |key: &str| {
            match vars.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.contains("{{") => Err((
                key.to_owned(),
                "connection variables are needed before templates can be rendered: write the value itself"
                    .to_owned(),
            )),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Bool(value)) => Ok(Some(value.to_string())),
            Some(_) => Err((key.to_owned(), "expected a text".to_owned())),
        }
        };
        for key in [
            "ansible_password",
            "ansible_ssh_pass",
            "ansible_ssh_password",
        ] {
            if vars.contains_key(key) {
                let why = "passwords are not given to ssh: use a key (`ssh-copy-id`), or ssh-agent";
                return Err((key.to_owned(), why.to_owned()));
            }
        }
        for key in ["ansible_become_password", "ansible_become_pass"] {
            if vars.contains_key(key) {
                let why = "sudo's password is not kept in files: give it once with --ask-become-pass (-K)";
                return Err((key.to_owned(), why.to_owned()));
            }
        }
        let local = match text("ansible_connection")?.as_deref() {
            None | Some("ssh" | "smart" | "openssh" | "ansible.builtin.ssh") => false,
            Some("local" | "ansible.builtin.local") => true,
            Some(other) => {
                let why = format!("`{other}` is not supported: `ssh` or `local`");
                return Err(("ansible_connection".to_owned(), why));
            }
        };
        for (key, only) in [
            ("ansible_become_user", "root"),
            ("ansible_become_method", "sudo"),
        ] {
            if text(key)?.is_some_and(|value| value != only) {
                return Err((key.to_owned(), format!("only `{only}` is supported")));
            }
        }
        let port = text("ansible_port")?
            .map(|port| port.parse())
            .transpose()
            .map_err(|_| ("ansible_port".to_owned(), "expected a number".to_owned()))?;
        let yes =
            |text: String| matches!(text.to_lowercase().as_str(), "true" | "yes" | "on" | "1");
        let mut arguments = Vec::new();
        for key in ["ansible_ssh_common_args", "ansible_ssh_extra_args"] {
            arguments.extend(words(&text(key)?.unwrap_or_default()));
        }
        Ok(Self {
            address: text("ansible_host")?.unwrap_or_else(|| name.to_owned()),
            port,
            user: text("ansible_user")?.or(text("ansible_ssh_user")?),
            key: text("ansible_ssh_private_key_file")?.map(PathBuf::from),
            arguments,
            local,
            r#become: text("ansible_become")?.is_some_and(yes),
            dir: text("kaapana_agent_dir")?,
        })
    }
}

/// Commands on one host. Those that begin while another one runs share its connection.
#[derive(Debug)]
pub struct SshConnection {
    target: Target,
    control: PathBuf,
    r#become: Become,
}

impl SshConnection {
    /// A wire to a host. `sockets` is a private folder with a short path: a unix socket's path holds at
    /// most 104 bytes.
    #[must_use]
    pub fn new(target: Target, sockets: &Path, r#become: Become) -> Self {
        Self {
            target,
            control: sockets.join("%C"),
            r#become,
        }
    }

    /// How the host is reached.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        // ssh takes the first value that it meets: what the user says about a host comes before ours.
        ssh.args(&self.target.arguments);
        let options = [
            "BatchMode=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "ControlMaster=auto".to_owned(),
            // The first command's: it lasts as long as that one.
            "ControlPersist=no".to_owned(),
            format!("ConnectionAttempts={ATTEMPTS}"),
            format!("ConnectTimeout={CONNECT_TIMEOUT}"),
            format!("ServerAliveInterval={ALIVE_INTERVAL}"),
            "ServerAliveCountMax=3".to_owned(),
            format!("ControlPath={}", self.control.display()),
        ];
        for option in options {
            ssh.args(["-o", &option]);
        }
        if let Some(port) = self.target.port {
            ssh.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &self.target.user {
            ssh.args(["-l", user]);
        }
        if let Some(key) = &self.target.key {
            ssh.arg("-i").arg(key).args(["-o", "IdentitiesOnly=yes"]);
        }
        ssh
    }

    /// A shell script on the host, as root where that was asked for; all three streams are pipes.
    fn script(&self, script: &str) -> Command {
        let script = format!("sh -c {}", quoted(script));
        let line = match &self.r#become {
            Become::No => format!("exec {script}"),
            Become::Sudo => format!("sudo -n -- {script}"),
            Become::SudoWithPassword(_) => {
                format!("exec sh -c {}", quoted(&with_password(&script)))
            }
        };
        let mut command = if self.target.local {
            let mut shell = Command::new("sh");
            shell.args(["-c", &line]);
            shell
        } else {
            let mut ssh = self.ssh();
            ssh.args(["-T", "--", &self.target.address, &line]);
            ssh
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts a script on the host. What sudo wants to read is written already.
    ///
    /// # Errors
    /// OpenSSH's client cannot be started.
    pub async fn start(&self, script: &str) -> Result<Child, RemoteError> {
        let program = if self.target.local { "sh" } else { "ssh" };
        let mut child = self
            .script(script)
            .spawn()
            .map_err(|source| RemoteError::Spawn {
                program: program.to_owned(),
                source,
            })?;
        if let (Become::SudoWithPassword(password), Some(stdin)) =
            (&self.r#become, &mut child.stdin)
        {
            // Where nobody reads, the command's end tells more than this write.
            let _ = stdin.write_all(format!("{password}\n").as_bytes()).await;
        }
        Ok(child)
    }

    /// Runs a script to its end, with these bytes on its standard input.
    ///
    /// # Errors
    /// No connection, no login, no sudo. A script that fails is not an error of the wire.
    pub async fn run(&self, script: &str, input: &[u8]) -> Result<Output, RemoteError> {
        let mut child = self.start(script).await?;
        let stdin = child.stdin.take();
        let write = async {
            if let Some(mut stdin) = stdin {
                // As above; dropping it ends the input.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        let output = output.map_err(RemoteError::io("wait for", "ssh"))?;
        self.judge(output.status.code(), &output.stderr)?;
        Ok(output)
    }

    /// Tells what ssh or sudo said from what the script said.
    ///
    /// # Errors
    /// The connection, the login or sudo failed.
    pub fn judge(&self, code: Option<i32>, stderr: &[u8]) -> Result<(), RemoteError> {
        let text = String::from_utf8_lossy(stderr);
        let said = last_line(&text);
        if !self.target.local && code == Some(SSH_FAILED) {
            return Err(ssh_failure(&text, said));
        }
        if self.r#become != Become::No && code == Some(1) && text.contains("sudo:") {
            return Err(RemoteError::Sudo { said });
        }
        Ok(())
    }
}

/// What runs a command by a sudo whose password is the first line of standard input. A wrong password is
/// tried once: sudo's next try would be a line that is meant for the command, or wait for one that never
/// comes. Where sudo does not ask, as it need not or remembers, the command must not see the password either.
fn with_password(command: &str) -> String {
    format!(
        "IFS= read -r P; printf '%s\\n' \"$P\" | sudo -S -p '' -- true || exit 1; \
         if sudo -n -- true 2>/dev/null; then sudo -n -- {command}; \
         else {{ printf '%s\\n' \"$P\"; cat; }} | sudo -S -p '' -- {command}; fi"
    )
}

/// The last line that says something.
pub(super) fn last_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or("nothing was said").to_owned()
}

fn ssh_failure(text: &str, said: String) -> RemoteError {
    let has = |part: &str| text.contains(part);
    if has("Host key verification failed") || has("HOST IDENTIFICATION HAS CHANGED") {
        let said = if has("IDENTIFICATION HAS CHANGED") {
            "it has changed since it was noted in known_hosts".to_owned()
        } else {
            text.lines()
                .find(|line| line.contains("host key is known") || line.contains("key for"))
                .map_or(said, |line| line.trim().to_owned())
        };
        return RemoteError::HostKey { said };
    }
    if has("Permission denied") || has("Too many authentication failures") {
        let line = text
            .lines()
            .find(|line| line.contains("denied") || line.contains("Too many"));
        return RemoteError::Refused {
            said: line.map_or(said, |line| line.trim().to_owned()),
        };
    }
    RemoteError::Unreachable { said }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn vars(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn ansibles_variables_say_how_a_host_is_reached() {
        let vars = vars(json!({
            "ansible_host": "192.0.2.7", "ansible_port": 2222, "ansible_user": "kaapana",
            "ansible_ssh_private_key_file": "~/.ssh/id", "ansible_become": "yes",
            "ansible_ssh_common_args": "-o ProxyCommand='ssh -W %h:%p jump'", "unrelated": [1],
        }));
        let target = Target::of("site-a", &vars).expect("sound");
        assert_eq!(
            (target.address.as_str(), target.port),
            ("192.0.2.7", Some(2222))
        );
        assert_eq!(target.arguments, ["-o", "ProxyCommand=ssh -W %h:%p jump"]);
        assert!(target.r#become && !target.local);
        assert_eq!(
            Target::of("site-a", &Map::new()).expect("sound").address,
            "site-a"
        );
    }

    #[test]
    fn what_is_not_supported_is_said_and_never_ignored() {
        for (vars, key) in [
            (json!({"ansible_password": "x"}), "ansible_password"),
            (json!({"ansible_become_pass": "x"}), "ansible_become_pass"),
            (json!({"ansible_connection": "winrm"}), "ansible_connection"),
            (
                json!({"ansible_become_user": "postgres"}),
                "ansible_become_user",
            ),
            (json!({"ansible_port": "ssh"}), "ansible_port"),
            (
                json!({"ansible_host": "{{ name }}.example"}),
                "ansible_host",
            ),
        ] {
            let (found, why) = Target::of("a", &self::vars(vars)).expect_err(key);
            assert_eq!(found, key);
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn what_ssh_says_is_told_apart() {
        let wire = SshConnection::new(Target::default(), Path::new("/tmp"), Become::Sudo);
        let code = |code, text: &str| {
            let error = wire.judge(Some(code), text.as_bytes()).err();
            error.map(|error| error.code().to_owned())
        };
        let known = [
            (
                "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.",
                "remote::host_key",
            ),
            (
                "kaapana@h: Permission denied (publickey).",
                "remote::login_refused",
            ),
            (
                "ssh: connect to host h port 22: Connection refused",
                "remote::unreachable",
            ),
            ("", "remote::unreachable"),
        ];
        for (text, expected) in known {
            assert_eq!(code(255, text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(
            code(1, "sudo: a password is required").as_deref(),
            Some("remote::sudo")
        );
        assert_eq!(code(1, "cat: no such file"), None);
        assert_eq!(code(0, ""), None);
    }
}
