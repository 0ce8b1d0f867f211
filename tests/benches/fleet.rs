//! Many hosts: the agent beside ansible-core and beside bare ssh, and the sending of the agent beside scp.
//!
//! `cargo bench --bench fleet`. Every run does all of its tasks: the agent gets a new state for each. The tasks
//! are commands that do nothing, which bare ssh can run, too, and `ping`, which does nothing by itself. What
//! goes to the hosts is the portable agent, as a site has it. Fails below the ratios that are promised.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use lab::conformance::Ansible;
use lab::controller::Controller;
use lab::hosts::{Host, Network, host_image};
use lab::portable::shipped_agent;
use lab::timing::{median, shown};

/// What the tasks are, and Ansible's time over ours, at least: 20 is what is promised for tasks that do
/// nothing. A command is a process, and a guard that ends it should the agent be killed; it is kept from
/// getting worse.
const TASKS: [(&str, f64); 2] = [("ping: {}", 20.0), ("command: /bin/true", 17.0)];
/// Our time over that of bare ssh, at most.
const PROMISED_TO_SSH: f64 = 2.0;
/// Our rate over that of scp, at least.
const PROMISED_TO_SCP: f64 = 0.9;

#[derive(Debug, Parser)]
struct Arguments {
    /// How many hosts
    #[arg(long, default_value_t = 16)]
    hosts: usize,
    /// How many tasks the playbook has
    #[arg(long, default_value_t = 10)]
    tasks: usize,
    /// Rounds; each has every peer once
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Rounds of sending the agent
    #[arg(long, default_value_t = 5)]
    pushes: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

type Times = Result<Duration, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut network = Network::new()?;
    let image = host_image("bookworm", &["python3"])?;
    for number in 0..arguments.hosts {
        // A host's home is no layer of a container, which a daemon without privileges serves by FUSE.
        network.add_of(
            &format!("host{number}"),
            &image,
            &["--volume=/home/kaapana"],
        )?;
    }
    let bench = Bench {
        network: &network,
        agent: shipped_agent()?,
        forks: arguments.hosts.to_string(),
        config: network.ssh_config("")?,
    };
    let ansible = Ansible::install()?;
    let (hosts, tasks, runs) = (arguments.hosts, arguments.tasks, arguments.runs);
    let mut missed = Vec::new();
    for (module, promised) in TASKS {
        let text = "- hosts: sites\n  gather_facts: false\n  tasks:\n".to_owned()
            + &(0..tasks)
                .map(|task| format!("    - {{name: Task {task}, {module}}}\n"))
                .collect::<String>();
        let name = |round: &str| format!("{}-{round}", module.len());
        let [mut ours, mut theirs, mut bare] = [const { Vec::new() }; 3];
        bench.agent(&text, &name("first"))?;
        for round in 0..runs {
            ours.push(bench.agent(&text, &name(&round.to_string()))?);
            bare.push(bench.bare(tasks)?);
            theirs.push(bench.ansible(&ansible)?);
        }
        let (to_ansible, to_ssh) = (
            median(&theirs).as_secs_f64() / median(&ours).as_secs_f64(),
            median(&ours).as_secs_f64() / median(&bare).as_secs_f64(),
        );
        println!("{hosts} hosts, {tasks} times `{module}`, medians");
        println!("agent                        {} s", shown(&ours, 2));
        println!("ssh HOST sh -c …, parallel   {} s", shown(&bare, 2));
        println!("ansible-core, pipelining     {} s", shown(&theirs, 2));
        println!("ansible-core / agent         {to_ansible:.1} (at least {promised})");
        println!("agent / ssh                  {to_ssh:.2} (at most {PROMISED_TO_SSH})");
        if to_ansible < promised {
            missed.push("beside ansible-core");
        }
        if to_ssh > PROMISED_TO_SSH {
            missed.push("beside ssh");
        }
    }

    let to_scp = bench.push(arguments.pushes)?;
    if to_scp < PROMISED_TO_SCP {
        missed.push("beside scp");
    }
    match missed.as_slice() {
        [] => Ok(()),
        missed => Err(format!("too slow {}", missed.join(", ")).into()),
    }
}

struct Bench<'n> {
    network: &'n Network,
    agent: PathBuf,
    forks: String,
    config: PathBuf,
}

