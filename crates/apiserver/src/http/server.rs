//! Start, accept, serve, stop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use futures_util::FutureExt;
use http::{Version, header};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use portolan_runtime::{Shutdown, Tasks};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Service, files,
    respond::{self, Outcome},
    tls::{self, Authority, TlsError},
};
use crate::{
    Status,
    registry::{self, Registry, object},
    store::{self, Backend, OpenError, Store},
};

/// Connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 12_000;
/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the head of a request to arrive, idling between two requests included (Go's
/// `IdleTimeout` in the real server).
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);
/// An HTTP/2 connection on which nothing moves is asked whether it still lives after this time,
/// and closed when it does not say so (client-go's read idle and ping timeouts).
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// Requests at a time on one HTTP/2 connection (apiserver `--http2-max-streams-per-connection`,
/// Go's default).
const STREAMS_MAX: u32 = 250;
/// Largest head of a request. The real server takes 1 MiB, which 12,000 connections could fill.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// What the real server (Go's net/http) says to those who forget the s of https.
const PLAIN_HTTP_ANSWER: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// Pause after the system refuses a new connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time that open requests get to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How an API server is to run.
#[derive(Clone)]
pub struct Config {
    /// Where; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the store, the keys and the tokens are kept; `None` keeps nothing.
    pub data_dir: Option<PathBuf>,
    /// Keep the store in memory although there is a data directory.
    pub ephemeral: bool,
    /// Limits and durability of the store.
    pub store: store::Options,
    /// What the registry knows about its cluster. The token key is filled in.
    pub registry: registry::Options,
    /// More names that the certificate holds for.
    pub server_names: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: None,
            ephemeral: false,
            store: store::Options::default(),
            registry: registry::Options::default(),
            server_names: Vec::new(),
        }
    }
}

/// Why an API server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// No certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file of the data directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An API server that runs.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// The door for the same process.
    pub registry: Registry,
    /// What clients trust.
    pub ca_pem: String,
    /// What lets in the administrator.
    pub admin_token: String,
    /// A kubeconfig for the administrator; whoever writes it makes it private.
    pub kubeconfig: String,
    tasks: Tasks,
}

impl Running {
    /// Waits until everything has ended after the shutdown, and closes the store.
    pub async fn finish(&self) {
        self.tasks.finish(DRAIN_TIMEOUT).await;
        self.registry.store().close().await;
    }
}

/// Secrets of one data directory.
struct Secrets {
    authority: Authority,
    admin_token: String,
    token_key: Vec<u8>,
}

fn random_text() -> String {
    rand::random::<[u8; 32]>().iter().map(|b| format!("{b:02x}")).collect()
}

fn secrets(data_dir: Option<&Path>) -> Result<Secrets, StartError> {
    let now = object::now_unix_seconds();
    let Some(folder) = data_dir else {
        return Ok(Secrets {
            authority: Authority::make(now)?,
            admin_token: random_text(),
            token_key: random_text().into_bytes(),
        });
    };
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { path, source }
    };
    let pki = folder.join("pki");
    files::private_folder(folder).map_err(file(folder))?;
    files::private_folder(&pki).map_err(file(&pki))?;
    let text = |path: PathBuf| -> Result<String, StartError> {
        let text = files::read_or_write(&path, random_text).map_err(file(&path))?;
        if text.trim().is_empty() {
            let source = io::Error::new(io::ErrorKind::InvalidData, "the file is empty; remove it");
            return Err(StartError::File { path, source });
        }
        Ok(text.trim().to_owned())
    };
    Ok(Secrets {
        admin_token: text(pki.join("admin.token"))?,
        token_key: text(pki.join("service-account.key"))?.into_bytes(),
        authority: Authority::open(&pki, now)?,
    })
}

