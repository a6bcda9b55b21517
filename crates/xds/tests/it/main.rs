//! The server as clients meet it: over sockets, by the generated clients of gRPC.

// A test that cannot go on should panic where it stands.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Ask, Delta, Plain, Server, check_ended, cluster_name, pod, web, world};
use portolan_catalog::Convergence;
use portolan_model::{ClientProgress, Code as Ptl, Face, ServiceKey, Transport};
use portolan_testkit::{World, cluster_ip, endpoint, port};
use portolan_xds::store::Kind::{Cluster, Endpoints, Listener, Routes};
use tonic::Code;

#[tokio::test]
async fn an_envoy_walks_from_clusters_to_endpoints_and_hears_of_changes() {
    let mut server = Server::start(&world(1)).await;
    let mut envoy = Delta::open(&server, "envoy", "a").await;
    envoy.ask(Ask::all(Cluster)).await;
    let clusters = envoy.told(Cluster).await;
    assert_eq!(clusters.names(), [cluster_name("web", 80)]);
    envoy.ask(Ask::accepting(&clusters)).await;
    envoy.ask(Ask::names(Endpoints, &[&cluster_name("web", 80)])).await;
    let endpoints = envoy.told(Endpoints).await;
    assert_eq!(endpoints.addresses(), ["127.10.0.1:8080"]);
    envoy.ask(Ask::accepting(&endpoints)).await;
    envoy.ask(Ask::all(Listener)).await;
    let listeners = envoy.told(Listener).await;
    assert_eq!(listeners.names(), ["127.0.0.1_80"]);
    envoy.ask(Ask::accepting(&listeners)).await;
    envoy.ask(Ask::names(Routes, &["80"])).await;
    let routes = envoy.told(Routes).await;
    assert_eq!(routes.names(), ["80"]);
    envoy.ask(Ask::accepting(&routes)).await;

    // An endpoint more is news of endpoints and of nothing else.
    server.live.set(&world(2));
    let more = envoy.told(Endpoints).await;
    assert_eq!(more.addresses(), ["127.10.0.1:8080", "127.10.0.2:8080"]);
    envoy.ask(Ask::accepting(&more)).await;

    // A service more is news of clusters and routes, and its listener is there already.
    let db =
        cluster_ip("demo", "db", &[[127, 96, 0, 2].into()], vec![port("http", Transport::Tcp, 80)]);
    server.live.set(&world(2).service(db));
    let clusters = envoy.told(Cluster).await;
    assert_eq!(clusters.names(), [cluster_name("db", 80)]);
    envoy.ask(Ask::accepting(&clusters)).await;
    let routes = envoy.told(Routes).await;
    envoy.ask(Ask::accepting(&routes)).await;

    // What goes is taken from routes first.
    server.live.set(&world(2));
    let routes = envoy.told(Routes).await;
    envoy.ask(Ask::accepting(&routes)).await;
    let gone = envoy.told(Cluster).await;
    assert_eq!((gone.names(), gone.removed()), (vec![], vec![cluster_name("db", 80)]));
}

#[tokio::test]
async fn a_grpc_client_walks_from_its_target_to_endpoints() {
    let server = Server::start(&world(2)).await;
    let mut client = Plain::open(&server, "gRPC C-core", "a").await;
    let target = "web.demo:80";
    client.ask(Ask::names(Listener, &[target])).await;
    let listener = client.told(Listener).await;
    assert_eq!(listener.names(), [target]);
    client.ask(Ask::names(Listener, &[target]).answering(&listener)).await;
    let cluster = cluster_name("web", 80);
    for kind in [Routes, Cluster, Endpoints] {
        client.ask(Ask::names(kind, &[&cluster])).await;
        let told = client.told(kind).await;
        assert_eq!(told.names(), [&*cluster]);
        client.ask(Ask::names(kind, &[&cluster]).answering(&told)).await;
    }
    // A target that means nothing is absent from a complete list.
    client.ask(Ask::names(Listener, &[target, "nobody:80"]).answering(&listener)).await;
    let listeners = client.told(Listener).await;
    assert_eq!(listeners.names(), [target]);
}

