//! TCP: balancing, refusal, half-close, resets, survival, limits.

use std::{collections::BTreeMap, io::ErrorKind, net::SocketAddr};

use portolan_model::{ServiceKey, SessionAffinity, Transport};
use portolan_proxy::{Config, Limits};
use portolan_testkit::World;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::bench::{Bench, PATIENCE, PORT, connect, echo, nobody, virtual_ip, web, web_as};

#[tokio::test]
async fn connections_go_round_and_a_refusing_endpoint_is_passed_over() {
    let ip = virtual_ip();
    let endpoints = [echo("a").await, echo("b").await, nobody().await];
    let bench = Bench::start(&web(ip, Transport::Tcp, &endpoints)).await;
    assert!(bench.readiness.blockers().is_empty());
    let mut counts = BTreeMap::new();
    for _ in 0..30 {
        let (_, name) = connect((ip, PORT).into()).await.unwrap();
        *counts.entry(name).or_insert(0) += 1;
    }
    // Each endpoint has ten turns; those of the one that refuses go to its neighbour.
    let mut shares: Vec<i32> = counts.values().copied().collect();
    shares.sort_unstable();
    assert_eq!(shares, [10, 20], "{counts:?}");
    let text = bench.metrics.encode().unwrap();
    for line in [
        "portolan_proxy_connections_total 30",
        r#"portolan_proxy_connect_failures_total{reason="refused"} 10"#,
        "portolan_proxy_fronts 1",
        "kubeproxy_sync_proxy_rules_duration_seconds_count 1",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn what_each_side_says_arrives_after_the_other_has_finished() {
    let ip = virtual_ip();
    let bench = Bench::start(&web(ip, Transport::Tcp, &[echo("a").await])).await;
    let (stream, _) = connect((ip, PORT).into()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    let expected = [&sent[..], b"bye"].concat();
    let sending = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        // Ends this direction only.
        writer.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    timeout(PATIENCE, reader.read_to_end(&mut received)).await.unwrap().unwrap();
    sending.await.unwrap();
    assert_eq!(received.len(), expected.len());
    assert!(received == expected);
    bench.stop().await;
}

#[tokio::test]
async fn refuses_at_once_without_endpoints_and_serves_as_soon_as_there_are() {
    let ip = virtual_ip();
    let front: SocketAddr = (ip, PORT).into();
    let none = web(ip, Transport::Tcp, &[]);
    let one = web(ip, Transport::Tcp, &[echo("a").await]);
    let mut bench = Bench::start(&none).await;
    for _ in 0..3 {
        assert_eq!(connect(front).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        bench.set(&one).await;
        let (mut open, name) = connect(front).await.unwrap();
        assert_eq!(name, 'a');

        bench.set(&none).await;
        assert_eq!(connect(front).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // What was open stays open: its endpoint still lives.
        open.write_all(b"x").await.unwrap();
        assert_eq!(timeout(PATIENCE, open.read_u8()).await.unwrap().unwrap(), b'x');
    }
    bench.stop().await;
}

#[tokio::test]
async fn a_service_that_comes_and_goes_takes_its_port_with_it() {
    let ip = virtual_ip();
    let front: SocketAddr = (ip, PORT).into();
    let mut bench = Bench::start(&World::new()).await;
    let world = web(ip, Transport::Tcp, &[echo("a").await]);
    for _ in 0..3 {
        assert_eq!(
            TcpStream::connect(front).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        bench.set(&world).await;
        let (mut open, _) = connect(front).await.unwrap();
        bench.set(&World::new()).await;
        open.write_all(b"x").await.unwrap();
        assert_eq!(timeout(PATIENCE, open.read_u8()).await.unwrap().unwrap(), b'x');
    }
    // Free for others, as a test of a test: a listener may take it.
    let other = TcpSocket::new_v4().unwrap();
    other.set_reuseaddr(true).unwrap();
    other.bind(front).unwrap();
    bench.stop().await;
}

#[tokio::test]
async fn a_change_leaves_other_services_alone() {
    let (ip, other) = (virtual_ip(), virtual_ip());
    let endpoints = [echo("a").await];
    let key = ServiceKey::kubernetes("demo", "other");
    let both = |list: &[SocketAddr]| {
        let service = portolan_testkit::cluster_ip(
            "demo",
            "other",
            &[other],
            vec![portolan_testkit::port("main", Transport::Tcp, PORT)],
        );
        let list = list.iter().map(|socket| {
            portolan_testkit::endpoint(socket.ip(), &[("main", Transport::Tcp, socket.port())])
        });
        web(ip, Transport::Tcp, &endpoints).service(service).endpoints("o", &key, list.collect())
    };
    let mut bench = Bench::start(&both(&[echo("b").await])).await;
    // Waits in the backlog of the front that stays: would be reset by a rebind.
    let (mut kept, _) = connect((ip, PORT).into()).await.unwrap();
    bench.set(&both(&[])).await;
    bench.set(&both(&[echo("c").await])).await;
    assert_eq!(connect((other, PORT).into()).await.unwrap().1, 'c');
    kept.write_all(b"x").await.unwrap();
    assert_eq!(timeout(PATIENCE, kept.read_u8()).await.unwrap().unwrap(), b'x');
    bench.stop().await;
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let ip = virtual_ip();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = Bench::start(&web(ip, Transport::Tcp, &[listener.local_addr().unwrap()])).await;
    let mut client = TcpStream::connect((ip, PORT)).await.unwrap();
    let (mut endpoint, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    endpoint.write_all(b"half a resp").await.unwrap();
    let mut read = [0; 11];
    timeout(PATIENCE, client.read_exact(&mut read)).await.unwrap().unwrap();
    SockRef::from(&endpoint).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(endpoint);
    let end = timeout(PATIENCE, client.read(&mut read)).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    bench.stop().await;
}

#[tokio::test]
async fn when_every_endpoint_refuses_the_connection_is_reset() {
    let ip = virtual_ip();
    let bench = Bench::start(&web(ip, Transport::Tcp, &[nobody().await, nobody().await])).await;
    let failure = connect((ip, PORT).into()).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::ConnectionReset);
    bench.stop().await;
}

#[tokio::test]
async fn clients_stay_with_their_endpoint_where_the_service_asks_for_it() {
    let ip = virtual_ip();
    let endpoints = [echo("a").await, echo("b").await, echo("c").await];
    let sticky = |endpoints: &[SocketAddr]| {
        web_as(ip, Transport::Tcp, endpoints, |service| {
            service.affinity = SessionAffinity::ClientIp { timeout_seconds: 10_800 };
        })
    };
    let mut bench = Bench::start(&sticky(&endpoints)).await;
    let from = async |client: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((std::net::IpAddr::from(client), 0).into()).unwrap();
        let mut stream = socket.connect((ip, PORT).into()).await.unwrap();
        char::from(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap())
    };
    let first = from([127, 0, 0, 1]).await;
    let second = from([127, 0, 0, 2]).await;
    assert_ne!(first, second, "round robin for new clients");
    for _ in 0..4 {
        assert_eq!(from([127, 0, 0, 1]).await, first);
        assert_eq!(from([127, 0, 0, 2]).await, second);
    }
    let gone = usize::from(first as u8 - b'a');
    let rest: Vec<SocketAddr> =
        endpoints.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, e)| *e).collect();
    bench.set(&sticky(&rest)).await;
    assert_ne!(from([127, 0, 0, 1]).await, first);
    assert_eq!(from([127, 0, 0, 2]).await, second);
    bench.stop().await;
}

#[tokio::test]
async fn node_ports_are_bound_on_loopback() {
    let ip = virtual_ip();
    // Below the ports that the kernel gives to connections.
    let number = rand::random_range(20_000..30_000);
    let world = web_as(ip, Transport::Tcp, &[echo("a").await], |service| {
        service.ports[0].node_port = Some(number);
    });
    let bench = Bench::start(&world).await;
    for front in [(ip, PORT).into(), ([127, 0, 0, 1], number).into()] {
        assert_eq!(connect(front).await.unwrap().1, 'a', "{front}");
    }
    bench.stop().await;
}

#[tokio::test]
async fn beyond_the_limit_connections_are_reset_and_the_open_ones_live() {
    let ip = virtual_ip();
    let front: SocketAddr = (ip, PORT).into();
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    let bench = Bench::with(&web(ip, Transport::Tcp, &[echo("a").await]), config).await;
    let (mut open, _) = connect(front).await.unwrap();
    assert_eq!(connect(front).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    open.write_all(b"x").await.unwrap();
    assert_eq!(timeout(PATIENCE, open.read_u8()).await.unwrap().unwrap(), b'x');
    drop(open);
    // The place comes free when the proxy has seen the end.
    timeout(PATIENCE, async { while connect(front).await.is_err() {} }).await.unwrap();
    bench.stop().await;
}
