//! What the lab promises to the tests that are built on it.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lab::check;
use lab::images::{self, DebianImage, PostgresImages};
use lab::schema::{Schema, SchemaVersion, UPDATES};
use lab::server::{Server, ServerOptions};
use lab::site::{Scale, Site};
use lab::{tool, workplace};

type Outcome = Result<(), Box<dyn Error>>;

fn pg_images() -> &'static PostgresImages {
    static IMAGES: OnceLock<PostgresImages> = OnceLock::new();
    IMAGES.get_or_init(|| PostgresImages::ensure().expect("the lab's images can be built here"))
}

fn without_schema() -> ServerOptions {
    ServerOptions {
        without_schema: true,
        ..ServerOptions::default()
    }
}

/// A schema as far as a dump of one must fit the other: nothing of names, order, unique keys and checks.
fn describe(server: &Server) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let text = server.psql(
        "select 'column ' || table_name || '.' || column_name || ' '
             || case when data_type = 'smallint' then 'integer' else data_type end
             || coalesce('(' || character_maximum_length || ')', '') || ' ' || is_nullable
         from information_schema.columns where table_schema = 'public'
         union
         select 'index ' || t.relname || ' ' || regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '')
         from pg_index i join pg_class t on t.oid = i.indrelid where t.relnamespace = 'public'::regnamespace
         union
         select 'foreign key ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) from pg_constraint where contype = 'f'
         union
         select 'sequence ' || relname from pg_class where relkind = 'S'",
    )?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
fn an_empty_pgdata_gets_the_whole_schema_at_first_start() -> Outcome {
    for (image, tables, uid, version) in [
        (&pg_images().old, "37", 999, "13"),
        (&pg_images().new, "39", 70, "15"),
    ] {
        let scratch = tempfile::tempdir()?;
        let pgdata = scratch.path().join("data");
        fs::create_dir(&pgdata)?;
        let server = Server::start(image, Some(&pgdata), &ServerOptions::default())?;
        assert_eq!(
            server.psql("select count(*) from pg_tables where schemaname = 'public'")?,
            tables
        );
        assert_eq!(
            server.psql("select rolname, rolsuper from pg_roles where rolname !~ '^pg_'")?,
            "pacs|t"
        );
        assert!(server.psql("show server_version")?.starts_with(version));
        assert_eq!(server.psql("show lc_collate")?, "en_US.utf8");
        server.stop()?;
        let meta = fs::metadata(&pgdata)?;
        assert_eq!(
            (meta.uid(), meta.gid(), meta.mode() & 0o777),
            (uid, uid, 0o700)
        );

        // A second start takes the directory as it is, also as the user that it belongs to.
        let run_as = ServerOptions {
            run_as: Some(format!("{uid}:{uid}")),
            ..ServerOptions::default()
        };
        let server = Server::start(image, Some(&pgdata), &run_as)?;
        assert_eq!(
            server.psql("select count(*) from pg_tables where schemaname = 'public'")?,
            tables
        );
    }
    Ok(())
}

#[test]
fn the_init_server_does_not_listen_on_tcp() -> Outcome {
    let scripts = tempfile::tempdir()?;
    // Runs inside the init server's time, and asks from there what a client would ask.
    let probe = "psql -qc 'create table probe (answer text)' -U pacs -d pacsdb\n\
                 if pg_isready -q -h 127.0.0.1; then answer=tcp; elif pg_isready -q; then answer=socket; fi\n\
                 psql -qc \"insert into probe values ('${answer-none}')\" -U pacs -d pacsdb\n";
    fs::write(scripts.path().join("10-probe.sh"), probe)?;
    let mounts = vec![(
        scripts.path().to_path_buf(),
        "/docker-entrypoint-initdb.d".to_owned(),
    )];
    let server = Server::start(
        &pg_images().new,
        None,
        &ServerOptions {
            mounts,
            ..ServerOptions::default()
        },
    )?;
    assert_eq!(server.psql("select answer from probe")?, "socket");
    assert!(
        server
            .shell("pg_isready -h 127.0.0.1")?
            .contains("accepting connections")
    );
    Ok(())
}