#[tokio::test]
async fn bare_names_are_those_of_the_clients_namespace() {
    let server = Server::start(&pod(world(1), "a", 9)).await;
    for (node, expected) in [
        ("sidecar~127.10.0.9~a.demo~demo.svc.cluster.local", vec!["web:80"]),
        ("sidecar~127.10.0.9~a.elsewhere~x", vec![]),
    ] {
        let mut client = Plain::open(&server, "gRPC Go", node).await;
        client.ask(Ask::names(Listener, &["web:80"])).await;
        assert_eq!(client.told(Listener).await.names(), expected, "{node}");
    }
}

#[tokio::test]
async fn services_that_keep_to_a_node_differ_by_the_clients_node() {
    let mut local = web();
    local.internal_policy = portolan_model::TrafficPolicy::Local;
    let key = local.key.clone();
    let on = |last, node: &str| {
        let mut own = endpoint([127, 10, 0, last].into(), &[("http", Transport::Tcp, 8080)]);
        own.node = Some(portolan_model::name(node));
        own
    };
    let world = World::new().namespace("demo").service(local);
    let world = world.endpoints("s", &key, vec![on(1, "n1"), on(2, "n2")]);
    let server = Server::start(&harness::pod_on(world, "a", 9, "n2")).await;
    let told = async |node: &str| {
        let mut client = Delta::open(&server, "envoy", node).await;
        client.ask(Ask::names(Endpoints, &[&cluster_name("web", 80)])).await;
        client.told(Endpoints).await.addresses()
    };
    assert_eq!(told("a.demo").await, ["127.10.0.2:8080"]);
    assert_eq!(told("nobody").await, Vec::<String>::new(), "who is nowhere is on no node");
}

#[tokio::test]
async fn who_comes_back_is_told_what_it_does_not_hold() {
    let server = Server::start(&world(1)).await;
    let mut first = Delta::open(&server, "envoy", "a").await;
    first.ask(Ask::all(Cluster)).await;
    let clusters = first.told(Cluster).await;
    first.ask(Ask::accepting(&clusters)).await;
    let name = cluster_name("web", 80);
    first.ask(Ask::names(Endpoints, &[&name])).await;
    let endpoints = first.told(Endpoints).await;
    drop(first);
    // Another server over the same catalog: versions are those of the content.
    let mut other = Server::start(&world(1)).await;
    let mut again = Delta::open(&other, "envoy", "a").await;
    again.ask(Ask::all(Cluster).holding(&clusters)).await;
    assert_eq!(again.told(Cluster).await.names(), Vec::<String>::new(), "an empty answer is owed");
    again.ask(Ask::names(Endpoints, &[&name]).holding(&endpoints)).await;
    other.live.set(&world(2));
    let news = again.told(Endpoints).await;
    assert_eq!(news.addresses().len(), 2, "the first news is the change");
}

#[tokio::test]
async fn nothing_is_told_of_half_a_catalog() {
    let mut server = Server::start_unsynced().await;
    let mut envoy = Delta::open(&server, "envoy", "a").await;
    envoy.ask(Ask::all(Cluster)).await;
    server.until(|clients| clients.first().is_some_and(|own| !own.types.is_empty())).await;
    assert_eq!(server.clients()[0].types[0].1, ClientProgress::NotSent);
    assert!(!server.readiness.blockers().is_empty());
    server.live.set(&world(1));
    assert_eq!(envoy.told(Cluster).await.names(), [cluster_name("web", 80)]);
    server.readiness.wait().await;
}

#[tokio::test]
async fn who_comes_before_the_catalog_is_filled_is_known_when_it_is() {
    let mut server = Server::start_unsynced().await;
    let mut client = Plain::open(&server, "gRPC Go", "a.demo").await;
    client.ask(Ask::names(Listener, &["web:80"])).await;
    server.until(|clients| clients.first().is_some_and(|own| !own.types.is_empty())).await;
    // The bare name is that of the client's namespace, which was not known when it came.
    server.live.set(&pod(world(1), "a", 9));
    assert_eq!(client.told(Listener).await.names(), ["web:80"]);
    assert_eq!(server.clients()[0].pod.as_ref().unwrap().to_string(), "demo/a");
}

