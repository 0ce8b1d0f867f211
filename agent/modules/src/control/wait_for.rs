//! `wait_for`: a port, a path or a time, with a deadline.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use regex::bytes::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::host::error::ModuleError;
use crate::host::process::error::ControlError;
use crate::task::context::TaskContext;
use crate::task::module::{Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// How much of a file or an answer is searched.
const SEARCH_BYTES: u64 = 16 << 20;

/// Waits until a port answers, a file is there, or the opposite.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitForModule {
    /// Host of `port`. Default: `127.0.0.1`.
    #[serde(default = "localhost")]
    host: String,
    /// TCP port to connect to.
    #[serde(default)]
    port: Option<u16>,
    /// Path to look for.
    #[serde(default)]
    path: Option<PathBuf>,
    /// `started` or `present` (there), `stopped` or `absent` (not there). Default: `started`.
    #[serde(default)]
    state: State,
    /// Seconds until it fails. Default: 300.
    #[serde(default = "five_minutes")]
    timeout: u64,
    /// Seconds before the first look. Default: 0.
    #[serde(default)]
    delay: u64,
    /// Seconds between looks. Default: 1.
    #[serde(default = "one")]
    sleep: u64,
    /// Seconds that one attempt to connect may take. Default: 5.
    #[serde(default = "five")]
    connect_timeout: u64,
    /// Regular expression that the file's content, or what the port sends by itself, must match.
    #[serde(default)]
    search_regex: Option<String>,
    /// Message when the time is over.
    #[serde(default)]
    msg: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Started,
    Present,
    Stopped,
    Absent,
}

fn localhost() -> String {
    "127.0.0.1".into()
}

fn five_minutes() -> u64 {
    300
}

fn one() -> u64 {
    1
}

fn five() -> u64 {
    5
}

/// `^` and `$` mean line ends, as in Ansible.
fn multiline(pattern: &str) -> Result<Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(pattern)
        .multi_line(true)
        .build()
}

impl WaitForModule {
    /// What came about: the state that was waited for, or what is at the path.
    fn seen(&self, ctx: &TaskContext) -> Value {
        let meta = self
            .path
            .as_ref()
            .and_then(|path| std::fs::metadata(ctx.resolve(path)).ok());
        match meta {
            Some(meta) if meta.is_dir() => json!("directory"),
            Some(_) => json!("file"),
            None => json!(format!("{:?}", self.state).to_lowercase()),
        }
    }

    fn wants_absence(&self) -> bool {
        matches!(self.state, State::Stopped | State::Absent)
    }

    fn describe(&self, ctx: &TaskContext) -> String {
        let what = match (&self.path, self.port) {
            (Some(path), _) => ctx.resolve(path).display().to_string(),
            (None, Some(port)) => format!("{}:{port}", self.host),
            (None, None) => return "the time".into(),
        };
        match (&self.search_regex, self.wants_absence()) {
            (Some(regex), false) => format!("`{regex}` in {what}"),
            (Some(regex), true) => format!("`{regex}` to vanish from {what}"),
            (None, false) => what,
            (None, true) => format!("{what} to go away"),
        }
    }

    /// Tells whether it is there now, whatever is wanted.
    async fn is_there(&self, ctx: &TaskContext, regex: Option<&Regex>) -> bool {
        if let Some(path) = &self.path {
            let path = ctx.resolve(path);
            return match regex {
                None => tokio::fs::symlink_metadata(&path).await.is_ok(),
                Some(regex) => {
                    let mut content = Vec::new();
                    match tokio::fs::File::open(&path).await {
                        Ok(file) => {
                            let read = file.take(SEARCH_BYTES).read_to_end(&mut content).await;
                            read.is_ok() && regex.is_match(&content)
                        }
                        Err(_) => false,
                    }
                }
            };
        }
        let Some(port) = self.port else { return true };
        let limit = Duration::from_secs(self.connect_timeout);
        let connected = timeout(limit, TcpStream::connect((self.host.as_str(), port))).await;
        let Ok(Ok(mut stream)) = connected else {
            return false;
        };
        let Some(regex) = regex else { return true };
        let mut content = Vec::new();
        let mut piece = [0; 4096];
        let listen = async {
            while let Ok(count) = stream.read(&mut piece).await {
                content.extend_from_slice(&piece[..count]);
                if regex.is_match(&content) {
                    return true;
                }
                if count == 0 || content.len() as u64 > SEARCH_BYTES {
                    return false;
                }
            }
            false
        };
        timeout(limit, listen).await.unwrap_or(false)
    }
}

