//! The ladder of `copy`.

use std::os::unix::fs::{MetadataExt, symlink};

use serde_json::json;

use super::*;
use crate::host::files::durable::{CHUNK_BYTES, sibling};
use lab::tree::make_tree;

fn module(arguments: Value) -> CopyModule {
    serde_json::from_value(arguments).expect("arguments")
}

async fn ladder(module: &CopyModule, ctx: &TaskContext) -> Outcome {
    let plan = module.check(ctx).await.expect("check");
    assert!(matches!(plan, Plan::NeedsChange(_)), "{plan:?}");
    let outcome = module.apply(ctx, &Value::Null).await.expect("apply");
    assert!(outcome.changed);
    assert_eq!(module.check(ctx).await.expect("check"), Plan::InSync);
    let again = module.apply(ctx, &Value::Null).await.expect("apply");
    assert!(!again.changed);
    outcome
}

#[tokio::test]
async fn content_is_written_replaced_and_kept() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let first = module(json!({"content": "abc", "dest": "f", "mode": "0600", "owner": "70"}));
    assert!(matches!(
        first.check(&ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    assert!(
        !dir.path().join("f").exists(),
        "check must not change the host"
    );
    let outcome = ladder(&first, &ctx).await;
    assert_eq!(
        outcome.result["checksum"],
        "a9993e364706816aba3e25717850c26c9cd0d89d"
    );
    assert_eq!(outcome.outputs[0].sha256, outcome.result["sha256"]);
    assert_eq!(
        (&outcome.result["mode"], &outcome.result["uid"]),
        (&json!("0600"), &json!(70))
    );

    let second = module(json!({"content": {"a": 1}, "dest": "f", "backup": true}));
    let outcome = ladder(&second, &ctx).await;
    assert_eq!(
        (&outcome.result["mode"], &outcome.result["uid"]),
        (&json!("0600"), &json!(70))
    );
    let backup = outcome.result["backup_file"].as_str().expect("path");
    assert_eq!(fs::read(backup).expect("backup"), b"abc");
    assert_eq!(fs::read(dir.path().join("f")).expect("new"), b"{\"a\": 1}");
    let not = module(json!({"content": "x", "dest": "f", "force": false}));
    assert_eq!(not.check(&ctx).await.expect("check"), Plan::InSync);
}

#[tokio::test]
async fn a_file_goes_into_a_directory_and_a_link_is_replaced() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    fs::write(dir.path().join("src"), vec![5; CHUNK_BYTES + 1]).expect("write");
    fs::create_dir(dir.path().join("d")).expect("mkdir");
    fs::write(dir.path().join("behind"), "keep").expect("write");
    symlink("../behind", dir.path().join("d/src")).expect("link");
    let copy = module(json!({"src": "src", "dest": "d/", "mode": "preserve"}));
    assert_eq!(copy.input_files(&ctx), [dir.path().join("src")]);
    ladder(&copy, &ctx).await;
    assert_eq!(
        fs::read(dir.path().join("behind")).expect("behind"),
        b"keep"
    );
    assert!(
        fs::symlink_metadata(dir.path().join("d/src"))
            .expect("stat")
            .is_file()
    );
    // Same length, last byte differs.
    let mut broken = vec![5; CHUNK_BYTES + 1];
    broken[CHUNK_BYTES] = 6;
    fs::write(dir.path().join("d/src"), broken).expect("break it");
    ladder(&copy, &ctx).await;
}

#[tokio::test]
async fn refused_content_leaves_the_old_one() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    fs::write(dir.path().join("f"), "old").expect("write");
    let copy = module(json!({"content": "bad", "dest": "f", "validate": "grep -q good %s"}));
    let error = copy
        .apply(&ctx, &Value::Null)
        .await
        .expect_err("refused")
        .to_string();
    assert!(error.contains("refused the new content"), "{error}");
    assert_eq!(fs::read(dir.path().join("f")).expect("old"), b"old");
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    ladder(
        &module(json!({"content": "good", "dest": "f", "validate": "grep -q good %s"})),
        &ctx,
    )
    .await;
    let wrong = module(json!({"src": "f", "dest": "g", "checksum": "00".repeat(32)}));
    assert!(wrong.check(&ctx).await.is_err());
}

#[tokio::test]
async fn data_is_copied_whole_and_then_kept_equal() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    make_tree(&dir.path().join("data"));
    fs::remove_file(dir.path().join("data/fifo")).expect("rm");
    let copy = module(json!({"src": "data/", "dest": "work/copy", "remote_src": true}));
    ladder(&copy, &ctx).await;
    let small = dir.path().join("work/copy/base/1/small");
    let meta = fs::metadata(&small).expect("stat");
    assert_eq!((meta.uid(), mode_of(&meta)), (999, 0o4751));
    fs::write(&small, "CONTENT").expect("break it");
    fs::remove_file(dir.path().join("work/copy/link")).expect("break it");
    ladder(&copy, &ctx).await;
    assert_eq!(fs::read(&small).expect("read"), b"content");
    let inside = module(json!({"src": "data/", "dest": "data/base/x", "remote_src": true}));
    assert!(inside.check(&ctx).await.is_err());
}

#[tokio::test]
async fn a_folder_of_the_playbook_is_copied_under_its_name() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    fs::create_dir_all(dir.path().join("sql/sub")).expect("mkdir");
    fs::write(dir.path().join("sql/sub/a.sql"), "a").expect("write");
    fs::create_dir(dir.path().join("to")).expect("mkdir");
    let copy =
        module(json!({"src": "sql", "dest": "to", "mode": "0640", "directory_mode": "0750"}));
    assert_eq!(copy.input_files(&ctx), [dir.path().join("sql/sub/a.sql")]);
    ladder(&copy, &ctx).await;
    let mode = |path: &str| mode_of(&fs::metadata(dir.path().join(path)).expect("stat"));
    assert_eq!(
        (mode("to/sql/sub"), mode("to/sql/sub/a.sql")),
        (0o750, 0o640)
    );
}

#[tokio::test]
async fn left_overs_of_an_interrupted_attempt_go_away() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut ctx = TaskContext::for_tests(dir.path());
    fs::write(dir.path().join("src"), "x").expect("write");
    let copy = module(json!({"src": "src", "dest": "f"}));
    fs::write(
        sibling(&dir.path().join("f"), "partial", &ctx.attempt),
        "ha",
    )
    .expect("write");
    ctx.interrupted_attempt = Some(ctx.attempt.clone());
    let recovery = copy.recover(&ctx, &Value::Null).await.expect("recover");
    assert_eq!(recovery, Recovery::NotDone);
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
}
