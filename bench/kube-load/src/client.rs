//! HTTP/1.1 over TLS with as little as possible between the load and the wire.
//!
//! One connection carries one request at a time, as with 64 programs that have
//! nothing to do with each other. (HTTP/2 would be what client-go chooses; it
//! costs the Go server more per request, so that HTTP/1.1 is the kinder way to
//! ask the reference.)

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use portolan_conformance_kube_api::kubeconfig::Access;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for a connection or an answer, the slowest list of the slowest server included; what takes
/// longer ends the run, which must not hang.
const PATIENCE: Duration = Duration::from_secs(120);

async fn in_time<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.with_context(|| format!("{what} took more than {} s", PATIENCE.as_secs()))?
}

/// Opens connections to one server.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Inner>);

struct Inner {
    tls: TlsConnector,
    authority: String,
    host: HeaderValue,
    name: ServerName<'static>,
    bearer: HeaderValue,
}

impl Dialer {
    pub(crate) fn new(access: &Access) -> Result<Dialer> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&access.ca_pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (host, _) = access.authority.rsplit_once(':').context("no port in the address")?;
        Ok(Dialer(Arc::new(Inner {
            tls: TlsConnector::from(Arc::new(config)),
            host: HeaderValue::from_str(&access.authority)?,
            name: ServerName::try_from(host.to_owned())?,
            authority: access.authority.clone(),
            bearer: HeaderValue::from_str(&format!("Bearer {}", access.token))?,
        })))
    }

    pub(crate) async fn dial(&self) -> Result<Connection> {
        in_time("a connection", self.connect()).await
    }

    async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(&self.0.authority).await?;
        tcp.set_nodelay(true)?;
        let stream = self.0.tls.connect(self.0.name.clone(), tcp).await.context("TLS")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its error reaches whoever waits for the answer.
            drop(connection.await);
        });
        Ok(Connection { dialer: self.clone(), sender })
    }

    pub(crate) async fn dial_many(&self, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.dial().await?);
        }
        Ok(connections)
    }
}

/// One connection, kept alive.
pub(crate) struct Connection {
    dialer: Dialer,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Sends a request; the body of the answer is still to be read.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let inner = &self.dialer.0;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &inner.host)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, HeaderValue::from_static("load/1"))
            .header(AUTHORIZATION, &inner.bearer);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let request = request.body(Full::new(body))?;
        let sent = async {
            self.sender.ready().await?;
            Ok(self.sender.send_request(request).await?)
        };
        in_time(path, sent).await
    }

    /// Asks and reads the whole answer, which must have this code.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        expected: u16,
    ) -> Result<Bytes> {
        let response = self.send(method, path, content_type, body).await?;
        let code = response.status().as_u16();
        let body = in_time(path, whole(response.into_body())).await?;
        if code != expected {
            let text = String::from_utf8_lossy(&body);
            bail!("{path}: {code} where {expected} was expected: {text:.400}");
        }
        Ok(body)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Bytes> {
        self.call(Method::GET, path, "", Bytes::new(), 200).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        self.call(Method::POST, path, "application/json", body, 201).await
    }

    pub(crate) async fn patch(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        let content_type = "application/strategic-merge-patch+json";
        self.call(Method::PATCH, path, content_type, body, 200).await
    }
}

async fn whole(mut body: Incoming) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Where a text begins in bytes.
pub(crate) fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    let (first, rest) = text.split_first()?;
    let mut from = 0;
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| byte == first) {
        from += at + 1;
        if bytes[from..].starts_with(rest) {
            return Some(from - 1);
        }
    }
    None
}

/// The revision of the object whose JSON this is, or which an event holds: the
/// first one in it, for both servers write metadata first.
pub(crate) fn revision(json: &[u8]) -> Option<u64> {
    const MARK: &[u8] = b"\"resourceVersion\":\"";
    let digits = &json[find(json, MARK)? + MARK.len()..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
