//! Secrets of a run on other hosts: what ansible-vault encrypted, and sudo's password.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::controller::Controller;
use lab::hosts::{MERE_USER, Network};
use lab::migration::Ended;

type Outcome = Result<(), Box<dyn Error>>;

#[test]
fn what_is_encrypted_is_opened_on_the_host_and_written_nowhere() -> Outcome {
    const SECRET: &str = "correct horse battery staple";
    let mut network = Network::new()?;
    let host = network.add("site", "bookworm", &[])?;
    let tasks = "    - {id: use, shell: \"printf %s '{{ token }}' | sha256sum > /srv/hash; echo {{ token }}\"}\n";
    let play =
        format!("- hosts: sites\n  become: true\n  vars_files: [secret.yaml]\n  tasks:\n{tasks}");
    let controller = Controller::with(&network, &play, "")?;
    let folder = network.folder().join("playbooks");
    fs::write(
        folder.join("secret.yaml"),
        encrypted(&network, &format!("token: {SECRET}\n"))?,
    )?;
    let closed = controller.run(&["run"], &[])?;
    closed.must_have(5)?;
    closed.must_say(&["secret.yaml", "--vault-password-file"])?;

    let password = network.folder().join("password");
    let more = ["--vault-password-file", &password.to_string_lossy(), "-vv"];
    let ended = controller.run(&["run"], &more)?;
    ended.must_have(0)?;
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains(SECRET));
    let wanted = lab::hash::sha256(SECRET.as_bytes());
    assert!(host.sh("cat /srv/hash")?.starts_with(&wanted));
    for secret in [SECRET, "a password of the vault"] {
        let found = host.sh(&format!("grep -rl '{secret}' /var/lib/kaapana-agent; true"))?;
        assert_eq!(found, "", "`{secret}` is written on the host");
        let copied = fs::read_to_string(controller.journal_copy(&host))?;
        assert!(!copied.contains(secret));
    }
    Ok(())
}

#[test]
fn sudos_password_is_asked_for_once_and_kept_nowhere() -> Outcome {
    const PASSWORD: &str = "open sesame";
    let mut network = Network::new()?;
    let (first, second) = (
        network.add("first", "bookworm", &[])?,
        network.add("second", "trixie", &[])?,
    );
    // One remembers a password for a while, the other asks again at once.
    second.sh("echo 'Defaults timestamp_timeout=0' > /etc/sudoers.d/forgets")?;
    for host in [&first, &second] {
        host.sh(&format!(
            "echo '{MERE_USER}:{PASSWORD}' | chpasswd && \
             echo '{MERE_USER} ALL=(ALL) ALL' > /etc/sudoers.d/password"
        ))?;
    }
    let vars = format!("    ansible_user: {MERE_USER}\n");
    let tasks = "    - {id: whoami, shell: whoami >> /srv/whoami}\n";
    let controller = Controller::new(&network, tasks, &vars)?;
    let typed = |password: &str| -> Result<Ended, Box<dyn Error>> {
        let command = controller.command(&["run"], &["--ask-become-pass"])?;
        at_a_terminal(&command, &format!("{password}\n"))
    };
    let wrong = typed("open barley")?;
    wrong.must_have(4)?;
    wrong.must_say(&["[remote::sudo]"])?;

    let ended = typed(PASSWORD)?;
    ended.must_have(0)?;
    ended.must_say(&["Password for sudo on the hosts"])?;
    assert!(!ended.stdout.contains(PASSWORD), "it is shown");
    for host in [&first, &second] {
        assert_eq!(host.sh("cat /srv/whoami")?, "root\n");
        let found = host.sh(&format!(
            "grep -rl '{PASSWORD}' /var/lib/kaapana-agent; true"
        ))?;
        assert_eq!(found, "");
    }
    Ok(())
}

/// Runs a command at a terminal, where a person types.
fn at_a_terminal(command: &Command, typed: &str) -> Result<Ended, Box<dyn Error>> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--echo", "never", "--command"])
        .arg(words.join(" "))
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = script.spawn()?;
    // Typed when it is asked for: what comes before that a terminal throws away.
    std::thread::sleep(Duration::from_secs(3));
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(typed.as_bytes())?;
        let output = child.wait_with_output()?;
        return Ok(Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Err("it has no standard input".into())
}

/// What ansible-vault makes of a text.
fn encrypted(network: &Network, text: &str) -> Result<String, Box<dyn Error>> {
    let (plain, password) = (
        network.folder().join("plain"),
        network.folder().join("password"),
    );
    fs::write(&plain, text)?;
    fs::write(&password, "a password of the vault\n")?;
    let mut command = lab::conformance::Ansible::install()?.vault(network.folder());
    command
        .args(["encrypt", "--vault-password-file"])
        .arg(&password);
    lab::tool::run(command.arg(&plain), "encrypt")?;
    Ok(fs::read_to_string(&plain)?)
}
