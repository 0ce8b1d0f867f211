//! What the server answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{Request, answer, answer_text, begin_chunks, chunk, read};
use super::model::{Right, Shared, docker_name, text};
use super::{NAMESPACE, containers, exec};

/// Groups, resources and kinds.
const RESOURCES: [(&str, &str, &str); 3] = [
    ("v1", "pods", "Pod"),
    ("v1", "events", "Event"),
    ("apps/v1", "deployments", "Deployment"),
];

/// Answers the requests of a connection until it ends.
pub(super) async fn serve<S>(mut stream: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    while let Ok(Some(request)) = read(&mut stream).await {
        if request.path.last().is_some_and(|part| part == "exec") {
            run_command(stream, &request, &shared).await;
            return;
        }
        if respond(&mut stream, &request, &shared).await.is_err() {
            return;
        }
    }
}

/// What a request is about: verb, API version, resource, name.
struct About<'r> {
    verb: &'static str,
    plural: &'r str,
    kind: &'static str,
    group: &'r str,
    name: Option<&'r str>,
    sub: Option<&'r str>,
}

fn about(request: &Request) -> Option<About<'_>> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let (group, rest) = match path.as_slice() {
        ["api", "v1", rest @ ..] => ("v1", rest),
        ["apis", "apps", "v1", rest @ ..] => ("apps/v1", rest),
        _ => return None,
    };
    let rest = match rest {
        ["namespaces", namespace, rest @ ..] if *namespace == NAMESPACE => rest,
        ["namespaces", ..] => return None,
        rest => rest,
    };
    let (plural, name, sub) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, sub] => (*plural, Some(*name), Some(*sub)),
        _ => return None,
    };
    let known = RESOURCES
        .iter()
        .find(|(of, known, _)| *of == group && *known == plural)?;
    let verb = match (request.method.as_str(), name) {
        ("GET", None) if request.is("watch") => "watch",
        ("GET", None) => "list",
        ("GET", Some(_)) => "get",
        ("DELETE", Some(_)) => "delete",
        ("PATCH", Some(_)) => "patch",
        _ => return None,
    };
    Some(About {
        verb,
        plural,
        kind: known.2,
        group,
        name,
        sub,
    })
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code})
}

/// Returns the answer to who may not do this.
fn refusal(shared: &Shared, request: &Request, about: Option<&About<'_>>) -> Option<(u16, Value)> {
    let token = request
        .header("authorization")
        .trim_start_matches("Bearer ");
    let (verb, resource) = match about {
        Some(about) => {
            let sub = about.sub.map(|sub| format!("/{sub}")).unwrap_or_default();
            (about.verb, format!("{}{sub}", about.plural))
        }
        None => ("get", "discovery".to_owned()),
    };
    match shared.right(token, verb, &resource) {
        Right::Granted => None,
        Right::Unknown => Some((401, failure(401, "Unauthorized", "Unauthorized"))),
        Right::Denied(user) => {
            let (name, group) = about.map_or(("", ""), |about| {
                (
                    about.name.unwrap_or_default(),
                    about.group.trim_end_matches("v1").trim_end_matches('/'),
                )
            });
            let plural = about.map_or("", |about| about.plural);
            let message = format!(
                "{plural} \"{name}\" is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in \
                 API group \"{group}\" in the namespace \"{NAMESPACE}\""
            );
            Some((403, failure(403, "Forbidden", &message)))
        }
    }
}

async fn respond<S>(stream: &mut S, request: &Request, shared: &Arc<Shared>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let about = about(request);
    if let Some((status, body)) = refusal(shared, request, about.as_ref()) {
        return answer(stream, status, &body).await;
    }
    let Some(about) = about else {
        return match discovery(request) {
            Some(body) => answer(stream, 200, &body).await,
            None => {
                let message = "the server could not find the requested resource";
                answer(stream, 404, &failure(404, "NotFound", message)).await
            }
        };
    };
    match about.name {
        None if about.verb == "watch" => watch(stream, request, shared, &about).await,
        None => {
            let (version, objects) = shared.list(about.plural);
            let fit: Vec<Value> = objects
                .into_iter()
                .filter(|object| fits(object, request))
                .collect();
            let list = json!({"kind": format!("{}List", about.kind), "apiVersion": about.group,
                "metadata": {"resourceVersion": version.to_string()}, "items": fit});
            answer(stream, 200, &list).await
        }
        Some(name) => {
            let Some(object) = shared.get(about.plural, name) else {
                let message = format!("{} \"{name}\" not found", about.plural);
                return answer(stream, 404, &failure(404, "NotFound", &message)).await;
            };
            if about.sub == Some("log") {
                let container = docker_name(&object, request.parameter("container"));
                let lines = request.parameter("tailLines").to_owned();
                let lines = if lines.is_empty() {
                    "all".to_owned()
                } else {
                    lines
                };
                let text =
                    tokio::task::spawn_blocking(move || containers::logs(&container, &lines));
                let text = text.await.unwrap_or_default();
                return answer_text(stream, 200, "text/plain", &text).await;
            }
            match about.verb {
                "delete" => {
                    let options: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                    let wanted = &options["preconditions"]["uid"];
                    if wanted.is_string() && *wanted != object["metadata"]["uid"] {
                        let message = "the UID in the precondition does not match";
                        return answer(stream, 409, &failure(409, "Conflict", message)).await;
                    }
                    if object["metadata"]["deletionTimestamp"].is_null() {
                        shared.note(format!("delete pods {name}"));
                    }
                    let deleted = shared.delete_pod(&object);
                    answer(stream, 200, &deleted).await
                }
                "patch" => {
                    shared.note(format!("patch {} {name}", about.plural));
                    let change = serde_json::from_slice(&request.body).unwrap_or_default();
                    let patched = shared.patch_deployment(name, &change).unwrap_or(object);
                    answer(stream, 200, &patched).await
                }
                _ => answer(stream, 200, &object).await,
            }
        }
    }
}

