//! The ladder of `file`: predict, change, predict nothing, repair, recover.

use std::os::unix::fs::{MetadataExt, symlink};

use serde_json::json;

use super::*;
use crate::host::files::attributes::{Attributes, apply_to_path};
use crate::host::files::durable::mode_of;
use crate::host::files::remove::waiting_name;

fn module(arguments: Value) -> FileModule {
    serde_json::from_value(arguments).expect("arguments")
}

async fn ladder(module: &FileModule, ctx: &TaskContext) -> Outcome {
    assert!(matches!(
        module.check(ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    let intent = module.prepare(ctx).await.expect("prepare");
    let outcome = module.apply(ctx, &intent).await.expect("apply");
    assert!(outcome.changed);
    assert_eq!(module.check(ctx).await.expect("check"), Plan::InSync);
    let again = module.apply(ctx, &intent).await.expect("apply again");
    assert!(!again.changed);
    outcome
}

#[tokio::test]
async fn directory_is_made_with_parents_and_repaired() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let module = module(json!({"path": "a/b", "state": "directory", "mode": "0750", "owner": "1"}));
    assert!(matches!(
        module.check(&ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    assert!(
        !dir.path().join("a").exists(),
        "check must not change the host"
    );
    let outcome = ladder(&module, &ctx).await;
    assert_eq!(outcome.result["mode"], "0750");
    assert_eq!(outcome.result["state"], "directory");
    let meta = fs::metadata(dir.path().join("a")).expect("parent");
    assert_eq!((mode_of(&meta), meta.uid()), (0o750, 1));
    let set = |mode| {
        apply_to_path(
            &dir.path().join("a/b"),
            &Attributes {
                mode: Some(mode),
                ..Attributes::default()
            },
        )
    };
    set(0o777).expect("break it");
    let plan = module.check(&ctx).await.expect("check");
    assert_eq!(plan, Plan::NeedsChange(vec!["mode 0777 -> 0750".into()]));
    ladder(&module, &ctx).await;
}

#[tokio::test]
async fn recurse_reaches_everything_but_not_behind_links() {
    let dir = tempfile::tempdir().expect("temp dir");
    fs::create_dir_all(dir.path().join("d/e")).expect("mkdir");
    fs::write(dir.path().join("d/e/f"), "x").expect("write");
    fs::write(dir.path().join("outside"), "x").expect("write");
    symlink(dir.path().join("outside"), dir.path().join("d/link")).expect("link");
    let ctx = TaskContext::for_tests(dir.path());
    let module = module(json!({"path": "d", "state": "directory", "recurse": true,
        "mode": "u=rwX,go=", "owner": "70"}));
    ladder(&module, &ctx).await;
    let meta = fs::metadata(dir.path().join("d/e/f")).expect("stat");
    assert_eq!((mode_of(&meta), meta.uid()), (0o600, 70));
    assert_eq!(
        fs::metadata(dir.path().join("outside"))
            .expect("stat")
            .uid(),
        0
    );
}

#[tokio::test]
async fn a_tree_goes_into_quarantine_and_an_interrupted_removal_is_recognised() {
    let dir = tempfile::tempdir().expect("temp dir");
    let tree = dir.path().join("old");
    fs::create_dir_all(tree.join("x/y")).expect("mkdir");
    let playbook = tempfile::tempdir().expect("temp dir");
    let mut ctx = TaskContext::for_tests(playbook.path());
    let module = module(json!({"path": tree, "state": "absent"}));
    let identity = Identity::at(&tree).expect("stat");
    let outcome = ladder(&module, &ctx).await;
    assert_eq!(outcome.result["state"], "absent");
    let place = playbook.path().join("state/quarantine/run-1-1/old");
    assert_eq!(outcome.result["quarantined_to"], json!(place));
    assert!(outcome.result["size_bytes"].is_u64());
    assert_eq!(Identity::at(&place).expect("stat"), identity);
    let folder = fs::metadata(place.parent().expect("folder")).expect("stat");
    assert_eq!(mode_of(&folder), 0o700);

    // Killed between the rename and the journal's record.
    fs::rename(&place, &tree).expect("back");
    let intent = module.prepare(&ctx).await.expect("prepare");
    module.apply(&ctx, &intent).await.expect("apply");
    ctx.interrupted_attempt = Some(std::mem::replace(&mut ctx.attempt, "run-2/1".into()));
    let recovery = module.recover(&ctx, &intent).await.expect("recover");
    assert!(
        matches!(recovery, Recovery::Done(outcome) if outcome.result["quarantined_to"] == json!(place))
    );
    fs::rename(&place, &tree).expect("as before the rename");
    let recovery = module.recover(&ctx, &intent).await.expect("recover");
    assert_eq!(recovery, Recovery::NotDone, "killed before the rename");
}

#[tokio::test]
async fn a_removal_that_an_older_agent_began_is_finished() {
    let dir = tempfile::tempdir().expect("temp dir");
    let tree = dir.path().join("old");
    fs::create_dir_all(tree.join("x/y")).expect("mkdir");
    let playbook = tempfile::tempdir().expect("temp dir");
    let mut ctx = TaskContext::for_tests(playbook.path());
    let module = module(json!({"path": tree, "state": "absent"}));
    let identity = Identity::at(&tree).expect("stat");
    let intent = json!({"identity": identity, "quarantined_to": null});
    fs::rename(&tree, waiting_name(&tree, &ctx.attempt)).expect("as a killed attempt leaves it");
    ctx.interrupted_attempt = Some(ctx.attempt.clone());
    let recovery = module.recover(&ctx, &intent).await.expect("recover");
    assert!(matches!(recovery, Recovery::Done(outcome) if outcome.changed));
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
}

#[tokio::test]
async fn what_is_removed_must_be_what_the_journal_names() {
    let dir = tempfile::tempdir().expect("temp dir");
    let file = dir.path().join("f");
    fs::write(&file, "x").expect("write");
    let playbook = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(playbook.path());
    let module = module(json!({"path": file, "state": "absent"}));
    let intent = module.prepare(&ctx).await.expect("prepare");
    fs::rename(&file, dir.path().join("g")).expect("away");
    fs::write(&file, "theirs").expect("write");
    let error = module.apply(&ctx, &intent).await.expect_err("another");
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
    assert_eq!(fs::read(&file).expect("kept"), b"theirs");
}

#[tokio::test]
async fn quarantine_keeps_the_data_and_recovers_by_inode() {
    let dir = tempfile::tempdir().expect("temp dir");
    let tree = dir.path().join("old");
    fs::create_dir(&tree).expect("mkdir");
    fs::write(tree.join("f"), "x").expect("write");
    let playbook = tempfile::tempdir().expect("temp dir");
    let mut ctx = TaskContext::for_tests(playbook.path());
    let module =
        module(json!({"path": tree, "state": "absent", "quarantine": dir.path().join("q/r")}));
    let intent = module.prepare(&ctx).await.expect("prepare");
    let outcome = module.apply(&ctx, &intent).await.expect("apply");
    assert_eq!(
        outcome.result["quarantined_to"],
        json!(dir.path().join("q/r/old"))
    );
    assert_eq!(fs::read(dir.path().join("q/r/old/f")).expect("kept"), b"x");
    ctx.interrupted_attempt = Some(ctx.attempt.clone());
    let recovery = module.recover(&ctx, &intent).await.expect("recover");
    assert!(matches!(recovery, Recovery::Done(_)));

    fs::create_dir(&tree).expect("a second one of the name");
    let intent = module.prepare(&ctx).await.expect("prepare");
    let outcome = module.apply(&ctx, &intent).await.expect("apply");
    let second = outcome.result["quarantined_to"]
        .as_str()
        .expect("path")
        .to_owned();
    assert!(second.ends_with("q/r/old.again-run-1-1"), "{second}");
    assert!(Path::new(&second).is_dir() && dir.path().join("q/r/old/f").exists());
}

#[tokio::test]
async fn links_are_made_changed_and_never_put_over_data() {
    let dir = tempfile::tempdir().expect("temp dir");
    for name in ["a", "b"] {
        fs::write(dir.path().join(name), name).expect("write");
    }
    let mut ctx = TaskContext::for_tests(dir.path());
    ladder(
        &module(json!({"dest": "l", "state": "link", "src": "a"})),
        &ctx,
    )
    .await;
    ladder(
        &module(json!({"dest": "l", "state": "link", "src": "b"})),
        &ctx,
    )
    .await;
    assert_eq!(fs::read(dir.path().join("l")).expect("follow"), b"b");
    let over = module(json!({"dest": "a", "state": "link", "src": "b"}));
    assert!(over.check(&ctx).await.is_err());
    let dangling = module(json!({"dest": "m", "state": "link", "src": "nowhere"}));
    assert!(dangling.check(&ctx).await.is_err());
    ctx.attempt = "run-1/2".into();
    ladder(&module(json!({"dest": "l", "state": "absent"})), &ctx).await;
    assert!(dir.path().join("b").exists());
}

#[tokio::test]
async fn touch_creates_once_when_times_are_preserved() {
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let keep = json!({
        "path": "t", "state": "touch", "mode": 0o600,
        "modification_time": "preserve", "access_time": "preserve",
    });
    ladder(&module(keep), &ctx).await;
    let now = module(json!({"path": "t", "state": "touch"}));
    assert!(now.apply(&ctx, &Value::Null).await.expect("apply").changed);
    let missing = module(json!({"path": "u", "state": "file"}));
    let error = missing
        .check(&ctx)
        .await
        .expect_err("Ansible creates nothing either");
    assert!(error.to_string().contains("does not exist"), "{error}");
}

#[test]
fn contradictory_and_unknown_arguments_are_refused() {
    let unknown = serde_json::from_value::<FileModule>(json!({"path": "x", "stat": "file"}));
    assert!(unknown.is_err());
    let dir = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(dir.path());
    let module = module(json!({"path": "x", "state": "touch", "recurse": true}));
    assert!(module.converge(&ctx, Converge::Check, None).is_err());
}

/// What the journal would have of an attempt, and what takes it back.
async fn undone(module: &FileModule, ctx: &TaskContext) -> Undo {
    let intent = module.prepare(ctx).await.expect("prepare");
    let outcome = module.apply(ctx, &intent).await.expect("apply");
    let mut result = Value::Object(outcome.result);
    result["changed"] = outcome.changed.into();
    let arguments = json!({});
    FileModule::undo(&[PastAttempt {
        attempt: "run-1/1",
        intent: &intent,
        arguments: &arguments,
        result: Some(&result),
        accepted: false,
    }])
}

async fn take_back(undo: Undo, ctx: &TaskContext) {
    let Undo::Steps(steps) = undo else {
        panic!("{undo:?}");
    };
    let mut view = crate::task::undo_plan::View::of_host(Default::default(), true);
    let planned =
        crate::task::undo_plan::plan_steps(&steps, "run-1/9", &mut view, ctx).expect("plan");
    let taken = crate::task::undo_steps::apply_steps(&planned, ctx).await;
    taken.expect("taken back");
}

#[tokio::test]
async fn every_state_can_be_taken_back_to_what_was_there() {
    let dir = tempfile::tempdir().expect("temp dir");
    let playbook = tempfile::tempdir().expect("temp dir");
    let ctx = TaskContext::for_tests(playbook.path());
    let at = |name: &str| dir.path().join(name);
    fs::write(at("f"), "x").expect("write");
    symlink("f", at("l")).expect("link");
    fs::create_dir(at("d")).expect("mkdir");
    let before = |name: &str| Identity::at(&at(name)).expect("stat");
    let was = ["f", "l", "d"].map(before);
    let mode = mode_of(&fs::metadata(at("f")).expect("stat"));

    for arguments in [
        json!({"path": at("new/deep"), "state": "directory"}),
        json!({"path": at("t"), "state": "touch"}),
        json!({"path": at("f"), "mode": "0600"}),
        json!({"path": at("l"), "state": "link", "src": "d", "follow": false}),
        json!({"path": at("d"), "state": "absent"}),
    ] {
        let undo = undone(&module(arguments), &ctx).await;
        take_back(undo, &ctx).await;
    }
    assert_eq!(["f", "l", "d"].map(before), was);
    assert_eq!(mode_of(&fs::metadata(at("f")).expect("stat")), mode);
    assert!(!at("new").exists() && !at("t").exists());

    let nothing = undone(
        &module(json!({"path": at("d"), "state": "directory"})),
        &ctx,
    )
    .await;
    assert!(matches!(nothing, Undo::Nothing(_)), "{nothing:?}");
    let below =
        module(json!({"path": at("d"), "state": "directory", "recurse": true, "mode": "0711"}));
    let below = undone(&below, &ctx).await;
    assert!(matches!(below, Undo::Impossible(_)), "{below:?}");
}
