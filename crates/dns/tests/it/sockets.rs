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

/// An OPT record with what stands before its data.
fn opt(owner: &[u8], version: u8, options: &[u8]) -> Vec<u8> {
    let length = u8::try_from(options.len()).unwrap();
    [owner, &[0, 41, 4, 208, 0, version, 0, 0, 0, length], options].concat()
}

/// The classes of packets that no resolver sends, and how each is met: over UDP and,
/// where it is met with a reply, over TCP as well.
#[tokio::test]
async fn malformed_packets_are_met_with_an_error_or_silence() {
    let server = server().await;
    let bend = |bend: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = web();
        bend(&mut packet);
        packet
    };
    let with = |additionals: &[&[u8]]| {
        let mut packet = web();
        packet[11] = u8::try_from(additionals.len()).unwrap();
        packet.extend(additionals.concat());
        packet
    };
    let named = |name: &[u8]| {
        let head = [0x47, 0x11, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&head[..], name, &[0, 1, 0, 1]].concat()
    };
    let label = |length: u8| [&[length][..], &vec![b'x'; usize::from(length)]].concat();
    let too_long = [label(63), label(63), label(63), label(63), vec![0]].concat();
    let fine_opt = opt(&[0], 0, &[]);
    let tsig = [&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0][..]].concat();
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    for (what, packet, expected) in [
        ("a response", bend(&|p| p[2] |= 0x80), None),
        ("nothing", vec![], None),
        ("half a header", vec![0x47, 0x11, 0], None),
        (
            "a response that does not parse",
            bend(&|p| {
                p[2] |= 0x80;
                p.truncate(15)
            }),
            None,
        ),
        ("IQUERY", bend(&|p| p[2] = 0x08), Some(OptRcode::NOTIMP)),
        ("STATUS", bend(&|p| p[2] = 0x10), Some(OptRcode::NOTIMP)),
        ("UPDATE", bend(&|p| p[2] = 0x28), Some(OptRcode::NOTIMP)),
        ("DSO", bend(&|p| p[2] = 0x30), Some(OptRcode::NOTIMP)),
        ("NOTIFY", bend(&|p| p[2] = 0x20), Some(OptRcode::REFUSED)),
        ("no question", bend(&|p| p[5] = 0), Some(OptRcode::FORMERR)),
        ("a header alone", web()[..12].to_vec(), Some(OptRcode::FORMERR)),
        ("two questions", bend(&|p| p[5] = 2), Some(OptRcode::FORMERR)),
        ("more answers than any query has", bend(&|p| p[7] = 2), Some(OptRcode::FORMERR)),
        ("an answer that is not there", bend(&|p| p[7] = 1), Some(OptRcode::FORMERR)),
        ("more authorities", bend(&|p| p[9] = 2), Some(OptRcode::FORMERR)),
        ("more additionals", bend(&|p| p[11] = 3), Some(OptRcode::FORMERR)),
        ("a cut name", bend(&|p| p.truncate(20)), Some(OptRcode::FORMERR)),
        ("no class", bend(&|p| p.truncate(p.len() - 2)), Some(OptRcode::FORMERR)),
        ("bytes behind the question", bend(&|p| p.push(0)), Some(OptRcode::FORMERR)),
        ("a pointer", bend(&|p| p[12] = 0xc0), Some(OptRcode::FORMERR)),
        ("a pointer to itself", named(&[0xc0, 12]), Some(OptRcode::FORMERR)),
        ("a pointer ahead", named(&[1, b'a', 0xc0, 40]), Some(OptRcode::FORMERR)),
        (
            "a label of 64 bytes",
            named(&[&[64][..], &[b'x'; 64], &[0]].concat()),
            Some(OptRcode::FORMERR),
        ),
        ("an extended label", named(&[0x41, 0, 0]), Some(OptRcode::FORMERR)),
        ("a name of 257 bytes", named(&too_long), Some(OptRcode::FORMERR)),
        ("OPT twice", with(&[&fine_opt, &fine_opt]), Some(OptRcode::FORMERR)),
        ("OPT below the root", with(&[&opt(&[1, b'a', 0], 0, &[])]), Some(OptRcode::FORMERR)),
        ("OPT by a pointer", with(&[&opt(&[0xc0, 12], 0, &[])]), Some(OptRcode::FORMERR)),
        (
            "an option that is cut",
            with(&[&opt(&[0], 0, &[0, 10, 0, 8, 1])]),
            Some(OptRcode::FORMERR),
        ),
        (
            "OPT that is cut",
            bend(&|p| {
                p[11] = 1;
                p.extend([0, 0, 41])
            }),
            Some(OptRcode::FORMERR),
        ),
        ("EDNS version 1", with(&[&opt(&[0], 1, &[])]), Some(OptRcode::BADVERS)),
        ("EDNS version 255", with(&[&opt(&[0], 255, &[])]), Some(OptRcode::BADVERS)),
        ("signed by TSIG", with(&[&tsig]), Some(OptRcode::masked_from_int(9))),
        ("TSIG before OPT", with(&[&tsig, &fine_opt]), Some(OptRcode::FORMERR)),
        ("a cookie", with(&[&opt(&[0], 0, &cookie)]), Some(OptRcode::NOERROR)),
        ("class CH", bend(&|p| *p.last_mut().unwrap() = 3), Some(OptRcode::REFUSED)),
        ("class ANY", bend(&|p| *p.last_mut().unwrap() = 255), Some(OptRcode::REFUSED)),
        ("another zone", Ask::new("example.org", Rtype::A).packet(), Some(OptRcode::REFUSED)),
        ("AXFR", Ask::new("cluster.local", Rtype::AXFR).packet(), Some(OptRcode::REFUSED)),
        ("the root", named(&[0]), Some(OptRcode::REFUSED)),
        ("a fine one", web(), Some(OptRcode::NOERROR)),
    ] {
        let patience = if expected.is_none() { SILENCE } else { PATIENCE };
        let reply = udp(server.address(), &packet, patience).await.map(message);
        assert_eq!(reply.as_ref().map(|reply| reply.opt_rcode()), expected, "{what}");
        if let Some(reply) = reply {
            assert!(reply.header().qr() && reply.header().id() == 0x4711, "{what}");
            let again = message(tcp(server.address(), &packet).await.expect(what));
            assert_eq!(Some(again.opt_rcode()), expected, "{what} over TCP");
        }
    }
    server.stop().await;
}

