//! Dumps that are restored while they are written, against real servers.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::host::progress::Progress;
use crate::live_rig::{Rig, Server, code, fill, psql, run, sql};
use crate::task::context::TaskContext;

/// Both servers for one task; the first is the one that is restored into.
fn both(new: &Server, old: &Server) -> TaskContext {
    let mut ctx = new.ctx.clone();
    ctx.services.push(old.handle.clone());
    ctx
}

/// Lines that a task prints.
fn heard(ctx: &TaskContext) -> (TaskContext, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let own = Arc::clone(&lines);
    let progress = Progress::new(
        |_, _, _, _| {},
        move |line| {
            own.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line)
        },
    );
    let mut ctx = ctx.clone();
    ctx.progress = progress;
    (ctx, lines)
}

async fn databases(server: &Server) -> Value {
    let query = "SELECT datname::text FROM pg_database WHERE datname LIKE 'pacsdb%' ORDER BY 1";
    sql(server, query).await
}

async fn equal(old: &Server, new: &Server) {
    let snapshot = |ctx| run(ctx, "postgresql_snapshot", json!({}));
    let before = snapshot(&old.ctx).await.expect("snapshot").result;
    let after = snapshot(&new.ctx).await.expect("snapshot").result;
    let pair = json!({"before": before, "after": after});
    run(&new.ctx, "postgresql_verify", pair)
        .await
        .expect("equal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_restored_while_the_dump_was_written_is_taken_for_that_dump_alone() {
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, true).await;
    let new = rig.server("new", &rig.new, true).await;
    fill(&old, 40_000).await;
    let ctx = both(&new, &old);
    let script = rig.dir.path().join("update.sql");
    std::fs::write(&script, "UPDATE twins SET b = 'x' WHERE b IS NULL;").expect("written");
    let dump = async |name: &str, scripts: Value| {
        let arguments = json!({
            "service": "old", "dest": rig.dir.path().join(name),
            "restore_ahead": {"service": "new", "anticipate": scripts, "connections": 2},
        });
        let dumped = run(&ctx, "postgresql_dump", arguments).await;
        let result = dumped.expect("dumped").result;
        let ahead = json!({"tables": 2, "rows": 40_004});
        assert_eq!(result["restored_ahead"], ahead);
        result
    };
    let restore = async |dump: &serde_json::Map<String, Value>, scripts: Value| {
        let arguments = json!({
            "src": dump["dest"], "checksum": dump["checksum"], "anticipate": scripts,
        });
        let restored = run(&new.ctx, "postgresql_restore", arguments).await;
        let result = restored.expect("restored").result;
        assert_eq!(result["rows"], json!(40_004));
        assert_eq!(databases(&new).await, json!([{"datname": "pacsdb"}]));
        result
    };
    let empty = || {
        psql(
            &new,
            "postgres",
            "DROP DATABASE pacsdb; CREATE DATABASE pacsdb",
        )
    };

    let first = dump("first.sql", json!([])).await;
    let waiting = json!([{"datname": "pacsdb"}, {"datname": "pacsdb_restoring"}]);
    assert_eq!(databases(&new).await, waiting);
    assert_eq!(restore(&first, json!([])).await["ahead"], json!(true));
    equal(&old, &new).await;

    // Another dump: the one that is there is of no use, nor is it in the way.
    empty();
    dump("second.sql", json!([])).await;
    sql(&old, "UPDATE odd SET t = 'later' WHERE pk = 7").await;
    let plain = json!({"service": "old", "dest": rig.dir.path().join("third.sql")});
    let third = run(&ctx, "postgresql_dump", plain).await.expect("dumped");
    assert_eq!(third.result["restored_ahead"], Value::Null);
    assert_eq!(restore(&third.result, json!([])).await.get("ahead"), None);
    equal(&old, &new).await;

    // Rows that came in as a script would make them are not taken where the script is no longer asked for.
    empty();
    let fourth = dump("fourth.sql", json!([script])).await;
    assert_eq!(restore(&fourth, json!([])).await.get("ahead"), None);
    equal(&old, &new).await;
    empty();
    let fifth = dump("fifth.sql", json!([script])).await;
    let restored = restore(&fifth, json!([script])).await;
    assert_eq!(restored["ahead"], json!(true));
    assert_eq!(restored["anticipated"][0]["values"], json!(4));
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_take_a_dump_leaves_it_whole() {
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, true).await;
    let new = rig.server("new", &rig.new, true).await;
    fill(&new, 5_000).await;
    let (ctx, lines) = heard(&both(&old, &new));
    // A dump of the newer one is nothing for the older one.
    let dest = rig.dir.path().join("dump.sql");
    let arguments = json!({"service": "new", "dest": dest, "restore_ahead": {"service": "old"}});
    let dumped = run(&ctx, "postgresql_dump", arguments.clone()).await;
    let result = dumped.expect("dumped").result;
    assert_eq!(result["restored_ahead"], Value::Null);
    let said = lines.lock().expect("lock").join("\n");
    assert!(said.contains("not restored while it was written"), "{said}");
    assert_eq!(databases(&old).await, json!([{"datname": "pacsdb"}]));
    let checksum = result["checksum"].clone();
    let restore = json!({"src": dest, "checksum": checksum});
    let refused = run(&old.ctx, "postgresql_restore", restore).await;
    let refused = code(refused.expect_err("newer"));
    assert_eq!(refused, "postgresql::newer_dump");
    // Where something is there already, nothing is dumped.
    let dest = rig.dir.path().join("other.sql");
    let into_filled = json!({"service": "old", "dest": dest, "restore_ahead": {"service": "new"}});
    let refused = run(&ctx, "postgresql_dump", into_filled).await;
    let refused = code(refused.expect_err("filled"));
    assert_eq!(refused, "postgresql::target_not_empty");
    assert!(!dest.exists());
    drop(rig);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_fails_or_is_interrupted_leaves_nothing_of_its_restore() {
    let rig = Rig::new();
    let old = rig.server("old", &rig.old, true).await;
    let new = rig.server("new", &rig.new, true).await;
    // The dump must not be at its end before anybody can look.
    fill(&old, 240_000).await;
    let dest = rig.dir.path().join("dump.sql");
    let arguments = json!({"service": "old", "dest": dest, "restore_ahead": {"service": "new"}});
    for interrupted in [false, true] {
        let mut ctx = both(&new, &old);
        ctx.cancel = ctx.cancel.child_token();
        let running = run(&ctx, "postgresql_dump", arguments.clone());
        let blow = async {
            // When rows are on their way in.
            let busy =
                "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = 'pacsdb_restoring'";
            while sql(&new, busy).await == json!([{"n": 0}]) {}
            if interrupted {
                ctx.cancel.cancel();
                return;
            }
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE application_name = 'pg_dump'";
            sql(&old, end).await;
        };
        let (ended, ()) = tokio::join!(running, blow);
        let code = code(ended.expect_err("no dump"));
        let expected = if interrupted {
            "cancelled"
        } else {
            "postgresql::pg_dump_failed"
        };
        assert_eq!(code, expected);
        let left: Vec<_> = std::fs::read_dir(rig.dir.path())
            .expect("folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("dump.sql"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(databases(&new).await, json!([{"datname": "pacsdb"}]));
    }
    drop(rig);
}
