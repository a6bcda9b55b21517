//! A server over a world that tests turn, and clients that speak as real ones do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::stream;
use portolan_envoy_proto::{
    Message,
    config::{
        core::v3::{Node, address::Address, socket_address::PortSpecifier},
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
    },
    google::{protobuf::Any, rpc},
    service::{
        discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
        status::v3::{
            ClientStatusRequest, ClientStatusResponse,
            client_status_discovery_service_client::ClientStatusDiscoveryServiceClient,
        },
    },
};
use portolan_model::{ClientStatus, Service, Transport};
use portolan_runtime::{Metrics, Problems, Readiness, Shutdown, SystemClock, Tasks};
use portolan_testkit::{Live, World, cluster_ip, endpoint, port};
use portolan_xds::{Config, Surroundings, store::Kind};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming, transport::Channel};

/// Whoever waits longer waits for what does not come.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) live: Live,
    pub(crate) tasks: Tasks,
    pub(crate) readiness: Readiness,
    pub(crate) problems: Problems,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.shutdown().cancel();
    }
}

impl Server {
    pub(crate) async fn start(world: &World) -> Self {
        let server = Self::over(Live::new(world)).await;
        server.readiness.wait().await;
        server
    }

    /// A server whose catalog has not been filled by every source.
    pub(crate) async fn start_unsynced() -> Self {
        Self::over(Live::unsynced()).await
    }

    async fn over(live: Live) -> Self {
        let (readiness, problems) = (Readiness::new(), Problems::default());
        let tasks = Tasks::new(Shutdown::new());
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
        };
        let surroundings = Surroundings {
            hub: live.hub().clone(),
            clock: Arc::new(SystemClock),
            metrics: Metrics::new(),
            readiness: readiness.clone(),
            problems: problems.clone(),
        };
        let running = portolan_xds::start(config, surroundings, &tasks).await.unwrap();
        let url = format!("http://{}", running.address);
        Self { live, tasks, readiness, problems, url }
    }

    pub(crate) fn clients(&self) -> Vec<ClientStatus> {
        self.live.hub().board().clients()
    }

    /// Returns once clients are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&[ClientStatus]) -> bool) {
        let mut changed = self.live.hub().board().watch();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !wanted(&self.clients()) {
                changed.changed().await.unwrap();
            }
        });
        assert!(waited.await.is_ok(), "never so: {:?}", self.clients());
    }

    /// Returns once the server shows what the catalog holds.
    pub(crate) async fn published(&self) {
        let now = self.live.hub().snapshot().version();
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let members = self.live.hub().board().members();
                let server = members.iter().find(|member| &*member.id.member == "server").unwrap();
                if server.ack.unwrap().version.includes(now) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        waited.await.unwrap();
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn csds(&self, node: &str) -> Result<ClientStatusResponse, Status> {
        let node = Some(Node { id: node.into(), ..Node::default() });
        let request = ClientStatusRequest { node, ..ClientStatusRequest::default() };
        let mut client = ClientStatusDiscoveryServiceClient::new(self.channel().await);
        client.fetch_client_status(request).await.map(tonic::Response::into_inner)
    }

    /// What a unary call of a path ends with.
    pub(crate) async fn status_of(&self, path: &'static str) -> Status {
        let mut grpc = tonic::client::Grpc::new(self.channel().await);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
        let request = tonic::Request::new(DiscoveryRequest::default());
        let path = http::uri::PathAndQuery::from_static(path);
        grpc.unary(request, path, codec).await.unwrap_err()
    }
}

/// Whether a stream ended as it should, for a reason that says so.
pub(crate) fn check_ended(status: &Status, code: Code, words: &str) {
    assert!(status.code() == code && status.message().contains(words), "{status:?}");
}

pub(crate) fn cluster_name(service: &str, port: u16) -> String {
    format!("outbound|{port}||{service}.demo.svc.cluster.local")
}

pub(crate) fn web() -> Service {
    let ports = vec![port("http", Transport::Tcp, 80)];
    cluster_ip("demo", "web", &[[127, 96, 0, 1].into()], ports)
}

