//! `apt` and `dnf` against the real programs and repositories of two versions of a package, in Debian
//! (which has dnf and rpm, too; no distribution of Red Hat's family can be built here).

use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::agent::wait_for;
use lab::guest::Guest;
use lab::images::DebianImage;

/// How long a package's script may take to begin or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes `lab-one` 1.0 and 2.0 for both. The script behind its installation says when it begins and ends,
/// and takes long where `/opt/slow` is.
const REPOSITORIES: &str = r#"
script='echo begun >> /opt/said; if [ -e /opt/slow ]; then sleep 600; fi; echo ended >> /opt/said'
mkdir -p /rpm /deb /tmp/work
cat > /tmp/work/base.spec <<END
Name: lab-base
Version: 1
Release: 1
Summary: What Debian has without rpm knowing
License: none
BuildArch: noarch
Provides: /bin/sh
%description
Nothing.
%files
END
rpmbuild -bb --quiet --define '_rpmdir /rpm' /tmp/work/base.spec
for version in 1.0 2.0; do
    cat > /tmp/work/one.spec <<END
Name: lab-one
Version: $version
Release: 1
Summary: A package
License: none
BuildArch: noarch
%description
A package.
%post
$script
%install
mkdir -p %{buildroot}/opt
echo $version > %{buildroot}/opt/lab-one
%files
/opt/lab-one
END
    rpmbuild -bb --quiet --define '_rpmdir /rpm' /tmp/work/one.spec
    root=/tmp/work/lab-one-$version
    mkdir -p $root/DEBIAN $root/opt
    echo $version > $root/opt/lab-one
    printf 'Package: lab-one\nVersion: %s\nArchitecture: all\nMaintainer: lab\nDescription: A package\n' \
        $version > $root/DEBIAN/control
    printf '#!/bin/sh\n%s\n' "$script" > $root/DEBIAN/postinst
    chmod 755 $root/DEBIAN/postinst
    dpkg-deb --build $root /deb >/dev/null
done
createrepo_c -q /rpm
(cd /deb && apt-ftparchive packages . > Packages)
rm -rf /tmp/work /root/rpmbuild /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/deb ./' > /etc/apt/sources.list
mkdir -p /etc/yum.repos.d
printf '[lab]\nname=lab\nbaseurl=file:///rpm\ngpgcheck=0\n' > /etc/yum.repos.d/lab.repo
# Debian has no releases as dnf knows them.
mkdir -p /etc/dnf/vars && echo 1 > /etc/dnf/vars/releasever
"#;

fn guest() -> Guest {
    let image = DebianImage {
        repository: "kaapana-lab/packages".into(),
        version: "bookworm".into(),
        suite: "bookworm".into(),
        packages: ["dnf", "rpm", "createrepo-c", "apt-utils", "procps"]
            .map(str::to_owned)
            .into(),
        after: REPOSITORIES.into(),
        ..DebianImage::default()
    };
    let image = image.ensure().expect("the image");
    Guest::start(&image).expect("a container")
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Runs one task, each time as a playbook of its own, and returns its recap.
fn does(guest: &Guest, task: &str, options: &[&str], code: i32) -> String {
    let output = guest.ran("one", &[task], options).expect("started");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(code), "{task}\n{said}");
    said
}

/// What the package's file says, where it is there.
fn version(guest: &Guest) -> String {
    let found = guest
        .sh("cat /opt/lab-one 2>/dev/null; true")
        .expect("looked");
    found.trim().to_owned()
}

