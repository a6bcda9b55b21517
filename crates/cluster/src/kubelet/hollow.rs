//! Hollow Pods: no process, but an address that answers.
//!
//! ```text
//!  containerPorts ─┐
//!                  ├─▶ wanted ports ─▶ Responder ── one listener each ─▶ "NAME\n" over HTTP
//!  Services that ──┘                      └─▶ ports that cannot be bound (PTL0207)
//!  select the Pod
//! ```
//!
//! Any image that is not `portolan.dev/process` makes a hollow Pod, so that
//! plain YAML from anywhere shows endpoints, names and balancing at work. Each
//! costs a task per port and nothing else. When a Pod goes, its listeners stay
//! for a moment: callers that have not heard of it yet are still answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response,
    header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use portolan_apiserver::registry::LabelSelector;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::Semaphore, task::AbortHandle};

use super::{
    pod::{Pod, Transport},
    problem::{self, Problem},
    status::{Report, container_status},
};
use crate::object::{at, int, list, text};

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1024;

/// Connections that all responders of a node serve at once. Beyond that they
/// wait in the backlog. Well below the number of files a process may open.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// Time for a caller to send its request's head, and between two requests.
const HEADER_WAIT: Duration = Duration::from_secs(30);

/// How long a responder goes on after its Pod is gone. Watches and proxies of
/// the same machine follow within milliseconds; DNS answers live longer, and
/// whoever holds on to them must take a refusal.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Names the Pod in every answer.
static POD_NAME_HEADER: HeaderName = HeaderName::from_static("x-pod-name");

/// The ports at which a hollow Pod is expected to answer: those that its
/// containers declare and those that Services send its traffic to.
pub(crate) fn wanted_ports<'a>(
    pod: &Pod,
    services: impl Iterator<Item = &'a Value>,
) -> BTreeSet<u16> {
    let mut ports = pod.tcp_ports();
    for service in services {
        let selector = at(service, "/spec/selector").unwrap_or(&Value::Null);
        let selector = LabelSelector::from_map(selector);
        if selector.is_empty() || !selector.matches_object(&pod.raw) {
            continue;
        }
        let tcp = |port: &&Value| matches!(text(port, "/protocol"), "" | "TCP");
        ports.extend(list(service, "/spec/ports").iter().filter(tcp).filter_map(|port| {
            let target = at(port, "/targetPort").filter(|t| t.as_i64() != Some(0));
            match target {
                None => u16::try_from(int(port, "/port")?).ok(),
                Some(Value::String(name)) => named(pod, name),
                Some(number) => u16::try_from(number.as_i64()?).ok(),
            }
        }));
    }
    ports.remove(&0);
    ports
}

fn named(pod: &Pod, name: &str) -> Option<u16> {
    let all = pod.main.iter().chain(&pod.init).flat_map(|c| &c.ports);
    let mut tcp = all.filter(|p| p.transport == Transport::Tcp && !p.name.is_empty());
    tcp.find(|p| p.name == name).map(|p| p.number).or_else(|| name.parse().ok())
}

/// What answers for one hollow Pod. Dropping it closes its ports.
#[derive(Debug)]
pub(crate) struct Responder {
    address: IpAddr,
    face: Arc<Face>,
    listeners: BTreeMap<u16, AbortHandle>,
    blocked: BTreeMap<u16, String>,
}

/// What all connections of a Pod share.
#[derive(Debug)]
struct Face {
    body: Bytes,
    headers: HeaderMap,
    leaving: AtomicBool,
    permits: Arc<Semaphore>,
}

impl Responder {
    pub(crate) fn new(pod: &str, address: IpAddr, permits: Arc<Semaphore>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        // A Pod's name is a DNS name, which any header takes.
        if let Ok(name) = HeaderValue::from_str(pod) {
            headers.insert(POD_NAME_HEADER.clone(), name);
        }
        let face = Face {
            body: format!("{pod}\n").into(),
            headers,
            leaving: AtomicBool::new(false),
            permits,
        };
        Self { address, face: Arc::new(face), listeners: BTreeMap::new(), blocked: BTreeMap::new() }
    }

    /// Listens on exactly these ports, as far as possible. Ports that could not
    /// be bound before are tried again.
    pub(crate) fn listen_on(&mut self, ports: &BTreeSet<u16>) {
        self.listeners.retain(|port, task| {
            let stays = ports.contains(port);
            if !stays {
                task.abort();
            }
            stays
        });
        self.blocked.clear();
        for port in ports {
            if self.listeners.contains_key(port) {
                continue;
            }
            match bind(SocketAddr::new(self.address, *port)) {
                Ok(listener) => {
                    let task = tokio::spawn(accept(listener, self.face.clone()));
                    self.listeners.insert(*port, task.abort_handle());
                }
                Err(error) => {
                    self.blocked.insert(*port, error.to_string());
                }
            }
        }
    }

    /// Ports that could not be bound, and why.
    pub(crate) fn blocked(&self) -> Vec<(u16, String)> {
        self.blocked.iter().map(|(port, why)| (*port, why.clone())).collect()
    }

    /// The Pod is on its way out: answers from now on close their connection.
    pub(crate) fn leave(&self) {
        self.face.leaving.store(true, Ordering::Relaxed);
    }

    /// What to say about the Pod.
    pub(crate) fn report(&self, pod: &Pod, addresses: &[IpAddr], host: IpAddr, now: u64) -> Report {
        let blocked = self.blocked();
        let (ready, remark) = if blocked.is_empty() {
            (true, hollow_remark())
        } else {
            // The other ports go on; with none left there is nothing to send traffic to.
            let problem = problem::responder_blocked(self.address, &blocked);
            (!self.listeners.is_empty(), problem)
        };
        report(pod, addresses, host, now, ready, remark)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        for task in self.listeners.values() {
            task.abort();
        }
    }
}

