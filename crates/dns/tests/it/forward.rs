//! Names that are not ours: upstreams, the cache, and what happens when they fail.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::base::{
    Message, Rtype,
    iana::{OptRcode, Rcode},
    opt::AllOptData,
};
use portolan_dns::{CacheSettings, Config, Forwarding, Group, Settings, StartError, Zone, start};
use portolan_model::Transport;
use portolan_runtime::{Metrics, Readiness, Shutdown, SystemClock, Tasks};
use portolan_testkit::{Live, World, cluster_ip, external_name, port};

use crate::{
    client::{Ask, PATIENCE, Server, message, tcp, udp},
    upstream::{Heard, Upstream},
};

const WWW: &str = "www.example.org. 300 IN A 192.0.2.1";
const SOA: &str = "example.org. 60 IN SOA ns.example.org. hm.example.org. 1 2 3 4 60";

fn world() -> World {
    World::new()
        .namespace("demo")
        .service(cluster_ip(
            "demo",
            "web",
            &["10.0.0.1".parse().unwrap()],
            vec![port("http", Transport::Tcp, 80)],
        ))
        .service(external_name("demo", "away", "www.example.org"))
}

fn forwarding(upstreams: &[SocketAddr]) -> Forwarding {
    Forwarding::to(upstreams.iter().copied())
}

async fn server(forwarding: Forwarding) -> Server {
    let settings = Settings { forwarding, ..Settings::default() };
    Server::start(Live::new(&world()).hub().clone(), settings).await
}

fn www() -> Ask {
    Ask::new("www.example.org", Rtype::A)
}

async fn over_udp(server: &Server, ask: &Ask) -> Message<Vec<u8>> {
    message(udp(server.address(), &ask.packet(), PATIENCE).await.expect("a reply"))
}

/// Result code, TTL and data of each answer.
fn short(reply: &Message<Vec<u8>>) -> String {
    let data: Vec<String> = reply
        .answer()
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let any = record.to_any_record::<domain::rdata::AllRecordData<_, _>>().unwrap();
            any.data().to_string()
        })
        .collect();
    format!("{} {}", reply.opt_rcode(), data.join(" ")).trim().to_owned()
}

