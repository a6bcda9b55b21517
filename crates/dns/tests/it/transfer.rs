//! Whole zones over TCP: to those who may have them, and to nobody else.

use domain::base::{Message, Rtype, iana::Rcode};
use portolan_dns::{Settings, TransferTo, Zone};
use portolan_testkit::{Live, World, cluster_ip, fixture};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::client::{Ask, PATIENCE, Server, message, read_message, tcp, udp};

/// The world and the facts of `axfr` in the case file.
fn table() -> (World, Settings) {
    let table: Value = serde_json::from_str(include_str!("../../testdata/cases.json")).unwrap();
    let world = fixture::world(&table["fixtures"]["main"]).unwrap();
    let settings = Settings {
        zones: vec![Zone::new("cluster.local").unwrap()],
        namespaces: Some(["testns", "kube-system"].map(Into::into).into()),
        own_addresses: vec!["10.0.0.10:53".parse().unwrap()],
        transfer_to: TransferTo::Everybody,
        ..Settings::default()
    };
    (world, settings)
}

/// All records of a transfer, in order: until the SOA comes a second time.
async fn transfer(server: &Server, packet: &[u8]) -> Vec<String> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(&u16::try_from(packet.len()).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(packet).await.unwrap();
    let mut lines: Vec<String> = Vec::new();
    loop {
        let reply = message(read_message(&mut stream).await.expect("the transfer breaks off"));
        assert_eq!(reply.header().rcode(), Rcode::NOERROR);
        assert!(reply.header().aa());
        lines.extend(records(&reply));
        let ends = lines.iter().filter(|line| line.contains(" SOA ")).count() > 1;
        if ends || packet_kind(&reply) == Rtype::IXFR {
            return lines;
        }
    }
}

fn packet_kind(reply: &Message<Vec<u8>>) -> Rtype {
    reply.first_question().unwrap().qtype()
}

fn records(reply: &Message<Vec<u8>>) -> Vec<String> {
    use domain::{base::ParsedName, rdata::AllRecordData};
    type Data<'a> = AllRecordData<&'a [u8], ParsedName<&'a [u8]>>;
    let records = reply.answer().unwrap().map(|record| {
        let record = record.unwrap().into_record::<Data<'_>>().unwrap().unwrap();
        record.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    });
    records.collect()
}

#[tokio::test]
async fn a_zone_is_transferred_whole_and_in_order() {
    let (world, settings) = table();
    let server = Server::start(Live::new(&world).hub().clone(), settings).await;
    let lines = transfer(&server, &Ask::new("cluster.local.", Rtype::AXFR).packet()).await;
    let soa = lines.first().unwrap();
    assert!(soa.contains(" SOA ns.dns.cluster.local. "), "{soa}");
    assert_eq!(Some(soa), lines.last());
    // Name servers and their glue stand behind the SOA.
    assert_eq!(lines[1], "cluster.local. 5 IN NS ns.dns.cluster.local.");
    assert_eq!(lines[2], "ns.dns.cluster.local. 5 IN A 10.0.0.10");
    for expected in [
        "svc1.testns.svc.cluster.local. 5 IN A 10.0.0.1",
        "svc1.testns.svc.cluster.local. 5 IN SRV 0 100 80 svc1.testns.svc.cluster.local",
        "_http._tcp.svc1.testns.svc.cluster.local. 5 IN SRV 0 100 80 svc1.testns.svc.cluster.local",
        "svc-dual-stack.testns.svc.cluster.local. 5 IN AAAA 10::3",
        "hdls1.testns.svc.cluster.local. 5 IN A 172.0.0.2",
        "172-0-0-2.hdls1.testns.svc.cluster.local. 5 IN A 172.0.0.2",
        "dup-name.hdls1.testns.svc.cluster.local. 5 IN A 172.0.0.5",
        "_http._tcp.hdls1.testns.svc.cluster.local. 5 IN SRV 0 25 80 172-0-0-3.hdls1.testns.svc.cluster.local",
        "external.testns.svc.cluster.local. 5 IN CNAME ext.interwebs.test.",
        "kubedns.kube-system.svc.cluster.local. 5 IN A 10.0.0.10",
    ] {
        assert_eq!(
            lines.iter().filter(|line| *line == expected).count(),
            1,
            "{expected}\n{lines:#?}"
        );
    }
    for absent in ["unexposedns", " TXT ", " PTR ", ".pod."] {
        assert!(lines.iter().all(|line| !line.contains(absent)), "{absent}");
    }
    let owners: Vec<&str> = lines.iter().filter_map(|l| l.split(".testns.svc.").next()).collect();
    let place = |name: &str| owners.iter().position(|owner| *owner == name).unwrap();
    assert!(place("external") < place("hdls1") && place("hdls1") < place("svc1"));
    server.stop().await;
}

#[tokio::test]
async fn ixfr_tells_who_is_up_to_date() {
    let (world, settings) = table();
    let server = Server::start(Live::new(&world).hub().clone(), settings).await;
    let whole = transfer(&server, &Ask::new("cluster.local.", Rtype::AXFR).packet()).await;
    let serial: u32 = whole[0].split(' ').nth(6).unwrap().parse().unwrap();
    for (serial, expected) in [(serial, 1), (serial - 1, whole.len())] {
        let mut packet = Ask::new("cluster.local.", Rtype::IXFR).packet();
        packet[9] = 1;
        // An SOA at the zone: names by pointer and root, then five numbers.
        packet.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
        packet.extend([serial, 1, 1, 1, 1].map(u32::to_be_bytes).concat());
        assert_eq!(transfer(&server, &packet).await.len(), expected);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_large_zone_takes_many_messages() {
    let world = (0..5000_u16).fold(World::new().namespace("demo"), |world, number| {
        let [high, low] = number.to_be_bytes();
        world.service(cluster_ip(
            "demo",
            &format!("s{number}"),
            &[[10, 0, high, low].into()],
            vec![],
        ))
    });
    let (_, settings) = table();
    let settings = Settings { namespaces: None, ..settings };
    let server = Server::start(Live::new(&world).hub().clone(), settings).await;
    let lines = transfer(&server, &Ask::new("cluster.local.", Rtype::AXFR).packet()).await;
    assert_eq!(lines.iter().filter(|line| line.contains(".demo.svc.")).count(), 5000);
    server.stop().await;
}

#[tokio::test]
async fn who_may_not_have_it_is_refused() {
    for (to, tcp_allowed) in [
        (TransferTo::Nobody, false),
        (TransferTo::Everybody, true),
        (TransferTo::Addresses(["127.0.0.1".parse().unwrap()].into()), true),
        (TransferTo::Addresses(["127.0.0.9".parse().unwrap()].into()), false),
    ] {
        let (world, settings) = table();
        let settings = Settings { transfer_to: to.clone(), ..settings };
        let server = Server::start(Live::new(&world).hub().clone(), settings).await;
        for (name, expected) in [
            ("cluster.local.", tcp_allowed),
            ("svc.cluster.local.", false),
            ("example.org.", false),
        ] {
            let packet = Ask::new(name, Rtype::AXFR).packet();
            let reply = message(tcp(server.address(), &packet).await.unwrap());
            let allowed = reply.header().rcode() == Rcode::NOERROR;
            assert_eq!(allowed, expected, "{to:?} {name}");
            let reply = message(udp(server.address(), &packet, PATIENCE).await.unwrap());
            assert_eq!(reply.header().rcode(), Rcode::REFUSED, "{to:?} {name} over UDP");
        }
        server.stop().await;
    }
}
