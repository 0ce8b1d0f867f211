//! Every command, with every form of a relative path: nothing depends on how a path is written.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use lab::agent;
use lab::migration::{Ended, Running};
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

const PLAYBOOK: &str = r#"
- name: Paths
  hosts: localhost
  vars_files: [vars/more.yml]
  tasks:
    - {id: where, command: pwd, register: where}
    - {id: below, command: {cmd: pwd, chdir: sub}, register: below}
    - {id: link, file: {src: files/a.txt, dest: link, state: link}}
    - {id: copied, copy: {src: files/a.txt, dest: copied.txt}}
    - id: all
      assert:
        that:
          - where.stdout.endswith('/' ~ folder)
          - below.stdout == where.stdout ~ '/sub'
          - playbook_dir.startswith('/')
          - lookup('fileglob', 'files/*.txt', wantlist=True) | length == 2
          - lookup('file', 'a.txt') == 'a'
          - more == 'more' and given == 'given'
          - opened == 'opened'
"#;

/// What `pwd` calls the playbook's folder, the working directory below the site, and how the playbook, the
/// variables, the state, an output and a log are called from there.
struct Form {
    from: &'static str,
    to_playbooks: &'static str,
    to_site: &'static str,
}

const FORMS: [Form; 7] = [
    Form {
        from: "play books",
        to_playbooks: "",
        to_site: "../",
    },
    Form {
        from: "play books",
        to_playbooks: "./",
        to_site: "./../",
    },
    Form {
        from: "x",
        to_playbooks: "../play books/",
        to_site: "../",
    },
    Form {
        from: "",
        to_playbooks: "play books/",
        to_site: "",
    },
    Form {
        from: "x",
        to_playbooks: "../linked/",
        to_site: ".././",
    },
    Form {
        from: "linked",
        to_playbooks: "",
        to_site: "../",
    },
    Form {
        from: "far/deep",
        to_playbooks: "../../play books/../play books/",
        to_site: "../../",
    },
];

fn site() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let root = home.path();
    for folder in [
        "play books/vars",
        "play books/files",
        "play books/sub",
        "x",
        "far/deep",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    symlink("play books", root.join("linked"))?;
    fs::write(root.join("play books/play.yml"), PLAYBOOK)?;
    fs::write(
        root.join("play books/broken.yml"),
        "- hosts: localhost\n  taks: []\n",
    )?;
    fs::write(root.join("play books/vars/more.yml"), "more: more\n")?;
    fs::write(root.join("play books/files/a.txt"), "a")?;
    fs::write(root.join("play books/files/b.txt"), "b")?;
    fs::write(
        root.join("given.yml"),
        "given: given\nfolder: play books\nopened: opened\n",
    )?;
    fs::write(root.join("password"), "word\n")?;
    Ok(home)
}

fn run(from: &Path, words: &[String]) -> Result<Ended, Box<dyn Error>> {
    let mut command = Command::new(agent::binary()?);
    command
        .args(words)
        .current_dir(from)
        .stdin(std::process::Stdio::null());
    Ok(Running::start(&mut command)?.end()?)
}

#[test]
fn every_command_takes_every_form_of_a_path() -> Outcome {
    for (number, form) in FORMS.iter().enumerate() {
        let home = site()?;
        let root = fs::canonicalize(home.path())?;
        let from = root.join(form.from);
        let play = format!("{}play.yml", form.to_playbooks);
        let to = |name: &str| format!("{}{name}", form.to_site);
        let at = format!("@{}", to("given.yml"));
        let named = ["--state-dir".to_owned(), to("own state")];
        let state: &[String] = if number % 2 == 0 { &[] } else { &named };
        let (log, password) = (to("log"), to("password"));
        let agent = |words: &[&str], code: i32| -> Result<Ended, Box<dyn Error>> {
            let words = words.iter().map(|word| (*word).to_owned());
            let words: Vec<String> = words.chain(state.iter().cloned()).collect();
            let ended = run(&from, &words)?;
            ended
                .must_have(code)
                .map_err(|error| format!("{words:?} in `{}`: {error}", form.from))?;
            Ok(ended)
        };
        agent(&["run", "--syntax-check", &play, "-e", &at], 0)?;
        agent(&["plan", &play, "-e", &at], 0)?;
        agent(&["run", "--check", &play, "-e", &at], 0)?;
        agent(
            &[
                "run",
                &play,
                "-e",
                &at,
                "--log-file",
                &log,
                "--vault-password-file",
                &password,
            ],
            0,
        )?;
        assert!(root.join("log").is_file());
        assert_eq!(fs::read_to_string(root.join("play books/copied.txt"))?, "a");
        let own = if number % 2 == 0 {
            root.join("state")
        } else {
            root.join("own state")
        };
        assert!(
            own.join("play/journal.jsonl").is_file(),
            "{}",
            own.display()
        );

        // By the whole path it is the same playbook, state and tasks.
        // The kernel calls the working directory by its own name, whatever link led there.
        let folder = match form.to_playbooks.contains("linked") {
            true => "linked",
            false => "play books",
        };
        let whole = root.join(folder).join("play.yml").display().to_string();
        agent(&["run", &whole, "-e", &at], 0)?.must_say(&["done=5"])?;
        agent(&["run", &play, "-e", &at], 0)?.must_say(&["done=5"])?;
        agent(&["status", &play, "-e", &at], 0)?;
        agent(&["history", &play], 0)?;
        agent(&["show", &play, "where", "-e", &at], 0)?;
        agent(&["report", &play, "-o", &to("report.html")], 0)?;
        assert!(root.join("report.html").is_file());
        agent(&["report", &play, "-o", "-"], 0)?.must_say(&["<html"])?;
        agent(&["state", "verify", &play], 0)?;
        agent(&["state", "export", &play, "-o", &to("state.tar")], 0)?;
        agent(&["state", "verify", "--archive", &to("state.tar")], 0)?;
        // It finds the state: there is nothing to answer for.
        let answer = [
            "resolve", &play, "where", "--redo", "--reason", "x", "-e", &at,
        ];
        agent(&answer, 5)?.must_say(&["`Paths / where` asks nothing: it is done"])?;
        agent(&["run", &play, "-e", &at, "--redo", "where"], 0)?;
        agent(&["purge", "--check", &play, "-e", &at], 0)?;
        agent(&["rollback", "--check", &play, "-e", &at], 6)?;
        let accept = [
            "rollback", &play, "-e", &at, "--accept", "where", "--accept", "below",
        ];
        agent(&[&accept[..], &["--reason", "x"]].concat(), 0)?;
        assert!(!root.join("play books/copied.txt").exists());
        agent(&["purge", "--yes", &play, "-e", &at], 0)?;

        // Messages call a file as a person would.
        let broken = format!("{}broken.yml", form.to_playbooks);
        let said = agent(&["plan", &broken], 5)?;
        let plain = format!(
            "{}broken.yml:2:3",
            form.to_playbooks.trim_start_matches("./")
        );
        if !form.to_playbooks.starts_with("..") {
            said.must_say(&[&plain])?;
            assert!(
                !said.stderr.contains(&root.display().to_string()),
                "{}",
                said.stderr
            );
        }
        let records = fs::read_to_string(own.join("play/journal.jsonl"))?;
        let first: Value = serde_json::from_str(records.lines().nth(1).unwrap_or_default())?;
        let path = first["playbook"].as_str().unwrap_or_default();
        assert!(
            Path::new(path).is_absolute() && path.ends_with("/play.yml"),
            "{path}"
        );
    }
    Ok(())
}
