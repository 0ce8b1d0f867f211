//! `command` and `shell`: predictions, results, and what an interruption leaves.

use std::fs;
use std::sync::{Arc, Mutex};

use super::*;
use crate::host::progress::Progress;

fn command(arguments: Value) -> CommandModule {
    serde_json::from_value(arguments).expect("arguments")
}

fn shell(arguments: Value) -> ShellModule {
    serde_json::from_value(arguments).expect("arguments")
}

#[tokio::test]
async fn results_have_ansibles_keys_and_lines_are_streamed() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut ctx = TaskContext::for_tests(dir.path());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    ctx.progress = Progress::new(
        |_, _, _, _| {},
        move |line| sink.lock().expect("lock").push(line),
    );
    ctx.environment.insert("WHO".into(), "you there".into());
    let module = command(json!({"cmd": "printf '%s|%s\\n\\n' \"hello  $WHO\" ${NOBODY}"}));
    assert_eq!(
        module.check(&ctx).await.expect("check"),
        Plan::CannotPredict
    );
    let outcome = module.apply(&ctx, &Value::Null).await.expect("apply");
    let result = &outcome.result;
    assert!(outcome.changed);
    assert_eq!(result["stdout"], "hello  you there|${NOBODY}");
    assert_eq!(
        result["stdout_lines"],
        json!(["hello  you there|${NOBODY}"])
    );
    assert_eq!((&result["rc"], &result["stderr"]), (&json!(0), &json!("")));
    assert_eq!(result["cmd"][0], "printf");
    assert!(
        result["delta"]
            .as_str()
            .expect("delta")
            .starts_with("0:00:0")
    );
    assert_eq!(lines.lock().expect("lock")[0], "hello  you there|${NOBODY}");
}

#[tokio::test]
async fn a_failure_carries_its_result() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let module = shell(json!({"cmd": "echo out; echo first >&2; echo last words >&2; exit 7"}));
    let error = module.apply(&ctx, &Value::Null).await.expect_err("code 7");
    assert!(
        error.to_string().ends_with("ended with code 7: last words"),
        "{error}"
    );
    let ModuleError::Failed(failure) = error else {
        panic!("{error}")
    };
    let result = failure.result();
    assert_eq!(
        (&result["rc"], &result["stdout"]),
        (&json!(7), &json!("out"))
    );
    assert_eq!(result["stderr_lines"], json!(["first", "last words"]));
}

#[tokio::test]
async fn creates_and_removes_predict_and_recover() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    fs::create_dir(dir.path().join("sub")).expect("mkdir");
    let module =
        shell(json!({"cmd": "cat > made", "chdir": "sub", "creates": "ma*", "stdin": "text"}));
    assert_eq!(
        module.check(&ctx).await.expect("check"),
        Plan::NeedsChange(vec!["run `cat > made`".into()])
    );
    let recovery = module.recover(&ctx, &Value::Null).await.expect("recover");
    assert!(matches!(&recovery, Recovery::Unknown { doing, found }
        if doing == "running `cat > made`" && found.ends_with("ma* does not exist")));
    assert!(
        module
            .apply(&ctx, &Value::Null)
            .await
            .expect("apply")
            .changed
    );
    assert_eq!(
        fs::read(dir.path().join("sub/made")).expect("made"),
        b"text\n"
    );
    assert_eq!(module.check(&ctx).await.expect("check"), Plan::InSync);
    let again = module.apply(&ctx, &Value::Null).await.expect("apply");
    assert!(
        !again.changed
            && again.result["msg"]
                .as_str()
                .expect("msg")
                .contains("exists")
    );
    let recovery = module.recover(&ctx, &Value::Null).await.expect("recover");
    assert!(matches!(recovery, Recovery::Done(outcome) if outcome.changed));

    let module = command(json!({"argv": ["rm", "sub/made"], "removes": "sub/made"}));
    assert!(matches!(
        module.check(&ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    module.apply(&ctx, &Value::Null).await.expect("apply");
    assert_eq!(module.check(&ctx).await.expect("check"), Plan::InSync);
    let plain = command(json!({"cmd": "true"}));
    let recovery = plain.recover(&ctx, &Value::Null).await.expect("recover");
    assert!(matches!(recovery, Recovery::Unknown { .. }));
}

#[tokio::test]
async fn wrong_arguments_are_named() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    for (arguments, message) in [
        (json!({}), "`cmd` or `argv` is needed"),
        (json!({"cmd": "a", "argv": ["a"]}), "exclude each other"),
        (json!({"cmd": "it's"}), "single quote"),
        (json!({"cmd": "  "}), "empty"),
    ] {
        let error = command(arguments)
            .check(&ctx)
            .await
            .expect_err(message)
            .to_string();
        assert!(error.contains(message), "{error}");
    }
    assert!(serde_json::from_value::<CommandModule>(json!({"cmd": "a", "creats": "b"})).is_err());
}
