//! Playbooks on other hosts, over a real OpenSSH: what happens to the line, to the controller or to the
//! agent there, every step is done once, and the journal comes back to be audited.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use lab::controller::{Controller, times};
use lab::hosts::{Host, MERE_USER, Network};
use lab::migration::Running;
use lab::slow_line::SlowLine;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    for _ in 0..1200 {
        if condition() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("{what} was not seen").into())
}

/// A run of [`SLOW`] whose first task has left its effect.
fn begun(
    controller: &Controller<'_>,
    host: &Host,
    more: &[&str],
) -> Result<Running, Box<dyn Error>> {
    let running = controller.start(&["run"], more)?;
    wait_until("the first effect", || {
        host.sh("test -s /srv/effects").is_ok()
    })?;
    Ok(running)
}

/// Its second task waits for `/srv/go`.
const SLOW: &str = "    - {id: first, shell: echo first >> /srv/effects}
    - {id: wait, wait_for: {path: /srv/go, timeout: 120}}
    - {id: last, shell: echo last >> /srv/effects}
";

#[test]
fn a_line_on_which_an_answer_takes_a_second_shows_everything() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("far", "bookworm", &[])?;
    let line = SlowLine::to(&host.address, Duration::from_millis(500))?;
    let arguments = format!(
        "-F {} {}",
        network.ssh_config("")?.display(),
        line.arguments(&host.address)
    );
    network.set("far", &json!({"ansible_ssh_common_args": arguments}));
    let tasks =
        "    - {id: count, shell: echo once >> /srv/count}\n    - {id: last, command: hostname}\n";
    let controller = Controller::new(&network, tasks, "")?;
    let since = Instant::now();
    let ended = controller.run(&["run"], &["-v"])?;
    ended.must_have(0)?;
    assert!(since.elapsed() > Duration::from_secs(5), "it is slow");
    assert!(
        !ended.stdout.contains("connected again"),
        "{}",
        ended.stdout
    );
    controller.copy_must_verify(&host)?;
    controller.run(&["run"], &[])?.must_have(0)?;
    assert_eq!(host.sh("cat /srv/count")?, "once\n");
    assert_eq!(
        times(&controller.journal(&host)?, "task_started", "last"),
        1
    );
    Ok(())
}

