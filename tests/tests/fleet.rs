//! Many hosts: in batches, one agent for all of them, whole migrations and random faults over SSH.

use std::error::Error;
use std::fs;
use std::process::Command;

use lab::controller::Controller;
use lab::crash::{faults_between_hosts, migrations_over_ssh};
use lab::hosts::Network;
use lab::portable::portable_agent;
use lab::site::Scale;

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn hosts_go_in_batches_and_a_batch_that_failed_ends_the_rest() -> Outcome {
    let mut network = Network::new()?;
    let names = ["first", "second", "third"];
    let mut hosts = Vec::new();
    for name in names {
        hosts.push(network.add(name, "bookworm", &[])?);
    }
    let folder = network.folder().display().to_string();
    let play = "- hosts: sites\n  become: true\n  serial: [1, 2]\n  tasks:\n    \
                - {id: count, shell: echo once >> /srv/count}\n    \
                - {id: check, command: test -e /srv/good}\n";
    let controller = Controller::with(&network, play, "")?;
    let failed = controller.run(&["run"], &[])?;
    failed.must_have(2)?;
    failed.must_say(&["not begun: every host of the batch before failed"])?;
    assert!(hosts[1].sh("cat /srv/count").is_err(), "it has not begun");

    hosts[0].sh("touch /srv/good")?;
    hosts[2].sh("touch /srv/good")?;
    // Of two, one fails: that is not the whole batch.
    controller.run(&["run"], &[])?.must_have(2)?;
    hosts[1].sh("touch /srv/good")?;
    controller.run(&["run"], &[])?.must_have(0)?;
    for host in &hosts {
        assert_eq!(host.sh("cat /srv/count")?, "once\n");
    }

    // What would mean something else with several hosts is refused before any of them is asked.
    let play = "- hosts: sites\n  serial: 2\n  tasks:\n    - {command: ls, run_once: true}\n\
                - hosts: sites\n  serial: 3\n  tasks:\n    - command: ls\n";
    let refused = Controller::with(&network, play, "")?.run(&["run"], &[])?;
    refused.must_have(5)?;
    refused.must_say(&[
        &format!("{folder}/playbooks/own.yaml:6:3"),
        "different batches",
    ])?;
    let play = play.replace("serial: 3", "serial: 2");
    let refused = Controller::with(&network, &play, "")?.run(&["run"], &[])?;
    refused.must_have(5)?;
    refused.must_say(&["own.yaml:4:", "`run_once`", "GROUP[0]"])?;
    Ok(())
}

#[test]
fn where_errors_are_fatal_the_other_hosts_end_behind_their_task() -> Outcome {
    let mut network = Network::new()?;
    let (bad, good) = (
        network.add("bad", "bookworm", &[])?,
        network.add("good", "bookworm", &[])?,
    );
    let play = "- hosts: sites\n  become: true\n  any_errors_fatal: true\n  tasks:\n    \
                - {id: long, shell: echo begun >> /srv/effects; sleep 8; echo ended >> /srv/effects}\n    \
                - {id: last, shell: echo last >> /srv/effects}\n";
    // It fails when it is told to: the other one may be slow to begin.
    let play = play.replace(
        "    - {id: long",
        "    - {id: check, shell: while test -e /srv/bad; do test ! -e /srv/go || exit 1; sleep 0.1; done}\n    \
             - {id: long",
    );
    bad.sh("touch /srv/bad")?;
    let controller = Controller::with(&network, &play, "")?;
    let mut run = controller.start(&["run"], &[])?;
    run.wait_for("the long task", || good.sh("test -e /srv/effects").is_ok())?;
    bad.sh("touch /srv/go")?;
    let ended = run.end()?;
    ended.must_have(2)?;
    ended.must_say(&["another host failed (`any_errors_fatal`): this run ends behind its task"])?;
    // It was not cut off in its task, and went no further.
    assert_eq!(good.sh("cat /srv/effects")?, "begun\nended\n");
    assert_eq!(good.agents()?, Vec::<String>::new());

    bad.sh("rm /srv/bad")?;
    controller.run(&["run"], &[])?.must_have(0)?;
    assert_eq!(good.sh("cat /srv/effects")?, "begun\nended\nlast\n");
    Ok(())
}

#[test]
fn one_agent_runs_on_every_debian_and_where_there_is_no_c_library() -> Outcome {
    let mut network = Network::new()?;
    let suites = ["bullseye", "bookworm", "trixie"];
    for suite in suites {
        network.add(suite, suite, &[])?;
    }
    let tasks = "    - {id: facts, setup: }\n    - {id: file, copy: {dest: /srv/release, content: \
                 \"{{ ansible_facts.distribution_version }} {{ ansible_facts.user_id }}\\n\"}}\n    \
                 - {id: owner, file: {path: /srv/own, state: directory, owner: kaapana}}\n";
    let controller = Controller::new(&network, tasks, "")?;
    controller.run(&["run"], &[])?.must_have(0)?;
    for (host, version) in network.hosts().iter().zip(["11", "12", "13"]) {
        let release = host.sh("cat /srv/release")?;
        assert!(
            release.starts_with(version) && release.ends_with(" root\n"),
            "{release}"
        );
        assert_eq!(host.sh("stat -c %U /srv/own")?.trim(), "kaapana");
    }
    // Nothing of a host's is needed but the kernel.
    let empty = network.folder().join("empty");
    fs::create_dir(&empty)?;
    fs::copy(portable_agent()?, empty.join("agent"))?;
    let mut alone = Command::new("chroot");
    let said = lab::tool::run(
        alone.arg(&empty).args(["/agent", "--version"]),
        "run it alone",
    )?;
    assert!(said.starts_with("kaapana-agent "), "{said}");
    Ok(())
}

#[test]
fn a_migration_over_ssh_survives_a_cut_line_and_a_killed_controller() -> Outcome {
    let case = migrations_over_ssh(Scale::S);
    (case.work)()?;
    Ok(())
}

#[test]
fn random_faults_between_controller_and_hosts_do_no_step_twice_and_lose_none() -> Outcome {
    // A sample: `crash --hosts` has more of them.
    for case in faults_between_hosts(7, 0, 2) {
        println!("{}", case.name);
        (case.work)()?;
    }
    Ok(())
}
