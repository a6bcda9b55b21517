//! Sockets: malformed packets, silence, TCP framing, a port in use.

use std::{io::ErrorKind, net::UdpSocket as StdUdp, sync::Arc};

use domain::base::{Rtype, iana::OptRcode};
use portolan_dns::{Config, Settings, StartError, start};
use portolan_model::{ServiceKey, Transport};
use portolan_runtime::{Metrics, Readiness, Shutdown, SystemClock, Tasks};
use portolan_testkit::{Live, World, cluster_ip, endpoint, headless, port};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::client::{Ask, PATIENCE, SILENCE, Server, message, read_message, tcp, udp};

fn world() -> World {
    let many = ServiceKey::kubernetes("demo", "many");
    let pods =
        (0..=255_u8).map(|last| endpoint([10, 1, 0, last].into(), &[("x", Transport::Tcp, 80)]));
    World::new()
        .namespace("demo")
        .service(cluster_ip(
            "demo",
            "web",
            &["10.0.0.1".parse().unwrap()],
            vec![port("http", Transport::Tcp, 80)],
        ))
        .service(headless("demo", "many", vec![]))
        .endpoints("many-1", &many, pods.collect())
}

/// A loopback address that nobody else uses: on a shared one, somebody's
/// connection may hold the same port for the other transport.
fn lonely_address() -> std::net::IpAddr {
    let [a, b]: [u8; 2] = rand::random();
    [127, 98, a, b.clamp(1, 254)].into()
}

async fn server() -> Server {
    Server::start(Live::new(&world()).hub().clone(), Settings::default()).await
}

fn web() -> Vec<u8> {
    Ask::new("web.demo.svc.cluster.local", Rtype::A).packet()
}

#[tokio::test]
async fn malformed_packets_are_met_with_an_error_or_silence() {
    let server = server().await;
    let bend = |bend: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = web();
        bend(&mut packet);
        packet
    };
    for (what, packet, expected) in [
        ("a response", bend(&|p| p[2] |= 0x80), None),
        ("half a header", vec![0x47, 0x11, 0], None),
        ("UPDATE", bend(&|p| p[2] = 0x28), Some(OptRcode::NOTIMP)),
        ("NOTIFY", bend(&|p| p[2] = 0x20), Some(OptRcode::REFUSED)),
        ("no question", bend(&|p| p[5] = 0), Some(OptRcode::FORMERR)),
        ("a cut name", bend(&|p| p.truncate(20)), Some(OptRcode::FORMERR)),
        ("a pointer", bend(&|p| p[12] = 0xc0), Some(OptRcode::FORMERR)),
        ("class CH", bend(&|p| *p.last_mut().unwrap() = 3), Some(OptRcode::REFUSED)),
        ("another zone", Ask::new("example.org", Rtype::A).packet(), Some(OptRcode::REFUSED)),
        ("AXFR", Ask::new("cluster.local", Rtype::AXFR).packet(), Some(OptRcode::REFUSED)),
        ("a fine one", web(), Some(OptRcode::NOERROR)),
    ] {
        let patience = if expected.is_none() { SILENCE } else { PATIENCE };
        let reply = udp(server.address(), &packet, patience).await.map(message);
        assert_eq!(reply.as_ref().map(|reply| reply.opt_rcode()), expected, "{what}");
        if let Some(reply) = reply {
            assert!(reply.header().qr() && reply.header().id() == 0x4711, "{what}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
    let server = server().await;
    let mut ask = Ask::new("many.demo.svc.cluster.local", Rtype::A);
    for (edns, most) in [(None, 512), (Some((4096, 0)), 1232)] {
        ask.edns = edns;
        let reply = udp(server.address(), &ask.packet(), PATIENCE).await.unwrap();
        assert!(reply.len() <= most, "{} bytes", reply.len());
        let reply = message(reply);
        assert!(reply.header().tc() && reply.header_counts().ancount() > 20);
    }
    let reply = message(tcp(server.address(), &ask.packet()).await.unwrap());
    assert!(!reply.header().tc());
    assert_eq!(reply.header_counts().ancount(), 256);
    server.stop().await;
}

#[tokio::test]
async fn answers_rotate() {
    let server = server().await;
    let ask = Ask::new("many.demo.svc.cluster.local", Rtype::A).packet();
    let mut first = std::collections::BTreeSet::new();
    // 40 draws of 256 that are all equal: less likely than 2^-300.
    for _ in 0..40 {
        let reply = message(tcp(server.address(), &ask).await.unwrap());
        let record = reply.answer().unwrap().next().unwrap().unwrap();
        let data = record.to_any_record::<domain::rdata::AllRecordData<_, _>>().unwrap();
        first.insert(data.data().to_string());
    }
    assert!(first.len() > 1, "always {first:?} first");
    server.stop().await;
}

#[tokio::test]
async fn tcp_takes_many_queries_in_any_pieces() {
    let server = server().await;
    let mut bytes = Vec::new();
    for id in 0..5_u16 {
        let mut packet = web();
        packet[..2].copy_from_slice(&id.to_be_bytes());
        bytes.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
        bytes.extend(packet);
    }
    // At once, byte by byte, and cut inside the second length.
    let second = bytes.len() / 5 + 1;
    let pieces: [Vec<&[u8]>; 3] =
        [vec![&bytes], bytes.chunks(1).collect(), vec![&bytes[..second], &bytes[second..]]];
    for pieces in pieces {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        for id in 0..5 {
            let reply = message(read_message(&mut stream).await.unwrap());
            assert_eq!(reply.header().id(), id);
            assert_eq!(reply.header_counts().ancount(), 1);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn tcp_closes_on_what_is_no_query() {
    let server = server().await;
    let mut response = web();
    response[2] |= 0x80;
    for packet in [&[][..], &[1, 2, 3], &response] {
        assert_eq!(tcp(server.address(), packet).await, None);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let taken = StdUdp::bind((lonely_address(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let first = server().await;
    for (address, transport) in [(address, "UDP"), (first.address(), "TCP")] {
        let config = Config { listen: vec![address], ..Config::default() };
        let live = Live::new(&world());
        let outcome = start(
            config,
            live.hub().clone(),
            Arc::new(SystemClock),
            &Metrics::new(),
            &Readiness::new(),
            &Tasks::new(Shutdown::new()),
        )
        .await;
        match outcome {
            Err(error @ StartError::Listen { .. }) => {
                assert!(error.to_string().contains(&address.to_string()), "{error}");
                let StartError::Listen { transport: on, source, .. } = error else {
                    unreachable!()
                };
                assert_eq!((on, source.kind()), (transport, ErrorKind::AddrInUse));
            }
            other => panic!("{other:?}"),
        }
    }
    first.stop().await;
}

/// Two servers of one process would share a port by SO_REUSEPORT if only the
/// workers' sockets were tried.
#[tokio::test]
async fn a_port_shared_by_reuseport_is_noticed() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&std::net::SocketAddr::new(lonely_address(), 0).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let config = Config { listen: vec![address], ..Config::default() };
    let live = Live::new(&world());
    let outcome = start(
        config,
        live.hub().clone(),
        Arc::new(SystemClock),
        &Metrics::new(),
        &Readiness::new(),
        &Tasks::new(Shutdown::new()),
    )
    .await;
    assert!(matches!(outcome, Err(StartError::Listen { transport: "UDP", .. })), "{outcome:?}");
}