#[test]
fn a_playbook_runs_on_all_hosts_with_their_own_variables_and_once() -> Outcome {
    let mut network = Network::new()?;
    let (old, new) = (
        network.add("old", "bookworm", &[])?,
        network.add("new", "trixie", &[])?,
    );
    let controller = Controller::new(
        &network,
        "    - {id: file, copy: {src: files/greeting, dest: /srv/greeting}}
    - {id: name, copy: {content: \"{{ inventory_hostname }} of {{ site }}\\n\", dest: /srv/name}}
    - {id: count, shell: echo once >> /srv/count}
",
        "    site: \"a hospital with {{ groups['sites'] | length }} hosts\"\n",
    )?;
    let first = controller.run(&["run"], &[])?;
    first.must_have(0)?;
    first.must_say(&["RECAP", "old", "new", "done: ok="])?;
    for host in [&old, &new] {
        assert_eq!(host.sh("cat /srv/greeting")?, "hello from the controller\n");
        let name = format!("{} of a hospital with 2 hosts\n", host.name);
        assert_eq!(host.sh("cat /srv/name")?, name);
        assert_eq!(host.agents()?, Vec::<String>::new());
    }

    let pushed = old.sh("ls -i /var/lib/kaapana-agent/bin/*/kaapana-agent")?;
    let again = controller.run(&["run"], &[])?;
    again.must_have(0)?;
    again.must_say(&["done=3", "changed=0"])?;
    assert_eq!(
        old.sh("ls -i /var/lib/kaapana-agent/bin/*/kaapana-agent")?,
        pushed
    );
    for host in [&old, &new] {
        assert_eq!(host.sh("cat /srv/count")?, "once\n");
        let journal = controller.journal(host)?;
        assert_eq!(times(&journal, "task_finished", "count"), 1);
        controller.copy_must_verify(host)?;
    }
    let status = controller.run(&["status"], &[])?;
    status.must_have(0)?;
    // A word for each state of a task, and how many have it.
    status.must_say(&["old", "done: ", "changed="])?;

    // Only one of them, and only to look.
    let checked = controller.run(&["run"], &["--limit", "new", "--check"])?;
    checked.must_have(0)?;
    assert!(!checked.stdout.contains("old"), "{}", checked.stdout);
    Ok(())
}

#[test]
fn a_run_outlives_its_controller_and_is_followed_by_the_next_one() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("site", "bookworm", &[])?;
    let controller = Controller::new(&network, SLOW, "")?;
    let running = begun(&controller, &host, &[])?;
    running.kill()?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        host.agents()?
            .iter()
            .filter(|line| line.contains(" work "))
            .count(),
        1
    );

    let second = controller.run(&["run"], &[])?;
    second.must_have(7)?;
    second.must_say(&["another run holds", "attach"])?;
    controller.run(&["status"], &[])?.must_say(&["at work"])?;

    let mut follower = controller.start(&["attach"], &[])?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(!follower.has_ended()?);
    host.sh("touch /srv/go")?;
    let ended = follower.end()?;
    ended.must_have(0)?;
    ended.must_say(&["wait_for: /srv/go", "done: ok=3"])?;
    assert_eq!(host.sh("cat /srv/effects")?, "first\nlast\n");
    assert_eq!(
        times(&controller.journal(&host)?, "task_started", "first"),
        1
    );
    wait_until("the end of all of the agent's processes", || {
        host.agents().is_ok_and(|agents| agents.is_empty())
    })
}

#[test]
fn where_systemd_runs_the_host_a_run_is_a_unit_of_its_own() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add_with_systemd("site", "bookworm")?;
    let controller = Controller::new(&network, SLOW, "")?;
    let running = begun(&controller, &host, &[])?;
    let units = || host.sh("systemctl list-units --no-legend --plain 'kaapana-agent-*'");
    assert!(units()?.contains("running"), "{}", units()?);
    // What ends a login session ends no service.
    running.kill()?;
    host.sh("pkill -KILL -f '[s]shd.*kaapana'; true")?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(units()?.contains("running"), "{}", units()?);
    let stopped = controller.run(&["stop"], &[])?;
    stopped.must_say(&["stopped"])?;
    wait_until("the unit's end", || {
        units().is_ok_and(|units| units.is_empty())
    })?;

    host.sh("touch /srv/go")?;
    controller.run(&["run"], &[])?.must_have(0)?;
    assert_eq!(host.sh("cat /srv/effects")?, "first\nlast\n");
    Ok(())
}

#[test]
fn a_line_that_is_cut_is_taken_up_again_and_nothing_is_missed() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("site", "bookworm", &[])?;
    let controller = Controller::new(&network, SLOW, "")?;
    let running = begun(&controller, &host, &["--output", "json"])?;
    network.cut(&host)?;
    // What happens meanwhile is told when the line is back.
    host.sh("touch /srv/go")?;
    std::thread::sleep(Duration::from_secs(25));
    network.mend(&host)?;
    let ended = running.end()?;
    ended.must_have(0)?;
    ended.must_say(&["the run there goes on", "connected again"])?;
    let events: Vec<Value> = ended
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let finished: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "task_finished")
        .filter_map(|event| event["task"].as_str()?.rsplit(" / ").next())
        .collect();
    assert_eq!(
        finished,
        ["first", "wait", "last"],
        "each event once, in order"
    );
    assert_eq!(host.sh("cat /srv/effects")?, "first\nlast\n");
    Ok(())
}

