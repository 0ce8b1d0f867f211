//! `uri`: one request to a web service, and its answer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use ureq::ResponseExt;
use ureq::http::{Request, Response, header};

use crate::host::error::ModuleError;
use crate::host::files::blocking::detached;
use crate::host::http::{Manners, shown};
use crate::host::process::error::ControlError;
use crate::task::arguments::needless;
use crate::task::context::TaskContext;
use crate::task::module::{Advice, Kind, Module, Outcome, Plan, Recovery, TypedModule};

/// An answer is journaled: what is longer belongs into a file (`get_url`).
const LONGEST_ANSWER: u64 = 1 << 20;
/// As many as Ansible follows.
const REDIRECTS: u32 = 10;

/// Sends one request and judges the answer by its status.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UriModule {
    /// `http://` or `https://` address.
    url: String,
    /// Method. Default: `GET`.
    #[serde(default)]
    method: Option<String>,
    /// What is sent: text, or with `body_format` a value.
    #[serde(default)]
    body: Option<Value>,
    /// `raw` (default), `json` or `form-urlencoded`.
    #[serde(default)]
    body_format: BodyFormat,
    /// Headers of the request.
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    /// Status, or statuses, that are right. Default: 200.
    #[serde(default = "success")]
    status_code: Vec<u16>,
    /// Returns the answer in `content`. One that says to be JSON is returned in `json` as well, either way.
    /// Default: false.
    #[serde(default)]
    return_content: bool,
    /// Seconds that the server may be silent. Default: 30.
    #[serde(default = "thirty")]
    timeout: u64,
    /// `safe` (default: redirects of GET and HEAD), `all` or `none`.
    #[serde(default)]
    follow_redirects: Follow,
    /// The server's certificate must be one that this host trusts. Default: true.
    #[serde(default = "yes")]
    validate_certs: bool,
    /// User of basic authentication.
    #[serde(default, alias = "user")]
    #[schemars(extend("aliases" = ["user"]))]
    url_username: Option<String>,
    /// Password of basic authentication.
    #[serde(default, alias = "password")]
    #[schemars(extend("aliases" = ["password"]))]
    url_password: Option<String>,
    /// Accepted for Ansible's sake: user and password are sent with the first request either way.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted and without effect")]
    force_basic_auth: bool,
    /// Where this path exists, nothing is sent.
    #[serde(default)]
    creates: Option<PathBuf>,
    /// Where this path does not exist, nothing is sent.
    #[serde(default)]
    removes: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum BodyFormat {
    #[default]
    Raw,
    Json,
    FormUrlencoded,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Follow {
    All,
    None,
    #[default]
    Safe,
}

fn success() -> Vec<u16> {
    vec![200]
}

fn thirty() -> u64 {
    30
}

fn yes() -> bool {
    true
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl UriModule {
    fn method(&self) -> String {
        let method = self.method.as_deref().unwrap_or("GET");
        method.to_ascii_uppercase()
    }

    /// It asks, and changes nothing there (RFC 9110, section 9.2.1).
    fn is_safe(&self) -> bool {
        matches!(self.method().as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
    }

    /// Sending it again has no other effect than sending it once (RFC 9110, section 9.2.2).
    fn is_idempotent(&self) -> bool {
        matches!(
            self.method().as_str(),
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        )
    }

    /// Why nothing has to be sent.
    fn needless(&self, ctx: &TaskContext) -> Option<String> {
        let [creates, removes] =
            [&self.creates, &self.removes].map(|path| path.as_ref().map(|path| ctx.resolve(path)));
        needless(creates.as_deref(), removes.as_deref())
    }

    /// The body as it is sent, and what it says to be.
    fn body(&self) -> Result<(Vec<u8>, Option<&'static str>), ControlError> {
        let Some(body) = &self.body else {
            return Ok((Vec::new(), None));
        };
        Ok(match (self.body_format, body) {
            // Text in place of a value is JSON already.
            (BodyFormat::Json, Value::String(text)) => {
                (text.clone().into_bytes(), Some("application/json"))
            }
            (BodyFormat::Json, value) => (value.to_string().into_bytes(), Some("application/json")),
            (BodyFormat::Raw, value) => (text_of(value).into_bytes(), None),
            (BodyFormat::FormUrlencoded, value) => (
                form(value)?.into_bytes(),
                Some("application/x-www-form-urlencoded"),
            ),
        })
    }

    fn request(&self) -> Result<Request<Vec<u8>>, ControlError> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            let message = "`url` must begin with http:// or https://";
            return Err(ControlError::argument(message));
        }
        let (body, kind) = self.body()?;
        let mut request = Request::builder()
            .method(self.method().as_str())
            .uri(&self.url);
        let named = |wanted: &str| {
            let mut names = self.headers.keys();
            names.any(|name| name.eq_ignore_ascii_case(wanted))
        };
        if let Some(kind) = kind.filter(|_| !named("content-type")) {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(user) = self
            .url_username
            .as_ref()
            .filter(|_| !named("authorization"))
        {
            let password = self.url_password.as_deref().unwrap_or_default();
            let token = STANDARD.encode(format!("{user}:{password}"));
            request = request.header(header::AUTHORIZATION, format!("Basic {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(name, text_of(value));
        }
        request
            .body(body)
            .map_err(|error| ControlError::argument(format!("the request: {error}")))
    }

    /// Sends it and reads the answer, on a thread that may block.
    fn send(&self, request: Request<Vec<u8>>) -> Result<Answer, ControlError> {
        let follows = match self.follow_redirects {
            Follow::All => true,
            Follow::None => false,
            Follow::Safe => matches!(self.method().as_str(), "GET" | "HEAD"),
        };
        let manners = Manners {
            silence: Duration::from_secs(self.timeout.max(1)),
            verify: self.validate_certs,
            redirects: if follows { REDIRECTS } else { 0 },
        };
        let failed = |error: &ureq::Error| ControlError::Http {
            message: format!("failed to ask {}: {error}", shown(&self.url)),
            result: status_of(-1, &self.url),
            sent: !self.is_safe() && !never_left(error),
        };
        let client = manners.client();
        // A method that has no body does not announce one of no length.
        let response = if request.body().is_empty() {
            client.run(request.map(|_| ()))
        } else {
            client.run(request)
        };
        let mut response = response.map_err(|error| failed(&error))?;
        let mut content = Vec::new();
        let body = response.body_mut().as_reader();
        let read = body.take(LONGEST_ANSWER + 1).read_to_end(&mut content);
        read.map_err(|error| failed(&error.into()))?;
        Ok(Answer::of(&response, content))
    }
}

/// Whether the request did not get as far as the server.
fn never_left(error: &ureq::Error) -> bool {
    use ureq::{Error, Timeout};
    match error {
        Error::BadUri(_) | Error::HostNotFound | Error::ConnectionFailed | Error::Rustls(_) => true,
        Error::Timeout(timeout) => matches!(timeout, Timeout::Resolve | Timeout::Connect),
        Error::Io(error) => error.kind() == ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// `a=1&b=2` of a mapping, or of a list of pairs.
fn form(value: &Value) -> Result<String, ControlError> {
    let mut text = form_urlencoded::Serializer::new(String::new());
    match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Array(all) => {
                        for value in all {
                            text.append_pair(name, &text_of(value));
                        }
                    }
                    one => {
                        text.append_pair(name, &text_of(one));
                    }
                }
            }
        }
        Value::Array(pairs) => {
            for pair in pairs {
                match pair.as_array().map(Vec::as_slice) {
                    Some([name, value]) => {
                        text.append_pair(&text_of(name), &text_of(value));
                    }
                    _ => {
                        let message = format!("`body`: {pair} is no pair of a name and a value");
                        return Err(ControlError::argument(message));
                    }
                }
            }
        }
        other => {
            let message = format!("`body`: {other} is neither a mapping nor a list of pairs");
            return Err(ControlError::argument(message));
        }
    }
    Ok(text.finish())
}

fn status_of(status: i32, url: &str) -> Map<String, Value> {
    let all = [
        ("status".to_owned(), Value::from(status)),
        ("url".to_owned(), Value::from(shown(url))),
    ];
    all.into_iter().collect()
}

/// What came back.
struct Answer {
    status: u16,
    reason: String,
    url: String,
    headers: Vec<(String, String)>,
    is_json: bool,
    content: Vec<u8>,
}

impl Answer {
    fn of<B>(response: &Response<B>, content: Vec<u8>) -> Self
    where
        Response<B>: ResponseExt,
    {
        let text = |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().replace('-', "_"), text(value)))
            .collect();
        let kind: Option<String> = response.headers().get(header::CONTENT_TYPE).map(text);
        let status = response.status();
        Self {
            status: status.as_u16(),
            reason: status.canonical_reason().unwrap_or_default().to_owned(),
            url: response.get_uri().to_string(),
            headers,
            is_json: kind.is_some_and(|kind| {
                let kind = kind.split(';').next().unwrap_or_default().trim();
                kind.ends_with("/json") || kind.ends_with("+json")
            }),
            content,
        }
    }

    /// Return values.
    fn result(&self, asked: &str, wants_content: bool) -> Result<Map<String, Value>, ControlError> {
        let mut result = Map::new();
        // Like Ansible, by their names beside the other values.
        for (name, value) in &self.headers {
            result.insert(name.clone(), Value::from(value.clone()));
        }
        if (wants_content || self.is_json) && self.content.len() as u64 > LONGEST_ANSWER {
            let mut result = status_of(self.status.into(), asked);
            result.insert("redirected".into(), Value::from(self.url != asked));
            return Err(ControlError::Http {
                message: format!(
                    "the answer of {} is longer than 1 MiB, and results go into the journal: use \
                     `get_url` to have it in a file",
                    shown(asked)
                ),
                result,
                sent: false,
            });
        }
        if self.is_json
            && let Ok(value) = serde_json::from_slice(&self.content)
        {
            result.insert("json".into(), value);
        }
        if wants_content {
            let text = String::from_utf8_lossy(&self.content).into_owned();
            result.insert("content".into(), Value::from(text));
        }
        result.extend(status_of(self.status.into(), &self.url));
        result.insert("redirected".into(), Value::from(self.url != asked));
        Ok(result)
    }
}

