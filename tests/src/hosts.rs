//! Hosts that are reached over SSH: containers with an address of their own and a real sshd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

use crate::error::{LabError, io_error};
use crate::images::{
    DebianImage, ImageFile, LABEL, OWNER_LABEL, docker, remove_orphaned_containers,
};
use crate::site::Site;
use crate::workplace::{owner, owner_is_alive, unique};
use crate::{apt, tool};

/// A login user who may become root by sudo without a password.
pub const USER: &str = "kaapana";
/// A login user who may not.
pub const MERE_USER: &str = "visitor";

const ENTRY: &str = "#!/bin/sh
# Keys of its own for every container, as every host has.
ssh-keygen -A >/dev/null
# Where systemd runs the host, it is what starts sshd.
if [ -x /sbin/init ]; then exec /sbin/init; fi
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e
";

/// Returns the image of a host with these packages beside those that every host has, built where it is
/// missing.
///
/// # Errors
/// As [`DebianImage::ensure`].
pub fn host_image(suite: &str, more: &[&str]) -> Result<String, LabError> {
    let file = |path: &str, mode: u32, content: &str| ImageFile {
        path: path.to_owned(),
        mode,
        content: content.as_bytes().to_vec(),
    };
    DebianImage {
        repository: "kaapana-lab/host".to_owned(),
        version: [&[suite], more].concat().join("-"),
        suite: suite.to_owned(),
        packages: [&["openssh-server", "sudo", "iproute2", "procps"], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        after: format!(
            "rm -f /etc/ssh/ssh_host_*\n\
             useradd --create-home --shell /bin/bash {USER}\n\
             useradd --create-home --shell /bin/bash {MERE_USER}"
        ),
        files: vec![
            file("/entry.sh", 0o755, ENTRY),
            file(
                "/etc/sudoers.d/lab",
                0o440,
                &format!("{USER} ALL=(ALL) NOPASSWD: ALL\n"),
            ),
            file(
                "/etc/ssh/sshd_config.d/lab.conf",
                0o644,
                "PasswordAuthentication no\nMaxSessions 30\nMaxStartups 100\n",
            ),
        ],
        config: vec![r#"ENTRYPOINT ["/entry.sh"]"#.to_owned()],
        ..DebianImage::default()
    }
    .ensure()
}

/// A network with hosts in it, and a client's ssh folder that knows them. All of it ends with this value.
#[derive(Debug)]
pub struct Network {
    name: String,
    home: tempfile::TempDir,
    hosts: Vec<Host>,
}

/// A host.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name in inventories.
    pub name: String,
    /// Its container.
    pub container: String,
    /// Its address.
    pub address: String,
    /// Its variables in the inventory, beside how it is reached.
    pub vars: Map<String, Value>,
}

impl Network {
    /// Makes a network and a key for its hosts.
    ///
    /// # Errors
    /// Docker or ssh-keygen refuses.
    pub fn new() -> Result<Self, LabError> {
        apt::ensure("ssh", "openssh-client")?;
        sweep();
        let name = unique("kaapana-lab-net");
        create(&name)?;
        let home = tempfile::tempdir().map_err(io_error("create", Path::new("/tmp")))?;
        let network = Self {
            name,
            home,
            hosts: Vec::new(),
        };
        let mut keygen = Command::new("ssh-keygen");
        keygen
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(network.key());
        tool::run(&mut keygen, "make a key")?;
        Ok(network)
    }

    fn key(&self) -> PathBuf {
        self.home.path().join("id")
    }

    /// `known_hosts` of the client.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.home.path().join("known_hosts")
    }

    /// A folder for the test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// The hosts.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Starts a host. `more` are arguments of `docker run`.
    ///
    /// # Errors
    /// It does not start.
    pub fn add(&mut self, name: &str, suite: &str, more: &[&str]) -> Result<Host, LabError> {
        self.add_of(name, &host_image(suite, &[])?, more)
    }

    /// As [`Network::add`], of an image that is there.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_of(&mut self, name: &str, image: &str, more: &[&str]) -> Result<Host, LabError> {
        self.start(name, image, &[&["--init"], more].concat())
    }

    /// As [`Network::add`], of a host that systemd runs.
    ///
    /// # Errors
    /// As [`Network::add`].
    pub fn add_with_systemd(&mut self, name: &str, suite: &str) -> Result<Host, LabError> {
        let image = host_image(suite, &["systemd-sysv", "dbus"])?;
        let may = [
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
        ];
        let places = ["--tmpfs", "/run", "--tmpfs", "/run/lock"];
        let groups = [
            "--cgroupns=host",
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
        ];
        self.start(name, &image, &[&may[..], &places, &groups].concat())
    }

    fn start(&mut self, name: &str, image: &str, more: &[&str]) -> Result<Host, LabError> {
        let container = unique("kaapana-lab-host");
        let labels = [format!("{LABEL}=1"), format!("{OWNER_LABEL}={}", owner())];
        let mut arguments = vec!["run", "--detach", "--name", &container];
        for label in &labels {
            arguments.extend(["--label", label]);
        }
        arguments.extend(["--network", &self.name, "--hostname", name]);
        arguments.extend(["--cap-add", "NET_ADMIN"]);
        arguments.extend(more);
        arguments.push(image);
        docker(&arguments)?;
        let mut host = Host {
            name: name.to_owned(),
            container,
            address: String::new(),
            vars: Map::new(),
        };
        self.hosts.push(host.clone());
        host.learn_address(&self.name)?;
        if let Some(kept) = self.hosts.last_mut() {
            kept.address.clone_from(&host.address);
        }
        let public = fs::read_to_string(self.key().with_extension("pub"))
            .map_err(io_error("read", &self.key()))?;
        for (user, home) in [
            ("root", "/root".to_owned()),
            (USER, format!("/home/{USER}")),
            (MERE_USER, format!("/home/{MERE_USER}")),
        ] {
            let script = format!(
                "install -d -m 700 -o {user} {home}/.ssh && printf '%s' '{}' > \
                 {home}/.ssh/authorized_keys && chown {user} {home}/.ssh/authorized_keys",
                public.trim()
            );
            host.sh(&script)?;
        }
        self.note_key(&host)?;
        Ok(host)
    }

    /// Starts a host that has a site, at the site's own path, and the Docker daemon. The agent's folder there
    /// is in the site's: the daemon, which is outside, must find at the same path what services mount.
    ///
    /// # Errors
    /// As [`Network::add`].
    pub fn add_site(&mut self, name: &str, suite: &str, site: &Site) -> Result<Host, LabError> {
        self.add_site_of(name, &host_image(suite, &[])?, site)
    }

    /// As [`Network::add_site`], of an image that is there.
    ///
    /// # Errors
    /// As [`Network::add`].
    pub fn add_site_of(&mut self, name: &str, image: &str, site: &Site) -> Result<Host, LabError> {
        let root = site.root.display();
        let volumes = [
            format!("--volume={root}:{root}"),
            "--volume=/var/run/docker.sock:/var/run/docker.sock".to_owned(),
        ];
        let host = self.add_of(name, image, &volumes.each_ref().map(String::as_str))?;
        // Where the servers that the agent starts are.
        docker(&["network", "connect", "bridge", &host.container])?;
        Ok(host)
    }

    /// Gives a host variables in the inventory.
    pub fn set(&mut self, name: &str, vars: &Value) {
        let host = self.hosts.iter_mut().find(|host| host.name == name);
        if let (Some(host), Some(vars)) = (host, vars.as_object()) {
            host.vars.extend(vars.clone());
        }
    }

    /// Notes a host's key in `known_hosts`, as a careful person would.
    ///
    /// # Errors
    /// It has none yet, or the file cannot be written.
    pub fn note_key(&self, host: &Host) -> Result<(), LabError> {
        let mut key = String::new();
        for _ in 0..100 {
            key = host
                .sh("cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null; true")?
                .trim()
                .to_owned();
            if key.starts_with("ssh-ed25519")
                && host.sh("ss -ltn | grep -q ':22 '; echo $?")?.trim() == "0"
            {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let path = self.known_hosts();
        let before = fs::read_to_string(&path).unwrap_or_default();
        let others = before
            .lines()
            .filter(|line| !line.starts_with(&format!("{} ", host.address)));
        let mut lines: Vec<String> = others.map(str::to_owned).collect();
        lines.push(format!("{} {key}", host.address));
        fs::write(&path, lines.join("\n") + "\n").map_err(io_error("write", &path))
    }

    /// A client's configuration (`ssh -F`) that knows the hosts' keys and ours; `more` are further lines.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn ssh_config(&self, more: &str) -> Result<PathBuf, LabError> {
        let path = self.home.path().join("ssh_config");
        let text = format!(
            "{more}\nHost *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  \
             IdentityFile {}\n  IdentitiesOnly yes\n  User {USER}\n",
            self.known_hosts().display(),
            self.key().display()
        );
        fs::write(&path, text).map_err(io_error("write", &path))?;
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, mode).map_err(io_error("change the mode of", &path))?;
        Ok(path)
    }

    /// Writes an inventory of the hosts, in YAML: a group `sites`, reached by [`Network::ssh_config`].
    ///
    /// # Errors
    /// It cannot be written.
    pub fn inventory(&self, vars: &str) -> Result<PathBuf, LabError> {
        let config = self.ssh_config("")?;
        let path = self.home.path().join("inventory.yaml");
        let mut text = String::from("sites:\n  hosts:\n");
        for host in &self.hosts {
            let mut vars = host.vars.clone();
            vars.insert("ansible_host".into(), host.address.clone().into());
            // JSON is YAML.
            text.push_str(&format!("    {}: {}\n", host.name, Value::Object(vars)));
        }
        text.push_str(&format!(
            "  vars:\n    ansible_ssh_common_args: -F {}\n{vars}",
            config.display()
        ));
        fs::write(&path, text).map_err(io_error("write", &path))?;
        Ok(path)
    }

    /// Takes a host off the network.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn cut(&self, host: &Host) -> Result<(), LabError> {
        docker(&["network", "disconnect", &self.name, &host.container]).map(drop)
    }

    /// Puts a host back, with the address that it had.
    ///
    /// # Errors
    /// Docker refuses.
    pub fn mend(&self, host: &Host) -> Result<(), LabError> {
        let address = ["network", "connect", "--ip", &host.address];
        docker(&[&address[..], &[&self.name, &host.container]].concat()).map(drop)
    }
}

