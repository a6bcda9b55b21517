//! Probes: when to ask, what to make of the answers, and the asking itself.
//!
//! [`Track`] is pure: the machine asks it whether a probe is due and tells it
//! the outcome; it answers whether the verdict changed. [`ask`] is the part
//! that touches sockets. Timing and thresholds are those of
//! k8s.io/kubernetes `pkg/kubelet/prober` (the first probe comes as soon as the
//! initial delay is over; probes of one kind never overlap), with one
//! difference: a probe is asked at once when its container begins to listen,
//! so that a Pod need not wait a whole period for being just too late.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::pod::Port;
use crate::object::{at, int, list, text};

/// Defaults of `corev1.Probe`.
const PERIOD_S_DEFAULT: i64 = 10;
const TIMEOUT_S_DEFAULT: i64 = 1;
const FAILURES_DEFAULT: i64 = 3;

/// Longest delay that is kept as asked; a day, so that sums cannot overflow.
const SECONDS_MAX: i64 = 86_400;

/// Bytes of an answer that are read before it counts as good (upstream's
/// `maxRespBodyLength`).
const BODY_BYTES_MAX: usize = 10 * 1024;

/// How a probe or a hook asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handler {
    Http {
        host: Option<String>,
        port: u16,
        path: String,
        tls: bool,
        headers: Vec<(String, String)>,
    },
    Tcp {
        host: Option<String>,
        port: u16,
    },
    Grpc {
        port: u16,
        service: String,
    },
    Exec {
        command: Vec<String>,
    },
    /// Written in a way that cannot be carried out; it fails with this text.
    Unusable(String),
}

impl Handler {
    /// `None` when the object names no handler at all.
    pub(crate) fn of(raw: &Value, ports: &[Port]) -> Option<Handler> {
        let host = |raw: &Value| Some(text(raw, "/host").to_owned()).filter(|h| !h.is_empty());
        let with_port =
            |raw: &Value, make: &dyn Fn(u16) -> Handler| match resolve_port(raw.get("port"), ports)
            {
                Some(port) => make(port),
                None => Handler::Unusable(format!(
                    "port {} is neither a number nor the name of a port of the container",
                    raw.get("port").unwrap_or(&Value::Null)
                )),
            };
        if let Some(get) = at(raw, "/httpGet") {
            let header = |h: &Value| (text(h, "/name").to_owned(), text(h, "/value").to_owned());
            let path = text(get, "/path");
            let slash = if path.starts_with('/') { "" } else { "/" };
            return Some(with_port(get, &|port| Handler::Http {
                host: host(get),
                port,
                path: format!("{slash}{path}"),
                tls: text(get, "/scheme").eq_ignore_ascii_case("HTTPS"),
                headers: list(get, "/httpHeaders").iter().map(header).collect(),
            }));
        }
        if let Some(socket) = at(raw, "/tcpSocket") {
            return Some(with_port(socket, &|port| Handler::Tcp { host: host(socket), port }));
        }
        if let Some(grpc) = at(raw, "/grpc") {
            let service = text(grpc, "/service");
            return Some(with_port(grpc, &|port| Handler::Grpc {
                port,
                service: service.to_owned(),
            }));
        }
        let command = list(at(raw, "/exec")?, "/command");
        let words: Vec<_> = command.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Some(if words.is_empty() {
            Handler::Unusable("exec.command is empty".into())
        } else {
            Handler::Exec { command: words }
        })
    }
}

fn resolve_port(port: Option<&Value>, ports: &[Port]) -> Option<u16> {
    match port? {
        Value::Number(number) => u16::try_from(number.as_i64()?).ok().filter(|n| *n != 0),
        Value::String(name) => ports.iter().find(|p| p.name == *name).map(|p| p.number),
        _ => None,
    }
}

/// One probe of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) handler: Handler,
    pub(crate) initial_delay_ms: u64,
    pub(crate) period_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) successes: u32,
    pub(crate) failures: u32,
    /// Grace after a failed liveness or startup probe, when it differs from the Pod's.
    pub(crate) grace_s: Option<u64>,
}

