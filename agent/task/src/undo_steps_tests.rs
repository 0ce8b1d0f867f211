//! Steps of an undo: planned against what will be, taken once, and taken again after a crash.

use std::collections::HashSet;

use super::*;
use crate::undo::Step;
use crate::undo_plan::{View, plan_steps};

struct Scene {
    home: tempfile::TempDir,
    _playbook: tempfile::TempDir,
    ctx: TaskContext,
}

impl Scene {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("temp dir");
        let playbook = tempfile::tempdir().expect("temp dir");
        let mut ctx = TaskContext::for_tests(playbook.path());
        ctx.quarantine.own = home.path().join("q");
        Self {
            home,
            _playbook: playbook,
            ctx,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn directory(&self, name: &str) -> Identity {
        fs::create_dir(self.path(name)).expect("mkdir");
        fs::write(self.path(name).join("f"), name).expect("write");
        self.identity(name)
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::at(&self.path(name))
            .expect("stat")
            .expect("there")
    }

    fn plan(&self, view: &mut View, steps: &[Step]) -> Result<Vec<Planned>, ModuleError> {
        plan_steps(steps, "run/9", view, &self.ctx)
    }

    fn back(&self, from: &str, to: &str, identity: Identity) -> Step {
        Step::MoveBack {
            from: self.path(from),
            to: self.path(to),
            identity,
        }
    }
}

fn host() -> View {
    View::of_host(HashSet::new(), true)
}

/// As the shipped migration leaves it: the old directory kept, the new one in its place.
#[tokio::test]
async fn a_chain_of_moves_is_planned_against_what_will_be() {
    let scene = Scene::new();
    let (old, new) = (scene.directory("kept"), scene.directory("data"));
    let steps = [
        scene.back("data", "new", new),
        scene.back("kept", "data", old),
        Step::SetAside {
            path: scene.path("new"),
            identity: Some(new),
        },
    ];
    let mut view = host();
    let planned = scene.plan(&mut view, &steps).expect("possible");
    assert_eq!(planned.len(), 3);
    assert_eq!(
        scene.identity("kept"),
        old,
        "planning must not change the host"
    );
    // The other way round the name is taken.
    let error = scene
        .plan(&mut host(), &steps[1..2])
        .expect_err("data is there");
    assert!(error.to_string().contains("already exists"), "{error}");

    let taken = apply_steps(&planned, &scene.ctx).await.expect("taken");
    assert_eq!(scene.identity("data"), old);
    let Taken::Quarantined { to, size_bytes, .. } = &taken[2] else {
        panic!("{taken:?}");
    };
    assert_eq!(*to, scene.path("q/run-9/new"));
    assert!(*size_bytes > 0);
    // Killed after the last of them, before the journal knew.
    assert_eq!(steps_taken(&planned).expect("look"), planned.len());
    apply_steps(&planned, &scene.ctx)
        .await
        .expect("nothing is left to be done");
    assert_eq!(scene.identity("q/run-9/new"), new);
}

#[tokio::test]
async fn only_the_very_thing_is_moved_back() {
    let scene = Scene::new();
    let old = scene.directory("kept");
    fs::rename(scene.path("kept"), scene.path("elsewhere")).expect("by hand");
    let step = [scene.back("kept", "data", old)];
    let error = scene.plan(&mut host(), &step).expect_err("gone");
    assert!(error.to_string().contains("does not exist"), "{error}");
    scene.directory("kept");
    let error = scene.plan(&mut host(), &step).expect_err("another");
    assert!(error.to_string().contains("another"), "{error}");
    // What was purged counts as gone, even if half of it is still there.
    let step = [scene.back("elsewhere", "data", old)];
    let mut view = View::of_host([scene.path("elsewhere")].into(), true);
    assert!(scene.plan(&mut view, &step).is_err());
    assert!(scene.plan(&mut host(), &step).is_ok());
}

#[tokio::test]
async fn what_somebody_uses_stays_where_it_is() {
    let scene = Scene::new();
    let identity = scene.directory("kept");
    let step = [scene.back("kept", "data", identity)];
    let planned = scene.plan(&mut host(), &step).expect("idle");
    let open = fs::File::open(scene.path("kept/f")).expect("open");
    let error = scene.plan(&mut host(), &step).expect_err("in use");
    assert!(error.to_string().contains("in use"), "{error}");
    let error = apply_steps(&planned, &scene.ctx).await.expect_err("in use");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(open);
    apply_steps(&planned, &scene.ctx).await.expect("idle again");
}

#[tokio::test]
async fn a_folder_goes_only_when_nothing_is_left_in_it() {
    let scene = Scene::new();
    let inner = scene.directory("made");
    let steps = [
        Step::SetAside {
            path: scene.path("made/f"),
            identity: None,
        },
        Step::SetAsideEmpty {
            path: scene.path("made"),
        },
    ];
    assert!(
        scene
            .plan(&mut host(), &steps[1..])
            .expect("no step")
            .is_empty()
    );
    let planned = scene.plan(&mut host(), &steps).expect("both");
    assert_eq!(planned.len(), 2);
    fs::write(scene.path("made/theirs"), "x").expect("somebody else");
    let taken = apply_steps(&planned, &scene.ctx).await.expect("taken");
    assert!(matches!(taken[1], Taken::Kept { .. }), "{taken:?}");
    assert_eq!(scene.identity("made"), inner);
    fs::remove_file(scene.path("made/theirs")).expect("gone");
    apply_steps(&planned, &scene.ctx).await.expect("again");
    assert!(!scene.path("made").exists());
}

#[tokio::test]
async fn a_confirmation_is_asked_for_and_says_who_gave_it() {
    let scene = Scene::new();
    let planned = [Planned::Confirm {
        prompt: "Is it undeployed?".into(),
    }];
    let error = apply_steps(&planned, &scene.ctx)
        .await
        .expect_err("nobody is there");
    assert!(error.to_string().contains("Is it undeployed?"), "{error}");
}