#[test]
fn a_server_without_a_password_is_refused_at_first_start() -> Outcome {
    let options = ServerOptions {
        password: String::new(),
        ..ServerOptions::default()
    };
    let error = Server::start(&pg_images().old, None, &options)
        .err()
        .ok_or("it started")?;
    assert!(
        error.to_string().contains("POSTGRES_PASSWORD is empty"),
        "{error}"
    );
    Ok(())
}

#[test]
fn arguments_reach_the_server_and_its_port_is_on_loopback_with_a_password() -> Outcome {
    let arguments = vec![
        "-c".to_owned(),
        "work_mem=7MB".to_owned(),
        "-c".to_owned(),
        "max_connections=7".to_owned(),
    ];
    let options = ServerOptions {
        arguments,
        publish: true,
        without_schema: true,
        ..ServerOptions::default()
    };
    for (image, method) in [
        (&pg_images().old, "md5"),
        (&pg_images().new, "scram-sha-256"),
    ] {
        let server = Server::start(image, None, &options)?;
        assert_eq!(
            server
                .psql("select current_setting('work_mem'), current_setting('max_connections')")?,
            "7MB|7"
        );
        assert_eq!(
            server.psql("select auth_method from pg_hba_file_rules where address = 'all'")?,
            method
        );
        assert!(std::net::TcpStream::connect(("127.0.0.1", server.port()?)).is_ok());
        // Every local interface but the loopback one stays closed.
        assert!(
            images::docker(&["port", server.name()])?
                .lines()
                .all(|line| line.contains("-> 127.0.0.1:"))
        );
    }
    Ok(())
}

#[test]
fn the_seven_scripts_turn_the_old_schema_into_the_new_one() -> Outcome {
    let migrated = Server::start(&pg_images().old, None, &ServerOptions::default())?;
    for (name, _) in UPDATES {
        migrated.shell(&format!(
            "psql -X -q -1 -v ON_ERROR_STOP=1 -U pacs -d pacsdb -f /sql/{name}"
        ))?;
    }
    let fresh = Server::start(&pg_images().new, None, &ServerOptions::default())?;
    let (migrated, fresh) = (describe(&migrated)?, describe(&fresh)?);
    let only_migrated: Vec<_> = migrated.difference(&fresh).map(String::as_str).collect();
    let only_fresh: Vec<_> = fresh.difference(&migrated).map(String::as_str).collect();
    // The one difference in what may be stored, as upstream's scripts leave it.
    assert_eq!(only_migrated, ["column patient_id.patient_fk bigint YES"]);
    assert_eq!(only_fresh, ["column patient_id.patient_fk bigint NO"]);
    Ok(())
}

#[test]
fn running_a_script_twice_shows_in_the_content() -> Outcome {
    let server = Server::start(&pg_images().old, None, &ServerOptions::default())?;
    server.psql("insert into id_sequence values ('accession', 10, 0)")?;
    let run = |name: &str| {
        server.shell(&format!(
            "psql -X -q -1 -v ON_ERROR_STOP=1 -U pacs -d pacsdb -f /sql/{name}"
        ))
    };
    for name in [
        "update-5.27-psql.sql",
        "update-5.28-psql.sql",
        "update-5.29-psql.sql",
    ] {
        run(name)?;
    }
    assert_eq!(server.psql("select next_value from id_sequence")?, "11");
    // No error tells, and the table that 5.29 dropped is back.
    run("update-5.28-psql.sql")?;
    assert_eq!(server.psql("select next_value from id_sequence")?, "12");
    assert_eq!(server.psql("select to_regclass('key_value')")?, "key_value");
    Ok(())
}

