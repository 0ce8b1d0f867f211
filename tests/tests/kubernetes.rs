//! The last third of the guide in pods, on the double of an API server that the real kubectl accepts.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::images::docker;
use lab::kubernetes::{Cluster, Kubectl, ldap};
use lab::ldap_update::{applied, by_script, checksums, content, copy_of, deploy, update_in_pods};
use lab::migration::{Ended, Migration, Running};
use lab::scene::Scene;
use lab::site::Scale;
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        if Instant::now() > deadline {
            return Err(format!("not within a minute: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn name_of(pod: &Value) -> String {
    pod["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn the_real_kubectl_takes_the_double_for_a_cluster() -> Outcome {
    let cluster = Cluster::start()?;
    let kubectl = Kubectl::of(&cluster)?;
    cluster.deploy(ldap(None, "secret")?);
    kubectl.ok(&[
        "wait",
        "--for=condition=Ready",
        "pod",
        "-l",
        "app-name=ldap",
        "--timeout=60s",
    ])?;
    let listed = kubectl.ok(&["get", "pods", "-l", "app-name=ldap", "-o", "name"])?;
    let pod = listed.trim().trim_start_matches("pod/").to_owned();
    assert_eq!(pod, name_of(&cluster.pods("ldap")[0]));

    // Streams apart, the status, and an input that ends.
    let run = |words: &[&str]| {
        let mut all = vec!["exec", pod.as_str(), "-c", "ldap-container", "-i", "--"];
        all.extend(words);
        kubectl.command(&all)
    };
    let ended = run(&["sh", "-c", "echo out; echo err >&2; exit 7"])
        .stdin(Stdio::null())
        .output()?;
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    assert_eq!(ended.stdout, b"out\n");
    assert!(String::from_utf8_lossy(&ended.stderr).starts_with("err\n"));
    let mut child = run(&["sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    child.stdin.take().ok_or("no input")?.write_all(&bytes)?;
    let ended = child.wait_with_output()?;
    assert!(ended.status.success(), "{ended:?}");
    let expected = lab::hash::sha256(&bytes);
    assert!(
        String::from_utf8_lossy(&ended.stdout).starts_with(&expected),
        "{ended:?}"
    );

    // Copies, both ways.
    let local = cluster.dir().join("copied");
    fs::write(&local, &bytes)?;
    let remote = format!("{pod}:/tmp/copied");
    kubectl.ok(&[
        "cp",
        "-c",
        "ldap-container",
        &local.display().to_string(),
        &remote,
    ])?;
    let back = cluster.dir().join("back");
    kubectl.ok(&[
        "cp",
        "-c",
        "ldap-container",
        &remote,
        &back.display().to_string(),
    ])?;
    assert!(fs::read(&back)? == bytes, "another content came back");

    // A deleted pod is replaced, a rollout too.
    kubectl.ok(&["delete", "pod", &pod])?;
    kubectl.ok(&["rollout", "status", "deployment/ldap", "--timeout=60s"])?;
    let second = name_of(&cluster.pods("ldap")[0]);
    assert_ne!(second, pod);
    kubectl.ok(&["rollout", "restart", "deployment/ldap"])?;
    kubectl.ok(&["rollout", "status", "deployment/ldap", "--timeout=60s"])?;
    wait_until("one pod", || cluster.pods("ldap").len() == 1)?;
    let third = name_of(&cluster.pods("ldap")[0]);
    assert_ne!(third, second);
    assert!(kubectl.ok(&["logs", &third])?.len() < 1_000_000);
    assert!(
        kubectl
            .ok(&["get", "events", "-o", "json"])?
            .contains("Killing")
    );

    // Who is not known, and who lacks a right.
    let expired = cluster.kubeconfig("expired.conf", "old-token")?;
    let refused = kubectl.run(&[
        "get",
        "pods",
        "--kubeconfig",
        &expired.display().to_string(),
    ])?;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("Unauthorized"),
        "{refused:?}"
    );
    cluster.allow("reader-token", "reader", &[("delete", "pods")]);
    let reader = cluster.kubeconfig("reader.conf", "reader-token")?;
    let reader = reader.display().to_string();
    let refused = kubectl.run(&["delete", "pod", &third, "--kubeconfig", &reader])?;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("Forbidden"),
        "{refused:?}"
    );
    Ok(())
}

/// Runs a playbook with these tasks, `CONFIG` being a kubeconfig.
fn run(scene: &Scene, kubeconfig: &Path, words: &[&str]) -> Result<Ended, Box<dyn Error>> {
    let mut command = scene.command(&[], &["run"], words)?;
    command
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", "/nonexistent");
    Ok(Running::start(&mut command)?.end()?)
}

const EXEC: &str = "
- id: there
  k8s_exec:
    label_selectors: [app-name=ldap]
    container: ldap-container
    argv: [sh, -c, 'cat; echo more >&2']
    stdin: through the pod
  register: done
- id: back
  k8s_cp:
    label_selectors: [app-name=ldap]
    container: ldap-container
    remote_path: /etc/openldap/data
    local_path: HOME/data
    state: from_pod
- id: into
  k8s_cp:
    label_selectors: [app-name=ldap]
    container: ldap-container
    remote_path: /tmp/deep/copy
    local_path: HOME/data
- id: one-file
  k8s_cp:
    label_selectors: [app-name=ldap]
    container: ldap-container
    remote_path: /tmp/other/name.ldif
    local_path: HOME/data/directory.ldif
- id: said
  assert:
    that: [done.stdout == 'through the pod', done.rc == 0, done.stderr == 'more']
";

#[test]
fn commands_and_copies_in_both_protocols_are_exact() -> Outcome {
    let cluster = Cluster::start()?;
    cluster.deploy(ldap(None, "secret")?);
    wait_until_ready(&cluster, "ldap")?;
    let container = cluster.container("ldap", "ldap-container")?;
    let sums = |path: &str| {
        let script = format!("cd {path} && find . -type f | sort | xargs sha256sum");
        docker(&["exec", &container, "sh", "-c", &script])
    };
    for old in [false, true] {
        cluster.speak_old_protocol(old);
        let scene = Scene::with(EXEC)?;
        run(&scene, &cluster.admin(), &[])?.must_have(0)?;
        let expected = sums("/etc/openldap/data")?;
        assert!(expected.lines().count() > 10);
        assert_eq!(sums("/tmp/deep/copy")?, expected);
        let one = docker(&["exec", &container, "sha256sum", "/tmp/other/name.ldif"])?;
        let sum = one.split(' ').next().ok_or("no sum")?;
        assert!(
            expected.contains(&format!("{sum}  ./directory.ldif")),
            "{one}"
        );
        let here = std::process::Command::new("sh")
            .args([
                "-c",
                "cd \"$1\" && find . -type f | sort | xargs sha256sum",
                "sh",
            ])
            .arg(scene.path("data"))
            .output()?;
        assert_eq!(String::from_utf8(here.stdout)?, expected);
        // A further run asks the cluster nothing.
        let before = cluster.execs();
        run(&scene, Path::new("/nonexistent/config"), &[])?.must_have(0)?;
        assert_eq!(cluster.execs(), before);
        docker(&["exec", &container, "rm", "-rf", "/tmp/deep", "/tmp/other"])?;
    }
    Ok(())
}

fn wait_until_ready(cluster: &Cluster, workload: &str) -> Outcome {
    wait_until("the pods are ready", || {
        let pods = cluster.pods(workload);
        let ready = |pod: &Value| pod["status"]["conditions"][1]["status"] == "True";
        !pods.is_empty() && pods.iter().all(ready)
    })
}

#[test]
fn what_is_wrong_with_the_cluster_is_told() -> Outcome {
    let cluster = Cluster::start()?;
    cluster.deploy(ldap(None, "another")?);
    wait_until_ready(&cluster, "ldap")?;
    let look = "- id: look\n  k8s_info: {kind: Pod, namespace: services}";
    let exec = "- id: run\n  k8s_exec: {label_selectors: [app-name=ldap], container: CONTAINER, argv: ARGV}";
    let restart = "- id: restart\n  k8s_rollout: {label_selectors: [app-name=ldap], wait_timeout: 3, wait_sleep: 1}";
    let must_say = |tasks: &str, config: &Path, says: &[&str]| -> Outcome {
        let scene = Scene::with(tasks)?;
        let ended = run(&scene, config, &[])?;
        ended.must_have(2)?;
        ended.must_say(says)?;
        Ok(())
    };
    let admin = cluster.admin();
    must_say(
        look,
        Path::new("/nonexistent/config"),
        &[
            "find a kubeconfig: none at",
            "/nonexistent/config",
            "microk8s.kubectl config view --raw",
        ],
    )?;
    let expired = cluster.kubeconfig("expired.conf", "old-token")?;
    must_say(
        look,
        &expired,
        &[
            "the server does not accept the credentials of",
            "has expired",
        ],
    )?;
    let torn = cluster.dir().join("torn.conf");
    fs::write(&torn, "apiVersion: v1\nclusters: [")?;
    must_say(look, &torn, &["use the kubeconfig", "torn.conf"])?;

    cluster.allow(
        "reader-token",
        "reader",
        &[("delete", "pods"), ("get", "pods/exec")],
    );
    let reader = cluster.kubeconfig("reader.conf", "reader-token")?;
    must_say(
        restart,
        &reader,
        &["the right to", "`delete` `pods` in namespace `services`"],
    )?;
    let ls = exec
        .replace("CONTAINER", "ldap-container")
        .replace("ARGV", "[ls]");
    must_say(&ls, &reader, &["the right to", "`get` `pods/exec`"])?;
    assert!(
        cluster.pods("ldap").len() == 1 && cluster.execs() == 0,
        "something was done"
    );

    let other = exec
        .replace("CONTAINER", "dcm4chee-nginx")
        .replace("ARGV", "[ls]");
    must_say(
        &other,
        &admin,
        &[
            "find container `dcm4chee-nginx` in pod",
            "it has ldap-container",
        ],
    )?;
    must_say(
        &ls.replace("app-name=ldap", "app.kubernetes.io/name=ldap"),
        &admin,
        &["find a pod with label", "app.kubernetes.io/name"],
    )?;
    let missing = ls.replace("[ls]", "[no-such-program]");
    must_say(
        &missing,
        &admin,
        &["run `no-such-program` in container", "no-such-program"],
    )?;
    let fails = ls.replace("[ls]", "[sh, -c, 'echo why >&2; exit 9']");
    must_say(
        &fails,
        &admin,
        &["run `sh` in container", "ended with 9: why"],
    )?;
    // A password that is not the directory's.
    let search = "- ldap_search: {in_pod: {label_selectors: [app-name=ldap], container: ldap-container}, bind_pw: wrong, dn: 'dc=dcm4che,dc=org'}";
    must_say(
        search,
        &admin,
        &[
            "does not know this user and password",
            "cn=admin,dc=dcm4che,dc=org",
        ],
    )?;

    // Two pods where one is expected.
    let mut second = ldap(None, "secret")?;
    second.name = "twin".into();
    cluster.deploy(second);
    wait_until_ready(&cluster, "twin")?;
    let twin = name_of(&cluster.pods("twin")[0]);
    must_say(
        &ls,
        &admin,
        &["find one pod with label app-name=ldap", &twin],
    )?;
    Ok(())
}

#[test]
fn a_pod_that_never_gets_ready_says_why_and_the_rerun_goes_on() -> Outcome {
    let cluster = Cluster::start()?;
    cluster.deploy(ldap(None, "secret")?);
    wait_until_ready(&cluster, "ldap")?;
    let restart = "- id: restart\n  k8s_rollout: {label_selectors: [app-name=ldap], wait_timeout: 8, wait_sleep: 1}\n\
         - id: rolled\n  k8s_rollout: {kind: Deployment, name: ldap, wait_timeout: 60, wait_sleep: 1}";
    let scene = Scene::with(restart)?;
    cluster.break_starts(true);
    let ended = run(&scene, &cluster.admin(), &[])?;
    ended.must_have(2)?;
    ended.must_say(&[
        "are ready: not after",
        "CrashLoopBackOff",
        "lab: no configuration found",
    ])?;
    cluster.break_starts(false);
    // It waits on for the pod that was begun, which the kubelet holds back for ten seconds and more; how long
    // it waits may be changed, and nothing is begun anew.
    scene.write(&restart.replace("wait_timeout: 8", "wait_timeout: 120"))?;
    run(&scene, &cluster.admin(), &[])?.must_have(0)?;
    let patches = cluster
        .changes()
        .iter()
        .filter(|change| change.starts_with("patch"))
        .count();
    assert_eq!(patches, 1);
    Ok(())
}

#[test]
fn a_command_whose_connection_is_cut_is_never_taken_for_done_nor_run_twice() -> Outcome {
    let cluster = Cluster::start()?;
    cluster.deploy(ldap(None, "secret")?);
    wait_until_ready(&cluster, "ldap")?;
    let container = cluster.container("ldap", "ldap-container")?;
    let scene = Scene::with(
        "- id: slow\n  k8s_exec:\n    label_selectors: [app-name=ldap]\n    container: ldap-container\n    \
         argv: [sh, -c, 'echo once >> /tmp/effects; sleep 3']",
    )?;
    let mut command = scene.command(&[], &["run"], &[])?;
    command.env("KUBECONFIG", cluster.admin());
    let mut running = Running::start(&mut command)?;
    let effects = || docker(&["exec", &container, "cat", "/tmp/effects"]).unwrap_or_default();
    running.wait_for("the command", || !effects().is_empty())?;
    cluster.cut_connections();
    let ended = running.end()?;
    ended.must_have(6)?;
    ended.must_say(&["the connection was cut", "before the command's status came"])?;
    // Nobody knows what it has done, so the next run asks before it does anything.
    let asked = run(&scene, &cluster.admin(), &[])?;
    asked.must_have(6)?;
    asked.must_say(&["what the command has done cannot be told from outside"])?;
    assert_eq!(effects(), "once\n");
    scene.agent(&["state", "verify"], &[])?.must_have(0)?;
    Ok(())
}

#[test]
fn a_restart_that_was_killed_is_ended_and_not_begun_again() -> Outcome {
    let cluster = Cluster::start()?;
    cluster.deploy(ldap(None, "secret")?);
    wait_until_ready(&cluster, "ldap")?;
    let before = name_of(&cluster.pods("ldap")[0]);
    let scene = Scene::with(
        "- id: restart\n  k8s_rollout: {label_selectors: [app-name=ldap], wait_timeout: 60, wait_sleep: 1}",
    )?;
    let mut command = scene.command(&[], &["run"], &[])?;
    command.env("KUBECONFIG", cluster.admin());
    let mut running = Running::start(&mut command)?;
    running.wait_for("the deletion", || !cluster.changes().is_empty())?;
    running.kill()?;
    run(&scene, &cluster.admin(), &[])?.must_have(0)?;
    assert_eq!(cluster.changes(), [format!("delete pods {before}")]);
    let pods = cluster.pods("ldap");
    assert!(pods.len() == 1 && name_of(&pods[0]) != before);
    assert_eq!(scene.records("task_started", "restart").len(), 1);
    Ok(())
}

#[test]
fn the_whole_guide_in_one_run_killed_in_a_file_and_in_a_restart_ends_like_one_that_was_not()
-> Outcome {
    let cluster = Cluster::start()?;
    let migration = Migration::begin(Scale::S)?;
    let site = &migration.site;
    migration.agent.set(&update_in_pods(&cluster))?;
    let copy = copy_of(site, "by-script")?;
    let original = checksums(&site.fast_data_dir, "")?;

    let mut first = migration.start()?;
    first.wait_for("the deployment", || migration.has_started("ldap-pod-ready"))?;
    deploy(&cluster, site)?;
    first.wait_for("the middle of the records", || applied(&migration) > 150)?;
    first.kill()?;
    assert!(
        migration.is_open("ldap-pod-data"),
        "killed too late or too early"
    );
    let done_before = applied(&migration);

    let deleted = |workload: &str| cluster.deletions(workload);
    let archive_before = name_of(&cluster.pods("dcm4chee")[0]);
    let mut second = migration.start()?;
    second.wait_for("the archive's restart", || deleted("dcm4chee") > 0)?;
    second.kill()?;
    assert!(
        migration.is_open("archive-restarted"),
        "killed too late or too early"
    );
    assert!(applied(&migration) > done_before);

    migration.finish()?;
    assert_eq!(deleted("ldap"), 1, "{:?}", cluster.changes());
    let pods = cluster.pods("dcm4chee");
    assert!(pods.len() == 1 && name_of(&pods[0]) != archive_before);
    let (execs, changes) = (cluster.execs(), cluster.changes());
    migration.must_be_passed_over()?;
    assert_eq!((cluster.execs(), cluster.changes()), (execs, changes));
    migration.must_have_ended_right()?;

    // Undeployed, and compared entry by entry.
    docker(&[
        "stop",
        "--time",
        "60",
        &cluster.container("ldap", "ldap-container")?,
    ])?;
    drop(cluster);
    let (data, config) = content(&site.ldap_dir(), &site.slapd_config_dir())?;
    let (expected_data, expected_config) = by_script(&copy)?;
    assert_eq!(data.len(), expected_data.len());
    for (found, expected) in data.iter().zip(&expected_data) {
        assert_eq!(found, expected);
    }
    assert_eq!(config, expected_config);
    assert_eq!(checksums(&site.fast_data_dir, "-old")?, original);
    for backup in ["ldap-data.ldif", "ldap-config.ldif"] {
        assert!(site.backup_dir.join(backup).is_file(), "{backup}");
    }
    let text = serde_json::to_string(&migration.agent.journal())?;
    assert!(
        !text.contains("{SSHA}") && !text.contains("\"secret\""),
        "a password is in the journal"
    );
    Ok(())
}
