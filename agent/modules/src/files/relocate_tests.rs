//! `move`: predicts, moves once, never overwrites, crosses filesystems only when told, and knows after
//! a crash how far it came.

use std::process::Command;

use super::*;
use lab::tree::make_tree;

/// A small filesystem of its own.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"])
            .arg(dir.path())
            .status()
            .expect("mount(8)");
        assert!(mounted.success(), "these tests need root to mount a tmpfs");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

struct Scene {
    home: tempfile::TempDir,
    _playbook: tempfile::TempDir,
    ctx: TaskContext,
}

impl Scene {
    fn new() -> Self {
        let (home, playbook) = (
            tempfile::tempdir().expect("dir"),
            tempfile::tempdir().expect("dir"),
        );
        make_tree(&home.path().join("src"));
        let ctx = TaskContext::for_tests(playbook.path());
        Self {
            home,
            _playbook: playbook,
            ctx,
        }
    }

    fn src(&self) -> PathBuf {
        self.home.path().join("src")
    }

    fn module(&self, dest: &Path, more: Value) -> MoveModule {
        let mut arguments = json!({"src": self.src(), "dest": dest});
        for (key, value) in more.as_object().expect("object") {
            arguments[key] = value.clone();
        }
        serde_json::from_value(arguments).expect("arguments")
    }