#[test]
fn no_script_needs_more_than_plain_sql() -> Outcome {
    for version in [SchemaVersion::V5_26, SchemaVersion::V5_32] {
        let schema = Schema::render(version)?;
        let texts = UPDATES
            .iter()
            .map(|(_, text)| *text)
            .chain(schema.files().map(|(_, text)| text));
        for line in texts
            .flat_map(str::lines)
            .map(str::trim)
            .filter(|line| !line.starts_with("--"))
        {
            let first = line
                .split([' ', ';'])
                .next()
                .unwrap_or_default()
                .to_lowercase();
            assert!(
                !line.starts_with('\\') && !["begin", "commit", "copy"].contains(&first.as_str()),
                "{line}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_site_has_what_a_hospital_has() -> Outcome {
    let site = Site::temporary(Scale::S)?;
    assert_ne!(site.fast_data_dir, site.slow_data_dir);
    assert!(!site.slow_data_dir.join("postgres-dcm4che").exists());
    assert_eq!(
        fs::read_to_string(site.postgres_dir().join("PG_VERSION"))?.trim(),
        "13"
    );
    assert!(!site.postgres_dir().join("postmaster.pid").exists());
    let owner = |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.mode() & 0o777));
    assert_eq!(owner(&site.postgres_dir())?, (999, 0o700));
    assert_eq!(owner(&site.fast_data_dir.join("ldap"))?.0, 1021);
    assert_eq!(
        owner(&site.fast_data_dir.join("slapd.d/cn=config.ldif"))?.0,
        1021
    );

    let server = site.serve(&site.images.old, &site.postgres_dir())?;
    assert_eq!(server.psql("select count(*) from instance")?, "1000");
    assert_eq!(server.psql("select count(*) from patient_id i where not exists (select from patient where patient_id_fk = i.pk)")?, "2");
    assert_eq!(
        server.psql("select count(*) from series where series_desc = E'\\\\.'")?,
        "4"
    );
    // The schema is the image's own, object by object.
    let fresh = Server::start(&site.images.old, None, &ServerOptions::default())?;
    assert_eq!(describe(&server)?, describe(&fresh)?);

    // Every object that the index names is there, with the content that the index knows.
    let rows = server.psql("select storage_path, object_size, sop_iuid from location join instance on instance.pk = instance_fk")?;
    assert_eq!(rows.lines().count(), 1000);
    for row in rows.lines() {
        let [path, size, uid] = row.split('|').collect::<Vec<_>>()[..] else {
            return Err(row.into());
        };
        let content = fs::read(site.dicom_dir().join(path))?;
        assert_eq!(
            (content.len().to_string().as_str(), &content[128..132]),
            (size, b"DICM".as_slice())
        );
        assert!(
            content
                .windows(uid.len())
                .any(|window| window == uid.as_bytes()),
            "{path} has not got {uid}"
        );
    }
    Ok(())
}

#[test]
fn a_second_site_is_a_copy_with_other_inodes() -> Outcome {
    let (first, second) = (Site::temporary(Scale::S)?, Site::temporary(Scale::S)?);
    let inode =
        |site: &Site| fs::metadata(site.postgres_dir().join("PG_VERSION")).map(|meta| meta.ino());
    assert_ne!(inode(&first)?, inode(&second)?);
    for dir in [Site::postgres_dir, Site::dicom_dir] {
        assert_eq!(
            check::dir_fingerprint(&dir(&first))?,
            check::dir_fingerprint(&dir(&second))?
        );
    }
    let root: PathBuf = first.root.clone();
    drop(first);
    assert!(!root.exists());
    Ok(())
}

#[test]
fn checksums_see_one_changed_byte_and_a_doubled_row() -> Outcome {
    let server = Server::start(&pg_images().old, None, &without_schema())?;
    server.psql("create table a (pk int, attrs bytea); create table b (name text); \
                 insert into a values (1, '\\x00ff'); insert into b values (E'x\\ny'), ('z'), (null), ('')")?;
    let before = check::table_checksums(&server)?;
    assert_eq!((before["a"].rows, before["b"].rows), (1, 4));
    server.psql("update a set attrs = '\\x00fe'; insert into b values ('z')")?;
    let after = check::table_checksums(&server)?;
    assert!(before["a"].sha256 != after["a"].sha256 && before["b"].sha256 != after["b"].sha256);
    server.psql("update a set attrs = '\\x00ff'; delete from b where ctid in (select ctid from b where name = 'z' limit 1)")?;
    assert_eq!(check::table_checksums(&server)?, before);
    Ok(())
}

#[test]
fn a_5_25_database_lacks_the_marks_of_5_26() -> Outcome {
    let site = Site::temporary(Scale::S)?;
    site.make_schema_5_25()?;
    let server = site.serve(&site.images.old, &site.postgres_dir())?;
    let marks =
        "select count(*) from information_schema.columns where column_name = 'accno_entity_id'";
    assert_eq!(server.psql(marks)?, "0");
    // The scripts run through all the same: that is why a migration must look at the marks.
    for (name, _) in UPDATES {
        server.shell(&format!(
            "psql -X -q -1 -v ON_ERROR_STOP=1 -U pacs -d pacsdb -f /sql/{name}"
        ))?;
    }
    Ok(())
}

#[test]
fn a_server_ends_with_its_value_and_a_dead_owners_server_is_swept() -> Outcome {
    let server = Server::start(&pg_images().old, None, &without_schema())?;
    let name = server.name().to_owned();
    drop(server);
    let filter = format!("name={name}");
    assert_eq!(
        images::docker(&["ps", "--all", "--quiet", "--filter", &filter])?,
        ""
    );

    // Pid 1 with a start time that it does not have: an owner that is gone.
    let orphan = workplace::unique("kaapana-lab-orphan");
    let labels = [
        "--label",
        "kaapana-lab=1",
        "--label",
        "kaapana-lab.owner=1-1",
    ];
    images::docker(
        &[
            &["create", "--name", &orphan][..],
            &labels,
            &[&pg_images().old, "true"],
        ]
        .concat(),
    )?;
    images::remove_orphaned_containers(false)?;
    let filter = format!("name={orphan}");
    assert_eq!(
        images::docker(&["ps", "--all", "--quiet", "--filter", &filter])?,
        ""
    );
    Ok(())
}

#[test]
fn nothing_but_a_site_is_taken_for_one() -> Outcome {
    let dir = tempfile::tempdir()?;
    assert!(Site::open(dir.path()).is_err());
    fs::write(dir.path().join("precious"), "data")?;
    let error = Site::create(dir.path(), Scale::S)
        .err()
        .ok_or("it took the directory")?;
    assert!(error.to_string().contains("not empty"), "{error}");
    Ok(())
}

#[test]
fn an_images_name_changes_with_each_of_its_inputs() {
    let image = DebianImage {
        repository: "kaapana-lab/x".into(),
        version: "1".into(),
        ..DebianImage::default()
    };
    let other_suite = DebianImage {
        suite: "bookworm".into(),
        ..image.clone()
    };
    let other_config = DebianImage {
        config: vec!["EXPOSE 22".into()],
        ..image.clone()
    };
    let names = BTreeSet::from([image.tag(), other_suite.tag(), other_config.tag()]);
    assert_eq!(names.len(), 3);
    assert_eq!(image.tag(), image.clone().tag());
}

#[test]
fn the_guides_steps_by_hand_keep_all_content() -> Outcome {
    let site = Site::temporary(Scale::S)?;
    let mut guide =
        std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/guide.sh"));
    let printed = tool::run(guide.envs(site.variables()), "migrate by hand")?;
    assert!(
        printed
            .lines()
            .last()
            .is_some_and(|line| line.ends_with("\ttotal")),
        "{printed}"
    );

    let old = site.serve(
        &site.images.old,
        &site.fast_data_dir.join("postgres-dcm4che-old"),
    )?;
    let new = site.serve(&site.images.new, &site.postgres_dir())?;
    let mut columns = check::common_columns(&check::columns(&old)?, &check::columns(&new)?);
    // What the scripts change in columns that both sides have.
    for (table, column) in [
        ("instance", "ext_retrieve_aet"),
        ("series", "ext_retrieve_aet"),
        ("id_sequence", "next_value"),
        ("id_sequence", "version"),
    ] {
        columns
            .entry(table.to_owned())
            .or_default()
            .retain(|name| name != column);
    }
    assert_eq!(columns.len(), 37);
    assert_eq!(
        check::table_checksums_of(&old, &columns)?,
        check::table_checksums_of(&new, &columns)?
    );
    assert_eq!(
        new.psql("select count(*) from patient_id where patient_fk is null")?,
        "2"
    );
    assert_eq!(
        new.psql("select next_value from id_sequence where name = 'accession'")?,
        "4712"
    );
    Ok(())
}