#[tokio::test]
async fn who_waits_hears_how_far_clients_are() {
    let mut server = Server::start(&world(1)).await;
    let serves = |server: &Server, key: &ServiceKey| -> Convergence {
        let changed = server.live.hub().snapshot().service(key).unwrap().changed;
        server.live.hub().board().convergence(changed, &[Face::Xds])
    };
    let key = web().key;
    let mut envoy = Delta::open(&server, "envoy", "a").await;
    envoy.ask(Ask::all(Cluster)).await;
    let clusters = envoy.told(Cluster).await;
    let state = |server: &Server| server.clients()[0].types.clone();
    assert!(matches!(&state(&server)[..], [(_, ClientProgress::Stale { .. })]));
    assert_eq!(serves(&server, &key).missing.len(), 1);
    envoy.ask(Ask::accepting(&clusters)).await;
    server.until(|clients| clients[0].types[0].1 == ClientProgress::Synced).await;
    assert!(serves(&server, &key).is_reached());

    // It does not ask for endpoints, so what changes of them is nothing to it.
    server.live.set(&world(2));
    server.published().await;
    assert!(serves(&server, &key).is_reached());

    envoy.ask(Ask::names(Endpoints, &[&cluster_name("web", 80)])).await;
    let endpoints = envoy.told(Endpoints).await;
    envoy.ask(Ask::refusing(&endpoints, "no such thing")).await;
    let refused = ClientProgress::Error { text: portolan_model::name("no such thing") };
    server.until(|clients| clients[0].types[1].1 == refused).await;
    assert!(!serves(&server, &key).is_reached());
    // The next one is accepted, and all is well.
    server.live.set(&world(3));
    let endpoints = envoy.told(Endpoints).await;
    envoy.ask(Ask::accepting(&endpoints)).await;
    server.until(|clients| clients[0].types[1].1 == ClientProgress::Synced).await;
    assert!(serves(&server, &key).is_reached());
    drop(envoy);
    server.until(|clients| clients.is_empty()).await;
    assert!(serves(&server, &key).is_reached(), "the server itself");
}

#[tokio::test]
async fn bad_requests_end_their_stream_and_no_other() {
    let server = Server::start(&world(1)).await;
    let mut fine = Delta::open(&server, "envoy", "fine").await;
    fine.ask(Ask::all(Cluster)).await;
    let clusters = fine.told(Cluster).await;

    let mut nobody = Delta::without_node(&server).await;
    nobody.ask(Ask::all(Cluster)).await;
    check_ended(&nobody.ended().await, Code::InvalidArgument, "node");
    let mut nameless = Delta::open(&server, "envoy", "").await;
    nameless.ask(Ask::all(Cluster)).await;
    check_ended(&nameless.ended().await, Code::InvalidArgument, "id");
    let mut untyped = Delta::open(&server, "envoy", "a").await;
    untyped.ask(Ask::of_type("")).await;
    check_ended(&untyped.ended().await, Code::InvalidArgument, "type_url");
    let mut greedy = Delta::open(&server, "envoy", "a").await;
    let many: Vec<String> = (0..=100_000).map(|number| format!("n{number}")).collect();
    greedy.ask(Ask::names(Endpoints, &many)).await;
    check_ended(&greedy.ended().await, Code::ResourceExhausted, "100000 names");
    let mut huge = Delta::open(&server, "envoy", "a").await;
    huge.ask(Ask::names(Endpoints, &["x".repeat(5 << 20)])).await;
    check_ended(&huge.ended().await, Code::ResourceExhausted, "too large");

    // A type that is not served has nothing, and the stream goes on.
    let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let mut odd = Delta::open(&server, "envoy", "a").await;
    odd.ask(Ask::of_type(secret).with_names(&["default"])).await;
    let told = odd.next().await;
    assert_eq!((&*told.type_url, told.removed()), (secret, vec!["default".to_owned()]));
    odd.ask(Ask::all(Cluster)).await;
    assert_eq!(odd.told(Cluster).await.names().len(), 1);
    let mut odd = Plain::open(&server, "envoy", "a").await;
    odd.ask(Ask::of_type(secret).with_names(&["default"])).await;
    odd.ask(Ask::all(Cluster)).await;
    assert_eq!(odd.told(Cluster).await.names().len(), 1);

    // An answer to a response that never was is no answer.
    let mut confused = Plain::open(&server, "envoy", "a").await;
    confused.ask(Ask::all(Cluster)).await;
    let told = confused.told(Cluster).await;
    confused.ask(Ask::all(Cluster).with_nonce("77")).await;
    confused.ask(Ask::all(Cluster).with_nonce("theirs")).await;
    confused.ask(Ask::all(Cluster).answering(&told)).await;
    server.until(|clients| clients.iter().any(|own| own.types == [synced(Cluster)])).await;

    fine.ask(Ask::accepting(&clusters)).await;
    fine.ask(Ask::names(Endpoints, &[&cluster_name("web", 80)])).await;
    assert_eq!(fine.told(Endpoints).await.addresses().len(), 1);
}