#[async_trait]
impl Module for WaitForModule {
    async fn check(&self, _ctx: &TaskContext) -> Result<Plan, ModuleError> {
        Ok(Plan::InSync)
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if self.port.is_some() && self.path.is_some() {
            return Err(ControlError::argument("`port` and `path` exclude each other").into());
        }
        let regex = self.search_regex.as_deref().map(multiline).transpose();
        let regex =
            regex.map_err(|error| ControlError::argument(format!("`search_regex`: {error}")))?;
        let begun = Instant::now();
        let what = self.describe(ctx);
        let limit = Duration::from_secs(self.timeout);
        let work = async {
            sleep(Duration::from_secs(self.delay)).await;
            if self.port.is_none() && self.path.is_none() {
                // As in Ansible, `timeout` alone is a pause.
                sleep(limit).await;
                return;
            }
            while self.is_there(ctx, regex.as_ref()).await == self.wants_absence() {
                // Short at first: most things that are waited for are almost there.
                let pause = Duration::from_secs(self.sleep)
                    .min(begun.elapsed().max(Duration::from_millis(20)));
                ctx.progress
                    .items(begun.elapsed().as_secs(), Some(self.timeout), what.clone());
                sleep(pause).await;
            }
        };
        let allowed = if self.port.is_none() && self.path.is_none() {
            Duration::MAX
        } else {
            limit
        };
        let ended = tokio::select! {
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
            ended = timeout(allowed, work) => ended,
        };
        let elapsed = begun.elapsed().as_secs();
        if ended.is_err() {
            let mut result = Map::new();
            result.insert("elapsed".into(), elapsed.into());
            let message = self.msg.clone();
            return Err(ControlError::Timeout {
                message: message
                    .unwrap_or_else(|| format!("waited {} s in vain for {what}", self.timeout)),
                result,
            }
            .into());
        }
        let mut outcome = Outcome::ok()
            .with("elapsed", elapsed)
            .with("state", self.seen(ctx))
            .summary(format!("{what} after {elapsed} s"));
        if let Some(path) = &self.path {
            outcome = outcome.with("path", ctx.resolve(path).display().to_string());
        }
        if let Some(port) = self.port {
            outcome = outcome.with("port", port).with("host", self.host.clone());
        }
        Ok(outcome)
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        Ok(Recovery::NotDone)
    }
}

impl TypedModule for WaitForModule {
    const NAME: &'static str = "wait_for";
    const ALIASES: &'static [&'static str] =
        &["ansible.builtin.wait_for", "ansible.legacy.wait_for"];
    const KIND: Kind = Kind::ReadOnly;
    const AFTER_INTERRUPTION: &'static str = "waits again";
    const CHECK_MODE: &'static str = "really looks";
    const SUMMARY: &'static str = "Waits until a port answers or a file is there, or the opposite";
    const EXAMPLE: &'static str = "\
- name: Kaapana's archive answers
  wait_for:
    host: 127.0.0.1
    port: 8080
    timeout: 600
";
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn module(arguments: Value) -> WaitForModule {
        serde_json::from_value(arguments).expect("arguments")
    }

    #[tokio::test]
    async fn a_port_is_awaited_with_what_it_says_and_until_it_is_gone() {
        let ctx = TaskContext::for_tests(std::path::Path::new("/"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let _ = stream.write_all(b"220 OpenSSH ready").await;
            }
        });
        let open = module(json!({"port": port}));
        assert_eq!(
            open.apply(&ctx, &Value::Null).await.expect("open").result["port"],
            port
        );
        let says = module(json!({"port": port, "search_regex": "Open(SSH|LDAP)"}));
        says.apply(&ctx, &Value::Null).await.expect("said");
        server.await.expect("served");
        let closed = module(json!({"port": port, "state": "stopped", "timeout": 20}));
        closed.apply(&ctx, &Value::Null).await.expect("closed");
        let vain = module(json!({"port": port, "timeout": 1}));
        let error = vain
            .apply(&ctx, &Value::Null)
            .await
            .expect_err("closed")
            .to_string();
        assert_eq!(error, format!("waited 1 s in vain for 127.0.0.1:{port}"));
    }

    #[tokio::test]
    async fn a_file_is_awaited_by_name_and_content() {
        let dir = tempfile::tempdir().expect("temp dir");
        let ctx = TaskContext::for_tests(dir.path());
        let ready = module(json!({"path": "log", "search_regex": "^ready$", "timeout": 20}));
        let write = async {
            fs::write(dir.path().join("log"), "starting\n").expect("write");
            tokio::task::yield_now().await;
            fs::write(dir.path().join("log"), "starting\nready\n").expect("write");
        };
        let (waited, ()) = tokio::join!(ready.apply(&ctx, &Value::Null), write);
        waited.expect("ready");
        let gone = module(json!({"path": "nothing", "state": "absent"}));
        gone.apply(&ctx, &Value::Null).await.expect("absent");
        ctx.cancel.cancel();
        let stopped = module(json!({"path": "nothing"}))
            .apply(&ctx, &Value::Null)
            .await;
        assert!(matches!(stopped, Err(ModuleError::Cancelled)));
        let both = module(json!({"path": "a", "port": 1}));
        assert!(both.apply(&ctx, &Value::Null).await.is_err());
    }
}