/// One service with so many endpoints.
pub(crate) fn world(endpoints: u8) -> World {
    let to = |last| endpoint([127, 10, 0, last].into(), &[("http", Transport::Tcp, 8080)]);
    let key = web().key;
    let world = World::new().namespace("demo").service(web());
    world.endpoints("s", &key, (1..=endpoints).map(to).collect())
}

/// With a Pod that a client may be.
pub(crate) fn pod(world: World, name: &str, last: u8) -> World {
    world.pod("demo", name, [127, 10, 0, last].into())
}

pub(crate) fn pod_on(world: World, name: &str, last: u8, node: &str) -> World {
    world.pod_on("demo", name, [127, 10, 0, last].into(), node)
}

/// What a client asks.
#[derive(Clone, Default)]
pub(crate) struct Ask {
    type_url: String,
    names: Vec<String>,
    nonce: String,
    error: Option<String>,
    holding: BTreeMap<String, String>,
}

impl Ask {
    pub(crate) fn of_type(type_url: &str) -> Self {
        Self { type_url: type_url.into(), ..Self::default() }
    }

    pub(crate) fn all(kind: Kind) -> Self {
        Self::of_type(kind.type_url())
    }

    pub(crate) fn names<T: AsRef<str>>(kind: Kind, names: &[T]) -> Self {
        Self::all(kind).with_names(names)
    }

    pub(crate) fn with_names<T: AsRef<str>>(mut self, names: &[T]) -> Self {
        self.names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        self
    }

    pub(crate) fn with_nonce(mut self, nonce: &str) -> Self {
        self.nonce = nonce.into();
        self
    }

    pub(crate) fn answering(self, told: &Told) -> Self {
        self.with_nonce(&told.nonce)
    }

    pub(crate) fn accepting(told: &Told) -> Self {
        Self::of_type(&told.type_url).answering(told)
    }

    pub(crate) fn refusing(told: &Told, text: &str) -> Self {
        Self { error: Some(text.into()), ..Self::accepting(told) }
    }

    /// It holds from before what it was told then.
    pub(crate) fn holding(mut self, told: &Told) -> Self {
        self.holding.extend(told.versions.clone());
        self
    }

    fn error(&self) -> Option<rpc::Status> {
        let message = self.error.clone()?;
        Some(rpc::Status { code: 3, message, ..rpc::Status::default() })
    }
}

/// What a client is told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) type_url: String,
    nonce: String,
    /// By name.
    pub(crate) resources: Vec<(String, Option<Any>)>,
    versions: BTreeMap<String, String>,
    removed: Vec<String>,
}

