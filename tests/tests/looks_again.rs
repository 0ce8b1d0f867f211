//! What was fine in an earlier run may have changed since: it is looked at again before the effect that rests
//! on it, and never more after that.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use lab::agent;
use lab::images::{docker, new_slapd};
use lab::kubernetes::Cluster;
use lab::ldap_update::update_in_pods;
use lab::migration::{Ended, Migration, Running};
use lab::scene::Scene;
use lab::site::Scale;
use lab::tool;
use serde_json::json;

type Outcome = Result<(), Box<dyn Error>>;

const POINTS: &str = "KAAPANA_AGENT_TEST_POINTS";

/// A look, another effect, and the effect that rests on the look.
const TASKS: &str = r#"
- id: free
  stat: {path: HOME/place}
  register: place
  failed_when: place.stat.exists
  again_until: [fill, fill-otherwise]
- id: between
  shell: echo between >> HOME/effects
- id: fill
  shell: echo fill >> HOME/effects; touch HOME/place
- id: fill-otherwise
  when: false
  shell: echo otherwise >> HOME/effects
- id: last
  shell: echo last >> HOME/effects
"#;

fn run_to(scene: &Scene, point: &str) -> Result<Ended, Box<dyn Error>> {
    let mut command = scene.command(&[], &["run"], &[])?;
    Ok(Running::start(command.env(POINTS, point))?.end()?)
}

#[test]
fn a_look_is_repeated_until_what_rests_on_it_has_begun() -> Outcome {
    let scene = Scene::with(TASKS)?;
    run_to(&scene, "kill:after:task_finished:between")?;
    assert_eq!(scene.records("task_finished", "free").len(), 1);
    let plan = scene.agent(&["plan"], &[])?;
    plan.must_have(0)?;
    plan.must_say(&["looked at again, as `fill` has not begun"])?;

    // Somebody else's is in the place: the run stops there, before the effect.
    fs::write(scene.path("place"), "precious")?;
    let ended = scene.run()?;
    ended.must_have(2)?;
    ended.must_say(&["looked at again"])?;
    assert_eq!(scene.effects(), "between");
    assert!(scene.records("task_started", "fill").is_empty());
    scene.agent(&["status"], &[])?.must_say(&["failed"])?;
    scene.run()?.must_have(2)?;
    fs::remove_file(scene.path("place"))?;

    // Interrupted: what is in the place now is its own.
    run_to(&scene, "kill:before:task_finished:fill")?;
    assert_eq!(scene.effects(), "between fill");
    let looked = scene.records("task_finished", "free").len();
    scene
        .agent(&["resolve"], &["fill", "--done", "--reason", "it is there"])?
        .must_have(0)?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.effects(), "between fill last");
    // Nothing is looked at from here on, whatever is there and whatever the look was told.
    scene.run()?.must_have(0)?;
    assert_eq!(scene.records("task_finished", "free").len(), looked);
    Ok(())
}

#[test]
fn a_look_of_this_run_is_not_repeated_by_it_and_one_that_was_undone_is() -> Outcome {
    let scene = Scene::with(
        r#"
- id: free
  stat: {path: HOME/place}
  register: place
  failed_when: place.stat.exists
  again_until: made
- id: made
  file: {path: HOME/place, state: directory}
"#,
    )?;
    scene.run()?.must_have(0)?;
    assert_eq!(scene.records("task_finished", "free").len(), 1);
    scene.run()?.must_have(0)?;
    assert_eq!(scene.records("task_finished", "free").len(), 1);
    scene.agent(&["rollback", "--yes"], &[])?.must_have(0)?;
    fs::write(scene.path("place"), "precious")?;
    scene.run()?.must_have(2)?;
    fs::remove_file(scene.path("place"))?;
    scene.run()?.must_have(0)?;
    Ok(())
}

/// A task that describes a state is only checked: what is put right unasked would be another thing.
#[test]
fn what_describes_a_state_is_looked_at_and_not_put_right() -> Outcome {
    let scene = Scene::with(
        r#"
- id: there
  file: {path: HOME/thing, state: directory}
  again_until: last
- id: between
  shell: echo between >> HOME/effects
- id: last
  shell: echo last >> HOME/effects
"#,
    )?;
    run_to(&scene, "kill:after:task_finished:between")?;
    fs::remove_dir(scene.path("thing"))?;
    for _ in 0..2 {
        let ended = scene.run()?;
        ended.must_have(2)?;
        ended.must_say(&["is so no longer", "run --redo there"])?;
        assert!(!scene.path("thing").exists(), "nothing is put right");
        assert_eq!(scene.effects(), "between");
    }
    let checked = scene.agent(&["run", "--check"], &[])?;
    checked.must_have(2)?;
    scene.agent(&["run"], &["--redo", "there"])?.must_have(0)?;
    assert!(scene.path("thing").exists());
    assert_eq!(scene.effects(), "between last");
    fs::remove_dir(scene.path("thing"))?;
    scene.run()?.must_have(0)?;
    assert!(!scene.path("thing").exists(), "done for good");
    Ok(())
}

