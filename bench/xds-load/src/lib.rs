//! Clients of xDS by the thousand: delta streams as Envoys open them, one connection
//! each, which accept what they are told and take the time.
//!
//! ```text
//!   Fleet --clusters, listeners: all; endpoints, routes: by name--> server
//!     ^                                                              |
//!     +-- Received { client, type, bytes, at, mark } <-- response ---+--> accepted (ACK)
//! ```
//!
//! They speak xDS and nothing else, so that they drive any server. A change is known by
//! an address that it brings (its mark), whatever else the server sends. Responses are
//! not decoded but walked through: what the clients cost is taken from the same
//! machine.

#![forbid(unsafe_code)]

mod walk;

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client};
use portolan_envoy_proto::{
    Message, config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest,
};
use tokio::{net::TcpStream, sync::mpsc};

const PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Windows as Envoy has them by default would be 256 MiB; a few are enough here.
const WINDOW: u32 = 4 << 20;

/// Responses that wait to be looked at; with more, clients wait.
const RECEIVED_MAX: usize = 65_536;

/// The types, as the four services are called.
pub const TYPES: [(&str, &str); 4] = [
    ("CDS", "type.googleapis.com/envoy.config.cluster.v3.Cluster"),
    ("EDS", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"),
    ("LDS", "type.googleapis.com/envoy.config.listener.v3.Listener"),
    ("RDS", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"),
];

/// What one client is and wants.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The id of its node.
    pub node: String,
    /// The endpoints that it asks for, by cluster.
    pub endpoints: Vec<String>,
    /// The routes that it asks for.
    pub routes: Vec<String>,
}

/// A response that a client was sent.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Which client.
    pub client: usize,
    /// Which of [`TYPES`].
    pub kind: usize,
    /// When its last byte had come.
    pub at: Instant,
    /// Its length.
    pub bytes: usize,
    /// Resources in it.
    pub resources: usize,
    /// The number of the mark that was in it, if any.
    pub mark: Option<u16>,
}

/// The address that is the mark of a number.
pub fn mark(number: u16) -> String {
    format!("10.251.{}.{}", number >> 8, number & 0xff)
}

/// One connected client.
pub struct Client {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects a client; what it receives goes to `received`. Returns once its requests
/// are on their way.
pub async fn connect(
    server: SocketAddr,
    number: usize,
    wish: &Wish,
    received: mpsc::Sender<Received>,
) -> io::Result<Client> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(broken)?;
    let request = http::Request::post(format!("http://{server}{PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| io::Error::other(error.to_string()))?;
    let mut sender = sender.ready().await.map_err(broken)?;
    let (response, requests) = sender.send_request(request, false).map_err(broken)?;
    let mut session = Session { number, requests, received };
    let node =
        Node { id: wish.node.clone(), user_agent_name: "envoy".to_owned(), ..Node::default() };
    session.ask(0, Some(node), &[], None)?;
    session.ask(1, None, &wish.endpoints, None)?;
    session.ask(2, None, &[], None)?;
    session.ask(3, None, &wish.routes, None)?;
    let task = tokio::spawn(async move {
        let serve = async {
            let response = response.await.map_err(broken)?;
            session.follow(response.into_body()).await
        };
        tokio::select! {
            ended = serve => drop(ended),
            ended = connection => drop(ended),
        }
        // The connection ends with its last handle.
        drop(sender);
    });
    Ok(Client { task })
}

struct Session {
    number: usize,
    requests: SendStream<Bytes>,
    received: mpsc::Sender<Received>,
}

impl Session {
    fn ask(
        &mut self,
        kind: usize,
        node: Option<Node>,
        names: &[String],
        nonce: Option<String>,
    ) -> io::Result<()> {
        let request = DeltaDiscoveryRequest {
            node,
            type_url: TYPES[kind].1.to_owned(),
            resource_names_subscribe: names.to_vec(),
            response_nonce: nonce.unwrap_or_default(),
            ..DeltaDiscoveryRequest::default()
        };
        let mut frame = BytesMut::with_capacity(5 + request.encoded_len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(request.encoded_len()).unwrap_or(u32::MAX));
        request.encode(&mut frame).map_err(|error| io::Error::other(error.to_string()))?;
        self.requests.send_data(frame.freeze(), false).map_err(broken)
    }

    async fn follow(&mut self, mut responses: RecvStream) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        while let Some(piece) = responses.data().await {
            let piece = piece.map_err(broken)?;
            responses.flow_control().release_capacity(piece.len()).map_err(broken)?;
            buffer.extend_from_slice(&piece);
            while let Some(message) = message(&mut buffer) {
                let walked = walk::response(&message);
                let kind = TYPES.iter().position(|(_, url)| *url == walked.type_url);
                let Some(kind) = kind else { continue };
                self.ask(kind, None, &[], Some(walked.nonce.to_owned()))?;
                let received = Received {
                    client: self.number,
                    kind,
                    at: Instant::now(),
                    bytes: message.len(),
                    resources: walked.resources,
                    mark: walked.mark,
                };
                if self.received.send(received).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The next whole message of a gRPC stream.
fn message(buffer: &mut BytesMut) -> Option<Bytes> {
    let head: [u8; 4] = buffer.get(1..5)?.try_into().ok()?;
    let length = u32::from_be_bytes(head) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    let mut whole = buffer.split_to(5 + length);
    Some(whole.split_off(5).freeze())
}

fn broken(error: h2::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// Clients, and what they receive.
pub struct Fleet {
    clients: Vec<Client>,
    received: mpsc::Receiver<Received>,
}

impl Fleet {
    /// Connects clients with these wishes, so many at once.
    pub async fn connect(
        server: SocketAddr,
        wishes: Arc<[Wish]>,
        at_once: usize,
    ) -> io::Result<Self> {
        let (sender, received) = mpsc::channel(RECEIVED_MAX);
        let mut tasks = tokio::task::JoinSet::new();
        for first in 0..at_once {
            let (wishes, sender) = (wishes.clone(), sender.clone());
            tasks.spawn(async move {
                let mut clients = Vec::new();
                for number in (first..wishes.len()).step_by(at_once) {
                    clients.push(connect(server, number, &wishes[number], sender.clone()).await?);
                }
                io::Result::Ok(clients)
            });
        }
        let mut clients = Vec::new();
        while let Some(made) = tasks.join_next().await {
            clients.extend(made.map_err(io::Error::other)??);
        }
        Ok(Self { clients, received })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The next response that any of them received.
    pub async fn next(&mut self) -> Option<Received> {
        self.received.recv().await
    }

    /// Waits until each client has received something of each type; tells the bytes of
    /// all responses until then.
    pub async fn settle(&mut self) -> usize {
        let mut missing: HashMap<(usize, usize), ()> = HashMap::new();
        for client in 0..self.len() {
            missing.extend((0..TYPES.len()).map(|kind| ((client, kind), ())));
        }
        let mut bytes = 0;
        while !missing.is_empty() {
            let Some(received) = self.next().await else { break };
            bytes += received.bytes;
            missing.remove(&(received.client, received.kind));
        }
        bytes
    }
}
