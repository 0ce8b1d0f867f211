//! `uri` against a real server of its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use serde_json::json;

use super::*;

/// Answers every request with what it was asked, as JSON; `/missing` by 404, `/moved` by a redirect.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    base
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().expect("clone"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).expect("request") > 0 {}
    let length = head
        .lines()
        .filter_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .next();
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("body");
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, kind, text) = match path {
        "/missing" => ("404 Not Found", "text/plain", "nothing here".to_owned()),
        "/moved" => ("302 Found\r\nLocation: /echo", "text/plain", String::new()),
        "/long" => ("200 OK", "text/plain", "x".repeat((1 << 20) + 1)),
        _ => {
            let body = String::from_utf8_lossy(&body);
            let echo = json!({"head": head, "body": body}).to_string();
            ("200 OK", "application/json; charset=utf-8", echo)
        }
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Served-By: test\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // What is closed with something unread is reset, and the answer may be lost: here the end of a body
    // that is sent in chunks.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = std::io::copy(&mut reader, &mut std::io::sink());
}

async fn ask(arguments: Value) -> Result<Outcome, ModuleError> {
    let ctx = TaskContext::for_tests(std::path::Path::new("/"));
    let module: UriModule = serde_json::from_value(arguments).expect("arguments");
    module.apply(&ctx, &Value::Null).await
}

#[tokio::test]
async fn an_answer_in_json_is_returned_as_values_beside_its_headers() {
    let url = format!("{}/echo", server());
    let outcome = ask(json!({"url": url, "headers": {"X-Asked": 7}})).await;
    let outcome = outcome.expect("answered");
    assert!(!outcome.changed);
    let result = &outcome.result;
    assert_eq!(result["status"], 200);
    assert_eq!(result["x_served_by"], "test");
    assert_eq!(result["redirected"], false);
    assert!(!result.contains_key("content"));
    let head = result["json"]["head"]
        .as_str()
        .expect("text")
        .to_lowercase();
    assert!(
        head.starts_with("get /echo ") && head.contains("x-asked: 7"),
        "{head}"
    );
}

#[tokio::test]
async fn bodies_are_sent_as_their_format_says_and_passwords_with_the_first_request() {
    let url = format!("{}/echo", server());
    for (format, body, sent, kind) in [
        (
            "json",
            json!({"a": [1, null]}),
            r#"{"a":[1,null]}"#,
            "application/json",
        ),
        (
            "form-urlencoded",
            json!({"a": "1 2", "b": ["x", "y"]}),
            "a=1+2&b=x&b=y",
            "x-www-form-urlencoded",
        ),
        (
            "form-urlencoded",
            json!([["k", "ä"], ["k", 2]]),
            "k=%C3%A4&k=2",
            "x-www-form-urlencoded",
        ),
        ("raw", json!("as it is"), "as it is", "basic"),
    ] {
        let outcome = ask(json!({
            "url": url, "method": "post", "body": body, "body_format": format,
            "user": "u", "password": "p",
        }))
        .await;
        let json = outcome.expect("answered").result["json"].clone();
        assert_eq!(json["body"], sent);
        let head = json["head"].as_str().expect("text").to_lowercase();
        assert!(head.starts_with("post "), "{head}");
        assert!(
            head.contains(kind) && head.contains("authorization: basic dtpw"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn another_status_is_a_failure_that_holds_the_answer() {
    let base = server();
    let missing = json!({"url": format!("{base}/missing"), "return_content": true});
    let error = ask(missing.clone()).await.expect_err("404");
    assert!(
        error.to_string().contains("404 Not Found and not [200]"),
        "{error}"
    );
    let ModuleError::Failed(failure) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(failure.result()["content"], "nothing here");
    let mut expected = missing;
    expected["status_code"] = json!([200, 404]);
    assert_eq!(ask(expected).await.expect("right").result["status"], 404);
    let long = ask(json!({"url": format!("{base}/long"), "return_content": true})).await;
    assert!(long.expect_err("long").to_string().contains("get_url"));
    assert!(ask(json!({"url": format!("{base}/long")})).await.is_ok());
}

#[tokio::test]
async fn redirects_are_followed_where_that_is_safe() {
    let url = format!("{}/moved", server());
    let followed = ask(json!({"url": url})).await.expect("followed").result;
    assert_eq!(followed["redirected"], true);
    assert!(followed["url"].as_str().expect("text").ends_with("/echo"));
    for manner in [
        json!({"method": "POST"}),
        json!({"follow_redirects": "none"}),
    ] {
        let mut arguments = json!({"url": url, "status_code": [302]});
        let all = arguments.as_object_mut().expect("mapping");
        all.extend(manner.as_object().expect("mapping").clone());
        assert_eq!(ask(arguments).await.expect("302").result["status"], 302);
    }
}

#[tokio::test]
async fn what_cannot_be_repeated_without_harm_is_left_to_the_operator() {
    let ctx = TaskContext::for_tests(std::path::Path::new("/"));
    for (method, known) in [
        ("GET", true),
        ("PUT", true),
        ("POST", false),
        ("PATCH", false),
    ] {
        let arguments = json!({"url": "http://u:secret@127.0.0.1/x", "method": method});
        let module: UriModule = serde_json::from_value(arguments).expect("arguments");
        match module.recover(&ctx, &Value::Null).await.expect("recover") {
            Recovery::NotDone => assert!(known, "{method}"),
            Recovery::Unknown { doing, .. } => {
                assert!(!known && doing.ends_with("http://127.0.0.1/x"), "{doing}");
            }
            Recovery::Done(_) => panic!("nobody knows"),
        }
    }
}

#[tokio::test]
async fn a_request_that_never_left_is_a_plain_failure_and_one_that_may_have_arrived_is_not() {
    // Takes the request and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let silent_address = silent.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in silent.incoming().flatten() {
            let _ = (&stream).read(&mut [0; 64]);
        }
    });
    let nobody = TcpListener::bind("127.0.0.1:0").expect("bind");
    let nobody_address = nobody.local_addr().expect("address");
    drop(nobody);
    for (address, method, unknown) in [
        (silent_address, "POST", true),
        (silent_address, "PUT", true),
        (silent_address, "PATCH", true),
        (silent_address, "DELETE", true),
        (silent_address, "GET", false),
        (silent_address, "HEAD", false),
        (nobody_address, "POST", false),
        (nobody_address, "DELETE", false),
    ] {
        let url = format!("http://{address}/");
        let error = ask(json!({"url": url, "method": method, "body": "x"})).await;
        let ModuleError::Failed(failure) = error.expect_err("no answer") else {
            panic!("not cancelled")
        };
        assert_eq!(failure.is_outcome_unknown(), unknown, "{method}: {failure}");
        assert_eq!(failure.result()["status"], -1);
    }
}