/// The last run failed, and has started no server.
fn stopped_at(migration: &Migration, ended: &Ended) -> Outcome {
    ended.must_have(2)?;
    let journal = migration.agent.journal();
    let last = journal.last().map(|record| &record["run"]);
    let mut of_run = journal.iter().filter(|record| Some(&record["run"]) == last);
    assert!(
        of_run.all(|record| record["event"] != "service_started"),
        "a server was started before the look"
    );
    Ok(())
}

/// A way to break what a look is about, and to put it right again.
struct Break<'b> {
    what: &'static str,
    words: &'static [&'static str],
    break_it: Box<dyn Fn() -> Result<Mend, Box<dyn Error>> + 'b>,
}

/// Each of them stops a run before its first server, and does so no longer when it is put right.
fn each_stops<'b>(migration: &Migration, breaks: impl IntoIterator<Item = Break<'b>>) -> Outcome {
    for one in breaks {
        let mend = (one.break_it)()?;
        let ended = migration.start()?.end();
        mend()?;
        let ended = ended?;
        let told = |error: Box<dyn Error>| format!("{}: {error}", one.what);
        stopped_at(migration, &ended).map_err(told)?;
        ended
            .must_say(one.words)
            .map_err(|error| told(error.into()))?;
        assert!(!migration.has_started("schema-5.26"), "{}", one.what);
    }
    Ok(())
}

type Mend = Box<dyn FnOnce() -> Outcome>;

/// Takes a place that must be free.
fn take(path: &Path) -> Result<Mend, Box<dyn Error>> {
    fs::create_dir(path)?;
    let path = path.to_path_buf();
    Ok(Box::new(move || Ok(fs::remove_dir(&path)?)))
}

/// Takes an image's name away, which is this test's own.
fn untag(image: &str, from: &str) -> Result<Mend, Box<dyn Error>> {
    docker(&["rmi", image])?;
    let (image, from) = (image.to_owned(), from.to_owned());
    Ok(Box::new(move || {
        docker(&["tag", &from, &image])?;
        Ok(())
    }))
}

/// A run that is killed at a point, well behind its preflight.
fn killed_at(migration: &Migration, point: &str, task: &str) -> Outcome {
    let mut run = migration.agent.run();
    Running::start(run.env(POINTS, format!("{point}:{task}")))?.end()?;
    assert!(migration.has_started(task), "killed too early");
    Ok(())
}

fn hold(path: &Path) -> Result<Mend, Box<dyn Error>> {
    let mut sleeper = Command::new("sleep")
        .arg("600")
        .current_dir(path)
        .stdin(Stdio::null())
        .spawn()?;
    Ok(Box::new(move || {
        sleeper.kill()?;
        sleeper.wait()?;
        Ok(())
    }))
}

/// Where a run is killed behind its preflight and before its first server.
const BEFORE_SERVERS: (&str, &str) = ("kill:after:task_finished", "scripts-from-image");

fn own_name(kind: &str) -> String {
    format!("kaapana-lab/looks-again-{kind}:{}", std::process::id())
}

/// One site, killed before its first server is up; then every look of the preflight is broken in turn.
#[test]
fn every_look_of_the_preflight_stops_a_later_run_before_anything_rests_on_it() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let site = &migration.site;
    // Names of this test's own: other tests use the images.
    let (old, new) = (own_name("old"), own_name("new"));
    docker(&["tag", &site.images.old, &old])?;
    docker(&["tag", &site.images.new, &new])?;
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&site.backup_dir);
        tool::run(&mut mount, "mount a tmpfs")
    };
    mount("size=512m,mode=0700")?;
    let ended = all_looks(&migration, &old, &new);
    let mut umount = Command::new("umount");
    let unmounted = tool::run(umount.arg("-l").arg(&site.backup_dir), "unmount");
    for tag in [&old, &new] {
        let _ = docker(&["rmi", tag]);
    }
    ended?;
    unmounted?;
    Ok(())
}