fn discovery(request: &Request) -> Option<Value> {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let of_group = |group: &str| {
        let resources: Vec<Value> = RESOURCES
            .iter()
            .filter(|(of, ..)| *of == group)
            .map(|(_, plural, kind)| {
                json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": true, "kind": kind,
                    "verbs": ["get", "list", "watch", "delete", "patch"]})
            })
            .collect();
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group,
            "resources": resources})
    };
    Some(match path.as_slice() {
        ["version"] => json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0+lab",
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "", "goVersion": "",
            "compiler": "", "platform": "linux/amd64"}),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []}),
        ["apis"] => {
            let version = json!({"groupVersion": "apps/v1", "version": "v1"});
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": "apps", "versions": [version], "preferredVersion": version}]})
        }
        ["api", "v1"] => of_group("v1"),
        ["apis", "apps", "v1"] => of_group("apps/v1"),
        _ => return None,
    })
}

/// Tells whether an object has the labels and fields that are asked for.
fn fits(object: &Value, request: &Request) -> bool {
    let holds = |selector: &str, value: &dyn Fn(&str) -> Value| {
        let parts = selector.split(',').filter(|part| !part.is_empty());
        parts.into_iter().all(|part| {
            let (name, wanted) = part.split_once('=').unwrap_or((part, ""));
            text(&value(name)) == wanted.trim_start_matches('=')
        })
    };
    let labels = &object["metadata"]["labels"];
    let field = |path: &str| {
        path.split('.')
            .fold(object.clone(), |value, key| value[key].clone())
    };
    holds(request.parameter("labelSelector"), &|name| {
        labels[name].clone()
    }) && holds(request.parameter("fieldSelector"), &field)
}

/// Sends what changes, until the client goes or its time is over.
async fn watch<S>(
    stream: &mut S,
    request: &Request,
    shared: &Shared,
    about: &About<'_>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    begin_chunks(stream).await?;
    let mut version: u64 = request.parameter("resourceVersion").parse().unwrap_or(0);
    if version == 0 {
        let (now, objects) = shared.list(about.plural);
        for object in objects.iter().filter(|object| fits(object, request)) {
            let line = json!({"type": "ADDED", "object": object});
            chunk(stream, &format!("{line}\n")).await?;
        }
        version = now;
    }
    let seconds = request.parameter("timeoutSeconds").parse().unwrap_or(60);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        let changed = shared.changed.notified();
        for (at, kind, object) in shared.changes_after(about.plural, version) {
            version = at;
            if fits(&object, request) {
                let line = json!({"type": kind, "object": object});
                chunk(stream, &format!("{line}\n")).await?;
            }
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return chunk(stream, "").await,
            // A change between the look and this wait is seen at the next tick.
            () = changed => {}
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}

async fn run_command<S>(mut stream: S, request: &Request, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let about = about(request);
    if let Some((status, body)) = refusal(shared, request, about.as_ref()) {
        let _ = answer(&mut stream, status, &body).await;
        return;
    }
    let pod = about.and_then(|about| shared.get("pods", about.name?));
    let Some(pod) = pod else {
        let _ = answer(
            &mut stream,
            404,
            &failure(404, "NotFound", "pods not found"),
        )
        .await;
        return;
    };
    let offered: Vec<&str> = request
        .header("sec-websocket-protocol")
        .split(',')
        .map(str::trim)
        .collect();
    let known: &[&str] = if shared.old_protocol.load(Ordering::SeqCst) {
        &["v4.channel.k8s.io"]
    } else {
        &["v5.channel.k8s.io", "v4.channel.k8s.io"]
    };
    let Some(protocol) = known.iter().find(|known| offered.contains(known)) else {
        let _ = answer(
            &mut stream,
            400,
            &failure(400, "BadRequest", "unknown protocol"),
        )
        .await;
        return;
    };
    let accept = derive_accept_key(request.header("sec-websocket-key").as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    if stream.write_all(head.as_bytes()).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    let command: Vec<String> = request.parameters("command").map(str::to_owned).collect();
    shared.execs.fetch_add(1, Ordering::SeqCst);
    let container = docker_name(&pod, request.parameter("container"));
    exec::run(stream, &container, &command, request.is("stdin")).await;
}
