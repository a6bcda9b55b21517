//! Server blocks from Corefiles: what each directive makes of a question, through
//! sockets. The expectations are CoreDNS' answers to the same questions.

use std::{collections::BTreeSet, path::Path};

use domain::base::{Rtype, iana::OptRcode, opt::AllOptData};
use portolan_catalog::Hub;
use portolan_dns::{Settings, Step, config::FaceConfig, corefile};
use portolan_model::{ServiceKey, Transport};
use portolan_testkit::{Live, World, cluster_ip, external_name, port};

use crate::{
    client::{Ask, PATIENCE, SILENCE, Server, message, tcp, udp},
    upstream::Upstream,
};

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
        // We are a Pod, to autopath.
        .pod("demo", "client", "127.0.0.1".parse().unwrap())
}

fn face(text: &str) -> FaceConfig {
    let read = corefile::read(text, Path::new("Corefile"), &corefile::Disk);
    read.unwrap_or_else(|fault| panic!("{fault}\n{text}")).config
}

/// An upstream that knows `www.example.org`, and every name in `up.test`.
async fn upstream() -> Upstream {
    Upstream::start(|heard| {
        Some(match heard.name.as_str() {
            "www.example.org" => heard.records(&["www.example.org. 300 IN A 192.0.2.1"]),
            name if name.ends_with("up.test") => {
                heard.records(&[&format!("{name}. 300 IN A 192.0.2.2")])
            }
            _ => heard.reply(
                domain::base::iana::Rcode::NXDOMAIN,
                &[],
                &["test. 60 IN SOA ns.test. hm.test. 1 2 3 4 60"],
            ),
        })
    })
    .await
}

/// A server that runs a Corefile in which `UPSTREAM` stands for that one.
async fn server(text: &str, upstream: &Upstream) -> Server {
    let text = text.replace("UPSTREAM", &upstream.address.to_string());
    let hub = Live::new(&world()).hub().clone();
    Server::by(hub, Settings::default(), Some(face(&text))).await
}

/// Flags, result code, TTL and data of each answer, extended error; or silence.
async fn asked(server: &Server, question: &str) -> String {
    let (name, kind) = question.split_once(' ').unwrap_or((question, "A"));
    let mut ask = Ask::new(name, kind.parse().unwrap());
    ask.edns = Some((1232, 0));
    let patience = if name.contains("silence") { SILENCE } else { PATIENCE };
    let Some(reply) = udp(server.address(), &ask.packet(), patience).await else {
        return "silence".to_owned();
    };
    let reply = message(reply);
    assert_eq!(reply.sole_question().unwrap().qname().to_string(), ask.name.to_string());
    let mut words = vec![reply.opt_rcode().to_string()];
    if reply.header().aa() {
        words.push("aa".to_owned());
    }
    for record in reply.answer().unwrap() {
        let record = record.unwrap();
        let any = record.to_any_record::<domain::rdata::AllRecordData<_, _>>().unwrap();
        let (owner, data) = (any.owner().to_string(), any.data().to_string());
        words.push(format!("{owner} {} {} {data}", any.ttl().as_secs(), any.rtype()));
    }
    for option in reply.opt().unwrap().opt().iter::<AllOptData<_, _>>() {
        if let AllOptData::ExtendedError(error) = option.unwrap() {
            words.push(format!("ede {}", error.code().to_int()));
        }
    }
    words.join(" ")
}

/// One Corefile, and what it makes of questions.
async fn check(text: &str, cases: &[(&str, &str)]) {
    let upstream = upstream().await;
    let server = server(text, &upstream).await;
    for (question, expected) in cases {
        assert_eq!(asked(&server, question).await, *expected, "{question} in\n{text}");
    }
    server.stop().await;
}

