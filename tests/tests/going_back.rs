//! Going back from a Kaapana 0.3 that was in use: what 0.2 will not know is listed, and its database kept.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lab::crash::{self, Until, Verdict};
use lab::evidence::inodes;
use lab::migration::{Migration, Running};
use lab::server::{Server, ServerOptions};
use lab::site::Scale;
use lab::way::Way;
use serde_json::json;

type Outcome = Result<(), Box<dyn Error>>;

/// One study with one instance, and one instance in a study that was there before, as 0.3 stores them.
const STORED: &str = "
insert into dicomattrs (pk, attrs) select 900000 + n, '\\x00' from generate_series(1, 4) n;
insert into study select (jsonb_populate_record(study, jsonb_build_object('pk', 900001,
  'study_iuid', '1.2.3.new', 'dicomattrs_fk', 900001, 'ref_phys_name_fk', null))).*
  from study order by pk limit 1;
insert into series select (jsonb_populate_record(series, jsonb_build_object('pk', 900001,
  'series_iuid', '1.2.3.new.1', 'dicomattrs_fk', 900002, 'study_fk', 900001, 'metadata_fk', null,
  'perf_phys_name_fk', null))).* from series order by pk limit 1;
insert into instance select (jsonb_populate_record(instance, jsonb_build_object('pk', 900001,
  'sop_iuid', '1.2.3.new.1.1', 'dicomattrs_fk', 900003, 'series_fk', 900001))).*
  from instance order by pk limit 1;
insert into instance select (jsonb_populate_record(instance, jsonb_build_object('pk', 900002,
  'sop_iuid', '1.2.3.added', 'dicomattrs_fk', 900004))).* from instance order by pk limit 1;
insert into location select (jsonb_populate_record(location, jsonb_build_object('pk', 900001,
  'storage_id', 'fs1', 'storage_path', '2026/12/01/new', 'instance_fk', 900001, 'uidmap_fk', null))).*
  from location order by pk limit 1;";

/// Kaapana 0.3 runs on the migrated database, and stores something.
fn use_it(migration: &Migration) -> Result<String, Box<dyn Error>> {
    let site = &migration.site;
    let server = Server::start(
        &site.images.new,
        Some(&site.postgres_dir()),
        &ServerOptions::default(),
    )?;
    let study = server.psql(
        "select study_iuid from study where pk = (select study_fk from series where pk =
         (select series_fk from instance order by pk limit 1))",
    )?;
    server.psql(STORED)?;
    server.stop()?;
    Ok(study.trim().to_owned())
}

fn inode(path: &Path) -> Result<u64, Box<dyn Error>> {
    Ok(fs::symlink_metadata(path)?.ino())
}

/// The only entry of a folder whose name begins so.
fn beginning_with(folder: &Path, start: &str) -> Result<PathBuf, Box<dyn Error>> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start)
    };
    let found: Vec<PathBuf> = entries.filter(fits).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        other => Err(format!("{start}: {other:?}").into()),
    }
}