/// Installs, upgrades and removes, each in check mode first, and each a second time.
fn each_state_is_reached_once(module: &str, older: &str) {
    let guest = guest();
    let again = ["--no-checkpoint"];
    for (arguments, version_then) in [
        (format!("name: {older}, update_cache: true"), "1.0"),
        ("name: lab-one".to_owned(), "1.0"),
        ("name: [lab-one], state: latest".to_owned(), "2.0"),
        ("name: lab-one, state: absent".to_owned(), ""),
    ] {
        let task = format!("{module}: {{{arguments}}}");
        let before = version(&guest);
        let changes = usize::from(before != version_then);
        let check = does(&guest, &task, &["--no-checkpoint", "--check"], 0);
        assert!(
            check.contains(&format!("changed={changes}")),
            "{task}\n{check}"
        );
        assert_eq!(version(&guest), before, "{task} in check mode");
        let run = does(&guest, &task, &again, 0);
        assert!(run.contains(&format!("changed={changes}")), "{task}\n{run}");
        assert_eq!(version(&guest), version_then, "{task}");
        let second = does(&guest, &task, &again, 0);
        assert!(second.contains("changed=0"), "{task}\n{second}");
    }
    let none = does(
        &guest,
        &format!("{module}: {{name: no-such-package}}"),
        &again,
        2,
    );
    assert!(none.contains("no-such-package"), "{none}");
}

/// Kills the agent while the package's script runs, and lets it go on.
fn a_killed_installation_is_brought_to_its_end(module: &str) {
    let guest = guest();
    guest.sh("touch /opt/slow").expect("touched");
    let task = format!("{module}: {{name: lab-one, update_cache: true}}");
    let mut run = guest
        .run("killed", &[&task], &[])
        .expect("a command")
        .spawn()
        .expect("started");
    let has = |script: &str, text: &str| guest.sh(script).is_ok_and(|said| said.contains(text));
    let begun = || has("cat /opt/said 2>/dev/null; true", "begun");
    wait_for(&mut run, "the package's script", PATIENCE, begun).expect("it begins");
    guest
        .sh("pkill -KILL -x agent; rm /opt/slow")
        .expect("killed");
    run.wait().expect("ended");
    let since = Instant::now();
    while has("pgrep -x -f 'sleep 600' && echo goes on; true", "goes on") {
        assert!(since.elapsed() < PATIENCE, "what it started goes on");
        sleep(Duration::from_millis(50));
    }
    let output = guest.ran("killed", &[&task], &[]).expect("started");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let scripts = guest.sh("cat /opt/said").expect("said");
    assert!(scripts.trim_end().ends_with("begun\nended"), "{scripts}");
    let output = guest.ran("killed", &[&task], &[]).expect("started");
    assert!(said(&output).contains("done=1"), "{}", said(&output));
}

#[test]
fn apt_reaches_each_state_once() {
    each_state_is_reached_once("apt", "lab-one=1.0");
}

#[test]
fn dnf_reaches_each_state_once() {
    each_state_is_reached_once("dnf", "lab-one-1.0");
}

#[test]
fn an_installation_that_apt_was_killed_in_is_brought_to_its_end() {
    a_killed_installation_is_brought_to_its_end("apt");
}

#[test]
fn an_installation_that_dnf_was_killed_in_is_brought_to_its_end() {
    a_killed_installation_is_brought_to_its_end("dnf");
}

#[test]
fn dnf_puts_an_older_version_in_place_of_a_newer_one_only_where_that_is_wanted() {
    let guest = guest();
    does(
        &guest,
        "dnf: {name: /rpm/noarch/lab-one-2.0-1.noarch.rpm}",
        &["--no-checkpoint"],
        0,
    );
    assert_eq!(version(&guest), "2.0");
    let refused = does(&guest, "dnf: {name: lab-one-1.0}", &["--no-checkpoint"], 2);
    assert!(refused.contains("allow_downgrade"), "{refused}");
    assert_eq!(version(&guest), "2.0");
    let task = "dnf: {name: lab-one-1.0, allow_downgrade: true}";
    does(&guest, task, &["--no-checkpoint"], 0);
    assert_eq!(version(&guest), "1.0");
    let group = does(
        &guest,
        "dnf: {name: '@development'}",
        &["--no-checkpoint"],
        2,
    );
    assert!(group.contains("is a group of packages"), "{group}");
}