    /// The context of the next run, which finds this one's attempt interrupted.
    fn after_crash(&self) -> TaskContext {
        let mut ctx = self.ctx.clone();
        ctx.interrupted_attempt = Some(std::mem::replace(&mut ctx.attempt, "run-2/1".into()));
        ctx
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("list");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_rename_moves_once_and_is_recognised_after_a_crash() {
    let scene = Scene::new();
    let dest = scene.home.path().join("src-old");
    let module = scene.module(&scene.home.path().join("src-old/"), json!({"idle": true}));
    assert!(matches!(
        module.check(&scene.ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    assert_eq!(
        names(scene.home.path()),
        ["src"],
        "check must not change the host"
    );
    let intent = module.prepare(&scene.ctx).await.expect("prepare");
    let next = scene.after_crash();
    let recovery = module.recover(&next, &intent).await.expect("recover");
    assert_eq!(recovery, Recovery::NotDone, "killed before the rename");

    let outcome = module.apply(&scene.ctx, &intent).await.expect("apply");
    assert_eq!(outcome.result["method"], "rename");
    assert_eq!(names(scene.home.path()), ["src-old"]);
    let recovery = module.recover(&next, &intent).await.expect("recover");
    assert_eq!(recovery, Recovery::Done(outcome), "killed after the rename");

    fs::create_dir(scene.src()).expect("somebody makes a new one");
    let recovery = module.recover(&next, &intent).await.expect("recover");
    let Recovery::Unknown { found, .. } = recovery else {
        panic!("{recovery:?}")
    };
    assert!(found.contains("src is something else"), "{found}");
    assert!(
        found.contains(&format!("{} is the original", dest.display())),
        "{found}"
    );
}

#[tokio::test]
async fn what_exists_is_neither_replaced_nor_moved_into() {
    let scene = Scene::new();
    let dest = scene.home.path().join("dest");
    fs::create_dir(&dest).expect("mkdir");
    let module = scene.module(&dest, json!({}));
    let error = module
        .prepare(&scene.ctx)
        .await
        .expect_err("taken")
        .to_string();
    assert!(error.contains("already exists (directory)"), "{error}");
    assert!(module.check(&scene.ctx).await.is_err());
    fs::remove_dir(&dest).expect("rmdir");
    let intent = module.prepare(&scene.ctx).await.expect("free");
    fs::create_dir(&dest).expect("taken between prepare and apply");
    assert!(module.apply(&scene.ctx, &intent).await.is_err());
    assert_eq!(names(&dest), [""; 0]);
    assert!(scene.src().join("base").is_dir());

    let below = scene.module(&scene.src().join("base/new"), json!({}));
    assert!(below.prepare(&scene.ctx).await.is_err());
    let lost = scene.module(&scene.home.path().join("no/such"), json!({}));
    let error = lost
        .prepare(&scene.ctx)
        .await
        .expect_err("no folder")
        .to_string();
    assert!(error.contains("target's folder"), "{error}");
}

#[tokio::test]
async fn a_source_that_was_exchanged_after_the_journal_entry_is_refused() {
    let scene = Scene::new();
    let module = scene.module(&scene.home.path().join("dest"), json!({}));
    let intent = module.prepare(&scene.ctx).await.expect("prepare");
    fs::rename(scene.src(), scene.home.path().join("kept")).expect("rename");
    fs::create_dir(scene.src()).expect("mkdir");
    let error = module
        .apply(&scene.ctx, &intent)
        .await
        .expect_err("another")
        .to_string();
    assert!(error.contains("changed meanwhile"), "{error}");
}

#[tokio::test]
async fn idle_refuses_while_a_process_works_there() {
    let scene = Scene::new();
    let module = scene.module(&scene.home.path().join("dest"), json!({"idle": true}));
    let mut child = Command::new("sleep")
        .arg("60")
        .current_dir(scene.src().join("base/1"))
        .spawn()
        .expect("sleep");
    let error = module.prepare(&scene.ctx).await;
    child.kill().expect("kill");
    child.wait().expect("wait");
    let error = error.expect_err("in use").to_string();
    assert!(
        error.contains("is in use") && error.contains("in base/1"),
        "{error}"
    );
    module.prepare(&scene.ctx).await.expect("idle");
}

#[tokio::test]
async fn another_filesystem_is_refused_unless_allowed() {
    let scene = Scene::new();
    let other = Tmpfs::mount();
    let dest = other.path().join("dest");
    let error = scene.module(&dest, json!({})).prepare(&scene.ctx).await;
    let error = error.expect_err("refused").to_string();
    assert!(
        error.contains("(tmpfs, tmpfs)") && error.contains("cannot cross"),
        "{error}"
    );

    let module = scene.module(&dest, json!({"cross_filesystem": true}));
    assert!(matches!(
        module.check(&scene.ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    assert_eq!(names(other.path()), [""; 0]);
    let intent = module.prepare(&scene.ctx).await.expect("prepare");
    let outcome = module.apply(&scene.ctx, &intent).await.expect("apply");
    assert_eq!(outcome.result["method"], "copy");
    assert_eq!(outcome.result["files"], 6);
    assert_eq!(names(other.path()), ["dest"], "no left-overs");
    assert_eq!(names(scene.home.path()), [""; 0]);
    assert_eq!(fs::read(dest.join("twin")).expect("content"), b"content");
    let recovery = module
        .recover(&scene.after_crash(), &intent)
        .await
        .expect("recover");
    assert!(matches!(recovery, Recovery::Done(_)), "{recovery:?}");
}

#[tokio::test]
async fn a_full_target_is_found_before_and_leaves_nothing() {
    let scene = Scene::new();
    let other = Tmpfs::mount();
    fs::write(scene.src().join("big"), vec![1; 40 << 20]).expect("write");
    let module = scene.module(
        &other.path().join("dest"),
        json!({"cross_filesystem": true}),
    );
    let error = module
        .prepare(&scene.ctx)
        .await
        .expect_err("too big")
        .to_string();
    assert!(error.contains("are needed"), "{error}");
    assert!(scene.src().join("big").exists());
}

#[tokio::test]
async fn a_cancelled_copy_is_completed_by_the_next_attempt_which_believes_nothing() {
    let mut scene = Scene::new();
    let other = Tmpfs::mount();
    let dest = other.path().join("dest");
    let module = scene.module(&dest, json!({"cross_filesystem": true}));
    let intent = module.prepare(&scene.ctx).await.expect("prepare");
    let cancel = scene.ctx.cancel.clone();
    scene.ctx.progress = crate::host::progress::Progress::new(
        move |done, _, _, _| {
            // In the middle of the large file, which comes before the sparse one.
            if done > 2 * 1024 * 1024 {
                cancel.cancel()
            }
        },
        |_| {},
    );
    let stopped = module.apply(&scene.ctx, &intent).await;
    assert!(
        matches!(stopped, Err(ModuleError::Cancelled)),
        "{stopped:?}"
    );
    assert!(scene.src().join("base/large").exists() && !dest.exists());
    let left = names(other.path());
    assert_eq!(left.len(), 1, "{left:?}");
    let partial = other.path().join(&left[0]);
    let large = partial.join("base/large");
    assert!(fs::metadata(&large).expect("begun").len() >= 2 * 1024 * 1024);

    // A crash may leave anything in it: a wrong byte, a stranger, another kind, a wrong link.
    let mut bytes = fs::read(&large).expect("read");
    bytes[100] ^= 1;
    fs::write(&large, bytes).expect("write");
    fs::write(partial.join("stranger"), "x").expect("write");
    fs::create_dir(partial.join("twin")).expect("mkdir");
    fs::write(partial.join("sparse"), vec![9; 1 << 20]).expect("write");

    let mut next = scene.after_crash();
    next.cancel = tokio_util::sync::CancellationToken::new();
    next.progress = crate::host::progress::Progress::none();
    let recovery = module.recover(&next, &intent).await.expect("recover");
    assert_eq!(recovery, Recovery::NotDone);
    next.interrupted_attempt = None;
    let intent = module.prepare(&next).await.expect("prepare");
    let outcome = module.apply(&next, &intent).await.expect("completed");
    let figure = |name: &str| outcome.result[name].as_u64().expect("a figure");
    assert_eq!(
        figure("kept_bytes"),
        1024 * 1024 + 7,
        "a small file and one chunk were right"
    );
    assert_eq!(figure("copied_bytes"), 2 * 1024 * 1024 + 5 + 3);
    assert_eq!(names(other.path()), ["dest"]);
    assert_eq!(names(scene.home.path()), [""; 0]);
    assert_eq!(
        fs::read(dest.join("base/large")).expect("read"),
        vec![7; 3 * 1024 * 1024 + 5]
    );
    let small = fs::metadata(dest.join("base/1/small")).expect("stat");
    let twin = fs::metadata(dest.join("twin")).expect("stat");
    assert_eq!(Identity::of(&small), Identity::of(&twin));
    use std::os::unix::fs::MetadataExt;
    let sparse = fs::metadata(dest.join("sparse")).expect("stat");
    assert_eq!(sparse.len(), (64 << 20) + 3);
    assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
}

#[tokio::test]
async fn every_place_where_a_copy_can_be_killed_is_recovered() {
    let scene = Scene::new();
    let other = Tmpfs::mount();
    let dest = other.path().join("dest");
    let module = scene.module(&dest, json!({"cross_filesystem": true}));
    let intent_value = module.prepare(&scene.ctx).await.expect("prepare");
    let intent = read_intent(&intent_value).expect("intent");
    let next = scene.after_crash();
    let partial = partial_of(&dest, intent.identity);
    let marker = sibling(&dest, "verified", &scene.ctx.attempt);

    // While copying.
    fs::create_dir(&partial).expect("mkdir");
    fs::write(partial.join("half"), "x").expect("write");
    let recovery = module.recover(&next, &intent_value).await.expect("recover");
    assert_eq!(recovery, Recovery::NotDone);
    assert!(
        partial.join("half").exists(),
        "the next attempt completes it"
    );
    fs::remove_dir_all(&partial).expect("rm");

    // The copy has the name, and nothing vouches for it.
    copy_tree(&scene.src(), &dest, &scene.ctx).expect("copy");
    let recovery = module.recover(&next, &intent_value).await.expect("recover");
    assert!(matches!(recovery, Recovery::Unknown { .. }), "{recovery:?}");
    assert!(scene.src().join("base").is_dir());

    // Between the rename and the removal of the source.
    let copy = Identity::at(&dest).expect("stat").expect("there");
    fs::write(&marker, json!(Verified { copy }).to_string()).expect("write");
    let recovery = module.recover(&next, &intent_value).await.expect("recover");
    assert!(matches!(recovery, Recovery::Done(_)), "{recovery:?}");
    assert_eq!(
        (names(other.path()), names(scene.home.path())),
        (vec!["dest".into()], vec![])
    );

    // In the middle of the removal.
    fs::write(&marker, json!(Verified { copy }).to_string()).expect("write");
    fs::create_dir_all(waiting_name(&intent.src, &scene.ctx.attempt).join("rest")).expect("mkdir");
    let recovery = module.recover(&next, &intent_value).await.expect("recover");
    assert!(matches!(recovery, Recovery::Done(_)), "{recovery:?}");
    assert_eq!(
        (names(other.path()), names(scene.home.path())),
        (vec!["dest".into()], vec![])
    );

    // After everything, before the journal says so; and when the copy is not what the source was.
    let recovery = module.recover(&next, &intent_value).await.expect("recover");
    assert!(matches!(recovery, Recovery::Done(_)), "{recovery:?}");
    fs::remove_file(dest.join("twin")).expect("rm");
    fs::remove_file(dest.join("base/large")).expect("rm");
    let recovery = module.recover(&next, &intent_value).await.expect("recover");
    assert!(matches!(recovery, Recovery::Unknown { .. }), "{recovery:?}");
}
