//! The modules against real servers: content, broken input, cancelling.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::live_rig::{DATA, Rig, Server, code, fill, run, sql};
use crate::host::docker::service::{self, ServiceIdentity};
use crate::host::docker::spec::DockerContainer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_the_same_after_dump_and_restore_between_versions() {
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, false).await;
    fill(&old, 20_000).await;
    let refused = service_again(&rig, &rig.old).await;
    assert_eq!(refused, "docker::directory_held");
    let before = run(&old.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let dest = rig.dir.path().join("dump.sql");
    let dump = run(&old.ctx, "postgresql_dump", json!({"dest": dest}))
        .await
        .expect("dump")
        .result;
    let checked = Command::new("sha256sum")
        .args(["-c", "dump.sql.sha256"])
        .current_dir(rig.dir.path())
        .output()
        .expect("sha256sum");
    assert!(checked.status.success(), "{checked:?}");
    let again = run(&old.ctx, "postgresql_dump", json!({"dest": dest})).await;
    assert_eq!(code(again.expect_err("exists")), "postgresql::dest_exists");
    let new = rig.server("new", &rig.new, true).await;
    let restore = json!({"src": dest, "checksum": dump["checksum"]});
    let restored = run(&new.ctx, "postgresql_restore", restore.clone())
        .await
        .expect("restore")
        .result;
    eprintln!("  {}", Value::Object(restored));
    let after = run(&new.ctx, "postgresql_snapshot", json!({"connections": 3}))
        .await
        .expect("snapshot");
    let verify = json!({"before": before, "after": after.result});
    let verified = run(&new.ctx, "postgresql_verify", verify)
        .await
        .expect("equal");
    eprintln!("  {}", verified.summary.unwrap_or_default());
    let filled = run(&new.ctx, "postgresql_restore", restore).await;
    assert_eq!(
        code(filled.expect_err("filled")),
        "postgresql::target_not_empty"
    );
    sql(&new, "UPDATE twins SET b = ''").await;
    sql(&new, "UPDATE odd SET bo = NOT bo WHERE pk = 12345").await;
    let after = run(&new.ctx, "postgresql_snapshot", json!({}))
        .await
        .expect("snapshot")
        .result;
    let differs = run(
        &new.ctx,
        "postgresql_verify",
        json!({"before": before, "after": after}),
    )
    .await;
    let differs = differs.expect_err("differs");
    let said = differs.to_string();
    let place = "public.odd has other content: first among pk 12288 to 13311, in 1 of 20 ranges";
    assert!(said.contains(place), "{said}");
    assert_eq!(code(differs), "postgresql::differs");
    service::stop(&old.ctx, &old.handle, Duration::from_secs(60))
        .await
        .expect("stop");
    let directory = json!({"path": rig.dir.path().join("old"), "version": ["9.6", "13"]});
    let looked = run(&rig.ctx, "postgresql_data_directory", directory)
        .await
        .expect("idle")
        .result;
    assert_eq!(
        (&looked["uid"], &looked["postmaster_pid"]),
        (&json!(999), &Value::Null)
    );
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_rows_name_are_looked_up() {
    let rig = Rig::new();
    let server = rig.server("server", &rig.old, true).await;
    sql(
        &server,
        "CREATE TABLE location (pk int, storage_path text, object_size bigint)",
    )
    .await;
    sql(
        &server,
        "INSERT INTO location SELECT i, 'a/' || i, 3 FROM generate_series(1, 2500) i",
    )
    .await;
    let files = rig.dir.path().join("files/a");
    std::fs::create_dir_all(&files).expect("mkdir");
    for i in 1..=2500 {
        std::fs::write(files.join(i.to_string()), "abc").expect("write");
    }
    let look = |sample: Value| {
        let mut arguments = json!({
            "query": "SELECT storage_path AS path, object_size AS size FROM location;",
            "dir": rig.dir.path().join("files"),
        });
        if !sample.is_null() {
            arguments["sample"] = sample;
        }
        run(&server.ctx, "postgresql_paths", arguments)
    };
    let all = look(Value::Null).await.expect("all there");
    assert_eq!(all.result["looked_up"], 2500);
    let some = look(json!(10)).await.expect("all there");
    assert_eq!(
        (&some.result["looked_up"], &some.result["rows"]),
        (&json!(10), &json!(2500))
    );
    std::fs::remove_file(files.join("1234")).expect("remove");
    std::fs::write(files.join("77"), "abcd").expect("write");
    let error = look(Value::Null).await.expect_err("two are not right");
    assert!(
        error
            .to_string()
            .contains("a/77: 4 bytes instead of 3; a/1234: is not there"),
        "{error}"
    );
    assert_eq!(code(error), "postgresql::files");
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_made_as_described_and_told_of() {
    let rig = Rig::new();
    let server = rig.server("server", &rig.new, true).await;
    let module = "postgresql_db";
    let mut wanted = json!({
        "name": "odd \"name\"", "template": "template0", "encoding": "UTF8", "lc_collate": "C",
        "lc_ctype": "C",
    });
    let made = run(&server.ctx, module, wanted.clone())
        .await
        .expect("made");
    assert!(made.changed);
    let again = run(&server.ctx, module, wanted.clone()).await;
    assert!(!again.expect("same").changed);
    wanted["conn_limit"] = json!(7);
    let limited = run(&server.ctx, module, wanted.clone())
        .await
        .expect("limited");
    assert_eq!(
        limited.result["executed_commands"],
        json!([r#"ALTER DATABASE "odd ""name""" CONNECTION LIMIT 7"#])
    );
    wanted["encoding"] = json!("LATIN1");
    let refused = run(&server.ctx, module, wanted)
        .await
        .expect_err("encoding");
    assert_eq!(code(refused), "postgresql::argument");

    let told = run(&server.ctx, "postgresql_info", json!({})).await;
    let told = told.expect("told").result;
    assert_eq!(told["version"]["major"], 15);
    assert_eq!(told["in_recovery"], false);
    assert_eq!(told["databases"]["odd \"name\""]["collate"], "C");
    assert!(told["databases"]["pacsdb"]["size"].as_u64() > Some(0));
    assert_eq!(told["roles"]["pacs"]["superuser"], true);
    assert_eq!(told["settings"]["port"]["setting"], "5432");
    assert_eq!(told["tablespaces"]["pg_default"]["spcowner"], "pacs");
    let some = json!({"filter": ["version"]});
    let some = run(&server.ctx, "postgresql_info", some)
        .await
        .expect("told");
    assert_eq!(some.result.keys().collect::<Vec<_>>(), ["version"]);

    let away = json!({"name": "odd \"name\"", "state": "absent"});
    assert!(
        run(&server.ctx, module, away.clone())
            .await
            .expect("gone")
            .changed
    );
    assert!(!run(&server.ctx, module, away).await.expect("gone").changed);
    drop(rig);
}

/// Starts a second server on the data of `old`, which must be refused.
async fn service_again(rig: &Rig, image: &str) -> String {
    let container: DockerContainer = serde_json::from_value(json!({
        "image": image,
        "volumes": [format!("{}:{DATA}", rig.dir.path().join("old").display())],
    }))
    .expect("arguments");
    let identity = ServiceIdentity {
        state_id: rig.state.clone(),
        playbook: "test".into(),
        service: "second".into(),
        run: "run-1".into(),
    };
    code(
        service::start(&rig.ctx, &identity, &container)
            .await
            .expect_err("held"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_dumps_and_scripts_change_nothing() {
    let rig = Rig::new();
    let new = rig.server("new", &rig.new, true).await;
    let other = rig.server("other", &rig.new, true).await;
    fill(&new, 2_000).await;
    let dest = rig.dir.path().join("dump.sql");
    run(&new.ctx, "postgresql_dump", json!({"dest": dest}))
        .await
        .expect("dump");
    let text = std::fs::read_to_string(&dest).expect("dump");
    let broken = rig.dir.path().join("broken.sql");
    let middle = text.find("COPY public.odd").expect("data") + 5_000;
    let line_end = middle + text[middle..].find('\n').expect("line") + 1;
    let trailer = &text[text
        .find("--\n-- PostgreSQL database dump complete")
        .expect("trailer")..];
    let cases = [
        (
            "cut at a line end",
            text[..line_end].to_owned(),
            ["postgresql::bad_dump"; 2],
        ),
        // Only the hash knows of this one.
        (
            "row lost, trailer whole",
            text.replacen("1\t\\N\n", "", 1),
            ["postgresql::checksum"; 2],
        ),
        (
            "hole with trailer",
            format!("{}{trailer}", &text[..line_end]),
            ["postgresql::bad_dump", "postgresql::psql_failed"],
        ),
        (
            "bad line",
            text.replacen("CREATE TABLE", "CREATE TABEL", 1),
            ["postgresql::restore_failed", "postgresql::psql_failed"],
        ),
        (
            "connect inside",
            text.replacen("COPY public.odd", "\\connect postgres\nCOPY public.odd", 1),
            ["postgresql::bad_dump"; 2],
        ),
    ];
    let good = crate::host::files::whole::hash_file(&dest, |_| {})
        .expect("hash")
        .1;
    let methods = ["parallel", "psql"];
    let tries = cases.iter().flat_map(|(what, content, expected)| {
        let of = move |(method, code): (&'static str, &'static str)| (*what, content, method, code);
        methods.into_iter().zip(*expected).map(of)
    });
    for (what, content, method, expected) in tries {
        assert_ne!(*content, text, "{what}");
        std::fs::write(&broken, content).expect("write");
        eprintln!("{what}, {method}");
        let failed = run(
            &other.ctx,
            "postgresql_restore",
            json!({"src": broken, "checksum": good, "method": method}),
        )
        .await;
        assert_eq!(code(failed.expect_err(what)), expected, "{what}");
        let left = sql(
            &other,
            "SELECT datname::text FROM pg_database WHERE datname LIKE '%restoring'",
        )
        .await;
        assert_eq!(left, json!([]), "{what}");
        let tables = sql(
            &other,
            "SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'public'",
        )
        .await;
        assert_eq!(tables, json!([{"n": 0}]), "{what}");
    }
    let script = rig.dir.path().join("update-1.sql");
    let apply = json!({"path": script});
    std::fs::write(
        &script,
        "alter table twins add c int;\n\nupdate twins\nset c = 1 / a,\n d = 2;\n",
    )
    .expect("write");
    let failed = run(&new.ctx, "postgresql_script", apply.clone())
        .await
        .expect_err("no column d");
    assert!(
        failed.to_string().contains("update-1.sql:5: column \"d\""),
        "{failed}"
    );
    assert_eq!(code(failed), "postgresql::script_failed");
    let columns =
        "SELECT count(*) AS n FROM pg_attribute WHERE attrelid = 'twins'::regclass AND attnum > 0";
    assert_eq!(sql(&new, columns).await, json!([{"n": 2}]));
    std::fs::write(
        &script,
        "alter table twins add c int; -- x\nupdate twins set c = 1;\n",
    )
    .expect("write");
    let done = run(&new.ctx, "postgresql_script", apply.clone())
        .await
        .expect("applied");
    assert!(done.changed);
    std::fs::write(
        &script,
        "-- y\nalter table twins add c int;update twins set c = 1;\n",
    )
    .expect("write");
    let again = run(&new.ctx, "postgresql_script", apply.clone())
        .await
        .expect("known");
    assert_eq!(
        (again.changed, &again.result["already_applied"]),
        (false, &json!(true))
    );
    std::fs::write(&script, "alter table twins add d int;").expect("write");
    let other_content = run(&new.ctx, "postgresql_script", apply.clone()).await;
    assert_eq!(
        code(other_content.expect_err("differs")),
        "postgresql::script_differs"
    );
    let (sum, _) = (sql(&new, "SELECT sum(c) AS s FROM twins").await, ());
    assert_eq!(sum, json!([{"s": 4}]));
    let writes = run(
        &new.ctx,
        "postgresql_select",
        json!({"query": "DELETE FROM twins"}),
    )
    .await;
    assert_eq!(code(writes.expect_err("read-only")), "postgresql::sql");
    cancel_works(&rig, &new).await;
    drop(rig);
}

/// A cancelled script is gone from the server when `apply` returns.
async fn cancel_works(rig: &Rig, server: &Server) {
    let script = rig.dir.path().join("slow.sql");
    std::fs::write(&script, "update twins set b = 'slow'; select pg_sleep(60);").expect("write");
    let mut ctx = server.ctx.clone();
    ctx.cancel = tokio_util::sync::CancellationToken::new();
    let token = ctx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        token.cancel();
    });
    let started = Instant::now();
    let ended = run(&ctx, "postgresql_script", json!({"path": script})).await;
    assert_eq!(code(ended.expect_err("cancelled")), "cancelled");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(
        sql(server, "SELECT count(*) AS n FROM twins WHERE b = 'slow'").await,
        json!([{"n": 0}])
    );
    a_server_that_stands_still_holds_nobody_up(server, &script).await;
}

/// The same while the server's container is paused: nothing that is asked of it is answered.
async fn a_server_that_stands_still_holds_nobody_up(server: &Server, script: &Path) {
    let mut ctx = server.ctx.clone();
    ctx.cancel = tokio_util::sync::CancellationToken::new();
    let (token, container) = (ctx.cancel.clone(), server.handle.container_id.clone());
    let docker = |word: &str, container: &str| {
        let done = Command::new("docker").args([word, container]).status();
        assert!(done.expect("docker").success(), "{word}");
    };
    let paused = container.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        docker("pause", &paused);
        token.cancel();
    });
    let started = Instant::now();
    let arguments = json!({"path": script});
    let script = run(&ctx, "postgresql_script", arguments);
    let ended = tokio::time::timeout(Duration::from_secs(60), script).await;
    let took = started.elapsed();
    docker("unpause", &container);
    let ended = ended.unwrap_or_else(|_| panic!("still there after {took:?}"));
    assert_eq!(code(ended.expect_err("cancelled")), "cancelled");
}