impl Told {
    pub(crate) fn names(&self) -> Vec<String> {
        self.resources.iter().map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn removed(&self) -> Vec<String> {
        self.removed.clone()
    }

    /// Where the endpoints in it are.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let bodies = self.resources.iter().filter_map(|(_, body)| body.as_ref());
        let all = bodies.map(|body| ClusterLoadAssignment::decode(&*body.value).unwrap());
        all.flat_map(|assignment| assignment.endpoints)
            .flat_map(|locality| locality.lb_endpoints)
            .map(|endpoint| match endpoint.host_identifier {
                Some(HostIdentifier::Endpoint(endpoint)) => {
                    match endpoint.address.unwrap().address.unwrap() {
                        Address::SocketAddress(socket) => match socket.port_specifier {
                            Some(PortSpecifier::PortValue(port)) => {
                                format!("{}:{port}", socket.address)
                            }
                            other => panic!("{other:?}"),
                        },
                        other => panic!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

/// A stream of delta.
pub(crate) struct Delta {
    node: Option<Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

/// A stream of state of the world.
pub(crate) struct Plain {
    node: Option<Node>,
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

fn node(agent: &str, id: &str) -> Option<Node> {
    Some(Node { id: id.into(), user_agent_name: agent.into(), ..Node::default() })
}

/// Requests as they are sent.
fn channel<T: Send + 'static>()
-> (mpsc::Sender<T>, impl futures_util::Stream<Item = T> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(16);
    let requests = stream::unfold(receiver, |mut receiver: mpsc::Receiver<T>| async move {
        Some((receiver.recv().await?, receiver))
    });
    (sender, requests)
}

async fn awaited<T>(responses: &mut Streaming<T>) -> Result<T, Status> {
    let next = tokio::time::timeout(PATIENCE, responses.message()).await;
    next.expect("something is told").map(|message| message.expect("the stream goes on"))
}

impl Delta {
    pub(crate) async fn open(server: &Server, agent: &str, id: &str) -> Self {
        let mut stream = Self::without_node(server).await;
        stream.node = node(agent, id);
        stream
    }

    pub(crate) async fn without_node(server: &Server) -> Self {
        let (sender, requests) = channel();
        let client = AggregatedDiscoveryServiceClient::new(server.channel().await);
        let mut client = client.max_encoding_message_size(16 << 20);
        let responses = client.delta_aggregated_resources(requests).await.unwrap().into_inner();
        Self { node: None, requests: sender, responses }
    }

    pub(crate) async fn ask(&mut self, ask: Ask) {
        let request = DeltaDiscoveryRequest {
            node: self.node.take(),
            error_detail: ask.error(),
            type_url: ask.type_url,
            resource_names_subscribe: ask.names,
            response_nonce: ask.nonce,
            initial_resource_versions: ask.holding.into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Told {
        let told = awaited(&mut self.responses).await.unwrap();
        let versions = told.resources.iter().map(|own| (own.name.clone(), own.version.clone()));
        Told {
            versions: versions.collect(),
            type_url: told.type_url,
            nonce: told.nonce,
            resources: told.resources.into_iter().map(|own| (own.name, own.resource)).collect(),
            removed: told.removed_resources,
        }
    }

    pub(crate) async fn told(&mut self, kind: Kind) -> Told {
        let told = self.next().await;
        assert_eq!(told.type_url, kind.type_url(), "{told:?}");
        told
    }

    pub(crate) async fn ended(&mut self) -> Status {
        awaited(&mut self.responses).await.unwrap_err()
    }
}

impl Plain {
    pub(crate) async fn open(server: &Server, agent: &str, id: &str) -> Self {
        let (sender, requests) = channel();
        let mut client = AggregatedDiscoveryServiceClient::new(server.channel().await);
        let responses = client.stream_aggregated_resources(requests).await.unwrap().into_inner();
        Self { node: node(agent, id), requests: sender, responses }
    }

    pub(crate) async fn ask(&mut self, ask: Ask) {
        let request = DiscoveryRequest {
            node: self.node.take(),
            error_detail: ask.error(),
            type_url: ask.type_url,
            resource_names: ask.names,
            response_nonce: ask.nonce,
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn told(&mut self, kind: Kind) -> Told {
        let told = awaited(&mut self.responses).await.unwrap();
        assert_eq!(told.type_url, kind.type_url(), "{told:?}");
        let named = told.resources.into_iter().map(|body| (resource_name(kind, &body), Some(body)));
        Told {
            versions: BTreeMap::new(),
            type_url: told.type_url,
            nonce: told.nonce,
            resources: named.collect(),
            removed: Vec::new(),
        }
    }
}

/// State of the world leaves the name to the content.
fn resource_name(kind: Kind, body: &Any) -> String {
    use portolan_envoy_proto::config::{
        cluster::v3::Cluster, listener::v3::Listener, route::v3::RouteConfiguration,
    };
    let bytes = &*body.value;
    match kind {
        Kind::Cluster => Cluster::decode(bytes).unwrap().name,
        Kind::Endpoints => ClusterLoadAssignment::decode(bytes).unwrap().cluster_name,
        Kind::Listener => Listener::decode(bytes).unwrap().name,
        Kind::Routes => RouteConfiguration::decode(bytes).unwrap().name,
    }
}