/// A reply to port 0 goes nowhere, and one to the server's own address would come
/// back to it: both are dropped and counted. Forging them takes a raw socket.
#[tokio::test]
async fn forged_senders_get_nothing() {
    let server = server().await;
    let own = server.address();
    let raw = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::RAW,
        Some(socket2::Protocol::UDP),
    );
    let raw = match raw {
        Ok(raw) => raw,
        Err(error) => {
            // Root may always: then it is a failure.
            assert!(!is_root(), "{error}");
            println!("NOT RUN (a raw socket takes CAP_NET_RAW)");
            return;
        }
    };
    for port in [0, own.port()] {
        let length = u16::try_from(8 + web().len()).unwrap();
        let head = [port, own.port(), length, 0].map(u16::to_be_bytes).concat();
        let datagram = [head, web()].concat();
        raw.send_to(&datagram, &own.into()).unwrap();
    }
    let counted = || {
        let text = server.metrics.encode().unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("portolan_dns_dropped") && line.contains("bad_source"));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse().unwrap())
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while counted() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "{} were counted", counted());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(udp(own, &web(), PATIENCE).await.is_some(), "others are served");
    server.stop().await;
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// Clients that begin and do not go on lose their connection; others keep theirs.
#[tokio::test]
async fn slow_and_half_open_connections_end() {
    let server = server().await;
    let mut slow = Vec::new();
    for begun in [&[0][..], &[0, 40], &[0, 40, 1, 2, 3]] {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        slow.push(stream);
    }
    // One that has closed its side still gets what it asked for.
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    half.write_all(&u16::try_from(web().len()).unwrap().to_be_bytes()).await.unwrap();
    half.write_all(&web()).await.unwrap();
    half.shutdown().await.unwrap();
    assert!(read_message(&mut half).await.is_some());
    for mut stream in slow {
        assert_eq!(read_message(&mut stream).await, None, "a reply to half a query");
    }
    assert!(tcp(server.address(), &web()).await.is_some());
    server.stop().await;
}

/// One client cannot take all connections: past its limit they are closed at once,
/// and what it has stays.
#[tokio::test]
async fn connections_of_one_client_are_limited() {
    let server = server().await;
    let mut kept = Vec::new();
    for _ in 0..100 {
        kept.push(TcpStream::connect(server.address()).await.unwrap());
    }
    // They are accepted in order, so the next one comes last.
    let mut refused = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(read_message(&mut refused).await, None);
    let mut first = kept.swap_remove(0);
    first.write_all(&u16::try_from(web().len()).unwrap().to_be_bytes()).await.unwrap();
    first.write_all(&web()).await.unwrap();
    assert!(read_message(&mut first).await.is_some());
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
