//! A restore whose connection is cut just as the server has done what it was asked, and nobody hears of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::host::error::ModuleError;
use crate::live_rig::{Rig, module, run, sql};
use crate::task::module::Recovery;

/// A way to the server that is cut, once, as the server answers to a message that holds this text; `number`
/// says to which of them, from 1 on.
async fn cut_at(server: SocketAddr, text: &'static str, number: i64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let left = Arc::new(AtomicI64::new(number));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.expect("connected");
            tokio::spawn(carry(client, server, text, Arc::clone(&left)));
        }
    });
    address
}

/// Carries messages to and fro until either side ends, or the connection is to be cut.
async fn carry(client: TcpStream, server: TcpStream, text: &str, left: Arc<AtomicI64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut is_last = false;
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let count = read.unwrap_or(0);
                let said = String::from_utf8_lossy(&asked[..count]);
                is_last |= said.contains(text) && left.fetch_sub(1, Ordering::SeqCst) == 1;
                if count == 0 || to_server.write_all(&asked[..count]).await.is_err() {
                    return;
                }
            }
            read = from_server.read(&mut answered) => {
                let count = read.unwrap_or(0);
                // Its answer is there, and goes nowhere.
                if count == 0 || is_last || to_client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_does_not_hear_the_servers_answer_is_brought_to_its_end_by_the_next_run() {
    let rig = Rig::new();
    let server = rig.server("new", &rig.new, true).await;
    sql(
        &server,
        "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n",
    )
    .await;
    let dump = rig.dir.path().join("dump.sql");
    run(&server.ctx, "postgresql_dump", json!({"dest": dump}))
        .await
        .expect("a dump");
    let direct = server.handle.ports["5432/tcp"];
    for (number, (text, which, is_done)) in [
        ("CREATE DATABASE", 1, false),
        ("kaapana-agent: restoring", 1, false),
        ("CREATE TABLE", 1, false),
        ("CHECKPOINT", 1, false),
        ("kaapana-agent: restored", 1, false),
        ("RENAME TO", 1, true),
        ("CHECKPOINT", 2, true),
    ]
    .into_iter()
    .enumerate()
    {
        let db = format!("restored{number}");
        let restore = module("postgresql_restore", json!({"src": dump, "db": db}));
        let mut cut = server.ctx.clone();
        cut.attempt = format!("r/{number}");
        let way = cut_at(direct, text, which).await;
        cut.services[0].ports.insert("5432/tcp".into(), way);
        let intent = restore.prepare(&cut).await.expect("prepared");
        let failed = restore.apply(&cut, &intent).await;
        let unknown = match &failed {
            Err(ModuleError::Failed(failure)) => failure.is_outcome_unknown(),
            _ => panic!("cut at {text}: {failed:?}"),
        };

        let mut next = server.ctx.clone();
        next.attempt = format!("r/{number}-next");
        let mut done = None;
        if unknown {
            next.interrupted_attempt = Some(cut.attempt.clone());
            match restore.recover(&next, &intent).await.expect("recovered") {
                Recovery::Done(outcome) => done = Some(outcome),
                Recovery::NotDone => {}
                Recovery::Unknown { found, .. } => panic!("cut at {text}: {found}"),
            }
        }
        assert!(!is_done || done.is_some(), "cut at {text}");
        if done.is_none() {
            let intent = restore.prepare(&next).await.expect("prepared");
            done = Some(restore.apply(&next, &intent).await.expect("restored"));
        }
        assert_eq!(
            done.map(|outcome| outcome.result["tables"].clone()),
            Some(json!(1))
        );
        let count = run(
            &server.ctx,
            "postgresql_query",
            json!({"db": db, "query": "SELECT count(*) FROM kept"}),
        );
        let count = count.await.expect("counted").result["query_result"].clone();
        assert_eq!(count, json!([{"count": 1000}]), "cut at {text}");
        let left = "SELECT datname FROM pg_database WHERE datname ~ '_(restoring|replaced)$'";
        assert_eq!(sql(&server, left).await, json!([]), "cut at {text}");
    }
}
