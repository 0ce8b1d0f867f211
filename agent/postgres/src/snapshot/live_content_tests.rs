//! What a snapshot reads, what a dump may be, and what is said of rows that differ, on real servers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::live_rig::{Rig, Server, code, fill, psql, run, sql};
use crate::restore::live_restore_tests::{OBJECTS, restore, same, snapshot};

async fn dumped(server: &Server, dest: &Path) -> Value {
    let dump = run(&server.ctx, "postgresql_dump", json!({"dest": dest})).await;
    Value::Object(dump.expect("dump").result)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_dump_is_what_zstd_reads_and_either_method_restores() {
    let rig = Rig::new();
    lab::apt::ensure("zstd", "zstd").expect("zstd");
    let server = rig.server("server", &rig.new, true).await;
    psql(&server, "pacsdb", OBJECTS);
    let (plain, dest) = (
        rig.dir.path().join("d.sql"),
        rig.dir.path().join("d.sql.zst"),
    );
    let size = dumped(&server, &plain).await["size"].clone();
    let dump = dumped(&server, &dest).await;
    let on_disk = std::fs::metadata(&dest).expect("dump").len();
    assert_eq!(dump["size"], on_disk);
    assert!(
        on_disk * 3 < size.as_u64().expect("size"),
        "{on_disk} of {size}"
    );
    let tool = |command: &str| {
        let mut shell = Command::new("sh");
        let ran = shell
            .args(["-ec", command])
            .current_dir(rig.dir.path())
            .output();
        let ran = ran.expect("sh");
        assert!(ran.status.success(), "{command}: {ran:?}");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    tool("sha256sum -c d.sql.zst.sha256");
    let text = tool(
        "zstd -dc d.sql.zst | grep -v restrict > a; grep -v restrict d.sql > b; cmp a b; zstd -dc d.sql.zst | wc -c",
    );
    assert_eq!(text.trim(), dump["uncompressed_size"].to_string());

    let arguments =
        json!({"src": dest, "db": "ours", "checksum": dump["checksum"], "connections": 3});
    let restored = run(&server.ctx, "postgresql_restore", arguments).await;
    let restored = restored.expect("restored").result;
    assert_eq!(restored["bytes"], dump["uncompressed_size"]);
    assert_eq!(restored["sha256"], dump["sha256"]);
    let theirs = restore(&server, &dest, "theirs", "psql").await;
    assert_eq!(theirs.result["sha256"], dump["sha256"]);
    same(&server, "ours", "theirs").await;

    // Damaged, cut, compressed by somebody else: no database comes of it.
    let whole = std::fs::read(&dest).expect("dump");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 0xff;
    tool("zstd -q d.sql -o other.zst");
    let other = std::fs::read(rig.dir.path().join("other.zst")).expect("compressed");
    let broken = rig.dir.path().join("broken.zst");
    for (bytes, expected) in [
        (&damaged[..], "it is compressed, and damaged"),
        (
            &whole[..whole.len() - 20],
            "the table of its frames is missing",
        ),
        (&other, "the table of its frames is missing"),
    ] {
        std::fs::write(&broken, bytes).expect("written");
        for method in ["parallel", "psql"] {
            let arguments = json!({"src": broken, "db": "broken", "method": method});
            let refused = run(&server.ctx, "postgresql_restore", arguments).await;
            let error = refused.expect_err("no dump");
            let said = error.to_string();
            assert!(
                said.contains("broken.zst") && said.contains(expected),
                "{said}"
            );
            assert_eq!(code(error), "postgresql::bad_dump");
        }
    }
    let left = sql(
        &server,
        "SELECT datname::text FROM pg_database WHERE datname LIKE 'broken%'",
    );
    assert_eq!(left.await, json!([]));
    drop(rig);
}

/// Values whose binary form differs from version to version or from database to database, or that are large.
const KINDS: &str = "
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN short AS varchar(20);
CREATE TABLE kinds (pk smallint PRIMARY KEY, m mood, ms mood[], d short, ds short[], c char(5), n numeric, r reg_class_,
  j jsonb, js json, x xml, f float4, fs float8[], u uuid, i inet, ts timestamptz, tz timetz, iv interval, b bytea,
  t text, bi bit(5), mo money, tsv tsvector, ra int4range, pt point, nm name, q \"char\", oi oid, hs bigint[]);
INSERT INTO kinds SELECT i, 'good', '{bad,good}', 'kurz', '{a,b}', 'x', i / 7.0, 'x', '{\"a\": [1, 2.50]}', '{\"a\":  1}',
  '<a>b</a>', i / 3.0, ARRAY[i / 9.0, 'NaN'], '00112233-4455-6677-8899-aabbccddeeff', '10.0.0.1/8',
  '2020-02-29 12:00+02', '12:00+02', '1 mon 2 days', '\\x00ff', 'ä' || chr(228) || i, B'10101', 12.34, 'a b',
  '[1,5)', '(1,2)', 'name', 'q', 1234567890, '{1,NULL}' FROM generate_series(1, 300) i;
INSERT INTO kinds (pk) VALUES (301);
CREATE TABLE large (pk int PRIMARY KEY, t text, b bytea, j json);
INSERT INTO large VALUES (1, repeat('Zeile ', 1000000), decode(repeat('ab', 5000000), 'hex'), to_json(repeat('x', 5000000)));
INSERT INTO large VALUES (2, 'short', 'short', '\"short\"');
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
INSERT INTO nothing DEFAULT VALUES;
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_read_alike_whatever_version_type_size_and_encoding() {
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, true).await;
    let kinds = KINDS.replace("reg_class_", "varchar");
    psql(
        &old,
        "postgres",
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    psql(&old, "latin", &kinds);
    let before = snapshot(&old, "latin").await;
    assert_eq!(before["tables"]["public.nothing"]["rows"], 2);
    let dest = rig.dir.path().join("dump.sql");
    let dump = run(
        &old.ctx,
        "postgresql_dump",
        json!({"db": "latin", "dest": dest}),
    )
    .await;
    dump.expect("dump");
    let new = rig.server("new", &rig.new, true).await;
    // As other objects were made before, its types get other numbers.
    psql(
        &new,
        "postgres",
        "CREATE DATABASE utf TEMPLATE template0 ENCODING 'UTF8'; CREATE TYPE mood AS ENUM ('x')",
    );
    restore(&new, &dest, "utf", "parallel").await;
    let after = snapshot(&new, "utf").await;
    let equal = json!({"before": before, "after": after, "changes": {"indexes": true}});
    run(&new.ctx, "postgresql_verify", equal)
        .await
        .expect("equal");
    // A byte in the middle of a value that is only told of.
    psql(
        &new,
        "utf",
        "UPDATE large SET t = overlay(t placing 'X' from 3000000) WHERE pk = 1",
    );
    let changed = snapshot(&new, "utf").await;
    let differs = json!({"before": before, "after": changed});
    let differs = run(&new.ctx, "postgresql_verify", differs).await;
    let said = differs.expect_err("differs").to_string();
    assert!(said.contains("public.large has other content"), "{said}");

    psql(
        &new,
        "postgres",
        "CREATE DATABASE raw TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    psql(
        &new,
        "raw",
        "CREATE TABLE t (a text); SET client_encoding = 'SQL_ASCII'; INSERT INTO t VALUES (E'\\xe9')",
    );
    let raw = snapshot(&new, "raw").await;
    assert_eq!(
        raw["tables"]["public.t"]["rows"], 1,
        "bytes that are no UTF-8"
    );
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_differ_are_named_by_their_keys() {
    let rig = Rig::new();
    let server = rig.server("server", &rig.new, true).await;
    fill(&server, 20_000).await;
    let before = snapshot(&server, "pacsdb").await;
    for dest in ["plain.sql", "compressed.sql.zst"] {
        dumped(&server, &rig.dir.path().join(dest)).await;
    }
    psql(
        &server,
        "pacsdb",
        "UPDATE odd SET bo = NOT bo WHERE pk = 12345; DELETE FROM odd WHERE pk = 12350; \
         INSERT INTO odd (pk) SELECT 20002; INSERT INTO odd (pk) SELECT 20003; DELETE FROM odd WHERE pk = 20003",
    );
    let after = snapshot(&server, "pacsdb").await;
    for dump in ["plain.sql", "compressed.sql.zst"] {
        let dump = rig.dir.path().join(dump);
        let verify = json!({"before": before, "after": after, "dump": dump});
        let differs = run(&server.ctx, "postgresql_verify", verify).await;
        let said = differs.expect_err("differs").to_string();
        let rows =
            "in 2 of 20 ranges of keys; rows that differ: pk 12345 (other content), 12350 (gone)";
        assert!(said.contains(rows), "{said}");
    }
    // A dump that cannot be read hides no difference.
    let verify =
        json!({"before": before, "after": after, "dump": rig.dir.path().join("nowhere.sql")});
    let differs = run(&server.ctx, "postgresql_verify", verify).await;
    assert_eq!(code(differs.expect_err("differs")), "postgresql::differs");
    drop(rig);
}