impl Probe {
    pub(crate) fn of(raw: &Value, ports: &[Port]) -> Option<Probe> {
        let seconds = |key: &str| int(raw, &format!("/{key}")).map(|s| s.clamp(0, SECONDS_MAX));
        let ms = |s: i64| u64::try_from(s).unwrap_or(0) * 1000;
        let above_zero =
            |key: &str, default: i64| seconds(key).filter(|s| *s > 0).unwrap_or(default);
        let count = |key: &str, default| u32::try_from(above_zero(key, default)).unwrap_or(1);
        Some(Probe {
            handler: Handler::of(raw, ports)?,
            initial_delay_ms: ms(seconds("initialDelaySeconds").unwrap_or(0)),
            period_ms: ms(above_zero("periodSeconds", PERIOD_S_DEFAULT)),
            timeout_ms: ms(above_zero("timeoutSeconds", TIMEOUT_S_DEFAULT)),
            successes: count("successThreshold", 1),
            failures: count("failureThreshold", FAILURES_DEFAULT),
            grace_s: seconds("terminationGracePeriodSeconds").and_then(|s| u64::try_from(s).ok()),
        })
    }
}

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

/// Where one probe of one running container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Track {
    not_before_ms: u64,
    due_ms: u64,
    asking: bool,
    same_in_a_row: u32,
    last: Option<bool>,
    /// `None` until a threshold was reached.
    pub(crate) verdict: Option<bool>,
    /// What the last failure said.
    pub(crate) failure: String,
}

impl Track {
    /// For a container that started at `now_ms`.
    pub(crate) fn new(probe: &Probe, now_ms: u64) -> Self {
        let not_before_ms = now_ms + probe.initial_delay_ms;
        Self {
            not_before_ms,
            due_ms: not_before_ms,
            asking: false,
            same_in_a_row: 0,
            last: None,
            verdict: None,
            failure: String::new(),
        }
    }

    /// When to ask next; `None` while an answer is awaited.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        (!self.asking).then_some(self.due_ms)
    }

    /// Whether to ask now; the caller then does.
    pub(crate) fn begin(&mut self, probe: &Probe, now_ms: u64) -> bool {
        if self.asking || now_ms < self.due_ms {
            return false;
        }
        self.asking = true;
        self.due_ms = now_ms + probe.period_ms;
        true
    }

    /// Something happened that makes a success likely: ask soon, though not
    /// before the initial delay.
    pub(crate) fn hurry(&mut self, now_ms: u64) {
        if self.verdict != Some(true) {
            self.due_ms = self.due_ms.min(now_ms.max(self.not_before_ms));
        }
    }

    /// Takes an answer; whether the verdict changed.
    pub(crate) fn answer(&mut self, probe: &Probe, answer: Result<(), String>) -> bool {
        self.asking = false;
        let good = answer.is_ok();
        self.same_in_a_row = if self.last == Some(good) { self.same_in_a_row + 1 } else { 1 };
        self.last = Some(good);
        self.failure = answer.err().unwrap_or_default();
        let threshold = if good { probe.successes } else { probe.failures };
        if self.same_in_a_row < threshold || self.verdict == Some(good) {
            return false;
        }
        self.verdict = Some(good);
        true
    }
}

/// Asks over the network. `Exec` is not for here: it needs the container.
pub(crate) async fn ask(handler: &Handler, pod: IpAddr, timeout: Duration) -> Result<(), String> {
    let asking = async {
        match handler {
            Handler::Http { host, port, path, tls, headers } => {
                ask_http(host.as_deref(), *port, path, *tls, headers, pod).await
            }
            Handler::Tcp { host, port } => connect(host.as_deref(), *port, pod).await.map(drop),
            Handler::Grpc { port, service } => ask_grpc(*port, service, pod).await,
            Handler::Unusable(text) => Err(text.clone()),
            Handler::Exec { .. } => Err("exec is carried out by the container".into()),
        }
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {timeout:?}")),
    }
}

async fn connect(host: Option<&str>, port: u16, pod: IpAddr) -> Result<TcpStream, String> {
    let connected = match host {
        Some(host) => TcpStream::connect((host, port)).await,
        None => TcpStream::connect((pod, port)).await,
    };
    let stream = connected.map_err(|e| format!("dial tcp {}: {e}", authority(host, port, pod)))?;
    // A loopback connect to a free port may meet itself (simultaneous open) and seem to work.
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) if local == peer => {
            Err(format!("dial tcp {}: connection refused", authority(host, port, pod)))
        }
        _ => Ok(stream),
    }
}