impl Bench<'_> {
    /// The agent, with a state that was never there. The agent itself is on the hosts already.
    fn agent(&self, text: &str, state: &str) -> Times {
        let vars = format!("    kaapana_agent_state: /home/kaapana/state-{state}\n");
        let mut controller = Controller::with(self.network, text, &vars)?;
        controller.agent = Some(self.agent.clone());
        self.forget_copies()?;
        let since = Instant::now();
        controller
            .run(&["run"], &["--forks", &self.forks])?
            .must_have(0)?;
        Ok(since.elapsed())
    }

    /// A copy of another state would be refused.
    fn forget_copies(&self) -> Result<(), Box<dyn Error>> {
        let copies = self.network.folder().join("state");
        if copies.exists() {
            fs::remove_dir_all(copies)?;
        }
        Ok(())
    }

    fn ssh(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-F")
            .arg(&self.config)
            .args(["-o", "BatchMode=yes", "-q"])
            .stdin(Stdio::null());
        command
    }

    /// All hosts at once, each with one connection and one shell.
    fn bare(&self, tasks: usize) -> Times {
        let script = format!("for i in $(seq {tasks}); do /bin/true; done");
        let since = Instant::now();
        let children: Vec<Child> = self
            .network
            .hosts()
            .iter()
            .map(|host| {
                let mut ssh = self.ssh("ssh");
                ssh.arg(&host.address).arg(&script).spawn()
            })
            .collect::<Result<_, _>>()?;
        for mut child in children {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("ssh ended with {status}").into());
            }
        }
        Ok(since.elapsed())
    }

    fn ansible(&self, ansible: &Ansible) -> Times {
        let folder = self.network.folder();
        let mut command = ansible.command(folder);
        command
            .arg(folder.join("playbooks/own.yaml"))
            .arg("-i")
            .arg(folder.join("inventory.yaml"))
            .args(["--forks", &self.forks])
            .env("ANSIBLE_PIPELINING", "true")
            .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3");
        let since = Instant::now();
        let output = command.output()?;
        let took = since.elapsed();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stdout).into_owned().into());
        }
        Ok(took)
    }

    /// Sends the agent, in turns with scp; what the run takes beside that is taken off. Returns our rate over
    /// that of scp.
    fn push(&self, rounds: usize) -> Result<f64, Box<dyn Error>> {
        let agent = &self.agent;
        let size = fs::metadata(agent)?.len();
        let host = &self.network.hosts()[0];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let with = self.send(agent, host, &format!("push{round}"), true)?;
            let without = self.send(agent, host, &format!("push{round}"), false)?;
            ours.push(with.saturating_sub(without));
            theirs.push(self.scp(agent, host)?);
        }
        let rate = |times: &[Duration]| size as f64 / 1e6 / median(times).as_secs_f64();
        let (ours, theirs) = (rate(&ours), rate(&theirs));
        let ratio = ours / theirs;
        println!("sending {} MB", size / 1_000_000);
        println!("agent                        {ours:.0} MB/s");
        println!("scp                          {theirs:.0} MB/s");
        println!("agent / scp                  {ratio:.2} (at least {PROMISED_TO_SCP})");
        Ok(ratio)
    }

    /// One task on one host; the agent is `new` there, or not.
    fn send(&self, agent: &Path, host: &Host, name: &str, new: bool) -> Times {
        let text = "- hosts: sites\n  gather_facts: false\n  tasks:\n    - command: /bin/true\n";
        let vars = format!(
            "    kaapana_agent_dir: /home/kaapana/{name}\n    \
             kaapana_agent_state: /home/kaapana/state-{name}-{new}\n"
        );
        let mut controller = Controller::with(self.network, text, &vars)?;
        controller.agent = Some(agent.to_path_buf());
        self.forget_copies()?;
        let since = Instant::now();
        let more = ["--limit", &host.name];
        controller.run(&["run"], &more)?.must_have(0)?;
        let took = since.elapsed();
        if !new {
            host.sh(&format!("rm -rf /home/kaapana/{name}"))?;
        }
        Ok(took)
    }

    fn scp(&self, agent: &Path, host: &Host) -> Times {
        let since = Instant::now();
        let mut scp = self.ssh("scp");
        let status = scp
            .arg(agent)
            .arg(format!("{}:/home/kaapana/copied", host.address))
            .status()?;
        let took = since.elapsed();
        host.sh("rm -f /home/kaapana/copied")?;
        if status.success() {
            Ok(took)
        } else {
            Err(format!("scp ended with {status}").into())
        }
    }
}
