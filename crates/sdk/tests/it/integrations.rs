//! What other libraries make of a subscription: tower, tonic and reqwest, over real connections
//! where they make some.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Body, http::HeaderMap, response::Response};
use bytes::{Buf, BufMut, Bytes};
use futures_util::{StreamExt, future::BoxFuture, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use portolan_sdk::{
    Balanced, Balancer, Discovery, Instance, Policy, Registration, Resolver, Subscription,
    discover, grpc,
};
use tokio::time::timeout;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tower::{Service, ServiceExt, balance::p2c::Balance, discover::Change, load::Constant};

use crate::{DEADLINE, portolan::Portolan, until};

fn fixed(addresses: &[SocketAddr]) -> Subscription {
    let all = addresses.iter().map(|at| Instance::fixed(Registration::new("a", "http", *at)));
    Subscription::fixed("a", all)
}

fn in_turn(subscription: Subscription) -> Balancer {
    Balancer::builder(subscription).policy(Policy::RoundRobin).build()
}

#[tokio::test]
async fn tower_discovers_who_takes_calls() {
    let server = Portolan::start().await;
    server.put("a", &[(1, true), (2, false), (3, true)]);
    let discovery = Discovery::connect(&server.url()).unwrap();
    let a = discovery.subscribe("shop", "a").await.unwrap();
    let mut discovered = discover(a, |one| one.pod.clone());
    let mut next = async || match timeout(DEADLINE, discovered.next()).await.unwrap().unwrap() {
        Ok(Change::Insert(at, pod)) => format!("+{at} {pod}"),
        Ok(Change::Remove(at)) => format!("-{at}"),
    };
    assert_eq!([next().await, next().await], ["+10.0.0.1:80 p1", "+10.0.0.3:80 p3"]);
    // One is ready, one no longer, one has gone: who comes, comes first.
    server.put("a", &[(2, true), (3, false)]);
    assert_eq!(
        [next().await, next().await, next().await],
        ["+10.0.0.2:80 p2", "-10.0.0.1:80", "-10.0.0.3:80"]
    );
}

type Hits = Arc<Mutex<BTreeMap<SocketAddr, usize>>>;

/// A service that counts who was asked, and fails where told.
#[derive(Clone)]
struct Counting {
    at: SocketAddr,
    hits: Hits,
    fails: Option<SocketAddr>,
}

impl Service<()> for Counting {
    type Response = u16;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<u16, std::io::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        *self.hits.lock().unwrap().entry(self.at).or_default() += 1;
        let fails = self.fails == Some(self.at);
        Box::pin(async move { Ok(if fails { 503 } else { 200 }) })
    }
}

#[tokio::test]
async fn tower_balances_over_a_subscription() {
    let places: Vec<SocketAddr> = (1..=3).map(|last| ([10, 0, 0, last], 80).into()).collect();
    let hits = Hits::default();
    // tower's own balancer.
    let to = hits.clone();
    let discovered = discover(fixed(&places), move |one| {
        let at = one.socket_address();
        Constant::new(Counting { at, hits: to.clone(), fails: None }, 1)
    });
    let mut balance = Balance::<_, ()>::new(discovered);
    for _ in 0..60 {
        assert_eq!(balance.ready().await.unwrap().call(()).await.unwrap(), 200);
    }
    assert_eq!(hits.lock().unwrap().len(), 3);

    // Ours: each in its turn, and one that answers 503 is left alone after a while.
    hits.lock().unwrap().clear();
    let (to, fails) = (hits.clone(), Some(places[1]));
    let balanced = Balanced::new(in_turn(fixed(&places)), move |one| Counting {
        at: one.socket_address(),
        hits: to.clone(),
        fails,
    });
    let mut balanced = balanced.fine_if(|status| *status == 200);
    let mut last = 0;
    for _ in 0..60 {
        last = balanced.ready().await.unwrap().call(()).await.unwrap();
    }
    let hits = hits.lock().unwrap().clone();
    assert_eq!((hits[&places[1]], last), (5, 200), "{hits:?}");
    assert!(hits[&places[0]] > 20 && hits[&places[2]] > 20, "{hits:?}");

    let mut nobody = Balanced::new(in_turn(fixed(&[])), |_| unreachable!("nobody is there"));
    let call = ServiceExt::<()>::ready(&mut nobody).await.unwrap();
    let call: &mut Balanced<Counting, u16> = call;
    let error = call.call(()).await.unwrap_err().to_string();
    assert_eq!(error, "no instance of a is available");
}

/// Bytes as they are: what a generated codec would be, without generated code.
#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A gRPC server that says `ok`, or that it is unavailable; it counts connections and calls.
async fn grpc_server(available: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let router = Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let response = Response::builder().header("content-type", "application/grpc");
            if !available {
                return response.header("grpc-status", "14").body(Body::empty()).unwrap();
            }
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            let frames =
                [Frame::data(Bytes::from_static(b"\0\0\0\0\x02ok")), Frame::trailers(trailers)];
            let frames = stream::iter(frames.map(Ok::<_, Infallible>));
            response.body(Body::new(StreamBody::new(frames))).unwrap()
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (at, calls)
}

/// One client, one channel: each request goes where the balancer says, also of a stream of calls
/// that would share one connection.
#[tokio::test]
async fn tonic_balances_each_request() {
    let (one, at_one) = grpc_server(true).await;
    let (two, at_two) = grpc_server(true).await;
    let (bad, at_bad) = grpc_server(false).await;
    let mut client = tonic::client::Grpc::new(grpc(in_turn(fixed(&[one, two, bad]))));
    let mut failed = 0;
    for _ in 0..60 {
        client.ready().await.unwrap();
        let path = "/shop.Reviews/Get".parse().unwrap();
        let request = tonic::Request::new(Bytes::from_static(b"x"));
        match client.unary(request, path, Plain).await {
            Ok(answer) => assert_eq!(answer.into_inner(), "ok"),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                failed += 1;
            }
        }
    }
    let of = |calls: &AtomicUsize| calls.load(Ordering::Relaxed);
    assert_eq!((of(&at_bad), failed), (5, 5), "left alone after five failures in a row");
    assert!(of(&at_one) > 20 && of(&at_two) > 20, "{} {}", of(&at_one), of(&at_two));
}

#[tokio::test]
async fn reqwest_finds_instances_by_the_name_of_their_service() {
    let hits = Arc::new(Mutex::new(BTreeMap::<SocketAddr, usize>::new()));
    let mut places = Vec::new();
    for _ in 0..2 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let hits = hits.clone();
        let router = Router::new().fallback(move || {
            *hits.lock().unwrap().entry(at).or_default() += 1;
            async { "here" }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        places.push(at);
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let resolver = Resolver::new()
        .with("Reviews", in_turn(fixed(&places)))
        .with("nobody", in_turn(fixed(&[])));
    // A connection for each request, so that each is resolved.
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
    let client = client.dns_resolver(resolver).build().unwrap();
    for _ in 0..10 {
        let answer = client.get("http://reviews/stars").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "here");
    }
    until("both were asked", || hits.lock().unwrap().len() == 2).await;
    assert_eq!(*hits.lock().unwrap().values().min().unwrap(), 5);
    // Other names as ever.
    let other = format!("http://localhost:{}/", places[0].port());
    assert_eq!(client.get(other).send().await.unwrap().status(), 200);
    let error = client.get("http://nobody/").send().await.unwrap_err();
    assert!(format!("{error:?}").contains("no instance of nobody is available"), "{error:?}");
}