/// The number of the extended error.
fn extended(reply: &Message<Vec<u8>>) -> Option<u16> {
    reply.opt()?.opt().iter::<AllOptData<_, _>>().find_map(|option| match option.unwrap() {
        AllOptData::ExtendedError(error) => Some(error.code().to_int()),
        _ => None,
    })
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.metrics.encode().unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_asked_for_once_and_remembered() {
    let upstream = Upstream::start(|heard| Some(heard.records(&[WWW]))).await;
    let server = server(forwarding(&[upstream.address])).await;
    let mut mixed = Ask::new("wWw.Example.ORG", Rtype::A);
    mixed.edns = Some((1232, 0));
    for ask in [&www(), &mixed, &www()] {
        let reply = over_udp(&server, ask).await;
        assert_eq!(short(&reply), "NOERROR 192.0.2.1");
        assert_eq!(reply.header().id(), 0x4711);
        assert!(reply.header().ra() && !reply.header().aa());
        assert_eq!(reply.opt().is_some(), ask.edns.is_some());
        assert_eq!(reply.sole_question().unwrap().qname().to_string(), ask.name.to_string());
    }
    let over_tcp = message(tcp(server.address(), &www().packet()).await.unwrap());
    assert_eq!(short(&over_tcp), "NOERROR 192.0.2.1");
    assert_eq!(upstream.heard().len(), 1);
    // Ours stay ours.
    let reply = over_udp(&server, &Ask::new("web.demo.svc.cluster.local", Rtype::A)).await;
    assert_eq!((short(&reply), reply.header().aa()), ("NOERROR 10.0.0.1".into(), true));
    let reply = over_udp(&server, &Ask::new("no.demo.svc.cluster.local", Rtype::A)).await;
    assert_eq!(short(&reply), "NXDOMAIN");
    assert_eq!(upstream.heard().len(), 1);
    assert_eq!(metric(&server, "portolan_dns_cache_lookups_total{outcome=\"hit\"}"), 3.0);
    server.stop().await;
}

#[tokio::test]
async fn what_upstreams_get_is_ours_alone() {
    let upstream = Upstream::start(|heard| Some(heard.records(&[]))).await;
    let server = server(forwarding(&[upstream.address])).await;
    let mut asked = Vec::new();
    for number in 0..20 {
        let mut ask = Ask::new(&format!("n{number}.example.org"), Rtype::A);
        ask.edns = Some((4096, 0));
        over_udp(&server, &ask).await;
        asked.push(ask);
    }
    let heard = upstream.heard();
    assert_eq!(heard.len(), asked.len());
    let different =
        |value: &dyn Fn(&Heard) -> u16| heard.iter().map(value).collect::<BTreeSet<_>>();
    // 20 draws of 65,536: two pairs that are equal are less likely than one in
    // two million.
    assert!(different(&Heard::id).len() >= 18, "IDs repeat");
    assert!(different(&|heard| heard.from.port()).len() >= 15, "ports repeat");
    for query in &heard {
        let message = Message::from_slice(&query.packet).unwrap();
        assert!(message.header().rd());
        assert_eq!(message.opt().unwrap().udp_payload_size(), 1232);
    }
    server.stop().await;
}

#[tokio::test]
async fn denials_are_remembered_by_their_soa() {
    let upstream = Upstream::start(|heard| {
        Some(match &*heard.name {
            "nodata.example.org" => heard.reply(Rcode::NOERROR, &[], &[SOA]),
            "nosoa.example.org" => heard.reply(Rcode::NXDOMAIN, &[], &[]),
            _ => heard.reply(Rcode::NXDOMAIN, &[], &[SOA]),
        })
    })
    .await;
    let server = server(forwarding(&[upstream.address])).await;
    for (name, rcode, asked) in [
        ("nodata.example.org", OptRcode::NOERROR, 1),
        ("none.example.org", OptRcode::NXDOMAIN, 1),
        ("nosoa.example.org", OptRcode::NXDOMAIN, 2),
    ] {
        let before = upstream.heard().len();
        for _ in 0..2 {
            let reply = over_udp(&server, &Ask::new(name, Rtype::A)).await;
            assert_eq!(reply.opt_rcode(), rcode, "{name}");
        }
        assert_eq!(upstream.heard().len() - before, asked, "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_cut_or_broken_over_udp_is_asked_for_over_tcp() {
    let many: Vec<String> =
        (0..200).map(|last| format!("www.example.org. 300 IN A 192.0.2.{last}")).collect();
    let upstream = Upstream::start(move |heard| {
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        Some(match (&*heard.name, heard.tcp) {
            (_, true) => heard.records(&many),
            ("cut.example.org", false) => {
                let mut reply = heard.records(&[]);
                reply[2] |= 0x02;
                reply
            }
            _ => {
                let mut reply = heard.records(&[WWW]);
                reply.truncate(reply.len() - 3);
                reply
            }
        })
    })
    .await;
    let server = server(forwarding(&[upstream.address])).await;
    for name in ["cut.example.org", "broken.example.org"] {
        let mut ask = Ask::new(name, Rtype::A);
        let whole = message(tcp(server.address(), &ask.packet()).await.unwrap());
        assert_eq!(whole.header_counts().ancount(), 200, "{name}");
        assert!(!whole.header().tc());
        // From the cache, cut for this client.
        for (edns, most) in [(None, 512), (Some((1232, 0)), 1232), (Some((65_535, 0)), 1232)] {
            ask.edns = edns;
            let bytes = udp(server.address(), &ask.packet(), PATIENCE).await.unwrap();
            assert!(bytes.len() <= most, "{} bytes", bytes.len());
            let reply = message(bytes);
            assert!(reply.header().tc());
            assert_eq!(
                reply.answer().unwrap().count(),
                usize::from(reply.header_counts().ancount())
            );
            assert!(reply.header_counts().ancount() > 5);
        }
    }
    let transports: Vec<bool> = upstream.heard().iter().map(|heard| heard.tcp).collect();
    assert_eq!(transports, [false, true, false, true]);
    server.stop().await;
}

#[tokio::test]
async fn forged_replies_are_passed_over() {
    let upstream = Upstream::start(|heard| {
        // What answers the first query has a wrong ID; the second one is hedged.
        let mut reply = heard.records(&["www.example.org. 300 IN A 203.0.113.66"]);
        match heard.number % 2 {
            0 => reply[0] ^= 0xff,
            _ => reply = heard.records(&[WWW]),
        }
        Some(reply)
    })
    .await;
    let server = server(forwarding(&[upstream.address])).await;
    assert_eq!(short(&over_udp(&server, &www()).await), "NOERROR 192.0.2.1");
    assert_eq!(upstream.heard().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_dead_upstream_costs_a_pause_and_then_nothing() {
    let dead = Upstream::start(|_| None).await;
    let alive = Upstream::start(|heard| {
        Some(heard.records(&[&format!("{}. 300 IN A 192.0.2.7", heard.name)]))
    })
    .await;
    let server = server(forwarding(&[dead.address, alive.address])).await;
    for number in 0..40 {
        let ask = Ask::new(&format!("n{number}.example.org"), Rtype::A);
        assert_eq!(short(&over_udp(&server, &ask).await), "NOERROR 192.0.2.7");
    }
    assert_eq!(alive.heard().len(), 40);
    // It was asked first, and later only to see whether it is back.
    let asked = dead.heard().len();
    assert!((1..20).contains(&asked), "the dead one was asked {asked} times");
    assert!(metric(&server, "portolan_dns_forward_hedged_total") >= 1.0);
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_sends_us_to_the_next_upstream() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP] {
        let bad = Upstream::start(move |heard| Some(heard.reply(rcode, &[], &[]))).await;
        let good = Upstream::start(|heard| Some(heard.records(&[WWW]))).await;
        let server = server(forwarding(&[bad.address, good.address])).await;
        assert_eq!(short(&over_udp(&server, &www()).await), "NOERROR 192.0.2.1", "{rcode}");
        server.stop().await;
    }
}

#[tokio::test]
async fn when_nobody_answers_the_client_hears_why() {
    let silent = Upstream::start(|_| None).await;
    let failing = Upstream::start(|heard| Some(heard.reply(Rcode::SERVFAIL, &[], &[]))).await;
    let closed = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    // Who has nobody left to wait for does not use its budget up.
    let (short_budget, ages) = (Duration::from_millis(600), 100 * PATIENCE);
    for (upstream, error, budget) in [
        (silent.address, Some(22), short_budget),
        (failing.address, None, ages),
        (closed, Some(23), ages),
    ] {
        let server = server(Forwarding { budget, ..forwarding(&[upstream]) }).await;
        let mut ask = www();
        ask.edns = Some((1232, 0));
        let reply = over_udp(&server, &ask).await;
        assert_eq!(short(&reply), "SERVFAIL");
        assert_eq!(extended(&reply), error, "{upstream}");
        server.stop().await;
    }
}

#[tokio::test]
async fn the_same_question_goes_up_once_however_many_ask() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let upstream =
        Upstream::start(move |heard| gate.load(Ordering::Relaxed).then(|| heard.records(&[WWW])))
            .await;
    let server = server(forwarding(&[upstream.address])).await;
    let address = server.address();
    let clients: Vec<_> = (0..50)
        .map(|_| tokio::spawn(async move { udp(address, &www().packet(), PATIENCE).await }))
        .collect();
    // All 50 have been read before the gate opens.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while metric(&server, "portolan_dns_forward_coalesced_total") < 49.0 {
        assert!(tokio::time::Instant::now() < deadline, "they do not join");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    open.store(true, Ordering::Relaxed);
    for client in clients {
        let reply = message(client.await.unwrap().unwrap());
        assert_eq!(short(&reply), "NOERROR 192.0.2.1");
    }
    // Hedged queries of one race, not one for each client.
    assert!(upstream.heard().len() <= 6, "{} queries", upstream.heard().len());
    server.stop().await;
}

#[tokio::test]
async fn stubs_take_their_zones() {
    let saying = |address: &'static str| {
        move |heard: &Heard| Some(heard.records(&[&format!("{}. 300 IN A {address}", heard.name)]))
    };
    let default = Upstream::start(saying("192.0.2.1")).await;
    let corp = Upstream::start(saying("192.0.2.2")).await;
    let deep = Upstream::start(saying("192.0.2.3")).await;
    let ours = Upstream::start(saying("192.0.2.4")).await;
    let zone = |text: &str| Zone::new(text).unwrap().apex;
    let stub = |name: &str, upstream: &Upstream| Group::new(zone(name), [upstream.address]);
    let stubs = vec![
        Group { except: vec![zone("not.corp.example")], ..stub("corp.example", &corp) },
        stub("deep.corp.example", &deep),
        stub("legacy.svc.cluster.local", &ours),
    ];
    let mut forwarding = forwarding(&[default.address]);
    forwarding.groups.extend(stubs);
    let server = server(forwarding).await;
    for (name, expected) in [
        ("www.example.org", "NOERROR 192.0.2.1"),
        ("corp.example", "NOERROR 192.0.2.2"),
        ("A.B.Corp.Example", "NOERROR 192.0.2.2"),
        ("x.deep.corp.example", "NOERROR 192.0.2.3"),
        ("notcorp.example", "NOERROR 192.0.2.1"),
        ("a.not.corp.example", "NOERROR 192.0.2.1"),
        ("db.legacy.svc.cluster.local", "NOERROR 192.0.2.4"),
        ("web.demo.svc.cluster.local", "NOERROR 10.0.0.1"),
    ] {
        assert_eq!(short(&over_udp(&server, &Ask::new(name, Rtype::A)).await), expected, "{name}");
    }
    server.stop().await;

    // Stubs alone: everything else stays refused.
    let groups = vec![stub("corp.example", &corp)];
    let server = self::server(Forwarding { groups, ..Forwarding::default() }).await;
    for (name, expected) in [("corp.example", "NOERROR 192.0.2.2"), ("www.example.org", "REFUSED")]
    {
        assert_eq!(short(&over_udp(&server, &Ask::new(name, Rtype::A)).await), expected, "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_alias_is_followed_out_of_the_cluster() {
    let upstream = Upstream::start(|heard| {
        Some(heard.records(&[
            "www.example.org. 300 IN CNAME cdn.example.net.",
            "cdn.example.net. 20 IN A 192.0.2.9",
        ]))
    })
    .await;
    let server = server(forwarding(&[upstream.address])).await;
    let ask = Ask::new("away.demo.svc.cluster.local", Rtype::A);
    for _ in 0..2 {
        let reply = over_udp(&server, &ask).await;
        assert_eq!(short(&reply), "NOERROR www.example.org. cdn.example.net. 192.0.2.9");
        assert!(reply.header().aa());
    }
    assert_eq!(upstream.heard().len(), 1);
    // The alias itself needs nobody.
    let reply = over_udp(&server, &Ask::new("away.demo.svc.cluster.local", Rtype::CNAME)).await;
    assert_eq!(short(&reply), "NOERROR www.example.org.");
    assert_eq!(upstream.heard().len(), 1);
    server.stop().await;

    let none = Upstream::start(|heard| Some(heard.reply(Rcode::NXDOMAIN, &[], &[SOA]))).await;
    let server = self::server(forwarding(&[none.address])).await;
    // The code is that of the end of the chain.
    assert_eq!(short(&over_udp(&server, &ask).await), "NXDOMAIN www.example.org.");
    server.stop().await;
}

#[tokio::test]
async fn stale_records_serve_when_upstreams_fail() {
    let up = Arc::new(AtomicBool::new(true));
    let gate = up.clone();
    let upstream = Upstream::start(move |heard| {
        let rcode = if gate.load(Ordering::Relaxed) { Rcode::NOERROR } else { Rcode::SERVFAIL };
        let answer = if rcode == Rcode::NOERROR {
            vec!["www.example.org. 1 IN A 192.0.2.1"]
        } else {
            vec![]
        };
        Some(heard.reply(rcode, &answer, &[]))
    })
    .await;
    let server = server(forwarding(&[upstream.address])).await;
    assert_eq!(short(&over_udp(&server, &www()).await), "NOERROR 192.0.2.1");
    up.store(false, Ordering::Relaxed);
    // Kept for 5 s; from then on the upstream is asked, and fails.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while metric(&server, "portolan_dns_cache_served_stale_total") < 2.0 {
        assert!(tokio::time::Instant::now() < deadline, "it does not get stale");
        assert_eq!(short(&over_udp(&server, &www()).await), "NOERROR 192.0.2.1");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let reply = over_udp(&server, &www()).await;
    let record = reply.answer().unwrap().next().unwrap().unwrap();
    assert_eq!(record.ttl().as_secs(), 30);
    server.stop().await;
}

#[tokio::test]
async fn an_upstream_that_leads_back_is_left_out() {
    // A relay that sends all it gets to the server that asked it.
    let target = Arc::new(std::sync::Mutex::new(None::<SocketAddr>));
    let known = target.clone();
    let relay = Upstream::start(move |heard| {
        let target = (*known.lock().unwrap())?;
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(&heard.packet, target).unwrap();
        let mut reply = vec![0; 4096];
        let length = socket.recv(&mut reply).ok()?;
        reply.truncate(length);
        Some(reply)
    })
    .await;
    // The port is known before the server starts, as the first probe goes out then.
    let listen: SocketAddr = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    *target.lock().unwrap() = Some(listen);
    let good = Upstream::start(|heard| Some(heard.records(&[WWW]))).await;
    let settings =
        Settings { forwarding: forwarding(&[relay.address, good.address]), ..Settings::default() };
    let config = Config {
        listen: vec![listen],
        workers: std::num::NonZeroUsize::new(2),
        settings,
        ..Config::default()
    };
    let (metrics, tasks) = (Metrics::new(), Tasks::new(Shutdown::new()));
    let live = Live::new(&world());
    let hub = live.hub().clone();
    let running =
        start(config, hub, Arc::new(SystemClock), &metrics, &Readiness::new(), &tasks).await;
    let running = running.unwrap();
    let looping = format!("portolan_dns_upstream_looping{{upstream=\"{}\"}} 1", relay.address);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !metrics.encode().unwrap().contains(&looping) {
        assert!(tokio::time::Instant::now() < deadline, "the circle is not found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = relay.heard().len();
    for _ in 0..5 {
        let reply =
            message(udp(running.addresses()[0], &www().packet(), PATIENCE).await.expect("a reply"));
        assert_eq!(short(&reply), "NOERROR 192.0.2.1");
    }
    assert_eq!(relay.heard().len(), before);
    tasks.shutdown().cancel();
    tasks.finish(PATIENCE).await;
}

#[tokio::test]
async fn replies_may_come_out_of_order_over_tcp() {
    use tokio::io::AsyncWriteExt;
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let upstream =
        Upstream::start(move |heard| gate.load(Ordering::Relaxed).then(|| heard.records(&[WWW])))
            .await;
    let server = server(forwarding(&[upstream.address])).await;
    let mut bytes = Vec::new();
    for (id, ask) in [(1_u16, www()), (2, Ask::new("web.demo.svc.cluster.local", Rtype::A))] {
        let mut packet = ask.packet();
        packet[..2].copy_from_slice(&id.to_be_bytes());
        bytes.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
        bytes.extend(packet);
    }
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let first = message(crate::client::read_message(&mut stream).await.unwrap());
    assert_eq!((first.header().id(), short(&first)), (2, "NOERROR 10.0.0.1".into()));
    open.store(true, Ordering::Relaxed);
    let second = message(crate::client::read_message(&mut stream).await.unwrap());
    assert_eq!((second.header().id(), short(&second)), (1, "NOERROR 192.0.2.1".into()));
    server.stop().await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_asked_is_refused_at_the_start() {
    for address in ["127.0.0.1:0", "0.0.0.0:53", "[::]:53", "224.0.0.1:53"] {
        let address: SocketAddr = address.parse().unwrap();
        let cache = CacheSettings { bytes_max: 0, ..CacheSettings::default() };
        let forwarding = Forwarding { cache, ..forwarding(&[address]) };
        let config = Config {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            settings: Settings { forwarding, ..Settings::default() },
            ..Config::default()
        };
        let live = Live::new(&world());
        let hub = live.hub().clone();
        let tasks = Tasks::new(Shutdown::new());
        let (metrics, readiness) = (Metrics::new(), Readiness::new());
        let outcome = start(config, hub, Arc::new(SystemClock), &metrics, &readiness, &tasks).await;
        match outcome {
            Err(StartError::Upstream { address: named, .. }) => assert_eq!(named, address),
            other => panic!("{other:?}"),
        }
    }
}
