//! As much of HTTP/1.1 as clients of an API server use.

use std::collections::HashMap;
use std::io;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEAD_LIMIT: usize = 64 * 1024;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    pub path: Vec<String>,
    pub query: Vec<(String, String)>,
    headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The first value of a parameter.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters(name).next().unwrap_or_default()
    }

    pub fn parameters(&self, name: &str) -> impl Iterator<Item = &str> {
        let given = self.query.iter().filter(move |(given, _)| given == name);
        given.map(|(_, value)| value.as_str())
    }

    pub fn is(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }
}

/// Reads a request; nothing where the client has gone.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        if head.len() > HEAD_LIMIT {
            return Err(io::Error::other("a head without an end"));
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let pairs = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
    Ok(Some(Request {
        method,
        path: path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(decoded)
            .collect(),
        query: pairs.collect(),
        headers,
        body,
    }))
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match (
            bytes[at],
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()),
        ) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Answers with JSON.
pub(super) async fn answer(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    body: &Value,
) -> io::Result<()> {
    answer_text(stream, status, "application/json", &body.to_string()).await
}

/// Answers with a text.
pub(super) async fn answer_text(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    kind: &str,
    body: &str,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        if status < 300 { "OK" } else { "No" },
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await
}

/// Begins an answer of unknown length.
pub(super) async fn begin_chunks(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await
}

/// Sends a piece of it; an empty one ends it.
pub(super) async fn chunk(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    let piece = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(piece.as_bytes()).await?;
    stream.flush().await
}
