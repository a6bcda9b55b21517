//! Streams between a client and a Pod: `exec`, `attach` and `port-forward`.
//!
//! ```text
//!  GET or POST, Upgrade ─▶ which container, what ─▶ PodSessions ─▶ 101
//!                                                        │
//!       client ◀──WebSocket: channels──▶ relay ◀──▶ Session (whoever runs Pods)
//!       client ◀──WebSocket: SPDY──▶ forward ◀──▶ Connection, one for each the client has
//! ```
//!
//! The checks and their order are the real server's (`pkg/registry/core/pod`):
//! the Pod, the container, its Node, then the upgrade. What the runner of Pods
//! refuses is told before the handshake, or over the error channel where the
//! real server can only tell it there.

mod channels;
mod forward;
mod relay;
mod spdy;
mod upgrade;

use std::sync::Arc;

use http::Method;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};

use self::channels::Protocol;
use super::{
    Service,
    logs::{check_node, chosen_container},
    query::Query,
    respond::Answer,
    verbs::Request,
};
use crate::{
    Status,
    registry::{PodSessions, SessionOptions, object},
};

/// Sessions at a time. Each holds a process, a socket and some buffers.
pub(super) const SESSIONS_MAX: usize = 256;

/// Largest message of a client (golang.org/x/net `DefaultMaxPayloadBytes`, which the real server
/// has). kubectl sends 32 KiB; others put all of their input into one message.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Answers `exec` and `attach`.
pub(super) async fn session(mut request: Request<'_>) -> Result<Answer, Status> {
    if ![Method::GET, Method::POST].contains(request.method) {
        return Err(Status::method_not_allowed());
    }
    let (pod, sessions) = placed_pod(&request)?;
    let options = session_options(request.query, &pod, request.target.subresource == "exec")?;
    let upgrade = websocket_upgrade(&mut request)?;
    let protocol = Protocol::choose(&upgrade::offered(request.headers))?;
    let answer = upgrade::open(request.headers, protocol.name)?;
    let permit = permit(request.service)?;
    let session = match sessions.open(pod, options.clone()).await {
        Err(status) if !protocol.is_latest() => return Err(status),
        opened => opened,
    };
    let shutdown = request.service.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let Some(socket) = socket(upgrade).await else { return };
        tokio::select! {
            () = relay::run(socket, protocol, &options, session) => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(answer)
}

/// Answers `portforward`.
pub(super) async fn forward(mut request: Request<'_>) -> Result<Answer, Status> {
    if ![Method::GET, Method::POST].contains(request.method) {
        return Err(Status::method_not_allowed());
    }
    let (pod, sessions) = placed_pod(&request)?;
    let upgrade = websocket_upgrade(&mut request)?;
    let offered = upgrade::offered(request.headers);
    if !offered.iter().any(|protocol| protocol == forward::PROTOCOL) {
        return Err(Status::bad_request(format!(
            "requested protocol(s) are not supported: {offered:?}; supports [{:?}]",
            forward::PROTOCOL
        )));
    }
    let answer = upgrade::open(request.headers, forward::PROTOCOL)?;
    let permit = permit(request.service)?;
    let shutdown = request.service.shutdown.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let Some(socket) = socket(upgrade).await else { return };
        forward::run(socket, pod, sessions, shutdown).await;
    });
    Ok(answer)
}

fn permit(service: &Service) -> Result<OwnedSemaphorePermit, Status> {
    service.sessions.clone().try_acquire_owned().map_err(|_| {
        let text = format!("there are {SESSIONS_MAX} sessions in Pods; end one of them");
        Status::too_many_requests(text, 1)
    })
}

/// The WebSocket, once the answer has gone out.
async fn socket(upgrade: OnUpgrade) -> Option<WebSocketStream<TokioIo<Upgraded>>> {
    match upgrade.await {
        Ok(upgraded) => {
            let limits = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_BYTES_MAX))
                .max_frame_size(Some(MESSAGE_BYTES_MAX));
            let io = TokioIo::new(upgraded);
            Some(WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await)
        }
        Err(error) => {
            tracing::debug!(%error, "a session's connection broke off");
            None
        }
    }
}

/// The Pod, if somebody here runs it.
fn placed_pod(request: &Request<'_>) -> Result<(Value, Arc<dyn PodSessions>), Status> {
    let target = request.target;
    let registry = &request.service.registry;
    let pod = registry.get(target.kind, target.namespace(), &target.name)?;
    if target.subresource != "portforward" {
        let asked = request.query.get("container").unwrap_or_default();
        // Only its check counts here.
        chosen_container(&pod, asked)?;
    }
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        let name = object::name(&pod);
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let sessions = registry.pod_sessions().filter(|_| registry.has_node_agent(node));
    let sessions = sessions.cloned().ok_or_else(|| {
        check_node(registry, node).err().unwrap_or_else(|| {
            Status::unavailable(format!("nobody runs the Pods of node {node:?} here"))
        })
    })?;
    Ok((pod, sessions))
}

fn session_options(query: &Query, pod: &Value, runs: bool) -> Result<SessionOptions, Status> {
    let container = chosen_container(pod, query.get("container").unwrap_or_default())?;
    let command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if runs && command.is_empty() {
        return Err(Status::bad_request("command: there is none; name what to run"));
    }
    let tty = query.flag("tty");
    let options = SessionOptions {
        container,
        command: runs.then_some(command),
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal has one output.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !(options.stdin || options.stdout || options.stderr) {
        let text = "you must specify at least 1 of stdin, stdout, stderr";
        return Err(Status::bad_request(text));
    }
    Ok(options)
}

fn websocket_upgrade(request: &mut Request<'_>) -> Result<OnUpgrade, Status> {
    if upgrade::asks_for(request.headers, "SPDY/3.1") {
        return Err(Status::bad_request(
            "SPDY is not served: use a WebSocket client (kubectl from 1.31 on is one)",
        ));
    }
    let asked = upgrade::asks_for(request.headers, "websocket");
    let upgrade = request.upgrade.take().filter(|_| asked);
    // In the real server's words.
    upgrade.ok_or_else(|| Status::bad_request("Upgrade request required"))
}