fn hollow_remark() -> Problem {
    Problem {
        reason: "Hollow",
        message: format!(
            "hollow Pod: no process runs; a responder answers its name over HTTP \
             (image {} runs processes)",
            super::pod::PROCESS_IMAGE
        ),
    }
}

/// A hollow Pod runs as soon as it has an address.
fn report(
    pod: &Pod,
    addresses: &[IpAddr],
    host_ip: IpAddr,
    now: u64,
    ready: bool,
    remark: Problem,
) -> Report {
    use portolan_apiserver::registry::object::timestamp;

    let before = text(&pod.raw, "/status/startTime");
    let since = if before.is_empty() { timestamp(now) } else { before.to_owned() };
    let status = |init: bool, name: &str, image: &str| {
        let id = format!("portolan://hollow/{}/{name}", pod.uid);
        let state = if init {
            json!({"terminated": {"exitCode": 0, "reason": "Completed",
                "startedAt": since, "finishedAt": since, "containerID": id}})
        } else {
            json!({"running": {"startedAt": since}})
        };
        let mut status = container_status(name, image, &id, image, state);
        status["ready"] = (init || ready).into();
        status["started"] = (!init).into();
        status
    };
    Report {
        phase: "Running",
        initialised: true,
        ready,
        remark: Some(remark),
        unready: if ready { vec![] } else { pod.main.iter().map(|c| c.name.clone()).collect() },
        addresses: addresses.to_vec(),
        host_ip,
        seen_unix_s: now,
        init_statuses: pod.init.iter().map(|c| status(!c.sidecar, &c.name, &c.image)).collect(),
        statuses: pod.main.iter().map(|c| status(false, &c.name, &c.image)).collect(),
    }
}

fn bind(place: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(place), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier Pod with this address may linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if place.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&place.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, face: Arc<Face>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(permit) = face.permits.clone().acquire_owned().await else { return };
                let face = face.clone();
                tokio::spawn(async move {
                    serve(stream, face).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of files, most likely; accepting again at once would spin.
                tracing::debug!(%error, "a hollow Pod's responder cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: tokio::net::TcpStream, face: Arc<Face>) {
    // Small answers: waiting to fill packets only delays them.
    stream.set_nodelay(true).ok();
    let service = service_fn(|_request| {
        let mut response = Response::new(Full::new(face.body.clone()));
        *response.headers_mut() = face.headers.clone();
        if face.leaving.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "a caller of a hollow Pod went away");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pod(containers: Value) -> Pod {
        Pod::of(Arc::new(json!({
            "metadata": {"name": "web-1", "namespace": "default", "uid": "u", "labels": {"app": "web"}},
            "spec": {"containers": containers}
        })))
    }

    #[test]
    fn ports_that_are_expected_to_answer() {
        let service =
            |selector: Value, ports: Value| json!({"spec": {"selector": selector, "ports": ports}});
        let web = json!([{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]}]);
        for (services, expected) in [
            (vec![], vec![8080]),
            (vec![service(json!({"app": "web"}), json!([{"port": 80}]))], vec![80, 8080]),
            (
                vec![service(json!({"app": "web"}), json!([{"port": 80, "targetPort": 9000}]))],
                vec![8080, 9000],
            ),
            (
                vec![service(json!({"app": "web"}), json!([{"port": 80, "targetPort": "http"}]))],
                vec![8080],
            ),
            (
                vec![service(json!({"app": "web"}), json!([{"port": 80, "targetPort": "no"}]))],
                vec![8080],
            ),
            (
                vec![service(json!({"app": "web"}), json!([{"port": 53, "protocol": "UDP"}]))],
                vec![8080],
            ),
            (vec![service(json!({"app": "db"}), json!([{"port": 80}]))], vec![8080]),
            (vec![service(json!({}), json!([{"port": 80}]))], vec![8080]),
            (vec![service(json!({"app": "web"}), json!([{"port": 70000}, 7]))], vec![8080]),
        ] {
            let found = wanted_ports(&pod(web.clone()), services.iter());
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{services:?}");
        }
    }

    async fn ask(place: SocketAddr, method: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(place).await.unwrap();
        let request = format!("{method} /any HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_its_name_and_follows_its_ports() {
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        let taken = std::net::TcpListener::bind((address, 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let free_port = {
            let probe = std::net::TcpListener::bind((address, 0)).unwrap();
            probe.local_addr().unwrap().port()
        };
        let pod = pod(json!([{"name": "c"}]));
        let mut responder = Responder::new("web-1", address, Arc::new(Semaphore::new(9)));
        responder.listen_on(&BTreeSet::from([free_port, taken_port]));
        let place = SocketAddr::new(address, free_port);
        let answer = ask(place, "GET").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-pod-name: web-1\r\n") && answer.ends_with("\r\n\r\nweb-1\n"));
        assert!(ask(place, "HEAD").await.ends_with("\r\n\r\n"));

        let report = responder.report(&pod, &[address], address, 1);
        assert!(report.ready, "the other port goes on");
        let message = report.remark.unwrap().message;
        assert!(message.starts_with("PTL0207: ") && message.contains(&taken_port.to_string()));
        drop(taken);
        responder.listen_on(&BTreeSet::from([taken_port]));
        assert_eq!(responder.blocked(), []);
        assert_eq!(responder.report(&pod, &[address], address, 1).remark.unwrap().reason, "Hollow");
        // The other listener goes with its task.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(place).is_ok() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
    }
}
