//! Our own restore against psql's, on real servers: the same database from the same file, and no database
//! from a broken one.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::live_rig::{Rig, Server, code, inside, psql, run, sql};
use crate::task::module::Outcome;

pub const OBJECTS: &str = include_str!("../testdata/every_object.sql");

/// What pg_dump says of a database, line by line in order, without what differs from call to call.
pub fn described(server: &Server, db: &str, options: &[&str]) -> Vec<String> {
    let mut command = vec!["pg_dump", "-d", db];
    command.extend_from_slice(options);
    let text = String::from_utf8(inside(server, &[], &command, "").stdout).expect("UTF-8");
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

pub async fn restore(server: &Server, src: &Path, db: &str, method: &str) -> Outcome {
    let arguments = json!({"src": src, "db": db, "method": method, "connections": 3});
    match run(&server.ctx, "postgresql_restore", arguments).await {
        Ok(outcome) => outcome,
        Err(error) => panic!("{method}: {}", code(error)),
    }
}

pub async fn snapshot(server: &Server, db: &str) -> Value {
    let taken = run(&server.ctx, "postgresql_snapshot", json!({"db": db})).await;
    Value::Object(taken.expect("snapshot").result)
}

/// Both databases hold the same: every object, every row, every large object.
pub async fn same(server: &Server, ours: &str, theirs: &str) {
    assert_eq!(
        described(server, ours, &["-s"]),
        described(server, theirs, &["-s"])
    );
    let rows = |db: &str| described(server, db, &[]);
    assert!(rows(ours) == rows(theirs), "the rows differ");
    let (a, b) = (snapshot(server, ours).await, snapshot(server, theirs).await);
    assert_eq!(a["digest"], b["digest"]);
    assert!(
        a["total_rows"].as_u64() > Some(70_000),
        "{}",
        a["total_rows"]
    );
    for (name, table) in a["tables"].as_object().expect("tables") {
        for number in ["indexes", "constraints"] {
            assert_eq!(table[number], b["tables"][name][number], "{name}");
        }
    }
    let large =
        "SELECT loid, md5(string_agg(data, '' ORDER BY pageno)) FROM pg_largeobject GROUP BY loid;";
    assert_eq!(psql(server, ours, large), psql(server, theirs, large));
    // Indexes are usable, constraints validated as far as they were.
    let state = "SELECT count(*) FILTER (WHERE NOT i.indisvalid), (SELECT string_agg(conname, ',') FROM pg_constraint WHERE NOT convalidated) FROM pg_index i;";
    assert_eq!(psql(server, ours, state), psql(server, theirs, state));
}

/// `inserts`: also from a dump with INSERTs. 13 writes DEFAULT for generated columns there, and refuses it in
/// INSERTs of several rows.
async fn restores_as_psql_does(rig: Rig, image: &str, inserts: bool) {
    let server = rig.server("server", image, true).await;
    psql(&server, "pacsdb", OBJECTS);
    let src = rig.dir.path().join("dump.sql");
    let dump = run(&server.ctx, "postgresql_dump", json!({"dest": src})).await;
    dump.expect("dump");
    let outcome = restore(&server, &src, "ours", "parallel").await;
    assert_eq!(outcome.result["method"], "parallel");
    assert_eq!(
        outcome.result["bytes"].as_u64().expect("bytes"),
        std::fs::metadata(&src).expect("dump").len()
    );
    restore(&server, &src, "theirs", "psql").await;
    same(&server, "ours", "theirs").await;
    let statistics =
        "SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'app' AND tablename = 'large';";
    assert_eq!(psql(&server, "ours", statistics).trim(), "t");

    // The same in another encoding, with backslashes that escape.
    let latin = inside(
        &server,
        &["-e", "PGOPTIONS=-c standard_conforming_strings=off"],
        &["pg_dump", "-d", "pacsdb", "-E", "LATIN1"],
        "",
    );
    assert!(
        String::from_utf8(latin.stdout.clone()).is_err(),
        "it is LATIN1"
    );
    let src = rig.dir.path().join("latin.sql");
    std::fs::write(&src, latin.stdout).expect("write");
    psql(
        &server,
        "postgres",
        "CREATE DATABASE latin_ours TEMPLATE template0;\nCREATE DATABASE latin_theirs TEMPLATE template0;",
    );
    restore(&server, &src, "latin_ours", "parallel").await;
    restore(&server, &src, "latin_theirs", "psql").await;
    same(&server, "latin_ours", "latin_theirs").await;
    same(&server, "latin_ours", "ours").await;

    if !inserts {
        return;
    }
    let inserts = inside(
        &server,
        &[],
        &["pg_dump", "-d", "pacsdb", "--rows-per-insert=100"],
        "",
    );
    let src = rig.dir.path().join("inserts.sql");
    std::fs::write(&src, inserts.stdout).expect("write");
    restore(&server, &src, "inserted", "parallel").await;
    same(&server, "inserted", "ours").await;
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_object_comes_out_as_psql_makes_it_on_13() {
    let rig = Rig::new();
    let image = rig.old.clone();
    restores_as_psql_does(rig, &image, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_object_comes_out_as_psql_makes_it_on_15() {
    let rig = Rig::new();
    let image = rig.new.clone();
    restores_as_psql_does(rig, &image, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_object_comes_out_as_psql_makes_it_on_17() {
    let image = lab::images::newer_postgres().expect("the lab's image");
    restores_as_psql_does(Rig::new(), &image, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_a_newer_server_is_refused() {
    let rig = Rig::new();
    let image = lab::images::newer_postgres().expect("the lab's image");
    let newer = rig.server("newer", &image, true).await;
    psql(&newer, "pacsdb", "CREATE TABLE t (pk integer PRIMARY KEY);");
    let dump = inside(&newer, &[], &["pg_dump", "-d", "pacsdb"], "");
    let older = rig.server("older", &rig.new, true).await;
    let (code, message, _) = broken(&older, &dump.stdout).await;
    assert_eq!(code, "postgresql::newer_dump", "{message}");
    assert!(message.contains("is of PostgreSQL 17"), "{message}");
    assert!(message.contains("the server is 15"), "{message}");
    drop(rig);
}

/// A site's own trigger would see the rows that a script fills.
const WITH_TRIGGER: &str =
    "CREATE TABLE instance (pk integer PRIMARY KEY, aet varchar(16), seen integer DEFAULT 0);
INSERT INTO instance SELECT i, CASE WHEN i % 10 = 0 THEN 'AET' END FROM generate_series(1, 20000) i;
CREATE TABLE series (pk integer PRIMARY KEY, aet text, n integer);
INSERT INTO series SELECT i, NULLIF(i % 3, 0)::text, i FROM generate_series(1, 1000) i;
CREATE INDEX series_aet ON series (aet);
";
const TRIGGER: &str = "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.seen := NEW.seen + 1; RETURN NEW; END $$;
CREATE TRIGGER seen BEFORE UPDATE ON instance FOR EACH ROW EXECUTE FUNCTION seen();
";
const FILLS: &str = "ALTER TABLE series ADD modified integer; UPDATE series SET modified = n;
UPDATE instance SET aet = '*' WHERE aet IS NULL;
UPDATE series SET aet = 'none' WHERE aet IS NULL;
ALTER TABLE instance ALTER aet SET NOT NULL;
";

/// Restores in advance and afterwards, applies the script to both, and says what was anticipated.
async fn anticipated(server: &Server, rig: &Rig, source: &str) -> Value {
    let dump = inside(server, &[], &["pg_dump", "-d", source], "");
    let src = rig.dir.path().join("dump.sql");
    std::fs::write(&src, dump.stdout).expect("dump");
    let script = rig.dir.path().join("fills.sql");
    std::fs::write(&script, FILLS).expect("script");
    let before = json!({"db": source, "anticipate": [&script]});
    let before = run(&server.ctx, "postgresql_snapshot", before).await;
    let before = Value::Object(before.expect("snapshot").result);
    let (early, late) = (format!("{source}_early"), format!("{source}_late"));
    let arguments = json!({"src": src, "db": early, "anticipate": [&script], "connections": 2});
    let restored = run(&server.ctx, "postgresql_restore", arguments).await;
    let anticipated = restored.expect("restored").result["anticipated"].clone();
    let after = snapshot(server, &early).await;
    let compared = json!({"before": before, "after": after, "anticipated": anticipated});
    run(&server.ctx, "postgresql_verify", compared.clone())
        .await
        .expect("as it should be");
    if anticipated != json!([]) {
        // A script that was changed since.
        let other = rig.dir.path().join("other.sql");
        std::fs::write(&other, FILLS.replace("'*'", "'X'")).expect("script");
        let mut compared = compared;
        compared["anticipate"] = json!([&other]);
        let changed = run(&server.ctx, "postgresql_verify", compared).await;
        let changed = code(changed.expect_err("it does something else"));
        assert_eq!(changed, "postgresql::anticipated_otherwise");
    }
    restore(server, &src, &late, "parallel").await;
    for db in [&early, &late] {
        let script = json!({"path": script, "db": db});
        run(&server.ctx, "postgresql_script", script)
            .await
            .expect("applied");
        run(
            &server.ctx,
            "postgresql_schema_history",
            json!({"db": db, "state": "absent"}),
        )
        .await
        .expect("forgotten");
    }
    assert_eq!(
        described(server, &early, &[]),
        described(server, &late, &[])
    );
    anticipated
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_scripts_fill_comes_in_filled_where_nothing_sees_the_difference() {
    let rig = Rig::new();
    let server = rig.server("server", &rig.new, true).await;
    psql(&server, "pacsdb", WITH_TRIGGER);
    let done = anticipated(&server, &rig, "pacsdb").await;
    assert_eq!(
        done,
        json!([
            {"table": "public.instance", "columns": {"aet": "*"}, "values": 18_000},
            {"table": "public.series", "columns": {"aet": "none"}, "values": 333},
        ])
    );
    psql(&server, "postgres", "CREATE DATABASE guarded");
    psql(&server, "guarded", WITH_TRIGGER);
    psql(&server, "guarded", TRIGGER);
    let done = anticipated(&server, &rig, "guarded").await;
    assert_eq!(done, json!([]), "a function may look anywhere");
    drop(rig);
}

/// Writes a changed dump, restores it, and returns message and SQLSTATE of what came of it.
async fn broken(server: &Server, text: &[u8]) -> (String, String, Value) {
    let path: PathBuf =
        std::env::temp_dir().join(format!("broken-{}.sql", server.handle.container_id));
    std::fs::write(&path, text).expect("write");
    let arguments = json!({"src": path, "db": "target", "connections": 2});
    let ran = run(&server.ctx, "postgresql_restore", arguments).await;
    std::fs::remove_file(&path).expect("remove");
    let left = sql(
        server,
        "SELECT datname::text FROM pg_database WHERE datname LIKE 'target%'",
    )
    .await;
    assert_eq!(left, json!([]), "nothing is left behind");
    match ran {
        Ok(outcome) => panic!("it was restored: {:?}", outcome.summary),
        Err(crate::host::error::ModuleError::Cancelled) => panic!("cancelled"),
        Err(crate::host::error::ModuleError::Failed(failure)) => {
            let message = failure.to_string();
            let state = failure.result().get("sqlstate").cloned();
            (
                failure.code().to_owned(),
                message,
                state.unwrap_or_default(),
            )
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_dump_leaves_nothing_and_is_named_with_its_line() {
    let rig = Rig::new();
    let server = rig.server("server", &rig.old, true).await;
    psql(
        &server,
        "pacsdb",
        "CREATE TABLE parent (pk integer PRIMARY KEY, t text);\n\
         INSERT INTO parent SELECT i, 'value ' || i FROM generate_series(1, 100) i;\n\
         CREATE TABLE child (pk integer PRIMARY KEY, parent_fk integer REFERENCES parent);\n\
         INSERT INTO child SELECT i, i FROM generate_series(1, 50) i;\n",
    );
    let src = rig.dir.path().join("dump.sql");
    let dump = run(&server.ctx, "postgresql_dump", json!({"dest": src})).await;
    dump.expect("dump");
    let good = std::fs::read_to_string(&src).expect("dump");
    let line_of = |text: &str, needle: &str| {
        text.lines()
            .position(|line| line.contains(needle))
            .expect(needle)
            + 1
    };
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    for (text, error, place, state, said) in [
        // A value that is none, in a row: the row's own line.
        (
            changed("\n42\tvalue 42\n", "\nx42\tvalue 42\n"),
            "restore_failed",
            "x42",
            "22P02",
            "x42",
        ),
        // A row too short.
        (
            changed("\n43\tvalue 43\n", "\n43\n"),
            "restore_failed",
            "43",
            "22P04",
            "missing data",
        ),
        // A key twice: the line of the constraint.
        (
            changed("\n44\tvalue 44\n", "\n45\tvalue 44\n"),
            "restore_failed",
            "parent_pkey PRIMARY",
            "23505",
            "(pk)=(45)",
        ),
        // A row that refers to nothing.
        (
            changed("\n30\t30\n", "\n30\t3000\n"),
            "restore_failed",
            "child_parent_fk_fkey FOREIGN",
            "23503",
            "3000",
        ),
        // A statement in the middle that the server does not know.
        (
            changed(
                "ALTER TABLE public.parent OWNER",
                "ALTER TABLE public.nobody OWNER",
            ),
            "restore_failed",
            "public.nobody",
            "42P01",
            "nobody",
        ),
    ] {
        let (code, message, sqlstate) = broken(&server, text.as_bytes()).await;
        assert_eq!(code, format!("postgresql::{error}"), "{message}");
        assert_eq!(sqlstate, state, "{message}");
        assert!(message.contains(said), "{message}");
        let mut line = line_of(&text, place);
        if place == "43" {
            line = text.lines().position(|line| line == "43").expect("row") + 1;
        }
        // A constraint is a statement of two lines, and begins in the first.
        let found: usize = message
            .split(".sql:")
            .nth(1)
            .and_then(|rest| rest.split(':').next())
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("a line in {message}"));
        assert!(
            found == line || found + 1 == line,
            "{found}, {line}: {message}"
        );
    }
    for (text, said) in [
        (
            changed(
                "CREATE TABLE public.child",
                "\\connect other\nCREATE TABLE public.child",
            ),
            "connect",
        ),
        (
            changed(
                "CREATE TABLE public.child",
                "\\! true\nCREATE TABLE public.child",
            ),
            "\\!: pg_dump writes no such",
        ),
        (good.replace('\n', "\r\n"), "CR LF"),
        (changed("\n7\tvalue 7\n", "\n7\tvalue 7\r\n"), "CR LF"),
    ] {
        let (code, message, _) = broken(&server, text.as_bytes()).await;
        assert_eq!(code, "postgresql::bad_dump", "{message}");
        assert!(message.contains(said), "{message}");
    }
    let newer = changed(
        "-- Dumped from database version 13",
        "-- Dumped from database version 19",
    );
    let (code, message, _) = broken(&server, newer.as_bytes()).await;
    assert_eq!(code, "postgresql::newer_dump", "{message}");
    // Cut anywhere before the last words of the trailer.
    let end = good.find("complete\n").expect("trailer");
    for cut in (1..end).step_by(end / 12).chain([end, end - 1]) {
        let (code, message, _) = broken(&server, &good.as_bytes()[..cut]).await;
        assert_eq!(code, "postgresql::bad_dump", "cut at {cut}: {message}");
    }
    // And anywhere at all, by what is looked at before the server is asked.
    let cut_dump = rig.dir.path().join("cut.sql");
    for cut in 0..=end {
        std::fs::write(&cut_dump, &good.as_bytes()[..cut]).expect("write");
        assert!(
            crate::format::text::inspect(&cut_dump).is_err(),
            "cut at {cut}"
        );
    }
    // And the file as it was is restored.
    restore(&server, &src, "target", "parallel").await;
    drop(rig);
}

/// Fails where the database of this name is gone, or half dropped, before it is the restored one.
const ALWAYS_THERE: &str = "DO $$
BEGIN
  FOR look IN 1..60000 LOOP
    IF NOT EXISTS (SELECT FROM pg_database WHERE datname = 'pacsdb' AND datconnlimit <> -2) THEN
      RAISE EXCEPTION 'nobody could connect to pacsdb at look %', look;
    END IF;
    IF EXISTS (SELECT FROM pg_database WHERE datname = 'pacsdb'
               AND shobj_description(oid, 'pg_database') LIKE 'kaapana-agent: restored%') THEN
      RETURN;
    END IF;
    PERFORM pg_sleep(0.0005);
  END LOOP;
  RAISE EXCEPTION 'it never became the restored one';
END $$";

// A server that was killed while it dropped the empty database let nobody in any more, for good.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_there_at_every_moment_of_its_replacement() {
    let rig = Rig::new();
    let server = rig.server("new", &rig.new, true).await;
    let src = rig.dir.path().join("dump.sql");
    psql(&server, "postgres", "CREATE DATABASE source");
    psql(&server, "source", OBJECTS);
    let dump = inside(&server, &[], &["pg_dump", "-d", "source"], "");
    std::fs::write(&src, dump.stdout).expect("dump");
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| psql(&server, "postgres", ALWAYS_THERE));
        tokio::task::block_in_place(|| {
            let restored = restore(&server, &src, "pacsdb", "parallel");
            tokio::runtime::Handle::current().block_on(restored);
        });
        watcher.join().expect("it was there all the time");
    });
    let left = sql(
        &server,
        "SELECT datname::text FROM pg_database WHERE datname LIKE 'pacsdb%'",
    );
    assert_eq!(left.await.to_string().matches("pacsdb").count(), 1);
}
