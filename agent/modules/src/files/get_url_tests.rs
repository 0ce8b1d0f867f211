//! `get_url` against a real server of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::host::files::durable::sibling;

/// Answers as the path says, until the test ends.
struct Server {
    base: String,
    requests: Arc<AtomicUsize>,
    last_head: Arc<Mutex<String>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let (requests, last_head) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (count, head) = (Arc::clone(&requests), Arc::clone(&last_head));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let head = Arc::clone(&head);
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || answer(stream, &head));
            }
        });
        Self {
            base,
            requests,
            last_head,
        }
    }
}

fn answer(mut stream: TcpStream, last_head: &Mutex<String>) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).expect("request") > 0 {}
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    *last_head.lock().expect("lock") = head;
    let plain = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/sql\r\n";
    let response = match path.as_str() {
        "/script.sql" => format!("{plain}Content-Length: 8\r\n\r\nselect 1"),
        "/moved" => {
            "HTTP/1.1 302 Found\r\nLocation: /script.sql\r\nContent-Length: 0\r\n\r\n".into()
        }
        "/page" => "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
            Content-Length: 6\r\nConnection: close\r\n\r\n<html>"
            .into(),
        "/cut" => format!("{plain}Content-Length: 100\r\n\r\nselect 1"),
        "/hang" => format!("{plain}Content-Length: 100\r\n\r\nselect 1"),
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(),
    };
    let _ = stream.write_all(response.as_bytes());
    if path == "/hang" {
        // Until the client gives up.
        let _ = stream.read(&mut [0]);
    }
}

fn sha256(text: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

fn module(arguments: Value) -> GetUrlModule {
    serde_json::from_value(arguments).expect("arguments")
}

async fn fails(arguments: Value, ctx: &TaskContext) -> String {
    let error = module(arguments)
        .apply(ctx, &Value::Null)
        .await
        .expect_err("must fail");
    assert_eq!(
        fs::read_dir(&ctx.base_dir).expect("list").count(),
        0,
        "nothing is left: {error}"
    );
    error.to_string()
}

#[tokio::test]
async fn a_download_is_verified_and_made_once() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temp dir"));
    let ctx = TaskContext::for_tests(dir.path());
    let get = module(
        json!({"url": format!("{}/moved", server.base), "dest": "a.sql", "mode": "0600",
        "checksum": sha256("select 1"), "headers": {"X-Test": "yes"}}),
    );
    assert!(matches!(
        get.check(&ctx).await.expect("check"),
        Plan::NeedsChange(_)
    ));
    assert_eq!(
        server.requests.load(Ordering::SeqCst),
        0,
        "check asks nobody"
    );
    let outcome = get.apply(&ctx, &Value::Null).await.expect("apply");
    assert!(outcome.changed);
    assert_eq!(
        (&outcome.result["status_code"], &outcome.result["mode"]),
        (&json!(200), &json!("0600"))
    );
    assert_eq!(outcome.outputs[0].size, 8);
    let head = server.last_head.lock().expect("lock").to_ascii_lowercase();
    assert!(head.contains("x-test: yes"), "{head}");

    let requests = server.requests.load(Ordering::SeqCst);
    assert_eq!(get.check(&ctx).await.expect("check"), Plan::InSync);
    assert!(!get.apply(&ctx, &Value::Null).await.expect("again").changed);
    assert_eq!(server.requests.load(Ordering::SeqCst), requests);
    fs::write(dir.path().join("a.sql"), "select 2").expect("break it");
    assert!(get.apply(&ctx, &Value::Null).await.expect("repair").changed);
    let force =
        module(json!({"url": format!("{}/script.sql", server.base), "dest": ".", "force": true}));
    assert!(force.apply(&ctx, &Value::Null).await.expect("new").changed);
    assert_eq!(force.check(&ctx).await.expect("check"), Plan::CannotPredict);
    assert!(!force.apply(&ctx, &Value::Null).await.expect("same").changed);
    assert!(dir.path().join("script.sql").is_file());
}

#[tokio::test]
async fn wrong_content_is_never_saved() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temp dir"));
    let ctx = TaskContext::for_tests(dir.path());
    let url = |path: &str| format!("{}{path}", server.base);
    let error = fails(json!({"url": url("/none"), "dest": "a"}), &ctx).await;
    assert!(error.contains("404"), "{error}");
    let error = fails(json!({"url": url("/page"), "dest": "a.sql"}), &ctx).await;
    assert!(error.contains("web page"), "{error}");
    let error = fails(json!({"url": url("/cut"), "dest": "a"}), &ctx).await;
    assert!(error.contains("failed to download"), "{error}");
    let error = fails(
        json!({"url": url("/script.sql"), "dest": "a", "checksum": sha256("x")}),
        &ctx,
    )
    .await;
    assert!(error.contains("expected"), "{error}");
    let error = fails(
        json!({"url": url("/hang"), "dest": "a", "timeout": 1}),
        &ctx,
    )
    .await;
    assert!(error.contains("failed to download"), "{error}");
    let error = fails(json!({"url": "file:///etc/passwd", "dest": "a"}), &ctx).await;
    assert!(error.contains("must begin with"), "{error}");
    let error = fails(
        json!({"url": url("/x"), "dest": "a", "checksum": "md5:1"}),
        &ctx,
    )
    .await;
    assert!(error.contains("64 hex digits"), "{error}");
    let error = fails(json!({"url": "http://127.0.0.1:1/x", "dest": "a"}), &ctx).await;
    assert!(error.contains("failed to download"), "{error}");
}

#[tokio::test]
async fn an_interrupted_download_leaves_nothing_for_long() {
    let (server, dir) = (Server::start(), tempfile::tempdir().expect("temp dir"));
    let mut ctx = TaskContext::for_tests(dir.path());
    let get = module(json!({"url": format!("{}/hang", server.base), "dest": "a", "timeout": 60}));
    let cancel = async {
        while fs::read_dir(dir.path()).expect("list").count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ctx.cancel.cancel();
    };
    let begun = Instant::now();
    let (stopped, ()) = tokio::join!(get.apply(&ctx, &Value::Null), cancel);
    assert!(
        matches!(stopped, Err(ModuleError::Cancelled)),
        "{stopped:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);

    fs::write(
        sibling(&dir.path().join("a"), "partial", &ctx.attempt),
        "half",
    )
    .expect("write");
    ctx.interrupted_attempt = Some(ctx.attempt.clone());
    assert_eq!(
        get.recover(&ctx, &Value::Null).await.expect("recover"),
        Recovery::NotDone
    );
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
}

#[test]
fn passwords_in_addresses_are_not_shown() {
    assert_eq!(shown("https://me:pw@host/a@b"), "https://host/a@b");
    assert_eq!(shown("https://host/a@b"), "https://host/a@b");
}