#[test]
fn what_came_in_under_0_3_is_listed_and_its_database_is_kept() -> Outcome {
    let migration = Migration::begin(Scale::S)?;
    migration.agent.set(&json!({"route": "direct"}))?;
    migration.finish()?;
    let known_study = use_it(&migration)?;
    let site = &migration.site;
    let used = inode(&site.postgres_dir())?;

    let check = Running::start(&mut migration.agent.command(&["rollback", "--check"]))?.end()?;
    check.must_have(0)?;
    check.must_say(&["first: Going back, what 0.3 has stored since"])?;
    // Killed behind what is looked at and in the middle of what is moved, it goes on.
    for point in [
        "kill:after:task_started:back-studies",
        "kill:before:task_finished:back-instances",
        "kill:before:task_finished:back-keep",
    ] {
        let mut rollback = migration.agent.command(&["rollback", "--yes"]);
        rollback.env("KAAPANA_AGENT_TEST_POINTS", point);
        let ended = Running::start(&mut rollback)?.end()?;
        assert_eq!(
            ended.code, None,
            "{point}: {}{}",
            ended.stdout, ended.stderr
        );
    }
    migration.start_rollback()?.end()?.must_have(0)?;
    let journal = fs::read_to_string(migration.agent.journal_path())?;
    assert!(
        journal.contains("1 studies and 2 instances are in its"),
        "the question"
    );
    let finished = |task: &str| {
        let records = migration.agent.journal();
        let of = |record: &&serde_json::Value| lab::agent::is_about(record, "task_finished", task);
        records.iter().filter(of).count()
    };
    for task in [
        "back-studies",
        "back-instances",
        "back-confirmed",
        "back-keep",
    ] {
        assert_eq!(finished(task), 1, "{task}");
    }

    let lists = beginning_with(&site.backup_dir, "only-in-0.3-")?;
    let list = |name: &str| -> Result<String, Box<dyn Error>> {
        let path = lists.join(name);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o7777, 0o600);
        Ok(fs::read_to_string(path)?)
    };
    assert_eq!(list("studies.txt")?, "1.2.3.new\n");
    assert_eq!(
        list("instances.txt")?,
        format!("1.2.3.added\t{known_study}\t\t\n1.2.3.new.1.1\t1.2.3.new\tfs1\t2026/12/01/new\n")
    );
    let kept = beginning_with(&site.fast_data_dir, "postgres-dcm4che-0.3-")?;
    assert_eq!(inode(&kept)?, used, "the very 0.3 directory");
    assert!(
        migration
            .in_quarantine()
            .iter()
            .all(|name| !name.contains("-new"))
    );

    // A site that stays on 0.2 frees its disk; what only 0.3 has stays.
    let stays = || -> Result<_, Box<dyn Error>> {
        Ok((inodes(&site.fast_data_dir)?, inodes(&site.backup_dir)?))
    };
    let before = stays()?;
    let mut purge = migration.agent.command(&["purge", "--yes"]);
    Running::start(&mut purge)?.end()?.must_have(0)?;
    assert_eq!(stays()?, before);

    // What looks at it is no longer asked for: then the site is as it was, and a second migration goes its way.
    fs::remove_dir_all(&lists)?;
    fs::remove_dir_all(&kept)?;
    migration.must_be_rolled_back()?;
    migration.finish()?;
    migration.must_have_ended_right()?;
    // Nobody used it this time: nothing is listed, and it goes into quarantine.
    migration.start_rollback()?.end()?.must_have(0)?;
    migration.must_be_rolled_back()?;
    assert!(
        migration
            .in_quarantine()
            .iter()
            .any(|name| name == "postgres-dcm4che-new")
    );
    Ok(())
}

/// Another one meets other records.
const SEED: u64 = 3;
/// No case begins later than this after each kind of migration has gone back from its end.
const BUDGET: Duration = Duration::from_secs(120);

#[test]
fn every_route_and_every_way_of_the_ldap_part_goes_back_from_everywhere() -> Outcome {
    let ends = Way::ALL
        .into_iter()
        .flat_map(|way| crash::ways_back(way, &[Until::End]));
    must_be_right(&crash::run_all(ends.collect(), 2, None));
    let mut cases = Vec::new();
    for (number, way) in (0..).zip(Way::ALL) {
        let records = crash::records_of(way)?;
        // Another eighth in each, so that together they are everywhere; the whole is `crash --back`.
        let record = (records * ((SEED + 3 * number) % 8 + 1) / 9).max(2);
        let phase = if number % 2 == 0 { "before" } else { "after" };
        cases.extend(crash::ways_back(way, &[Until::Record(record, phase)]));
    }
    let until = Instant::now() + BUDGET;
    must_be_right(&crash::run_all(cases, 2, Some(until)));
    Ok(())
}

fn must_be_right(verdicts: &[Verdict]) {
    let wrong: Vec<_> = verdicts
        .iter()
        .filter(|verdict| verdict.wrong.is_some())
        .collect();
    assert!(!verdicts.is_empty() && wrong.is_empty(), "{wrong:#?}");
}