#[tokio::test]
async fn blocks_by_their_deepest_zone() {
    check(
        "cluster.local {\n kubernetes\n}\nup.test {\n forward . UPSTREAM\n}\n\
         b.up.test {\n hosts none {\n 10.1.1.1 a.b.up.test\n }\n}",
        &[
            ("web.demo.svc.cluster.local", "NOERROR aa web.demo.svc.cluster.local 5 A 10.0.0.1"),
            ("no.demo.svc.cluster.local", "NXDOMAIN aa"),
            ("a.up.test", "NOERROR a.up.test 300 A 192.0.2.2"),
            ("a.b.up.test", "NOERROR aa a.b.up.test 3600 A 10.1.1.1"),
            ("b.b.up.test", "SERVFAIL ede 0"),
            // The parent answers for DS.
            ("b.up.test DS", "NOERROR b.up.test 300 A 192.0.2.2"),
            ("www.example.org", "REFUSED ede 20"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_kubernetes_lets_through() {
    check(
        ". {\n kubernetes cluster.local in-addr.arpa {\n fallthrough in-addr.arpa\n }\n \
         forward . UPSTREAM\n log\n}",
        &[
            ("web.demo.svc.cluster.local", "NOERROR aa web.demo.svc.cluster.local 5 A 10.0.0.1"),
            ("no.demo.svc.cluster.local", "NXDOMAIN aa"),
            (
                "1.0.0.10.in-addr.arpa PTR",
                "NOERROR aa 1.0.0.10.in-addr.arpa 5 PTR web.demo.svc.cluster.local.",
            ),
            ("9.9.9.9.in-addr.arpa PTR", "NXDOMAIN"),
            (
                "away.demo.svc.cluster.local",
                "NOERROR aa away.demo.svc.cluster.local 5 CNAME www.example.org. \
                 www.example.org 300 A 192.0.2.1",
            ),
            ("www.example.org", "NOERROR www.example.org 300 A 192.0.2.1"),
        ],
    )
    .await;
    check(
        ". {\n kubernetes cluster.local up.test {\n fallthrough\n }\n forward . UPSTREAM\n}",
        &[
            ("no.demo.svc.cluster.local", "NXDOMAIN"),
            ("x.up.test", "NOERROR x.up.test 300 A 192.0.2.2"),
        ],
    )
    .await;
}

#[tokio::test]
async fn lists_of_hosts() {
    check(
        ". {\n hosts none test 10.in-addr.arpa {\n 10.1.1.1 a.test b.test\n fd00::1 a.test\n \
         10.1.1.2 a.test\n 10.1.1.9 *.w.test\n ttl 60\n fallthrough up.test\n }\n \
         forward . UPSTREAM\n}",
        &[
            ("a.test", "NOERROR aa a.test 60 A 10.1.1.1 a.test 60 A 10.1.1.2"),
            ("a.test AAAA", "NOERROR aa a.test 60 AAAA fd00::1"),
            ("b.test AAAA", "NOERROR aa"),
            ("b.test TXT", "NOERROR aa"),
            ("x.w.test", "NOERROR aa x.w.test 60 A 10.1.1.9"),
            ("1.1.1.10.in-addr.arpa PTR", "NOERROR aa 1.1.1.10.in-addr.arpa 60 PTR a.test. 1.1.1.10.in-addr.arpa 60 PTR b.test."),
            ("none.test", "SERVFAIL ede 0"),
            ("x.up.test", "NOERROR x.up.test 300 A 192.0.2.2"),
            ("www.example.org", "NOERROR www.example.org 300 A 192.0.2.1"),
        ],
    )
    .await;
}

#[tokio::test]
async fn templates() {
    check(
        ". {\n template IN AAAA . {\n rcode NOERROR\n }\n \
         template IN A a.test {\n match ^ip-(?P<x>[0-9]+)[.]a[.]test[.]$\n \
         answer \"{{ .Name }} 60 IN A 10.0.0.{{ .Group.x }}\"\n fallthrough\n }\n \
         template ANY ANY blocked.test {\n rcode NXDOMAIN\n \
         authority \"blocked.test. 60 IN SOA ns.blocked.test. hm.blocked.test. 1 2 3 4 60\"\n }\n \
         template IN A alias.test {\n answer \"{{ .Name }} 5 IN CNAME www.example.org.\"\n }\n \
         template IN A bad.test {\n answer \"{{ .Name }} 60 IN A {{ .Type }}\"\n }\n \
         template IN MX strict.test {\n match ^x\n answer \"{{ .Name }} IN MX 10 mx.test\"\n }\n \
         template IN TXT ede.test {\n answer \"{{ .Name }} 1 IN TXT \\\"two words\\\"\"\n \
         ederror 21 \"no\"\n }\n forward . UPSTREAM\n}",
        &[
            ("www.example.org AAAA", "NOERROR aa"),
            ("ip-7.a.test", "NOERROR aa ip-7.a.test 60 A 10.0.0.7"),
            ("IP-7.a.test", "NOERROR aa ip-7.a.test 60 A 10.0.0.7"),
            ("ip-x.a.test", "NXDOMAIN"),
            ("x.blocked.test", "NXDOMAIN aa"),
            ("x.blocked.test TXT", "NXDOMAIN aa"),
            (
                "a.alias.test",
                "NOERROR aa a.alias.test 5 CNAME www.example.org. www.example.org 300 A 192.0.2.1",
            ),
            ("bad.test", "SERVFAIL ede 0"),
            ("x.strict.test MX", "NOERROR aa x.strict.test 3600 MX 10 mx.test."),
            ("y.strict.test MX", "SERVFAIL ede 0"),
            ("ede.test TXT", "NOERROR aa ede.test 1 TXT \"two words\" ede 21"),
        ],
    )
    .await;
}

#[tokio::test]
async fn rewritten_names() {
    check(
        ". {\n rewrite name old.test www.example.org\n \
         rewrite name suffix .corp.test .demo.svc.cluster.local answer auto\n \
         rewrite name regex ^(.*)[.]plain[.]test[.]$ {1}.up.test\n \
         rewrite continue ttl suffix .up.test 7\n rewrite type TXT A\n \
         rewrite rcode gone.test NXDOMAIN NOERROR\n \
         kubernetes cluster.local\n forward . UPSTREAM\n cache\n}",
        &[
            ("old.test", "NOERROR old.test 300 A 192.0.2.1"),
            ("OLD.test", "NOERROR old.test 300 A 192.0.2.1"),
            ("web.corp.test", "NOERROR aa web.corp.test 5 A 10.0.0.1"),
            ("no.corp.test", "NXDOMAIN aa"),
            ("x.plain.test", "NOERROR x.up.test 300 A 192.0.2.2"),
            ("x.up.test", "NOERROR x.up.test 7 A 192.0.2.2"),
            ("www.example.org TXT", "NOERROR www.example.org 300 A 192.0.2.1"),
            ("gone.test", "NOERROR"),
            ("gone2.test", "NXDOMAIN"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_search_path_of_a_pod_is_walked_for_it() {
    let text = ". {\n autopath @kubernetes\n kubernetes cluster.local\n forward . UPSTREAM\n}";
    check(
        text,
        &[
            (
                "www.example.org.demo.svc.cluster.local",
                "NOERROR www.example.org.demo.svc.cluster.local 300 CNAME www.example.org. \
                 www.example.org 300 A 192.0.2.1",
            ),
            (
                "web.demo.svc.demo.svc.cluster.local",
                "NOERROR aa web.demo.svc.demo.svc.cluster.local 5 CNAME \
                 web.demo.svc.cluster.local. web.demo.svc.cluster.local 5 A 10.0.0.1",
            ),
            ("web.demo.svc.cluster.local", "NOERROR aa web.demo.svc.cluster.local 5 A 10.0.0.1"),
            ("gone.test.demo.svc.cluster.local", "NXDOMAIN aa"),
            // Not the first name of the path: clients that walk by themselves.
            ("www.example.org.svc.cluster.local", "NXDOMAIN aa"),
            ("www.example.org", "NOERROR www.example.org 300 A 192.0.2.1"),
        ],
    )
    .await;
}

#[tokio::test]
async fn who_may_ask_for_what() {
    check(
        ". {\n acl up.test {\n allow type A net 127.0.0.0/8\n block type TXT\n \
         filter type AAAA net 127.0.0.1\n drop type MX\n block net 10.0.0.0/8\n }\n any\n local\n \
         minimal\n header {\n response set ra\n response clear aa\n }\n \
         kubernetes cluster.local\n forward . UPSTREAM\n}",
        &[
            ("a.up.test", "NOERROR a.up.test 300 A 192.0.2.2"),
            ("a.up.test TXT", "REFUSED ede 15"),
            ("a.up.test AAAA", "NOERROR ede 17"),
            ("silence.up.test MX", "silence"),
            ("a.up.test PTR", "NOERROR a.up.test 300 A 192.0.2.2"),
            ("a.up.test ANY", "NOERROR a.up.test 8482 HINFO \"ANY obsoleted\" \"See RFC 8482\""),
            ("localhost", "NOERROR localhost 604800 A 127.0.0.1"),
            ("x.localhost AAAA", "NOERROR x.localhost 604800 AAAA ::1"),
            ("1.0.0.127.in-addr.arpa PTR", "NOERROR 1.0.0.127.in-addr.arpa 604800 PTR localhost."),
            ("2.0.0.127.in-addr.arpa PTR", "NXDOMAIN"),
            ("web.demo.svc.cluster.local", "NOERROR web.demo.svc.cluster.local 5 A 10.0.0.1"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_cache_by_its_directive() {
    let upstream = upstream().await;
    let text = ". {\n forward . UPSTREAM\n cache 30 {\n disable denial\n }\n}";
    let server = server(text, &upstream).await;
    for _ in 0..3 {
        assert_eq!(asked(&server, "a.up.test").await, "NOERROR a.up.test 30 A 192.0.2.2");
        assert_eq!(asked(&server, "gone.test").await, "NXDOMAIN");
    }
    let heard = |name: &str| upstream.heard().iter().filter(|heard| heard.name == name).count();
    assert_eq!((heard("a.up.test"), heard("gone.test")), (1, 3));
    let page = server.metrics.encode().unwrap();
    let labels = "{server=\"dns://:53\",type=\"success\",zones=\".\",view=\"\"}";
    assert!(page.contains(&format!("coredns_cache_hits_total{labels} 2")), "{page}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_is_asked_over_tcp_alone() {
    let upstream = upstream().await;
    let text = ". {\n forward . UPSTREAM {\n force_tcp\n except no.test\n }\n bufsize 512\n log\n}";
    let server = server(text, &upstream).await;
    assert_eq!(asked(&server, "a.up.test").await, "NOERROR a.up.test 300 A 192.0.2.2");
    assert_eq!(asked(&server, "b.up.test").await, "NOERROR b.up.test 300 A 192.0.2.2");
    assert!(upstream.heard().iter().all(|heard| heard.tcp));
    assert_eq!(asked(&server, "a.no.test").await, "REFUSED ede 20");
    let ask = Ask::new("a.up.test", Rtype::A);
    let reply = message(tcp(server.address(), &ask.packet()).await.unwrap());
    assert_eq!(reply.opt_rcode(), OptRcode::NOERROR);
    server.stop().await;
}

#[tokio::test]
async fn a_walk_tells_its_steps() {
    let upstream = upstream().await;
    let text = ". {\n rewrite name old.test web.demo.svc.cluster.local\n \
                kubernetes cluster.local\n forward . UPSTREAM\n}";
    let server = server(text, &upstream).await;
    let steps = |name: &str| {
        let steps = server.running.explain(name, Rtype::A, [127, 0, 0, 1].into());
        steps
            .unwrap()
            .into_iter()
            .map(|Step { stage, text }| format!("{stage}: {text}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        steps("old.test"),
        [
            "rewrite: a rule fits: now web.demo.svc.cluster.local. A",
            "zone: cluster.local. (services and Pods)",
            "name: web.demo.svc.cluster.local.: service demo/web, 0 of 0 endpoints served, 1 hits",
            "answer: 1 records",
            "kubernetes: NOERROR, 1 records",
        ]
    );
    assert_eq!(server.running.explain("a..b", Rtype::A, [127, 0, 0, 1].into()), None);
    assert_eq!(
        steps("www.example.org"),
        [
            "rewrite: next: no rule fits",
            "kubernetes: next: in no zone of Services",
            "forward: upstream servers are asked for www.example.org. A",
        ]
    );
    assert!(upstream.heard().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn another_configuration_takes_over() {
    let upstream = upstream().await;
    let hosts = |address: &str| {
        format!("up.test {{\n forward . UPSTREAM\n cache\n}}\na.test {{\n hosts none {{\n {address} a.test\n }}\n}}")
            .replace("UPSTREAM", &upstream.address.to_string())
    };
    let server = server(&hosts("10.1.1.1"), &upstream).await;
    assert_eq!(asked(&server, "a.test").await, "NOERROR aa a.test 3600 A 10.1.1.1");
    assert_eq!(asked(&server, "x.up.test").await, "NOERROR x.up.test 300 A 192.0.2.2");
    server.running.reconfigure(&face(&hosts("10.1.1.2"))).unwrap();
    assert_eq!(asked(&server, "a.test").await, "NOERROR aa a.test 3600 A 10.1.1.2");
    // The cache of servers that stay is kept.
    asked(&server, "x.up.test").await;
    assert_eq!(upstream.heard().len(), 1);
    let broken = face(". {\n forward . /none/resolv.conf\n}");
    let why = server.running.reconfigure(&broken).unwrap_err();
    assert!(why.starts_with("/none/resolv.conf: "), "{why}");
    assert_eq!(asked(&server, "a.test").await, "NOERROR aa a.test 3600 A 10.1.1.2");
    server.stop().await;
}

/// For how long each worker says that clients may keep an answer, in milliseconds, once all
/// have said so.
async fn residues(hub: &Hub) -> BTreeSet<u64> {
    let mut changed = hub.board().watch();
    loop {
        changed.borrow_and_update();
        let members = hub.board().members().into_iter();
        let told: Option<_> = members.map(|member| Some(member.ack?.residue_ms)).collect();
        if let Some(told) = told.filter(|told: &BTreeSet<u64>| !told.is_empty()) {
            return told;
        }
        tokio::time::timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn what_was_told_with_a_longer_ttl_is_waited_for() {
    let text = |ttl: u32| format!("cluster.local {{\n kubernetes {{\n ttl {ttl}\n }}\n}}");
    let live = Live::new(&world());
    let (hub, settings) = (live.hub().clone(), Settings::default());
    let server = Server::by(hub, settings, Some(face(&text(300)))).await;
    let web = "web.demo.svc.cluster.local";
    let told = |ttl: u32| format!("NOERROR aa {web} {ttl} A 10.0.0.1");
    assert_eq!(asked(&server, web).await, told(300));
    let mut changed = live.hub().board().watch();
    changed.borrow_and_update();
    server.running.reconfigure(&face(&text(5))).unwrap();
    tokio::time::timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    assert_eq!(asked(&server, web).await, told(5));
    let longest = residues(live.hub()).await.pop_last();
    assert!(longest > Some(5_000), "{longest:?} ms");
    server.stop().await;
}

#[tokio::test]
async fn what_a_stage_makes_of_a_ttl_is_waited_for() {
    for (stage, expected) in [
        ("", 5_000),
        ("rewrite ttl exact web.demo.svc.cluster.local. 20-60", 20_000),
        ("rewrite ttl exact web.demo.svc.cluster.local. 3", 5_000),
        ("k8s_external example.org {\n ttl 77\n }", 77_000),
    ] {
        let text = format!("cluster.local example.org {{\n {stage}\n kubernetes cluster.local\n}}");
        let live = Live::new(&world());
        let server = Server::by(live.hub().clone(), Settings::default(), Some(face(&text))).await;
        assert_eq!(residues(live.hub()).await, BTreeSet::from([expected]), "{stage}");
        server.stop().await;
    }
}

/// The NSID option of a reply to a query that asks for it, and whether it has other data.
async fn named(server: &Server, name: &str) -> Option<String> {
    let mut packet = Ask { edns: Some((1232, 0)), ..Ask::new(name, Rtype::A) }.packet();
    // An empty option behind what is the last record.
    let length = packet.len();
    packet[length - 1] = 4;
    packet.extend([0, 3, 0, 0]);
    let reply = message(udp(server.address(), &packet, PATIENCE).await.unwrap());
    let opt = reply.opt().unwrap();
    let mut options = opt.opt().iter::<AllOptData<_, _>>();
    options.find_map(|option| match option {
        Ok(AllOptData::Nsid(nsid)) => Some(String::from_utf8_lossy(nsid.as_slice()).into_owned()),
        _ => None,
    })
}

#[tokio::test]
async fn what_a_server_calls_itself() {
    let upstream = upstream().await;
    let text = ". {\n nsid node 7\n kubernetes cluster.local\n loadbalance\n \
                forward . UPSTREAM\n}\nexample.net {\n any\n forward . UPSTREAM\n}\n";
    let server = server(text, &upstream).await;
    for (name, expected) in [
        // Compiled otherwise, from the catalog, from an upstream server.
        ("web.demo.svc.cluster.local", Some("node 7")),
        ("demo.svc.cluster.local", Some("node 7")),
        ("www.example.org", Some("node 7")),
        ("www.example.net", None),
    ] {
        assert_eq!(named(&server, name).await.as_deref(), expected, "{name}");
        // Who does not ask is not told.
        let ask = Ask { edns: Some((1232, 0)), ..Ask::new(name, Rtype::A) };
        let reply = message(udp(server.address(), &ask.packet(), PATIENCE).await.unwrap());
        let opt = reply.opt().unwrap();
        let mut options = opt.opt().iter::<AllOptData<_, _>>();
        assert!(!options.any(|option| matches!(option, Ok(AllOptData::Nsid(_)))), "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn endpoints_without_names_have_no_pointers() {
    let upstream = upstream().await;
    let endpoint = portolan_testkit::endpoint([10, 0, 9, 1].into(), &[]);
    let world = World::new()
        .namespace("demo")
        .service(portolan_testkit::headless("demo", "db", vec![]))
        .endpoints("db-1", &ServiceKey::kubernetes("demo", "db"), vec![endpoint]);
    for (line, expected) in [("", "NOERROR aa"), ("noendpoints", "NXDOMAIN")] {
        let text = format!(
            ". {{\n kubernetes cluster.local in-addr.arpa {{\n fallthrough in-addr.arpa\n \
             {line}\n }}\n forward . {}\n}}\n",
            upstream.address
        );
        let hub = Live::new(&world).hub().clone();
        let server = Server::by(hub, Settings::default(), Some(face(&text))).await;
        let said = asked(&server, "1.9.0.10.in-addr.arpa PTR").await;
        assert!(said.starts_with(expected), "{line}: {said}");
        server.stop().await;
    }
}
