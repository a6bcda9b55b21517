//! UDP: flows, refusal, endpoints that leave or die.

use std::{io::ErrorKind, net::SocketAddr};

use portolan_model::Transport;
use portolan_proxy::{Config, Limits};
use portolan_testkit::World;
use tokio::{net::UdpSocket, time::timeout};

use crate::bench::{Bench, PATIENCE, PORT, nobody, udp_echo, virtual_ip, web};

async fn client(front: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(front).await.unwrap();
    socket
}

/// Asks and returns the name of the endpoint that answers.
async fn ask(socket: &UdpSocket) -> std::io::Result<char> {
    socket.send(b"ping").await?;
    let mut reply = [0; 64];
    let length = timeout(PATIENCE, socket.recv(&mut reply)).await.expect("no reply")?;
    assert_eq!(&reply[1..length], b"ping");
    Ok(char::from(reply[0]))
}

#[tokio::test]
async fn a_flow_stays_and_new_ones_go_round() {
    let ip = virtual_ip();
    let endpoints = [udp_echo("a").await, udp_echo("b").await];
    let bench = Bench::start(&web(ip, Transport::Udp, &endpoints)).await;
    let mut names = Vec::new();
    for _ in 0..4 {
        let socket = client((ip, PORT).into()).await;
        let name = ask(&socket).await.unwrap();
        for _ in 0..3 {
            assert_eq!(ask(&socket).await.unwrap(), name);
        }
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(names, ['a', 'a', 'b', 'b']);
    assert!(bench.metrics.encode().unwrap().contains("portolan_proxy_udp_flows 4"));
    bench.stop().await;
}

#[tokio::test]
async fn a_flow_moves_when_its_endpoint_leaves_the_service() {
    let ip = virtual_ip();
    let endpoints = [udp_echo("a").await, udp_echo("b").await];
    let mut bench = Bench::start(&web(ip, Transport::Udp, &endpoints)).await;
    let socket = client((ip, PORT).into()).await;
    let name = ask(&socket).await.unwrap();
    let (rest, other) = if name == 'a' { (endpoints[1], 'b') } else { (endpoints[0], 'a') };
    bench.set(&web(ip, Transport::Udp, &[rest])).await;
    assert_eq!(ask(&socket).await.unwrap(), other);
    bench.stop().await;
}

#[tokio::test]
async fn a_flow_moves_when_its_endpoint_dies() {
    let ip = virtual_ip();
    let dead = nobody().await;
    let bench = Bench::start(&web(ip, Transport::Udp, &[udp_echo("a").await, dead])).await;
    for _ in 0..4 {
        let socket = client((ip, PORT).into()).await;
        // The first datagram to a dead endpoint is lost, as it is on any network;
        // those that follow arrive.
        timeout(PATIENCE, async {
            loop {
                socket.send(b"ping").await.unwrap();
                let mut reply = [0; 64];
                let soon = std::time::Duration::from_millis(50);
                if let Ok(Ok(length)) = timeout(soon, socket.recv(&mut reply)).await {
                    assert_eq!(&reply[..length], b"aping");
                    break;
                }
            }
        })
        .await
        .expect("the flow never reaches the living endpoint");
    }
    bench.stop().await;
}

#[tokio::test]
async fn without_endpoints_clients_are_told_that_nobody_listens() {
    let ip = virtual_ip();
    let front: SocketAddr = (ip, PORT).into();
    let (none, one) =
        (web(ip, Transport::Udp, &[]), web(ip, Transport::Udp, &[udp_echo("a").await]));
    let mut bench = Bench::start(&none).await;
    for _ in 0..3 {
        let refused = ask(&client(front).await).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        bench.set(&one).await;
        assert_eq!(ask(&client(front).await).await.unwrap(), 'a');
        bench.set(&none).await;
    }
    bench.set(&World::new()).await;
    drop(std::net::UdpSocket::bind(front).expect("the port is free again"));
    assert!(bench.running.problems().is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn at_the_limit_the_oldest_flow_makes_room() {
    let ip = virtual_ip();
    let limits = Limits { udp_flows_max: 2, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    let bench = Bench::with(&web(ip, Transport::Udp, &[udp_echo("a").await]), config).await;
    for _ in 0..6 {
        let socket = client((ip, PORT).into()).await;
        timeout(PATIENCE, async {
            loop {
                socket.send(b"ping").await.unwrap();
                let mut reply = [0; 64];
                let soon = std::time::Duration::from_millis(50);
                if timeout(soon, socket.recv(&mut reply)).await.is_ok() {
                    break;
                }
            }
        })
        .await
        .expect("no room is made");
    }
    bench.stop().await;
}
