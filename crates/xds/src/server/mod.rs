//! The server: aggregated discovery (ADS) over gRPC, for Envoys and gRPC clients.
//!
//! ```text
//!   connection --HTTP/2--> route --ADS---> session (one for each stream)
//!                            |---CSDS---> status: what clients were sent and hold
//!                            |---LRS----> load: taken and counted
//!                            +---else---> UNIMPLEMENTED
//! ```
//!
//! Only these methods exist, and each goes through [`route`]: what is to hold for all
//! of them is held there. There is no unary Fetch of resources.

mod clients;
mod load;
mod metrics;
mod node;
mod requests;
mod responses;
mod session;
mod status;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use portolan_catalog::Hub;
use portolan_envoy_proto::service::{
    discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    load_stats::v3::load_reporting_service_server::LoadReportingServiceServer,
    status::v3::client_status_discovery_service_server::ClientStatusDiscoveryServiceServer,
};
use portolan_model::{Code, Face, Problem, Reason};
use portolan_runtime::{BlockReady, Clock, FaceProblems, Metrics, Problems, Readiness, Tasks};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Status, Streaming, body::Body};
use tonic_prost::ProstDecoder;
use tower::ServiceExt;
use tracing::debug;

pub use self::clients::STREAMS_MAX;
use self::{
    clients::Clients,
    metrics::Counters,
    requests::DiscoveryMessage,
    session::{Parts, Peer},
};
use crate::publisher::Publisher;

/// The most that one request may take: Envoy's and gRPC's own limit for messages.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;

/// Streams on one connection: a gRPC client has one for each of its targets.
const STREAMS_OF_CONNECTION_MAX: u32 = 1_024;

/// A connection on which nothing comes is asked whether it is alive so often, and has
/// so long to answer (Istio's values).
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What clients may send before we have read it: acknowledgements are small.
const RECEIVE_WINDOW: u32 = 64 * 1024;

/// What is kept of one stream for a client that does not read.
const SEND_BUFFER: usize = 128 * 1024;

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
const CSDS: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/";
const LRS: &str = "/envoy.service.load_stats.v3.LoadReportingService/";

/// How the face is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect to. There is no authentication yet: loopback only.
    pub listen: SocketAddr,
    /// The domain of the cluster's names.
    pub cluster_domain: String,
}

/// What the face works with.
pub struct Surroundings {
    /// The catalog.
    pub hub: Arc<Hub>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// What it blocks until it has read the catalog.
    pub readiness: Readiness,
    /// Where it tells what it cannot show.
    pub problems: Problems,
}

/// The face at work.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or is not ours.
    #[error("xDS cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Anybody could ask.
    #[error("xDS on {0} would be open to everybody: it has no authentication yet; use loopback")]
    NotLoopback(SocketAddr),
}

/// Starts the face; clients are answered once the catalog is filled.
pub async fn start(
    config: Config,
    surroundings: Surroundings,
    tasks: &Tasks,
) -> Result<Running, StartError> {
    let Surroundings { hub, clock, metrics, readiness, problems } = surroundings;
    if !config.listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(config.listen));
    }
    let failed = |source| StartError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let publisher = Publisher::new(&config.cluster_domain, &hub);
    let clients = Clients::new(publisher.clone(), hub.clone(), clock.clone());
    hub.board().add(clients.clone());
    let counters = Arc::new(Counters::default());
    metrics::register(&metrics, counters.clone(), clients.clone(), publisher.clone());
    problems.add(Arc::new(Conflicts(publisher.clone())));
    let follow = follow(publisher.clone(), hub, readiness.block("xds"), tasks.clone());
    tasks.spawn("xds publisher", follow);
    let parts =
        Arc::new(Parts { publisher, clients, clock, counters, shutdown: tasks.shutdown().clone() });
    tasks.spawn("xds", accept(listener, parts, tasks.clone()));
    Ok(Running { address })
}

/// Keeps the publisher in step with the catalog.
async fn follow(publisher: Arc<Publisher>, hub: Arc<Hub>, block: BlockReady, tasks: Tasks) {
    let mut block = Some(block);
    let mut subscriber = hub.subscribe();
    // The hub is ours: it does not go away while we follow.
    drop(hub);
    while let Some(Some(update)) = tasks.shutdown().run_until_cancelled(subscriber.next()).await {
        publisher.update(&update);
        if update.snapshot().is_synced() {
            block = None;
        }
    }
    drop(block);
}

async fn accept(listener: TcpListener, parts: Arc<Parts>, tasks: Tasks) {
    // After a failure to accept (no descriptor is left) others may have freed one.
    const PAUSE: Duration = Duration::from_millis(100);
    while let Some(accepted) = parts.shutdown.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn("xds connection", connection(stream, peer, parts.clone()));
            }
            Err(error) => {
                debug!(%error, "a client of xDS could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, parts: Arc<Parts>) {
    // Without it a small response would wait for the acknowledgement of the last one.
    stream.set_nodelay(true).ok();
    let shutdown = parts.shutdown.clone();
    let peer = Peer::tcp(peer);
    let service = hyper::service::service_fn(move |request| {
        let (parts, peer) = (parts.clone(), peer.clone());
        async move { Ok::<_, std::convert::Infallible>(route(parts, peer, request).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_OF_CONNECTION_MAX)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection of xDS broke off");
    }
}

/// From path to service.
async fn route(parts: Arc<Parts>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match &*path {
        _ if path.strip_prefix(ADS) == Some("StreamAggregatedResources") => {
            stream::<DiscoveryRequest>(parts, peer, request)
        }
        _ if path.strip_prefix(ADS) == Some("DeltaAggregatedResources") => {
            stream::<DeltaDiscoveryRequest>(parts, peer, request)
        }
        _ if path.starts_with(CSDS) => {
            let service = ClientStatusDiscoveryServiceServer::new(status::StatusOf(parts))
                .max_decoding_message_size(REQUEST_BYTES_MAX);
            service.oneshot(request).await.unwrap_or_else(|never| match never {})
        }
        _ if path.starts_with(LRS) => {
            let service = LoadReportingServiceServer::new(load::Reports)
                .max_decoding_message_size(REQUEST_BYTES_MAX);
            service.oneshot(request).await.unwrap_or_else(|never| match never {})
        }
        _ => Status::unimplemented(format!(
            "{path} is not served; resources are streamed by {ADS}StreamAggregatedResources and \
             DeltaAggregatedResources"
        ))
        .into_http(),
    }
}

fn stream<T: DiscoveryMessage>(
    parts: Arc<Parts>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let decoder = ProstDecoder::<T>::default();
    let requests =
        Streaming::new_request(decoder, request.into_body(), None, Some(REQUEST_BYTES_MAX));
    let mut response = Response::new(session::body(parts, peer, requests));
    let content_type = http::HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

/// Ports that Envoys cannot serve.
#[derive(Debug)]
struct Conflicts(Arc<Publisher>);

impl FaceProblems for Conflicts {
    fn problems(&self) -> Vec<Problem> {
        let conflicts = self.0.conflicts().into_iter();
        conflicts
            .map(|conflict| Problem {
                face: Face::Xds,
                service: conflict.service,
                port: conflict.port,
                reason: Reason::new(
                    Code::LISTENER_CONFLICT,
                    format!("Port {} is of {} there.", conflict.port, conflict.taken_by),
                ),
            })
            .collect()
    }
}
