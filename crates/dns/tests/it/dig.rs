//! The outside judge: dig asks, and its own reading of the reply counts.

use std::process::Command;

use portolan_dns::Settings;
use portolan_model::{ServiceKey, Transport};
use portolan_testkit::{Live, World, cluster_ip, endpoint, external_name, headless, port};

use crate::client::Server;

fn world() -> World {
    let db = ServiceKey::kubernetes("demo", "db");
    let mut primary = endpoint("10.1.0.7".parse().unwrap(), &[("pg", Transport::Tcp, 5432)]);
    primary.particulars.hostname = Some("db-0".into());
    World::new()
        .namespace("demo")
        .service(cluster_ip(
            "demo",
            "web",
            &["10.0.0.1".parse().unwrap()],
            vec![port("http", Transport::Tcp, 80)],
        ))
        .service(headless("demo", "db", vec![port("pg", Transport::Tcp, 5432)]))
        .endpoints("db-1", &db, vec![primary])
        .service(external_name("demo", "alias", "web.demo.svc.cluster.local"))
        .registered(
            "registry",
            "demo",
            "com.example.Greeter",
            vec![endpoint("10.1.0.9".parse().unwrap(), &[("dubbo", Transport::Tcp, 20880)])],
        )
}

/// Runs dig and returns its output without empty lines.
async fn dig(server: &Server, arguments: &[&str]) -> Vec<String> {
    let address = server.address();
    let mut command = Command::new("dig");
    command.arg(format!("@{}", address.ip())).arg("-p").arg(address.port().to_string());
    command.args(["+tries=1", "+time=10"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap_or_else(|error| {
        panic!("this test needs dig (Debian: bind9-dnsutils) on the PATH: {error}")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn dig_reads_what_we_mean() {
    let server = Server::start(Live::new(&world()).hub().clone(), Settings::default()).await;
    for (arguments, expected) in [
        (&["web.demo.svc.cluster.local", "A"][..], &["10.0.0.1"][..]),
        (&["+tcp", "web.demo.svc.cluster.local", "A"], &["10.0.0.1"]),
        (&["+noedns", "db.demo.svc.cluster.local", "A"], &["10.1.0.7"]),
        (
            &["_pg._tcp.db.demo.svc.cluster.local", "SRV"],
            &["0 100 5432 db-0.db.demo.svc.cluster.local."],
        ),
        (&["-x", "10.0.0.1"], &["web.demo.svc.cluster.local."]),
        (&["-x", "10.1.0.7"], &["db-0.db.demo.svc.cluster.local."]),
        (&["-x", "10.1.0.9"], &["10-1-0-9.com.example.Greeter.demo.registry.cluster.local."]),
        (&["alias.demo.svc.cluster.local", "A"], &["web.demo.svc.cluster.local.", "10.0.0.1"]),
        (&["com.example.greeter.demo.registry.cluster.local", "A"], &["10.1.0.9"]),
        (&["10-1-2-3.demo.pod.cluster.local", "A"], &["10.1.2.3"]),
        (&["dns-version.cluster.local", "TXT"], &["\"1.1.0\""]),
        (&["cluster.local", "NS"], &["ns.dns.cluster.local."]),
        (&["ns.dns.cluster.local", "A"], &["127.0.0.1"]),
        (&["web.demo.svc.cluster.local", "AAAA"], &[]),
    ] {
        let arguments: Vec<&str> = [&["+short"][..], arguments].concat();
        assert_eq!(dig(&server, &arguments).await, expected, "{arguments:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn dig_sees_flags_and_codes_and_no_warning() {
    let server = Server::start(Live::new(&world()).hub().clone(), Settings::default()).await;
    for (arguments, wanted, unwanted) in [
        (
            &["web.demo.svc.cluster.local", "A"][..],
            &["status: NOERROR", "flags: qr aa rd"][..],
            &[][..],
        ),
        (
            &["no.demo.svc.cluster.local", "A"],
            &["status: NXDOMAIN", "flags: qr aa rd", "\tSOA\t"],
            &[],
        ),
        (&["example.org", "A"], &["status: REFUSED", "EDE: 20 (Not Authoritative)"], &[" aa "]),
        (
            &["+edns=1", "+noednsneg", "web.demo.svc.cluster.local"],
            &["status: BADVERS", "EDNS: version: 0"],
            &[],
        ),
        (
            &["+dnssec", "web.demo.svc.cluster.local"],
            &["status: NOERROR", "flags: do; udp: 1232"],
            &[],
        ),
        (&["+opcode=notify", "cluster.local", "SOA"], &["status: REFUSED"], &[]),
    ] {
        let output = dig(&server, arguments).await.join("\n");
        for wanted in wanted {
            assert!(output.contains(wanted), "{arguments:?}: no {wanted:?} in\n{output}");
        }
        for unwanted in unwanted.iter().chain(&["malformed", "extra bytes", "bad packet"]) {
            assert!(!output.contains(unwanted), "{arguments:?}: {unwanted:?} in\n{output}");
        }
    }
    server.stop().await;
}