/// Starts an API server; it runs until shutdown.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, StartError> {
    let backend = match (&config.data_dir, config.ephemeral) {
        (Some(folder), false) => Backend::File(folder.join("store").join("portolan.redb")),
        _ => Backend::Memory,
    };
    let listen = config.listen;
    let listen_error = |source| StartError::Listen { address: listen, source };
    // Before anything is written: an address in use must leave no trace.
    let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let secrets = secrets(config.data_dir.as_deref())?;
    let store = Store::open(backend, config.store.clone())?;
    let options = registry::Options { token_key: Some(secrets.token_key), ..config.registry };
    let service_addresses: Vec<IpAddr> =
        options.service_cidrs.iter().filter_map(|cidr| cidr.nth(1)).collect();
    let registry = Registry::new(store, options);
    let names = tls::server_names(address.ip(), &service_addresses, &config.server_names);
    let (tls, ca_pem) = tls::server_config(secrets.authority, names)?;
    let service = Arc::new(Service::new(registry.clone(), &secrets.admin_token, shutdown.clone()));
    let tasks = Tasks::new(shutdown.clone());
    tasks.spawn("apiserver", serve(listener, TlsAcceptor::from(tls), service, shutdown.clone()));
    tasks.spawn("addresses", registry.clone().publish_addresses(shutdown.clone()));
    tasks.spawn("event expiry", registry.clone().sweep_events(shutdown));
    Ok(Running {
        address,
        registry,
        kubeconfig: kubeconfig(address, &ca_pem, &secrets.admin_token),
        ca_pem,
        admin_token: secrets.admin_token,
        tasks,
    })
}

/// A kubeconfig. An address that stands for all is written as loopback.
fn kubeconfig(address: SocketAddr, ca_pem: &str, token: &str) -> String {
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    };
    let server = SocketAddr::new(host, address.port());
    let authority = BASE64.encode(ca_pem);
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: portolan\n\
         \x20 cluster:\n\
         \x20   server: https://{server}\n\
         \x20   certificate-authority-data: {authority}\n\
         users:\n\
         - name: portolan-admin\n\
         \x20 user:\n\
         \x20   token: {token}\n\
         contexts:\n\
         - name: portolan\n\
         \x20 context:\n\
         \x20   cluster: portolan\n\
         \x20   user: portolan-admin\n\
         \x20   namespace: default\n\
         current-context: portolan\n"
    )
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
    shutdown: Shutdown,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS_MAX, "too many connections; one was closed");
            continue;
        };
        let connection = connection(stream, acceptor.clone(), service.clone(), shutdown.clone());
        connections.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::info!(open = connections.len(), "connections were cut off at shutdown");
    }
}

async fn handshake(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    // A handshake begins with 22; the letter is that of a method.
    if first[0].is_ascii_uppercase() {
        stream.write_all(PLAIN_HTTP_ANSWER).await?;
        stream.shutdown().await?;
        // What is left unread when a connection is closed takes the answer with it.
        let _unread = stream.read(&mut vec![0; HEAD_BYTES_MAX]).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request without TLS"));
    }
    acceptor.accept(stream).await
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: Arc<Service>,
    shutdown: Shutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(stream, acceptor)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let asked = Arc::new(AtomicBool::new(false));
    let handler = service_fn({
        let asked = asked.clone();
        move |request| {
            asked.store(true, Ordering::Relaxed);
            let service = service.clone();
            async move { guarded(service, request).await }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), handler);
    tokio::pin!(serving);
    // Hyper's own timer begins with the first bytes, and that of HTTP/2 with its settings.
    let silent = async {
        tokio::time::sleep(HEAD_TIMEOUT).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = silent => return tracing::debug!("a connection without request was closed"),
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// A bug in one request must not end the others.
async fn guarded(service: Arc<Service>, request: http::Request<hyper::body::Incoming>) -> Outcome {
    // RFC 9112, section 3.2; hyper leaves it to us.
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
        return Ok(respond::text(400, "400 Bad Request: missing required Host header"));
    }
    let path = request.uri().path().to_owned();
    match AssertUnwindSafe(service.answer(request)).catch_unwind().await {
        Ok(answer) => Ok(answer),
        Err(_) => {
            tracing::error!(path, "a request panicked");
            let text = "This request caused apiserver to panic. Look in the logs for details.";
            Ok(respond::status(&Status::new(500, "InternalError", text)))
        }
    }
}