fn synced(kind: portolan_xds::store::Kind) -> (portolan_model::Name, ClientProgress) {
    (portolan_model::name(kind.short()), ClientProgress::Synced)
}

#[tokio::test]
async fn only_streams_and_their_status_are_served() {
    let server = Server::start(&world(1)).await;
    for path in [
        "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/Fetch",
        "/",
    ] {
        assert_eq!(server.status_of(path).await.code(), Code::Unimplemented, "{path}");
    }
    let mut envoy = Delta::open(&server, "envoy", "one").await;
    envoy.ask(Ask::all(Cluster)).await;
    let clusters = envoy.told(Cluster).await;
    envoy.ask(Ask::accepting(&clusters)).await;
    server.until(|clients| clients[0].types == [synced(Cluster)]).await;
    let told = server.csds("one").await.unwrap();
    let [config] = &*told.config else { panic!("{told:?}") };
    let [own] = &*config.generic_xds_configs else { panic!("{config:?}") };
    assert_eq!(own.name, cluster_name("web", 80));
    assert_eq!(own.xds_config, clusters.resources[0].1);
    assert_eq!(own.config_status().as_str_name(), "SYNCED");
    assert!(server.csds("nobody").await.unwrap().config.is_empty());
}

#[tokio::test]
async fn ports_that_two_services_want_are_told_while_somebody_is_concerned() {
    let tcp = |name: &str, last| {
        let ports = vec![port("tcp", Transport::Tcp, 5432)];
        cluster_ip("demo", name, &[[127, 96, 0, last].into()], ports)
    };
    let world = World::new().service(tcp("a", 3)).service(tcp("b", 4));
    let server = Server::start(&world).await;
    assert_eq!(server.problems.all(), []);
    let mut envoy = Delta::open(&server, "envoy", "a").await;
    envoy.ask(Ask::all(Listener)).await;
    envoy.told(Listener).await;
    let problems = server.problems.all();
    let [problem] = &*problems else { panic!("{problems:?}") };
    assert_eq!((problem.face, problem.port), (Face::Xds, 5432));
    assert_eq!(&*problem.service.name, "b");
    assert_eq!(problem.reason.code, Ptl::LISTENER_CONFLICT);
}

#[tokio::test]
async fn streams_end_when_the_server_does() {
    let server = Server::start(&world(1)).await;
    let mut envoy = Delta::open(&server, "envoy", "a").await;
    envoy.ask(Ask::all(Cluster)).await;
    envoy.told(Cluster).await;
    server.tasks.shutdown().cancel();
    assert_eq!(envoy.ended().await.code(), Code::Unavailable);
    server.tasks.finish(std::time::Duration::from_secs(10)).await;
}
