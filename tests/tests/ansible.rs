//! The agent as a module of the real ansible-core, over SSH: what it says of a run, and a whole migration by
//! the shipped example.

use std::error::Error;
use std::fs;
use std::path::Path;

use lab::agent;
use lab::conformance::Ansible;
use lab::hosts::{Network, host_image};
use lab::migration::Migration;
use lab::portable::portable_agent;
use lab::site::Scale;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

/// What one task of Ansible's returned.
fn ansible(
    network: &Network,
    playbook: &Path,
    arguments: &[&str],
) -> Result<(Option<i32>, String), Box<dyn Error>> {
    let output = Ansible::install()?
        .command(network.folder())
        .arg(playbook)
        .arg("-i")
        .arg(network.folder().join("inventory.yaml"))
        .args(arguments)
        .env("ANSIBLE_LIBRARY", network.folder().join("library"))
        .env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code(), said))
}

/// Puts the agent where Ansible looks for modules.
fn library(network: &Network) -> Outcome {
    let folder = network.folder().join("library");
    fs::create_dir_all(&folder)?;
    fs::copy(portable_agent()?, folder.join("kaapana_agent"))?;
    Ok(())
}

/// Ansible's modules need a Python on the host; ours does not.
fn python_image() -> Result<String, Box<dyn Error>> {
    Ok(host_image("bookworm", &["python3"])?)
}

#[test]
fn ansible_hears_what_a_run_did_and_would_do() -> Outcome {
    let mut network = Network::new()?;
    let host = network.add_of("site", &python_image()?, &[])?;
    network.inventory("")?;
    library(&network)?;
    let agents = "- hosts: all\n  tasks:\n    - {id: file, copy: {content: \"new\\n\", dest: /srv/file}}\n    \
                  - {id: count, shell: echo once >> /srv/count}\n";
    host.sh(&format!("cat > /srv/own.yaml <<'END'\n{agents}END"))?;
    let playbook = network.folder().join("ansible.yaml");
    let returned = network.folder().join("returned.json");
    let text = |more: &str| {
        format!(
            "- hosts: all\n  become: true\n  gather_facts: false\n  tasks:\n    \
             - kaapana_agent: {{playbook: /srv/own.yaml, state_dir: /srv/state{more}}}\n      \
             register: r\n      ignore_errors: true\n    \
             - delegate_to: localhost\n      become: false\n      check_mode: false\n      \
             vars: {{ansible_connection: local, ansible_python_interpreter: \"{{{{ ansible_playbook_python }}}}\"}}\n      \
             copy: {{content: \"{{{{ r | to_json }}}}\", dest: {}}}\n",
            returned.display()
        )
    };
    let run = |more: &str, arguments: &[&str]| -> Result<Value, Box<dyn Error>> {
        fs::write(&playbook, text(more))?;
        let (code, said) = ansible(&network, &playbook, arguments)?;
        assert_eq!(code, Some(0), "{said}");
        Ok(serde_json::from_str(&fs::read_to_string(&returned)?)?)
    };

    let predicted = run("", &["--check", "--diff"])?;
    assert_eq!(predicted["failed"], json!(false), "{predicted}");
    assert_eq!(predicted["changed"], json!(true), "{predicted}");
    assert!(
        predicted["diff"].to_string().contains("file"),
        "{predicted}"
    );
    assert_eq!(host.sh("ls /srv")?.trim(), "own.yaml");

    let done = run("", &[])?;
    assert_eq!(done["changed"], json!(true), "{done}");
    assert_eq!(done["tasks"].as_array().map(Vec::len), Some(2), "{done}");
    let again = run("", &[])?;
    assert_eq!(again["changed"], json!(false), "{again}");
    assert_eq!(host.sh("cat /srv/file /srv/count")?, "new\nonce\n");

    // A task that fails, and arguments that it does not take.
    host.sh("printf '    - {id: bad, command: /bin/false}\\n' >> /srv/own.yaml")?;
    let failed = run("", &[])?;
    assert_eq!(failed["failed"], json!(true), "{failed}");
    assert!(failed["msg"].to_string().contains("bad"), "{failed}");
    let unknown = run(", tag: [x]", &[])?;
    assert_eq!(unknown["failed"], json!(true), "{unknown}");
    assert!(
        unknown["msg"].to_string().contains("skip_tags"),
        "{unknown}"
    );
    Ok(())
}

#[test]
fn the_example_migrates_a_site_under_ansible_core() -> Outcome {
    let mut network = Network::new()?;
    let mut migration = Migration::begin(Scale::S)?;
    let host = network.add_site_of("site", &python_image()?, &migration.site)?;
    migration.agent.state = migration.site.root.join("by-ansible");
    let vars = json!({
        "kaapana_migration": migration.agent.variables()?,
        "kaapana_agent_state": migration.agent.state,
    });
    network.set("site", &vars);
    network.inventory("")?;
    library(&network)?;
    let playbook = agent::workspace().join("playbooks/ansible/migrate.yaml");
    // Nobody has deployed Kaapana 0.3 yet.
    let (code, said) = ansible(&network, &playbook, &[])?;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("Is Kaapana 0.3 deployed?"), "{said}");

    let deployed = ["-e", "kaapana_redeployed=yes"];
    let (code, said) = ansible(&network, &playbook, &deployed)?;
    assert_eq!(code, Some(0), "{said}");
    migration.must_have_ended_right()?;

    let (code, said) = ansible(&network, &playbook, &deployed)?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("changed=0"), "{said}");
    let started = migration.started_in_the_last_run();
    assert_eq!(started, Vec::<String>::new());
    assert_eq!(host.agents()?, Vec::<String>::new());
    Ok(())
}