/// Makes a network with a subnet that nobody uses: hosts come back with the address that they had only where
/// the subnet was named.
fn create(name: &str) -> Result<(), LabError> {
    let labels = [format!("{LABEL}=1"), format!("{OWNER_LABEL}={}", owner())];
    let first = std::process::id();
    let mut last = None;
    for attempt in 0..32 {
        let subnet = format!("10.217.{}.0/24", (first + attempt) % 256);
        let made = docker(&[
            "network", "create", "--subnet", &subnet, "--label", &labels[0], "--label", &labels[1],
            name,
        ]);
        match made {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| LabError::Unexpected("no subnet was tried".into())))
}

/// Removes networks whose owner is gone, with what is still in them.
fn sweep() {
    let form = format!("{{{{.Name}}}} {{{{.Label \"{OWNER_LABEL}\"}}}}");
    let filter = format!("label={LABEL}=1");
    let listed = docker(&["network", "ls", "--filter", &filter, "--format", &form]);
    let _ = remove_orphaned_containers(false);
    for line in listed.unwrap_or_default().lines() {
        if let Some((name, owner)) = line.split_once(' ')
            && !owner_is_alive(owner)
        {
            let _ = docker(&["network", "rm", name]);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            // Best effort all of it: what stays is swept by the next process.
            let _ = docker(&["rm", "--force", "--volumes", &host.container]);
        }
        let _ = docker(&["network", "rm", &self.name]);
    }
}