fn authority(host: Option<&str>, port: u16, pod: IpAddr) -> String {
    match host {
        Some(host) => format!("{host}:{port}"),
        None => std::net::SocketAddr::new(pod, port).to_string(),
    }
}

async fn ask_http(
    host: Option<&str>,
    port: u16,
    path: &str,
    tls: bool,
    headers: &[(String, String)],
    pod: IpAddr,
) -> Result<(), String> {
    let authority = authority(host, port, pod);
    let status = if tls {
        ask_https(&authority, path, headers).await?
    } else {
        let stream = connect(host, port, pod).await?;
        let request = request(&authority, path, headers)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // Driven here rather than in a task: it ends with the probe.
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            // Upstream reads the body too, and does not mind if it is long.
            drop(Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await);
            Ok::<_, String>(status.as_u16())
        };
        tokio::pin!(exchange);
        tokio::pin!(connection);
        tokio::select! {
            status = &mut exchange => status?,
            ended = &mut connection => match ended {
                // What it has read is still delivered.
                Ok(()) => exchange.await?,
                Err(error) => return Err(error.to_string()),
            },
        }
    };
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {status}"))
    }
}

fn request(
    authority: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, String> {
    let uri: Uri = path.parse().map_err(|e| format!("path {path:?}: {e}"))?;
    let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut request = Request::get(uri);
    if !named("host") {
        request = request.header("host", authority);
    }
    if !named("user-agent") {
        request = request.header("user-agent", USER_AGENT);
    }
    if !named("accept") {
        request = request.header("accept", "*/*");
    }
    request = request.header("connection", "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).map_err(|e| e.to_string())
}

/// Programs that treat probes apart look for upstream's name at the beginning.
const USER_AGENT: &str = concat!("kube-probe/", env!("CARGO_PKG_VERSION"), " (portolan)");

/// Over TLS any certificate is good, as upstream has it: a probe asks whether
/// the process answers, not who it is.
async fn ask_https(
    authority: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, String> {
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(USER_AGENT)
        .build()
        .map_err(|e| e.to_string())?;
    let mut request = client.get(format!("https://{authority}{path}"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await.map_err(|e| e.to_string())?;
    Ok(response.status().as_u16())
}

/// `grpc.health.v1.Health/Check`, written by hand: one field out, one field in.
async fn ask_grpc(port: u16, service: &str, pod: IpAddr) -> Result<(), String> {
    let stream = connect(None, port, pod).await?;
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let authority = authority(None, port, pod);
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(http_body_util::Full::new(Bytes::from(health_request(service))))
        .map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|e| e.to_string())?;
        let status = status.or_else(|| body.trailers()?.get("grpc-status").cloned());
        match status.as_ref().and_then(|s| s.to_str().ok()) {
            Some("0") | None => health_answer(&body.to_bytes()),
            Some(code) => Err(format!("gRPC status {code}")),
        }
    }
    .await;
    driver.abort();
    answer
}

fn health_request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, length-delimited
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0]; // not compressed
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend(message);
    frame
}

/// SERVING is 1 in field 1.
fn health_answer(frame: &[u8]) -> Result<(), String> {
    match frame {
        [0, _, _, _, _, 0x08, 1] => Ok(()),
        [0, _, _, _, _, 0x08, other] => Err(format!("service is not serving (status {other})")),
        _ => Err("service is not serving (status unknown)".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubelet::pod::Transport;

    fn http(port: u16, path: &str) -> Handler {
        Handler::Http { host: None, port, path: path.into(), tls: false, headers: vec![] }
    }

    #[test]
    fn handlers() {
        let ports = [Port { name: "web".into(), number: 8080, transport: Transport::Tcp }];
        for (raw, expected) in [
            (json!({"httpGet": {"port": 80, "path": "/ready"}}), Some(http(80, "/ready"))),
            (json!({"httpGet": {"port": "web"}}), Some(http(8080, "/"))),
            (json!({"httpGet": {"port": 1, "path": "x"}}), Some(http(1, "/x"))),
            (json!({"tcpSocket": {"port": "web"}}), Some(Handler::Tcp { host: None, port: 8080 })),
            (
                json!({"exec": {"command": ["test", "-f", "x"]}}),
                Some(Handler::Exec { command: vec!["test".into(), "-f".into(), "x".into()] }),
            ),
            (
                json!({"tcpSocket": {"port": "no"}}),
                Some(Handler::Unusable(
                    "port \"no\" is neither a number nor the name of a port of the container"
                        .into(),
                )),
            ),
            (json!({"exec": {}}), Some(Handler::Unusable("exec.command is empty".into()))),
            (json!({"exec": null}), None),
            (json!({}), None),
            (json!(3), None),
        ] {
            assert_eq!(Handler::of(&raw, &ports), expected, "{raw}");
        }
    }

    #[test]
    fn thresholds() {
        // Each letter is one answer; the list is the verdict after it.
        let check = |successes: u32, failures: u32, answers: &str, verdicts: &[Option<bool>]| {
            let mut probe = Probe::of(&json!({"tcpSocket": {"port": 1}}), &[]).unwrap();
            (probe.successes, probe.failures) = (successes, failures);
            let mut track = Track::new(&probe, 0);
            for (answer, expected) in answers.chars().zip(verdicts) {
                let before = track.verdict;
                let answer = if answer == '+' { Ok(()) } else { Err("no".to_owned()) };
                assert_eq!(track.answer(&probe, answer), before != *expected, "{answers}");
                assert_eq!(track.verdict, *expected, "{answers}");
            }
        };
        let (yes, no) = (Some(true), Some(false));
        check(1, 3, "+--+---+", &[yes, yes, yes, yes, yes, yes, no, yes]);
        check(2, 1, "+-++", &[None, no, no, yes]);
        check(1, 3, "---", &[None, None, no]);
    }

    #[test]
    fn timing() {
        let raw = json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 5, "periodSeconds": 2});
        let probe = Probe::of(&raw, &[]).unwrap();
        let mut track = Track::new(&probe, 1_000);
        assert_eq!(track.due_ms(), Some(6_000));
        track.hurry(1_500);
        assert!(!track.begin(&probe, 5_999), "not before the initial delay");
        assert!(track.begin(&probe, 6_000));
        assert!(!track.begin(&probe, 60_000), "never two at once");
        assert_eq!(track.due_ms(), None);
        track.answer(&probe, Err("no".into()));
        assert_eq!(track.due_ms(), Some(8_000));
        track.hurry(6_100);
        assert!(track.begin(&probe, 6_100), "hurried after a failure");
    }

    #[test]
    fn defaults_and_odd_numbers() {
        let probe = Probe::of(
            &json!({"tcpSocket": {"port": 1}, "periodSeconds": 0, "timeoutSeconds": -4,
                "failureThreshold": i64::MAX, "initialDelaySeconds": "x"}),
            &[],
        )
        .unwrap();
        assert_eq!((probe.period_ms, probe.timeout_ms), (10_000, 1_000));
        assert_eq!((probe.initial_delay_ms, probe.failures), (0, 86_400));
    }

    #[test]
    fn health_messages() {
        assert_eq!(health_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_answer(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(health_answer(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(health_answer(&[]).is_err());
    }

    #[tokio::test]
    async fn asks_real_sockets() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let code = if buffer[..read].starts_with(b"GET /good ") { 204 } else { 503 };
                let head = format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n");
                drop(stream.write_all(head.as_bytes()).await);
            }
        });
        let here = "127.0.0.1".parse().unwrap();
        let second = Duration::from_secs(5);
        assert_eq!(ask(&http(port, "/good"), here, second).await, Ok(()));
        let bad = ask(&http(port, "/bad"), here, second).await;
        assert_eq!(bad, Err("HTTP probe failed with statuscode: 503".into()));
        let tcp = Handler::Tcp { host: None, port };
        assert_eq!(ask(&tcp, here, second).await, Ok(()));
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let refused = ask(&Handler::Tcp { host: None, port }, here, second).await.unwrap_err();
        assert!(refused.starts_with("dial tcp 127.0.0.1:"), "{refused}");
    }
}
