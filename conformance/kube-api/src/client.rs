//! HTTP with nothing between the scenario and the wire: paths go out as they
//! are written, bodies and headers too.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use portolan_conformance_kube_api::kubeconfig::Access;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, sync::Notify, time::timeout};
use tokio_rustls::TlsConnector;

/// No call of the suite takes longer on a machine that is busy.
const CALL: Duration = Duration::from_secs(30);

/// One request as a scenario writes it.
#[derive(Clone, Default)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) content_type: Option<String>,
    pub(crate) accept: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    /// `None`: the admin's.
    pub(crate) token: Option<String>,
    pub(crate) body: Bytes,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

pub(crate) struct Client {
    access: Access,
    tls: TlsConnector,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Client {
    pub(crate) fn new(access: &Access) -> Result<Client> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&access.ca_pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client {
            access: access.clone(),
            tls: TlsConnector::from(Arc::new(config)),
            idle: Mutex::new(None),
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let tcp = TcpStream::connect(&self.access.authority).await?;
        tcp.set_nodelay(true)?;
        let host = self.access.authority.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
        let name = ServerName::try_from(host.to_owned())?;
        let stream = self.tls.connect(name, tcp).await.context("TLS")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its error reaches whoever waits for the answer.
            drop(connection.await);
        });
        Ok(sender)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>> {
        let token = call.token.as_deref().unwrap_or(&self.access.token);
        let mut request = Request::builder()
            .method(call.method.as_str())
            .uri(call.path.as_str())
            .header(HOST, &self.access.authority)
            .header(ACCEPT, call.accept.as_deref().unwrap_or("application/json"));
        if !call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
            request = request.header(USER_AGENT, "suite/1");
        }
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(content_type) = &call.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(call.body.clone()))?)
    }

    /// Asks; on a connection that has been idle, once more if that has ended.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer> {
        let idle = self.idle.lock().map_err(|_| anyhow!("poisoned"))?.take();
        if let Some(sender) = idle
            && !sender.is_closed()
            && let Ok(answer) = self.exchange(sender, call).await
        {
            return Ok(answer);
        }
        self.exchange(self.connect().await?, call).await
    }

    async fn exchange(&self, mut sender: SendRequest<Full<Bytes>>, call: &Call) -> Result<Answer> {
        let work = async {
            let response = sender.send_request(self.request(call)?).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(Answer { code: head.status.as_u16(), headers: head.headers, body })
        };
        let answer = timeout(CALL, work).await.context("no answer in time")??;
        if let Ok(mut idle) = self.idle.lock() {
            *idle = Some(sender);
        }
        Ok(answer)
    }

    /// Asks for a stream of lines, on a connection of its own.
    pub(crate) async fn watch(&self, call: &Call) -> Result<Watch> {
        let mut sender = self.connect().await?;
        let response = timeout(CALL, sender.send_request(self.request(call)?)).await??;
        let code = response.status().as_u16();
        let lines = Arc::new(Lines::default());
        let task = tokio::spawn(read(response, sender, lines.clone()));
        Ok(Watch { code, lines, taken: 0, task })
    }
}

#[derive(Default)]
struct Lines {
    events: Mutex<(Vec<Value>, bool)>,
    changed: Notify,
}

/// A stream of events.
pub(crate) struct Watch {
    pub(crate) code: u16,
    lines: Arc<Lines>,
    taken: usize,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// The next events, at most `count`, none of a type in `skip`; fewer when the
    /// stream ends or time is up. The flag says whether it has ended.
    pub(crate) async fn next(
        &mut self,
        count: usize,
        skip: &[String],
        within: Duration,
    ) -> (Vec<Value>, bool) {
        let deadline = tokio::time::Instant::now() + within;
        let mut found = Vec::new();
        loop {
            let changed = self.lines.changed.notified();
            let ended = {
                let Ok(state) = self.lines.events.lock() else { return (found, true) };
                while found.len() < count && self.taken < state.0.len() {
                    let event = &state.0[self.taken];
                    self.taken += 1;
                    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
                    if !skip.iter().any(|s| s == kind) {
                        found.push(event.clone());
                    }
                }
                state.1
            };
            if found.len() >= count || ended {
                return (found, ended);
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return (found, false);
            }
        }
    }
}

async fn read(response: Response<Incoming>, sender: SendRequest<Full<Bytes>>, lines: Arc<Lines>) {
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            push(&lines, &line);
        }
    }
    push(&lines, &pending);
    if let Ok(mut state) = lines.events.lock() {
        state.1 = true;
    }
    lines.changed.notify_waiters();
    drop(sender);
}

fn push(lines: &Lines, line: &[u8]) {
    if line.iter().all(u8::is_ascii_whitespace) {
        return;
    }
    let value = serde_json::from_slice(line)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(line).into_owned()));
    if let Ok(mut state) = lines.events.lock() {
        state.0.push(value);
    }
    lines.changed.notify_waiters();
}