fn all_looks(migration: &Migration, old: &str, new: &str) -> Outcome {
    let (site, agent) = (&migration.site, &migration.agent);
    agent.set(&json!({"old_image": old, "new_image": new}))?;
    killed_at(migration, BEFORE_SERVERS.0, BEFORE_SERVERS.1)?;
    let breaks = [
        Break {
            what: "the data directory is in use",
            words: &["sleep"],
            break_it: Box::new(|| hold(&site.postgres_dir())),
        },
        Break {
            what: "a place is taken",
            words: &["Nothing of an earlier migration"],
            break_it: Box::new(|| take(&migration.new_dir())),
        },
        Break {
            what: "the disk is full",
            words: &["room for two dumps"],
            break_it: Box::new(|| {
                let ballast = site.backup_dir.join("ballast");
                let mut fallocate = Command::new("fallocate");
                fallocate.args(["-l", "500M"]).arg(&ballast);
                tool::run(&mut fallocate, "fill the disk")?;
                Ok(Box::new(move || Ok(fs::remove_file(&ballast)?)))
            }),
        },
        Break {
            what: "the 0.2 image is gone",
            words: &["is so no longer", "run --redo old-image"],
            break_it: Box::new(|| untag(old, &site.images.old)),
        },
        Break {
            what: "the 0.3 image is gone",
            words: &["is so no longer", "run --redo new-image"],
            break_it: Box::new(|| untag(new, &site.images.new)),
        },
    ];
    each_stops(migration, breaks)?;

    // All is put right: it goes on. Killed once more, when all that the swap rests on was looked at.
    killed_at(migration, "kill:after:task_finished", "old-at-rest")?;
    assert!(!migration.has_started("keep-old"));
    let ended = {
        let mend = hold(&site.postgres_dir())?;
        let ended = migration.start()?.end();
        mend()?;
        ended?
    };
    stopped_at(migration, &ended)?;
    assert!(!migration.has_started("keep-old"));

    migration.finish()?;
    migration.must_be_passed_over()?;
    migration.must_have_ended_right()?;
    Ok(())
}

/// What 0.2 takes in between the last look of one run and the swap of the next is in no dump.
#[test]
fn studies_that_came_in_between_two_runs_stop_the_swap() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let site = &migration.site;
    let use_it = |sql: &str| -> Outcome {
        let server = site.serve(&site.images.old, &site.postgres_dir())?;
        server.psql(sql)?;
        Ok(server.stop()?)
    };
    // Counted again, as another run goes on than the one that dumped; killed when it was found unchanged.
    killed_at(&migration, "kill:after:task_finished", "dump-old")?;
    killed_at(&migration, "kill:after:task_finished", "verify-old-again")?;
    // The agent's server outlived it; whoever starts Kaapana again sees to that first.
    let left = migration
        .container("pacs_old_again")
        .ok_or("it had a server")?;
    docker(&["stop", "--time", "60", &left])?;
    use_it(
        "update patient set pat_custom1 = 'came in later' where pk = (select min(pk) from patient)",
    )?;
    let ended = migration.start()?.end()?;
    ended.must_have(2)?;
    ended.must_say(&["patient"])?;
    assert!(!migration.has_started("keep-old"), "the swap would lose it");
    let looked = agent::is_about;
    let again = migration
        .agent
        .journal()
        .iter()
        .filter(|record| looked(record, "task_started", "verify-old-again"))
        .count();
    assert_eq!(again, 2);
    Ok(())
}

#[test]
fn every_look_of_the_ldap_preflight_stops_a_later_run() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let (site, slapd, name) = (&migration.site, new_slapd()?, own_name("slapd"));
    docker(&["tag", &slapd, &name])?;
    migration
        .agent
        .set(&json!({"ldap_update": "offline", "slapd_image": name}))?;
    killed_at(&migration, BEFORE_SERVERS.0, BEFORE_SERVERS.1)?;
    let ended = each_stops(
        &migration,
        [
            Break {
                what: "the LDAP directory is in use",
                words: &["sleep"],
                break_it: Box::new(|| hold(&site.ldap_dir())),
            },
            Break {
                what: "a place of the LDAP part is taken",
                words: &["Nothing is where the LDAP part"],
                break_it: Box::new(|| take(&site.fast_data_dir.join("ldap-new"))),
            },
            Break {
                what: "the slapd image is gone",
                words: &["is so no longer", "run --redo slapd-image"],
                break_it: Box::new(|| untag(&name, &slapd)),
            },
        ],
    )
    .and_then(|()| killed_at(&migration, "kill:after:task_finished", "schema-5.26"));
    docker(&["rmi", &name])?;
    ended
}

#[test]
fn a_cluster_that_does_not_answer_any_more_stops_a_later_run() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    let site = &migration.site;
    let cluster = Cluster::start()?;
    migration.agent.set(&update_in_pods(&cluster))?;
    killed_at(&migration, BEFORE_SERVERS.0, BEFORE_SERVERS.1)?;
    each_stops(
        &migration,
        [
            Break {
                what: "the LDAP directory is in use",
                words: &["sleep"],
                break_it: Box::new(|| hold(&site.slapd_config_dir())),
            },
            Break {
                what: "a place of the LDAP directory is taken",
                words: &["Nothing is where the LDAP directory"],
                break_it: Box::new(|| take(&site.fast_data_dir.join("ldap-old"))),
            },
        ],
    )?;
    // The API server is stopped.
    drop(cluster);
    let ended = migration.start()?.end()?;
    stopped_at(&migration, &ended)?;
    ended.must_say(&["The cluster answers"])?;
    assert!(!migration.has_started("schema-5.26"));
    let cluster = Cluster::start()?;
    migration.agent.set(&update_in_pods(&cluster))?;
    killed_at(&migration, "kill:after:task_finished", "schema-5.26")
}
