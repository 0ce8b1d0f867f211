//! Processes that behave badly.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::*;

fn shell(script: &str, dir: &Path) -> Invocation {
    Invocation {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        directory: dir.to_path_buf(),
        environment: BTreeMap::new(),
        stdin: None,
    }
}

/// Running, and not a zombie that nobody has waited for yet.
fn is_running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn output_and_code_are_kept_and_a_signal_is_negative() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    let ended = run(&shell("echo a; echo b >&2; exit 3", dir.path()), &ctx)
        .await
        .expect("ran");
    assert_eq!(
        (ended.rc, ended.stdout.as_str(), ended.stderr.as_str()),
        (3, "a\n", "b\n")
    );
    let ended = run(&shell("kill -9 $$", dir.path()), &ctx)
        .await
        .expect("ran");
    assert_eq!(ended.rc, -9);
    let mut cat = shell("cat", dir.path());
    cat.stdin = Some("x".repeat(300_000));
    assert_eq!(run(&cat, &ctx).await.expect("ran").stdout.len(), 300_000);
}

#[tokio::test]
async fn a_daemon_left_behind_neither_blocks_nor_dies() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    let begun = Instant::now();
    let ended = run(&shell("sleep 60 & echo $!", dir.path()), &ctx)
        .await
        .expect("ran");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert!(is_running(&ended.stdout), "it was left running on purpose");
    let pid = Pid::from_raw(ended.stdout.trim().parse().expect("pid"));
    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("kill");
}

#[tokio::test]
async fn cancelling_ends_grandchildren_that_ignore_sigterm() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    // The command ends at SIGTERM, its child does not.
    let script = "sh -c 'trap \"\" TERM; echo $$ > pid.new; mv pid.new pid; sleep 60' & wait";
    let command = shell(script, dir.path());
    let running = run(&command, &ctx);
    let cancel = async {
        until("the grandchild started", || dir.path().join("pid").exists()).await;
        ctx.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(running, cancel);
    assert!(matches!(ended, Err(ModuleError::Cancelled)));
    let pid = fs::read_to_string(dir.path().join("pid")).expect("pid");
    until("the grandchild is dead", || !is_running(&pid)).await;
}

#[tokio::test]
async fn grandchildren_get_time_to_clean_up_though_the_command_is_gone() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    let script = "sh -c 'trap \"sleep 1; echo > cleaned; exit\" TERM; echo > pid; \
        while :; do sleep 0.1; done' & wait";
    let command = shell(script, dir.path());
    let cancel = async {
        until("the grandchild started", || dir.path().join("pid").exists()).await;
        ctx.cancel.cancel();
    };
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(run(&command, &ctx), cancel);
    assert!(matches!(ended, Err(ModuleError::Cancelled)));
    assert!(dir.path().join("cleaned").exists());
    assert!(begun.elapsed() < GRACE, "nobody waits longer than needed");
}

#[tokio::test]
async fn a_command_that_ignores_sigterm_is_killed_after_the_grace_time() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    let command = shell(
        "trap '' TERM; echo $$ > pid.new; mv pid.new pid; while :; do sleep 1; done",
        dir.path(),
    );
    let cancel = async {
        until("the command started", || dir.path().join("pid").exists()).await;
        ctx.cancel.cancel();
        Instant::now()
    };
    let (ended, cancelled) = tokio::join!(run(&command, &ctx), cancel);
    assert!(matches!(ended, Err(ModuleError::Cancelled)));
    assert!(cancelled.elapsed() >= GRACE);
    let pid = fs::read_to_string(dir.path().join("pid")).expect("pid");
    assert!(!is_running(&pid));
}

#[tokio::test]
async fn when_the_agent_dies_the_command_dies_with_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    let command = shell(
        "echo $$ > pid.new; mv pid.new pid; sleep 60 & wait",
        dir.path(),
    );
    {
        let running = run(&command, &ctx);
        tokio::pin!(running);
        // Dropped without cancelling: the pipe closes, exactly as when the agent is killed.
        tokio::select! {
            _ = &mut running => panic!("it sleeps for a minute"),
            () = until("the command started", || dir.path().join("pid").exists()) => {}
        }
    }
    let pid = fs::read_to_string(dir.path().join("pid")).expect("pid");
    until("the command is dead", || !is_running(&pid)).await;
}

#[tokio::test]
async fn a_missing_program_and_a_missing_directory_are_told_apart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = HostContext::for_tests(dir.path());
    let mut command = shell("true", dir.path());
    command.program = "no-such-program".into();
    let error = run(&command, &ctx).await.expect_err("missing").to_string();
    assert_eq!(error, "failed to start `no-such-program`");
    let error = run(&shell("true", Path::new("/no/such")), &ctx)
        .await
        .expect_err("missing");
    assert!(error.to_string().contains("is not a directory"), "{error}");
}