#[async_trait]
impl Module for UriModule {
    async fn check(&self, ctx: &TaskContext) -> Result<Plan, ModuleError> {
        self.request()?;
        Ok(match self.needless(ctx) {
            Some(_) => Plan::InSync,
            None => Plan::CannotPredict,
        })
    }

    async fn apply(&self, ctx: &TaskContext, _intent: &Value) -> Result<Outcome, ModuleError> {
        if let Some(why) = self.needless(ctx) {
            return Ok(Outcome::ok()
                .with("skipped", true)
                .with("msg", format!("skipped, since {why}")));
        }
        let request = self.request()?;
        let module = self.clone();
        let begun = Instant::now();
        let work = detached("request", move || module.send(request));
        let answer = tokio::select! {
            answer = work => answer,
            () = ctx.cancel.cancelled() => return Err(ModuleError::Cancelled),
        };
        let answer = answer??;
        let mut result = answer.result(&self.url, self.return_content)?;
        result.insert("elapsed".into(), Value::from(begun.elapsed().as_secs()));
        let Answer { status, reason, .. } = &answer;
        if !self.status_code.contains(status) {
            return Err(ControlError::Http {
                message: format!(
                    "{} answers {status} {reason} and not {:?}",
                    shown(&self.url),
                    self.status_code
                ),
                result,
                sent: false,
            }
            .into());
        }
        let size = answer.content.len();
        let mut outcome = Outcome::ok().summary(format!("{status} {reason}, {size} bytes"));
        outcome.result = result;
        Ok(outcome.with("msg", format!("OK ({size} bytes)")))
    }