impl Host {
    fn learn_address(&mut self, network: &str) -> Result<(), LabError> {
        let form = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        let address = docker(&["inspect", "--format", &form, &self.container])?;
        self.address = address.trim().to_owned();
        Ok(())
    }

    /// Runs a script there as root, without ssh.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, script: &str) -> Result<String, LabError> {
        docker(&["exec", &self.container, "sh", "-c", script])
    }

    /// Loses a part of all packets, in both directions.
    ///
    /// # Errors
    /// The kernel's iptables cannot do that.
    pub fn lose(&self, share: f64) -> Result<(), LabError> {
        let share = share.to_string();
        for chain in ["INPUT", "OUTPUT"] {
            let rule = [
                "-A",
                chain,
                "-m",
                "statistic",
                "--mode",
                "random",
                "--probability",
                &share,
                "-j",
                "DROP",
            ];
            self.in_its_network("iptables", &rule)?;
        }
        Ok(())
    }

    /// Lets no more than so many bits a second out.
    ///
    /// # Errors
    /// The kernel's traffic control cannot do that.
    pub fn throttle(&self, rate: &str) -> Result<(), LabError> {
        let queue = [
            "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb", "default", "1",
        ];
        self.in_its_network("tc", &queue)?;
        let class = [
            "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:1", "htb", "rate", rate,
        ];
        self.in_its_network("tc", &class)
    }

    /// Takes [`Host::lose`] and [`Host::throttle`] back.
    ///
    /// # Errors
    /// The host is down.
    pub fn heal(&self) -> Result<(), LabError> {
        for chain in ["INPUT", "OUTPUT"] {
            self.in_its_network("iptables", &["-F", chain])?;
        }
        // Fails where nothing was throttled.
        let _ = self.in_its_network("tc", &["qdisc", "del", "dev", "eth0", "root"]);
        Ok(())
    }

    /// A command of this machine in the host's network.
    fn in_its_network(&self, program: &str, arguments: &[&str]) -> Result<(), LabError> {
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &self.container])?;
        let mut command = Command::new("nsenter");
        command
            .args(["--target", pid.trim(), "--net", program])
            .args(arguments);
        tool::run(&mut command, "change a host's network").map(drop)
    }

    /// Processes of the agent there, by their command lines.
    ///
    /// # Errors
    /// The host is down.
    pub fn agents(&self) -> Result<Vec<String>, LabError> {
        let listed = self.sh("pgrep -a kaapana-agent; true")?;
        Ok(listed.lines().map(str::to_owned).collect())
    }
}