#[test]
fn an_agent_that_is_killed_there_is_said_and_the_next_run_goes_on() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("site", "trixie", &[])?;
    let controller = Controller::new(&network, SLOW, "")?;
    let running = begun(&controller, &host, &[])?;
    host.sh("pkill -KILL -f '[w]ork --job'")?;
    let ended = running.end()?;
    ended.must_have(2)?;
    ended.must_say(&["was killed", "run the same command again"])?;

    // The host itself goes down and comes up again.
    let running = controller.start(&["run"], &[])?;
    wait_until("the agent", || {
        host.agents().is_ok_and(|agents| !agents.is_empty())
    })?;
    lab::images::docker(&["restart", "--time", "0", &host.container])?;
    network.note_key(&host)?;
    running.end()?.must_have(2)?;

    host.sh("touch /srv/go")?;
    controller.run(&["run"], &[])?.must_have(0)?;
    assert_eq!(host.sh("cat /srv/effects")?, "first\nlast\n");
    Ok(())
}

#[test]
fn a_run_is_stopped_cleanly_from_afar() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("site", "bookworm", &[])?;
    let controller = Controller::new(&network, SLOW, "")?;
    let running = begun(&controller, &host, &[])?;
    let stopped = controller.run(&["stop"], &[])?;
    stopped.must_have(0)?;
    stopped.must_say(&["site", "stopped"])?;
    let ended = running.end()?;
    ended.must_have(130)?;
    let journal = controller.journal(&host)?;
    assert_eq!(
        journal.last().map(|last| &last["outcome"]),
        Some(&"interrupted".into())
    );
    controller
        .run(&["stop"], &[])?
        .must_say(&["nothing was at work"])?;
    assert_eq!(host.agents()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn what_is_wrong_with_a_host_is_said_and_the_others_go_on() -> Outcome {
    let mut network = Network::new()?;
    let good = network.add("good", "bookworm", &[])?;
    let changed = network.add("changed", "bookworm", &[])?;
    network.add("nosudo", "bookworm", &[])?;
    network.add(
        "noexec",
        "bookworm",
        &["--tmpfs", "/mnt:rw,noexec,size=256m"],
    )?;
    let tiny = network.add("tiny", "bookworm", &["--tmpfs", "/mnt:rw,exec,size=1m"])?;
    network.add("closed", "bookworm", &[])?;
    let controller = Controller::new(
        &network,
        "    - {id: count, shell: echo once >> /srv/count}\n",
        "",
    )?;
    // Another key is known than the one that it has.
    let known = fs::read_to_string(network.known_hosts())?;
    let key = |host: &Host| {
        let mut lines = known.lines();
        lines.find_map(|line| line.strip_prefix(&format!("{} ", host.address)))
    };
    let (Some(own), Some(other)) = (key(&changed), key(&good)) else {
        return Err("both are known".into());
    };
    fs::write(network.known_hosts(), known.replace(own, other))?;
    let inventory = fs::read_to_string(&controller.inventory)?;
    let inventory = inventory
        .lines()
        .map(|line| match line.trim().split(':').next() {
            Some("nosudo") => line.replace('}', &format!(", ansible_user: {MERE_USER}}}")),
            Some("noexec" | "tiny") => line.replace('}', ", kaapana_agent_dir: /mnt/agent}"),
            Some("closed") => line.replace('}', ", ansible_port: 2}"),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n");
    fs::write(&controller.inventory, inventory + "\n")?;
    let ended = controller.run(&["run"], &[])?;
    ended.must_have(4)?;
    ended.must_say(&[
        "[remote::host_key]",
        "[remote::sudo]",
        "[remote::does_not_run]",
        "[remote::push]",
        "[remote::unreachable]",
        "kaapana_agent_dir",
        "NOPASSWD",
    ])?;
    assert_eq!(good.sh("cat /srv/count")?, "once\n");
    assert_eq!(
        tiny.sh("find /mnt -type f")?,
        "",
        "nothing half-sent is left"
    );

    let unknown = controller.run(&["run"], &["--limit", "goood"])?;
    unknown.must_have(5)?;
    unknown.must_say(&["goood", "good"])?;
    Ok(())
}

#[test]
fn a_host_behind_another_one_is_reached_through_it() -> Outcome {
    let mut network = Network::new()?;
    let jump = network.add("jump", "bookworm", &[])?;
    let inner = network.add("inner", "trixie", &[])?;
    let controller = Controller::new(
        &network,
        "    - {id: count, shell: echo once >> /srv/count}\n",
        "",
    )?;
    // Only the jump host may come in.
    inner.sh(&format!(
        "printf 'AllowUsers kaapana@{}\\n' > /etc/ssh/sshd_config.d/only.conf; pkill -HUP -o sshd",
        jump.address
    ))?;
    std::thread::sleep(Duration::from_millis(300));
    let refused = controller.run(&["run"], &["--limit", "inner"])?;
    refused.must_have(4)?;
    refused.must_say(&["[remote::login_refused]"])?;
    let config = network.ssh_config("")?;
    network.ssh_config(&format!(
        "Host {}\n  ProxyCommand ssh -F {} -W %h:%p {}\n",
        inner.address,
        config.display(),
        jump.address
    ))?;
    controller
        .run(&["run"], &["--limit", "inner"])?
        .must_have(0)?;
    assert_eq!(inner.sh("cat /srv/count")?, "once\n");
    Ok(())
}

#[test]
fn a_run_is_stopped_from_afar_behind_its_task() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("site", "bookworm", &[])?;
    let tasks = "    - {id: long, shell: echo begun >> /srv/effects; sleep 5; echo ended >> /srv/effects}\n    \
                 - {id: last, shell: echo last >> /srv/effects}\n";
    let controller = Controller::new(&network, tasks, "")?;
    let running = begun(&controller, &host, &[])?;
    let stopped = controller.run(&["stop"], &["--after-task"])?;
    stopped.must_have(0)?;
    stopped.must_say(&["stopped"])?;
    running.end()?.must_have(130)?;
    assert_eq!(host.sh("cat /srv/effects")?, "begun\nended\n");
    // Nothing was cut off, so nothing has to be decided.
    controller.run(&["run"], &[])?.must_have(0)?;
    assert_eq!(host.sh("cat /srv/effects")?, "begun\nended\nlast\n");
    Ok(())
}

#[test]
fn a_decision_is_made_and_a_playbook_taken_back_from_afar() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add("site", "bookworm", &[])?;
    let tasks = "    - {id: made, file: {path: /srv/made, state: directory}}\n    \
                 - {id: cut, shell: echo begun >> /srv/effects; sleep 600}\n";
    let controller = Controller::new(&network, tasks, "")?;
    let running = begun(&controller, &host, &[])?;
    host.sh("pkill -KILL -f '[w]ork --job'")?;
    let ended = running.end()?;
    ended.must_have(6)?;
    ended.must_say(&["was killed", "Nobody saw how", "cut"])?;

    let asked = controller.run(&["run"], &[])?;
    asked.must_have(6)?;
    asked.must_say(&["a decision is needed", "cut"])?;
    let answer = ["cut", "--done", "--reason", "somebody looked"];
    let resolved = controller.run(&["resolve"], &answer)?;
    resolved.must_have(0)?;
    resolved.must_say(&["recorded", "cut"])?;
    controller.run(&["run"], &[])?.must_have(0)?;
    assert_eq!(host.sh("cat /srv/effects")?, "begun\n");
    let journal = controller.journal(&host)?;
    assert_eq!(times(&journal, "task_resolved", "cut"), 1);

    let refused = controller.run(&["rollback"], &["--yes"])?;
    refused.must_have(6)?;
    refused.must_say(&["cut"])?;
    assert_eq!(host.sh("ls -d /srv/made")?.trim(), "/srv/made");
    let accepted = ["--yes", "--accept", "cut", "--reason", "by hand"];
    controller.run(&["rollback"], &accepted)?.must_have(0)?;
    assert!(host.sh("ls -d /srv/made").is_err());
    Ok(())
}