    async fn recover(&self, _ctx: &TaskContext, _intent: &Value) -> Result<Recovery, ModuleError> {
        if self.is_idempotent() {
            return Ok(Recovery::NotDone);
        }
        Ok(Recovery::Unknown {
            doing: format!("sending {} {}", self.method(), shown(&self.url)),
            found: "whether the server has got it cannot be told".into(),
        })
    }

    fn may_repeat(&self) -> bool {
        self.is_safe()
    }

    fn recovers_by_a_look(&self) -> bool {
        true
    }

    fn advice(&self, _ctx: &TaskContext) -> Advice {
        Advice {
            look: format!(
                "at what the service behind {} has recorded",
                shown(&self.url)
            ),
            done: "the request is in effect there".into(),
            redo: "it is not, or having it twice does no harm: it is sent again".into(),
        }
    }
}

impl TypedModule for UriModule {
    const NAME: &'static str = "uri";
    const ALIASES: &'static [&'static str] = &["ansible.builtin.uri", "ansible.legacy.uri"];
    const KIND: Kind = Kind::OneWay;
    const AFTER_INTERRUPTION: &'static str = "sends `GET`, `HEAD`, `PUT`, `DELETE` and the like again; any other method: *unknown*: you are asked, unless `done_when` is true";
    const CHECK_MODE: &'static str =
        "skipped, unless `creates` or `removes` tells that there is nothing to do";
    const SUMMARY: &'static str = "Sends one request to a web service and judges the answer";
    const EXAMPLE: &'static str = "\
- name: The archive answers
  uri:
    url: http://127.0.0.1:8080/dcm4chee-arc/ctrl/status
    return_content: true
  register: archive   # archive.status, archive.json
  until: archive.status == 200
  retries: 60
  delay: 5
";
}

#[cfg(test)]
#[path = "uri_tests.rs"]
mod tests;
